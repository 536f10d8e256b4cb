"""How the tensors of a network are stored in few bytes: as they are, in 8 bits, or as Huffman-coded shared values.

What a network computes with is what its forms stand for, so that a file read back is the same network exactly.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from objectives.host.durable import write_file
from objectives.reduction.quantisation import huffman

MAGIC = b"FRQ1"  # of the file; another number when a reader of the old one could not read the new one
GAP_BITS = {True: 8, False: 5}  # of a gap between two weights that are not 0, in convolutions and elsewhere
TYPES = {str(each): each for each in (torch.float32, torch.float64, torch.int64, torch.uint8)}


@dataclass(frozen=True)
class Plain:
    """A tensor as it is."""

    values: Tensor

    def tensor(self) -> Tensor:
        """What it stands for."""
        return self.values


@dataclass(frozen=True)
class Affine:
    """A weight as 8-bit levels of one scale per output channel."""

    levels: Tensor  # [out, ...] uint8
    scales: Tensor  # [out] float32: the step between two levels
    zeros: Tensor  # [out] uint8: the level that is 0

    def tensor(self) -> Tensor:
        """What it stands for: [out, ...] float32."""
        shape = (-1, *(1,) * (self.levels.dim() - 1))
        return (self.levels.float() - self.zeros.float().view(shape)) * self.scales.view(shape)


@dataclass(frozen=True)
class Shared:
    """A weight whose values are few: each is 0, or one of a codebook."""

    symbols: Tensor  # any shape, int64: 0 for the value 0, i for the i-th value of the codebook, from 1
    codebook: Tensor  # [k] float32
    gap_bits: int  # of the gaps between values that are not 0, where they are stored

    def tensor(self) -> Tensor:
        """What it stands for: float32 of the shape of `symbols`."""
        return torch.cat([torch.zeros(1), self.codebook])[self.symbols]


Form = Plain | Affine | Shared
Entry = dict[str, object]  # what the head of a file says of a tensor


def written(forms: Mapping[str, Form]) -> bytes:
    """The content of a file that holds these forms; `read` is the inverse."""
    entries, parts = [], []
    for name, form in forms.items():
        entry, body = _written(form)
        entries.append({"name": name, **entry, "bytes": len(body)})
        parts.append(body)
    head = zlib.compress(json.dumps(entries, separators=(",", ":")).encode(), 9)
    content = MAGIC + len(head).to_bytes(4, "little") + head + b"".join(parts)
    return content + zlib.crc32(content).to_bytes(4, "little")


def read(content: bytes) -> dict[str, Form]:
    """The forms in the content of a file.

    Raises:
        ValueError: it is none, was written by another version, or is damaged.
    """
    if content[:4] != MAGIC:
        raise ValueError(f"it does not begin with {MAGIC.decode()}: no quantised weights, or of another version")
    if zlib.crc32(content[:-4]) != int.from_bytes(content[-4:], "little"):
        raise ValueError("its checksum is another: it is damaged, write it again")
    at = 8 + int.from_bytes(content[4:8], "little")
    found: dict[str, Form] = {}
    for entry in json.loads(zlib.decompress(content[8:at])):
        found[entry["name"]] = _read(entry, content[at : at + entry["bytes"]])
        at += entry["bytes"]
    return found


def save(forms: Mapping[str, Form], path: Path) -> None:
    """Writes forms to a file, whole or not at all.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    write_file(path, written(forms))


def load(path: Path) -> dict[str, Tensor]:
    """The tensors in a file that `save` wrote, exactly as the quantised network had them; for `load_state_dict`.

    Raises:
        ValueError: there is no such file, or it is damaged or of another version.
    """
    try:
        return {name: form.tensor() for name, form in read(path.read_bytes()).items()}
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def n_bytes(form: Form) -> int:
    """Bytes of a form in a file, without its entry in the head but with the lengths of its codes."""
    entry, body = _written(form)
    n_codes = sum(len(_numbers(entry, key)) for key in ("lengths", "gap_lengths") if key in entry)
    return len(body) + n_codes  # a byte each: compressed in the head they take less


def _written(form: Form) -> tuple[Entry, bytes]:
    """(what the head says of a form, its bytes)."""
    match form:
        case Plain(values):
            kind = str(values.dtype)
            if kind not in TYPES:
                raise ValueError(f"a tensor of type {kind} cannot be stored: {', '.join(TYPES)} can")
            return {"kind": kind, "shape": list(values.shape)}, _raw(values)
        case Affine(levels, scales, zeros):
            return {"kind": "affine", "shape": list(levels.shape)}, _raw(scales) + _raw(zeros) + _raw(levels)
        case Shared():
            return min(_dense(form), _sparse(form), key=lambda each: len(each[1]))


