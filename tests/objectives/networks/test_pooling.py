"""Laws of poolings that halve images: shapes, what they draw, what evaluation does instead, work and memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import ceil

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from objectives.networks.architecture import Architecture, Downsampling, PoolingMethod, Stage, build
from objectives.networks.pooling import average, expected_s3, haar, halving, s3, sampled, stochastic, weighted
from objectives.networks.resnet import ResNet

METHODS: tuple[PoolingMethod, ...] = ("average", "stochastic", "s3")
EVERY = [Downsampling(method, strips, behind) for method in METHODS for strips in (1, 2) for behind in (False, True)]
CPU = torch.device("cpu")
N = 20_000  # draws
SURE = 4.5  # standard errors: of a hundred means none is farther off, but for one run in a thousand
each_method = pytest.mark.parametrize("method", METHODS)


def rectified(*shape: int) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(shape).relu().contiguous(memory_format=torch.channels_last)


def is_expected(draws: Tensor, expected: Tensor) -> bool:
    """Whether the mean over draws [n, ...] is what is expected, by a z-test of each entry."""
    error = draws.std(0) / len(draws) ** 0.5
    return bool(((draws.mean(0) - expected).abs() <= SURE * error + 1e-6).all())


# --- shapes -----------------------------------------------------------------------------------------------------------


@each_method
@pytest.mark.parametrize("training", [True, False])
def test_any_sides_are_halved_and_rounded_up_in_channels_last_and_any_number_format(
    method: PoolingMethod, training: bool
) -> None:
    for height, width, strips in ((1, 1, 1), (2, 3, 1), (5, 4, 2), (7, 7, 2), (8, 9, 4), (14, 3, 99)):
        for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
            x = rectified(2, 3, height, width).to(dtype)
            halved = halving(Downsampling(method, strips), x, training=training)(x)
            assert halved.shape == (2, 3, ceil(height / 2), ceil(width / 2))
            assert halved.dtype == dtype
            assert halved.is_contiguous(memory_format=torch.channels_last)


@each_method
def test_in_evaluation_nothing_is_drawn_and_in_training_from_the_default_generator(method: PoolingMethod) -> None:
    x = rectified(2, 3, 7, 8)
    random = torch.get_rng_state()
    one, other = (halving(Downsampling(method), x, training=False)(x) for _ in range(2))
    assert torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), random)
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(halving(Downsampling(method), x, training=True)(x))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2]) == (method == "average")


# --- stochastic pooling -----------------------------------------------------------------------------------------------


def test_a_pixel_is_drawn_as_often_as_its_share_says_and_evaluation_is_what_is_expected() -> None:
    x = rectified(1, 3, 5, 7)
    draws = stochastic(x.expand(N, -1, -1, -1))
    assert is_expected(draws, weighted(x)[0])
    pixels = torch.tensor([[1.0, 2.0], [0.0, 5.0]])
    drawn = stochastic(pixels.expand(N, 1, -1, -1)).flatten()
    assert is_expected(
        torch.stack([drawn == value for value in (1.0, 2.0, 5.0)], 1).float(), torch.tensor([1, 2, 5]) / 8
    )
    assert set(drawn.tolist()) == {1.0, 2.0, 5.0}


def test_every_image_channel_and_region_draws_for_itself() -> None:
    draws = stochastic(torch.tensor([[1.0, 3.0], [0.0, 0.0]]).repeat(N, 2, 1, 2)) - 2.5  # [N, 2, 1, 2]
    for one, other in ((draws[:, 0, 0, 0], draws[:, 1, 0, 0]), (draws[:, 0, 0, 0], draws[:, 0, 0, 1])):
        assert is_expected(one * other, torch.zeros(()))
    assert is_expected(draws[1:, 0, 0, 0] * draws[:-1, 0, 0, 0], torch.zeros(()))


@pytest.mark.parametrize("pool", [stochastic, weighted])
def test_what_is_dark_is_0_and_negative_values_count_as_dark(pool: Callable[[Tensor], Tensor]) -> None:
    dark = torch.tensor([[0.0, -3.0], [-1.0, 0.0]]).expand(1, 1, 2, 2)
    assert pool(dark).item() == 0.0
    assert pool(torch.where(dark == -1.0, 4.0, dark)).item() == 4.0
    assert pool(1e4 * torch.ones(1, 1, 3, 3, dtype=torch.float16)).unique().tolist() == [1e4]


def test_a_gradient_reaches_the_pixel_that_was_drawn_and_no_other() -> None:
    x = (rectified(2, 3, 7, 6) + 0.1).requires_grad_()
    drawn = stochastic(x)
    (gradient,) = torch.autograd.grad(drawn.sum(), x)
    assert torch.equal(gradient, gradient.bool().float())
    regions = F.avg_pool2d(gradient, 2, ceil_mode=True, divisor_override=1)
    assert torch.equal(regions, torch.ones_like(regions))
    torch.testing.assert_close(F.avg_pool2d(gradient * x, 2, ceil_mode=True, divisor_override=1), drawn)


# --- S3Pool -----------------------------------------------------------------------------------------------------------


def test_of_every_strip_half_of_the_rows_are_sampled_in_their_order() -> None:
    torch.manual_seed(0)
    for side in range(1, 34):
        for strips in (1, 2, 3, 8, 99):
            width = 2 * ceil(side / (2 * strips))
            found = sampled(side, strips, CPU)
            assert found.tolist() == sorted(set(found.tolist()))
            for start in range(0, side, width):
                within = ((found >= start) & (found < start + width)).sum().item()
                assert within == ceil(min(width, side - start) / 2), (side, strips, found)


@pytest.mark.parametrize(("side", "strips"), [(8, 1), (8, 2), (8, 4), (14, 2)])
def test_rows_of_a_strip_are_sampled_alike_often(side: int, strips: int) -> None:
    torch.manual_seed(0)
    width = min(side, 2 * ceil(side / (2 * strips)))
    drawn = torch.stack([F.one_hot(sampled(side, strips, CPU), side).sum(0) for _ in range(2000)]).float()
    assert is_expected(drawn, torch.tensor(0.5))
    if width == 2:  # a stride that jitters: one of every two
        assert torch.equal(drawn.view(-1, side // 2, 2).sum(2), torch.ones(2000, side // 2))


def test_what_is_sampled_is_a_max_pooling_of_stride_1_for_all_channels_images_and_maps_alike() -> None:
    x = torch.randn(2, 3, 7, 9).contiguous(memory_format=torch.channels_last)
    padded = F.pad(x, (0, 1, 0, 1), value=-torch.inf)
    rows, columns = sampled(7, 2, CPU), sampled(9, 1, CPU)
    assert torch.equal(s3(x, rows, columns), F.max_pool2d(padded, 2, 1)[:, :, rows][:, :, :, columns])
    halve = halving(Downsampling("s3"), x, training=True)
    assert torch.equal(halve(x + 1), halve(x) + 1)


def test_evaluation_is_what_is_expected_of_strips_of_two_and_in_the_mean_of_wider_ones() -> None:
    x = rectified(1, 2, 8, 8)
    torch.manual_seed(0)
    narrow, wide = (
        torch.stack([halving(Downsampling("s3", strips), x, training=True)(x)[0] for _ in range(2000)])
        for strips in (4, 2)
    )
    expected = expected_s3(x)[0]
    assert is_expected(narrow, expected)
    assert not is_expected(wide, expected)
    assert is_expected(F.avg_pool2d(wide, 2), F.avg_pool2d(expected, 2))


# --- average pooling --------------------------------------------------------------------------------------------------


def test_wavelet_pooling_is_twice_an_average() -> None:
    """The coarse part of a Haar transform is what is left when the finer details are dropped."""
    x = torch.randn(2, 3, 6, 8, dtype=torch.float64)
    torch.testing.assert_close(haar(x)[:, :3], 2 * average(x))
    assert average(torch.arange(9.0).view(1, 1, 3, 3)).flatten().tolist() == [2.0, 3.5, 6.5, 8.0]


# --- networks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", EVERY, ids=str)
def test_a_network_has_the_parameters_that_it_has_with_strides_and_its_maps_the_sizes(how: Downsampling) -> None:
    for family in ("thin", "fast", "imagenet18"):
        plain = build(family, depth=1, width=0.25, in_channels=1, n_classes=4)
        model, strided = ResNet(replace(plain, downsampling=how)), ResNet(plain)
        model.load_state_dict(strided.state_dict())
        for size in (1, 7, 12):
            for network in (model.train(), model.eval()):
                x = network._begun(torch.randn(3, 1, size, size))
                for blocks, side in zip(network.stages, plain.sides(size), strict=True):
                    for block in blocks:  # type: ignore[union-attr]
                        x = block(x)
                    assert x.shape[2:] == (side, side)


@pytest.mark.parametrize("method", METHODS)
def test_before_a_transition_a_pooling_leaves_the_work_and_behind_its_convolution_adds_three_times_that_ones(
    method: PoolingMethod,
) -> None:
    plain = build("thin", depth=2, width=1.0, in_channels=3, n_classes=10)
    before, behind = (replace(plain, downsampling=Downsampling(method, behind=b)) for b in (False, True))
    work = {a: sum(layer.flops for layer in a.layers(32)) for a in (plain, before, behind)}
    firsts = 2 * 9 * 16 * 32 * 16**2 + 2 * 9 * 32 * 64 * 8**2
    assert work[before] == work[plain]
    assert work[behind] == work[plain] + 3 * firsts


@pytest.mark.parametrize(("family", "size"), [("thin", 32), ("wide", 32), ("fast", 32), ("imagenet18", 96)])
def test_what_a_step_must_remember_is_forecast_with_any_pooling_as_it_is_with_strides(family: str, size: int) -> None:
    plain = build(family, depth=1, width=0.25, in_channels=3, n_classes=10)
    for how in (None, *EVERY):
        architecture = replace(plain, downsampling=how)
        share = kept(architecture, size) / architecture.activations(size)
        assert 1.65 < share < 2.25, (how, share)


def kept(architecture: Architecture, size: int, n: int = 4) -> float:
    """fp32 values per image that a backward pass needs, weights left out."""
    model = ResNet(architecture)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    found: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if (at := tensor.untyped_storage().data_ptr()) not in weights:
            found[at] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(torch.randn(n, architecture.in_channels, size, size)).sum()
    assert loss.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in found.values()) / n / 4


def test_behind_a_convolution_shortcut_and_branch_are_halved_by_the_same_rows_and_columns() -> None:
    model = ResNet(Architecture(1, 2, (Stage(1, ()), Stage(1, (1,))), downsampling=Downsampling("s3", behind=True)))
    block = model.stages[1][0].train()  # type: ignore[index]
    block.bn1.eval()
    with torch.no_grad():
        block.conv1.weight.zero_()[0, 0, 1, 1] = 1.0  # what is behind it is what is before it
    read: list[Tensor] = []
    for layer in (block.shortcut[0], block.conv2):
        layer.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    block(torch.rand(2, 1, 9, 9))
    assert read[0].shape == (2, 1, 5, 5)
    torch.testing.assert_close(read[0], read[1], rtol=1e-4, atol=0)


@pytest.mark.parametrize(("method", "strips"), [("max", 1), ("s3", 0), ("average", -1)])
def test_an_unknown_pooling_is_refused_in_one_line(method: PoolingMethod, strips: int) -> None:
    with pytest.raises(ValueError, match=f"there is no pooling '{method}' of {strips} strips a side") as caught:
        Downsampling(method, strips)
    assert "\n" not in str(caught.value)
