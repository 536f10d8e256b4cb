"""Laws of the families for large images: they are torchvision's ResNets, before surgery and after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from objectives.data.vision import import_torchvision
from objectives.networks import flops
from objectives.networks.architecture import FAMILIES, Architecture, Stage, build
from objectives.networks.resnet import ResNet
from objectives.networks.surgery import drop_block, insert_block, reindex
from objectives.networks.trainee import Trainee
from objectives.starts.state_dicts import name_of, resnet
from tests.objectives.networks.test_pooling import kept

TWINS = {"imagenet18": "resnet18", "imagenet34": "resnet34"}
each_family = pytest.mark.parametrize("family", TWINS)


def original(name: str, seed: int = 0, **settings: object) -> nn.Module:
    """torchvision's network in evaluation mode, with random weights and statistics as training leaves them."""
    torch.manual_seed(seed)
    model: nn.Module = getattr(import_torchvision("models"), name)(weights=None, **settings)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_var is not None
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(std=0.2)
                module.running_mean.normal_(std=0.3)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 2.0)
    return model.eval()


def images(size: int, n: int = 2, channels: int = 3) -> Tensor:
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(5))


def trainee(model: ResNet) -> Trainee:
    return Trainee(model, SGD(model.parameters(), lr=0.1), shadows={}, born={})


def assert_same(found: nn.Module, expected: nn.Module, *sizes: int) -> None:
    for size in sizes:
        with torch.no_grad():
            logits = expected(images(size))
            error = (found(images(size)) - logits).abs().max() / logits.abs().max()
        assert error < 1e-5, (size, error)


@each_family
def test_a_family_at_depth_and_width_1_is_torchvisions_network(family: str) -> None:
    theirs = original(TWINS[family])
    architecture = build(family, depth=1, width=1.0, in_channels=3, n_classes=1000)
    ours = ResNet(architecture).eval()
    names = {name_of(name): name for name in ours.state_dict()}
    assert names.keys() == theirs.state_dict().keys()
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    ours.load_state_dict({names[name]: tensor for name, tensor in theirs.state_dict().items()})
    assert_same(ours, theirs, 65, 96)
    read = resnet(theirs.state_dict())
    assert read.architecture == architecture
    assert_same(read, theirs, 65)


def test_in_training_it_computes_and_learns_as_torchvisions_does() -> None:
    theirs = original("resnet18", num_classes=7).double().train()
    ours = resnet(theirs.state_dict()).double().train()
    x, y = images(33, 4).double(), torch.arange(4)
    for model in (ours, theirs):
        nn.functional.cross_entropy(model(x), y).backward()
    for name, parameter in ours.named_parameters():
        expected = theirs.get_parameter(name_of(name)).grad
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-8, atol=1e-11, check_stride=False)
    for name, buffer in ours.named_buffers():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(buffer, theirs.get_buffer(name_of(name)))


def without(model: ResNet, dead: dict[str, Tensor]) -> ResNet:
    """The network whose channels of these axes are dead: nothing produces them, whatever reads them. In place."""
    with torch.no_grad():
        for name, labels in model.axes().items():
            tensor = model.state_dict()[name]
            if labels and labels[0] in dead and not name.endswith("running_var"):
                tensor[dead[labels[0]]] = 0  # type: ignore[index]
    return model


