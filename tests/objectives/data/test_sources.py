"""Laws of the named data sets: where they are found, what is refused, and that nothing half is kept."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import os
import pickle
import shutil
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from objectives.data import sources
from objectives.data.dataset import load
from objectives.data.vision import import_torchvision
from objectives.errors import DataError
from objectives.task import DataSpec
from tests.objectives.data.images import CPU, as_set, everything, write_fashion, write_idx

pytestmark = pytest.mark.usefixtures("cache")
fashion_installed = pytest.mark.skipif(
    not sources.DEBIAN_FASHION.is_dir(), reason="needs Debian's package dataset-fashion-mnist"
)


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


def test_the_test_part_of_digits_is_the_same_for_every_seed() -> None:
    first, second = (load(DataSpec("digits", n_train=1200, seed=seed), CPU) for seed in (0, 1))
    assert (len(first.train.y), len(first.val.y), first.size, first.channels) == (1200, 300, 8, 1)
    assert first.flip is False
    assert int(first.train.x.max()) == 255
    assert everything(first) == everything(second)
    assert first.split_hash != second.split_hash


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
