"""Laws of architectures and networks: shapes, labelled axes, blocks, ghost batch normalisation."""

from __future__ import annotations

import json
from math import ceil, sqrt

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from objectives.networks.architecture import FAMILIES, Architecture, Downsampling, Stage, build, described
from objectives.networks.norms.slots import GhostBatchNorm
from objectives.networks.pooling import haar
from objectives.networks.resnet import Block, Convolution, ResNet, convolve
from tests.objectives.networks.factorised import with_factors


def stages(*, first: bool) -> st.SearchStrategy[Stage]:
    ordinary = st.lists(st.integers(1, 5), max_size=2)
    if first:
        return st.builds(Stage, st.integers(1, 6), ordinary.map(tuple))
    interiors = st.tuples(st.integers(0, 5), ordinary).map(lambda parts: (parts[0], *parts[1]))
    return st.builds(Stage, st.integers(1, 6), interiors)


unfactorised = st.builds(
    Architecture,
    in_channels=st.sampled_from([1, 3]),
    n_classes=st.integers(2, 5),
    stages=st.tuples(stages(first=True), st.lists(stages(first=False), max_size=2)).map(lambda p: (p[0], *p[1])),
    stem_stride=st.integers(1, 2),
    stem=st.sampled_from(["conv", "haar"]),
    transition=st.sampled_from(["projection", "pool"]),
    stem_kernel=st.sampled_from([1, 3, 5, 7]),
    stem_pool=st.booleans(),
    downsampling=st.none()
    | st.builds(
        Downsampling, st.sampled_from(["average", "stochastic", "s3"]), strips=st.integers(1, 9), behind=st.booleans()
    ),
)
architectures = st.builds(with_factors, unfactorised, st.integers(0, 1000))


