"""Laws of weights of others: what fits is taken as it is, what does not is named in one line, and nothing is run."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from objectives.data.sources import DATASETS
from objectives.data.vision import import_torchvision
from objectives.networks.architecture import Architecture, Stage
from objectives.networks.resnet import ResNet
from objectives.starts import torchvision
from objectives.starts.state_dicts import name_of, resnet
from objectives.starts.torchvision import downloaded
from objectives.starts.weights import read_weights
from tests.objectives.networks.test_resnet import randomise

Tensors = dict[str, Tensor]
SMALL = Architecture(
    *(3, 5, (Stage(8, (8, 6)), Stage(12, (9, 12)), Stage(16, (7,)))), stem_stride=2, stem_kernel=7, stem_pool=True
)


def network() -> ResNet:
    """A narrow network whose every number is its own."""
    model = ResNet(SMALL).eval()
    randomise(model)
    return model


def foreign(model: ResNet | None = None) -> Tensors:
    """A network's tensors as torchvision calls them, in the order that it has them in."""
    tensors = (model or network()).state_dict().items()
    return {name_of(name): tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors}


def images() -> Tensor:
    return torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(1))


def assert_taken(path: Path, expected: ResNet) -> None:
    found = read_weights(path)
    assert found.architecture == expected.architecture
    assert not found.training
    torch.testing.assert_close(found(images()), expected(images()))


WRAPPED: dict[str, Callable[[Tensors], object]] = {
    "plain": lambda tensors: tensors,
    "state_dict": lambda tensors: {"epoch": 90, "best": 0.7, "state_dict": tensors, "optimizer": {"lr": [0.1]}},
    "model": lambda tensors: {"model": tensors, "args": {"arch": "resnet18"}},
    "DataParallel": lambda tensors: {"state_dict": {f"module.{name}": t for name, t in tensors.items()}},
    "compiled": lambda tensors: {f"module._orig_mod.{name}": t for name, t in tensors.items()},
    "without counters": lambda tensors: {n: t for n, t in tensors.items() if not n.endswith("num_batches_tracked")},
    "parameters": lambda tensors: {n: nn.Parameter(t, requires_grad=False) for n, t in tensors.items()},
}


@pytest.mark.parametrize("wrapped", WRAPPED.values(), ids=WRAPPED.keys())
@pytest.mark.parametrize("ending", [".pth", ".pt"])
def test_weights_are_taken_however_they_are_wrapped(
    wrapped: Callable[[Tensors], object], ending: str, tmp_path: Path
) -> None:
    path = tmp_path / f"weights{ending}"
    torch.save(wrapped(foreign()), path, _use_new_zipfile_serialization=ending == ".pth")
    assert_taken(path, network())


def test_safetensors_are_taken(tmp_path: Path) -> None:
    safetensors.torch.save_file(foreign(), tmp_path / "w.safetensors")
    assert_taken(tmp_path / "w.safetensors", network())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_numbers_of_any_precision_become_fp32(dtype: torch.dtype, tmp_path: Path) -> None:
    narrow = {name: t.to(dtype) if t.is_floating_point() else t for name, t in foreign().items()}
    torch.save(narrow, tmp_path / "w.pth")
    found = read_weights(tmp_path / "w.pth").state_dict()
    assert all(torch.equal(found[n], narrow[name_of(n)].float()) for n in found if found[n].is_floating_point())


def test_weights_without_a_classifier_are_taken_with_one_that_tells_nothing() -> None:
    model = resnet({name: tensor for name, tensor in foreign().items() if not name.startswith("fc.")})
    assert model.architecture.n_classes == 1
    assert not model(images()).any()


def test_reading_draws_nothing_and_lays_weights_out_as_a_network_has_them(tmp_path: Path) -> None:
    torch.save(foreign(), tmp_path / "w.pth")
    before = torch.get_rng_state()
    model = read_weights(tmp_path / "w.pth")
    assert torch.equal(torch.get_rng_state(), before)
    assert all(layer.weight.is_contiguous(memory_format=torch.channels_last) for layer in model.convolutions())


# --- what does not fit ------------------------------------------------------------------------------------------------


def changed(name: str, value: object) -> Callable[[Tensors], object]:
    return lambda tensors: {**tensors, name: value}


def lacking(*beginnings: str) -> Callable[[Tensors], object]:
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if not name.startswith(beginnings)}


def bottleneck(_: Tensors) -> object:
    return import_torchvision("models").resnet50(num_classes=2).state_dict()


