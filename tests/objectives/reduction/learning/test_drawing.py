"""A network that draws while it trains is retrained alike each time, whatever was drawn before."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from objectives.data.dataset import Dataset
from objectives.device.clock import Clock
from objectives.export import ExportedModel
from objectives.networks.architecture import Downsampling
from objectives.networks.network import Network, build
from objectives.networks.plain import residual
from objectives.reduction.learning.blockwise import taught
from objectives.reduction.learning.retraining import retrained
from objectives.reduction.settings import Reduction
from objectives.reduction.terms import Terms
from objectives.task import Seeds
from tests.objectives.strategies.cases import same_weights


@pytest.mark.parametrize("way", ["whole", "blocks"])
def test_what_was_drawn_before_does_not_change_a_retraining(way: str, base: ExportedModel, digits: Dataset) -> None:
    pooled = build(replace(residual(base.network.architecture), downsampling=Downsampling("s3")))
    pooled.load_state_dict(base.network.state_dict())
    terms, clock = (
        Terms.of(replace(base, network=pooled.eval()), digits, Reduction(epochs=1)),
        Clock(torch.device("cpu")),
    )
    found: list[Network] = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model, before = (deepcopy(terms.trainable(pooled)) for _ in range(2))
        if way == "whole":
            found.append(retrained(model, terms, Seeds(1, 2, 3), 1, clock))
        else:
            found.append(taught(model, before, "stage1", terms, Seeds(1, 2, 3), clock))
    assert same_weights(*found)
    assert not same_weights(found[0], pooled)