def _read(entry: Entry, body: bytes) -> Form:
    shape, kind = [int(n) for n in entry["shape"]], entry["kind"]  # type: ignore[attr-defined]
    if kind == "affine":
        n = shape[0]
        scales, zeros, levels = body[: 4 * n], body[4 * n : 5 * n], body[5 * n :]
        return Affine(
            _tensor(levels, torch.uint8, shape), _tensor(scales, torch.float32, [n]), _tensor(zeros, torch.uint8, [n])
        )
    if kind in ("dense", "sparse"):
        return _read_shared(entry, shape, body)
    return Plain(_tensor(body, TYPES[str(kind)], shape))


def _dense(form: Shared) -> tuple[Entry, bytes]:
    """Every weight's symbol."""
    symbols = form.symbols.flatten().numpy()
    bits = huffman.lengths(np.bincount(symbols, minlength=len(form.codebook) + 1))
    return _head(form, "dense", bits), _raw(form.codebook) + huffman.encoded(symbols, bits)


def _sparse(form: Shared) -> tuple[Entry, bytes]:
    """The symbols that are not 0, and how many zeros stand before each (Han et al., ICLR 2016, section 2).

    The largest gap stands for so many zeros with no weight behind them, where they stand for a weight of 0.
    """
    symbols = form.symbols.flatten().numpy()
    places = np.flatnonzero(symbols)
    largest = 2**form.gap_bits - 1
    zeros = np.diff(places, prepend=-1) - 1
    gaps = np.full(len(places) + int((zeros // largest).sum()), largest)
    gaps[np.cumsum(zeros // largest + 1) - 1] = zeros % largest
    bits = huffman.lengths(np.bincount(symbols[places] - 1, minlength=len(form.codebook)))
    gap_bits = huffman.lengths(np.bincount(gaps, minlength=largest + 1))
    values = huffman.encoded(symbols[places] - 1, bits)
    entry = _head(form, "sparse", bits)
    entry |= {"n": len(places), "n_gaps": len(gaps), "value_bytes": len(values)}
    entry |= {"gap_lengths": gap_bits.tolist()}
    return entry, _raw(form.codebook) + values + huffman.encoded(gaps, gap_bits)


def _read_shared(entry: Entry, shape: list[int], body: bytes) -> Shared:
    k, gap_bits, bits = _number(entry, "k"), _number(entry, "gap_bits"), _numbers(entry, "lengths")
    codebook, rest = _tensor(body[: 4 * k], torch.float32, [k]), body[4 * k :]
    symbols = np.zeros(prod(shape), np.int64)
    if entry["kind"] == "dense":
        symbols = huffman.decoded(rest, bits, len(symbols))
    else:
        n_value_bytes, largest = _number(entry, "value_bytes"), 2**gap_bits - 1
        values = huffman.decoded(rest[:n_value_bytes], bits, _number(entry, "n"))
        gaps = huffman.decoded(rest[n_value_bytes:], _numbers(entry, "gap_lengths"), _number(entry, "n_gaps"))
        places = np.cumsum(gaps + (gaps < largest))[gaps < largest] - 1
        symbols[places] = values + 1
    return Shared(torch.from_numpy(symbols).view(shape), codebook, gap_bits)


def _head(form: Shared, kind: str, bits: huffman.Integers) -> Entry:
    shape, k = list(form.symbols.shape), len(form.codebook)
    return {"kind": kind, "shape": shape, "k": k, "gap_bits": form.gap_bits, "lengths": bits.tolist()}


def _number(entry: Entry, key: str) -> int:
    return int(entry[key])  # type: ignore[call-overload,no-any-return]


def _numbers(entry: Entry, key: str) -> huffman.Integers:
    return np.array(entry[key], np.int64)


def _raw(values: Tensor) -> bytes:
    """The numbers of a tensor row by row, little endian."""
    array: npt.NDArray[np.generic] = values.detach().cpu().contiguous().numpy()
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _tensor(content: bytes, kind: torch.dtype, shape: list[int]) -> Tensor:
    array = np.frombuffer(content, np.dtype(str(kind).removeprefix("torch.")).newbyteorder("<"))
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="))).view(shape)
