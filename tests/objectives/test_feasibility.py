"""Laws of what can be trained: what is refused cannot be, and what is not refused can."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from itertools import product

import pytest
import torch

from objectives.data.dataset import Dataset, Images
from objectives.feasibility import ENOUGH_FOR_NORMS, obstacle, reshapes
from objectives.networks.architecture import FAMILIES
from objectives.pipeline import Pipeline
from objectives.strategies import STRATEGIES as ALL
from objectives.strategies.base import Strategy
from objectives.strategies.haar_stem import HaarStem
from objectives.strategies.progressive_resolution import ProgressiveResolution
from objectives.strategies.whitening import Whitening
from objectives.task import DataSpec, Seeds, Task
from objectives.train import begun, bound, starting_state, train

STRATEGIES: list[tuple[Strategy, ...]] = [
    (),
    (HaarStem(),),
    (Whitening(),),
    (HaarStem(), Whitening()),
    (ProgressiveResolution(start=0.5, until=0.5, steps=2),),
    (HaarStem(), ProgressiveResolution(start=0.4, until=0.5, steps=1)),
]


def images_of(digits: Dataset, size: int, n: int) -> Dataset:
    """The first digits, at another size."""
    x = torch.nn.functional.interpolate(digits.train.x[:n].float(), size=size).to(torch.uint8)
    few = Images(x.contiguous(memory_format=torch.channels_last), digits.train.y[:n])
    return replace(digits, train=few, val=few)


def trains(pipeline: Pipeline, task: Task, dataset: Dataset) -> bool:
    """Whether calibration and a forward pass succeed, asked of the network itself."""
    state = starting_state(pipeline, task, dataset, Seeds(1, 2, 3))
    x, y = dataset.train.x[: pipeline.batch_size], dataset.train.y[: pipeline.batch_size]
    try:
        state = bound(begun(state, state.normalise(x), y))
        small, _ = reduce(lambda batch, strategy: strategy.batch(*batch), state.pipeline.strategies, (x.float(), y))
        state.trainee.model.train()(small)
    except (RuntimeError, ValueError):
        return False
    return True


@pytest.mark.parametrize("family", ["small", "thin", "fast", "imagenet18"])
@pytest.mark.parametrize("stem_stride", [1, 2])
def test_what_is_refused_cannot_train_and_all_else_can(family: str, stem_stride: int, digits: Dataset) -> None:
    task = Task(DataSpec("digits"), family, stem_stride)
    verdicts = set()
    batches = [{"batch_size": n} for n in (1, 2)] + [{"batch_size": 3, "ghost_batch": n} for n in (1, 2)]
    for size, settings, strategies in product((4, 5, 8), batches, STRATEGIES):
        pipeline = Pipeline(**settings, width=0.25, strategies=strategies, crop=False)  # type: ignore[arg-type]
        refused = obstacle(pipeline, task, size, n_train=4)
        verdicts.add(refused is None)
        assert trains(pipeline, task, images_of(digits, size, 4)) == (refused is None), (pipeline, size, refused)
    assert verdicts == {True, False}


def test_a_batch_is_never_larger_than_the_training_set() -> None:
    task = Task(DataSpec("digits"), "thin", 2)
    assert obstacle(Pipeline(batch_size=128), task, size=4, n_train=1) is not None
    assert obstacle(Pipeline(batch_size=128), task, size=4, n_train=2) is None


def test_a_training_that_cannot_be_is_refused_in_one_line_before_its_first_step(digits: Dataset) -> None:
    with pytest.raises(ValueError, match="batches of one image of 4 pixels hold a single value per channel") as caught:
        next(train(Pipeline(batch_size=1), Task(DataSpec("digits"), "thin"), images_of(digits, 4, 9), Seeds(1, 2, 3)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(ALL))
def test_what_reshapes_nothing_is_no_obstacle_and_removes_none(name: str) -> None:
    strategy = ALL[name]()
    if reshapes(ALL[name]):
        return
    number_format = next((f for f in strategy.number_formats if f in ("fp32", "bf16")), "fp32")
    seen = set()
    for family, size, batch in product(("small", "thin", "fast", "lenet300", "lenet5"), (1, 2, 4, 8, 28), (1, 2, 64)):
        task = Task(DataSpec("digits"), family)
        plain = Pipeline(number_format=number_format, batch_size=batch, strategies=())  # type: ignore[arg-type]
        before = obstacle(plain, task, size, 100)
        assert obstacle(replace(plain, strategies=(strategy,)), task, size, 100) == before
        seen.add(before is None)
    assert seen == {True, False}


@pytest.mark.parametrize("name", sorted(set(ALL) - {"Transfer"}))
def test_with_two_images_in_a_batch_no_strategy_is_an_obstacle_to_a_residual_network(name: str) -> None:
    # so spaces ask `obstacle` about strategies in smaller batches, and about starts, only
    one = ALL[name]()
    others = [kind() for other, kind in ALL.items() if other != "Transfer"]
    pairs = [(one, other) for other in others if not one.refuses(other) and not other.refuses(one)]
    for strategies, family, size in product([(one,), *pairs], FAMILIES, (1, 2, 3, 8, 28)):
        formats = set.intersection(*({*(s.number_formats or ("fp32", "bf16"))} for s in strategies))
        for number_format in sorted(formats & {"fp32", "bf16"})[:1]:
            run = Pipeline(number_format=number_format, batch_size=ENOUGH_FOR_NORMS, strategies=strategies)  # type: ignore[arg-type]
            assert obstacle(run, Task(DataSpec("digits"), family), size, 100) is None
