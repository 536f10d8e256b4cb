"""Laws of number formats and loss scaling: what is computed in which type, and that a skipped step changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from objectives.data.dataset import Dataset
from objectives.device.executors import Eager, Segment
from objectives.device.formats import FORMATS, LossScaler, unavailable
from objectives.networks.architecture import Architecture, Stage
from objectives.networks.resnet import ResNet
from objectives.networks.trainee import Trainee
from objectives.pipeline import Pipeline
from objectives.state import TrainState
from objectives.strategies.ema import Ema
from objectives.task import DataSpec, Seeds, Task
from objectives.train import begun, bound, starting_state

CPU = torch.device("cpu")
FITS, OVERFLOWS = 2.0**14, 2.0**60  # loss scales under which the gradients of a small network do and do not fit fp16


@pytest.fixture(autouse=True)
def restored_precision() -> Iterator[None]:
    """The process-wide settings as they were before."""
    before = torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision  # type: ignore[attr-defined]
    yield
    torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision = before  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("fp32", torch.float32), ("tf32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_a_format_decides_the_type_of_products_and_never_that_of_parameters(name: str, dtype: torch.dtype) -> None:
    model = ResNet(Architecture(1, 3, (Stage(8, (8,)),)))
    with FORMATS[name].context(CPU):
        logits = model(torch.randn(4, 1, 8, 8))
    assert logits.dtype == dtype
    torch.autograd.backward(F.cross_entropy(logits.float(), torch.zeros(4, dtype=torch.int64)))
    assert {p.dtype for p in model.parameters()} == {p.grad.dtype for p in model.parameters() if p.grad is not None}
    assert {t.dtype for t in model.state_dict().values() if t.is_floating_point()} == {torch.float32}


@pytest.mark.parametrize(
    ("dtype", "normal", "largest", "subnormal"),
    [
        (torch.float16, 2.0**-14, 65504.0, 2.0**-24),
        (torch.bfloat16, 2.0**-126, (2 - 2.0**-7) * 2.0**127, 2.0**-133),
        (torch.float32, 2.0**-126, (2 - 2.0**-23) * 2.0**127, 2.0**-149),
    ],
    ids=str,
)
def test_formats_reach_from_their_smallest_numbers_to_their_largest(
    dtype: torch.dtype, normal: float, largest: float, subnormal: float
) -> None:
    limits = torch.finfo(dtype)
    assert (limits.smallest_normal, limits.max) == (normal, largest)
    numbers = torch.tensor([subnormal, 0.49 * subnormal, largest, 2.01 * largest], dtype=torch.float64).to(dtype)
    assert numbers.double().tolist() == [subnormal, 0.0, largest, float("inf")]
    if dtype == torch.float16:  # as Buehler's table 2.1 has them
        assert [f"{x:.2e}" for x in (normal, largest, subnormal)] == ["6.10e-05", "6.55e+04", "5.96e-08"]
        weight, update = torch.tensor(1.0, dtype=dtype), torch.tensor(2.0**-11, dtype=dtype)
        assert weight + update == weight  # why the master weights are in fp32


def test_only_fp16_is_scaled() -> None:
    assert [name for name, number_format in FORMATS.items() if number_format.scaled] == ["fp16"]


@pytest.mark.parametrize(
    ("dtype", "smallest_normal", "largest", "smallest"),
    [
        (torch.float16, 2.0**-14, 65504.0, 2.0**-24),  # 6.10e-5 and 5.96e-8
        (torch.bfloat16, 2.0**-126, 2.0**128 - 2.0**120, 2.0**-133),
        (torch.float32, 2.0**-126, 2.0**128 - 2.0**104, 2.0**-149),  # 1.18e-38, 3.40e38 and 1.40e-45
    ],
    ids=str,
)
def test_the_numbers_of_a_format_end_where_the_ieee_table_says(
    dtype: torch.dtype, smallest_normal: float, largest: float, smallest: float
) -> None:
    """By casts: halfway to 0 they are 0, halfway beyond the largest infinite; below the normal ones bits get lost."""

    def cast(*values: float) -> list[float]:
        return torch.tensor(values, dtype=torch.float64).to(dtype).double().tolist()

    limits = torch.finfo(dtype)
    assert (limits.smallest_normal, limits.max) == (smallest_normal, largest)
    assert cast(smallest_normal, largest, smallest) == [smallest_normal, largest, smallest]
    assert cast(smallest / 2, -smallest / 2, smallest * 0.51) == [0, 0, smallest]
    last = largest * limits.eps / (2 - limits.eps)  # between the two largest
    assert cast(largest + 0.49 * last, largest + last / 2) == [largest, float("inf")]
    step = smallest_normal * limits.eps
    assert step == smallest  # subnormal numbers are as far from one another as the smallest normal ones
    assert cast(smallest_normal / 2 * (1 + limits.eps)) == [smallest_normal / 2]
    assert cast(smallest_normal * (1 + limits.eps)) == [smallest_normal * (1 + limits.eps)]


@pytest.mark.parametrize("name", FORMATS)
def test_products_of_fp32_numbers_are_strict_unless_the_format_is_tf32(name: str) -> None:
    FORMATS["fp32" if name == "tf32" else "tf32"].set_float32_products()  # whatever trained before
    FORMATS[name].set_float32_products()
    expected = "tf32" if name == "tf32" else "ieee"
    assert torch.backends.cuda.matmul.fp32_precision == expected
    assert torch.backends.cudnn.conv.fp32_precision == expected  # type: ignore[attr-defined]


def test_a_cpu_can_use_every_format_but_tf32() -> None:
    reasons = {name: unavailable(name, CPU) for name in FORMATS}
    assert reasons.pop("tf32") == "needs an NVIDIA GPU of the Ampere generation or later"
    assert set(reasons.values()) == {None}


# --- loss scaling -----------------------------------------------------------------------------------------------------


def fp16_state(digits: Dataset, momentum: float = 0.9) -> TrainState:
    """Before the first step of a small network with averaged weights."""
    pipeline = Pipeline(number_format="fp16", batch_size=8, width=0.5, momentum=momentum, strategies=(Ema(0.5),))
    state = starting_state(pipeline, Task(DataSpec("digits"), "small"), digits, Seeds(1, 2, 3))
    return bound(begun(state, *first_batch(digits)))


def first_batch(digits: Dataset) -> tuple[Tensor, Tensor]:
    return digits.train.x[:8].float() / 128 - 1, digits.train.y[:8]


def executor(state: TrainState, scaler: LossScaler) -> Eager:
    return Eager(Segment(state.trainee, state.pipeline.strategies, FORMATS["fp16"], scaler, 0.0))


def contents(trainee: Trainee) -> dict[str, Tensor]:
    """A copy of everything that a step may change."""
    tensors = dict(trainee.model.state_dict())
    for (name, _), state in zip(trainee.model.named_parameters(), trainee.optimizer.state.values(), strict=False):
        tensors |= {f"optimizer.{key}.{name}": value for key, value in state.items()}
    for key, shadow in trainee.shadows.items():
        tensors |= {f"{key}.{name}": tensor for name, tensor in shadow.tensors.items()}
    return {name: tensor.clone() for name, tensor in tensors.items()}


def assert_identical(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


@pytest.mark.parametrize("n_taken_before", [0, 2])
@pytest.mark.parametrize("cause", ["the gradients", "the images"])
def test_a_step_that_overflows_is_skipped_and_changes_nothing_but_the_scale(
    digits: Dataset, cause: str, n_taken_before: int
) -> None:
    state = fp16_state(digits)
    x, y = first_batch(digits)
    for _ in range(n_taken_before):
        assert executor(state, LossScaler("cpu", FITS)).step(x, y).taken == 1
    before = contents(state.trainee)
    scale = OVERFLOWS if cause == "the gradients" else FITS
    scaler = LossScaler("cpu", scale)
    step = executor(state, scaler).step(x * 1e6 if cause == "the images" else x, y)
    assert step.taken == 0
    assert step.loss.isfinite() == (cause == "the gradients")
    assert scaler.get_scale() == scale / 2
    assert_identical(contents(state.trainee), before)


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_training_goes_on_from_a_skipped_first_step_as_if_it_had_not_been(digits: Dataset, momentum: float) -> None:
    """In PyTorch 2.13 a fused SGD that skips its first step leaves its momentum buffers uninitialised."""
    x, y = first_batch(digits)
    clean, skipped = fp16_state(digits, momentum), fp16_state(digits, momentum)
    scaler = LossScaler("cpu", 2 * FITS)
    assert executor(skipped, scaler).step(x * 1e6, y).taken == 0
    for state, its_scaler in ((skipped, scaler), (clean, LossScaler("cpu", FITS))):
        for _ in range(3):
            assert executor(state, its_scaler).step(x, y).taken == 1
    assert_identical(contents(skipped.trainee), contents(clean.trainee))


def test_a_step_that_is_taken_moves_the_weights_the_statistics_and_the_averages(digits: Dataset) -> None:
    state = fp16_state(digits)
    before = contents(state.trainee)
    scaler = LossScaler("cpu", FITS)
    step = executor(state, scaler).step(*first_batch(digits))
    assert step.taken == 1
    assert scaler.get_scale() == FITS
    after = contents(state.trainee)
    unmoved = {name for name, tensor in before.items() if torch.equal(tensor, after[name])}
    assert {name for name in unmoved if not name.endswith("num_batches_tracked")} == set()


def test_scaling_the_loss_does_not_scale_the_step(digits: Dataset) -> None:
    """Powers of two cancel exactly."""
    small, large = fp16_state(digits), fp16_state(digits)
    for state, scale in ((small, FITS), (large, 2 * FITS)):
        executor(state, LossScaler("cpu", scale)).step(*first_batch(digits))
    found, expected = contents(large.trainee), contents(small.trainee)
    for name, tensor in expected.items():  # not bit for bit: subnormal numbers are rounded elsewhere
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_other_formats_take_every_step(digits: Dataset, name: str) -> None:
    state = fp16_state(digits)
    x, y = first_batch(digits)
    segment = Segment(state.trainee, state.pipeline.strategies, FORMATS[name], None, 0.0)
    assert Eager(segment).step(x * 1e6, y).taken == 1
    assert Eager(replace(segment, label_smoothing=0.1)).step(x, y).taken == 1