def randomise(module: nn.Module) -> None:
    """Replaces every parameter and statistic, so that none is at a value that hides a mistake."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + (0.5 if name.endswith("var") else -0.3))


def network(architecture: Architecture) -> ResNet:
    """In double precision and evaluation mode, with nothing at its initial value."""
    model = ResNet(architecture).double().eval()
    randomise(model)
    return model


def images(architecture: Architecture, size: int = 8, n: int = 3) -> Tensor:
    return torch.randn(n, architecture.in_channels, size, size, dtype=torch.float64)


# --- architectures ----------------------------------------------------------------------------------------------------


@given(architectures)
def test_an_architecture_survives_json(architecture: Architecture) -> None:
    assert Architecture.from_json(json.loads(json.dumps(architecture.to_json()))) == architecture
    assert described(architecture.describe()) == architecture.stages


def test_an_architecture_of_before_there_were_poolings_halves_images_by_strides() -> None:
    plain = build("small", depth=1, width=1.0, in_channels=1, n_classes=10)
    before = {key: value for key, value in plain.to_json().items() if key != "downsampling"}
    assert Architecture.from_json(before) == plain
    with pytest.raises(ValueError, match="not an architecture"):
        Architecture.from_json({**before, "downsampling": {"method": "s3", "colour": 1}})


@pytest.mark.parametrize(
    ("given_stages", "message"),
    [
        ((), "at least one stage"),
        ((Stage(0, (4,)),), "stage 0 has a width below 1"),
        ((Stage(4, (-1,)),), "stage 0 has a width below 1 or an interior below 0"),
        ((Stage(4, (4,)), Stage(4, (-1,))), "stage 1 has a width below 1"),
        ((Stage(4, (4,)), Stage(4, ())), "stage 1 needs a transition block"),
    ],
)
def test_an_impossible_architecture_is_refused_in_one_line(given_stages: tuple[Stage, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Architecture(3, 10, given_stages)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", ["in_channels", "n_classes", "stages", "stem_stride"])
def test_data_that_describe_no_architecture_are_refused(missing: str) -> None:
    plain = build("small", depth=1, width=1.0, in_channels=1, n_classes=10).to_json()
    for damaged in ({k: v for k, v in plain.items() if k != missing}, {**plain, missing: None}):
        with pytest.raises(ValueError, match="not an architecture"):
            Architecture.from_json(damaged)


@pytest.mark.parametrize("width", [0.01, 0.25, 0.6, 1.0, 1.1, 2.0])
@pytest.mark.parametrize("family", FAMILIES)
def test_widths_are_multiples_of_eight_nearest_to_the_multiplier(family: str, width: float) -> None:
    built = build(family, depth=2, width=width, in_channels=3, n_classes=10)
    known = FAMILIES[family]
    for number, (stage, full, n_blocks) in enumerate(zip(built.stages, known.widths, known.blocks, strict=True)):
        assert stage.width % 8 == 0
        assert stage.width == 8 or abs(stage.width - full * width) <= 4
        pooled = (0,) if known.transition == "pool" and number > 0 else ()
        assert stage.interiors == pooled + (stage.width,) * 2 * n_blocks


def test_an_unknown_family_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="unknown family 'vgg': choose one of small, thin, wide"):
        build("vgg", depth=1, width=1.0, in_channels=3, n_classes=10)


# --- networks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_channels", [1, 3])
@pytest.mark.parametrize("stem_stride", [1, 2])
@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_images_become_logits_and_every_stage_but_the_first_halves_them(
    family: str, depth: int, stem_stride: int, in_channels: int
) -> None:
    architecture = build(family, depth=depth, width=0.25, in_channels=in_channels, n_classes=7, stem_stride=stem_stride)
    model = ResNet(architecture).eval()
    x = torch.randn(2, in_channels, 9, 9)
    assert model(x).shape == (2, 7)
    (_, begin), *_ = model.parts()
    known = FAMILIES[family]
    side, x = ceil(9 / (known.stem_stride * stem_stride)), begin(x)
    side = ceil(side / 2) if known.stem_pool else side
    assert x.shape == (2, architecture.stages[0].width, side, side)
    for number, (stage, blocks) in enumerate(zip(architecture.stages, model.stages, strict=True)):
        assert isinstance(blocks, nn.ModuleList)
        assert len(blocks) == len(stage.interiors)
        side = ceil(side / 2) if number else side
        for block in blocks:
            x = block(x)
            assert x.shape == (2, stage.width, side, side)


@pytest.mark.parametrize(("depth", "padded"), [(3, 269_722), (9, 853_018)])
def test_thin_networks_are_those_of_the_paper_with_projection_shortcuts(depth: int, padded: int) -> None:
    """`padded`: parameters of ResNet-20 and ResNet-56 with zero-padded shortcuts (He et al. 2016, table 6)."""
    model = ResNet(build("thin", depth=depth, width=1.0, in_channels=3, n_classes=10))
    projections = (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)  # 1x1 convolution and batch norm, twice
    assert sum(p.numel() for p in model.parameters()) == padded + projections
    assert len(model.convolutions()) == 6 * depth + 1 + 2


def test_convolutions_start_he_normal_over_the_fan_out_and_the_head_without_bias() -> None:
    model = ResNet(build("wide", depth=1, width=1.0, in_channels=3, n_classes=10))
    assert not model.head.bias.any()
    for layer in model.convolutions():
        if layer.weight.numel() > 10_000:
            expected = sqrt(2 / (layer.out_channels * layer.kernel_size[0] ** 2))
            assert layer.weight.std().item() == pytest.approx(expected, rel=0.05)
            assert abs(layer.weight.mean().item()) < 0.05 * expected


def test_the_memory_format_of_images_does_not_change_the_logits() -> None:
    architecture = build("small", depth=1, width=1.0, in_channels=3, n_classes=5)
    model, x = network(architecture), images(architecture)
    torch.testing.assert_close(model(x.contiguous(memory_format=torch.channels_last)), model(x.contiguous()))


# --- axes -------------------------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(architectures)
def test_axes_label_every_dimension_of_every_tensor_with_one_size_per_label(architecture: Architecture) -> None:
    model = ResNet(architecture)
    axes = model.axes()
    tensors = dict([*model.named_parameters(), *model.named_buffers()])
    assert set(axes) == set(tensors) == set(model.state_dict())
    assert all(len(axes[name]) == tensor.dim() for name, tensor in tensors.items())
    expected = {f"stage{s}": stage.width for s, stage in enumerate(architecture.stages)}
    for s, stage in enumerate(architecture.stages):
        expected |= {f"stage{s}.block{b}": interior for b, interior in enumerate(stage.interiors) if interior}
    for layer, channels in architecture.factors:
        inside = (".rank",) if layer == "head" else (".in", ".out")
        expected |= {f"{layer}{end}": n for end, n in zip(inside, channels, strict=True)}
    assert architecture.axis_sizes() == expected
    sizes: dict[str, set[int]] = {}
    for name, tensor in tensors.items():
        for label, size in zip(axes[name], tensor.shape, strict=True):
            if label is not None:
                sizes.setdefault(label, set()).add(size)
    assert sizes == {label: {width} for label, width in expected.items()}


@settings(max_examples=25)
@given(architectures, st.data())
def test_permuting_a_labelled_axis_in_all_its_tensors_keeps_the_function(
    architecture: Architecture, data: st.DataObject
) -> None:
    """What surgery relies on: a label names all producers and consumers of its channels, and no others."""
    model, x = network(architecture), images(architecture)
    before, axes = model(x), model.axes()
    label = data.draw(st.sampled_from(sorted({label for labels in axes.values() for label in labels if label})))
    state = model.state_dict()
    width = next(state[n].shape[labels.index(label)] for n, labels in axes.items() if label in labels)
    order = torch.tensor(data.draw(st.permutations(range(width))))
    for name, labels in axes.items():
        for dimension, found in enumerate(labels):
            if found == label:
                state[name] = state[name].index_select(dimension, order)
    model.load_state_dict(state)
    torch.testing.assert_close(model(x), before, rtol=1e-10, atol=1e-10)


def test_axes_of_a_small_network() -> None:
    model = ResNet(Architecture(3, 4, (Stage(5, (6,)), Stage(7, (8, 9)), Stage(2, (0,)))))
    norm = ("weight", "bias", "running_mean", "running_var")
    expected: dict[str, tuple[str | None, ...]] = {"head.weight": (None, "stage2"), "head.bias": (None,)}
    for convolution, outputs, inputs in [
        ("stem.0", "stage0", None),
        ("stages.0.0.conv1", "stage0.block0", "stage0"),
        ("stages.0.0.conv2", "stage0", "stage0.block0"),
        ("stages.1.0.conv1", "stage1.block0", "stage0"),
        ("stages.1.0.conv2", "stage1", "stage1.block0"),
        ("stages.1.0.shortcut.0", "stage1", "stage0"),
        ("stages.1.1.conv1", "stage1.block1", "stage1"),
        ("stages.1.1.conv2", "stage1", "stage1.block1"),
        ("stages.2.0.shortcut.0", "stage2", "stage1"),
    ]:
        expected[f"{convolution}.weight"] = (outputs, inputs, None, None)
        place, _, number = convolution.rpartition(".")
        follower = f"{place}.bn{number[-1]}" if number.startswith("conv") else f"{place}.1"
        expected |= {f"{follower}.{name}": (outputs,) for name in norm}
        expected[f"{follower}.num_batches_tracked"] = ()
    assert model.axes() == expected


# --- blocks -----------------------------------------------------------------------------------------------------------


def normed(x: Tensor, norm: GhostBatchNorm) -> Tensor:
    """Batch normalisation with stored statistics, written out."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean, variance, weight, bias = (
        v.view(1, -1, 1, 1) for v in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (x - mean) / (variance + norm.eps).sqrt() * weight + bias


