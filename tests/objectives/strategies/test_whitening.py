"""The laws of Whitening."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from objectives.data.dataset import Dataset, Images
from objectives.device.clock import peak_memory, reset_peak_memory
from objectives.networks.pooling import haar
from objectives.networks.resnet import Convolution
from objectives.state import TrainState
from objectives.strategies.base import Strategy
from objectives.strategies.ema import Ema
from objectives.strategies.freeze import Freeze
from objectives.strategies.haar_stem import HaarStem
from objectives.strategies.methods import lasso
from objectives.strategies.net2net import Net2Net
from objectives.strategies.prune_train import PruneTrain
from objectives.strategies.whitening import EPS, Whitening
from objectives.train import after_boundary, begun, bound, starting_state
from tests.objectives.strategies.cases import SEEDS, TASK, begin, finish, first_batch, stepped, using


def smooth_images(channels: int) -> Dataset:
    """100 random images [channels, 16, 16] whose neighbouring pixels are alike, so that there is much to whiten."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(100, channels, 8, 8, generator=generator)
    fine = F.interpolate(coarse, 16, mode="bilinear") + 0.2 * torch.rand(100, channels, 16, 16, generator=generator)
    x = (fine * 200).to(torch.uint8).contiguous(memory_format=torch.channels_last)
    y = torch.arange(100) % 10
    pixels = x.float() / 255
    mean, std = (tuple(statistic((0, 2, 3)).tolist()) for statistic in (pixels.mean, pixels.std))
    digits = tuple(str(label) for label in range(10))
    return Dataset("smooth", digits, Images(x, y), Images(x, y), mean, std, False, "", "", (), ())


def whitened(dataset: Dataset, *strategies: Strategy, stride: Literal[1, 2] = 1, **settings: object) -> TrainState:
    state = starting_state(using(*strategies, **settings), replace(TASK, stem_stride=stride), dataset, SEEDS)
    return begun(state, state.normalise(dataset.train.x[:50]), dataset.train.y[:50])


def stem(state: TrainState) -> Convolution:
    return state.trainee.model.convolutions()[0]


