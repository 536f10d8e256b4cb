"""How well the time model predicts training steps: python -m benchmarks.time_model [--quick] [--steps FILE].

Measures steps over families, depths, widths, batch sizes and image sizes in every number format of the device, fits the
numbers of the machine to some of the networks, and sets what the model says of the others beside what was measured.
`--steps` keeps what was measured, or takes it from there. Prints Markdown, and the machine for a study file.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch

from benchmarks.training import conditions
from objectives.device.allocator import keep_freed_memory
from objectives.device.clock import Clock, describe, device_clock
from objectives.device.executors import Eager, Segment
from objectives.device.formats import FORMATS, LossScaler
from objectives.device.opening import opened
from objectives.modelled.fitting import Measured, fitted
from objectives.modelled.machine import Machine
from objectives.networks.families import build
from objectives.networks.network import build as network
from objectives.networks.plain import AnyArchitecture
from objectives.networks.trainee import Trainee
from objectives.pipeline import Pipeline
from objectives.train import sgd

GOAL = 0.10  # median error
LARGE, COPIED, SMALL = 1024, 1 << 24, 64  # side of a matrix, numbers that are copied, of which an operation is a launch
HALF_LENGTH = 32.0  # where the fit begins


@dataclass(frozen=True)
class Case:
    """A training step."""

    family: str
    depth: int
    width: float
    batch_size: int
    size: int  # pixels
    stem_stride: int = 1
    in_channels: int = 3

    @property
    def network(self) -> tuple[str, int, float]:
        """What it is fitted or verified by: no network is in both."""
        return self.family, self.depth, self.width

    @property
    def architecture(self) -> AnyArchitecture:
        shape = {"in_channels": self.in_channels, "n_classes": 10, "stem_stride": self.stem_stride}
        return build(self.family, depth=self.depth, width=self.width, size=self.size, **shape)


FITTED = (("thin", 1, 1.0), ("thin", 2, 0.5), ("wide", 1, 0.5), ("vgg", 1, 0.25))
VERIFIED = (
    ("small", 1, 1.0),
    ("thin", 1, 0.5),
    ("thin", 1, 2.0),
    ("thin", 3, 1.0),
    ("wide", 1, 0.25),
    ("wide", 1, 1.0),
    ("fast", 1, 0.25),
    ("vgg", 1, 0.5),
)


def cases(batches: Sequence[int], sizes: Sequence[int]) -> list[Case]:
    """Every network at every batch and size; each network once with a stem of stride 2, where it may have one."""
    found = [Case(*each, batch, size) for each in (*FITTED, *VERIFIED) for batch in batches for size in sizes]
    strided = [Case(*each, batches[-1], sizes[-1], 2, 1) for each in (*FITTED, *VERIFIED) if each[0] != "vgg"]
    return found + strided


class Step:
    """A training step that can be timed again."""

    def __init__(self, case: Case, number_format: str, device: torch.device) -> None:
        self.case, self.number_format = case, number_format
        torch.manual_seed(0)
        model = network(case.architecture).to(device)
        trainee = Trainee(model, sgd(model, Pipeline(lr=1e-3)), {}, {})
        scaler = LossScaler(device.type) if FORMATS[number_format].scaled else None
        self._executor, self._device = Eager(Segment(trainee, (), FORMATS[number_format], scaler, 0.0)), device
        shape = case.batch_size, *case.architecture.shape(case.size)
        self._x = torch.randn(shape, device=device).contiguous(memory_format=torch.channels_last)
        self._y = torch.zeros(case.batch_size, dtype=torch.int64, device=device)

    def seconds(self, n_steps: int) -> float:
        """Device seconds of a step, the median of a few behind one to warm up."""
        FORMATS[self.number_format].set_float32_products()
        found = []
        for _ in range(n_steps + 1):
            clock = Clock(self._device)
            with clock.span("steps"):
                self._executor.step(self._x, self._y)
            found.append(clock.charged)
        return median(found[1:])


def measured(
    chosen: Iterable[Case], formats: Sequence[str], device: torch.device, n_rounds: int
) -> list[dict[str, object]]:
    """Seconds of every case in every format: the median of the rounds, formats in turn."""
    found = []
    for case in chosen:
        steps = [Step(case, each, device) for each in formats]
        rounds = [[step.seconds(2) for step in steps] for _ in range(n_rounds)]
        for number, each in enumerate(formats):
            seconds = median(one[number] for one in rounds)
            found.append({**asdict(case), "number_format": each, "seconds": seconds})
    return found


def probed(name: str, formats: Sequence[str], device: torch.device) -> Machine:
    """A machine by large operations alone: what a fit begins from, and what a network reaches at best."""

    def fastest(call: Callable[[], object], n: int = 5) -> float:
        best = []
        for _ in range(n + 1):
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            start = now()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            best.append(now() - start)
        return min(best)

    rates, now = {}, device_clock(device)
    for each in formats:
        FORMATS[each].set_float32_products()
        matrix = torch.randn(LARGE, LARGE, device=device).to(FORMATS[each].autocast or torch.float32)
        rates[each] = LARGE**3 / fastest(lambda matrix=matrix: matrix @ matrix)
    numbers, few = torch.randn(COPIED, device=device), torch.randn(SMALL, device=device)
    bandwidth = 2 * 4 * COPIED / fastest(lambda: numbers.clone())
    launch = fastest(lambda: [few + 1 for _ in range(100)]) / 100
    return Machine(name, 20 * launch, 20 * launch, bandwidth, HALF_LENGTH, rates)


def as_measured(each: dict[str, object]) -> tuple[Case, Measured]:
    """A case and its step, from a line of what was measured."""
    plain = dict(each)
    number_format, seconds = plain.pop("number_format"), plain.pop("seconds")
    case = Case(**plain)
    return case, Measured(case.architecture, case.size, case.batch_size, number_format, seconds)


def errors(steps: Iterable[Measured], machine: Machine) -> list[float]:
    """How far predictions are from what was measured, as shares of it."""
    return [step.predicted(machine) / step.seconds - 1 for step in steps]


def _summary(name: str, found: Sequence[float]) -> str:
    if not found:
        return f"| {name} | 0 | | | |"
    sizes = sorted(map(abs, found))
    within = sum(each <= 0.2 for each in sizes) / len(sizes)
    cells = f"{median(sizes):.0%} | {sizes[int(0.9 * (len(sizes) - 1))]:.0%} | {median(found):+.0%} | {within:.0%}"
    return f"| {name} | {len(found)} | {cells} |"


def report(steps: Sequence[tuple[Case, Measured]], start: Machine, name: str) -> Machine:
    """Prints what was predicted beside what was measured; returns the fitted machine."""
    to_fit = [step for case, step in steps if case.network in FITTED]
    there = fitted(name, to_fit, start)
    held = [(case, step) for case, step in steps if case.network not in FITTED]
    print("\n| network, never fitted | stem | batch | pixels | format | measured, ms | predicted, ms | error |")
    print("|---|---|---|---|---|---|---|---|")
    for case, step in held:
        family, depth, width = case.network
        named = f"{family}, depth {depth}, width x{width:g} | {case.stem_stride} | {case.batch_size} | {case.size}"
        ms, told = 1000 * step.seconds, 1000 * step.predicted(there)
        print(f"| {named} | {step.number_format} | {ms:.2f} | {told:.2f} | {told / ms - 1:+.0%} |")
    print(
        "\n| steps | n | median error | nine in ten below | median, signed | within 20 % |\n|---|---|---|---|---|---|"
    )
    print(_summary("fitted networks", errors(to_fit, there)))
    print(_summary("**other networks**", errors([step for _, step in held], there)))
    for each in there.rates:
        print(_summary(f"others, {each}", errors([s for _, s in held if s.number_format == each], there)))
    for family in dict.fromkeys(case.family for case, _ in held):
        print(_summary(f"others, {family}", errors([s for case, s in held if case.family == family], there)))
    return there


def section(machine: Machine) -> str:
    """The machine as a section of a study file of kind `modelled`."""
    numbers = {key: value for key, value in machine.to_json().items() if key not in ("name", "rates")}
    lines = ["[machine]", f"name = {json.dumps(machine.name)}"]
    lines += [f"{key} = {value:.3g}" for key, value in numbers.items()]
    rates = ", ".join(f"{key} = {rate:.3g}" for key, rate in machine.rates.items())
    return "\n".join([*lines, f"rates = {{ {rates} }}"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, fits and verifies."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.time_model", description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--formats", nargs="+", default=None, help="default: fp32 and bf16, on a GPU all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="few batches and sizes, once each: a smoke test")
    parser.add_argument("--steps", type=Path, default=None, help="JSON lines of what was measured, or is to be kept")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    keep_freed_memory()
    device = opened(options.device)
    formats = options.formats or (["fp32", "bf16"] if device.type == "cpu" else ["fp32", "tf32", "bf16", "fp16"])
    batches, sizes, n_rounds = ((32,), (16, 28), 1) if options.quick else ((16, 64, 256), (16, 32), options.rounds)
    print(conditions(device, f"python -m benchmarks.time_model {shlex.join(words)}".rstrip()))
    if options.steps is not None and options.steps.exists():
        lines = [json.loads(line) for line in options.steps.read_text().splitlines()]
    else:
        lines = measured(cases(batches, sizes), formats, device, n_rounds)
        if options.steps is not None:
            options.steps.write_text("".join(json.dumps(each) + "\n" for each in lines))
    steps = [as_measured(each) for each in lines]
    name = describe(device).model
    start = probed(name, formats, device)
    there = report(steps, start, name)
    said = ", ".join(f"{each} {rate / 1e9:.1f}" for each, rate in start.rates.items())
    print(f"\nLarge operations reach {said} G multiply-adds a second and {start.bandwidth / 1e9:.1f} GB a second.")
    found = abs(median(map(abs, errors([step for case, step in steps if case.network not in FITTED], there))))
    print(f"The median error on other networks is {found:.1%}; the goal is {GOAL:.0%}.\n")
    print("\n".join(f"    {line}" for line in section(there).splitlines()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
