"""The laws of KernelRescaling."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from objectives.data.augment import Normalisation
from objectives.data.dataset import Dataset
from objectives.export import export, load_model
from objectives.networks import flops
from objectives.networks.architecture import build
from objectives.networks.resnet import ResNet
from objectives.state import TrainState
from objectives.strategies.base import Outline, Strategy
from objectives.strategies.ema import Ema
from objectives.strategies.freeze import Freeze
from objectives.strategies.haar_stem import HaarStem
from objectives.strategies.kernel_rescaling import KernelRescaling
from objectives.strategies.lookahead import Lookahead
from objectives.strategies.lottery_ticket import LotteryTicket
from objectives.strategies.net2net import Net2Net
from objectives.strategies.plateau import Plateau
from objectives.strategies.progressive_resolution import ProgressiveResolution
from objectives.strategies.prune_train import PruneTrain
from objectives.strategies.swa import Swa
from objectives.strategies.whitening import Whitening
from objectives.train import after_boundary, bound, deployed
from tests.objectives.strategies.cases import begin, begin_in_double, contents, finish, first_batch, stepped, using

EARLY = KernelRescaling(at=0.25)  # after the first epoch of four


def boundary(state: TrainState, *epochs: int) -> TrainState:
    """The state after the boundaries that follow some epochs."""
    for epoch in epochs:
        state = bound(after_boundary(replace(state, epoch=epoch, events=())))
    return state


def kernels(model: ResNet) -> int:
    """Pixels: side of the stem's kernels."""
    stem = model.convolutions()[0]
    assert stem.weight.shape[-1] == stem.kernel_size[0] == model.architecture.stem_kernel
    return model.architecture.stem_kernel


# --- when -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "epochs", "expected"), [(0.5, 4, 2), (0.25, 4, 1), (0.5, 2, 1), (0.01, 5, 1), (0.99, 4, 3), (0.7, 10, 7)]
)
def test_kernels_grow_once_at_their_share_of_the_run_and_at_the_last_boundary_at_the_latest(
    at: float, epochs: int, expected: int, digits: Dataset
) -> None:
    state = begin(using(KernelRescaling(at=at), epochs=epochs), digits)
    for epoch in range(1, epochs):
        before = state.trainee
        state = boundary(state, epoch)
        assert (state.trainee is not before) == (epoch == expected) == bool(state.events)
        assert kernels(state.trainee.model) == (5 if epoch >= expected else 3)


def test_accuracy_says_something_once_the_last_kernels_have_been_trained(digits: Dataset) -> None:
    for pipeline, settled in (
        (using(KernelRescaling()), [False, False, True, True]),
        (using(KernelRescaling(3, 3)), [True] * 4),
        (using(KernelRescaling(5, 5)), [True] * 4),
        (using(KernelRescaling(), epochs=1), [True]),
        (using(Freeze(start=0.25), KernelRescaling()), [False, False, True, True]),  # refused by a frozen stem
    ):
        reports, _ = finish(pipeline, digits)
        assert [report.settled for report in reports] == settled


@pytest.mark.parametrize("at", [0.3, 0.8])
def test_a_plateau_waits_until_they_have(at: float, digits: Dataset) -> None:
    growing = KernelRescaling(at=at)
    for strategies in ((Plateau(gain=0.9), growing), (growing, Plateau(gain=0.9))):
        _, trained = finish(using(*strategies, epochs=6), digits)
        assert kernels(trained.model) == 5


def test_what_it_does_is_known_before_the_run() -> None:
    full = build("thin", depth=1, width=1.0, in_channels=3, n_classes=10)
    for strategy, epochs, reason in (
        (KernelRescaling(), 4, None),
        (KernelRescaling(), 1, "a run of one epoch has no boundary at which kernels could grow"),
        (KernelRescaling(3, 3), 4, "the stem has kernels of 3 pixels anyway"),
        (KernelRescaling(5, 5), 1, None),  # from the start
        (KernelRescaling(1, 3), 1, None),
    ):
        assert strategy.idle(Outline(full, 32, epochs)) == reason
        assert strategy.architecture(full).stem_kernel == strategy.start
        assert strategy.reached(strategy.architecture(full)).stem_kernel == strategy.kernel


