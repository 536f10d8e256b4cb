"""One point of a study taken apart: its pipeline and what it is without each ingredient, trained by turns."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from math import inf

import optuna
from optuna.trial import FrozenTrial

from objectives.words import counted
from search.ablation.course import Course, failed
from search.ablation.ingredients import Apart, taken_apart
from search.ablation.result import Ablation, ablation
from search.crew import Crew
from search.errors import UsageError
from search.invocation import Ablating
from search.session import of_stored, to_train
from search.study import opening, records
from search.study.snapshot import Snapshot
from search.study.study import Study
from search.views.ablation import words
from search.views.display import Display, display_of, resumable
from search.workers.seam import Training
from spaces.base import baseline


@dataclass(frozen=True)
class Outcome:
    """What an ablation came to."""

    now: Snapshot
    apart: Apart
    found: Ablation | None  # None: not one training of the whole pipeline came to its end
    is_over: bool  # nothing is left to train
    failures: Mapping[str, Collection[str]]  # key of what did not come to its end: why, in words


def ablate(asked: Ablating, training: Training) -> Outcome:
    """Takes a point apart, as far as it is not: trains all of its pipelines by turns, as often as was asked.

    The test split stays shut.

    Raises:
        UsageError, DataError, StorageError, DeviceError, DeviceFault: one line each, with the way out.
        KeyboardInterrupt: what was trained is kept, and the way to go on is printed.
    """
    began = time.monotonic()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    display = display_of(quiet=asked.quiet, verbose=asked.verbose)
    study = to_train(asked)
    with opening.understood(study.name):
        now = study.snapshot()
        point = _point(now, asked.trial)
        apart = _apart(now, point)
    deadline = inf if asked.minutes is None else began + 60 * asked.minutes
    course = Course(records.first(point), apart.variants, asked.seeds, deadline)
    if course.seconds_left(now):
        course = replace(course, n_workers=asked.at_a_time)
    _say_beforehand(course, apart, now, display)
    if course.seconds_left(now):
        with resumable(display, asked.again):
            now = _trained(asked, study, training, course, display)
        if course.seconds_left(now):
            display.say(f"time is up; to go on: {asked.again}")
    broken: dict[str, set[str]] = {}
    for (_, key), trial in failed(now, course.point):
        broken.setdefault(key, set()).add(records.reason(trial).replace("_", " "))
    done, total = course.done(now)
    return Outcome(now, apart, ablation(now, course.point), done == total, broken)


def _point(now: Snapshot, number: int) -> FrozenTrial:
    """The trial that is taken apart.

    Raises:
        UsageError: there is none such, or it says nothing by itself.
    """
    if not now.kind.is_timed:
        raise UsageError(f"study {now.name!r} minimises {now.kind.words}: what is taken apart is seconds of a clock")
    front = ", ".join(str(trial.number) for trial in now.front_trials) or "none yet"
    if number >= len(now.trials):
        raise UsageError(f"study {now.name!r} has no trial {number}: those of its front are {front}")
    trial = now.trials[number]
    of = trial.user_attrs.get(records.CONFIRM_OF, (trial.user_attrs.get(records.ABLATION) or {}).get("of"))
    if of is not None:
        raise UsageError(f"trial {number} only says more of trial {of}: take that one apart, --trial {of}")
    if not records.is_finished_run(trial):
        why = records.reason(trial).replace("_", " ") if trial.state.is_finished() else trial.state.name.lower()
        raise UsageError(f"trial {number} did not train to its end ({why}): those of the front are {front}")
    return trial


def _apart(now: Snapshot, point: FrozenTrial) -> Apart:
    """What it is made of.

    Raises:
        UsageError: of nothing that BASELINE is not made of, too.
    """
    known = now.baseline
    reference = records.pipeline(known) if known is not None else baseline(now.given)
    happened = " ".join(point.user_attrs.get(records.EVENTS, ()))
    happened += " ".join(moment.words for moment in records.timeline(point))
    found = taken_apart(now.pipeline(point), reference, now.given, happened)
    if not found.n_ingredients:
        said = "; ".join(words.left_out(found)) or "it is trained as BASELINE is"
        raise UsageError(f"trial {point.number} has nothing to switch off: {said}")
    return found


def _say_beforehand(course: Course, apart: Apart, now: Snapshot, display: Display) -> None:
    """What it will cost, and what is not looked into."""
    for line in words.left_out(apart):
        display.say(line)
    seconds, (done, total) = course.seconds_left(now), course.done(now)
    if not seconds:
        display.say(
            f"trial {course.point} is taken apart with {counted(course.n_seeds, 'seed')}: nothing to train; "
            "for more --seeds N"
        )
        return
    wall = course.wall_left(now)
    variants = f"{counted(len(course.variants), 'pipeline')}, {counted(course.n_seeds, 'time')} each"
    again = f", {done} of them done" if done else ""
    display.say(
        f"{counted(apart.n_ingredients, 'ingredient')} of trial {course.point} switched off in turn: {variants}: "
        f"{counted(total, 'training')}{again}; about {seconds:.3g} s of the device, {wall / 60:.1f} min on the wall"
    )


def _trained(asked: Ablating, study: Study, training: Training, course: Course, display: Display) -> Snapshot:
    """The study after the trainings of the course, on devices held meanwhile."""
    session = of_stored(study, asked, training, display)
    if session.place.mixed_devices:
        display.say("warning: devices of several models are mixed: two seconds of a pair may be of two of them")
    with session.opened(0) as (opened, objectives):
        course = replace(course, n_workers=len(objectives))
        display.study_started(opened.snapshot(), 0, goal=course)
        session.work(Crew(opened, display, 0, course.deadline, turns=course), objectives)
    return opened.snapshot()
