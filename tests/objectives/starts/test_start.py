"""Laws of what a word for a start names: the network as it was exported, or a line that says what is wrong."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from objectives.inference.folder import DESCRIPTION, FORMAT, WEIGHTS
from objectives.networks.architecture import Architecture, Stage
from objectives.networks.families import ALL, is_plain, takes_series
from objectives.networks.families import build as build_family
from objectives.starts import naming, origin, start
from objectives.starts.likeness import family_of, settings_of
from objectives.starts.origin import Origin
from objectives.starts.state_dicts import name_of
from objectives.words import printable
from tests.objectives.starts.made import DIGITS, exported, lively

SMALL = Architecture(1, 10, (Stage(6, (5,)), Stage(8, (7, 4))))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return exported(tmp_path / "net", lively(SMALL), study="pets", trial=3, train_seconds=12.0, family="small")


def test_a_start_is_the_network_that_was_exported_with_all_that_is_told_of_it(folder: Path) -> None:
    read, expected = start.read(str(folder)), lively(SMALL).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in read.network.state_dict().items())
    assert not read.network.training
    assert (read.mean, read.std, read.size, read.classes) == ((0.3,), (0.35,), 8, DIGITS)
    assert (read.words, read.train_seconds) == ("trial 3 of study pets", 12.0)
    known = naming.origin(str(folder))
    assert known == read.origin
    assert (known.family, known.architecture, known.source) == ("small", SMALL, str(folder.resolve()))
    assert Origin.from_json(json.loads(json.dumps(known.to_json()))) == known


def test_a_file_of_an_export_stands_for_its_folder(folder: Path) -> None:
    for name in (WEIGHTS, DESCRIPTION):
        assert naming.origin(str(folder / name)) == naming.origin(str(folder))
        assert start.read(str(folder / name)) is start.read(str(folder))


def test_what_a_start_of_a_start_took_is_told_with_it(tmp_path: Path) -> None:
    def cost(**about: object) -> float | None:
        return naming.origin(str(exported(tmp_path / "net", lively(SMALL), **about))).train_seconds  # type: ignore[arg-type]

    assert cost(train_seconds=2.0, start={"train_seconds": 40.0}) == 42.0
    assert cost(train_seconds=2.0, start={"train_seconds": None}) is None
    assert cost() is None


def test_the_same_place_is_read_once_until_something_else_lies_there(folder: Path) -> None:
    first = start.read(str(folder))
    assert start.read(os.path.relpath(folder)) is first
    exported(folder, lively(SMALL, seed=1))
    second = start.read(str(folder))
    assert second.digest != first.digest
    assert naming.origin(str(folder)).digest == second.digest


def damage(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(content)


def newer(folder: Path) -> None:
    network = start.read(str(folder)).network
    exported(folder, network, format=FORMAT + 1)


def undescribed(folder: Path) -> None:
    exported(folder, lively(SMALL), input={})


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "there is no such folder"),
    "a part of it": (lambda folder: (folder / DESCRIPTION).unlink(), f"it has no {DESCRIPTION}"),
    "damaged": (damage, "is damaged"),
    "newer": (newer, f"export format {FORMAT + 1}, this version reads {FORMAT}"),
    "undescribed": (undescribed, "describes no network"),
}


@pytest.mark.parametrize(("spoil", "words"), WRONG.values(), ids=WRONG.keys())
def test_what_is_no_export_is_refused_in_one_line(spoil: Callable[[Path], object], words: str, folder: Path) -> None:
    spoil(folder)
    for reader in (naming.origin, start.read):
        with pytest.raises(ValueError, match=words) as refused:
            reader(str(folder))
        assert "\n" not in str(refused.value)
    assert naming.found(str(folder)) is None


@pytest.mark.parametrize("family", ALL)
def test_the_family_and_the_settings_of_its_networks_are_found_again(family: str) -> None:
    size = 128 if takes_series(family) else 32
    for depth, width in ((1, 1.0), (1, 0.5)) if is_plain(family) else ((1, 1.0), (2, 0.5), (3, 2.0)):
        built = build_family(family, depth=depth, width=width, in_channels=3, n_classes=7, size=size)
        found = family_of(built)
        assert found is not None
        again = build_family(found, depth=depth, width=width, in_channels=3, n_classes=7, size=size)
        assert found == family or (found, family) == ("thin", "wide"), again  # they differ in width alone
        assert settings_of(built, family)[0] == depth
        assert settings_of(built, family)[1] == pytest.approx(width, rel=0.1)


def test_a_network_of_no_family_is_a_start_all_the_same(tmp_path: Path) -> None:
    odd = replace(SMALL, stages=tuple(Stage(4, (3,)) for _ in range(6)))
    assert naming.origin(str(exported(tmp_path / "odd", lively(odd)))).family is None


def test_the_digest_of_tensors_is_that_of_what_they_hold() -> None:
    assert start.digest(lively(SMALL)) == start.digest(lively(SMALL)) != start.digest(lively(SMALL, seed=1))


def test_a_word_means_the_same_in_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert origin.resolved("net") == str(tmp_path.resolve() / "net")
    assert origin.resolved("torchvision:resnet18") == "torchvision:resnet18"


@pytest.mark.parametrize(("family", "ending"), [("imagenet18", "pth"), ("imagenet34", "safetensors")])
def test_weights_of_others_are_starts_of_imagenet(family: str, ending: str, tmp_path: Path) -> None:
    """Of classes that nobody knows, normalised as torchvision's are."""
    built = build_family(family, depth=1, width=0.125, in_channels=3, n_classes=1000, size=64)
    network = lively(built)
    tensors = {name_of(name): tensor.contiguous() for name, tensor in network.state_dict().items()}
    path = tmp_path / f"net.{ending}"
    torch.save(tensors, path) if ending == "pth" else safetensors.torch.save_file(tensors, path)
    found = start.read(str(path))
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(found.network(x), network(x))
    assert (found.mean, found.std) == start.IMAGENET
    assert (found.words, found.classes, found.size, found.train_seconds) == (f"net.{ending}", (), 224, None)
    assert found.digest == start.digest(network)
    known = naming.origin(str(path))
    assert (known.family, known.architecture) == (family, built)
    assert settings_of(built, family) == (1, 0.25)  # of widths in quarters


@pytest.mark.parametrize(
    ("word", "said"),
    [("net.pth", "there is no such file"), ("torchvision:resnet50", "torchvision:resnet50 is not taken")],
)
def test_weights_that_are_not_there_are_told_in_one_line(word: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        naming.origin(word if ":" in word else str(tmp_path / word))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "word", ["", ".", "\0", "a\nb", "n" * 5000, "\udc80.pth", "/dev/null", "~nosuchuser/x", "torchvision:"]
)
def test_whatever_a_word_is_it_names_a_start_or_a_line_says_why_not(word: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        naming.origin(word)
    assert len(printable(str(refused.value)).splitlines()) == 1
    assert naming.found(word) is None