@pytest.mark.parametrize(("start", "kernel"), [(1, 3), (3, 7), (5, 5)])
def test_kernels_may_have_any_odd_sides(start: int, kernel: int, digits: Dataset) -> None:
    reports, trained = finish(using(KernelRescaling(start, kernel)), digits)
    events = [event for report in reports for event in report.events]
    assert events == ([f"kernels of the stem {start} -> {kernel} pixels"] if start < kernel else [])
    assert kernels(trained.model) == kernel
    assert reports[-1].accuracy > 0.6


# --- the function -----------------------------------------------------------------------------------------------------


def waves(size: int) -> Tensor:
    """Images whose waves are as long as they are, [16, 1, size, size] in double precision."""
    at = torch.arange(size, dtype=torch.float64) / size * 2 * torch.pi
    phases = torch.arange(16, dtype=torch.float64)
    down = (at[None, :] + phases[:, None]).sin()
    across = (at[None, :] + 1.7 * phases[:, None]).cos()
    return (down[:, None, :, None] + across[:, None, None, :]).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("wavelets", [(), (HaarStem(),)], ids=repr)
def test_on_smooth_images_logits_stay_nearly_the_same(wavelets: tuple[Strategy, ...], digits: Dataset) -> None:
    """The longer the waves, the nearer; what is left is the border, where a larger kernel sees more of the padding."""
    state = stepped(begin_in_double(using(*wavelets, EARLY, Ema()), digits), digits, 10)
    after = boundary(state, 1)
    for old, new in ((state.trainee.model.eval(), after.trainee.model.eval()), (deployed(state), deployed(after))):
        differences = []
        for size in (8, 32, 128, 512):  # what is left halves as they double
            before, now = (network(waves(size)[:4]).detach() for network in (old, new))
            differences.append(float((now - before).norm() / before.norm()))
        assert differences == sorted(differences, reverse=True)
        assert differences[-1] < 0.05


def test_flops_of_the_stem_rise_with_its_kernels_and_those_of_training_follow(digits: Dataset) -> None:
    reports, trained = finish(using(EARLY), digits)
    large = trained.model.architecture
    small = replace(large, stem_kernel=3)
    (before, step), (after, larger) = (flops.count(architecture, 8) for architecture in (small, large))
    assert [report.inference_flops for report in reports] == [before, after, after, after]
    assert [report.train_flops for report in reports] == [500 * (step + n * larger) for n in range(4)]
    assert after - before == 2 * (25 - 9) * 8 * 16  # taps, channels, pixels of the stem
    assert reports[-1].full_flops == after  # the network of the settings behind the same stem


@pytest.mark.parametrize("wavelets", [(), (HaarStem(),)], ids=repr)
@pytest.mark.parametrize("number_format", ["fp32", "bf16"])
def test_kernels_may_be_larger_than_images(wavelets: tuple[Strategy, ...], number_format: str, digits: Dataset) -> None:
    """Of 4 pixels a side, or of 2 behind wavelets: the padding makes up for it."""
    small = ProgressiveResolution(start=0.5, until=0.5, steps=1)
    for strategies in ((*wavelets, EARLY, small), (*wavelets, small, KernelRescaling(5, 5))):
        reports, trained = finish(using(*strategies, number_format=number_format), digits)
        assert not any(report.diverged for report in reports)
        assert kernels(trained.model) == 5
        assert reports[-1].accuracy > 0.4


def test_with_images_that_grow_at_the_same_boundary_it_is_the_method_of_the_paper(digits: Dataset) -> None:
    together = (ProgressiveResolution(start=0.5, until=0.5, steps=1), KernelRescaling(at=0.5))
    reports, _ = finish(using(*together), digits)
    assert [report.events for report in reports] == [
        (),
        ("images 4 -> 8 pixels", "kernels of the stem 3 -> 5 pixels"),
        (),
        (),
    ]
    assert reports[-1].accuracy > 0.6


