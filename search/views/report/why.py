"""What makes a point of the front fast: a sentence, from the work that its run did and how fast it did it.

Of a network that was made smaller: how much smaller it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from objectives.strategies import STRATEGIES
from search.pareto.intervals import Estimate, wilson
from search.study import records
from search.study.snapshot import Snapshot
from search.views.drawing import points
from search.views.drawing.points import Shown
from search.views.effects import NAMES
from search.views.reduction import against
from spaces.ingredients import EVERYTHING

NOTHING = 1.05  # times: less of a factor is no news
LESS_WORK = {
    "grow",
    "prune",
    "resolution",
    "freeze",
    "stride",
    "haar",
    "data",
    "lowrank",
    "morph",
    "adaptive",
    "lottery",
}
SWITCHES = {strategy.__name__: switch for switch, (strategy, _) in EVERYTHING.items()}


def sentence(each: Shown, now: Snapshot) -> str:
    """Why a point takes the seconds that it takes, against BASELINE where that was trained; or how small it is."""
    if now.base is not None:
        accuracy = now.base["accuracy"]
        before = Estimate(accuracy, wilson(accuracy, now.n_sure))
        return f"{against.words(each.cost.mean, each.trial, now.base)}. {_accuracy(each.accuracy, before)}"
    baseline = points.baseline(now)
    if baseline is None:
        return _alone(each)
    if baseline.number == each.number:
        return "This is BASELINE, with which the others are compared."
    accuracy = _accuracy(each.accuracy, baseline.accuracy)
    if each.is_disturbed or baseline.is_disturbed:
        return f"{_alone(each)} {accuracy} Seconds were disturbed: no speed-up is claimed."
    return f"{_speed(each, baseline)} {accuracy}"


def factors(trial: Mapping[str, Any], baseline: Mapping[str, Any]) -> dict[str, float]:
    """By what a run is faster, as a product: fewer epochs, less work an epoch, more work a second.

    Both: user attributes of finished runs. Above 1 is faster.
    """
    (n, took), (n_baseline, took_baseline) = (_last(each) for each in (trial, baseline))
    work, work_baseline = trial["train_flops"], baseline["train_flops"]
    return {
        "epochs": n_baseline / n,
        "work": (work_baseline / n_baseline) / (work / n),
        "rate": (work / took) / (work_baseline / took_baseline),
    }


def _last(attributes: Mapping[str, Any]) -> tuple[int, float]:
    """(epochs, seconds) of a run."""
    epoch, seconds, *_ = attributes[records.CURVE][-1]
    return epoch, (attributes.get(records.MODELLED) or [seconds])[-1]


def _alone(each: Shown) -> str:
    """What a run is, without a comparison."""
    n, took = _last(each.trial.user_attrs)
    return f"{n} epochs of {took / n:.2g} {each.kind.unit}."


def _speed(each: Shown, baseline: Shown) -> str:
    """How much faster, and by what."""
    ratio, is_told = baseline.cost.mean / each.cost.mean, _are_apart(each.cost, baseline.cost)
    if not is_told or 1 / NOTHING < ratio < NOTHING:
        head = "About as fast as BASELINE"
    else:
        head = f"{_times(ratio)} as fast as BASELINE" if ratio > 1 else f"Takes {_times(1 / ratio)} as long as BASELINE"
    try:
        found = factors(each.trial.user_attrs, baseline.trial.user_attrs)
    except (LookupError, ZeroDivisionError):  # a run of an earlier version did not tell its work
        return f"{head}."
    if not all(math.isfinite(factor) and factor > 0 for factor in found.values()):
        return f"{head}."
    ours, theirs = each.trial.user_attrs, baseline.trial.user_attrs
    reasons = {"epochs": _epochs(ours, theirs), "work": _work(ours, theirs), "rate": _rate(ours, theirs)}
    causes = {
        "epochs": ("fewer epochs", "more epochs"),
        "work": ("less work in an epoch", "more work in an epoch"),
        "rate": ("faster work", "slower work"),
    }
    gains = [f"{_times(f)} from {causes[k][0]}{reasons[k]}" for k, f in found.items() if f >= NOTHING]
    losses = [f"{_times(1 / f)} from {causes[k][1]}{reasons[k]}" for k, f in found.items() if f <= 1 / NOTHING]
    first, second = (gains, losses) if ratio >= 1 else (losses, gains)
    parts = [", ".join(each) for each in (first, second) if each]
    if not first:
        return f"{head}."
    return f"{head}: {' against '.join(parts)}."


def _epochs(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    return f" ({_last(ours)[0]} instead of {_last(theirs)[0]})"


def _work(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """What changes the work of an epoch."""
    one, other = ours[records.PIPELINE], theirs[records.PIPELINE]
    said = [f"{name} {one[name]:g}" for name in ("depth", "width") if one.get(name) != other.get(name)]
    said += [NAMES[switch] for switch in _switches(one) if switch in LESS_WORK]
    return _listed(said)


def _rate(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """What changes how fast work is done."""
    one, other = ours[records.PIPELINE], theirs[records.PIPELINE]
    said = [one["number_format"]] if one["number_format"] != other["number_format"] else []
    named = [each.get("strategy", "") for each in one.get("strategies", ())]
    said += [f"emulated {name}" for name in named if name in STRATEGIES and STRATEGIES[name].emulated]
    said += [f"batch {one['batch_size']}"] if one["batch_size"] != other["batch_size"] else []
    return _listed(said)


def _switches(pipeline: Mapping[str, Any]) -> Sequence[str]:
    """The strategies of a pipeline, by their names in the spaces."""
    named = (SWITCHES.get(each.get("strategy", "")) for each in pipeline.get("strategies", ()))
    return [switch for switch in named if switch is not None]


def _accuracy(ours: Estimate, theirs: Estimate) -> str:
    """How much more accurate, as far as intervals tell."""
    difference = 100 * (ours.mean - theirs.mean)
    half = 100 * math.hypot(ours.half or 0.0, theirs.half or 0.0)
    if abs(difference) <= half:
        return f"As accurate, for all that is known ({difference:+.2f} points, ±{half:.2f})."
    return f"{abs(difference):.2f} points {'more' if difference > 0 else 'less'} accurate (±{half:.2f})."


def _are_apart(one: Estimate, other: Estimate) -> bool:
    """Whether intervals leave no doubt about which is less; where there are none, the values have to do."""
    if one.interval is None or other.interval is None:
        return True
    return one.interval[1] < other.interval[0] or other.interval[1] < one.interval[0]


def _times(factor: float) -> str:
    return f"{factor:.1f}x" if factor < 10 else f"{factor:.0f}x"


def _listed(said: Sequence[str]) -> str:
    return f" ({', '.join(said)})" if said else ""
