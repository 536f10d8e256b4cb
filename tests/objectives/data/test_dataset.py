"""Laws of the data: which images are used, how they are split, and what the tensors hold."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from objectives.data.dataset import FEW, load, n_splits, n_validated, splits_of
from objectives.data.sources import Labelled
from objectives.data.vision import import_torchvision
from objectives.errors import DataError
from objectives.task import DataSpec
from tests.objectives.data.images import CPU, as_set, everything, grey, load_folder, make_folder, write_fashion

pytestmark = pytest.mark.usefixtures("cache")


# --- specs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    [
        DataSpec("digits"),
        DataSpec(
            "folder:a b/frösche",
            **{"root": "/x", "n_train": 7, "size": 8, "channels": 3, "flip": False, "drop_small_classes": True},
            **{"seed": 3, "labels": "x.csv", "follow_links": True},
        ),
    ],
)
def test_a_spec_survives_json(spec: DataSpec) -> None:
    assert DataSpec.from_json(spec.to_json()) == spec


def test_a_spec_of_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown data setting 'colour'"):
        DataSpec.from_json({"name": "digits", "colour": True})


@pytest.mark.parametrize(
    ("field", "value"), [("n_train", 1), ("size", 3), ("size", 1025), ("channels", 2), ("seed", -1)]
)
def test_a_value_out_of_range_is_refused_by_name(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{field} is {value}"):
        DataSpec("digits", **{field: value})  # type: ignore[arg-type]


def test_importing_the_data_module_loads_no_image_library() -> None:
    libraries = "torchvision sklearn PIL safetensors"
    code = f"import sys, objectives.data.dataset; print([m for m in '{libraries}'.split() if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("submodule", ["datasets", "transforms.v2"])
def test_torchvision_imports_on_any_build_of_torch(submodule: str) -> None:
    assert import_torchvision(submodule) is import_torchvision(submodule)


@pytest.mark.parametrize("name", ["imagenet", "folder:", "", "digits:8"])
def test_an_unknown_data_set_is_refused_with_the_choices(name: str) -> None:
    with pytest.raises(DataError, match=r"unknown data set .* choose digits, fashion_mnist, .* folder:PATH"):
        load(DataSpec(name), CPU)


@pytest.mark.parametrize("spec", [DataSpec("folder:~nosuchuser/x"), DataSpec("folder:x", root="~nosuchuser")])
def test_a_home_folder_of_nobody_is_a_folder_that_is_not_there(spec: DataSpec) -> None:
    with pytest.raises(DataError, match=r"there is no folder ~nosuchuser/x.*: check the path after 'folder:'"):
        load(spec, CPU)


# --- splits -----------------------------------------------------------------------------------------------------------


def test_the_share_for_validation_falls_from_a_third_to_a_fifth_and_never_jumps() -> None:
    found = [n_validated(n) for n in range(4, 40_000)]
    assert [n_validated(n) for n in (300, 600, 1300, 2000, 10_000, 25_000)] == [100, 200, 300, 400, 2000, 5000]
    assert {more - fewer for fewer, more in pairwise(found)} == {0, 1}  # so that neither part shrinks as images come
    assert all(n // 5 <= each <= n // 3 for n, each in enumerate(found[: 25_000 - 4], start=4) if n >= 6)


@given(n=st.integers(6, 30_000), share=st.floats(0, 1))
def test_validation_takes_no_image_that_a_study_claims_while_it_has_a_fifth(n: int, share: float) -> None:
    n_train = max(2, round(share * n))
    found = n_validated(n, n_train)
    assert n_validated(n, n) == min(5000, n // 5) <= found <= n_validated(n)
    assert found == n_validated(n) or n - found == n_train or found == n_validated(n, n)


@pytest.mark.parametrize(("name", "n_train"), [("digits", 1200), ("fashion_mnist", 4000)])
def test_the_studies_that_come_with_it_validate_with_a_fifth(name: str, n_train: int) -> None:
    n = {"digits": 1500, "fashion_mnist": 60_000}[name]
    assert n_validated(n, n_train) == min(5000, n // 5)


def labelled(counts: Sequence[int], seed: int) -> Labelled:
    """Distinct images of one pixel, `counts[i]` of them in class i, in random order."""
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    pixels = np.arange(len(labels), dtype=np.uint32).view(np.uint8).reshape(-1, 1, 1, 4)
    return Labelled(pixels, labels, tuple(map(str, range(len(counts)))), flip=True)


def split(counts: Sequence[int], seed: int, n_train: int | None = None) -> list[tuple[list[int], list[int]]]:
    """Images of each class that train and that validate, in every split."""
    found = labelled(counts, seed)
    splits = splits_of(found, DataSpec("folder:x", seed=seed, n_train=n_train))
    for train, val in splits:
        assert not set(train) & set(val)
    return [
        tuple(np.bincount(found.labels[part], minlength=len(counts)).tolist() for part in each)  # type: ignore[misc]
        for each in splits
    ]


LARGE = st.lists(st.integers(2, 12) | st.integers(100, 900), min_size=2, max_size=30).filter(lambda c: sum(c) >= FEW)


@settings(max_examples=100)
@given(counts=LARGE, seed=st.integers(0, 9), share=st.none() | st.floats(0, 1))
def test_one_split_is_stratified_and_every_class_trains_and_validates(
    counts: list[int], seed: int, share: float | None
) -> None:
    total = sum(counts)
    n_train = None if share is None else round(len(counts) + share * (total - n_validated(total, total) - len(counts)))
    n_val = n_validated(total, n_train)
    ((in_train, in_val),) = split(counts, seed, n_train)
    assert sum(in_val) == n_val
    assert sum(in_train) == (total - n_val if n_train is None else n_train)
    assert min(in_train) >= 1
    assert min(in_val) >= 1
    raised = sum(max(0.0, 1 - n_val * count / total) for count in counts)  # images for classes too small for one
    for got, count in zip(in_val, counts, strict=True):
        assert -1 - raised < got - max(1, n_val * count / total) < 1


FEW_COUNTS = st.lists(st.integers(2, 5) | st.integers(2, 60), min_size=2, max_size=20).filter(lambda c: sum(c) < FEW)


@settings(max_examples=100)
@given(counts=FEW_COUNTS, seed=st.integers(0, 9), share=st.none() | st.floats(0, 1))
def test_of_few_images_each_validates_once_in_splits_that_are_stratified_alike(
    counts: list[int], seed: int, share: float | None
) -> None:
    total = sum(counts)
    most = total - -(-total // n_splits(total, total))
    n_train = None if share is None else round(len(counts) + share * (most - len(counts)))
    splits = split(counts, seed, n_train)
    assert len(splits) == n_splits(total, n_train)
    assert np.sum([in_val for _, in_val in splits], axis=0).tolist() == counts
    for in_train, in_val in splits:
        assert min(in_train) >= 1
        assert n_train is None or sum(in_train) == n_train
        for got, count in [*zip(in_val, counts, strict=True), (sum(in_val), total)]:
            assert got in (count // len(splits), -(-count // len(splits)))


def test_few_images_are_split_three_times_or_as_often_as_leaves_what_is_claimed() -> None:
    assert [n_splits(n) for n in (4, 299, 300, 5000)] == [3, 3, 1, 1]
    assert [n_splits(30, n_train) for n_train in (2, 20, 21, 22, 23, 24, 30)] == [3, 3, 4, 4, 5, 5, 5]


def test_the_splits_of_few_images_are_one_data_set(tmp_path: Path) -> None:
    data = load_folder(make_folder(tmp_path / "data", [20, 10, 3]))
    assert data.about.endswith("22 to train, 11 to validate (split off, 3 times: each image validates once)")
    assert [len(split.val.y) for split in data.splits] == [11, 11, 11]
    assert data.validated.bincount().tolist() == [20, 10, 3]
    assert set().union(*(as_set(split.val) for split in data.splits)) == set().union(*everything(data).values())
    for each in data.splits:
        assert each.mean == pytest.approx([float(each.train.x.double().mean()) / 255])
        assert (each.content_hash, each.split_hash) == (data.content_hash, data.split_hash)
    hashes = {load_folder(tmp_path / "data", seed=seed, n_train=n).split_hash for seed in (0, 1) for n in (None, 20)}
    assert len(hashes) == 4


def test_a_validation_split_of_few_images_is_left_as_it_is_and_told(tmp_path: Path) -> None:
    for split, counts in (("train", [20, 10]), ("val", [9, 7])):
        make_folder(tmp_path / "data" / split, counts)
    data = load_folder(tmp_path / "data")
    assert (len(data.train.y), len(data.val.y), data.again) == (30, 16, ())
    assert any(line.startswith("few validation images: 16 (all of val/): ") for line in data.warnings)


def test_validation_stops_growing_at_5000_images(tmp_path: Path) -> None:
    labels = (np.arange(26000) % 10).astype(np.uint8)
    write_fashion(tmp_path, labels, np.zeros((26000, 28, 28), np.uint8))
    data = load(DataSpec("fashion_mnist", root=str(tmp_path)), CPU)
    assert torch.bincount(data.val.y).tolist() == [500] * 10
    assert len(data.train.y) == 21000


def test_splits_follow_the_seed_and_validation_not_the_number_of_training_images(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", [10, 20])
    data, again = load_folder(folder, seed=1), load_folder(folder, seed=1)
    other, fewer = load_folder(folder, seed=2), load_folder(folder, seed=1, n_train=6)
    assert data.split_hash == again.split_hash != other.split_hash != fewer.split_hash
    assert data.content_hash == other.content_hash == fewer.content_hash
    assert torch.equal(data.train.x, again.train.x)
    assert torch.equal(data.val.x, fewer.val.x)
    assert not torch.equal(data.val.x, other.val.x)
    assert torch.bincount(fewer.train.y).tolist() == [2, 4]
    assert as_set(fewer.train) < as_set(data.train)


@pytest.mark.parametrize("n_train", [2, 25])
def test_more_or_fewer_training_images_than_possible_are_refused_with_the_range(tmp_path: Path, n_train: int) -> None:
    with pytest.raises(DataError, match=f"n_train is {n_train}: 24 images are left .* choose 3 to 24"):
        load_folder(make_folder(tmp_path / "data", [10, 10, 10]), n_train=n_train)


def test_classes_with_one_image_are_refused_by_name_or_dropped_on_request(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", [5, 1, 6], ["ant", "bee", "cat"])
    with pytest.raises(DataError, match=r"\(bee\).*drop_small_classes = true"):
        load_folder(folder)
    data = load_folder(folder, drop_small_classes=True)
    assert data.classes == ("ant", "cat")
    assert {label: len(images) for label, images in everything(data).items()} == {0: 5, 1: 6}


@pytest.mark.parametrize("counts", [[5], [5, 1]])
def test_one_class_is_no_data_set(tmp_path: Path, counts: list[int]) -> None:
    with pytest.raises(DataError, match="a classifier needs at least two"):
        load_folder(make_folder(tmp_path / "data", counts), drop_small_classes=True)


# --- tensors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_bytes_in_channels_last_with_their_statistics(tmp_path: Path, channels: int) -> None:
    data = load_folder(make_folder(tmp_path / "data", [9, 9]), channels=channels)
    assert data.train.x.dtype == torch.uint8
    assert data.train.y.dtype == torch.int64
    assert data.train.x.is_contiguous(memory_format=torch.channels_last)
    assert (data.channels, data.size, data.n_classes) == (channels, 4, 2)
    scaled = data.train.x.double() / 255
    torch.testing.assert_close(torch.tensor(data.mean).double(), scaled.mean((0, 2, 3)), rtol=0, atol=1e-6)
    torch.testing.assert_close(torch.tensor(data.std).double(), scaled.std((0, 2, 3), correction=0), rtol=0, atol=1e-6)


def test_a_constant_channel_can_still_be_divided_by_its_deviation(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.new("RGB", (4, 4), (40 * i, 0, 255)).save(tmp_path / name / f"{i}.png")
    assert min(load_folder(tmp_path).std) == pytest.approx(1 / 255)


def test_the_content_hash_sees_a_pixel_and_a_class_name(tmp_path: Path) -> None:
    hashes = set()
    for name, seed in [("x", 0), ("x", 1), ("y", 0)]:
        folder = make_folder(tmp_path / f"{name}{seed}", [4, 4], ["a", name])
        (folder / "a" / "0000.pgm").write_bytes(grey(1000 + seed))
        hashes.add(load_folder(folder).content_hash)
    assert len(hashes) == 3


@pytest.mark.parametrize(("flip", "expected"), [(None, True), (False, False)])
def test_flips_follow_the_source_unless_the_spec_decides(tmp_path: Path, flip: bool | None, expected: bool) -> None:
    assert load_folder(make_folder(tmp_path / "data", [3, 3]), flip=flip).flip is expected


def test_other_sizes_and_colour_are_made_from_the_data() -> None:
    plain, large = load(DataSpec("digits"), CPU), load(DataSpec("digits", size=16, channels=3), CPU)
    assert large.train.x.shape[1:] == (3, 16, 16)
    assert torch.equal(large.train.x[:, 0], large.train.x[:, 2])
    assert large.mean[0] == pytest.approx(plain.mean[0], abs=0.005)
