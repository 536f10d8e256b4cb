"""Laws of features: a run that keeps what its fixed parts make of images is the run that computes it anew each time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from objectives.data.augment import Augmentation, Batches
from objectives.data.dataset import Dataset
from objectives.device import features
from objectives.device.features import Features, fed
from objectives.networks import flops
from objectives.networks.surgery import reindex
from objectives.pipeline import Pipeline, Report
from objectives.state import TrainState
from objectives.strategies.balanced_sampling import BalancedSampling
from objectives.strategies.base import Strategy
from objectives.strategies.batch_growth import BatchGrowth
from objectives.strategies.data_fraction import DataFraction
from objectives.strategies.ema import Ema
from objectives.strategies.freeze import Freeze
from objectives.strategies.frozen_stages import FrozenStages
from objectives.strategies.inconsistent_sgd import InconsistentSGD
from objectives.strategies.net2net import Net2Net
from objectives.strategies.progressive_resolution import ProgressiveResolution
from objectives.strategies.prune_train import PruneTrain
from objectives.strategies.switch_format import SwitchFormat
from objectives.task import Task
from objectives.train import Trained
from tests.objectives.strategies.cases import LARGE, PLAIN_GROUNDS, TASK, finish, using
from tests.objectives.strategies.starting import put_out, started

FROZEN = FrozenStages(parts=2, statistics="adapted")
GROUNDS = {**PLAIN_GROUNDS, "imagenet18": LARGE}
ANEW = "features of frozen parts are computed anew in every epoch: "


@dataclass(frozen=True)
class LookAt(Strategy):
    """Does nothing but look at images."""

    @property
    def reads_images(self) -> bool:
        return True


def run(pipeline: Pipeline, digits: Dataset, task: Task = TASK) -> tuple[list[Report], Trained]:
    return finish(pipeline, replace(digits, flip=True), task)


def assert_alike(one: tuple[list[Report], Trained], other: tuple[list[Report], Trained], rtol: float = 1e-6) -> None:
    (reports, trained), (others, expected) = one, other
    assert [report.accuracy for report in reports] == [report.accuracy for report in others]
    for report, like in zip(reports, others, strict=True):
        assert report.loss == pytest.approx(like.loss, rel=rtol)
        assert report.train_flops <= like.train_flops
    torch.testing.assert_close(trained.model.state_dict(), expected.model.state_dict(), rtol=100 * rtol, atol=rtol)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Fills with the places of the features that a run trains on."""
    found: list[Tensor] = []
    before = Features.at

    def at(self: Features, places: Tensor) -> Tensor:
        found.append(places)
        return before(self, places)

    monkeypatch.setattr(Features, "at", at)
    return found


SIDES = {
    "as they are": {},
    "flipped": {"flip": True},
    "flipped in turn": {"flip": True, "alternating_flip": True},
}
BESIDE: dict[str, tuple[Strategy, ...]] = {
    "alone": (FROZEN,),
    "the head alone": (FrozenStages(parts=9),),
    "thawing": (FrozenStages(parts=3, until=0.75),),
    "pruned": (PruneTrain(lpr=0.6, interval=1, threshold=0.2), FROZEN),
    "stem pruned": (PruneTrain(lpr=0.6, interval=1, threshold=0.2), FrozenStages(parts=1)),
    "grown": (Net2Net(start_width=0.5, at=0.3, until=0.3), FROZEN),
    "of fewer images": (FROZEN, DataFraction(start=0.5, until=0.5, steps=2)),
    "of images drawn anew": (FROZEN, BalancedSampling()),
    "in larger batches": (FROZEN, BatchGrowth(at=0.5, until=0.5, steps=1)),
    "averaged": (FROZEN, Ema(horizon=0.5)),
}


WORDS = {"thawing": "stage 1 trains", "pruned": "pruned 8[8]-16[16] to", "grown": "grown 8[8]"}


@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize("beside", BESIDE)
def test_a_run_on_features_is_the_run_on_images(beside: str, sides: str, digits: Dataset, shown: list[Tensor]) -> None:
    pipeline = using(*BESIDE[beside], **SIDES[sides])
    on_features = run(pipeline, digits)
    assert shown
    events = " ".join(event for report in on_features[0] for event in report.events)
    assert WORDS.get(beside, "") in events
    assert on_features[1].model.architecture.axis_sizes()["stage0"] < 8 or beside != "stem pruned"
    shown.clear()
    on_images = run(replace(pipeline, strategies=(*pipeline.strategies, LookAt())), digits)
    assert not shown
    assert_alike(on_features, on_images)


@pytest.mark.parametrize("family", GROUNDS)
def test_other_networks_run_on_features_too(family: str, digits: Dataset) -> None:
    """Plain ones, of which features may be values without pixels, and those with a pooling behind the stem."""
    ground = GROUNDS[family]
    pipelines = (ground.using(FROZEN, *others) for others in ((), (LookAt(),)))
    assert_alike(*(run(pipeline, digits, ground.task) for pipeline in pipelines))


