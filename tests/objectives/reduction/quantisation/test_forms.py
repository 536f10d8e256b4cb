"""Laws of what is stored: it comes back exactly, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from objectives.reduction.quantisation import forms
from objectives.reduction.quantisation.forms import Affine, Form, Plain, Shared


def shared(*symbols: int, k: int = 3, gap_bits: int = 5) -> Shared:
    return Shared(torch.tensor(symbols, dtype=torch.int64), torch.linspace(-1.5, 2.0, k), gap_bits)


CASES: dict[str, Form] = {
    "numbers": Plain(torch.tensor([1.5, -0.0, 3e-39, 3e38])),
    "a counter": Plain(torch.tensor(2**40)),
    "bytes": Plain(torch.tensor([[1, 255]], dtype=torch.uint8)),
    "doubles": Plain(torch.tensor([1 / 3], dtype=torch.float64)),
    "nothing": Plain(torch.empty(0, 3)),
    "8 bits": Affine(
        torch.arange(12, dtype=torch.uint8).view(2, 3, 2), torch.tensor([0.1, 7.0]), torch.tensor([0, 200]).byte()
    ),
    "few values": shared(1, 2, 3, 1, 1, 2, 1, 3, 1, 1),
    "zeros between": shared(*[0] * 40, 2, *[0] * 31, 1, 0, 3, *[0] * 500, 3, 0),
    "gaps as long as they can be": shared(*([0] * 31 + [1]) * 3, *([0] * 30 + [2]) * 3, *[0] * 62, 3),
    "zeros alone": shared(*[0] * 77, k=0),
    "one value alone": shared(*[2] * 77),
    "no weight": shared(k=0),
    "one weight": shared(3),
    "many values": Shared(torch.arange(1, 301).view(3, 10, 10), torch.arange(300) / 7, 8),
}


def test_forms_come_back_from_a_file_and_stand_for_the_same_numbers(tmp_path: Path) -> None:
    forms.save(CASES, tmp_path / "weights.frq")
    tensors = forms.load(tmp_path / "weights.frq")
    back = forms.read(forms.written(CASES))
    assert list(tensors) == list(back) == list(CASES)
    for name, form in CASES.items():
        assert type(back[name]) is type(form)
        for found in (tensors[name], back[name].tensor()):
            assert found.dtype == form.tensor().dtype
            assert found.equal(form.tensor()), name
            assert found.shape == form.tensor().shape


def test_few_weights_among_zeros_take_less_than_a_bit_each() -> None:
    symbols = torch.zeros(100_000, dtype=torch.int64)
    symbols[::100] = torch.randint(1, 17, (1000,), generator=torch.Generator().manual_seed(0))
    form = Shared(symbols, torch.linspace(-1, 1, 16), 5)
    assert forms.n_bytes(form) < 100_000 / 8 / 4
    assert forms.read(forms.written({"weight": form}))["weight"].tensor().equal(form.tensor())


def test_a_damaged_file_is_refused_with_its_name_and_the_reason(tmp_path: Path) -> None:
    path, content = tmp_path / "weights.frq", forms.written(CASES)
    damaged = bytearray(content)
    damaged[len(damaged) // 2] ^= 1
    for wrong, reason in (
        (bytes(damaged), "it is damaged"),
        (content[:-1], "it is damaged"),
        (content[:6], "it is damaged"),
        (b"", "does not begin with FRQ1"),
        (b"PK\x03\x04" + content, "of another version"),
    ):
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match=rf"weights\.frq cannot be read: .*{reason}"):
            forms.load(path)
    with pytest.raises(ValueError, match=r"none\.frq cannot be read"):
        forms.load(tmp_path / "none.frq")


def test_a_tensor_of_a_type_that_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match=r"type torch\.bool cannot be stored"):
        forms.written({"mask": Plain(torch.ones(2, dtype=torch.bool))})