@each_family
def test_pruned_and_grown_it_still_computes_what_torchvisions_does(family: str) -> None:
    """Channels that are dead go, all others stay or are copied: in every stage and inside of blocks."""
    theirs = original(TWINS[family], num_classes=11)
    ours = resnet(theirs.state_dict())
    random = torch.Generator().manual_seed(3)
    sizes = ours.architecture.axis_sizes()
    keep = {axis: torch.randperm(n, generator=random)[: 5 * n // 8].sort().values for axis, n in sizes.items()}
    dead = {axis: torch.tensor([c for c in range(n) if c not in set(keep[axis].tolist())]) for axis, n in sizes.items()}
    without(ours, dead)
    theirs.load_state_dict({name_of(name): tensor for name, tensor in ours.state_dict().items()})
    pruned = reindex(trainee(ours), keep)
    assert pruned.model.architecture.stages[0].width == 40
    assert_same(pruned.model, theirs, 65)
    wide = {axis: torch.cat([torch.arange(len(kept)), torch.randint(len(kept), (9,))]) for axis, kept in keep.items()}
    grown = reindex(pruned, wide)
    assert_same(grown.model, theirs, 65, 96)
    deeper = insert_block(grown, 2, 1, 24)
    assert_same(deeper.model, theirs, 65)
    names = {name_of(name): tensor for name, tensor in pruned.model.state_dict().items()}
    again = resnet(names)  # weights of any widths are taken
    assert again.architecture == pruned.model.architecture
    assert_same(again, theirs, 65)


def test_a_branch_that_is_dropped_leaves_what_the_block_passed_on() -> None:
    theirs = original("resnet18", num_classes=3)
    block = theirs.get_submodule("layer3.1")
    with torch.no_grad():
        block.bn2.weight.zero_()  # type: ignore[union-attr, operator]
        block.bn2.bias.zero_()  # type: ignore[union-attr, operator]
        block.conv2.weight.zero_()  # type: ignore[union-attr, operator]
    ours = resnet(theirs.state_dict())
    dropped = drop_block(trainee(ours), 2, 1).model
    assert dropped.architecture.describe() == "64[64 64]-128[128 128]-256[256]-512[512 512]"
    assert_same(dropped, theirs, 65)


@contextmanager
def counting(model: nn.Module) -> Iterator[list[int]]:
    """The FLOPs of the products that the network computes, an entry a layer and pass; hooks see what comes out."""
    found: list[int] = []

    def hook(module: nn.Module, _: object, output: Tensor) -> None:
        found.append(2 * output.numel() * module.weight[0].numel())  # type: ignore[index, union-attr, operator]

    layers = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    handles = [layer.register_forward_hook(hook) for layer in layers]
    yield found
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("size", [33, 96, 224])
@each_family
def test_its_flops_are_those_that_hooks_see_in_torchvisions_network(family: str, size: int) -> None:
    with torch.device("meta"):
        theirs = getattr(import_torchvision("models"), TWINS[family])(weights=None)
        with counting(theirs) as found:
            theirs(torch.empty(1, 3, size, size))
    architecture = build(family, depth=1, width=1.0, in_channels=3, n_classes=1000)
    assert flops.count(architecture, size)[0] == sum(found)
    if size == 224:  # as published: 1.8 and 3.6 billion multiply-adds (He et al. 2016, table 1)
        assert sum(found) / 2 == pytest.approx({"imagenet18": 1.8e9, "imagenet34": 3.6e9}[family], rel=0.02)


@pytest.mark.parametrize("size", [96, 224])
@each_family
def test_what_a_step_must_remember_is_forecast(family: str, size: int) -> None:
    architecture = build(family, depth=1, width=0.25, in_channels=3, n_classes=10)
    assert 1.9 < kept(architecture, size, 1 if size == 224 else 2) / architecture.activations(size) < 2.2


def test_a_pooling_counts_as_much_as_it_remembers() -> None:
    """The values that it puts out, and where each of them was, in 8 bytes."""
    architecture = Architecture(3, 4, (Stage(8, (8,)),), stem_stride=2, stem_kernel=7, stem_pool=True)
    stem, *others = architecture.layers(48)
    assert (stem.outputs, stem.pooled) == (8 * 24 * 24, 8 * 12 * 12)
    outputs = sum(layer.outputs for layer in (stem, *others))
    assert architecture.activations(48) == outputs + 3 * stem.pooled // 2
    assert kept(architecture, 48) == pytest.approx(3 * 48 * 48 + 2 * outputs + 3 * stem.pooled, rel=0.01)


@pytest.mark.parametrize("size", range(1, 20))
def test_its_maps_have_the_sides_that_are_said(size: int) -> None:
    architecture = build("imagenet18", depth=1, width=0.125, in_channels=1, n_classes=4)
    model, x = ResNet(architecture).eval(), torch.randn(1, 1, size, size)
    sides = [side for side in architecture.sides(size) for _ in range(2)]  # two blocks a stage
    for (name, compute), side in zip(model.parts()[:-1], [sides[0], *sides], strict=True):
        x = compute(x)
        assert x.shape[2:] == (side, side), name


def test_an_architecture_of_before_there_was_a_pooling_has_none() -> None:
    plain = build("thin", depth=1, width=1.0, in_channels=3, n_classes=10)
    before = {key: value for key, value in plain.to_json().items() if key != "stem_pool"}
    assert Architecture.from_json(before) == plain
    assert [name for name, known in FAMILIES.items() if known.stem_pool] == list(TWINS)
