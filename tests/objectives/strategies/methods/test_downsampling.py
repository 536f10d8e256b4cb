"""The laws that all strategies keep that halve the images between stages otherwise."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest

from objectives.data.dataset import Dataset
from objectives.feasibility import first_architecture, full_architecture
from objectives.networks.architecture import FAMILIES, Architecture, Downsampling, Stage, build
from objectives.pipeline import Pipeline
from objectives.strategies.average_pooling import AveragePooling
from objectives.strategies.base import Outline, Strategy
from objectives.strategies.net2net import Net2Net
from objectives.strategies.s3_pool import S3Pool
from objectives.strategies.stochastic_pooling import StochasticPooling
from objectives.work import step_work
from tests.objectives.strategies.cases import TASK, finish, using

POOLINGS: dict[type[Strategy], Downsampling] = {
    AveragePooling: Downsampling("average"),
    StochasticPooling: Downsampling("stochastic"),
    S3Pool: Downsampling("s3", strips=2),
}
each_pooling = pytest.mark.parametrize("pooling", POOLINGS)


@pytest.mark.parametrize(("one", "other"), list(permutations(POOLINGS, 2)))
def test_a_network_has_one_way_to_halve_its_images(one: type[Strategy], other: type[Strategy]) -> None:
    with pytest.raises(ValueError, match=f"cannot run with ({one.__name__}|{other.__name__}): choose one"):
        Pipeline(strategies=(one(), other()))


@each_pooling
@pytest.mark.parametrize("family", FAMILIES)
def test_it_leaves_the_network_but_for_what_halves_its_images(pooling: type[Strategy], family: str) -> None:
    plain = build(family, depth=2, width=0.5, in_channels=3, n_classes=10)
    assert pooling().architecture(plain) == replace(plain, downsampling=POOLINGS[pooling])
    assert pooling(side=1).architecture(plain) == plain  # type: ignore[call-arg]


@each_pooling
def test_work_is_forecast_as_it_is_before_a_transition_and_more_behind_a_convolution(pooling: type[Strategy]) -> None:
    plain, before, behind = (using(*s) for s in ((), (pooling(),), (pooling(behind=True),)))  # type: ignore[call-arg]
    assert step_work(before, TASK, 28) == step_work(plain, TASK, 28)
    full = full_architecture(plain, TASK, 3, 2, 28)
    assert isinstance(full, Architecture)
    first = full.layers(28)[3]  # behind the stem and two convolutions
    assert (first.kernel, first.stride) == (3, 2)
    assert step_work(behind, TASK, 28) == step_work(plain, TASK, 28) + 3 * plain.batch_size * 3 * first.flops
    assert first_architecture(behind, full) != full


@each_pooling
def test_a_network_that_grows_keeps_it_and_is_compared_with_a_full_one_that_has_it(
    pooling: type[Strategy], digits: Dataset
) -> None:
    grows = Net2Net(start_width=0.5, start_depth=0.5, at=0.3, until=0.3)
    reports, trained = finish(using(pooling(behind=True), grows, depth=2), digits)  # type: ignore[call-arg]
    architecture = trained.model.architecture
    assert isinstance(architecture, Architecture)
    assert architecture.downsampling == replace(POOLINGS[pooling], behind=True)
    assert len(architecture.stages[1].interiors) == 2
    assert reports[-1].inference_flops == reports[-1].full_flops


@each_pooling
def test_where_nothing_is_halved_it_says_that_it_does_nothing(pooling: type[Strategy]) -> None:
    one_stage = Outline(Architecture(3, 10, (Stage(8, (8,)),)), 28, 4)
    assert pooling().idle(one_stage) == "the network has one stage, which halves nothing"
    assert pooling().idle(replace(one_stage, full=build("thin", depth=1, width=1, in_channels=3, n_classes=9))) is None


@each_pooling
@pytest.mark.parametrize("side", [0, 3, 1.5])
def test_other_squares_are_refused_in_one_line(pooling: type[Strategy], side: int) -> None:
    with pytest.raises(ValueError, match=f"a pooling of squares of {side} pixels a side: choose 1 or 2"):
        pooling(side=side)  # type: ignore[call-arg]


def test_what_has_no_strips_cannot_be_sampled_and_words_say_how_many_there_are() -> None:
    with pytest.raises(ValueError, match="S3Pool samples 0 strips a side: it needs 1 or more"):
        S3Pool(strips=0)
    assert S3Pool(strips=1).describe() == "S3Pool of 1 strip a side"
    assert S3Pool(behind=True).describe() == "S3Pool of 2 strips a side behind a convolution"
    assert StochasticPooling(side=1).describe() == "stochastic pooling of single pixels"
