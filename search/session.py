"""One invocation: what was asked, a study opened for it, trials until it is enough, the result.

`run` searches and confirms what it found, in a share of its seconds; `confirm` does the rest and opens the test split.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf
from pathlib import Path
from typing import Any, cast

import optuna

from objectives.task import Task
from objectives.words import counted
from search import base
from search.crew import Crew
from search.database import file, storage
from search.database.file import READ_ONLY
from search.database.storage import Database
from search.errors import StorageError, UsageError
from search.host import devices
from search.host.called import command
from search.host.places import STUDIES
from search.invocation import Asked, Confirming, Invocation, Planning
from search.minutes import Planner, check_writable, refit, write
from search.planning.budget import Budget, least_minutes
from search.planning.plan import Plan
from search.proposals.samplers import OURS
from search.study import disturbance, opening, queue, records, recovery
from search.study.asked import override
from search.study.confirmation import SHARE
from search.study.files.unheeded import unheeded
from search.study.networks import Networks
from search.study.snapshot import Snapshot
from search.study.spec import StudySpec
from search.study.study import Study
from search.views import figures, summary
from search.views.display import Display, display_of, resumable, say_data
from search.workers import cluster
from search.workers.place import Cluster, Place, ThisHost, ThisProcess
from search.workers.seam import Objective, Remote, Training
from search.workers.single import told_as_device_fault


def run(asked: Invocation, training: Training) -> None:
    """Runs or resumes the study that is asked for, and prints its result.

    Raises:
        UsageError, DataError, StorageError, DeviceError, DeviceFault: one line each, with the way out.
        KeyboardInterrupt: the trials in flight are back in the queue, and the way to go on is printed.
    """
    with ExitStack() as held:
        _run(asked, training, held)


def _run(asked: Invocation, training: Training, held: ExitStack) -> None:
    began = time.monotonic()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if asked.minutes is not None and asked.timeout is not None:
        raise UsageError("--timeout is not allowed with --minutes, which says when all of it ends: leave one out")
    budget = None if asked.minutes is None else Budget(began - asked.age, 60 * asked.minutes)
    place = place_of(asked, asked.workers, mixed_devices=asked.mixed_devices)
    display = display_of(quiet=asked.quiet, verbose=asked.verbose)
    name, spec, place = _study_of(asked, place, training, display, held)
    base.check(spec, asked)
    if budget is not None and spec.search.sampler != OURS:
        display.say(f"warning: in minutes the sampler {OURS} proposes: {spec.search.sampler} is not asked")
    url = storage.url(asked.storage, spec.storage)
    if (warning := storage.on_network_file_system(url)) is not None:
        display.say(f"warning: {warning}")
    database, now, is_complete, n_trials = None, None, False, asked.total(0, spec)
    if not storage.is_new(url):  # a new one is made once devices and data are known to be usable
        database = storage.open_storage(url)
        with database.exclusive(name):  # another run may be creating it
            found = opening.find(name, database)
        with opening.understood(name):
            if found is not None:
                now = opening.opened(name, spec, found, database).snapshot()
                n_trials = asked.total(now.n_counted, spec)
                is_complete = budget is None and now.is_complete(n_trials)
    if now is None:
        base.check_model(spec)
    if now is None or not is_complete or opening.is_elsewhere(now, spec):  # other images tell another study
        deadline = began + spec.search.timeout if spec.search.timeout else inf
        best = f"{command('best')} --study {name}{storage.option(url)}"
        with resumable(display, asked.again(n_trials), best):
            now = Session(name, spec, url, database, place, training, display).train(n_trials, deadline, minutes=budget)
        if budget is None and not now.is_complete(n_trials):
            display.say(f"time is up; to go on: {asked.again(n_trials)}")
    if is_complete:
        done = counted(now.n_counted, "trial")
        display.say(f"study {name!r} is complete with {done}: nothing to train; for more add --add N")
    with opening.understood(name):
        _show(now, as_json=asked.json)
    if budget is not None and asked.minutes and not any(trial.state.is_finished() for trial in now.trials):
        least = least_minutes(now, time.monotonic() - budget.began, asked.minutes)
        raise UsageError(
            f"{counted(asked.minutes, 'minute')} {'is' if asked.minutes == 1 else 'are'} too few for a first network: "
            f"--minutes {least:g} would do, and goes on where this ended"
        )


def plan(asked: Planning, training: Training) -> tuple[Path, Plan]:
    """The plan for data and minutes, and the study file that it was written to.

    Raises:
        UsageError, DataError, StorageError, DeviceError, DeviceFault: one line each, with the way out.
    """
    planner = _planner(
        asked,
        place_of(asked, asked.workers, mixed_devices=False),
        training,
        display_of(quiet=asked.quiet, verbose=asked.verbose),
    )
    path = STUDIES / f"{planner.name}.toml"
    if path.exists():
        raise UsageError(f"{path} is there already: --as NAME for another one, or remove it")
    check_writable(path)
    with told_as_device_fault(), ExitStack() as held:
        made, _ = planner.plan(held)
    write(made, path)
    return path, made


def _planner(asked: Planning, place: Place, training: Training, display: Display) -> Planner:
    where = os.path.realpath(str(storage.sqlite_path(storage.url(asked.storage, None)) or STUDIES))
    return Planner(*asked.named, asked.minutes, place, training, display, where, asked.begun, asked.seed)


def confirm(asked: Confirming, training: Training) -> None:
    """Trains the front of a study again with fresh seeds, meets the test split with their networks, prints the result.

    Raises:
        UsageError, DataError, StorageError, DeviceError, DeviceFault: one line each, with the way out.
        KeyboardInterrupt: what was trained and tested is kept, and the way to go on is printed.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    display = display_of(quiet=asked.quiet, verbose=asked.verbose)
    study = to_train(asked)
    if not study.snapshot().front:
        raise UsageError(f"study {study.name!r} has no front yet, nothing that reached {study.floor:.2%}: run it first")
    session = of_stored(study, asked, training, display, confirm=asked.seeds)
    now = replace(study, spec=session.spec).snapshot()
    if now.is_complete(0, inf) and not now.untested:
        display.say(f"study {study.name!r} is confirmed: nothing to train or to test; for more seeds --seeds N")
    with resumable(display, asked.again):
        if not now.is_complete(0, inf):
            now = session.train(0, inf, inf)
        if now.untested:
            now = session.test()
    _show(now, as_json=asked.json)


