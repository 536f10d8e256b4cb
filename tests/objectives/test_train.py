"""Laws of the training loop: reports, seeds, the clock, every setting, and the network that is left."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from typing import Any, Literal

import pytest
import torch
from sklearn.metrics import accuracy_score, recall_score
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from objectives.data.augment import Augmentation, Batches, Normalisation
from objectives.data.dataset import Dataset, Images, load
from objectives.device.clock import CHARGED, Activity, Clock
from objectives.device.formats import FORMATS
from objectives.evaluation import evaluate
from objectives.feasibility import full_architecture
from objectives.networks import flops
from objectives.networks.architecture import build, described
from objectives.networks.resnet import ResNet
from objectives.networks.trainee import Trainee
from objectives.pipeline import Pipeline, Report
from objectives.state import Schedule, Step, TrainState
from objectives.strategies.base import Strategy
from objectives.strategies.data_fraction import DataFraction
from objectives.strategies.ema import Ema
from objectives.strategies.net2net import Net2Net
from objectives.strategies.progressive_resolution import ProgressiveResolution
from objectives.task import DataSpec, Seeds, Task
from objectives.train import (
    WARM_UP_STEPS,
    Trained,
    augmentation,
    starting_state,
    train,
    warm_up,
)

CPU = torch.device("cpu")
TASK = Task(DataSpec("digits"), "small", stem_stride=2)
SEEDS = Seeds(1, 2, 3)
# Two epochs of ten steps: about 30 ms
QUICK = Pipeline(batch_size=50, epochs=2, schedule="one_cycle", weight_decay=5e-3, crop=False, flip=False, width=0.5)


def finish(
    pipeline: Pipeline, dataset: Dataset, seeds: Seeds = SEEDS, task: Task = TASK
) -> tuple[list[Report], Trained]:
    """All reports of a training, and its result."""
    reports, training = [], train(pipeline, task, dataset, seeds)
    while True:
        try:
            reports.append(next(training))
        except StopIteration as end:
            return reports, end.value


def accuracies(reports: list[Report]) -> list[tuple[float, float]]:
    return [(report.accuracy, report.loss) for report in reports]


def same_weights(one: ResNet, other: ResNet) -> bool:
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


# --- reports ----------------------------------------------------------------------------------------------------------


def test_training_yields_a_report_per_epoch_with_rising_seconds_the_last_of_which_is_final(digits: Dataset) -> None:
    reports, trained = finish(replace(QUICK, epochs=4), digits)
    assert [(report.epoch, report.epochs) for report in reports] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert trained.report is reports[-1]
    for one, next_one in pairwise(reports):
        assert 0 < one.train_seconds < next_one.train_seconds
        assert 0 < one.eval_seconds < next_one.eval_seconds
        assert 0 < one.wall_seconds < next_one.wall_seconds
    for report in reports:
        assert not report.diverged
        assert report.settled
        assert report.events == ()
        assert report.peak_memory > 0


@pytest.mark.parametrize("number_format", ["fp32", "bf16"])
def test_the_network_returned_has_the_last_accuracy(digits: Dataset, number_format: str) -> None:
    pipeline = replace(QUICK, number_format=number_format)
    reports, trained = finish(pipeline, digits)
    assert trained.pipeline == pipeline
    assert not trained.model.training
    found = evaluate(trained.model, digits.val, Normalisation(digits, CPU), FORMATS[number_format], batch_size=50)
    assert (found.accuracy, found.balanced_accuracy) == (reports[-1].accuracy, reports[-1].balanced_accuracy)


def test_training_learns_digits() -> None:
    everything = load(DataSpec("digits"), CPU)
    reports, _ = finish(Pipeline(batch_size=50, epochs=5, schedule="one_cycle", crop=False), everything)
    assert reports[-1].accuracy >= 0.9
    assert reports[-1].loss < 0.1 < reports[0].loss


@pytest.mark.parametrize("batch_size", [50, 64])
def test_training_flops_are_images_seen_times_the_work_per_image(digits: Dataset, batch_size: int) -> None:
    reports, trained = finish(replace(QUICK, epochs=3, batch_size=batch_size), digits)
    forward, step = flops.count(trained.model.architecture, 8)
    n_images = len(digits.train.y) // batch_size * batch_size
    assert [report.train_flops for report in reports] == [epoch * n_images * step for epoch in (1, 2, 3)]
    assert {report.inference_flops for report in reports} == {forward}
    assert {report.n_parameters for report in reports} == {sum(p.numel() for p in trained.model.parameters())}


def test_a_report_names_the_network_whose_accuracy_it_has(digits: Dataset) -> None:
    growing = Net2Net(start_width=0.5, start_depth=0.5, at=0.5, until=0.5)
    reports, trained = finish(replace(QUICK, epochs=4, depth=2, width=1.0, strategies=(growing, Ema(0.5))), digits)
    names = [report.architecture for report in reports]
    assert names == ["8[8]-16[16]"] * 2 + ["16[16 16]-32[32 32]"] * 2
    assert [report.events for report in reports] == [(), (f"grown {names[0]} to {names[-1]}",), (), ()]
    for report in reports:
        network = replace(trained.model.architecture, stages=described(report.architecture))
        assert report.inference_flops == flops.count(network, 8)[0]
        assert report.n_parameters == sum(p.numel() for p in ResNet(network).parameters())


def test_a_training_that_diverges_says_so_and_goes_on(digits: Dataset) -> None:
    absurd = replace(QUICK, lr=100.0, momentum=0.99, weight_decay=1.0, schedule="step", epochs=3)
    reports, _ = finish(absurd, digits)
    assert [report.epoch for report in reports] == [1, 2, 3]
    assert reports[-1].diverged
    assert not math.isfinite(reports[-1].loss)
    assert reports[-1].accuracy < 0.3


def test_reports_are_settled_once_images_have_their_full_size(digits: Dataset) -> None:
    smaller = ProgressiveResolution(start=0.5, until=0.5, steps=1)
    reports, _ = finish(replace(QUICK, epochs=4, strategies=(smaller,)), digits)
    assert [report.settled for report in reports] == [False, False, True, True]


@dataclass(frozen=True)
class Overflow(Strategy):
    """Makes the images of the first `n` batches too large for fp16."""

    n: int
    seen: list[Tensor] = field(default_factory=list, compare=False)

    def batch(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        self.seen.append(y)
        return (x * 1e6 if len(self.seen) <= self.n else x), y


def test_a_training_whose_every_step_is_skipped_leaves_the_initial_network_and_no_verdict(digits: Dataset) -> None:
    pipeline = replace(QUICK, number_format="fp16", strategies=(Overflow(1000),))
    reports, trained = finish(pipeline, digits)
    assert [report.skipped_steps for report in reports] == [10, 20]
    assert all(math.isnan(report.loss) and not report.diverged for report in reports)
    assert same_weights(trained.model, starting_state(pipeline, TASK, digits, SEEDS).trainee.model)


def test_skipped_steps_are_counted_and_left_out_of_the_loss(digits: Dataset) -> None:
    pipeline = replace(QUICK, number_format="fp16", strategies=(Overflow(WARM_UP_STEPS + 4),))
    reports, _ = finish(pipeline, digits)
    assert [report.skipped_steps for report in reports] == [4, 4]
    assert 0.5 < reports[0].loss < 5  # a mean over six steps
    assert not reports[0].diverged


def test_closing_a_training_early_stops_it(digits: Dataset) -> None:
    training = train(replace(QUICK, epochs=100_000), TASK, digits, SEEDS)
    assert next(training).epoch == 1
    training.close()
    assert list(training) == []


# --- seeds ------------------------------------------------------------------------------------------------------------


def test_the_same_seeds_give_the_same_weights_bit_for_bit(digits: Dataset) -> None:
    (reports, trained), (others, other) = (finish(replace(QUICK, crop=True), digits) for _ in range(2))
    assert accuracies(reports) == accuracies(others)
    assert same_weights(trained.model, other.model)


@pytest.mark.parametrize("role", [f.name for f in fields(Seeds)])
def test_another_seed_in_any_role_gives_other_weights(digits: Dataset, role: str) -> None:
    pipeline = replace(QUICK, epochs=1, crop=True)
    _, trained = finish(pipeline, digits)
    _, other = finish(pipeline, digits, replace(SEEDS, **{role: 99}))
    assert not same_weights(trained.model, other.model)


def test_initial_weights_follow_their_seed_alone(digits: Dataset) -> None:
    def initial(pipeline: Pipeline, seeds: Seeds) -> ResNet:
        return starting_state(pipeline, TASK, digits, seeds).trainee.model

    first = initial(QUICK, SEEDS)
    torch.rand(3)
    assert same_weights(first, initial(replace(QUICK, batch_size=7, lr=1.0), Seeds(1, 8, 9)))
    assert not same_weights(first, initial(QUICK, Seeds(2, 2, 3)))


def test_interleaved_trainings_are_those_run_alone(digits: Dataset) -> None:
    pipelines = [replace(QUICK, strategies=(Ema(0.5),)), replace(QUICK, number_format="bf16", batch_size=100)]
    alone = [accuracies(finish(pipeline, digits)[0]) for pipeline in pipelines]
    trainings = [train(pipeline, TASK, digits, SEEDS) for pipeline in pipelines]
    together = list(zip(*trainings, strict=True))
    assert [accuracies(list(reports)) for reports in zip(*together, strict=True)] == alone


# --- the clock --------------------------------------------------------------------------------------------------------

WORK_SECONDS = 0.2  # of the processor: twenty-five times what two epochs of `hundred` take


def work(seconds: float = WORK_SECONDS) -> None:
    """Keeps the processor busy for so much of its time."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


