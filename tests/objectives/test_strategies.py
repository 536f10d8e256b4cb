"""The laws that every strategy obeys, over one list of all of them; then the laws of each."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import permutations

import pytest
import torch
from torch import Tensor

from objectives import flops
from objectives.data import Dataset, load
from objectives.executors import Eager, Segment
from objectives.formats import FORMATS, LossScaler
from objectives.pipeline import Pipeline, Report
from objectives.resnet import ResNet
from objectives.state import Trainee, TrainState
from objectives.strategies import STRATEGIES
from objectives.strategies.base import Strategy
from objectives.strategies.ema import SHADOW, Ema
from objectives.strategies.net2net import Net2Net
from objectives.strategies.progressive_resolution import ProgressiveResolution
from objectives.strategies.prune_train import PruneTrain
from objectives.task import DataSpec, Seeds, Task
from objectives.train import Trained, begun, bound, deployed, starting_state, train

CPU = torch.device("cpu")
TASK = Task(DataSpec("digits"), "small", stem_stride=2)
SEEDS = Seeds(1, 2, 3)
PLAIN = Pipeline(batch_size=50, epochs=4, lr=0.2, schedule="one_cycle", crop=False, flip=False, width=0.5)


@dataclass(frozen=True)
class Case:
    """A strategy as the laws need it."""

    active: Strategy  # acts within `PLAIN`
    neutral: Strategy  # must not act at all
    events: tuple[str, ...]  # patterns: what `active` reports at the boundaries of `PLAIN`, in order
    learns: bool  # has learned something once it is bound to its first segment


CASES = {
    "Net2Net": Case(
        Net2Net(start_width=0.5, start_depth=0.5, at=0.3, until=0.3),
        Net2Net(start_width=1.0, start_depth=1.0),
        events=(r"grown 8\[8\]-8\[8\] to 8\[8\]-16\[16\]",),
        learns=False,
    ),
    "PruneTrain": Case(
        PruneTrain(lpr=0.5, interval=2, threshold=0.1),
        PruneTrain(lpr=0.0),
        events=(r"lambda .* from LPR 0.5", r"pruned .* to .*"),
        learns=True,
    ),
    "Ema": Case(Ema(horizon=0.5), Ema(horizon=0.0), events=(), learns=True),
    "ProgressiveResolution": Case(
        ProgressiveResolution(start=0.5, until=0.5, steps=1),
        ProgressiveResolution(start=1.0, until=0.5, steps=1),
        events=("images 4 -> 8 pixels",),
        learns=True,
    ),
}

each_strategy = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def using(*strategies: Strategy, **settings: object) -> Pipeline:
    return replace(PLAIN, strategies=strategies, **settings)  # type: ignore[arg-type]


def finish(pipeline: Pipeline, dataset: Dataset) -> tuple[list[Report], Trained]:
    """All reports of a training, and its result."""
    reports, training = [], train(pipeline, TASK, dataset, SEEDS)
    while True:
        try:
            reports.append(next(training))
        except StopIteration as end:
            return reports, end.value


def same_weights(one: ResNet, other: ResNet) -> bool:
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def untimed(report: Report) -> Report:
    """A report without what differs from run to run."""
    return replace(
        report, train_seconds=0.0, process_seconds=0.0, boundary_seconds=0.0, eval_seconds=0.0, peak_memory=0
    )


def first_batch(dataset: Dataset) -> tuple[Tensor, Tensor]:
    return dataset.train.x[:50].float() / 128 - 1, dataset.train.y[:50]


def begin(pipeline: Pipeline, dataset: Dataset) -> TrainState:
    """The state in which the first step is taken."""
    return bound(begun(starting_state(pipeline, TASK, dataset, SEEDS), *first_batch(dataset)))


def contents(trainee: Trainee) -> dict[str, Tensor]:
    """A copy of everything that a step may change."""
    tensors = dict(trainee.model.state_dict())
    for (name, _), state in zip(trainee.model.named_parameters(), trainee.optimizer.state.values(), strict=False):
        tensors |= {f"optimizer.{key}.{name}": value for key, value in state.items()}
    for key, shadow in trainee.shadows.items():
        tensors |= {f"{key}.{name}": tensor for name, tensor in shadow.tensors.items()}
    return {name: tensor.clone() for name, tensor in tensors.items()}


# --- the laws of all strategies ---------------------------------------------------------------------------------------


def test_every_strategy_has_a_case_with_parameters_of_its_own() -> None:
    assert set(CASES) == set(STRATEGIES)
    for name, case in CASES.items():
        assert type(case.active) is type(case.neutral) is STRATEGIES[name]


@each_strategy
def test_it_trains(case: Case, digits: Dataset) -> None:
    reports, _ = finish(using(case.active), digits)
    assert reports[-1].epoch == reports[-1].epochs
    assert reports[-1].accuracy >= 0.6
    assert not any(report.diverged for report in reports)


@each_strategy
def test_it_is_reproducible_under_a_seed(case: Case, digits: Dataset) -> None:
    (reports, trained), (others, other) = (finish(using(case.active, crop=True), digits) for _ in range(2))
    assert list(map(untimed, reports)) == list(map(untimed, others))
    assert same_weights(trained.model, other.model)


@each_strategy
@pytest.mark.parametrize("number_format", ["fp32", "bf16"])
def test_at_neutral_parameters_it_leaves_the_run_untouched(case: Case, number_format: str, digits: Dataset) -> None:
    reports, trained = finish(using(case.neutral, number_format=number_format), digits)
    others, other = finish(using(number_format=number_format), digits)
    assert list(map(untimed, reports)) == list(map(untimed, others))
    assert same_weights(trained.model, other.model)


@each_strategy
def test_at_active_parameters_it_changes_the_run_and_reports_what_it_did(case: Case, digits: Dataset) -> None:
    reports, trained = finish(using(case.active), digits)
    events = [event for report in reports for event in report.events]
    assert len(events) == len(case.events)
    assert all(re.fullmatch(pattern, event) for pattern, event in zip(case.events, events, strict=True))
    assert reports[-1].events == ()  # nothing follows the last epoch
    assert not same_weights(trained.model, finish(PLAIN, digits)[1].model)


@each_strategy
def test_it_survives_json_without_what_it_learned(case: Case, digits: Dataset) -> None:
    pipeline = using(case.active)
    assert Pipeline.from_json(json.loads(json.dumps(pipeline.to_json()))) == pipeline
    (learned,) = begin(pipeline, digits).pipeline.strategies
    assert (learned is not case.active) == case.learns
    assert learned == case.active
    assert (hash(learned), repr(learned), learned.to_json()) == (
        hash(case.active),
        repr(case.active),
        case.active.to_json(),
    )
    assert repr(case.active) in repr(pipeline)


@each_strategy
def test_it_survives_the_process_boundary(case: Case, digits: Dataset) -> None:
    pipeline = Pipeline.from_json(json.loads(json.dumps(using(case.active).to_json())))
    reports, trained = finish(pipeline, digits)
    received = [Report.from_json(json.loads(json.dumps(report.to_json()))) for report in reports]
    assert received == reports
    expected, direct = finish(using(case.active), digits)
    assert list(map(untimed, received)) == list(map(untimed, expected))
    assert same_weights(trained.model, direct.model)
    assert trained.pipeline.to_json() == using(case.active).to_json()


@each_strategy
@pytest.mark.parametrize("n_taken_before", [0, 2])
def test_a_step_skipped_by_loss_scaling_changes_nothing(case: Case, n_taken_before: int, digits: Dataset) -> None:
    state = begin(using(case.active, number_format="fp16"), digits)
    executor = Eager(
        Segment(state.trainee, state.pipeline.strategies, FORMATS["fp16"], LossScaler("cpu", 2.0**12), 0.0)
    )
    x, y = first_batch(digits)
    for _ in range(n_taken_before):
        assert executor.step(x, y).taken == 1
    before = contents(state.trainee)
    assert executor.step(x * 1e6, y).taken == 0
    after = contents(state.trainee)
    assert after.keys() == before.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []


@each_strategy
def test_a_run_teaches_nothing_to_the_strategy_that_was_sampled(case: Case, digits: Dataset) -> None:
    before = vars(case.active).copy()
    finish(using(case.active), digits)
    assert vars(case.active) == before


@pytest.mark.parametrize("names", list(permutations(CASES, 2)), ids=" then ".join)
def test_any_two_strategies_train_together_or_refuse_each_other(names: tuple[str, str], digits: Dataset) -> None:
    one, other = (CASES[name].active for name in names)
    if isinstance(one, other.excludes) or isinstance(other, one.excludes):
        with pytest.raises(ValueError, match="cannot run with"):
            using(one, other)
        return
    reports, _ = finish(using(one, other), digits)
    assert reports[-1].accuracy >= 0.5


def test_a_strategy_learns_only_what_it_declares() -> None:
    learned = Ema(2.0).having_learned(rate=0.5)
    assert (learned.horizon, learned.rate) == (2.0, 0.5)
    assert (learned.having_learned().rate, Ema(2.0).rate) == (0.5, 0.0)
    with pytest.raises(TypeError, match="Ema learns no horizon"):
        Ema(2.0).having_learned(horizon=1.0)


# --- Ema --------------------------------------------------------------------------------------------------------------


def test_the_averages_are_those_computed_by_hand_and_are_deployed(digits: Dataset) -> None:
    state = replace(starting_state(using(Ema(horizon=0.3), momentum=0.0), TASK, digits, SEEDS), epoch=1)
    state.trainee.model.double()
    x, y = first_batch(digits)
    state = bound(begun(state, x.double(), y))
    model = state.trainee.model
    rate = 0.25  # 1 / (1 + 3 steps); ten steps are an epoch
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    executor = Eager(Segment(state.trainee, state.pipeline.strategies, FORMATS["fp32"], None, 0.0))
    for _ in range(5):
        executor.step(x.double(), y)
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                expected[name] = (1 - rate) * expected[name] + rate * tensor
    trained = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    averaged = deployed(state)
    for name, tensor in averaged.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-12, atol=1e-12)
        assert torch.equal(model.state_dict()[name], trained[name])
    assert {name for name, tensor in trained.items() if tensor.is_floating_point()} == set(
        state.trainee.shadows[SHADOW].tensors
    )
    assert not same_weights(averaged, model)
    assert averaged.architecture == model.architecture


@pytest.mark.parametrize("horizon", [0.25, 1.0, 100.0])
def test_averages_reach_back_by_the_horizon_but_no_further_than_a_quarter_of_the_epochs_done(
    horizon: float, digits: Dataset
) -> None:
    start = starting_state(using(Ema(horizon), epochs=40), TASK, digits, SEEDS)
    for epoch in range(40):
        (ema,) = bound(replace(start, epoch=epoch)).pipeline.strategies
        assert isinstance(ema, Ema)
        steps = 10 * min(horizon, (epoch + 1) / 4)  # back to which a weight counts
        assert ema.rate == pytest.approx(1 / (1 + steps))


@pytest.mark.parametrize("batch_size", [25, 50, 100])
def test_a_horizon_means_the_same_number_of_epochs_at_every_batch_size(batch_size: int, digits: Dataset) -> None:
    state = replace(starting_state(using(Ema(1.0), batch_size=batch_size), TASK, digits, SEEDS), epoch=3)
    (ema,) = bound(state).pipeline.strategies
    assert isinstance(ema, Ema)
    assert 1 / ema.rate - 1 == pytest.approx(len(digits.train.y) / batch_size)


def test_averaging_does_not_change_what_is_trained(digits: Dataset) -> None:
    averaged, plain = finish(using(CASES["Ema"].active), digits)[0], finish(PLAIN, digits)[0]
    assert [report.loss for report in averaged] == [report.loss for report in plain]
    assert [report.accuracy for report in averaged] != [report.accuracy for report in plain]


@pytest.mark.parametrize("horizon", [-0.1, float("nan")])
def test_a_negative_horizon_is_refused(horizon: float) -> None:
    with pytest.raises(ValueError, match=f"horizon of an EMA is {horizon!r} epochs: it must not be negative"):
        Ema(horizon)


# --- ProgressiveResolution --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def resized() -> Callable[[int], Dataset]:
    """Digits at a given size."""
    known: dict[int, Dataset] = {}

    def at(size: int) -> Dataset:
        if size not in known:
            known[size] = load(DataSpec("digits", n_train=100, size=size), CPU)
        return known[size]

    return at


@pytest.mark.parametrize(
    ("strategy", "full", "expected"),
    [
        (ProgressiveResolution(0.5, 0.6, 2), 32, [16, 16, 16, 24, 24, 24, 32, 32, 32, 32]),
        (ProgressiveResolution(0.5, 0.6, 1), 32, [16] * 6 + [32] * 4),
        (ProgressiveResolution(0.5, 0.9, 3), 32, [16, 16, 16, 20, 20, 20, 28, 28, 28, 32]),  # 16, 21.3, 26.7
        (ProgressiveResolution(0.4, 0.5, 1), 28, [12] * 5 + [28] * 5),  # 11.2
        (ProgressiveResolution(0.1, 0.2, 1), 8, [4, 4] + [8] * 8),  # never below four pixels
        (ProgressiveResolution(0.9, 0.8, 4), 8, [8] * 10),  # nothing between a share of 0.9 and the whole
        (ProgressiveResolution(1.0, 0.8, 2), 32, [32] * 10),
        (ProgressiveResolution(0.5, 0.0, 2), 32, [32] * 10),
    ],
    ids=repr,
)
def test_sizes_grow_in_steps_of_four_pixels_until_they_are_full(
    strategy: ProgressiveResolution, full: int, expected: list[int], resized: Callable[[int], Dataset]
) -> None:
    state = starting_state(using(strategy, epochs=10), TASK, resized(full), SEEDS)
    sizes, events = [], []
    for epoch in range(10):
        now = replace(state, epoch=epoch)
        (ready,) = bound(now).pipeline.strategies
        x, _ = ready.batch(resized(full).train.x[:2].float(), resized(full).train.y[:2])
        sizes.append(x.shape[-1])
        assert x.shape == (2, 1, sizes[-1], sizes[-1])
        if epoch:
            events += [(epoch, event) for event in strategy.between_epochs(now).events]
    assert sizes == expected
    changes = [epoch for epoch in range(1, 10) if expected[epoch] != expected[epoch - 1]]
    assert events == [(epoch, f"images {expected[epoch - 1]} -> {expected[epoch]} pixels") for epoch in changes]


def test_small_images_are_those_of_the_whole_not_a_part(resized: Callable[[int], Dataset]) -> None:
    dataset = resized(32)
    (ready,) = bound(starting_state(using(ProgressiveResolution()), TASK, dataset, SEEDS)).pipeline.strategies
    x = dataset.train.x[:20].float()
    shrunk, _ = ready.batch(x, dataset.train.y[:20])
    averaged = torch.nn.functional.avg_pool2d(x, 2)
    assert torch.corrcoef(torch.stack([shrunk.flatten(), averaged.flatten()]))[0, 1] > 0.98
    assert ready.batch(x, dataset.train.y[:20])[1] is not None


def test_flops_fall_with_the_size_and_evaluation_sees_full_images(resized: Callable[[int], Dataset]) -> None:
    dataset = resized(16)
    pipeline = using(ProgressiveResolution(start=0.5, until=0.5, steps=1))
    reports, trained = finish(pipeline, dataset)
    (_, small), (forward, full) = (flops.count(trained.model.architecture, size) for size in (8, 16))
    assert [report.train_flops for report in reports] == [
        100 * work for work in (small, 2 * small, 2 * small + full, 2 * small + 2 * full)
    ]
    assert {report.inference_flops for report in reports} == {forward}
    assert [bool(report.events) for report in reports] == [False, True, False, False]
    assert [report.settled for report in reports] == [False, False, True, True]


@pytest.mark.parametrize(
    "parameters", [{"start": 0.0}, {"start": 1.1}, {"until": -0.1}, {"until": 1.0}, {"steps": 0}, {"steps": 17}]
)
def test_parameters_out_of_range_are_refused_with_the_ranges(parameters: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"start must lie in \(0, 1\], until in \[0, 1\), steps in 1 to 16"):
        ProgressiveResolution(**parameters)  # type: ignore[arg-type]
