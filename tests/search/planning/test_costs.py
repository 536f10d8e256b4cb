"""What a step takes follows from the steps that were probed: those take what they took, others more as work goes."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from objectives.pipeline import Pipeline
from objectives.task import Task
from search.planning import costs
from search.planning.costs import Costs, Network
from search.planning.plan import to_probe

PLAIN = Network("fast", 32, 1.0, 1)
FORMATS = {"fp32": None, "tf32": "no GPU", "bf16": None, "fp16": "slow"}
SECONDS = {"fp32": 3e-3, "bf16": 2e-3}
BATCH = 64


def measured(*networks: Network) -> Costs:
    """Steps of networks that took longer the later they were probed, whatever their work is."""
    return Costs(3, BATCH, "fp32", {each: 1e-3 * (1 + i) for i, each in enumerate(networks)})


def probes() -> tuple[costs.Probe, list[tuple[str, Network]]]:
    """A probe, and what it was asked: number formats of networks."""
    asked: list[tuple[str, Network]] = []

    def probe(pipeline: Pipeline, task: Task) -> float:
        assert pipeline.batch_size == BATCH
        assert not pipeline.strategies
        network = Network(task.family, task.data.side, pipeline.width, task.stem_stride)
        asked.append((pipeline.number_format, network))
        return SECONDS[pipeline.number_format] * network.width

    return probe, asked


@pytest.mark.parametrize("size", [8, 12, 28, 64, 224])
def test_a_probed_step_takes_what_it_took(size: int) -> None:
    networks = to_probe(size)
    found = measured(*networks)
    for network in networks:
        assert found.of_step(network, BATCH) == pytest.approx(found.step_seconds[network])


@pytest.mark.parametrize("size", [8, 28, 64, 224])
@pytest.mark.parametrize("batch", [4, 64, 256])
def test_a_step_takes_longer_of_more_channels_more_pixels_more_images(size: int, batch: int) -> None:
    found = costs.nominal(to_probe(size)[0], 1e11)
    network = Network("fast", size, 1.0, 1)
    rising = [
        [found.of_step(replace(network, width=width), batch) for width in (0.25, 0.5, 1.0, 2.0, 4.0)],
        [found.of_step(replace(network, size=side), batch) for side in (8, 16, 32, 64, 224)],
        [found.of_step(network, n) for n in (batch, 2 * batch, 8 * batch)],
        [found.of_step(replace(network, stride=stride), batch) for stride in (2, 1)],
    ]
    for seconds in rising:
        assert all(0 < less < more for less, more in pairwise(seconds))


@given(epochs=st.integers(1, 100), n_train=st.integers(20, 100_000), batch=st.sampled_from((4, 16, 64, 256)))
def test_a_run_is_its_steps(epochs: int, n_train: int, batch: int) -> None:
    found = measured(PLAIN)
    n = epochs * max(1, n_train // batch)
    assert found.of_run(PLAIN, n_train, epochs, batch) == pytest.approx(n * found.of_step(PLAIN, batch))


def test_a_faster_device_takes_as_many_times_less_for_everything() -> None:
    slow, fast = (costs.nominal(PLAIN, rate) for rate in (1e10, 1e12))
    for network in (PLAIN, Network("small", 8, 0.25, 2), Network("fast", 224, 2.0, 1)):
        assert slow.of_step(network, 32) == pytest.approx(100 * fast.of_step(network, 32))


def test_every_format_that_is_of_use_is_probed_once_and_the_fastest_goes_on() -> None:
    probe, asked = probes()
    networks = to_probe(32)
    found = costs.probed(probe, networks, FORMATS, 3, BATCH, most=1e9)
    assert asked == [("fp32", networks[0]), ("bf16", networks[0]), *(("bf16", each) for each in networks[1:])]
    assert (found.number_format, found.batch, found.channels) == ("bf16", BATCH, 3)
    assert found.step_seconds == {each: 2e-3 * each.width for each in networks}


def test_probing_ends_when_its_time_is_over_but_not_before_two_networks() -> None:
    probe, asked = probes()
    networks = to_probe(64)
    found = costs.probed(probe, networks, FORMATS, 3, BATCH, most=0.0)
    assert list(found.step_seconds) == networks[: costs.FEWEST]
    assert [number_format for number_format, _ in asked] == ["fp32", "bf16", "bf16"]
