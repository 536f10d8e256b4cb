"""Emulated number formats in training: what is rounded, what stays in fp32, and when it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from objectives.data.dataset import Dataset
from objectives.device.executors import Segment, prepared, unusable
from objectives.device.formats import FORMATS
from objectives.networks.surgery import reindex
from objectives.pipeline import Pipeline
from objectives.strategies.block_floating_point import BlockFloatingPoint
from objectives.strategies.dynamic_fixed_point import DynamicFixedPoint
from objectives.strategies.emulated import Emulated
from objectives.strategies.fixed_point import FixedPoint
from objectives.strategies.float8 import Float8
from objectives.strategies.swa import Swa
from objectives.strategies.switch_format import SwitchFormat
from objectives.train import bound, deployed, starting_state
from tests.objectives.strategies.cases import (
    SEEDS,
    TASK,
    begin,
    contents,
    finish,
    first_batch,
    repeats,
    same_weights,
    stepped,
    using,
)

STORED = (
    BlockFloatingPoint(),
    BlockFloatingPoint(bits=6, by_slice=False),
    FixedPoint(),
    FixedPoint(rounding="nearest"),
)
MASTERED = (DynamicFixedPoint(), DynamicFixedPoint(bits=6), Float8(), Float8(errors="e4m3"))


def on_grid(tensor: Tensor, quantise: Callable[[Tensor], Tensor]) -> bool:
    return torch.equal(quantise(tensor), tensor)


@pytest.mark.parametrize("strategy", STORED, ids=str)
def test_weights_and_momentum_stand_on_the_grid_after_every_step_also_behind_surgery(
    strategy: BlockFloatingPoint | FixedPoint, digits: Dataset
) -> None:
    begun = stepped(begin(using(strategy), digits), digits, 2)
    for state in (begun, replace(begun, trainee=reindex(begun.trainee, repeats(begun.trainee)), epoch=1)):
        after = contents(stepped(bound(state), digits).trainee)
        kept = {name: t for name, t in after.items() if "running" not in name and t.is_floating_point()}
        assert any(name.startswith("momentum_buffer") and tensor.any() for name, tensor in kept.items())
        assert [name for name, tensor in kept.items() if not on_grid(tensor, strategy.forward())] == []


@pytest.mark.parametrize("strategy", MASTERED, ids=str)
def test_master_weights_keep_what_the_format_would_lose(strategy: Emulated, digits: Dataset) -> None:
    state = stepped(begin(using(strategy), digits), digits, 2)
    weights = [layer.weight.detach() for layer in state.trainee.model.convolutions()]
    assert not any(on_grid(weight, strategy.forward()) for weight in weights)


@pytest.mark.parametrize("strategy", [*STORED[:3:2], *MASTERED[::2]], ids=str)
def test_convolutions_compute_with_rounded_numbers_both_ways(strategy: Emulated, digits: Dataset) -> None:
    torch.manual_seed(0)
    state = begin(using(strategy), digits)
    layer = state.trainee.model.convolutions()[1]

    multiplied: list[Tensor] = []

    def plain(x: Tensor, weight: Tensor) -> Tensor:
        multiplied.extend((x.detach(), weight.detach()))
        return layer.multiplied(x, weight)

    x = torch.randn(4, layer.in_channels, 4, 4, requires_grad=True)
    out = strategy.product(layer, plain)(x, layer.weight)
    out.backward(torch.randn_like(out))
    assert all(on_grid(each, strategy.forward()) for each in multiplied)
    assert on_grid(out.detach(), strategy.forward())
    assert x.grad is not None
    assert on_grid(x.grad, strategy.backward())
    exact = layer.plainly(x.detach())
    assert 0 < (out - exact).norm() < 0.25 * exact.norm()


def test_swalp_averages_in_full_precision(digits: Dataset) -> None:
    """An average of two grid points lies between them: rounding it would lose what averaging gains."""
    low = BlockFloatingPoint(bits=6)
    _, alone = finish(using(low, lr=0.1), digits)
    _, averaged = finish(using(low, Swa(start=0.5, lr=0.2, images=200), lr=0.1), digits)
    weights = [layer.weight.detach() for layer in averaged.model.convolutions()]
    assert not any(on_grid(weight, low.forward()) for weight in weights)
    assert all(on_grid(layer.weight.detach(), low.forward()) for layer in alone.model.convolutions())


def test_what_is_deployed_computes_in_fp32(digits: Dataset) -> None:
    state = stepped(begin(using(Float8()), digits), digits)
    x, _ = first_batch(digits)
    network = deployed(state)
    rebuilt = starting_state(using(), TASK, digits, SEEDS).trainee.model.eval()
    rebuilt.load_state_dict(network.state_dict())
    assert torch.equal(network(x), rebuilt(x))


def test_a_run_that_goes_over_to_fp32_is_in_its_format_before_and_in_fp32_after(digits: Dataset) -> None:
    low = BlockFloatingPoint(bits=4)
    reports, trained = finish(using(low, SwitchFormat(at=0.5)), digits)
    half, _ = finish(using(low), digits)
    assert [r.loss for r in reports[:2]] == [r.loss for r in half[:2]]
    assert reports[1].events == (f"{low.describe()} until epoch 2, fp32 from here on",)
    assert not any(on_grid(layer.weight.detach(), low.forward()) for layer in trained.model.convolutions())


@pytest.mark.parametrize("number_format", ["bf16", "fp16"])
def test_a_real_format_goes_over_to_fp32_as_well_and_its_last_evaluation_is_in_it(
    number_format: str, digits: Dataset
) -> None:
    pipeline = using(SwitchFormat(at=0.5), number_format=number_format)
    assert (pipeline.number_format, pipeline.last_format) == (number_format, "fp32")
    assert using(SwitchFormat(at=1.0), number_format=number_format).last_format == number_format
    reports, _ = finish(pipeline, digits)
    whole, _ = finish(using(number_format=number_format), digits)
    assert [r.loss for r in reports[:2]] == [r.loss for r in whole[:2]]
    assert [r.loss for r in reports[2:]] != [r.loss for r in whole[2:]]
    assert reports[1].events == (f"{number_format} until epoch 2, fp32 from here on",)


def test_in_fp32_there_is_nothing_to_leave_and_the_run_says_so(digits: Dataset) -> None:
    reports, trained = finish(using(SwitchFormat()), digits)
    assert reports[0].events == ("SwitchFormat does nothing in this run: it is in fp32 from the start",)
    assert same_weights(trained.model, finish(using(), digits)[1].model)


@pytest.mark.parametrize("strategy", [*STORED, *MASTERED], ids=str)
@pytest.mark.parametrize("executor", ["compile", "cuda_graph"])
def test_nothing_that_is_emulated_is_compiled_and_the_run_says_so(
    strategy: Emulated, executor: str, digits: Dataset
) -> None:
    state = begin(using(strategy), digits)
    segment = Segment(state.trainee, state.pipeline.strategies, FORMATS["fp32"], None, 0.0)
    if executor == "compile":
        (note,) = prepared(executor, segment, (50, 1, 8, 8)).notes
        assert note.startswith(f"compile not used: {type(strategy).__name__} is emulated: ")
    assert unusable(executor, segment) is not None
    assert unusable("eager", segment) is None


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: DynamicFixedPoint(bits=1), "bits must lie in 2 to 16, or be 32, which is fp32"),
        (lambda: FixedPoint(bits=24), "bits must lie in 2 to 16"),
        (lambda: FixedPoint(integer_bits=17), "integer_bits lies in 1 to bits"),
        (lambda: FixedPoint(rounding="up"), "rounding is nearest or stochastic"),  # type: ignore[arg-type]
        (lambda: BlockFloatingPoint(rounding="up"), "rounding is nearest or stochastic"),  # type: ignore[arg-type]
        (lambda: Float8(errors="fp32"), "e4m3 or e5m2 for each, or fp32 for both"),
        (lambda: Float8("e3m4"), "e4m3 or e5m2 for each"),  # type: ignore[arg-type]
        (lambda: SwitchFormat(at=0.0), r"at must lie in \(0, 1\]"),
        (lambda: Pipeline(number_format="fp16", strategies=(Float8(),)), "Float8 cannot run in number format fp16"),
        (lambda: Pipeline(number_format="tf32", strategies=(FixedPoint(),)), "in number format tf32: choose fp32"),
        (lambda: Pipeline(strategies=(Float8(), FixedPoint())), "Float8 cannot run with FixedPoint: choose one"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_name(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()
