"""Laws of starts that become other networks: what they compute stays the same wherever nothing is taken away."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from objectives.data.augment import Normalisation
from objectives.data.dataset import with_channels
from objectives.networks.architecture import Architecture, Downsampling, Stage
from objectives.networks.families import build as build_family
from objectives.networks.network import Network, build
from objectives.networks.plain import AnyArchitecture
from objectives.networks.surgery import factorise
from objectives.networks.trainee import Trainee
from objectives.starts.fitting import fitted, strengths
from objectives.starts.start import Start, read
from tests.objectives.starts.made import COLOUR, DIGITS, GREY, exported, lively

CPU = torch.device("cpu")
SMALL = Architecture(1, 10, (Stage(6, (5,)), Stage(8, (7, 4))))
KINDS = {
    "projection": SMALL,
    "pool": replace(SMALL, transition="pool", stages=(Stage(6, (5,)), Stage(8, (0, 4)))),
    "haar": replace(SMALL, stem="haar"),
    "strided": replace(SMALL, stem_stride=2, stem_kernel=5),
    "average": replace(SMALL, downsampling=Downsampling("average")),
    "weight norm": replace(SMALL, norm="weight"),
    "mean-only": replace(SMALL, norm="mean_only"),
    "without norms": replace(SMALL, norm="none"),
    "without a branch": replace(SMALL, stages=(Stage(6, (0, 5)), Stage(8, (0, 4)))),
}
each_kind = pytest.mark.parametrize("architecture", KINDS.values(), ids=KINDS.keys())


def started(folder: Path, architecture: AnyArchitecture, *, double: bool = True, **about: object) -> Start:
    """A start of an architecture; in double precision where equality is claimed."""
    start = read(str(exported(folder / "start", lively(architecture), **about)))  # type: ignore[arg-type]
    return replace(start, network=start.network.double()) if double else start


def drawn(architecture: AnyArchitecture, n: int = 5, size: int = 8) -> Tensor:
    shape = architecture.shape(size)
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def asked(start: Start, architecture: AnyArchitecture, classes: tuple[str, ...] = DIGITS) -> Network:
    torch.manual_seed(3)
    return fitted(start, build(architecture), classes)


@each_kind
def test_a_start_of_the_same_network_and_classes_is_its_very_self(architecture: Architecture, tmp_path: Path) -> None:
    start = started(tmp_path, architecture, double=False)
    x = drawn(architecture).float()
    found = asked(start, architecture)
    assert torch.equal(found(x), start.network(x))
    assert found is not start.network


def wider(architecture: Architecture) -> Architecture:
    return architecture.resized({axis: 2 * n + 3 for axis, n in architecture.axis_sizes().items()})


def deeper(architecture: Architecture) -> Architecture:
    stages = tuple(replace(s, interiors=(*s.interiors, 9, 3)) for s in architecture.stages)
    return replace(architecture, stages=stages)


def branched(architecture: Architecture) -> Architecture:
    stages = tuple(replace(s, interiors=tuple(n or 5 for n in s.interiors)) for s in architecture.stages)
    return replace(architecture, stages=stages)


@each_kind
@pytest.mark.parametrize("grown", [wider, deeper, branched, lambda a: deeper(wider(branched(a)))])
def test_a_start_that_grows_computes_the_same(architecture: Architecture, grown: object, tmp_path: Path) -> None:
    larger = grown(architecture)  # type: ignore[operator]
    for is_double, within in ((True, 1e-10), (False, 1e-5)):
        start = started(tmp_path, architecture, double=is_double)
        x = drawn(architecture).to(next(start.network.parameters()).dtype)
        found = asked(start, larger)
        assert found.architecture == larger
        torch.testing.assert_close(found(x), start.network(x), rtol=within, atol=within)


def test_channels_that_were_copied_become_different_ones(tmp_path: Path) -> None:
    start = started(tmp_path, SMALL, double=False)
    network = asked(start, SMALL.resized({"stage0.block0": 13})).train()
    filters = network.get_parameter("stages.0.0.conv1.weight")
    alike = torch.cdist(filters.detach().flatten(1), filters.detach().flatten(1))
    pairs = ((alike < 1e-6) & ~torch.eye(len(filters), dtype=torch.bool)).nonzero()
    assert len(pairs) >= 2 * (13 - 5)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    for step in range(3):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(drawn(SMALL, 20).float()), torch.arange(20) % 10)
        loss.backward()
        optimizer.step()
        apart = (filters.detach()[pairs[:, 0]] - filters.detach()[pairs[:, 1]]).flatten(1).norm(dim=1)
        assert (apart > 1e-5).all(), step


@each_kind
def test_a_pruned_start_is_the_start_with_its_weaker_channels_masked(
    architecture: Architecture, tmp_path: Path
) -> None:
    start = started(tmp_path, architecture)
    sizes = architecture.axis_sizes()
    smaller = architecture.resized({axis: max(1, n // 2) for axis, n in sizes.items()})
    kept = {axis: found.topk(smaller.axis_sizes()[axis]).indices for axis, found in strengths(start.network).items()}
    found = asked(start, smaller)
    assert found.architecture == smaller
    masked = read(start.origin.source).network.double()
    for name, tensor in masked.state_dict(keep_vars=True).items():
        for dim, axis in enumerate(masked.axes()[name]):
            if axis in kept and (dim == 1 or not name.endswith(("gain", "var", "mean"))):
                gone = torch.ones(tensor.shape[dim], dtype=torch.bool).index_fill_(0, kept[axis], False)
                tensor.detach().index_fill_(dim, gone.nonzero().flatten(), 0.0)
    if architecture.norm in ("batch", "none"):  # a normalised filter changes with what it reads
        x = drawn(architecture)
        torch.testing.assert_close(found(x), masked(x), rtol=1e-10, atol=1e-10)


def test_the_last_blocks_of_a_stage_go_first_as_if_their_branches_were_masked(tmp_path: Path) -> None:
    long = replace(SMALL, stages=(Stage(6, (5, 4)), Stage(8, (7, 4, 3))))
    start = started(tmp_path, long)
    short = replace(long, stages=(Stage(6, (5,)), Stage(8, (7, 4))))
    masked = read(start.origin.source).network.double()
    with torch.no_grad():
        for at in ("stages.0.1", "stages.1.2"):
            for name in ("weight", "bias"):
                masked.get_parameter(f"{at}.bn2.{name}").zero_()
    x = drawn(long)
    torch.testing.assert_close(asked(start, short)(x), masked(x), rtol=1e-10, atol=1e-10)


@each_kind
@pytest.mark.parametrize("pixels", [((0.4,) * 3, (0.2, 0.3, 0.25)), ((0.4,) * 3, (0.2,) * 3)])
def test_a_colour_start_sees_grey_images_as_it_saw_them_in_colour(
    architecture: Architecture, pixels: tuple[tuple[float, ...], tuple[float, ...]], tmp_path: Path
) -> None:
    """Exactly where the means of the channels are equal."""
    colour = replace(architecture, in_channels=3)
    start = started(tmp_path, colour, pixels=pixels, double=False)
    grey = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8)
    found = asked(start, architecture)
    x, y = Normalisation(start.pixels(1), CPU)(grey), Normalisation(start, CPU)(grey.expand(-1, 3, -1, -1))
    torch.testing.assert_close(found(x), start.network(y), rtol=1e-4, atol=1e-4)


@each_kind
def test_a_grey_start_sees_colour_images_by_their_luminance(architecture: Architecture, tmp_path: Path) -> None:
    start = started(tmp_path, architecture, pixels=GREY, double=False)
    colour = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8)
    found = asked(start, replace(architecture, in_channels=3))
    x = Normalisation(start.pixels(3), CPU)(colour)
    shares = torch.tensor([19595, 38470, 7471]) / 65536
    luminance = (colour.float() * shares.view(3, 1, 1)).sum(1, keepdim=True)
    y = (luminance / 255 - start.mean[0]) / start.std[0]
    torch.testing.assert_close(found(x), start.network(y), rtol=1e-4, atol=1e-4)
    rounded = torch.from_numpy(with_channels(colour.permute(0, 2, 3, 1).numpy(), 1)).permute(0, 3, 1, 2)
    assert (rounded.float() - luminance).abs().max() <= 0.51  # what decoding makes of them


def test_other_classes_get_the_classifier_of_the_new_network(tmp_path: Path) -> None:
    start = started(tmp_path, SMALL, double=False)
    for classes in (DIGITS[::-1], DIGITS[:4], ("one", *DIGITS[1:])):
        like = build(replace(SMALL, n_classes=len(classes)))
        found = fitted(start, like, classes)
        assert torch.equal(found.head.weight, like.head.weight)  # type: ignore[arg-type]
        assert torch.equal(found.stages[0][0].conv1.weight, start.network.stages[0][0].conv1.weight)  # type: ignore[index,union-attr,arg-type]


def test_factorised_layers_become_whole_again(tmp_path: Path) -> None:
    network = lively(SMALL)
    trainee = Trainee(network, torch.optim.SGD(network.parameters(), lr=0.1), {}, {})
    thin = factorise(trainee, {"head": (4,), "stage1.block1.conv1": (3, 3)}).model.eval()
    start = read(str(exported(tmp_path / "thin", thin)))
    start = replace(start, network=start.network.double())
    x = drawn(SMALL)
    torch.testing.assert_close(asked(start, SMALL)(x), start.network(x), rtol=1e-6, atol=1e-6)


PLAIN = {
    "lenet5": ("lenet5", 16),
    "vgg": ("vgg", 8),
    "lenet300": ("lenet300", 8),
    "cnn1d": ("cnn1d", 64),
}


@pytest.mark.parametrize(("family", "size"), PLAIN.values(), ids=PLAIN.keys())
def test_plain_networks_grow_and_are_pruned_likewise(family: str, size: int, tmp_path: Path) -> None:
    def plain(width: float) -> AnyArchitecture:
        return build_family(family, depth=1, width=width, in_channels=1, n_classes=10, size=size)

    start = started(tmp_path, plain(0.25), size=size)
    x = drawn(start.network.architecture, size=size)
    torch.testing.assert_close(asked(start, plain(0.25))(x), start.network(x), rtol=0, atol=0)
    torch.testing.assert_close(asked(start, plain(0.5))(x), start.network(x), rtol=1e-10, atol=1e-10)
    assert asked(start, plain(0.125)).architecture == plain(0.125)


@given(data=st.data())
def test_any_residual_network_becomes_any_other_of_as_many_stages(data: st.DataObject, tmp_path_factory) -> None:  # type: ignore[no-untyped-def]
    """And is finite: whatever blocks, widths, branches and channels either has."""
    transition = data.draw(st.sampled_from(["projection", "pool"]))
    n_stages = data.draw(st.integers(1, 3))

    def architecture() -> Architecture:
        stages = []
        for stage in range(n_stages):
            first = [data.draw(st.integers(0, 4))] if stage else []
            blocks = data.draw(st.lists(st.integers(1, 5), max_size=2))
            stages.append(Stage(data.draw(st.integers(1, 6)), (*first, *blocks)))
        return Architecture(data.draw(st.sampled_from([1, 3])), 10, tuple(stages), transition=transition)

    begun, wanted = architecture(), architecture()
    pixels = (GREY if begun.in_channels == 1 else COLOUR,)
    start = started(tmp_path_factory.mktemp("start"), begun, pixels=pixels[0])
    found = asked(start, wanted)
    assert found.architecture == wanted
    assert found(drawn(wanted)).isfinite().all()


REFUSED = {
    "stages": (replace(SMALL, stages=SMALL.stages[:1]), "it has 1 stages, the start 2"),
    "plain": (build_family("lenet5", depth=1, width=1.0, in_channels=1, n_classes=10, size=16), "one is plain"),
    "channels": (replace(SMALL, in_channels=2), "it takes 1 channels, these have 2"),
}


@pytest.mark.parametrize(("architecture", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_does_not_fit_is_refused_in_one_line(architecture: AnyArchitecture, words: str, tmp_path: Path) -> None:
    start = started(tmp_path, SMALL)
    with pytest.raises(ValueError, match=words) as refused:
        asked(start, architecture)
    assert "\n" not in str(refused.value)
    assert start.words in str(refused.value)
