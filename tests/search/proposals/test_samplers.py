"""Optuna's samplers, as studies ask them."""

from __future__ import annotations

import optuna
import pytest
from optuna.samplers import TPESampler

from search.proposals.samplers import OURS, experimental, question, sampler


def asked(one: float, sampled_by: optuna.samplers.BaseSampler, n: int = 10) -> list[dict[str, float]]:
    """What a sampler proposes, n times, to a study of 40 trials whose first objective is `one` to the power of x."""
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda t: (one ** t.suggest_float("x", 0, 1), t.suggest_float("y", 0, 1)), n_trials=40)
    study.sampler = sampled_by
    found = []
    for _ in range(n):
        trial = study.ask()
        found.append({name: trial.suggest_float(name, 0, 1) for name in ("x", "y")})
    return found


def test_tpe_proposes_the_same_whatever_the_unit_of_a_decade() -> None:
    """In decades 10^x and (10^9)^x are the same up to a factor; in seconds they are not."""
    assert asked(10.0, sampler("tpe", 1)) == asked(1e9, sampler("tpe", 1))
    with experimental():
        plain = [TPESampler(multivariate=True, group=True, constant_liar=True, seed=1) for _ in range(2)]
    assert asked(10.0, plain[0]) != asked(1e9, plain[1])


def test_a_gaussian_process_proposes_near_alike_whatever_the_unit_of_a_decade() -> None:
    for one, other in zip(asked(10.0, sampler("gp", 1), 2), asked(1e9, sampler("gp", 1), 2), strict=True):
        assert one == pytest.approx(other, abs=1e-3)


def test_no_question_is_asked_twice_alike() -> None:
    seeds = {question(seed, n, waiting) for seed in range(3) for n in range(20) for waiting in range(3)}
    assert len(seeds) == 3 * 20 * 3
    assert question(1, 2, 3) == question(1, 2, 3)


def test_an_unknown_sampler_is_refused_with_what_there_is() -> None:
    with pytest.raises(ValueError, match=f"unknown sampler 'grid': choose one of {OURS}, tpe, nsga2, gp, random"):
        sampler("grid", 0)
