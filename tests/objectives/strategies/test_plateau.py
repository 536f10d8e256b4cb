"""The laws of Plateau."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf, nan

import pytest

from objectives.data.dataset import Dataset
from objectives.pipeline import Report, ScheduleName
from objectives.state import Schedule, TrainState
from objectives.strategies.base import Strategy
from objectives.strategies.data_fraction import DataFraction
from objectives.strategies.plateau import Plateau
from objectives.strategies.progressive_resolution import ProgressiveResolution
from objectives.strategies.prune_train import PruneTrain
from objectives.train import after_boundary
from tests.objectives.strategies.cases import CASES, PLAIN, begin, finish, using

FALLING = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]


@pytest.fixture(scope="module")
def report(digits: Dataset) -> Report:
    return finish(replace(PLAIN, epochs=1), digits)[0][0]


def run(state: TrainState, losses: list[float], report: Report) -> list[TrainState]:
    """The state after the boundary of every epoch but the last one, given the losses of the epochs."""
    states = []
    for epoch, loss in enumerate(losses, start=1):
        if epoch >= state.ends:
            break
        state = after_boundary(replace(state, epoch=epoch, loss=loss, events=()))
        state = replace(state, history=(*state.history, replace(report, epoch=epoch, loss=loss)))
        states.append(state)
    return states


# --- when it ends -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("losses", "stalls", "ends"),
    [
        pytest.param([1.0, 0.9, 0.89], 3, 4, id="a stall"),
        pytest.param([1.0, 0.9, 0.81, 0.9], 4, 5, id="a rise"),
        pytest.param([1.0, 0.5, 0.7, 0.6], 3, 4, id="below the one before, above the best"),
        pytest.param([1.0, 1.0], 2, 3, id="at once"),
        pytest.param([1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.29], 7, 9, id="late, with a longer fall"),
        pytest.param([0.0, 0.0], 2, 3, id="nothing left to gain"),
        pytest.param([1.0, inf], 2, 3, id="divergence"),
        pytest.param([nan, 0.5, 0.4, 0.39], 4, 5, id="an epoch of skipped steps counts for nothing"),
        pytest.param([1.0, nan, 0.5, 0.49], 4, 5, id="nor does it stall"),
    ],
)
def test_the_end_comes_when_the_loss_stalls(
    losses: list[float], stalls: int, ends: int, digits: Dataset, report: Report
) -> None:
    states = run(begin(using(Plateau(gain=0.05), epochs=20), digits), losses, report)
    assert [state.ends for state in states] == [20] * (stalls - 1) + [ends] * (len(states) - stalls + 1)
    assert [bool(state.events) for state in states] == [n == stalls for n in range(1, len(states) + 1)]
    assert states[-1].events[0].endswith(f": cools down to epoch {ends}")


@pytest.mark.parametrize("cooldown", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("epochs", range(1, 11))
def test_while_the_loss_falls_the_run_has_all_its_epochs_and_still_cools_down(
    epochs: int, cooldown: float, digits: Dataset, report: Report
) -> None:
    start = begin(using(Plateau(gain=0.05, cooldown=cooldown), epochs=epochs, schedule="cosine"), digits)
    states = run(start, FALLING, report)
    assert [state.ends for state in states] == [epochs] * (epochs - 1)
    assert sum(bool(state.events) for state in states) == (epochs > 1)
    last = states[-1] if states else start
    assert last.schedule(epochs - 1e-6) == pytest.approx(0, abs=1e-5)
    if epochs > 1:
        begins = last.schedule.restart
        assert begins is not None
        assert epochs - begins >= max(1, round(cooldown * begins))  # one epoch later there would be no time for it
        assert epochs - begins - 1 < max(1, round(cooldown * (begins + 1)))


def test_no_stall_is_seen_in_the_fall(digits: Dataset, report: Report) -> None:
    start = begin(using(Plateau(gain=0.05, cooldown=1.0), epochs=40), digits)
    states = run(start, [1.0, 0.8, 0.6, 0.6, 0.7, 0.7, 0.7], report)
    assert [state.ends for state in states] == [40, 40, 40, 8, 8, 8, 8]
    assert len({id(state.schedule) for state in states[3:]}) == 1


def test_a_run_ends_when_it_says_and_its_reports_follow(digits: Dataset) -> None:
    plateau = CASES["Plateau"].active
    reports, trained = finish(using(plateau, epochs=20, schedule="cosine"), digits)
    assert reports[0].epochs == 20
    ends = reports[-1].epochs
    assert 2 < ends < 20
    assert [report.epoch for report in reports] == list(range(1, ends + 1))
    changes = next(n for n, report in enumerate(reports) if report.events)
    assert [report.epochs for report in reports] == [20] * changes + [ends] * (ends - changes)
    assert trained.report is reports[-1]
    best = min(report.loss for report in reports[:changes])
    assert f"loss {reports[changes].loss:.3g}, best before {best:.3g}: cools" in reports[changes].events[0]
    assert reports[changes].loss > best * 0.1


# --- the learning rate ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["step", "cosine", "one_cycle"])
def test_it_stays_at_the_peak_and_then_falls_linearly_to_zero(
    name: ScheduleName, digits: Dataset, report: Report
) -> None:
    start = begin(using(Plateau(gain=0.05, cooldown=0.25), epochs=16, schedule=name), digits)
    warm_up = 4 if name == "one_cycle" else 0
    for epoch in range(warm_up):
        assert start.schedule(epoch + 0.5) == Schedule(name, 16)(epoch + 0.5)
    assert {start.schedule(warm_up + share * (16 - warm_up)) for share in (0.0, 0.3, 0.6, 0.999)} == {1.0}
    after = run(start, [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.4], report)[-1].schedule
    assert [after(epoch) for epoch in (8, 8.5, 9, 9.5)] == pytest.approx([1.0, 0.75, 0.5, 0.25])


def test_a_stall_in_the_warm_up_lets_it_fall_from_where_it_is(digits: Dataset, report: Report) -> None:
    state = run(begin(using(Plateau(gain=0.05), epochs=40, schedule="one_cycle"), digits), [1.0, 1.0], report)[-1]
    reached = Schedule("one_cycle", 40)(2)
    assert [state.schedule(epoch) for epoch in (2, 2.5)] == pytest.approx([reached, reached / 2])


@pytest.mark.parametrize("name", ["step", "cosine", "one_cycle"])
def test_a_run_of_one_epoch_keeps_its_schedule(name: ScheduleName, digits: Dataset) -> None:
    assert begin(using(Plateau(), epochs=1, schedule=name), digits).schedule == Schedule(name, 1)


# --- beside other strategies ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Late(Strategy):
    """Is settled after three epochs."""

    def settled(self, state: TrainState) -> bool:
        return state.epoch > 3


@pytest.mark.parametrize("first", [True, False])
def test_epochs_in_which_another_strategy_is_not_settled_neither_stall_nor_count(
    first: bool, digits: Dataset, report: Report
) -> None:
    """Losses on small images say nothing about those on large ones."""
    plateau = Plateau(gain=0.05)
    strategies = (plateau, Late()) if first else (Late(), plateau)
    states = run(begin(using(*strategies, epochs=20), digits), [0.3, 0.3, 0.3, 0.9, 0.8, 0.79], report)
    assert [state.ends for state in states] == [20] * 5 + [8]
    assert "best before 0.8" in states[-1].events[0]


@pytest.mark.parametrize(
    "growing", [DataFraction(start=0.5, until=0.5), ProgressiveResolution(start=0.5, until=0.5, steps=1)], ids=repr
)
def test_a_run_does_not_end_before_the_others_are_settled(growing: Strategy, digits: Dataset) -> None:
    reports, _ = finish(using(Plateau(gain=0.99), growing, epochs=12), digits)
    assert [report.epoch for report in reports if any("cools down" in event for event in report.events)] == [8]


def test_strategies_after_it_see_the_end_that_it_sets(digits: Dataset) -> None:
    """PruneTrain reconfigures the network at the last boundary of the run."""
    prune = PruneTrain(lpr=0.9, interval=19, threshold=0.1)
    reports, _ = finish(using(Plateau(gain=0.99), prune, epochs=20), digits)
    assert reports[-1].epochs == 3
    assert any("pruned" in event for event in reports[-2].events)


@pytest.mark.parametrize("epochs", [1, 4])
def test_accuracy_is_settled_once_the_learning_rate_falls(epochs: int, digits: Dataset) -> None:
    """At the peak it says little about the end, and the length of the run is not known."""
    reports, _ = finish(using(Plateau(gain=0.01), epochs=epochs), digits)
    assert [report.settled for report in reports] == [False] * (epochs - 1) + [True]
    assert all(report.settled for report in finish(using(Plateau(gain=0.0)), digits)[0])


@pytest.mark.parametrize("parameters", [{"gain": -0.1}, {"gain": 1.0}, {"cooldown": -0.1}, {"cooldown": 1.1}])
def test_parameters_out_of_range_are_refused_with_the_ranges(parameters: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"gain must lie in \[0, 1\), cooldown in \[0, 1\]"):
        Plateau(**parameters)
