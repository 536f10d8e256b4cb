"""What a network that finds its own size does next, by tables of what was seen."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from objectives.networks.architecture import Architecture, Stage
from objectives.strategies.methods.rounds import (
    Round,
    Rules,
    Seen,
    decide,
    deepened,
    least_loss,
    occupancy,
    stalls,
    widened,
)

RULES = Rules(gain=0.05, patience=1, least=2, rounds=3, factor=1.5, shrinking=0.02, occupied=0.6, window=4)


def network(*stages: tuple[int, tuple[int, ...]]) -> Architecture:
    return Architecture(1, 10, tuple(Stage(width, interiors) for width, interiors in stages))


WHOLE = network((16, (16, 16)), (32, (32, 32)))
STALLED = (1.0, 0.5, 0.5)


def seen(now: Architecture = WHOLE, began: Architecture = WHOLE, **others: Any) -> Seen:
    plain: dict[str, Any] = {"measures": STALLED, "flops": (1.0,) * len(STALLED), "epochs_to_tail": 20}
    return Seen(**{"rounds": (Round(0, began),), "now": now, **plain, **others})


def act(looked: Seen, rules: Rules = RULES, limit: float = inf, before: Architecture | None = None) -> tuple[Any, ...]:
    """What is decided where networks of up to `limit` channels fit the budget: act, stages, whether it goes back."""
    found = decide(looked, rules, lambda a: sum(a.axis_sizes().values()) <= limit, before)
    return found.act, found.stages, found.goes_back


DEAD_BLOCK = network((16, (16, 16)), (32, (32,)))
DEAD_CHANNELS = network((16, (16, 16)), (16, (12, 12)))
GROWN = (Round(0, network((8, (8, 8)), (16, (16, 16)))), Round(3, WHOLE, "wider", (0, 1), reached=0.6))
LATER = {"rounds": GROWN, "flops": (0.5, 0.5, 0.5, 1.0, 1.0, 1.0)}

TABLE: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    "epochs still bring something": ((seen(measures=(1.0, 0.5, 0.4)),), ("go on", (), False)),
    "a round is too young": ((seen(measures=(1.0,), flops=(1.0,)),), ("go on", (), False)),
    "a loss that is not finite is no best": ((seen(measures=(inf, 2.0, 1.0)),), ("go on", (), False)),
    "it still shrinks": ((seen(flops=(1.0, 1.0, 0.9)),), ("keep", (), False)),
    "nothing was pruned": ((seen(),), ("wider", (0, 1), False)),
    "blocks died": ((seen(DEAD_BLOCK),), ("wider", (1,), False)),
    "channels died": ((seen(DEAD_CHANNELS),), ("deeper", (0,), False)),
    "few channels died: it grows where none did": (
        (seen(network((16, (16, 16)), (30, (32, 32)))),),
        ("wider", (0,), False),
    ),
    "the last growth was wider": (
        (seen(**LATER, measures=(1.0, 0.7, 0.6, 0.6, 0.4, 0.4)),),
        ("deeper", (1,), False),
    ),
    "the last growth brought nothing": (
        (seen(**LATER, measures=(1.0, 0.7, 0.6, 0.7, 0.6, 0.6)), RULES, inf, GROWN[0].architecture),
        ("deeper", (1,), True),
    ),
    "no growth brought anything": (
        (
            seen(**LATER, measures=(1.0, 0.7, 0.6, 0.7, 0.6, 0.6), failed=frozenset({"deeper"})),
            *(RULES, inf, GROWN[0].architecture),
        ),
        ("stop", (), True),
    ),
    "it may grow no more": ((seen(), replace(RULES, rounds=0)), ("stop", (), False)),
    "no time for a round": ((seen(epochs_to_tail=1),), ("stop", (), False)),
    "the budget allows another block only": ((seen(), RULES, 32 + 144), ("deeper", (1,), False)),
    "the budget allows nothing": ((seen(), RULES, 144), ("stop", (), False)),
    "one failed, the other does not fit": ((seen(failed=frozenset({"wider"})), RULES, 144), ("stop", (), False)),
}


@pytest.mark.parametrize(("given", "expected"), TABLE.values(), ids=TABLE.keys())
def test_what_was_seen_decides(given: tuple[Any, ...], expected: tuple[Any, ...]) -> None:
    assert act(*given) == expected


def test_every_decision_but_to_go_on_says_why() -> None:
    for given, (expected, *_) in TABLE.values():
        found = decide(given[0], *given[1:2] or (RULES,), lambda _: True, *given[3:])
        assert bool(found.why) == (found.act != "go on")
        assert (found.architecture is not None) == (found.act in ("wider", "deeper")), expected


def test_the_widest_growth_that_fits_is_taken() -> None:
    for limit, factor in ((inf, 1.5), (270, 1.5), (200, 1.375), (185, 1.25)):
        found = decide(seen(), RULES, lambda a, most=limit: sum(a.axis_sizes().values()) <= most)  # type: ignore[misc]
        if found.act == "wider":
            assert found.architecture == widened(WHOLE, (0, 1), factor)
        else:
            assert limit < sum(widened(WHOLE, (0, 1), 1.25).axis_sizes().values())


def test_a_stage_is_as_full_as_its_axis_and_its_blocks() -> None:
    assert occupancy(Stage(16, (16, 16)), Stage(16, (16, 16))) == 1
    assert occupancy(Stage(8, (16, 16)), Stage(16, (16, 16))) == 0.75
    assert occupancy(Stage(16, (4, 4)), Stage(16, (16, 16))) == 0.625
    assert occupancy(Stage(16, (16,)), Stage(16, (16, 16))) == 1  # a dead block is no loss of channels
    assert occupancy(Stage(12, (0,)), Stage(16, (16,))) == 0.75


def test_growth_changes_what_it_names_and_nothing_else() -> None:
    assert widened(WHOLE, (1,), 1.25) == network((16, (16, 16)), (40, (40, 40)))
    assert widened(network((13, (0, 5))), (0,), 1.5) == network((20, (0, 8)))  # a dead branch stays dead
    assert deepened(WHOLE, 0) == network((16, (16, 16, 16)), (32, (32, 32)))


@pytest.mark.parametrize(("smoothing", "n_classes"), [(0.0, 10), (0.1, 10), (0.2, 2), (0.9, 1000)])
def test_no_answer_has_a_smaller_loss_than_the_least(smoothing: float, n_classes: int) -> None:
    y = torch.zeros(1, dtype=torch.int64)
    labels = torch.full((1, n_classes), smoothing / n_classes, dtype=torch.float64)
    labels[0, 0] += 1 - smoothing
    least = least_loss(smoothing, n_classes)
    best = cross_entropy(labels.clamp(min=1e-300).log(), y, label_smoothing=smoothing)
    assert float(best) == pytest.approx(least, abs=1e-9)
    for logits in torch.randn(20, 1, n_classes, dtype=torch.float64):
        assert float(cross_entropy(logits, y, label_smoothing=smoothing)) >= least


def test_patience_asks_for_so_many_epochs_in_a_row() -> None:
    patient = replace(RULES, patience=2)
    assert not stalls((1.0, 1.0), patient)
    assert stalls((1.0, 1.0, 0.99), patient)
    assert not stalls((1.0, 1.0, 0.9), patient)
    assert not stalls((1.0,), RULES)
