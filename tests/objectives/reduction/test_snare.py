"""Laws of SNARE: within the budget, the same under a seed, whole at the end whatever may be lost."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from objectives.data.dataset import Dataset
from objectives.errors import DataError
from objectives.export import ExportedModel, export, load_model
from objectives.reduction.settings import CriterionName, Iteration, Reduction
from objectives.reduction.snare import is_within, reduced, right
from objectives.reduction.terms import Terms, as_taken
from objectives.train import Trained

QUICK = Reduction(epsilon=0.03, epochs=1, smallest=0.16)
CASES = [
    QUICK,
    replace(QUICK, criterion="taylor_sum", epochs=0, epsilon=0.1),
    replace(QUICK, criterion="similarity", beta=0.0),
    replace(QUICK, criterion="random", gamma=0.0, iterations=7),
    replace(QUICK, retraining="blocks", iterations=7),
]


def ran(reduction: Generator[Iteration, None, Trained]) -> tuple[list[Iteration], Trained]:
    """All attempts of a reduction, and what it returns."""
    found = []
    while True:
        try:
            found.append(next(reduction))
        except StopIteration as end:
            return found, end.value


def timeless(attempts: list[Iteration]) -> list[Iteration]:
    """Attempts without their seconds: no two runs have the same."""
    return [replace(each, seconds=0.0) for each in attempts]


def state(trained: Trained) -> dict[str, torch.Tensor]:
    """The numbers of a network."""
    return trained.model.state_dict()


def same(one: Trained, two: Trained) -> bool:
    """Whether two networks are equal in every number."""
    a, b = state(one), state(two)
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("settings", CASES, ids=str)
def test_what_is_accepted_is_never_below_the_base_by_more_than_epsilon(
    base: ExportedModel, digits: Dataset, settings: Reduction
) -> None:
    attempts, trained = ran(reduced(base, digits, settings, seed=0))
    terms = Terms.of(base, digits, settings)
    reference, n = right(terms.evaluated(base.network)), len(digits.val.y)
    least = reference / n - settings.epsilon
    assert [each.number for each in attempts] == list(range(1, len(attempts) + 1))
    assert all(each.accepted == (each.accuracy >= least - 1e-9) for each in attempts)
    accepted = [each for each in attempts if each.accepted]
    assert accepted, "no case may be idle"
    assert any(not each.accepted for each in attempts)
    found = terms.evaluated(trained.model)
    assert found.accuracy == trained.report.accuracy == accepted[-1].accuracy
    assert trained.report.n_parameters == accepted[-1].n_parameters < sum(p.numel() for p in base.network.parameters())
    assert trained.report.inference_flops == accepted[-1].flops
    assert trained.report.train_seconds == pytest.approx(sum(each.seconds for each in attempts))


@pytest.mark.parametrize("settings", CASES, ids=str)
def test_a_reduction_is_the_same_under_a_seed(base: ExportedModel, digits: Dataset, settings: Reduction) -> None:
    first, one = ran(reduced(base, digits, settings, seed=3))
    torch.rand(7)  # what others draw is nothing to it
    again, two = ran(reduced(base, digits, settings, seed=3))
    assert timeless(first) == timeless(again)
    assert same(one, two)


def test_another_seed_is_another_reduction(base: ExportedModel, digits: Dataset) -> None:
    first, _ = ran(reduced(base, digits, QUICK, seed=3))
    other, _ = ran(reduced(base, digits, QUICK, seed=4))
    assert timeless(first) != timeless(other)


@pytest.mark.parametrize("criterion", ["taylor", "similarity"])
def test_whatever_may_be_lost_a_working_network_is_left(
    base: ExportedModel, digits: Dataset, criterion: CriterionName, tmp_path: Path
) -> None:
    settings = Reduction(epsilon=1.0, epochs=0, criterion=criterion)
    attempts, trained = ran(reduced(base, digits, settings, seed=0))
    assert all(each.accepted and each.n_after >= 1 for each in attempts)
    assert set(trained.model.architecture.axis_sizes().values()) == {1}
    export(trained, as_taken(base, digits), tmp_path / "model", {})
    loaded = load_model(tmp_path / "model")
    assert loaded.probabilities(digits.val.x).isfinite().all()
    assert (loaded.mean, loaded.std, loaded.classes) == (base.mean, base.std, base.classes)


def test_the_base_stays_as_it_was_and_comes_back_where_nothing_may_be_lost(
    base: ExportedModel, digits: Dataset
) -> None:
    before = {name: tensor.clone() for name, tensor in base.network.state_dict().items()}
    settings = Reduction(epsilon=1e-6, epochs=0, operation=0.9, smallest=0.9)
    attempts, trained = ran(reduced(base, digits, settings, seed=0))
    assert not any(each.accepted for each in attempts)
    for name, tensor in before.items():
        assert torch.equal(tensor, base.network.state_dict()[name])
        assert torch.equal(tensor, state(trained)[name])


def test_all_of_epsilon_may_be_lost_and_no_image_more() -> None:
    for n in (328, 1000, 5000, 4999):
        for epsilon in (0.001, 0.005, 0.1, 1.0):
            for reference in (n, n - 7, n // 3):
                most = int(epsilon * n + 1e-9)
                assert is_within(reference - most, reference, n, epsilon)
                assert not is_within(reference - most - 1, reference, n, epsilon)
    assert is_within(900, 890, 1000, 1e-6), "to be better is no loss"


def test_it_ends_when_it_is_told_to(base: ExportedModel, digits: Dataset) -> None:
    whole, _ = ran(reduced(base, digits, QUICK, seed=0))
    for n in (0, 1, 5):
        answers = iter([True] * n + [False])
        attempts, trained = ran(reduced(base, digits, QUICK, seed=0, goes_on=lambda answers=answers: next(answers)))
        assert timeless(attempts) == timeless(whole[:n])
        assert trained.report.n_parameters == next(
            (each.n_parameters for each in reversed(attempts) if each.accepted),
            sum(p.numel() for p in base.network.parameters()),
        )


def test_data_that_do_not_fit_are_refused_in_one_line(base: ExportedModel, digits: Dataset) -> None:
    cases = [
        (replace(digits, classes=("cat", *digits.classes[1:])), "has the classes cat"),
        (replace(digits, train=replace(digits.train, x=digits.train.x[:, :, :6, :6])), "has images of 6 pixels"),
    ]
    for data, words in cases:
        with pytest.raises(DataError, match=words) as caught:
            next(reduced(base, data, QUICK, seed=0))
        assert "\n" not in str(caught.value)


@pytest.mark.long  # two processes import torch
def test_workers_that_try_ahead_come_to_the_same_attempts_and_network(base: ExportedModel, digits: Dataset) -> None:
    alone, one = ran(reduced(base, digits, QUICK, seed=3))
    together, two = ran(reduced(base, digits, QUICK, seed=3, workers=("cpu", "cpu")))
    assert timeless(alone) == timeless(together)
    assert same(one, two)


def test_what_is_not_finite_any_more_is_refused_whatever_may_be_lost(base: ExportedModel, digits: Dataset) -> None:
    absurd = {**base.about["pipeline"], "lr": 100.0, "momentum": 0.99, "weight_decay": 1.0}  # type: ignore[dict-item]
    wild = replace(base, about={**base.about, "pipeline": absurd})
    settings = Reduction(epsilon=1.0, epochs=2, lr=1.0, iterations=2)
    attempts, trained = ran(reduced(wild, digits, settings, seed=0))
    assert [each.accepted for each in attempts] == [False, False]
    assert not trained.report.diverged