def to_train(asked: Asked) -> Study:
    """The study that a command names which trains more of it.

    Raises:
        UsageError, StorageError: there is none, or its database cannot be written to.
    """
    database = storage.open_storage(storage.url(asked.storage, None), create=False)
    if database.read_only:
        raise StorageError(f"{database.shown} {READ_ONLY}")
    assert asked.study is not None  # its parser sees to it
    return opening.stored(asked.study, database)


def of_stored(study: Study, asked: Asked, training: Training, display: Display, **search: object) -> Session:
    """A session of such a study, on the kind of devices that it was measured on. `search`: what is changed there."""
    n_train, labels = study.spec.data.n_train, asked.labels or study.spec.data.labels  # wherever its data lie now
    moved = override(study.name, study.spec, asked.data, asked.data_root, n_train, None, labels)[1]
    spec = moved.model_copy(update={"search": moved.search.model_copy(update=search)})
    identity = study.attributes()[records.IDENTITY]
    workers, is_mixed = asked.workers_of(identity["workers"]), identity["device"]["model"] == records.MIXED
    place = place_of(asked, workers, mixed_devices=is_mixed)
    return Session(study.name, spec, study.database.url, study.database, place, training, display)


def _study_of(
    asked: Invocation, place: Place, training: Training, display: Display, held: ExitStack
) -> tuple[str, StudySpec, Place]:
    """(name, spec, where it trains) of the study that is asked for; for data and minutes one is planned.

    Raises:
        UsageError: neither a study nor data and minutes are named, or no such study is there.
    """
    if asked.study is not None:
        name, spec = asked.asked()
        if name not in (asked.as_name, Path(asked.study).stem):
            display.say(f"study {name!r}, named after what the command line changes; --as NAME names it otherwise")
        return name, spec, place
    if asked.data is None or asked.minutes is None:
        raise UsageError("no study is named: --study NAME, or --data folder:DIR --minutes M to have one planned")
    with told_as_device_fault(), resumable(display, asked.again(0)):
        name, spec, place = _planner(asked.planning, place, training, display).study(held)
    return name, asked.adapted(spec), place