@pytest.mark.parametrize(("transition", "interior"), [(False, 5), (True, 5), (True, 0)])
def test_a_block_computes_its_formula_and_leaves_its_input_alone(transition: bool, interior: int) -> None:
    stride, n_out = (2, 6) if transition else (1, 4)
    block = Block(4, interior, n_out, stride, ghost=0, transition=transition).double().eval()
    randomise(block)
    x = torch.randn(3, 4, 7, 7, dtype=torch.float64)
    given_x, formula_x = x.clone().requires_grad_(), x.clone().requires_grad_()

    shortcut = formula_x
    if block.shortcut is not None:
        convolution, norm = block.shortcut
        assert isinstance(convolution, Convolution)
        assert isinstance(norm, GhostBatchNorm)
        shortcut = normed(F.conv2d(formula_x, convolution.weight, stride=stride), norm)
    expected = shortcut
    if interior:
        inner = F.relu(normed(F.conv2d(formula_x, block.conv1.weight, stride=stride, padding=1), block.bn1))
        expected = shortcut + normed(F.conv2d(inner, block.conv2.weight, padding=1), block.bn2)
    expected = F.relu(expected)

    found = block(given_x)
    torch.testing.assert_close(found, expected)
    assert torch.equal(given_x, x)
    torch.autograd.backward([found.sin().sum(), expected.sin().sum()])
    torch.testing.assert_close(given_x.grad, formula_x.grad)


