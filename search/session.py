"""One invocation: what was asked, a study opened for it, trials until it is enough, the result."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from math import inf
from pathlib import Path
from typing import cast

import optuna
from rich.console import Console

from search.crew import Crew
from search.database import storage
from search.database.storage import Database
from search.errors import DeviceFault, UsageError
from search.host import devices
from search.study import disturbance, opening, records
from search.study.spec import StudySpec, check_name, override, read
from search.study.study import Study
from search.views import figures, summary
from search.views.display import Display, LiveDisplay, PlainDisplay
from search.workers import cluster
from search.workers.process import WorkerProcess
from search.workers.seam import Objective, Remote, Training, TrialFault, WorkerLost

MAX_LISTED = 20  # images that cannot be used
WIDE = 200  # columns of a table that does not go to a terminal


def run(options: argparse.Namespace, training: Training) -> None:
    """Runs or resumes the study that the command line asks for, and prints its result.

    Raises:
        UsageError, DataError, StorageError, DeviceError, DeviceFault: one line each, with the way out.
        KeyboardInterrupt: the trials in flight are back in the queue, and the way to go on is printed.
    """
    began = time.monotonic()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    name, spec = asked(options)
    _check_place(options)
    display = _display(options)
    if name not in (options.as_name, Path(options.study).stem):
        display.say(f"study {name!r}, named after what the command line changes; --as NAME names it otherwise")
    database = storage.open_storage(storage.url(options.storage, spec.storage))
    if (warning := storage.on_network_file_system(database.url)) is not None:
        display.say(f"warning: {warning}")
    with database.exclusive(name):  # another run may be creating it
        found = opening.find(name, database)
    study = opening.opened(name, spec, found, database) if found is not None else None
    done = records.n_counted(study.trials()) if study is not None else 0
    n_trials = done + options.add if options.add else options.n_trials or spec.search.n_trials
    if study is not None and study.is_complete(n_trials):
        display.say(f"study {name!r} is complete with {done} trials: nothing to train; for more add --add N")
    else:
        timeout = options.timeout or spec.search.timeout
        deadline = began + timeout if timeout else inf
        try:
            study = _train(options, name, spec, database, training, display, n_trials, deadline)
        except KeyboardInterrupt:
            display.say(f"interrupted; to go on: {_again(options, n_trials)}")
            raise
        if not study.is_complete(n_trials):
            display.say(f"time is up; to go on: {_again(options, n_trials)}")
    _show(study, options)


def asked(options: argparse.Namespace) -> tuple[str, StudySpec]:
    """(name, spec) of the study that the command line describes.

    Raises:
        UsageError: there is no such study, or it is not a valid one.
    """
    name, spec = read(options.study)
    name, spec = override(name, spec, options.data, options.data_root, options.n_train, options.seed, options.labels)
    changes = {key: getattr(options, key) for key in ("sampler", "stopping") if getattr(options, key) is not None}
    spec = spec.model_copy(update={"search": spec.search.model_copy(update=changes)})
    return check_name(options.as_name or name), spec


def _check_place(options: argparse.Namespace) -> None:
    """Refuses devices that cannot be meant, before a study is looked for.

    Raises:
        UsageError, DeviceError: the words and the way out.
    """
    if not options.cluster:
        devices.requested(options.device, options.workers)
    elif options.in_process:
        raise UsageError("--in-process trains in this process, --cluster elsewhere: choose one")
    else:
        cluster.check(options.cluster, options.device)


def _train(
    options: argparse.Namespace,
    name: str,
    spec: StudySpec,
    database: Database,
    training: Training,
    display: Display,
    n_trials: int,
    deadline: float,
) -> Study:
    """The study, after its trials were run on devices that were held meanwhile."""
    with ExitStack() as held:
        held.enter_context(display)
        if options.in_process:
            request = devices.requested(options.device, options.workers)
            (slot, *_) = held.enter_context(devices.taken(request, name, database.place))
            here = held.enter_context(closing(training(spec.task, slot.device, 1)()()))
            study = _open(options, name, spec, database, [here], request.workers, display)
            display.study_started(study, n_trials)
            Crew(study, display, n_trials, deadline).work_here(here)
        else:
            place = _on_cluster if options.cluster else _on_this_host
            workers, n_per_host = place(options, name, spec, database, training, held)
            study = _open(options, name, spec, database, workers, n_per_host, display)
            display.study_started(study, n_trials)
            Crew(study, display, n_trials, deadline).work(workers)
        figures.save(study)
        return study


def _on_this_host(
    options: argparse.Namespace, name: str, spec: StudySpec, database: Database, training: Training, held: ExitStack
) -> tuple[list[Remote], int | str]:
    """(a worker process per device that is free, workers of the study on a host)."""
    request = devices.requested(options.device, options.workers)
    slots = held.enter_context(devices.taken(request, name, database.place))
    made = [WorkerProcess(training(spec.task, slot.device, 1), fresh=slot.device == "cpu") for slot in slots]
    return [held.enter_context(closing(each)) for each in made], request.workers


def _on_cluster(
    options: argparse.Namespace, name: str, spec: StudySpec, database: Database, training: Training, held: ExitStack
) -> tuple[list[Remote], int | str]:
    """(workers on a cluster, which decides how many share a host)."""
    held.enter_context(cluster.joined(options.cluster))
    room = cluster.room(options.device, options.workers)
    preparation = training(spec.task, room.device, 1)
    made = [cluster.RayWorker(preparation, room, name, options.mixed_devices) for _ in range(room.n)]
    return [held.enter_context(closing(each)) for each in made], records.CLUSTER


def _open(
    options: argparse.Namespace,
    name: str,
    spec: StudySpec,
    database: Database,
    objectives: Sequence[Objective],
    workers: int | str,
    display: Display,
) -> Study:
    """The study, created or resumed, with nothing left over from a run that died."""
    if not figures.installed():  # takes a second to find out, while the worker gets ready
        display.say("optuna-dashboard or plotly is not installed: notes and figures are left out")
    try:
        facts, *others = [opening.blurred(each.facts(), options.mixed_devices) for each in objectives]
        opening.check_alike(name, facts, others)
        with database.exclusive(name):  # of two runs that start at once, one creates it
            found = opening.find(name, database)
            if found is not None:
                study = opening.resumed(name, spec, found, database, facts, workers)
            else:
                number_formats, calibration = (
                    objectives[0].number_formats(),
                    disturbance.calibrated([each.reference for each in objectives]),
                )
                study = opening.created(name, spec, database, facts, number_formats, workers, calibration)
                for number_format, why in study.optuna.user_attrs[records.FORMATS].items():
                    if why is not None:
                        display.say(f"number format {number_format} is left out: {why}")
            study.enqueue_anchors()
    except TrialFault as fault:
        raise DeviceFault(f"the worker cannot start: {fault}") from fault
    except WorkerLost as lost:
        raise DeviceFault(f"a worker was lost before the study began: {lost}: run the command again") from lost
    if about := facts.get("about"):
        display.say(str(about))
    _say_skipped(cast("list[str]", facts["skipped"]), display)
    for warning in cast("list[str]", facts["warnings"]):
        display.say(f"warning: {warning}")
    for number in study.recover():
        figures.note_trial(study, number)
        display.say(f"trial {number} was lost with the process that ran it: it is queued again")
    study.collect()
    return study


def _say_skipped(skipped: list[str], display: Display) -> None:
    if skipped:
        display.say(f"{len(skipped)} images cannot be used and are left out:")
    for image in skipped[:MAX_LISTED]:
        display.say(f"  {image}")
    if len(skipped) > MAX_LISTED:
        display.say(f"  ... and {len(skipped) - MAX_LISTED} more")


def _show(study: Study, options: argparse.Namespace) -> None:
    """Prints the result on stdout: a table, or one JSON object."""
    if options.json:
        print(json.dumps(summary.as_json(study), ensure_ascii=False))
        return
    terminal = sys.stdout.isatty()
    out = Console(file=sys.stdout, width=None if terminal else WIDE, highlight=False, markup=False)
    out.print(summary.table(study))
    for line in summary.lines(study):
        out.print(line, soft_wrap=True)


def _display(options: argparse.Namespace) -> Display:
    err = Console(stderr=True)
    if options.quiet:
        return Display()
    if err.is_terminal and not options.verbose:
        return LiveDisplay(err)
    return PlainDisplay(err, every_epoch=options.verbose)


def _again(options: argparse.Namespace, n_trials: int) -> str:
    """The command that goes on: the same one, but `--add` counts from where the study stood before."""
    words = [_without_password(word) for word in options.words]
    if options.add:
        at = next(i for i, word in enumerate(words) if word.startswith("--add"))
        words[at : at + (1 if "=" in words[at] else 2)] = ["--n-trials", str(n_trials)]
    return f"python -m search.run {shlex.join(words)}"


def _without_password(word: str) -> str:
    """A word of the command line as it may be printed: a URL with a password says *** instead."""
    flag, _, value = word.partition("=") if word.startswith("--storage=") else ("", "", word)
    shown = storage.shown(value) if "://" in value else value
    return f"{flag}={shown}" if flag else shown
