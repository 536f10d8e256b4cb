"""Strategies on the families for large images: each leaves such a network, smaller, grown or with another stem."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from objectives.data.augment import Normalisation
from objectives.data.dataset import Dataset
from objectives.export import export, load_model
from objectives.networks import flops
from objectives.networks.plain import residual
from objectives.reduction.settings import Reduction
from objectives.reduction.snare import reduced
from objectives.reduction.terms import as_taken
from objectives.strategies.base import Strategy
from objectives.strategies.haar_stem import HaarStem
from objectives.strategies.kernel_rescaling import KernelRescaling
from objectives.strategies.net2net import Net2Net
from objectives.strategies.prune_train import PruneTrain
from objectives.strategies.strided_stem import StridedStem
from objectives.strategies.whitening import Whitening
from objectives.train import Trained
from tests.objectives.reduction.test_snare import ran
from tests.objectives.strategies.cases import CASES, EMULATED, LARGE, begin, finish
from tests.objectives.strategies.test_whitening import outputs, smooth_images

SHORT = ("Net2Net", "PruneTrain", "Freeze")
EACH = [
    pytest.param(name, marks=[pytest.mark.long] * (name not in SHORT))
    for name, case in CASES.items()
    if not case.active.number_formats and name not in (*EMULATED[1:], "Transfer")  # whose start there is of two stages
]
FEW_UPDATES = ("BatchGrowth", "Plateau")  # too few for these networks to learn much in
WITHOUT_NORMS = {"StandardizationLoss": 0.02}  # rates
# (strategies, what becomes of the stem of stride 2 with kernels of 7 pixels: Haar transform, stride, kernel)
STEMS: dict[str, tuple[tuple[Strategy, ...], tuple[str, int, int]]] = {
    "wavelets": ((HaarStem(),), ("haar", 1, 3)),
    "strides": ((StridedStem(),), ("conv", 4, 7)),
    "kernels that grow": ((KernelRescaling(kernel=7),), ("conv", 2, 7)),
    "kernels that grow on wavelets": ((HaarStem(), KernelRescaling()), ("haar", 1, 5)),
    "whitened": ((Whitening(),), ("conv", 2, 7)),
    "whitened wavelets": ((HaarStem(), Whitening()), ("haar", 1, 3)),
    "whitened strides that grow": ((StridedStem(), Net2Net(), Whitening()), ("conv", 4, 7)),
}


def assert_round_trip(trained: Trained, dataset: Dataset, folder: Path) -> None:
    """What is loaded computes what was trained, bit for bit, and is counted as it is."""
    export(trained, dataset, folder, {})
    loaded = load_model(folder)
    x = Normalisation(dataset, torch.device("cpu"))(dataset.val.x)
    assert torch.equal(loaded.network(x), trained.model(x))
    assert loaded.network.architecture == trained.model.architecture
    assert trained.report.inference_flops == flops.count(trained.model.architecture, dataset.size)[0]


@pytest.mark.parametrize("name", EACH)
def test_it_trains_and_what_it_leaves_is_exported(name: str, digits: Dataset, tmp_path: Path) -> None:
    case = CASES[name]
    number_format = case.ground.plain.number_format
    lr = WITHOUT_NORMS.get(name, LARGE.plain.lr)
    reports, trained = finish(LARGE.using(case.active, number_format=number_format, lr=lr), digits, LARGE.task)
    assert reports[-1].epoch == reports[-1].epochs
    assert not any(report.diverged for report in reports)
    assert name in (*FEW_UPDATES, *WITHOUT_NORMS) or reports[-1].accuracy > 0.25
    assert residual(trained.model.architecture).stem_pool
    assert_round_trip(trained, digits, tmp_path / "model")


@pytest.mark.parametrize(("strategies", "stem"), STEMS.values(), ids=STEMS.keys())
def test_what_changes_a_stem_changes_this_one(
    strategies: tuple[Strategy, ...], stem: tuple[str, int, int], digits: Dataset
) -> None:
    reports, trained = finish(LARGE.using(*strategies, epochs=2), digits, LARGE.task)
    found = residual(trained.model.architecture)
    assert (found.stem, found.stem_stride, found.stem_kernel, found.stem_pool) == (*stem, True)
    assert not any("does nothing" in event for report in reports for event in report.events)
    assert not reports[-1].diverged


def test_a_whitening_stem_of_large_kernels_puts_out_what_is_uncorrelated() -> None:
    """Of 7x7 pixels in colour, in pairs of opposite sign."""
    dataset = smooth_images(3)
    state = begin(LARGE.using(Whitening(), width=0.25), dataset, LARGE.task)
    weight = state.trainee.model.convolutions()[0].weight.detach()
    assert weight.shape == (16, 3, 7, 7)
    assert torch.equal(weight[::2], -weight[1::2])
    covariance = torch.cov(outputs(state, dataset)[::2])
    off = covariance - covariance.diag().diag()
    assert off.abs().max() < 1e-3
    torch.testing.assert_close(covariance.diag(), torch.ones(8).double(), rtol=0, atol=0.1)


@pytest.mark.long
def test_pruning_and_growing_meet_in_one_run(digits: Dataset, tmp_path: Path) -> None:
    both = (Net2Net(at=0.25, until=0.25), PruneTrain(lpr=0.5, interval=1, threshold=0.3))
    reports, trained = finish(LARGE.using(*both, width=0.25), digits, LARGE.task)
    events = " ".join(event for report in reports for event in report.events)
    assert "grown 8[8 8]-16[16 16]-32[32 32]-64[64 64] to 16[16 16]-32[32 32]-64[64 64]-128[128 128]" in events
    assert "pruned" in events
    assert_round_trip(trained, digits, tmp_path / "model")


def test_it_is_made_smaller(digits: Dataset, tmp_path: Path) -> None:
    _, trained = finish(LARGE.using(epochs=1), digits, LARGE.task)
    export(trained, digits, tmp_path / "base", {})
    base = load_model(tmp_path / "base")
    settings = Reduction(epsilon=1.0, epochs=1, iterations=2)
    attempts, smaller = ran(reduced(base, digits, settings, seed=0))
    assert [each.accepted for each in attempts] == [True] * 2
    assert n_parameters(smaller) < 0.8 * n_parameters(trained)
    assert_round_trip(smaller, as_taken(base, digits), tmp_path / "smaller")


def n_parameters(trained: Trained) -> int:
    return sum(parameter.numel() for parameter in trained.model.parameters())
