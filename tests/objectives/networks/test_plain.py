"""Laws of plain networks: their families, axes, masks, FLOPs; those of surgery run over them in test_surgery."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import SGD

from objectives.feasibility import obstacle
from objectives.networks import families, flops
from objectives.networks.architecture import HEAD
from objectives.networks.families import ALL, architecture_of, build, is_plain, takes_series
from objectives.networks.network import Network
from objectives.networks.network import build as network_of
from objectives.networks.plain import INPUTS, PlainArchitecture, PlainConvolution, residual
from objectives.networks.surgery import Index, reindex
from objectives.networks.trainee import Trainee
from objectives.pipeline import Pipeline
from objectives.task import DataSpec, Task
from objectives.work import image_flops
from tests.objectives.networks.layered import plain_architectures

# family -> (channels, classes, size, parameters): those of the papers
PUBLISHED = {
    "lenet300": (1, 10, 28, 266_610),
    "lenet5": (1, 10, 28, 61_706),
    "cnn1d": (3, 6, 128, 96 + 992 + 5152 + 34680 + 129720 + 96100 + 10100 + 606),
}
seeds = st.integers(0, 10_000)


def network(architecture: PlainArchitecture, seed: int = 0) -> Network:
    """In double precision and evaluation mode, with nothing at its initial value."""
    torch.manual_seed(seed)
    model = network_of(architecture).double().eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) + (0.5 if name.endswith("var") else -0.4))
    return model


def inputs(architecture: PlainArchitecture, n: int = 3) -> Tensor:
    return torch.randn(n, *architecture.shape(architecture.size), dtype=torch.float64)


def reduced(model: Network, index: Index) -> Network:
    return reindex(Trainee(model, SGD(model.parameters(), lr=0.1), {}, {}), index).model


@pytest.mark.parametrize("family", PUBLISHED)
def test_families_have_the_parameters_of_their_papers(family: str) -> None:
    channels, classes, size, n = PUBLISHED[family]
    model = network_of(build(family, depth=1, width=1.0, in_channels=channels, n_classes=classes, size=size))
    assert sum(p.numel() for p in model.parameters()) == n


@pytest.mark.parametrize("width", [0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("family", ALL)
def test_every_family_makes_logits_and_its_axes_fit_its_tensors(family: str, width: float) -> None:
    size = 32
    architecture = build(family, depth=1, width=width, in_channels=2, n_classes=5, size=size)
    with torch.device("meta"):
        model = network_of(architecture)
        x = torch.empty(2, *architecture.shape(size))
        assert model(x).shape == (2, 5)
    sizes, axes, tensors = architecture.axis_sizes(), model.axes(), model.state_dict()
    assert axes.keys() == tensors.keys()
    for name, labels in axes.items():
        assert len(labels) == tensors[name].dim()
        assert all(label is None or sizes[label] == n for label, n in zip(labels, tensors[name].shape, strict=True))
    assert {label for labels in axes.values() for label in labels if label is not None} == set(sizes)
    assert model.get_buffer(model.counter).dim() == 0
    assert axes["head.weight"][:1] == (None,)
    assert architecture_of(json.loads(json.dumps(architecture.to_json()))) == architecture


@settings(max_examples=30)
@given(plain_architectures())
def test_flops_are_those_of_the_layers_and_what_is_told_survives_json(architecture: PlainArchitecture) -> None:
    size = architecture.size
    assert flops.count(architecture, size)[0] == image_flops(architecture, size)
    assert architecture_of(json.loads(json.dumps(architecture.to_json()))) == architecture
    layers = architecture.layers(size)
    assert [layer.writes for layer in layers] == [label for label in architecture.axis_sizes() if label != INPUTS] + [
        HEAD
    ]


@settings(max_examples=40)
@given(plain_architectures(), seeds)
def test_a_subset_of_every_axis_computes_what_the_masked_network_does(
    architecture: PlainArchitecture, seed: int
) -> None:
    """A channel is masked by zeros wherever it is read."""
    model = network(architecture, seed)
    keep = {
        label: torch.randperm(n)[: int(torch.randint(1, n + 1, ()))].sort().values
        for label, n in architecture.axis_sizes().items()
    }
    small = reduced(model, keep)
    assert small.architecture == architecture.resized({label: len(kept) for label, kept in keep.items()})
    with torch.no_grad():
        for name, labels in model.axes().items():
            if len(labels) > 1 and (read := labels[1]) is not None:
                dead = torch.ones(architecture.axis_sizes()[read], dtype=torch.bool)
                dead[keep[read]] = False
                model.get_parameter(name).index_fill_(1, dead.nonzero().flatten(), 0.0)
    x = inputs(architecture)
    torch.testing.assert_close(small(x), model(x), rtol=1e-10, atol=1e-10)


def test_layers_compute_their_formulas() -> None:
    torch.manual_seed(0)
    first = PlainConvolution(4, 3, 1, has_norm=True, pool=2)
    architecture = PlainArchitecture(2, 3, 9, 2, (first, PlainConvolution(5, 3, 0, 2, pooling="average")), (6,))
    model, x = network(architecture), inputs(architecture)
    tensors = model.state_dict()
    out = nn.functional.conv2d(x, tensors["conv1.convolution.weight"], padding=1)
    of_norm = [tensors[f"conv1.shift.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
    out = nn.functional.max_pool2d(nn.functional.batch_norm(out, *of_norm).relu(), 2)
    out = nn.functional.conv2d(out, tensors["conv2.convolution.weight"], tensors["conv2.shift.bias"], stride=2).relu()
    out = torch.einsum("bchw,ochw->bo", out, tensors["dense1.weight"].unflatten(2, (1, 1)))
    out = (out + tensors["dense1.bias"]).relu() @ tensors["head.weight"].T + tensors["head.bias"]
    torch.testing.assert_close(model(x), out, rtol=1e-12, atol=1e-12)


def test_series_are_read_along_their_length_alone() -> None:
    architecture = PlainArchitecture(2, 3, 12, 1, (PlainConvolution(4, 5, 2, pool=3),), ())
    model, x = network(architecture), inputs(architecture)
    weight, bias = (model.state_dict()[f"conv1.{name}"] for name in ("convolution.weight", "shift.bias"))
    out = nn.functional.max_pool1d(nn.functional.conv1d(x[:, :, 0], weight[:, :, 0], bias, padding=2).relu(), 3)
    out = torch.einsum("bcl,ocl->bo", out, model.state_dict()["head.weight"]) + model.state_dict()["head.bias"]
    torch.testing.assert_close(model(x), out, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("family", [family for family in ALL if is_plain(family) and family != "lenet300"])
def test_what_is_too_small_for_a_family_is_refused_in_one_line(family: str) -> None:
    with pytest.raises(ValueError, match=r"too small for the family .* it needs [0-9]+ at least") as refused:
        build(family, depth=1, width=1.0, in_channels=1, n_classes=2, size=4)
    assert "\n" not in str(refused.value)
    least = int(str(refused.value).split()[-3])
    shape = {"depth": 1, "width": 1.0, "in_channels": 1, "n_classes": 2}
    assert isinstance(build(family, size=least, **shape), PlainArchitecture)
    with pytest.raises(ValueError, match="too small"):
        build(family, size=least - 1, **shape)


@pytest.mark.parametrize("family", ALL)
def test_a_family_takes_series_or_images_and_says_so(family: str) -> None:
    for data in ("fashion_mnist", "series:x.npz"):
        said = obstacle(Pipeline(), Task(DataSpec(data), family), 32, 1000)
        fits = takes_series(family) == data.startswith("series:")
        assert (said is None) == fits
        assert fits or f"the networks of family {family} take" in str(said)


def test_plain_networks_have_no_blocks_nor_another_size() -> None:
    architecture = build("lenet5", depth=1, width=1.0, in_channels=1, n_classes=10, size=28)
    with pytest.raises(ValueError, match="has no residual blocks"):
        residual(architecture)
    with pytest.raises(ValueError, match="a size of 28, not 32"):
        architecture.layers(32)
    with pytest.raises(ValueError, match="one depth"):
        families.build("lenet5", depth=2, width=1.0, in_channels=1, n_classes=10, size=28)