def _created(url: str, display: Display) -> Database:
    """The new database of the URL, after a word of where it lies where its folder is new as well.

    Raises:
        StorageError: it cannot be made.
    """
    path = storage.sqlite_path(url)
    is_new = path is not None and not path.parent.exists()
    database = storage.open_storage(url)
    if is_new:
        display.say(f"{database.folder.absolute()} is new: database, networks and figures of studies lie there")
    return database


def place_of(asked: Asked, workers: int | None, *, mixed_devices: bool) -> Place:
    """Where it is to train. Devices that cannot be meant are refused before a study is looked for.

    Raises:
        UsageError, DeviceError: the words and the way out.
    """
    if asked.cluster is None:
        request = devices.requested(asked.device, workers)
        return ThisProcess(request) if asked.in_process else ThisHost(request, mixed_devices)
    if asked.in_process:
        raise UsageError("--in-process trains in this process, --cluster elsewhere: choose one")
    cluster.check(asked.cluster, asked.device)
    return Cluster(asked.cluster, asked.device, workers, mixed_devices)


@dataclass(frozen=True)
class Session:
    """A study that is about to be trained, with all that a run needs for it."""

    name: str
    spec: StudySpec
    url: str
    known: Database | None  # where it was there before
    place: Place
    training: Training
    display: Display

    @cached_property
    def database(self) -> Database:
        """The database, made now where there was none."""
        return self.known or _created(self.url, self.display)

    @property
    def where(self) -> str:
        """`Database.place`, also of a file that is still to be made."""
        return self.known.place if self.known else os.path.realpath(str(storage.sqlite_path(self.url)))

    @property
    def base(self) -> Path:
        """The folder of the network that is made smaller, also where nothing lies there yet."""
        networks = self.known.networks if self.known else file.networks(Path(self.where))
        return Networks(networks.absolute() / self.name).base

    @property
    def task(self) -> Task:
        """What every trial of the study has in common: where it began with streamed images, it goes on with such."""
        task = self.spec.task if self.spec.reduce is None else replace(self.spec.task, base=str(self.base))
        if self.known is None or not opening.streams(self.name, self.known):
            return task
        return replace(task, data=replace(task.data, streamed=True))

    def train(self, n_trials: int, deadline: float, share: float = SHARE, minutes: Budget | None = None) -> Snapshot:
        """The study, after its trials, and confirmations within the share, were run on devices held meanwhile.

        With `minutes`, what they suffice for was run, and the best pipeline trained on all images.
        """
        with self.opened(n_trials, in_minutes=minutes is not None) as (study, objectives):
            now = study.snapshot()
            until = min(deadline, minutes.deadline if minutes is not None else inf)
            self.display.study_started(now, n_trials or now.n_counted, until if until < inf else None)
            minutes = minutes and replace(minutes, n_before=len(now.trials))
            self.work(Crew(study, self.display, n_trials, until, share, minutes), objectives)
            if minutes is not None:
                halt = None if isinstance(self.place, ThisProcess) else cast("Remote", objectives[0]).halt
                refit(study, objectives[0], minutes, self.display, halt)
                rest = replace(minutes, is_refitted=True)
                self.work(Crew(study, self.display, n_trials, until, share, rest), objectives)
        return study.snapshot()

    @contextmanager
    def opened(self, n_trials: int, *, in_minutes: bool = False) -> Iterator[tuple[Study, Sequence[Objective]]]:
        """The study, of so many trials in all, open on devices that are held meanwhile; then figures are up to date."""
        with ExitStack() as held:
            held.enter_context(self.display)
            objectives = self.place.opened(
                self.name, self.task, self.where, self.training, held, self.display.data_read
            )
            study = self._open(objectives, n_trials, in_minutes=in_minutes)
            yield study, objectives
            figures.save(study.optuna, study.snapshot())
            self.database.checkpoint()

    def work(self, crew: Crew, objectives: Sequence[Objective]) -> None:
        """Runs the trials of a crew to their end."""
        if isinstance(self.place, ThisProcess):
            crew.work_here(objectives[0])
        else:
            crew.work(cast("Sequence[Remote]", objectives))

    def test(self) -> Snapshot:
        """The study, after the networks of its confirmations met the test split: in a process that trains nothing."""
        with ExitStack() as held:
            objective, *_ = self.place.opened(
                self.name, self.task, self.where, self.training, held, self.display.data_read
            )
            with told_as_device_fault():
                facts = opening.blurred(objective.facts(), self.place.mixed_devices)
                found = opening.loaded(self.name, self.database)
                study = opening.resumed(self.name, self.spec, found, self.database, facts, self.place.workers)
                self._test(study, objective)
            study.collect()
            self.database.checkpoint()
            return study.snapshot()

    def _test(self, study: Study, objective: Objective) -> None:
        untested, warnings = study.snapshot().untested, set[str]()
        here = [trial.number for trial in untested if study.networks.of(trial.number).is_dir()]
        if len(here) < len(untested):
            n = len(untested) - len(here)
            networks = counted(n, "network")
            self.display.say(f"warning: {networks} of fresh seeds on the machines that trained them: confirm there")
        self.display.say(f"the test split is opened, for {counted(len(here), 'network')} of fresh seeds")
        for number in here:
            found = objective.test(study.networks.of(number))
            if found is None:
                self.display.say("the data have no test split: the accuracies are those of the validation images")
                for each in here:
                    study.tell_test(each, {})
                return
            for warning in found.pop("warnings"):
                if warning not in warnings:
                    self.display.say(f"warning: {warning}")
                    warnings.add(warning)
            study.tell_test(number, found)

    def _open(self, objectives: Sequence[Objective], n_trials: int, *, in_minutes: bool) -> Study:
        """The study, created or resumed, with nothing left over from a run that died."""
        if not figures.installed():  # takes a second to find out, while the worker gets ready
            self.display.say("optuna-dashboard or plotly is not installed: notes and figures are left out")
        with told_as_device_fault():
            facts, *others = [opening.blurred(each.facts(), self.place.mixed_devices) for each in objectives]
            opening.check_alike(self.name, facts, others)
            say_data(facts, self.display)  # before number formats are timed, which takes seconds
            formats = None
            if self.known is None and self.spec.reduce is None:  # what is refused leaves no database
                formats = self._formats(facts, objectives[0])
                opening.checked(self.name, self.spec, facts, formats)
            with self.database.exclusive(self.name):  # of two runs that start at once, one creates it
                found = opening.find(self.name, self.database)
                facts = base.provided(
                    self.name, self.spec, self.base, objectives[0], self.display, facts, found is None
                )
                if found is not None:
                    study = opening.resumed(self.name, self.spec, found, self.database, facts, self.place.workers)
                else:
                    study = self._created(facts, objectives, formats or self._formats(facts, objectives[0]))
                queue.enqueue_anchors(study, n_trials, in_minutes=in_minutes)
        for number in recovery.recover(study):
            figures.note_trial(study.optuna, study.trials()[number])
            self.display.say(f"trial {number} was lost with the process that ran it: it is queued again")
        study.collect()
        return study

    def _formats(self, facts: Mapping[str, Any], objective: Objective) -> Mapping[str, str | None]:
        """The number formats, those that are left out with the reason."""
        found = base.number_format(facts) or objective.number_formats()
        for number_format, why in found.items():
            if why is not None:
                self.display.say(f"number format {number_format} is left out: {why}")
        return found

    def _created(
        self, facts: Mapping[str, Any], objectives: Sequence[Objective], number_formats: Mapping[str, str | None]
    ) -> Study:
        is_timed = self.spec.what.is_timed and self.spec.reduce is None
        calibration = disturbance.calibrated([each.reference for each in objectives]) if is_timed else {}
        study = opening.created(
            *(self.name, self.spec, self.database, facts, number_formats, self.place.workers, calibration),
            objectives[0].probe,
        )
        for warning in unheeded(self.spec, study.given):
            self.display.say(f"warning: {warning}")
        return study


def _show(now: Snapshot, *, as_json: bool) -> None:
    """Prints the result on stdout: a table, or one JSON object."""
    if as_json:
        print(json.dumps(summary.as_json(now)))  # in ASCII: it goes to whatever reads it
        return
    print(*summary.table(now), *summary.lines(now), sep="\n")