# --- with others ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("averaged", [Ema(horizon=0.5), Lookahead(3, 0.5), Swa(start=0.25, images=200)], ids=repr)
def test_what_averages_deploy_is_finite_and_close_to_the_network_after_the_change(
    averaged: Strategy, digits: Dataset
) -> None:
    for strategies in ((EARLY, averaged), (averaged, EARLY)):
        reports, _ = finish(using(*strategies), digits)
        assert not any(report.diverged for report in reports)
        assert reports[-1].accuracy > 0.6
    state = boundary(stepped(begin(using(EARLY, averaged), digits), digits, 10), 1)
    x = first_batch(digits)[0]
    network, average = state.trainee.model.eval()(x), deployed(state)(x)
    assert average.isfinite().all()
    assert (average - network).norm() < network.norm()


def test_a_frozen_stem_keeps_its_kernels_and_says_so(digits: Dataset) -> None:
    reports, trained = finish(using(Freeze(start=0.25), KernelRescaling()), digits)
    assert "the frozen stem keeps its kernels of 3 pixels" in reports[1].events
    assert kernels(trained.model) == 3
    _, trained = finish(using(KernelRescaling(at=0.25), Freeze(start=0.25)), digits)
    assert kernels(trained.model) == 5


@pytest.mark.parametrize(
    "other",
    [Net2Net(start_width=0.5, at=0.5, until=0.5), PruneTrain(lpr=0.6, interval=1, threshold=0.1, adapt_batch=True)],
    ids=lambda other: type(other).__name__,
)
def test_channels_come_and_go_around_it(other: Strategy, digits: Dataset) -> None:
    for strategies in ((other, EARLY), (EARLY, other)):
        reports, trained = finish(using(*strategies, width=1.0), digits)
        assert kernels(trained.model) == 5
        assert len([event for report in reports for event in report.events]) > 1
        assert reports[-1].accuracy > 0.5


def test_the_old_trainee_stays_as_it_was(digits: Dataset) -> None:
    state = stepped(begin(using(EARLY, Ema()), digits), digits, 3)
    before = contents(state.trainee)
    stepped(boundary(state, 1), digits, 2)
    now = contents(state.trainee)
    assert all(torch.equal(now[name], before[name]) for name in before)


@pytest.mark.parametrize("wavelets", [(), (HaarStem(),)], ids=repr)
def test_what_is_exported_computes_the_same_logits_bit_for_bit(
    wavelets: tuple[Strategy, ...], digits: Dataset, tmp_path: Path
) -> None:
    _, trained = finish(using(*wavelets, EARLY, Ema()), digits)
    export(trained, digits, tmp_path / "model", {})
    loaded = load_model(tmp_path / "model")
    x = Normalisation(digits, torch.device("cpu"))(digits.val.x)
    assert kernels(loaded.network) == 5
    assert torch.equal(loaded.network(x), trained.model(x))
    assert loaded.network.architecture == trained.model.architecture


@pytest.mark.parametrize("other", [Whitening, LotteryTicket])
def test_filters_of_a_size_and_masks_of_taps_are_refused(other: type[Strategy]) -> None:
    with pytest.raises(ValueError, match=f"KernelRescaling cannot run with {other.__name__}: choose one"):
        using(KernelRescaling(), other())


@pytest.mark.parametrize(
    "parameters", [{"start": 2}, {"kernel": 4}, {"start": 5, "kernel": 3}, {"start": -1}, {"at": 0.0}, {"at": 1.0}]
)
def test_parameters_out_of_range_are_refused_with_the_ranges(parameters: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="start and kernel are odd with 1 <= start <= kernel"):
        KernelRescaling(**parameters)  # type: ignore[arg-type]
