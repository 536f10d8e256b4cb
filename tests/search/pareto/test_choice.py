"""Which point of a front is taken, and what stands beside it."""

from __future__ import annotations

import pytest

from search.pareto.choice import Candidate, chosen

FRONT = [
    Candidate(trial, seconds, accuracy, (accuracy - 0.02, accuracy + 0.02), 0)
    for trial, seconds, accuracy in ((4, 1.0, 0.80), (2, 10.0, 0.90), (7, 60.0, 0.93), (1, 100.0, 0.934))
]


@pytest.mark.parametrize(
    ("limits", "best", "cheaper", "dearer"),
    [
        ({}, 1, 7, None),
        ({"at_most": 60}, 7, 2, 1),
        ({"at_most": 59.9}, 2, 4, 7),
        ({"at_most": 1e9, "within": 0.005}, 7, 2, 1),
        ({"at_most": 60, "within": 0.04}, 2, 4, 7),
        ({"within": 1.0}, 4, None, 2),
        ({"min_accuracy": 0.9}, 2, 4, 7),
        ({"min_accuracy": 0.91}, 7, 2, 1),
        ({"min_accuracy": 0.935, "within": 0.005}, 7, 2, 1),
        ({"min_accuracy": 0.0}, 4, None, 2),
    ],
)
def test_the_point_is_the_most_accurate_that_costs_so_much_or_the_cheapest_that_is_accurate_enough(
    limits: dict[str, float], best: int, cheaper: int | None, dearer: int | None
) -> None:
    found = chosen(FRONT, **limits)
    assert found is not None
    assert found.best.trial == best
    assert [each and each.trial for each in (found.cheaper, found.dearer)] == [cheaper, dearer]


@pytest.mark.parametrize("limits", [{"at_most": 0.5}, {"min_accuracy": 0.95}, {"min_accuracy": 0.94, "within": 0.005}])
def test_where_no_point_is_as_asked_there_is_none(limits: dict[str, float]) -> None:
    assert chosen(FRONT, **limits) is None
    assert chosen([], at_most=1e9) is None


def test_means_that_lie_otherwise_than_the_front_did_decide() -> None:
    """With fresh seeds the dearest point may be no longer the best."""
    late = [*FRONT[:2], Candidate(9, 50.0, 0.88, (0.85, 0.91), 3)]
    found = chosen(late)
    assert found is not None
    assert (found.best.trial, found.dearer) == (2, None)
