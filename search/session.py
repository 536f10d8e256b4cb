"""One invocation: what was asked, a study opened for it, trials until it is enough, the result."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from contextlib import closing
from math import inf
from pathlib import Path
from typing import cast

import optuna
from optuna.storages import RDBStorage
from rich.console import Console

from search import figures, records, storage, summary, trial
from search.display import Display, LiveDisplay, PlainDisplay
from search.errors import DeviceFault
from search.spec import StudySpec, check_name, override, read
from search.study import FORMATS, Study, created, find, opened, resumed
from search.worker import Objective, TrialFault, WorkerProcess

FIGURES_EVERY = 10  # trials: each figure is sent to every open dashboard again
CRASHES_IN_A_ROW = 3  # end a run: what crashes every trial is not the trials' fault
MAX_LISTED = 20  # images that cannot be used
WIDE = 200  # columns of a table that does not go to a terminal


def run(options: argparse.Namespace) -> None:
    """Runs or resumes the study that the command line asks for, and prints its result.

    Raises:
        UsageError, DataError, StorageError, DeviceError, DeviceFault: one line each, with the way out.
        KeyboardInterrupt: the trial in flight is back in the queue, and the way to go on is printed.
    """
    began = time.monotonic()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    name, spec = asked(options)
    url = storage.url(options.storage, spec.storage)
    display = _display(options)
    with storage.held(name, url):
        database = storage.open_storage(url)
        found = find(name, database)
        done = records.n_counted(found.get_trials(deepcopy=False)) if found is not None else 0
        n_trials = done + options.add if options.add else options.n_trials or spec.search.n_trials
        artifacts = storage.artifacts(url, name)
        if found is not None and done >= n_trials:
            study = opened(name, spec, found, artifacts)
            display.say(f"study {name!r} is complete with {done} trials: nothing to train; for more add --add N")
        else:
            timeout = options.timeout or spec.search.timeout
            try:
                with display, closing(_objective(options, spec)) as objective:
                    study = _open(name, spec, found, database, objective, artifacts, display)
                    _train(study, objective, display, n_trials, began + timeout if timeout else inf)
            except KeyboardInterrupt:
                display.say(f"interrupted; to go on: {_again(options, n_trials)}")
                raise
            if study.n_left(n_trials):
                display.say(f"time is up; to go on: {_again(options, n_trials)}")
        _show(study, url, options)


def asked(options: argparse.Namespace) -> tuple[str, StudySpec]:
    """(name, spec) of the study that the command line describes.

    Raises:
        UsageError: there is no such study, or it is not a valid one.
    """
    name, spec = read(options.study)
    name, spec = override(name, spec, options.data, options.data_root, options.n_train, options.seed)
    changes = {key: getattr(options, key) for key in ("sampler", "stopping") if getattr(options, key) is not None}
    spec = spec.model_copy(update={"search": spec.search.model_copy(update=changes)})
    return check_name(options.as_name or name), spec


def _objective(options: argparse.Namespace, spec: StudySpec) -> Objective:
    """Whatever trains; a worker process gets ready in the background."""
    if options.in_process:
        from objectives.objective import TrainingObjective

        return TrainingObjective(spec.task, options.device)
    return WorkerProcess(spec.task, options.device)


def _open(
    name: str,
    spec: StudySpec,
    found: optuna.Study | None,
    database: RDBStorage,
    objective: Objective,
    artifacts: Path,
    display: Display,
) -> Study:
    """The study, created or resumed, with nothing left over from a run that died."""
    if not figures.installed():  # takes a second to find out, while the worker gets ready
        display.say("optuna-dashboard or plotly is not installed: notes and figures are left out")
    try:
        facts = objective.facts()
        if found is not None:
            study = resumed(name, spec, found, facts, artifacts)
        else:
            study = created(name, spec, database, facts, objective.number_formats(), artifacts)
            for number_format, why in study.optuna.user_attrs[FORMATS].items():
                if why is not None:
                    display.say(f"number format {number_format} is left out: {why}")
    except TrialFault as fault:
        raise DeviceFault(f"the worker cannot start: {fault}") from fault
    skipped = cast("list[str]", facts["skipped"])
    if skipped:
        display.say(f"{len(skipped)} images cannot be used and are left out:")
    for image in skipped[:MAX_LISTED]:
        display.say(f"  {image}")
    if len(skipped) > MAX_LISTED:
        display.say(f"  ... and {len(skipped) - MAX_LISTED} more")
    for number in study.recover():
        figures.note_trial(study, number)
        display.say(f"trial {number} was lost with the process that ran it: it is queued again")
    study.enqueue_anchors()
    study.collect()
    return study


def _train(study: Study, objective: Objective, display: Display, n_trials: int, deadline: float) -> None:
    """Runs trials until the study has `n_trials`, or the deadline passes."""
    display.study_started(study, n_trials)
    n_crashes = 0
    while study.n_left(n_trials) and time.monotonic() < deadline:
        try:
            number, reason = trial.run(study, objective, display, deadline)
        except trial.OutOfTime:
            break
        figures.note_trial(study, number)
        if (number + 1) % FIGURES_EVERY == 0:
            figures.save(study)
        n_crashes = n_crashes + 1 if reason == "crash" else 0
        if n_crashes == CRASHES_IN_A_ROW:
            message = study.trials()[number].user_attrs.get(records.MESSAGE)
            raise DeviceFault(
                f"{n_crashes} trials in a row crashed, the last with: {message}; --in-process shows where"
            )
    figures.save(study)


def _show(study: Study, url: str, options: argparse.Namespace) -> None:
    """Prints the result on stdout: a table, or one JSON object."""
    if options.json:
        print(json.dumps(summary.as_json(study, storage.shown(url)), ensure_ascii=False))
        return
    terminal = sys.stdout.isatty()
    out = Console(file=sys.stdout, width=None if terminal else WIDE, highlight=False, markup=False)
    out.print(summary.table(study))
    for line in summary.lines(study, storage.shown(url)):
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
    words = list(options.words)
    if options.add:
        at = next(i for i, word in enumerate(words) if word.startswith("--add"))
        words[at : at + (1 if "=" in words[at] else 2)] = ["--n-trials", str(n_trials)]
    return f"python -m search.run {shlex.join(words)}"
