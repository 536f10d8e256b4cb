"""The point of a front that was asked for, with what stands beside it: for people, and as JSON."""

from __future__ import annotations

from dataclasses import asdict

from objectives.words import counted
from search.host.called import command
from search.pareto.choice import Candidate, Choice
from search.study import records
from search.study.networks import Networks
from search.study.snapshot import Snapshot
from search.views.confirmed import MARK
from search.views.reduction import against

NAMES = ("best", "cheaper", "dearer")


def as_json(found: Choice, now: Snapshot) -> dict[str, object]:
    """What a program is told; accuracies and costs are means of fresh seeds where there are any."""
    points = {name: getattr(found, name) for name in NAMES}
    told = {name: _point(point, now) if point is not None else None for name, point in points.items()}
    return {"study": now.name, **told, "refit": _refit(found.best, now)}


def lines(found: Choice, now: Snapshot, min_accuracy: float | None) -> list[str]:
    """What people are told."""
    best = found.best
    trial, network = now.trials[best.trial], now.network(best.trial)
    said = [_in_words(best, now), f"  {records.in_words(trial)}"]
    if now.base is not None:
        said.append(f"  {against.words(best.cost, trial, now.base)}, of {against.of_base(now.base)}")
    if min_accuracy is not None and best.interval[0] < min_accuracy:
        said.append(f"  its interval reaches below {min_accuracy:.2%}: that it is so accurate is not certain")
    if now.is_disturbed(trial):
        said.append(f"  {MARK} other work disturbed the device whenever this was timed")
    where = "not on this machine: it lies where it was trained" if network is None else str(network)
    said.append(f"network   {where}")
    return [*said, *_of_all_images(best, now), *_beside(found, now)]


def lacking(now: Snapshot, at_most: float | None, min_accuracy: float | None) -> str:
    """Why nothing on the front is as was asked, with what comes next."""
    if not now.candidates:
        run = f"{command('run')} --study {now.name}"
        return f"study {now.name!r} has no front yet, nothing that reached {now.floor:.2%}: {run} goes on"
    if at_most is not None:
        nearest, what = min(now.candidates, key=lambda each: each.cost), now.kind.cheapest
        asked = (
            f"trains in {at_most:g} {now.kind.unit}"
            if now.kind.trains
            else f"has {at_most / now.kind.scale:g} {now.kind.unit} or less"
        )
    else:
        nearest, what = max(now.candidates, key=lambda each: each.accuracy), "most accurate"
        asked = f"reaches {min_accuracy or 0:.2%}"
    return f"nothing on the front of {now.name!r} {asked}: the {what} is {_in_words(nearest, now)}"


def _beside(found: Choice, now: Snapshot) -> list[str]:
    """The nearest alternatives."""
    cheaper, dearer, low = found.cheaper, found.dearer, found.best.interval[0]
    is_alike = cheaper is not None and cheaper.interval[1] >= low
    alike = ", as accurate for all that is known" if is_alike else ""
    return [
        f"{now.kind.cheaper:<10}{'none' if cheaper is None else _in_words(cheaper, now)}{alike}",
        f"{'better':<10}{'none' if dearer is None else _in_words(dearer, now)}",
    ]


def _in_words(point: Candidate, now: Snapshot) -> str:
    low, high = point.interval
    mark = MARK if now.is_disturbed(now.trials[point.trial]) else ""
    source = f"mean of {counted(point.n_seeds, 'fresh seed')}" if point.n_seeds else "of a single run"
    cost = f"{'in' if now.kind.trains else 'with'} {mark}{now.kind.brief(point.cost, 3)}"
    return f"trial {point.trial}: {point.accuracy:.2%} {cost} ({source}; {low:.1%} to {high:.1%})"


def of_all(now: Snapshot) -> int | None:
    """The trial with whose pipeline a network was trained on all images; None where no such network lies here."""
    told = now.attributes.get(records.REFIT)
    return int(told["trial"]) if told and Networks(now.artifacts.absolute()).refit.is_dir() else None


def _refit(point: Candidate, now: Snapshot) -> str | None:
    """The folder of the network that the same pipeline trained on all images; None where there is none."""
    return str(Networks(now.artifacts.absolute()).refit) if of_all(now) == point.trial else None


def _of_all_images(best: Candidate, now: Snapshot) -> list[str]:
    """Where the network is that was trained on all images, whichever point's pipeline that was."""
    if of_all(now) is None:
        return []
    told, folder = now.attributes[records.REFIT], Networks(now.artifacts.absolute()).refit
    of = "" if told["trial"] == best.trial else f", the pipeline of trial {told['trial']}"
    return [f"all       {folder} (trained on all images{of}: expect {told['accuracy']:.1%})"]


def _point(point: Candidate, now: Snapshot) -> dict[str, object]:
    trial, network = now.trials[point.trial], now.network(point.trial)
    return {
        **{_key(name, now): value for name, value in asdict(point).items()},
        "network": str(network) if network is not None else None,
        "noisy": trial.user_attrs.get(records.NOISY),
        "pipeline": trial.user_attrs[records.PIPELINE],
        "pipeline_words": records.in_words(trial),
    }


def _key(name: str, now: Snapshot) -> str:
    """What a program knows a field of a candidate by: its cost as the kind of study calls it."""
    return name.replace("cost", now.kind.metric)