UNFIT: dict[str, tuple[Callable[[Tensors], object], str]] = {
    "bottleneck": (bottleneck, r"layer1\.0\.conv3\.weight has no place in a basic block: bottleneck"),
    "other network": (lambda _: nn.Linear(3, 2).state_dict(), r"conv1\.weight is missing"),
    "small stem": (changed("conv1.weight", torch.zeros(8, 3, 3, 3)), r"conv1\.weight has kernels of 3x3: "),
    "flat stem": (changed("conv1.weight", torch.zeros(8, 147)), r"conv1\.weight is \[8, 147\]: it must have 4 dim"),
    "empty": (changed("conv1.weight", torch.zeros(0, 3, 7, 7)), r"conv1\.weight is \[0, 3, 7, 7\]: .* none of them 0"),
    "no stages": (lacking("layer"), r"layer1\.0\.conv1\.weight is missing"),
    "a hole": (lacking("layer2"), r"fc\.weight is \[5, 16\]: what stands around it asks for \[5, 8\]"),
    "no norm": (lacking("layer2.1.bn2.running_var"), r"layer2\.1\.bn2\.running_var is missing"),
    "no shortcut": (lacking("layer3.0.downsample"), r"layer3\.0\.downsample\.0\.weight is missing"),
    "no bias": (lacking("fc.bias"), r"fc\.bias is missing"),
    "wide stem": (
        changed("conv1.weight", torch.zeros(9, 3, 7, 7)),
        r"layer1\.0\.conv2\.weight puts out 8 channels and conv1\.weight 9: the stem and the first stage have the same",
    ),
    "other width": (
        changed("layer2.1.conv1.weight", torch.zeros(12, 11, 3, 3)),
        r"layer2\.1\.conv1\.weight is \[12, 11, 3, 3\]: what stands around it asks for \[12, 12, 3, 3\]",
    ),
    "another tensor": (
        changed("layer1.0.se.fc.weight", torch.zeros(3)),
        r"layer1\.0\.se\.fc\.weight has no place in a ResNet of basic blocks",
    ),
    "NaN": (changed("bn1.bias", torch.full((8,), torch.nan)), r"bn1\.bias is damaged: it holds numbers"),
    "variance": (changed("bn1.running_var", -torch.ones(8)), r"bn1\.running_var is damaged"),
    "too large": (changed("bn1.bias", torch.full((8,), 1e300, dtype=torch.float64)), r"bn1\.bias is damaged"),
    "whole numbers": (changed("bn1.bias", torch.zeros(8).long()), r"bn1\.bias is int64, strided: it must"),
    "sparse": (changed("bn1.bias", torch.zeros(8).to_sparse()), r"bn1\.bias is float32, sparse_coo: it must be"),
    "text": (changed("bn1.bias", "zero"), r"bn1\.bias is no tensor, but str"),
    "a list": (lambda tensors: list(tensors.values()), r"it holds no tensors with names, but list"),
    "nothing": (lambda _: {}, r"it holds no tensors with names"),
}