def test_a_transition_block_without_interior_keeps_only_its_shortcut() -> None:
    block = Block(4, 0, 6, 2, ghost=0, transition=True)
    assert {name for name, _ in block.named_parameters()} == {
        "shortcut.0.weight",
        "shortcut.1.weight",
        "shortcut.1.bias",
    }


def test_a_wrapped_convolution_computes_in_training_only() -> None:
    layer = Convolution(2, 3, 3)
    x = torch.randn(1, 2, 5, 5)
    plain = layer(x)
    layer.compute = lambda x: 2 * F.conv2d(x, layer.weight, None, layer.stride, layer.padding)
    assert torch.equal(layer(x), 2 * plain)
    assert torch.equal(layer.eval()(x), plain)


# --- ghost batch normalisation ----------------------------------------------------------------------------------------


def twins(ghost: int) -> tuple[GhostBatchNorm, nn.BatchNorm2d]:
    """A ghost and an ordinary batch norm in the same state."""
    norm, ordinary = GhostBatchNorm(4, ghost).double(), nn.BatchNorm2d(4).double()
    randomise(norm)
    ordinary.load_state_dict(norm.state_dict())
    return norm, ordinary


def batch(n: int) -> Tensor:
    generator = torch.Generator().manual_seed(n)
    x = torch.randn(n, 4, 3, 3, generator=generator, dtype=torch.float64) * 3
    return x + torch.arange(n).view(-1, 1, 1, 1)  # each sample has statistics of its own


@pytest.mark.parametrize("ghost", [0, 8, 9])
def test_a_ghost_of_the_whole_batch_is_an_ordinary_batch_norm(ghost: int) -> None:
    norm, ordinary = twins(ghost)
    inputs = [batch(8).requires_grad_() for _ in range(2)]
    for layer, x in zip((norm, ordinary), inputs, strict=True):
        layer(x).sin().sum().backward()
    assert torch.equal(norm(inputs[0]), ordinary(inputs[1]))
    for found, expected in [
        (inputs[0].grad, inputs[1].grad),
        (norm.weight.grad, ordinary.weight.grad),
        (norm.bias.grad, ordinary.bias.grad),
        (norm.running_mean, ordinary.running_mean),
        (norm.running_var, ordinary.running_var),
    ]:
        assert found is not None
        assert expected is not None
        assert torch.equal(found, expected)


@pytest.mark.parametrize(("n", "ghost", "sizes"), [(8, 4, [4, 4]), (8, 2, [2] * 4), (10, 4, [4, 3, 3]), (9, 8, [5, 4])])
def test_each_ghost_is_normalised_by_itself(n: int, ghost: int, sizes: list[int]) -> None:
    norm, ordinary = twins(ghost)
    x = batch(n)
    expected = torch.cat([ordinary(chunk) for chunk in torch.split(x, sizes)])
    torch.testing.assert_close(norm(x), expected, rtol=1e-12, atol=1e-12)


