"""What trainings will take on this device, from a few steps of a few networks: asked of whatever trains."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from objectives.modelled.seconds import nominal_step_seconds
from objectives.pipeline import NumberFormatName, Pipeline
from objectives.task import DataSpec, Task
from objectives.work import n_steps, step_work

Probe = Callable[[Pipeline, Task], float]  # device seconds of a step, without strategies

NOMINAL_BATCH = 64  # images
FEWEST = 2  # networks that are probed, whatever it takes


@dataclass(frozen=True)
class Network:
    """What decides what a step of a plain network takes."""

    family: str
    size: int  # pixels: side of the images
    width: float
    stride: int  # of the stem

    @property
    def task(self) -> Task:
        """A task of such networks."""
        return Task(DataSpec("folder:", size=self.size), self.family, self.stride)


@dataclass(frozen=True)
class Costs:
    """Device seconds of steps, as they were probed, in number formats that are of use."""

    channels: int  # of the images
    batch: int  # images in a step
    number_format: NumberFormatName  # the fastest
    step_seconds: Mapping[Network, float]

    def of_step(self, network: Network, batch: int) -> float:
        """Seconds of a step: of the probed network of that family nearest to it, by the ratio of the time model."""
        modelled = self._modelled(network, batch)
        alike = {each: took for each, took in self.step_seconds.items() if each.family == network.family}
        found = alike or self.step_seconds
        nearest = min(found, key=lambda each: (abs(self._modelled(each, self.batch) / modelled - 1), each != network))
        return found[nearest] * modelled / self._modelled(nearest, self.batch)

    def of_run(self, network: Network, n_train: int, epochs: int, batch: int) -> float:
        """Seconds of a training on so many images."""
        steps = n_steps(Pipeline(batch_size=batch, epochs=epochs), n_train)
        return steps * self.of_step(network, batch)

    def _modelled(self, network: Network, batch: int) -> float:
        pipeline = Pipeline(self.number_format, width=network.width, batch_size=batch)
        return nominal_step_seconds(pipeline, network.task, network.size, self.channels)


def nominal(network: Network, rate: float) -> Costs:
    """What steps take at so many FLOPs a second, before anything was asked."""
    work = step_work(Pipeline(width=network.width, batch_size=NOMINAL_BATCH), network.task, network.size)
    return Costs(3, NOMINAL_BATCH, "fp32", {network: work / rate})


def probed(
    probe: Probe,
    networks: Sequence[Network],
    formats: Mapping[str, str | None],
    channels: int,
    batch: int,
    most: float,
) -> Costs:
    """The costs of steps of these networks, in that order, until `most` seconds are over.

    The first one is probed in every number format that is of use, the others in the one that was fastest there.
    """
    began = time.monotonic()
    first, *others = networks
    usable = [name for name, reason in formats.items() if reason is None]

    def seconds(network: Network, number_format: str) -> float:
        pipeline = Pipeline(number_format=number_format, batch_size=batch, width=network.width)  # type: ignore[arg-type]
        return probe(pipeline, network.task)

    by_format = {name: seconds(first, name) for name in usable}
    fastest = min(by_format, key=by_format.__getitem__)
    found = {first: by_format[fastest]}
    for network in others:
        if len(found) >= FEWEST and time.monotonic() - began > most:
            break
        found[network] = seconds(network, fastest)
    return Costs(channels, batch, fastest, found)  # type: ignore[arg-type]