@pytest.mark.parametrize("number_format", ["bf16", "fp16"])
def test_features_are_in_the_number_format_of_the_training(number_format: str, digits: Dataset) -> None:
    settings = {"number_format": number_format}
    assert_alike(*(run(using(FROZEN, *others, **settings), digits) for others in ((), (LookAt(),))), rtol=1e-3)
    strategies = (FROZEN, SwitchFormat(at=0.5))
    pipelines = (using(*strategies, *others, number_format="bf16") for others in ((), (LookAt(),)))
    if number_format == "bf16":
        assert_alike(*(run(pipeline, digits) for pipeline in pipelines), rtol=1e-3)


def test_each_side_of_an_image_is_computed_once(digits: Dataset) -> None:
    """By what is counted: a side that an epoch shows for the first time is whole work, any other only the rest."""
    work = {}
    for sides, how in SIDES.items():
        reports, trained = run(using(FROZEN, **how), digits)
        names = {name for name, _ in trained.model.named_parameters() if name.startswith(("stem.", "stages.0."))}
        architecture = trained.model.architecture
        whole, first = flops.count(architecture, 8, frozenset(names))[1], flops.of_first_parts(architecture, 8, 2)
        spent = [0.0, *(report.train_flops for report in reports)]
        work[sides] = [(500 * whole - (now - before)) / first for before, now in pairwise(spent)]
    assert work["as they are"] == [0, 500, 500, 500]  # images that each epoch did not have to compute
    assert work["flipped in turn"] == [0, 0, 500, 500]
    assert work["flipped"][0] == 0
    assert 200 < work["flipped"][1] < 300
    assert sum(work["flipped"]) > 900


def test_the_work_of_the_first_parts_is_a_part_of_the_whole(digits: Dataset) -> None:
    architecture = started(digits).trainee.model.architecture
    counts = [flops.of_first_parts(architecture, 8, n) for n in range(5)]
    assert counts == sorted(counts)
    assert counts[0] == 0
    assert counts[-1] == flops.count(architecture, 8)[0]


def batches(state: TrainState, digits: Dataset, **how: bool) -> Batches:
    return Batches(digits.train, 50, Augmentation(**how), state.normalise, (2, 3))  # type: ignore[arg-type]


def test_a_batch_holds_what_the_parts_make_of_its_images(digits: Dataset) -> None:
    state = started(digits, FROZEN)
    of_images = batches(state, digits, flip=True)
    _, of_features = fed(state, of_images)
    assert of_features.shape == (50, 8, 4, 4)
    assert of_images.shape == (50, 1, 8, 8)
    for epoch in (0, 3, 1):
        for (x, y), (seen, labels) in zip(of_images.epoch(epoch), of_features.epoch(epoch), strict=True):
            assert torch.equal(y, labels)
            expected = put_out(state.trainee.model, 2, x)
            torch.testing.assert_close(seen, expected, rtol=1e-6, atol=1e-6)
            assert seen.stride() == expected.stride()


def test_features_stay_while_what_they_are_of_stays(digits: Dataset) -> None:
    state = started(digits, FROZEN)
    _, first = fed(state, batches(state, digits))
    assert isinstance(first.features, Features)
    _, again = fed(state, first)
    assert again is first
    rebuilt = replace(state, trainee=reindex(state.trainee, {"stage1": torch.arange(12)}))  # behind them
    _, behind = fed(rebuilt, first)
    assert behind.features is first.features
    pruned = replace(state, trainee=reindex(state.trainee, {"stage0": torch.arange(6)}))
    _, other = fed(pruned, first)
    assert other.features is not first.features
    assert other.shape == (50, 6, 4, 4)


def test_means_are_kept_where_the_head_alone_trains(digits: Dataset) -> None:
    state = started(digits, FrozenStages(parts=3))
    _, found = fed(state, batches(state, digits))
    assert found.shape == (50, 16, 1, 1)


@pytest.mark.parametrize(
    ("strategies", "settings"),
    [
        ((), {}),
        ((Freeze(start=0.25),), {}),  # its batch norms go on
        ((FROZEN,), {"crop": True}),
        ((FROZEN,), {"cutout": 0.5}),
        ((FROZEN, ProgressiveResolution()), {}),
        ((FROZEN, InconsistentSGD()), {}),
    ],
    ids=str,
)
def test_images_are_trained_on_where_features_would_not_do(
    strategies: tuple[Strategy, ...], settings: dict[str, object], digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("features were made")

    monkeypatch.setattr(features.Features, "__init__", refuse)
    run(using(*strategies, **settings), digits)


def test_features_that_would_take_too_much_memory_are_not_kept_and_a_run_says_so_once(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "free_on_host", lambda: 400_000)
    reports, trained = run(using(FROZEN), digits)
    assert reports[0].events == (f"{ANEW}they would take 0 MB, and 0 MB are free",)
    assert not any(report.events for report in reports[1:])
    monkeypatch.setattr(features, "free_on_host", lambda: 10**7)
    kept, same = run(using(FROZEN), digits)
    assert not any(report.events for report in kept)
    assert_alike((kept, same), (reports, trained))


def test_a_run_without_fixed_parts_makes_no_features(digits: Dataset) -> None:
    state = started(digits)
    plain = batches(state, digits)
    assert fed(state, plain) == (state, plain)