@pytest.fixture
def hundred(digits: Dataset) -> Dataset:
    """100 training and 100 validation images."""
    train_images, val_images = (Images(images.x[:100], images.y[:100]) for images in (digits.train, digits.val))
    return replace(digits, train=train_images, val=val_images)


def test_what_the_consumer_does_between_two_reports_is_not_on_the_clock(hundred: Dataset) -> None:
    for report in train(QUICK, TASK, hundred, SEEDS):
        work()
        last = report
    assert last.train_seconds + last.eval_seconds < WORK_SECONDS


Hook = Literal["begin", "between_epochs", "bound", "batch", "after_step", "deployed"]


@dataclass(frozen=True)
class Works(Strategy):
    """Takes its time in one hook, once: in the `nth` call."""

    hook: Hook
    nth: int = 1
    waits: float = 0.0  # seconds, rather than to work
    calls: dict[str, int] = field(default_factory=lambda: defaultdict(int), compare=False)

    def _called(self, hook: Hook) -> None:
        self.calls[hook] += 1
        if hook == self.hook and self.calls[hook] == self.nth:
            time.sleep(self.waits)
            work(0.0 if self.waits else WORK_SECONDS)

    def begin(self, state: TrainState, x: Tensor, y: Tensor) -> TrainState:
        self._called("begin")
        return state

    def between_epochs(self, state: TrainState) -> TrainState:
        self._called("between_epochs")
        return state

    def bound(self, state: TrainState) -> Strategy:
        self._called("bound")
        return self

    def batch(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        self._called("batch")
        return x, y

    def after_step(self, trainee: Trainee, step: Step) -> None:
        self._called("after_step")

    def deployed(self, model: ResNet, state: TrainState) -> ResNet:
        self._called("deployed")
        return model


@pytest.mark.parametrize(
    ("works", "charged", "evaluation"),
    [
        pytest.param(Works("begin", 1), False, False, id="calibration while warming up"),
        pytest.param(Works("bound", 1), False, False, id="binding while warming up"),
        pytest.param(Works("batch", WARM_UP_STEPS), False, False, id="the last warm-up step"),
        pytest.param(Works("begin", 2), True, False, id="calibration"),
        pytest.param(Works("bound", 2), True, False, id="binding"),
        pytest.param(Works("batch", WARM_UP_STEPS + 1), True, False, id="the first step"),
        pytest.param(Works("after_step", WARM_UP_STEPS + 1), True, False, id="averaging"),
        pytest.param(Works("between_epochs"), True, False, id="a boundary"),
        pytest.param(Works("deployed"), False, True, id="evaluation"),
    ],
)
def test_the_clock_charges_training_and_neither_warm_up_nor_evaluation(
    hundred: Dataset, works: Works, charged: bool, evaluation: bool
) -> None:
    reports, _ = finish(replace(QUICK, strategies=(works,)), hundred)
    assert works.calls[works.hook] >= works.nth
    assert (reports[-1].train_seconds >= WORK_SECONDS) == charged
    assert reports[-1].wall_seconds >= WORK_SECONDS or not charged
    assert (reports[-1].eval_seconds >= WORK_SECONDS) == evaluation


def test_on_a_cpu_waiting_is_not_charged_but_is_on_the_wall(hundred: Dataset) -> None:
    reports, _ = finish(replace(QUICK, strategies=(Works("after_step", WARM_UP_STEPS + 1, waits=0.1),)), hundred)
    assert 0 < reports[-1].train_seconds <= reports[-1].wall_seconds - 0.099


class Tables(TorchDispatchMode):
    """Notes what is on the clock whenever images are padded into a table, and how many of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.made: list[tuple[str | None, int]] = []
        self.now: str | None = None
        outer = self

        class Noted(Clock):
            @contextmanager
            def span(self, activity: Activity) -> Iterator[None]:
                outer.now = activity
                with super().span(activity):
                    yield
                outer.now = None

        monkeypatch.setattr("objectives.train.Clock", Noted)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.constant_pad_nd.default and args[0].dtype == torch.uint8 and args[0].ndim == 4:
            self.made.append((self.now, len(args[0])))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("strategies", "made"),
    [
        ((), [500]),
        ((DataFraction(start=0.5, until=1.0),), [250]),
        ((DataFraction(start=0.5, until=0.5),), [250, 500]),
        ((DataFraction(start=1.0),), [500]),
    ],
    ids=repr,
)
def test_a_run_is_charged_for_each_table_of_images_that_it_trains_on_and_for_no_other(
    strategies: tuple[Strategy, ...], made: list[int], digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = replace(QUICK, epochs=4, crop=True, strategies=strategies)
    with Tables(monkeypatch) as tables:
        finish(pipeline, digits)
    assert [n for _, n in tables.made] == [50, *made]  # 50: the batch that is calibrated on
    assert all(activity in CHARGED for activity, _ in tables.made)


@pytest.mark.parametrize("number_format", ["fp32", "fp16"])
def test_warm_up_changes_neither_weights_nor_optimizer_nor_random_state(digits: Dataset, number_format: str) -> None:
    pipeline = replace(QUICK, number_format=number_format, strategies=(Ema(),))
    state = starting_state(pipeline, TASK, digits, SEEDS)
    fresh = starting_state(pipeline, TASK, digits, SEEDS).trainee
    batches = Batches(digits.train, 50, Augmentation(), Normalisation(digits, CPU), (2, 3))
    random_state = torch.get_rng_state()
    warm_up(state, batches, FORMATS[number_format])
    assert torch.equal(torch.get_rng_state(), random_state)
    assert same_weights(state.trainee.model, fresh.model)
    assert str(state.trainee.optimizer.state_dict()) == str(fresh.optimizer.state_dict())
    assert state.trainee.shadows == {}
    assert all(parameter.grad is None for parameter in state.trainee.model.parameters())


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "setting",
    [
        {"number_format": "bf16"},
        {"number_format": "fp16"},
        {"batch_size": 25},
        {"lr": 0.05},
        {"lr_rule": "sqrt"},
        {"lr_rule": "linear"},
        {"ghost_batch": 16},
        {"momentum": 0.5},
        {"momentum": 0.0},
        {"weight_decay": 0.0},
        {"epochs": 3},
        {"schedule": "cosine"},
        {"schedule": "step"},
        {"label_smoothing": 0.2},
        {"crop": True},
        {"cutout": 0.5},
        {"depth": 2},
        {"width": 1.0},
    ],
    ids=str,
)
def test_every_setting_runs_and_changes_the_weights(digits: Dataset, setting: dict[str, object]) -> None:
    changed = replace(QUICK, **setting)  # type: ignore[arg-type]
    reports, trained = finish(changed, digits)
    assert [report.epoch for report in reports] == list(range(1, changed.epochs + 1))
    assert all(math.isfinite(report.loss) for report in reports)
    assert not same_weights(trained.model, finish(QUICK, digits)[1].model)


@pytest.mark.parametrize("flip_keeps_label", [True, False])
def test_images_are_flipped_only_where_that_keeps_the_label(digits: Dataset, flip_keeps_label: bool) -> None:
    dataset = replace(digits, flip=flip_keeps_label)
    plain, flipped = (finish(replace(QUICK, epochs=1, flip=flip), dataset)[1].model for flip in (False, True))
    assert same_weights(plain, flipped) == (not flip_keeps_label)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"crop": False, "flip": False}, Augmentation()),
        ({"crop": True, "flip": True}, Augmentation(padding=4, flip=True)),
        ({"crop": False, "flip": False, "cutout": 0.5}, Augmentation(cutout=16)),
    ],
)
def test_augmentation_is_stated_in_shares_of_the_image(settings: dict[str, object], expected: Augmentation) -> None:
    large = load(DataSpec("digits", n_train=10, size=32, flip=True), CPU)
    assert augmentation(Pipeline(**settings), large) == expected  # type: ignore[arg-type]


def test_a_batch_larger_than_the_training_set_is_all_of_it(digits: Dataset) -> None:
    reports, trained = finish(replace(QUICK, batch_size=4096), digits)
    n_images = len(digits.train.y)
    assert reports[-1].train_flops == 2 * n_images * flops.count(trained.model.architecture, 8)[1]
    _, whole = finish(replace(QUICK, batch_size=n_images), digits)
    assert same_weights(trained.model, whole.model)


def test_the_task_and_the_settings_decide_the_architecture() -> None:
    found = full_architecture(replace(QUICK, depth=3, width=2.0), Task(DataSpec("x"), "thin", 2), 3, 7, 32)
    assert found == build("thin", depth=3, width=2.0, in_channels=3, n_classes=7, stem_stride=2)


# --- schedules --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "fraction", "share"),
    [
        ("step", 0.0, 1.0),
        ("step", 0.509, 1.0),
        ("step", 0.511, 0.1),
        ("step", 0.819, 0.1),
        ("step", 0.821, 0.01),
        ("step", 0.999, 0.01),
        ("cosine", 0.0, 1.0),
        ("cosine", 1 / 3, 0.75),
        ("cosine", 0.5, 0.5),
        ("cosine", 2 / 3, 0.25),
        ("one_cycle", 0.0, 0.1),
        ("one_cycle", 0.125, 0.55),
        ("one_cycle", 0.25, 1.0),
        ("one_cycle", 0.625, 0.5),
        ("one_cycle", 0.97, 0.04),
    ],
)
@pytest.mark.parametrize("epochs", [1, 200])
def test_schedules_at_known_fractions(
    name: Literal["one_cycle", "cosine", "step"], fraction: float, share: float, epochs: int
) -> None:
    assert Schedule(name, epochs)(fraction * epochs) == pytest.approx(share)
    assert Schedule(name, 7 + epochs, begins=7)(7 + fraction * epochs) == pytest.approx(share)  # once more, from there


@dataclass(frozen=True)
class Record(Strategy):
    """Remembers the learning rate of every step."""

    seen: list[float] = field(default_factory=list, compare=False)

    def after_step(self, trainee: Trainee, step: Step) -> None:
        self.seen.extend(group["lr"] for group in trainee.optimizer.param_groups)


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "step"])
def test_every_step_has_the_learning_rate_of_its_middle(
    digits: Dataset, schedule: Literal["one_cycle", "cosine", "step"]
) -> None:
    record = Record()
    pipeline = replace(QUICK, epochs=3, schedule=schedule, lr=0.3, lr_rule="linear", strategies=(record,))
    finish(pipeline, digits)
    middles = [(step + 0.5) / 10 for step in range(30)]
    expected = [0.3 * 50 / 256 * Schedule(schedule, 3)(middle) for middle in middles]
    assert record.seen[WARM_UP_STEPS:] == pytest.approx(expected)
    assert max(record.seen) <= 0.3 * 50 / 256


# --- evaluation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("absent", [[], [4], [9]])
def test_accuracy_and_balanced_accuracy_are_those_of_scikit_learn(digits: Dataset, absent: list[int]) -> None:
    _, trained = finish(QUICK, digits)
    x, y = digits.val.x.repeat(7, 1, 1, 1), digits.val.y.repeat(7)  # more than one batch
    keep = (torch.arange(len(y)) % 7 < y + 1) & ~torch.isin(y, torch.tensor(absent, dtype=torch.int64))
    images = Images(x[keep].contiguous(memory_format=torch.channels_last), y[keep])
    present = torch.unique(images.y)
    assert len(present) == 10 - len(absent)
    assert len(images.y) > 1000
    normalise = Normalisation(digits, CPU)
    predicted = trained.model(normalise(images.x)).argmax(1)
    evaluation = evaluate(trained.model, images, normalise, FORMATS["fp32"], batch_size=50)
    found = (evaluation.accuracy, evaluation.balanced_accuracy)
    recall = recall_score(images.y, predicted, labels=present, average="macro")
    assert found == pytest.approx((accuracy_score(images.y, predicted), recall))
    assert found[0] != pytest.approx(found[1], abs=1e-4)  # otherwise the images are not unbalanced
