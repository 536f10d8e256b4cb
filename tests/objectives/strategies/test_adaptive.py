"""A network that finds its own size: what follows from its decisions, on scripted losses and clocks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from objectives.data.dataset import Dataset, load
from objectives.networks import flops
from objectives.networks.architecture import Architecture
from objectives.networks.resnet import ResNet
from objectives.pipeline import Report
from objectives.state import TrainState
from objectives.strategies.adaptive import Adaptive
from objectives.strategies.net2net import Net2Net
from objectives.strategies.plateau import Plateau
from objectives.strategies.prune_train import PruneTrain
from objectives.task import DataSpec
from objectives.train import after_boundary, bound
from tests.objectives.strategies.cases import PLAIN, begin, begin_in_double, finish, first_batch, stepped, using

EAGER = Adaptive(lpr=0.0, kappa=0.0, least=1, gain=0.5, tail=0.25, budget=9.0)  # grows wherever it may
REPORT = Report(
    **dict.fromkeys(("epoch", "epochs", "n_parameters", "peak_memory", "eval_peak_memory", "skipped_steps"), 0),
    **dict.fromkeys(("balanced_accuracy", "wall_seconds", "eval_seconds", "full_flops", "boundary_seconds"), 0.0),
    **{"train_seconds": 0.0, "accuracy": 0.5, "loss": 1.0, "train_flops": 0.0, "inference_flops": 0.0},
    settled=True,
    diverged=False,
)


def scripted(
    state: TrainState, losses: Sequence[float], rate: Callable[[Architecture], float] = lambda _: 1e-9
) -> list[TrainState]:
    """The states after each epoch of a run that is told losses, and whose FLOPs take so many seconds; none is trained.

    The run ends where the state says so.
    """
    states, size = [], int(state.data.x.shape[-1])
    spent = seconds = 0.0
    for loss in losses:
        network = state.trainee.model.architecture
        inference, training = flops.count(network, size)
        spent += training * len(state.data.y)
        seconds += rate(network) * training * len(state.data.y)
        state = replace(bound(state), epoch=state.epoch + 1, loss=loss, train_seconds=seconds, train_flops=float(spent))
        last = state.epoch >= state.ends
        state = state if last else after_boundary(state)
        told = replace(REPORT, epoch=state.epoch, epochs=state.ends, loss=loss, inference_flops=float(inference))
        told = replace(told, train_seconds=seconds, train_flops=float(spent), events=state.events)
        state = replace(state, history=(*state.history, told), events=())
        states.append(state)
        if state.epoch >= state.ends:
            return states
    raise AssertionError("the run has no end")


def logits(model: ResNet, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model.eval()(x)


def events(states: Sequence[TrainState]) -> list[str]:
    return [event for state in states for event in state.history[-1].events]


def test_a_run_grows_in_turns_and_cools_down(digits: Dataset) -> None:
    states = scripted(begin(using(EAGER, epochs=24), digits), [1 / 2 ** (e // 2) for e in range(24)])
    told = events(states)
    assert [event.split(",")[0] for event in told] == [
        "round 2: wider",
        "round 3: deeper",
        "round 4: wider",
        "stops growing",
    ]
    widths = [state.trainee.model.architecture.describe() for state in states]
    assert widths[0] == "8[8]-8[8]"
    assert len(set(widths)) == 4
    assert states[-1].epoch < 24  # nothing was left to gain
    shares = [state.schedule(state.epoch - 0.5) for state in states]
    assert shares[-1] == min(shares[4:])
    assert not any(state.schedule(state.epoch) == 0 for state in states[:-1])


def test_a_growth_preserves_the_function(digits: Dataset) -> None:
    x = first_batch(digits)[0].double()
    state = stepped(begin_in_double(using(replace(EAGER, rounds=4), epochs=40), digits), digits)
    shapes = set()
    for epoch in range(1, 12):
        before = logits(state.trainee.model, x)
        told = replace(REPORT, epoch=epoch, loss=0.5**epoch, inference_flops=1.0, train_flops=1e9, train_seconds=1.0)
        state = after_boundary(replace(state, epoch=epoch, loss=0.5 ** (epoch // 2)))
        state = replace(state, history=(*state.history, replace(told, loss=state.loss)))
        torch.testing.assert_close(logits(state.trainee.model, x), before, rtol=0, atol=1e-12)
        shapes.add(state.trainee.model.architecture)
        state = stepped(bound(state), digits)
    assert len(shapes) >= 4


def test_going_back_restores_the_network_bit_for_bit(digits: Dataset) -> None:
    x = first_batch(digits)[0]
    state = stepped(begin(using(replace(EAGER, gain=0.1, rounds=1), epochs=30), digits), digits)
    answers, told = [], []
    for epoch in range(1, 5):
        before = logits(state.trainee.model, x)
        state = after_boundary(replace(bound(state), epoch=epoch, loss=1.0))
        report = replace(REPORT, epoch=epoch, inference_flops=1.0, train_flops=1e9, train_seconds=1.0)
        state = replace(state, history=(*state.history, report))
        answers.append((before, logits(state.trainee.model, x)))
        told.append(state.events)
        state.trainee.model.train()
        state = stepped(bound(replace(state, events=())), digits)
    (grown,) = [number for number, words in enumerate(told) if words and "round 2: wider" in words[0]]
    back = next(number for number, words in enumerate(told) if words and "back to 8[8]-8[8]" in words[0])
    assert "round 2: deeper" in told[back][1]  # the other one, which changes no answer either
    assert torch.equal(answers[grown][0], answers[back][1])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(0.01, 2.0), min_size=30, max_size=30),
    st.lists(st.floats(0.75, 1.45), min_size=8, max_size=8),
    st.floats(0.3, 2.0),
    st.floats(0.25, 1.0),
)
def test_the_budget_is_never_exceeded_by_more_than_an_epoch(
    losses: list[float], factors: list[float], budget: float, start: float
) -> None:
    """Also where a network of another shape takes up to twice as long as its FLOPs let expect."""
    dataset = load(DataSpec("digits", n_train=500), torch.device("cpu"))
    state = begin(using(replace(EAGER, budget=budget, start=start, gain=0.05), epochs=30), dataset)
    rates: dict[Architecture, float] = {}
    drawn = itertools.cycle(factors)
    states = scripted(state, losses, lambda network: rates.setdefault(network, 1e-9 * next(drawn)))
    seconds = [0.0, *(state.history[-1].train_seconds for state in states)]
    began, full = (flops.count(network, dataset.size)[1] for network in (next(iter(rates)), state.full))
    allowance = budget * 30 * seconds[1] * full / began  # by the first epoch
    longest = max(after - before for before, after in itertools.pairwise(seconds))
    assert seconds[-1] <= allowance + longest * 1.000001


@pytest.mark.parametrize("loss", [0.5, 1.0], ids=["in time for its end", "where it stops growing"])
def test_what_is_removed_where_the_tail_begins_counts_as_removed(loss: float, digits: Dataset) -> None:
    pruning = Adaptive(lpr=0.6, kappa=0.0, interval=99, threshold=0.45, start=1.0, least=3, tail=0.5, budget=0.9)
    told = events(scripted(begin(using(pruning, epochs=12), digits), [loss**epoch for epoch in range(12)]))
    assert any(event.startswith("pruned") for event in told), told
    assert "PruneTrain removed nothing" not in told


def test_accuracy_that_decides_is_charged(digits: Dataset) -> None:
    by_loss, _ = finish(using(Adaptive(rounds=1)), digits)
    by_accuracy, _ = finish(using(Adaptive(rounds=1, judge="accuracy")), digits)
    assert by_loss[-2].eval_seconds > 0
    assert by_accuracy[-2].eval_seconds == 0  # all of it is in train_seconds
    assert by_accuracy[-1].eval_seconds > 0  # nobody reads the last one


def test_without_rounds_it_is_prunetrain(digits: Dataset) -> None:
    same = {"lpr": 0.6, "kappa": 0.0, "interval": 1, "threshold": 0.1}
    ours, theirs = (finish(using(kind), digits)[0] for kind in (Adaptive(rounds=0, **same), PruneTrain(**same)))  # type: ignore[arg-type]
    assert [(r.accuracy, r.loss, r.events) for r in ours] == [(r.accuracy, r.loss, r.events) for r in theirs]


@pytest.mark.parametrize("other", [PruneTrain(), Net2Net(), Plateau()])
def test_what_does_the_same_is_refused_beside_it(other: object) -> None:
    with pytest.raises(ValueError, match="cannot run with"):
        replace(PLAIN, strategies=(Adaptive(), other))  # type: ignore[arg-type]


WRONG = {"start": 0.0, "tail": 1.0, "rewarm": 0.0, "rounds": -1, "least": 0, "factor": 1.0, "budget": 0.0, "gain": 1.0}


@pytest.mark.parametrize(("name", "value"), [*WRONG.items(), ("patience", 0), ("judge", "test"), ("lpr", 1.0)])
def test_parameters_out_of_range_are_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match="Adaptive"):
        Adaptive(**{name: value})  # type: ignore[arg-type]
