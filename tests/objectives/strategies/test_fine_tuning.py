"""Laws of runs that fine-tune a trained network: what freezes, probes and slows layers, together and with pruning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from objectives.data.dataset import Dataset, Images
from objectives.export import export, load_model
from objectives.strategies.base import Strategy
from objectives.strategies.discriminative_rates import DiscriminativeRates
from objectives.strategies.frozen_stages import FrozenStages
from objectives.strategies.linear_probe import LinearProbe
from objectives.strategies.prune_train import PruneTrain
from objectives.strategies.transfer import Transfer
from tests.objectives.strategies.cases import TASK, finish, using

TUNED = {"lr": 0.002, "epochs": 2}


@pytest.fixture(scope="module")
def start(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Transfer:
    """A network that was trained on digits."""
    _, trained = finish(using(epochs=8), digits)
    folder = tmp_path_factory.mktemp("trained") / "net"
    export(trained, digits, folder, {"family": TASK.family, "stem_stride": TASK.stem_stride})
    return Transfer(str(folder))


@pytest.fixture(scope="module")
def renamed(digits: Dataset) -> Dataset:
    """The same images under other names, so that no classifier knows them."""
    train, val = (Images(images.x, (images.y + 3) % 10) for images in (digits.train, digits.val))
    return replace(digits, train=train, val=val, classes=tuple("abcdefghij"))


def test_a_probe_reads_from_the_first_step_on_what_a_start_has_learnt(start: Transfer, renamed: Dataset) -> None:
    whole = FrozenStages(parts=3)
    first = {}
    for name, others in {"at random": (), "probe": (LinearProbe(),)}.items():
        reports, _ = finish(using(start, whole, *others, **TUNED), renamed)
        first[name] = reports[0].accuracy
    assert first["probe"] > 0.8 > first["at random"] + 0.2


def test_all_but_the_head_frozen_leaves_the_body_of_the_start(start: Transfer, renamed: Dataset) -> None:
    _, trained = finish(using(start, FrozenStages(parts=3), LinearProbe(), **TUNED), renamed)
    before, after = load_model(Path(start.source)).network.state_dict(), trained.model.state_dict()
    assert [name for name in before if not torch.equal(before[name], after[name])] == ["head.weight", "head.bias"]


TOGETHER: dict[str, tuple[tuple[Strategy, ...], dict[str, object], str]] = {  # strategies, settings, what they do
    "thawed": (
        (FrozenStages(parts=2, until=0.75), LinearProbe(), DiscriminativeRates()),
        {"lr": 0.05},
        "stem trains from here on",
    ),
    "pruned": (
        (PruneTrain(lpr=0.6, interval=1, threshold=0.1), FrozenStages(parts=2), LinearProbe()),
        {"lr": 0.2, "epochs": 8},
        "pruned 8[8]-16[16] to",
    ),
}


@pytest.mark.parametrize("name", TOGETHER)
def test_they_fine_tune_together_and_what_they_leave_is_exported(
    name: str, start: Transfer, renamed: Dataset, tmp_path: Path
) -> None:
    strategies, settings, word = TOGETHER[name]
    reports, trained = finish(using(start, *strategies, **settings), renamed)
    assert reports[-1].accuracy > 0.7
    events = " ".join(event for report in reports for event in report.events)
    assert all(
        each in events for each in ("begins from", "a new classifier", "the head starts as a linear probe", word)
    )
    export(trained, renamed, tmp_path / "tuned", {})
    again = load_model(tmp_path / "tuned").network
    x = torch.rand(5, 1, 8, 8)
    assert torch.equal(again(x), trained.model(x))