def test_running_statistics_move_as_far_per_step_as_those_of_an_ordinary_batch_norm() -> None:
    norm, ordinary = twins(4)
    x = batch(4)
    norm(x.repeat(5, 1, 1, 1))  # five equal ghosts
    ordinary(x)
    torch.testing.assert_close(norm.running_mean, ordinary.running_mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(norm.running_var, ordinary.running_var, rtol=1e-12, atol=1e-12)


def test_running_statistics_average_the_ghosts_nearly_equally() -> None:
    norm, _ = twins(4)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    old_mean, old_variance = norm.running_mean.clone(), norm.running_var.clone()
    x = batch(20)
    norm(x)
    ghosts = torch.split(x, 4)
    for running, old, per_ghost in [
        (norm.running_mean, old_mean, torch.stack([ghost.mean((0, 2, 3)) for ghost in ghosts])),
        (norm.running_var, old_variance, torch.stack([ghost.var((0, 2, 3)) for ghost in ghosts])),
    ]:
        moved = (running - 0.9 * old) / 0.1  # an average of the ghosts, the last weighted at most 1 / 0.9 as the first
        spread = per_ghost.amax(0) - per_ghost.amin(0)
        assert ((moved - per_ghost.mean(0)).abs() <= 0.05 * spread).all()


def test_evaluation_uses_the_running_statistics_alone() -> None:
    norm, ordinary = twins(4)
    x = batch(8)
    assert torch.equal(norm.eval()(x), ordinary.eval()(x))
    assert norm.state_dict().keys() == ordinary.state_dict().keys()
    assert all(torch.equal(tensor, ordinary.state_dict()[name]) for name, tensor in norm.state_dict().items())


def test_a_ghost_is_never_too_small_to_be_normalised() -> None:
    """33 samples of one pixel in ghosts of 32: a ghost of a single value has no variance."""
    assert GhostBatchNorm(4, 32)(torch.randn(33, 4, 1, 1)).isfinite().all()


# --- Haar stem, fast family -------------------------------------------------------------------------------------------


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))
def test_the_haar_transform_loses_nothing_and_keeps_lengths(channels: int, height: int, width: int) -> None:
    x = torch.randn(2, channels, 2 * height, 2 * width, dtype=torch.float64)
    out = haar(x)
    assert out.shape == (2, 4 * channels, height, width)
    torch.testing.assert_close(out.square().sum(), x.square().sum())
    low, across, down, both = out.chunk(4, 1)
    torch.testing.assert_close(low / 2, F.avg_pool2d(x, 2))
    rebuilt = torch.empty_like(x)
    for row, vertical in ((0, 1), (1, -1)):
        for column, horizontal in ((0, 1), (1, -1)):
            part = low - horizontal * across * -1 - vertical * down * -1 + vertical * horizontal * both
            rebuilt[:, :, row::2, column::2] = part / 2
    torch.testing.assert_close(rebuilt, x)


def test_an_odd_side_is_padded_by_its_border() -> None:
    x = torch.randn(1, 1, 3, 5)
    assert torch.equal(haar(x), haar(F.pad(x, (0, 1, 0, 1), mode="replicate")))


def test_resnet_9_has_its_published_layers() -> None:
    """Page 2018: prep 64, 128 with a residual block, 256, 512 with a residual block: 8 convolutions and a head."""
    architecture = build("fast", depth=1, width=1.0, in_channels=3, n_classes=10)
    model = ResNet(architecture)
    assert architecture.describe() == "64[]-128[0 128]-256[0]-512[0 512]"
    channels = [convolution.weight.shape[:2] for convolution in model.convolutions()]
    assert channels == [(64, 3), (128, 64), (128, 128), (128, 128), (256, 128), (512, 256), (512, 512), (512, 512)]
    assert all(convolution.weight.shape[2:] == (3, 3) for convolution in model.convolutions())
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(6.57e6, rel=0.01)


def test_a_pooled_transition_computes_its_formula() -> None:
    block = Block(4, 0, 6, 2, ghost=0, transition=True, pools=True).double().eval()
    randomise(block)
    convolution, norm = block.shortcut  # type: ignore[misc]
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    padded = F.pad(F.conv2d(x, convolution.weight, padding=1), (0, 1, 0, 1), value=-1e9)
    expected = F.relu(norm(F.max_pool2d(padded, 2)))
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("n_in", [3, 8, 16])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (1, 2), (3, 1), (3, 2)])
def test_a_convolution_is_the_plain_one(n_in: int, kernel: int, stride: int) -> None:
    x = torch.randn(2, n_in, 7, 7, dtype=torch.float64)
    weight = torch.randn(5, n_in, kernel, kernel, dtype=torch.float64)
    torch.testing.assert_close(convolve(x, weight, stride), F.conv2d(x, weight, None, stride, kernel // 2))


@pytest.mark.parametrize("n_in", [4, 8, 12])
def test_a_convolution_writes_nothing_beyond_its_memory(n_in: int) -> None:
    """In fp32 oneDNN did in the gradient of 1x1 kernels at a stride of 2; a process that does dies of it."""
    for _ in range(4):
        x = torch.randn(8, n_in, 64, 64).contiguous(memory_format=torch.channels_last).requires_grad_()
        weight = torch.randn(8, n_in, 1, 1, requires_grad=True)
        convolve(x, weight, 2).sum().backward()
        neighbours = [torch.zeros(37 * n) for n in range(1, 50)]  # whose memory it would be
        assert not any(neighbour.any() for neighbour in neighbours)