def outputs(state: TrainState, dataset: Dataset) -> Tensor:
    """[width, positions] what the stem computes on the training images, without padding, in double precision."""
    x = state.normalise(dataset.train.x)
    x = haar(x) if state.trainee.model.architecture.stem == "haar" else x
    result = F.conv2d(x.double(), stem(state).weight.double(), stride=stem(state).stride)
    return result.transpose(0, 1).flatten(1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("wavelet", [(), (HaarStem(),)], ids=["pixels", "haar"])
def test_one_filter_of_each_pair_has_outputs_of_unit_covariance(
    wavelet: tuple[Strategy, ...], stride: Literal[1, 2], channels: int
) -> None:
    dataset = smooth_images(channels)
    state = whitened(dataset, *wavelet, Whitening(), stride=stride, width=1.0)
    n_filters = min(len(stem(state).weight), 2 * stem(state).weight[0].numel())
    covariance = torch.cov(outputs(state, dataset)[:n_filters:2])
    # the constant under the root takes up to EPS / eigenvalue; the eigenvalues here begin at about 0.003
    torch.testing.assert_close(covariance, torch.eye(n_filters // 2).double(), rtol=0.0, atol=0.2)
    off = covariance - covariance.diag().diag()
    torch.testing.assert_close(off, torch.zeros_like(off), rtol=0.0, atol=1e-4)


def test_filters_come_in_opposite_pairs_by_falling_eigenvalue_and_the_rest_is_random() -> None:
    dataset = smooth_images(1)
    state, plain = whitened(dataset, Whitening(), width=1.5), whitened(dataset, width=1.5)
    filters, random = stem(state).weight, stem(plain).weight
    assert filters.shape == (24, 1, 3, 3)
    assert torch.equal(filters[0:18:2], -filters[1:18:2])
    norms = filters[0:18:2].flatten(1).norm(dim=1)
    assert torch.equal(norms, norms.sort().values)  # 1 / sqrt(eigenvalue + EPS)
    assert torch.equal(filters[18:], random[18:])
    patches = F.unfold(state.normalise(dataset.train.x), 3).transpose(0, 1).flatten(1)
    largest = torch.linalg.eigvalsh(torch.cov(patches.double()))[-1]
    assert float(norms[0]) == pytest.approx(float(1 / (largest + EPS).sqrt()), rel=1e-4)


def test_a_share_leaves_the_other_outputs_as_they_were() -> None:
    dataset = smooth_images(3)
    whole, half, plain = (
        stem(whitened(dataset, *strategies, width=1.0)).weight
        for strategies in ((Whitening(),), (Whitening(share=0.5),), ())
    )
    assert torch.equal(half[:8], whole[:8])
    assert torch.equal(half[8:], plain[8:])


def test_directions_of_no_variance_get_no_filter() -> None:
    dataset = smooth_images(1)
    dataset.train.x[:, :, ::2] = 7  # every other row is constant: patches at a stride of 2 see at least one of them
    state, plain = whitened(dataset, Whitening(), stride=2, width=1.5), whitened(dataset, stride=2, width=1.5)
    assert float(stem(state).weight.abs().max()) <= EPS**-0.5
    kept = [bool(torch.equal(*pair)) for pair in zip(stem(state).weight, stem(plain).weight, strict=True)]
    assert 0 < kept.index(True) <= 12
    assert all(kept[kept.index(True) :])


def test_it_draws_nothing_and_leaves_the_old_trainee_as_it_was(digits: Dataset) -> None:
    state = starting_state(using(Whitening()), TASK, digits, SEEDS)
    before, random = stem(state).weight.detach().clone(), torch.get_rng_state()
    begun(state, *first_batch(digits))
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(stem(state).weight, before)
    assert stem(state).weight.requires_grad


@pytest.mark.parametrize(
    ("frozen", "moves"), [(0.0, [True] * 4), (0.25, [False, True, True, True]), (0.6, [False] * 3 + [True])]
)
def test_the_stem_stays_until_its_share_of_the_run_is_over(frozen: float, moves: list[bool], digits: Dataset) -> None:
    state = begin(using(Whitening(frozen=frozen)), digits)
    for epoch, moved in enumerate(moves):
        before, bias = stem(state).weight.detach().clone(), state.trainee.model.state_dict()["stem.1.bias"].clone()
        stepped(state, digits, 2)
        assert torch.equal(stem(state).weight, before) != moved
        assert not torch.equal(state.trainee.model.state_dict()["stem.1.bias"], bias)
        held = state.trainee
        state = after_boundary(replace(state, epoch=epoch + 1))
        thawed = bool(state.events) and epoch + 1 == len([m for m in moves if not m])
        assert (state.trainee is held) == (not thawed)  # else a captured step would go on without its gradient


def test_a_stem_that_stays_costs_no_gradient_of_its_own(digits: Dataset) -> None:
    (whole, *_), (half, *_) = (finish(using(Whitening(frozen=frozen)), digits)[0] for frozen in (0.0, 1.0))
    assert half.train_flops < whole.train_flops


def test_a_stem_that_another_strategy_froze_stays_frozen(digits: Dataset) -> None:
    state = whitened(digits, Freeze(start=0.25), Whitening(frozen=0.5), stride=2)
    for epoch in (1, 2, 3):
        state = after_boundary(replace(state, epoch=epoch))
    assert not stem(state).weight.requires_grad
    assert not any("trains" in event for event in state.events)


def grown(state: TrainState) -> TrainState:
    """The state after half of its run, at whose end it grows."""
    for epoch in (1, 2):
        state = after_boundary(replace(stepped(bound(state), SMOOTH), epoch=epoch, events=()))
    return state


SMOOTH = smooth_images(3)


@pytest.mark.parametrize("frozen", [0.0, 1.0])
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_stem_that_grows_has_the_filters_of_a_wide_one(share: float, frozen: float) -> None:
    """And preserves the function: nobody reads its new channels yet."""
    growing = Net2Net(start_width=0.5, at=0.5, until=0.5)
    strategies = (growing, Whitening(share=share, frozen=frozen), Ema())
    state, wide = whitened(SMOOTH, *strategies, width=1.0), whitened(SMOOTH, Whitening(share=share), width=1.0)
    assert len(stem(state).weight) == 8
    n = round(share * 16)
    after = grown(state)
    assert f"{n - round(share * 8)} of 8 new filters of the stem whiten" in after.events
    whitening = stem(after).weight[8 : 8 + n - round(share * 8)]
    assert torch.equal(whitening, stem(wide).weight[round(share * 8) : n])
    assert torch.equal(after.trainee.shadows["ema"].tensors["stem.0.weight"][8:], stem(after).weight[8:])
    for reader in lasso.grouped(after.trainee.model):
        n_before = 10 if reader.out_axis is None else 8 if "stage0" in reader.out_axis else 16
        assert reader.in_axis != "stage0" or not reader.weight[:n_before, 8:].any()


@pytest.mark.parametrize("kind", ["copies", "antisymmetric"])
def test_a_frozen_stem_that_grows_by_copies_trains_from_there_on(kind: Literal["copies", "antisymmetric"]) -> None:
    growing = Net2Net(start_width=0.5, at=0.5, until=0.5, new_channels=kind)
    after = grown(whitened(SMOOTH, growing, Whitening(), width=1.0))
    assert stem(after).weight.requires_grad
    assert after.events[-1] == "the stem trains from here on: it grew by copies of frozen filters"
    assert torch.equal(stem(after).weight[:8], stem(whitened(SMOOTH, Whitening(), width=1.0)).weight[:8])


def test_a_frozen_stem_does_not_keep_channels_that_nobody_reads() -> None:
    state = bound(whitened(SMOOTH, Whitening(), PruneTrain(lpr=1e-3, interval=1)))
    filters = stem(state).weight.detach().clone()
    with torch.no_grad():
        for group in lasso.grouped(state.trainee.model):
            if group.in_axis == "stage0":
                group.weight[:, 3] = 0
            elif group.out_axis == "stage0" and group.weight.requires_grad:
                group.weight[3] = 0
    after = after_boundary(replace(state, epoch=1))
    assert after.events[-1] == "pruned 8[8]-16[16] to 7[8]-16[16]"
    assert torch.equal(stem(after).weight, filters[[0, 1, 2, 4, 5, 6, 7]])


def test_images_too_small_for_a_patch_are_whitened_with_their_padding() -> None:
    tiny = replace(SMOOTH, train=Images(SMOOTH.train.x[:, :, :4, :4], SMOOTH.train.y))
    state, plain = whitened(tiny, HaarStem(), Whitening()), whitened(tiny, HaarStem())
    assert stem(state).weight.isfinite().all()
    assert not torch.equal(stem(state).weight, stem(plain).weight)


def test_large_images_are_measured_in_little_memory_and_to_the_same_filters() -> None:
    """All patches of 500 images of 224 pixels in grey took 2.7 GB."""
    dataset = smooth_images(1)
    x = dataset.train.x.repeat_interleave(14, 2).repeat_interleave(14, 3).repeat(3, 1, 1, 1)
    x = (x.float() + 20 * torch.rand(x.shape, generator=torch.Generator().manual_seed(1))).to(torch.uint8)
    large = replace(dataset, train=Images(x.contiguous(memory_format=torch.channels_last), dataset.train.y.repeat(3)))
    state = starting_state(using(Whitening()), TASK, large, SEEDS)
    reset_peak_memory(torch.device("cpu"))
    before = peak_memory(torch.device("cpu"))
    found = stem(begun(state, state.normalise(x[:2]), large.train.y[:2]))
    assert peak_memory(torch.device("cpu")) - before < 100 << 20
    patches = F.unfold(state.normalise(x[::50]), 3, stride=2).transpose(0, 1).flatten(1)
    largest = torch.linalg.eigvalsh(torch.cov(patches.double()))[-1]
    assert float(found.weight[0].norm()) == pytest.approx(float(1 / (largest + EPS).sqrt()), rel=0.1)


@pytest.mark.parametrize("parameter", ["share", "frozen"])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_parameter_outside_its_range_is_refused(parameter: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{parameter}={value!r}.*must lie in \[0, 1\]"):
        Whitening(**{parameter: value})
