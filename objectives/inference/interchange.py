"""Exported networks for programs without this one: TorchScript and ONNX, from pixels to calibrated probabilities.

Normalisation, test-time mirroring and temperature are inside: what goes in are images [n, channels, size, size] uint8,
or series [n, channels, length] float32, however many, what comes out are probabilities [n, n_classes].
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from objectives.data.augment import Normalisation
from objectives.export import ExportedModel, logits
from objectives.networks.norms.gains import folded

TORCHSCRIPT, ONNX = "model.torchscript.pt", "model.onnx"  # names of the files
WITHIN = {TORCHSCRIPT: 1e-5, ONNX: 1e-4}  # of the original probabilities, on images that it is checked on
OPSET = 18  # of ONNX


class Pixels(nn.Module):
    """The network of an export, from pixels to calibrated probabilities."""

    def __init__(self, model: ExportedModel) -> None:
        super().__init__()
        self.network = folded(model.network)
        self._normalise = Normalisation(model, torch.device("cpu"))
        self._mirrored, self._temperature = model.mirrored, model.calibration.temperature
        self._is_series = model.is_series

    def forward(self, x: Tensor) -> Tensor:
        """Probabilities [n, n_classes] of images [n, channels, size, size] uint8, or series [n, channels, length]."""
        x = x[:, :, None] if self._is_series else x
        found = logits(self.network, x, self._normalise, mirrored=self._mirrored)
        return (found / self._temperature).softmax(1)


def as_torchscript(model: ExportedModel, images: Tensor) -> bytes:
    """The network as a file that `torch.jit.load` reads, in Python or C++; checked on images [n, ...] uint8.

    Raises:
        ValueError: it computes otherwise.
    """
    file = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch's own: that TorchScript is no longer developed
        torch.jit.save(torch.jit.trace(Pixels(model), (images[:2],), check_trace=False), file)  # type: ignore[no-untyped-call]
        file.seek(0)
        again = torch.jit.load(file)  # type: ignore[no-untyped-call]
        for x in (images, images[:1]):  # whatever the number of images
            check(TORCHSCRIPT, again(x), model.probabilities(x))
    return file.getvalue()


def as_onnx(model: ExportedModel, images: Tensor) -> bytes:
    """The network as an ONNX file of opset OPSET, its weights inside; checked on images [n, ...] uint8 by onnxruntime.

    Raises:
        ValueError: it computes otherwise.
        ModuleNotFoundError: onnx, onnxscript or onnxruntime is not installed.
    """
    import onnxruntime

    with warnings.catch_warnings(), torch.no_grad(), _traceable():
        warnings.simplefilter("ignore")  # torch's own, of what its exporter will do in later versions
        program = torch.onnx.export(
            Pixels(model),
            (images[:2],),
            input_names=["images"],
            output_names=["probabilities"],
            dynamic_shapes={"x": {0: torch.export.Dim("n")}},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for x in (images, images[:1]):
        check(ONNX, torch.from_numpy(session.run(None, {"images": x.numpy()})[0]), model.probabilities(x))
    return content


@contextmanager
def _traceable() -> Iterator[None]:
    """How cuDNN multiplies, as torch has it at first: it traces nothing where a training set it otherwise (2.13)."""
    places: list[Any] = [torch.backends.cudnn.conv, torch.backends.cudnn.rnn]  # type: ignore[attr-defined]
    before = [place.fp32_precision for place in places]
    try:
        for place in places:
            place.fp32_precision = "tf32"
        yield
    finally:
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision


def check(name: str, found: Tensor, expected: Tensor) -> float:
    """The largest difference between probabilities.

    Raises:
        ValueError: it is too large.
    """
    difference = float((found - expected).abs().max())
    if not difference <= WITHIN[name]:
        raise ValueError(f"{name} computes otherwise than the network: probabilities differ by up to {difference:.2g}")
    return difference
