"""The time model: what a step costs by formula, and that a machine is found again from the steps that it takes."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product

import pytest

from objectives.data.dataset import Dataset
from objectives.modelled.assumptions import DFP16, FLOAT8, by_width
from objectives.modelled.fitting import Measured, fitted
from objectives.modelled.machine import Machine
from objectives.modelled.seconds import nominal_step_seconds, operations, run_seconds, step_seconds
from objectives.networks import flops
from objectives.networks.families import build
from objectives.pipeline import Pipeline
from objectives.strategies import STRATEGIES
from objectives.strategies.base import Strategy
from objectives.strategies.block_floating_point import BlockFloatingPoint
from objectives.strategies.freeze import Freeze
from objectives.strategies.regime_adaptation import RegimeAdaptation
from objectives.strategies.strided_stem import StridedStem
from objectives.strategies.switch_format import SwitchFormat
from objectives.task import DataSpec, Task
from tests.objectives.strategies.cases import TASK, finish, using

MACHINE = Machine("a machine", 1e-3, 2e-5, 5e9, 30.0, {"fp32": 3e10, "bf16": 6e10})
NETWORKS = {
    (family, width): build(family, depth=1, width=width, size=32, in_channels=3, n_classes=10)
    for family, width in (
        *(("thin", 1.0), ("thin", 2.0), ("wide", 0.5), ("vgg", 0.25), ("fast", 0.25), ("imagenet18", 0.25)),
    )
}


@pytest.mark.parametrize("network", NETWORKS.values(), ids=str)
def test_the_multiply_adds_of_a_step_are_those_of_the_counter(network: object) -> None:
    """But for what a residual network does after its last convolution, a thousandth."""
    found = sum(each.multiply_adds for each in operations(network.layers(32), 1, 4.0))  # type: ignore[attr-defined]
    assert 2 * found == pytest.approx(flops.count(network, 32)[1], rel=3e-3)  # type: ignore[arg-type]


@pytest.mark.parametrize("network", NETWORKS.values(), ids=str)
def test_seconds_lie_between_launches_alone_and_the_sum_of_all(network: object) -> None:
    n = sum(2 + layer.is_pooled for layer in network.layers(32))  # type: ignore[attr-defined]
    launches = MACHINE.step_seconds + n * MACHINE.launch_seconds
    idle = replace(MACHINE, bandwidth=1e30, rates={"fp32": 1e30})
    assert step_seconds(network, 32, 64, "fp32", idle) == pytest.approx(launches)  # type: ignore[arg-type]
    work = operations(network.layers(32), 64, 4.0)  # type: ignore[attr-defined]
    arithmetic = sum(each.multiply_adds * (1 + 30 / each.length) for each in work) / 3e10
    memory = sum(each.n_bytes for each in work) / 5e9
    found = step_seconds(network, 32, 64, "fp32", MACHINE)  # type: ignore[arg-type]
    assert max(arithmetic, memory) + launches <= found <= arithmetic + memory + launches


def test_narrower_numbers_and_smaller_batches_never_take_longer() -> None:
    for network in NETWORKS.values():
        formats = ("fp32", DFP16, by_width(16), by_width(8), FLOAT8)
        seconds = [step_seconds(network, 32, 64, each, MACHINE) for each in formats]
        assert seconds[0] > seconds[1] >= seconds[2] > seconds[3] == seconds[4]
        batches = [step_seconds(network, 32, batch, "fp32", MACHINE) for batch in (1, 8, 64, 512)]
        assert batches == sorted(batches)
        assert batches[3] < 64 * batches[1]  # launches are shared


def test_every_emulated_format_states_what_is_assumed_of_it_and_where_that_is_from() -> None:
    emulated = [kind() for kind in STRATEGIES.values() if kind.emulated]
    assert len(emulated) >= 4
    for each in emulated:
        assert each.arithmetic is not None
        assert each.arithmetic.rate > 1 > each.arithmetic.value_bytes / 4
        assert each.arithmetic.source
        assert "emulated" in Pipeline(strategies=(each,)).describe()


@pytest.mark.parametrize(
    ("name", "seconds"), [("exact", 0.0), ("noisy", 0.05)], ids=["as the model has it", "off by 5 percent"]
)
def test_a_machine_is_found_again_from_the_steps_that_it_takes(name: str, seconds: float) -> None:
    import random

    noise = random.Random(0)
    steps = [
        Measured(network, 32, batch, each, step_seconds(network, 32, batch, each, MACHINE) * noise.gauss(1, seconds))
        for network, batch, each in product(NETWORKS.values(), (8, 64, 256), ("fp32", "bf16"))
    ]
    start = Machine("a guess", 1e-4, 1e-4, 1e11, 10.0, {"fp32": 1e10, "bf16": 1e10})
    found = fitted("found", steps, start)
    errors = sorted(
        abs(
            step.predicted(found) / step_seconds(step.architecture, 32, step.batch_size, step.number_format, MACHINE)
            - 1
        )
        for step in steps
    )
    assert errors[len(errors) // 2] < 0.01 + seconds
    with pytest.raises(ValueError, match="2 steps were measured: at least 6 are needed"):
        fitted("found", steps[:2], start)


def test_a_machine_survives_json_and_refuses_what_it_cannot_be() -> None:
    assert Machine.from_json(json.loads(json.dumps(MACHINE.to_json()))) == MACHINE
    task = replace(TASK, machine=MACHINE)
    assert Task.from_json(json.loads(json.dumps(task.to_json()))) == task
    with pytest.raises(ValueError, match="bandwidth of machine 'a machine' is 0: it must be above 0"):
        replace(MACHINE, bandwidth=0)
    with pytest.raises(ValueError, match="has no rate of fp32"):
        replace(MACHINE, rates={"bf16": 1e9})
    with pytest.raises(ValueError, match="has no rate of fp16: it has fp32, bf16"):
        MACHINE.rate("fp16")


@pytest.mark.parametrize(
    "strategies",
    [
        (),
        (BlockFloatingPoint(),),
        (BlockFloatingPoint(), SwitchFormat(at=0.3)),
        (SwitchFormat(),),
        (RegimeAdaptation(20), BlockFloatingPoint(), SwitchFormat(at=0.3)),
    ],
    ids=["fp32", "8 bits", "8 bits, then fp32", "fp32, which stays", "as many updates"],
)
def test_a_run_reports_the_seconds_that_were_forecast_of_it(strategies: tuple[Strategy, ...], digits: Dataset) -> None:
    task = replace(TASK, machine=MACHINE)
    reports, _ = finish(using(*strategies), digits, task)
    told = [report.modelled_seconds for report in reports]
    assert told == sorted(told)
    n_train = len(digits.train.y)
    forecast = run_seconds(using(*strategies), task, MACHINE, digits.size, digits.channels, n_train)
    assert told[-1] == pytest.approx(forecast)
    assert finish(using(*strategies), digits)[0][-1].modelled_seconds == 0  # of no machine


def test_a_step_of_a_machine_that_was_not_asked_takes_longer_with_more_of_anything() -> None:
    plain = Pipeline(batch_size=64, width=0.5)
    task = Task(DataSpec("folder:x", size=32), "thin")
    seconds = nominal_step_seconds(plain, task, 32)
    for more in (replace(plain, batch_size=128), replace(plain, width=1.0), replace(plain, depth=2)):
        assert nominal_step_seconds(more, task, 32) > seconds
    assert nominal_step_seconds(plain, task, 64) > seconds
    for less in (replace(plain, number_format="bf16"), replace(plain, strategies=(StridedStem(),))):
        assert nominal_step_seconds(less, task, 32) < seconds
    assert nominal_step_seconds(replace(plain, strategies=(Freeze(),)), task, 32) == seconds