@pytest.mark.parametrize(("change", "message"), UNFIT.values(), ids=UNFIT.keys())
def test_what_does_not_fit_is_named_with_the_reason(
    change: Callable[[Tensors], object], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "w.pth"
    torch.save(change(foreign()), path)
    with pytest.raises(ValueError, match=message) as refused:
        read_weights(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert "\n" not in str(refused.value)


def as_line(path: Path) -> str:
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        read_weights(path)
    line = str(refused.value)
    assert "\n" not in line
    assert len(line) < 400 + len(str(path))
    return line


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_damaged_files_are_told_in_one_line(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"w{ending}"
    (torch.save if ending == ".pth" else safetensors.torch.save_file)(foreign(), path)
    whole = path.read_bytes()
    for content in (b"", b"\x00", b"no weights", whole[: len(whole) // 2], whole[:-1], whole[100:], bytes(1000)):
        path.write_bytes(content)
        assert "damaged" in as_line(path)


def test_a_flipped_byte_is_damage_or_another_number_and_never_more(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(foreign(), path)
    whole = path.read_bytes()
    for at in range(0, len(whole), len(whole) // 40):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            read_weights(path)
        except ValueError as error:
            assert "\n" not in str(error)  # noqa: PT017


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.path),))


def test_what_could_run_is_refused_and_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "it ran"
    for name, content in (("plain.pth", Evil(trap)), ("nested.pth", {"state_dict": foreign(), "extra": Evil(trap)})):
        torch.save(content, tmp_path / name)
        assert "more than tensors, which could run: save the state_dict()" in as_line(tmp_path / name)
    (tmp_path / "pickled.pt").write_bytes(pickle.dumps(Evil(trap)))
    assert "which could run" in as_line(tmp_path / "pickled.pt")
    torch.save(network(), tmp_path / "module.pth")
    assert "which could run" in as_line(tmp_path / "module.pth")
    assert not trap.exists()


def test_what_is_no_file_of_weights_is_told_in_one_line(tmp_path: Path) -> None:
    assert as_line(tmp_path / "w.pth").endswith("there is no such file")
    (tmp_path / "w.onnx").write_bytes(b"")
    assert "weights lie in files that end in .safetensors, .pth, .pt" in as_line(tmp_path / "w.onnx")
    (tmp_path / "folder.pth").mkdir()
    assert "there is no such file" in as_line(tmp_path / "folder.pth")
    assert "\\n" in as_line(tmp_path / "two\nlines.pth")


# --- by name ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Where weights are looked for: torch's own folder, and ours; both are empty. There is no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", "http://127.0.0.1:9")  # nobody listens there
    return tmp_path / "torch" / "hub" / "checkpoints", tmp_path / "cache" / "frontrunner" / DATASETS


@pytest.mark.parametrize("name", ["torchvision:resnet50", "torchvision:vgg16", "torchvision:", "resnet\n18"])
def test_a_network_of_other_blocks_is_refused_with_what_there_is(name: str) -> None:
    with pytest.raises(ValueError, match="is not taken: of torchvision only torchvision:resnet18 and") as refused:
        downloaded(name)
    assert "\n" not in str(refused.value)


def test_without_a_network_one_line_says_where_weights_were_looked_for(places: tuple[Path, Path]) -> None:
    with pytest.raises(ValueError, match=r"cannot be had \(.*\): get the file elsewhere") as refused:
        downloaded("torchvision:resnet18")
    line = str(refused.value)
    assert "\n" not in line
    assert all(str(place) in line for place in places)
    assert "https://download.pytorch.org/models/resnet18-" in line
    assert not any(place.exists() and list(place.iterdir()) for place in places)


def served(content: bytes, folder: Path, begins: str | None = None) -> tuple[str, str]:
    """(URL of a file with this content, what its name says that its checksum begins with)."""
    digest = begins or hashlib.sha256(content).hexdigest()[:8]
    path = folder / f"resnet18-{digest}.pth"
    path.write_bytes(content)
    return path.as_uri(), digest


def as_torchvision_has(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """torchvision's list of weights, with another place for those of resnet18."""

    class Weights:
        DEFAULT = type("Entry", (), {"url": url})

    models = import_torchvision("models")
    monkeypatch.setattr(models, "get_model_weights", lambda name: Weights)


def test_weights_are_downloaded_once_checked_and_kept(
    places: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(foreign(), tmp_path / "w.pth")
    url, digest = served((tmp_path / "w.pth").read_bytes(), tmp_path)
    as_torchvision_has(monkeypatch, url)
    expected, kept = network(), places[1] / f"resnet18-{digest}.pth"
    for _ in range(2):
        torch.testing.assert_close(downloaded("torchvision:resnet18")(images()), expected(images()))
        assert [path.name for path in places[1].iterdir()] == [kept.name]
        Path(url.removeprefix("file://")).unlink(missing_ok=True)  # the second time it is not asked for
    kept.write_bytes(b"damaged")
    with pytest.raises(ValueError, match="cannot be had"):
        downloaded("torchvision:resnet18")
    places[0].mkdir(parents=True)
    (places[0] / kept.name).write_bytes((tmp_path / "w.pth").read_bytes())  # as torch.hub would have put it there
    torch.testing.assert_close(downloaded("torchvision:resnet18")(images()), expected(images()))


def test_a_download_with_another_checksum_is_refused_and_not_kept(
    places: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, _ = served(b"something else", tmp_path, "0123abcd")
    as_torchvision_has(monkeypatch, url)
    with pytest.raises(ValueError, match="gave another file: its SHA-256 is not that of its name"):
        downloaded("torchvision:resnet18")
    assert not places[1].exists()


def test_the_networks_that_are_named_are_torchvisions() -> None:
    for name in torchvision.NAMES:
        url = import_torchvision("models").get_model_weights(name).DEFAULT.url
        assert url.startswith("https://download.pytorch.org/models/")
