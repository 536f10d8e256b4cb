"""Laws of the data: which images are used, how they are converted and split, and what is left on the disk."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from objectives import sources
from objectives.data import Dataset, Images, load
from objectives.errors import DataError
from objectives.task import DataSpec
from objectives.vision import import_torchvision

CPU = torch.device("cpu")
fashion_installed = pytest.mark.skipif(
    not sources.DEBIAN_FASHION.is_dir(), reason="needs Debian's package dataset-fashion-mnist"
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for every test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "frontrunner"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection is refused at once."""
    _use_proxy(monkeypatch, "http://127.0.0.1:9")


def _use_proxy(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, address)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # it remembers the proxies of the first request


def grey(seed: int, side: int = 4) -> bytes:
    """A square PGM file; another image for every seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, side * side, np.uint8)
    return b"P5 %d %d 255\n" % (side, side) + pixels.tobytes()


def make_folder(path: Path, counts: Sequence[int], names: Sequence[str] = ()) -> Path:
    """A folder with `counts[i]` distinct 4 x 4 grey images in class i."""
    seeds = iter(range(sum(counts)))
    for i, count in enumerate(counts):
        place = path / (names[i] if names else f"class{i:03}")
        place.mkdir(parents=True)
        for j in range(count):
            (place / f"{j:04}.pgm").write_bytes(grey(next(seeds)))
    return path


def load_folder(path: Path, size: int | None = 4, **settings: object) -> Dataset:
    return load(DataSpec(f"folder:{path}", size=size, **settings), CPU)  # type: ignore[arg-type]


def as_set(images: Images) -> set[bytes]:
    return {x.numpy().tobytes() for x in images.x}  # in the order channel, row, column


def everything(data: Dataset) -> dict[int, set[bytes]]:
    """All pixels in use, by class."""
    x, y = torch.cat([data.train.x, data.val.x]), torch.cat([data.train.y, data.val.y])
    return {label: as_set(Images(x[y == label], y)) for label in range(data.n_classes)}


def files_under(path: Path) -> set[str]:
    return {str(p.relative_to(path)) for p in path.rglob("*") if p.is_file()}


# --- specs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    [
        DataSpec("digits"),
        DataSpec(
            "folder:a b/frösche", root="/x", n_train=7, size=8, channels=3, flip=False, drop_small_classes=True, seed=3
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
    code = f"import sys, objectives.data; print([m for m in '{libraries}'.split() if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("submodule", ["datasets", "transforms.v2"])
def test_torchvision_imports_on_any_build_of_torch(submodule: str) -> None:
    assert import_torchvision(submodule) is import_torchvision(submodule)


@pytest.mark.parametrize("name", ["imagenet", "folder:", "", "digits:8"])
def test_an_unknown_data_set_is_refused_with_the_choices(name: str) -> None:
    with pytest.raises(DataError, match=r"unknown data set .* choose digits, fashion_mnist, .* folder:PATH"):
        load(DataSpec(name), CPU)


# --- splits -----------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    counts=st.lists(st.integers(2, 12), min_size=2, max_size=12),
    seed=st.integers(0, 9),
    share=st.none() | st.floats(0, 1),
)
def test_splits_are_disjoint_stratified_and_leave_every_class_an_image(
    counts: list[int], seed: int, share: float | None
) -> None:
    total = sum(counts)
    n_val = max(1, total // 5)
    n_train = None if share is None else round(len(counts) + share * (total - n_val - len(counts)))
    with tempfile.TemporaryDirectory() as place:
        data = load_folder(make_folder(Path(place), counts), seed=seed, n_train=n_train)
    assert len(data.val.y) == n_val
    assert len(data.train.y) == (total - n_val if n_train is None else n_train)
    assert len(as_set(data.train) | as_set(data.val)) == len(data.train.y) + len(data.val.y)
    in_train, in_val = (torch.bincount(part.y, minlength=len(counts)).tolist() for part in (data.train, data.val))
    assert min(in_train) >= 1
    if min(counts) >= 4:  # then no class is spared, and each gives its share to within one image
        assert all(abs(got - n_val * count / total) < 1 for got, count in zip(in_val, counts, strict=True))


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


# --- named data sets --------------------------------------------------------------------------------------------------


def test_the_test_part_of_digits_is_the_same_for_every_seed() -> None:
    first, second = (load(DataSpec("digits", seed=seed), CPU) for seed in (0, 1))
    assert (len(first.train.y), len(first.val.y), first.size, first.channels) == (1200, 300, 8, 1)
    assert first.flip is False
    assert int(first.train.x.max()) == 255
    assert everything(first) == everything(second)
    assert first.split_hash != second.split_hash


def test_other_sizes_and_colour_are_made_from_the_data() -> None:
    plain, large = load(DataSpec("digits"), CPU), load(DataSpec("digits", size=16, channels=3), CPU)
    assert large.train.x.shape[1:] == (3, 16, 16)
    assert torch.equal(large.train.x[:, 0], large.train.x[:, 2])
    assert large.mean[0] == pytest.approx(plain.mean[0], abs=0.005)


def write_idx(path: Path, array: np.ndarray) -> None:
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wb", compresslevel=1) if path.suffix == ".gz" else path.open("wb") as file:
        file.write(head + array.tobytes())


def write_fashion(place: Path, labels: np.ndarray, images: np.ndarray, suffix: str = "") -> None:
    write_idx(place / f"train-images-idx3-ubyte{suffix}", images)
    write_idx(place / f"train-labels-idx1-ubyte{suffix}", labels)


FASHION_LABELS = np.arange(40, dtype=np.uint8) % 10
FASHION_IMAGES = np.random.default_rng(0).integers(0, 256, (40, 28, 28), np.uint8)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("layout", ["root", "root/FashionMNIST/raw", "root/fashion-mnist", "cache"])
def test_fashion_mnist_is_found_in_every_layout(tmp_path: Path, cache: Path, layout: str, suffix: str) -> None:
    place = cache / "datasets/FashionMNIST/raw" if layout == "cache" else tmp_path / layout
    write_fashion(place, FASHION_LABELS, FASHION_IMAGES, suffix)
    data = load(DataSpec("fashion_mnist", root=str(tmp_path / "root")), CPU)
    assert (data.size, data.channels, data.flip, data.classes[9]) == (28, 1, True, "Ankle boot")
    for label, images in everything(data).items():
        assert images == {x.tobytes() for x in FASHION_IMAGES[np.equal(FASHION_LABELS, label)]}


def test_fashion_mnist_files_that_are_cut_off_or_foreign_are_refused(tmp_path: Path) -> None:
    write_fashion(tmp_path, FASHION_LABELS, FASHION_IMAGES)
    images, labels = (tmp_path / f"train-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1"))
    whole, zipped = images.read_bytes(), gzip.compress(images.read_bytes())
    spec = DataSpec("fashion_mnist", root=str(tmp_path))
    for damaged in (b"", whole[:9], whole[:-1], whole + b"x", b"GIF89a" + whole, labels.read_bytes(), zipped):
        images.write_bytes(damaged)
        with pytest.raises(DataError, match="get it again"):
            load(spec, CPU)
    for damaged in (zipped[:-100], zipped[:40] + b"?" * 40 + zipped[80:], whole):
        images.unlink(missing_ok=True)
        images.with_name(f"{images.name}.gz").write_bytes(damaged)
        with pytest.raises(DataError, match="get it again"):
            load(spec, CPU)
    images.write_bytes(whole)
    for wrong in (FASHION_LABELS + 1, FASHION_LABELS[:-1], FASHION_LABELS[:0]):
        write_idx(labels, wrong)
        with pytest.raises(DataError, match="get the files again"):
            load(spec, CPU)


@fashion_installed
def test_the_fashion_mnist_of_debian_loads() -> None:
    data = load(DataSpec("fashion_mnist", n_train=1000), CPU)
    assert torch.bincount(data.train.y).tolist() == [100] * 10
    assert torch.bincount(data.val.y).tolist() == [500] * 10


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_a_missing_data_set_names_every_place_and_way_and_leaves_nothing_behind(
    tmp_path: Path, cache: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError) as caught:
        load(DataSpec(name, root=str(tmp_path / "here")), CPU)
    message = str(caught.value)
    for part in (name, str(tmp_path / "here"), str(cache / "datasets"), "refused", "--data-root", "network"):
        assert part in message
    assert "\n" not in message
    assert list((cache / "datasets").iterdir()) == []
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("offline")
def test_a_missing_fashion_mnist_names_the_debian_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "DEBIAN_FASHION", tmp_path / "not-installed")
    with pytest.raises(DataError, match=r"not-installed.*apt-get install dataset-fashion-mnist"):
        load(DataSpec("fashion_mnist", root=str(tmp_path)), CPU)


class Trap:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.path,)


@pytest.mark.usefixtures("offline")
def test_pickles_that_are_not_the_original_cifar_are_never_opened(tmp_path: Path) -> None:
    place = tmp_path / "cifar-10-batches-py"
    place.mkdir()
    for name in ("batches.meta", "test_batch", *(f"data_batch_{i}" for i in range(1, 6))):
        (place / name).write_bytes(pickle.dumps(Trap(str(tmp_path / "sprung"))))
    with pytest.raises(DataError, match="not found intact"):
        load(DataSpec("cifar10", root=str(tmp_path)), CPU)
    assert not (tmp_path / "sprung").exists()


def test_cifar_is_read_from_files_with_the_right_sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "cifar-100-python"
    place.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 3, 32, 32), np.uint8)
    batch = {"data": pixels.reshape(40, -1), "fine_labels": [i % 2 for i in range(40)]}
    sums = {}
    for name, content in (("train", batch), ("test", None), ("meta", {"fine_label_names": ["apple", "baby"]})):
        (place / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5((place / name).read_bytes()).hexdigest()
    reader = import_torchvision("datasets").CIFAR100
    monkeypatch.setattr(reader, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(reader, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(reader, "meta", {"filename": "meta", "key": "fine_label_names", "md5": sums["meta"]})
    data = load(DataSpec("cifar100", root=str(tmp_path)), CPU)
    assert (data.size, data.channels, data.flip, data.classes) == (32, 3, True, ("apple", "baby"))
    assert as_set(data.train) | as_set(data.val) == {x.tobytes() for x in pixels}


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The internet: whatever the address, the file of that name in the folder that is returned."""
    served = tmp_path / "served"
    served.mkdir()

    class Handler(http.server.BaseHTTPRequestHandler):
        def reply(self) -> None:
            file = served / self.path.rpartition("/")[2]
            self.send_response(200 if file.is_file() else 404)
            self.end_headers()
            if self.command == "GET" and file.is_file():
                self.wfile.write(file.read_bytes())

        def __getattr__(self, name: str) -> object:
            return self.reply if name in ("do_GET", "do_HEAD") else super().__getattribute__(name)

        def log_message(self, format: str, *values: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        _use_proxy(monkeypatch, f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(sources, "DEBIAN_FASHION", tmp_path / "not-installed")
        yield served
        server.shutdown()
        thread.join()


def test_a_download_appears_in_the_cache_whole(
    tmp_path: Path, mirror: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_fashion(mirror, FASHION_LABELS, FASHION_IMAGES, ".gz")
    for kind in ("images-idx3", "labels-idx1"):
        shutil.copy(mirror / f"train-{kind}-ubyte.gz", mirror / f"t10k-{kind}-ubyte.gz")
    sums = [(file.name, hashlib.md5(file.read_bytes()).hexdigest()) for file in mirror.iterdir()]
    monkeypatch.setattr(import_torchvision("datasets").FashionMNIST, "resources", sums)
    data = load(DataSpec("fashion_mnist"), CPU)
    assert [path.name for path in (cache / "datasets").iterdir()] == ["FashionMNIST"]
    assert capsys.readouterr().out == ""
    shutil.rmtree(mirror)
    assert load(DataSpec("fashion_mnist"), CPU).content_hash == data.content_hash


def test_a_damaged_download_leaves_nothing_behind(mirror: Path, cache: Path) -> None:
    (mirror / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"not what it should be"))
    with pytest.raises(DataError, match="corrupted"):
        load(DataSpec("fashion_mnist"), CPU)
    assert list((cache / "datasets").iterdir()) == []


# --- folders: what is read --------------------------------------------------------------------------------------------


def test_classes_are_the_folders_in_train_and_the_test_folder_is_ignored(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data" / "train", [4, 4], ["b", "a"]).parent
    alone = load_folder(folder)
    make_folder(folder / "test", [5, 5], ["a", "c"])
    assert alone.classes == ("a", "b")
    assert load_folder(folder).content_hash == alone.content_hash


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert load_folder(make_folder(tmp_path / "data", [3, 3], ["bus", "train"])).classes == ("bus", "train")


def test_a_relative_folder_is_looked_for_under_the_data_root_first(tmp_path: Path) -> None:
    make_folder(tmp_path / "mine", [3, 3])
    assert load(DataSpec("folder:mine", root=str(tmp_path), size=4), CPU).n_classes == 2
    with pytest.raises(DataError, match=r"no folder .*yours or yours: check the path"):
        load(DataSpec("folder:yours", root=str(tmp_path)), CPU)


def test_odd_names_hidden_files_other_files_and_deeper_folders_are_no_trouble(tmp_path: Path) -> None:
    names = ["Cat & Kitten", "frösche", "a\nb", "=cmd,x", os.fsdecode(b"fr\xf6sche")]
    folder = make_folder(tmp_path / "data", [3] * 5, names)
    first = folder / "Cat & Kitten"
    for hidden in (folder / ".git" / "x.pgm", folder / ".x.pgm", first / ".x.pgm", first / ".thumbs" / "x.pgm"):
        hidden.parent.mkdir(exist_ok=True)
        hidden.write_bytes(b"no image")
    (folder / "labels.csv").write_text("a,b")
    (first / "notes.txt").write_text("a cat")
    (first / "more").mkdir()
    (first / "more" / "UPPER.PGM").write_bytes(grey(99))
    data = load_folder(folder)
    assert data.classes == ("=cmd,x", "Cat & Kitten", "a\\nb", "frösche", "fr\\xf6sche")
    assert [len(images) for images in everything(data).values()] == [3, 4, 3, 3, 3]
    assert data.skipped == ()


def test_links_are_followed_inside_the_folder_and_skipped_and_listed_where_they_lead_out(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", [5, 5], ["a", "b"])
    secret = make_folder(tmp_path / "secret", [2], ["c"]) / "c"
    (folder / "a" / "within.pgm").symlink_to(folder / "b" / "0000.pgm")
    (folder / "a" / "out.pgm").symlink_to(secret / "0000.pgm")
    (folder / "a" / "round").symlink_to(folder, target_is_directory=True)
    (folder / "c").symlink_to(secret, target_is_directory=True)
    data = load_folder(folder)
    assert data.classes == ("a", "b")
    assert [len(images) for images in everything(data).values()] == [6, 5]
    assert data.skipped == (
        "a/out.pgm: a link that leads out of the folder",
        "a/round: a link to a folder",
        "c: a link that leads out of the folder",
    )


def test_a_train_folder_that_is_a_link_out_is_refused(tmp_path: Path) -> None:
    elsewhere = make_folder(tmp_path / "elsewhere", [3, 3])
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train").symlink_to(elsewhere, target_is_directory=True)
    with pytest.raises(DataError, match=f"is a link out of .* pass folder:{elsewhere}"):
        load_folder(tmp_path / "data")
    assert load_folder(elsewhere).n_classes == 2


def test_an_empty_class_and_a_folder_without_classes_are_refused_by_name(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", [3, 3])
    (folder / "newt").mkdir()
    (folder / "newt" / "readme.txt").write_text("soon")
    with pytest.raises(DataError, match=r"class folder .*newt' has no images"):
        load_folder(folder)
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "x.pgm").write_bytes(grey(0))
    with pytest.raises(DataError, match="flat has no class folders: put the images of class X into"):
        load_folder(tmp_path / "flat")


def test_damaged_images_are_skipped_and_listed_with_their_reason(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", [5, 5], ["a", "b"])
    Image.new("RGB", (64, 64)).save(tmp_path / "whole.png")
    (folder / "a" / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:-40])
    (folder / "a" / "empty.jpg").touch()
    (folder / "b" / "text.png").write_text("no image")
    data = load_folder(folder)
    assert sum(map(len, everything(data).values())) == 10
    cut, empty, text = data.skipped
    assert cut.startswith("a/cut.png: ")
    assert empty == "a/empty.jpg: an empty file"
    assert text == "b/text.png: not an image of a known format"
    assert data.skipped == load_folder(folder).skipped


@pytest.mark.parametrize(
    "side", [7500, 10000, 20000]
)  # 400 megapixels are an error to Pillow, 100 a warning, 56 nothing
def test_images_of_more_than_fifty_megapixels_are_skipped(tmp_path: Path, side: int) -> None:
    folder = make_folder(tmp_path / "data", [3, 3])
    (folder / "class000" / "huge.pgm").write_bytes(b"P5 %d %d 255\n" % (side, side) + bytes(64))
    assert load_folder(folder).skipped == ("class000/huge.pgm: over 50 megapixels",)


@pytest.mark.parametrize(("good", "tolerated"), [(10, 3), (595, 6)])
def test_more_damage_than_one_percent_and_three_images_is_refused(tmp_path: Path, good: int, tolerated: int) -> None:
    folder = make_folder(tmp_path / "data", [good, 5], ["a", "b"])
    for i in range(tolerated):
        (folder / "a" / f"bad{i}.png").touch()
    assert len(load_folder(folder).skipped) == tolerated
    (folder / "a" / "bad.png").touch()
    with pytest.raises(DataError, match=rf"{tolerated + 1} of {good + 5 + tolerated + 1} images .* 1 %.*a/bad.png: "):
        load_folder(folder)


def test_a_class_that_is_damaged_as_a_whole_is_refused_by_name(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", [5, 5, 1], ["a", "b", "newt"])
    (folder / "newt" / "0000.pgm").write_bytes(b"")
    with pytest.raises(DataError, match=r"no image of class 'newt' .* newt/0000.pgm: an empty file"):
        load_folder(folder)


# --- folders: conversions ---------------------------------------------------------------------------------------------


def converted(
    folder: Path, image: Image.Image, name: str = "x.png", size: int = 8, options: Mapping[str, object] = {}
) -> torch.Tensor:
    """The image [channels, size, size] that `load` makes of a file, saved with `options`."""
    for label in "ab":
        (folder / label).mkdir(parents=True)
        for i in range(2):
            image.save(folder / label / f"{i}{name}", **options)  # type: ignore[arg-type]
    return load_folder(folder, size=size).train.x[0]


def solid(mode: str, colour: object) -> Image.Image:
    return Image.new(mode, (8, 8), colour)  # type: ignore[arg-type]


def palette(colour: tuple[int, int, int]) -> Image.Image:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([9, 9, 9, *colour])
    return image


@pytest.mark.parametrize(
    ("image", "name", "options", "expected"),
    [
        pytest.param(solid("L", 77), "x.png", {}, (77,), id="grey"),
        pytest.param(solid("1", 1), "x.png", {}, (255,), id="black and white"),
        pytest.param(solid("LA", (0, 128)), "x.png", {}, (127,), id="grey with alpha, on white"),
        pytest.param(solid("I;16", 65535), "x.png", {}, (255,), id="16 bits, white"),
        pytest.param(solid("I;16", 25700 + 128), "x.png", {}, (100,), id="16 bits, rounded down"),
        pytest.param(solid("I;16", 25700 + 129), "x.tif", {}, (101,), id="16 bits, rounded up"),
        pytest.param(solid("RGB", (1, 2, 3)), "x.bmp", {}, (1, 2, 3), id="colour"),
        pytest.param(solid("RGBA", (255, 0, 0, 128)), "x.png", {}, (255, 127, 127), id="alpha, on white"),
        pytest.param(solid("RGB", (9, 8, 7)), "x.png", {"transparency": (9, 8, 7)}, (255, 255, 255), id="colour key"),
        pytest.param(palette((5, 6, 7)), "x.png", {}, (5, 6, 7), id="palette"),
        pytest.param(palette((5, 6, 7)), "x.gif", {}, (5, 6, 7), id="gif"),
        pytest.param(palette((5, 6, 7)), "x.png", {"transparency": 1}, (255, 255, 255), id="transparent palette"),
        pytest.param(solid("CMYK", (0, 255, 255, 0)), "x.tif", {}, (255, 0, 0), id="cmyk"),
    ],
)
def test_every_kind_of_pixel_has_one_conversion(
    tmp_path: Path, image: Image.Image, name: str, options: dict[str, object], expected: tuple[int, ...]
) -> None:
    x = converted(tmp_path / "data", image, name, options=options)
    assert x[:, 3, 3].tolist() == list(expected)
    assert torch.equal(x, x[:, :1, :1].expand_as(x))


def test_16_bit_pgm_is_scaled_by_its_own_maximum(tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / label).mkdir()
        for i in range(2):
            (tmp_path / label / f"{i}.pgm").write_bytes(b"P5 4 4 1000\n" + np.full(16, 500, ">u2").tobytes())
    assert set(load_folder(tmp_path).train.x.flatten().tolist()) == {128}


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_without_a_fixed_range_are_refused_rather_than_guessed(tmp_path: Path, mode: str) -> None:
    folder = make_folder(tmp_path / "data", [3, 3])
    solid(mode, 7).save(folder / "class000" / "x.tif")
    assert "convert the file to 8 or 16 bits" in load_folder(folder).skipped[0]


def test_the_orientation_in_exif_is_applied(tmp_path: Path) -> None:
    image = solid("L", 0)
    image.paste(255, (4, 0, 8, 8))  # right half white
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise: right becomes below
    x = converted(tmp_path / "data", image, options={"exif": exif})
    assert set(x[0, :4].flatten().tolist()) == {0}
    assert set(x[0, 4:].flatten().tolist()) == {255}


def test_the_centre_is_kept_and_the_shorter_side_fills_the_square(tmp_path: Path) -> None:
    image = Image.new("RGB", (32, 16), "red")
    image.paste((0, 255, 0), (8, 0, 24, 16))
    assert converted(tmp_path / "wide", image, size=16)[:, 8].T.tolist() == [[0, 255, 0]] * 16
    assert converted(tmp_path / "tall", image.rotate(90, expand=True), size=4)[:, 1, 1].tolist() == [0, 255, 0]


def test_shrinking_averages_instead_of_picking_pixels(tmp_path: Path) -> None:
    stripes = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (32, 16)))
    x = converted(tmp_path / "data", stripes)
    assert (x[:, :, 1:-1].float() - 127.5).abs().max() < 2


def test_large_files_are_decoded_by_several_threads_in_their_order(tmp_path: Path) -> None:
    for label, blue in (("a", 0), ("b", 255)):
        (tmp_path / label).mkdir()
        for i in range(3):
            Image.new("RGB", (300, 300), (80 * i, 0, blue)).save(tmp_path / label / f"{i}.bmp")
    images = everything(load_folder(tmp_path))
    assert {label: {(x[0], x[-1]) for x in found} for label, found in images.items()} == {
        0: {(0, 0), (80, 0), (160, 0)},
        1: {(0, 255), (80, 255), (160, 255)},
    }


def test_large_jpegs_keep_their_colours(tmp_path: Path) -> None:
    image = Image.linear_gradient("L").resize((900, 600)).convert("RGB")
    small = np.asarray(image.crop((150, 0, 750, 600)).resize((8, 8), Image.Resampling.BOX)).astype(float)
    x = converted(tmp_path / "data", image, "x.jpeg", options={"quality": 95})
    assert np.abs(x.permute(1, 2, 0).numpy() - small).max() < 6


def test_one_coloured_image_makes_the_data_set_coloured_and_the_spec_can_overrule(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", [4, 4], ["a", "b"])
    assert load_folder(folder).channels == 1
    for i, colour in enumerate(((255, 0, 0), (0, 255, 0), (0, 0, 255))):
        Image.new("RGB", (4, 4), colour).save(folder / "b" / f"{i}.png")
    assert load_folder(folder).channels == 3
    luminance = {x[0] for x in everything(load_folder(folder, channels=1))[1] if len(set(x)) == 1}
    assert luminance == {76, 150, 29}  # ITU-R 601, as Pillow rounds it


# --- folders: the cache -----------------------------------------------------------------------------------------------

opened: list[str] | None = None  # files that Python opens, while a test listens


def _listen(event: str, values: tuple[object, ...]) -> None:
    if opened is not None and event == "open":
        opened.append(str(values[0]))


sys.addaudithook(_listen)


@pytest.fixture
def opens() -> Iterator[list[str]]:
    """Paths of all files opened during the test."""
    global opened
    opened = []
    yield opened
    opened = None


def test_a_second_load_reads_no_image_and_gives_the_same(tmp_path: Path, opens: list[str]) -> None:
    folder = make_folder(tmp_path / "data", [5, 5])
    first = load_folder(folder)
    assert any(path.startswith(str(folder)) for path in opens)
    opens.clear()
    second = load_folder(folder)
    assert not any(path.startswith(str(folder)) for path in opens)
    assert torch.equal(first.train.x, second.train.x)
    assert (first.content_hash, first.split_hash) == (second.content_hash, second.split_hash)


def test_the_same_images_elsewhere_are_not_decoded_again(tmp_path: Path, cache: Path) -> None:
    folder = make_folder(tmp_path / "data", [5, 5])
    load_folder(folder)
    shutil.copytree(folder, tmp_path / "copy")
    (stored,) = (cache / "images").glob("*.safetensors")
    before = stored.stat()
    load_folder(tmp_path / "copy")
    assert list((cache / "images").glob("*.safetensors")) == [stored]
    assert (stored.stat().st_ino, stored.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_changed_image_is_seen_even_with_its_old_size_and_time(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", [5, 5])
    before = load_folder(folder)
    image = folder / "class000" / "0000.pgm"
    stat = image.stat()
    image.write_bytes(grey(1000))
    os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert load_folder(folder).content_hash != before.content_hash


def test_each_size_is_cached_by_itself(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "data", [5, 5])
    assert [load_folder(folder, size=size).size for size in (4, 8, 4, None)] == [4, 8, 4, 32]


@pytest.mark.parametrize("damage", ["flip a bit", "cut", "empty", "text", "forge the index"])
def test_a_damaged_cache_is_built_again(tmp_path: Path, cache: Path, damage: str) -> None:
    folder = make_folder(tmp_path / "data", [5, 5])
    before = load_folder(folder)
    (stored,) = (cache / "images").glob("*.safetensors")
    (index,) = (cache / "images" / "index").iterdir()
    whole = stored.read_bytes()
    if damage == "forge the index":
        index.write_bytes(b"\xff")
    else:
        flipped = whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:]
        stored.write_bytes({"flip a bit": flipped, "cut": whole[:-9], "empty": b"", "text": b"x" * 99}[damage])
    after = load_folder(folder)
    assert after.content_hash == before.content_hash
    assert stored.read_bytes() == whole
    assert len(index.read_text()) == 64


def test_nothing_is_written_into_the_data_folder_and_nothing_unfinished_into_the_cache(
    tmp_path: Path, cache: Path
) -> None:
    folder = make_folder(tmp_path / "data" / "train", [5, 5]).parent
    before = {path: path.stat().st_mtime_ns for path in (folder, *folder.rglob("*"))}
    load_folder(folder)
    assert {path: path.stat().st_mtime_ns for path in (folder, *folder.rglob("*"))} == before
    assert {len(name.split("/")) for name in files_under(cache)} == {2, 3}
    assert not [name for name in files_under(cache) if ".partial" in name]


def test_a_cache_that_cannot_be_written_costs_time_and_a_warning_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="cannot write .* set XDG_CACHE_HOME"):
        assert load_folder(make_folder(tmp_path / "data", [5, 5])).n_classes == 2
