"""A pipeline trained anew outside of a study: on given data, with fresh seeds, each network exported.

What came to its end stays whatever happens next: the same command goes on with the rest.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from objectives.feasibility import obstacle
from objectives.inference.folder import description
from objectives.networks import families
from objectives.pipeline import Report
from objectives.strategies.transfer import Transfer
from objectives.task import Seeds, Task
from objectives.words import counted, printable
from search.errors import UsageError, told_as_no_room
from search.host import devices, interruptions
from search.invocation import Retraining
from search.minutes import calibration_of_twin
from search.pareto.intervals import as_many
from search.planning.plan import family_for
from search.planning.promise import n_whole, promised, spread
from search.study import records
from search.study.asked import asked_start
from search.study.confirmation import ACCURACIES
from search.study.files.recipes import Recipe
from search.study.spec import check_begins
from search.views.display import Display, display_of, resumable, say_data
from search.views.training import words
from search.views.training.words import OfAll, Result, Run
from search.workers.place import ThisHost, ThisProcess
from search.workers.seam import Objective, Training
from search.workers.single import GivenUp, to_its_end, told_as_device_fault

FRESH = 3  # and the number of a seed, among those of trial 0: nothing that a study trains has them
OURS = "trained_anew"  # in the description of an export: by what it is known again
ALL, ALL_IMAGES = "all", "all images"  # the folder of the network that was trained on all images; its seed is number 0
NETWORK = re.compile(rf"seed-[1-9]\d*|{ALL}")  # the folders of several


def train(asked: Retraining, made: Recipe, known: Task | None, training: Training) -> None:
    """Trains what is asked for, or the rest of it, and prints the result.

    `known`: what the pipeline was found on, where a study says so.

    Raises:
        UsageError, DataError, StorageError, DeviceError, DeviceFault: one line each, with the way out.
        KeyboardInterrupt: the networks so far are exported, and the way to go on is printed.
    """
    display = display_of(quiet=asked.quiet, verbose=asked.verbose, what="seed")
    made = _begun(made, asked)
    places, task = _Places.of(asked), _task(made, asked, known, display)
    request = devices.requested(asked.device)
    if request.n > 1:
        raise UsageError(f"--device {asked.device}: the trainings follow one another on one device: name one")
    place = ThisProcess(request) if asked.in_process else ThisHost(request, False)
    with ExitStack() as held, resumable(display, asked.again):
        held.enter_context(display)
        name, where = f"training {asked.output}", os.path.realpath(asked.place)
        objective, *_ = place.opened(name, task, where, training, held, display.data_read)
        with told_as_device_fault():
            facts = objective.facts()
        result = _Work(asked, made, task, objective, facts, display, places).done()
    if asked.json:
        print(json.dumps(words.as_json(result)))  # in ASCII: it goes to whatever reads it
    else:
        print(*map(printable, words.lines(result)), sep="\n")


@dataclass(frozen=True)
class _Places:
    """Where networks lie: one in the folder that was named, several in folders within."""

    seeds: Mapping[int, Path]
    of_all: Path | None

    @classmethod
    def of(cls, asked: Retraining) -> _Places:
        """The places of what is asked for.

        Raises:
            UsageError: something else is there, or nothing can be.
        """
        place, numbers = asked.place, range(1, asked.seeds + 1)
        if not asked.seeds and not asked.whole:
            raise UsageError("--seeds 0 trains nothing: say a number of seeds, or --whole as well")
        if not place.absolute().parent.is_dir():
            raise UsageError(f"there is no folder {place.absolute().parent}: make it, or name another one with -o")
        if place.exists() and not place.is_dir():
            raise UsageError(f"--output {asked.output} is a file: name a folder to make")
        if asked.seeds + asked.whole == 1:
            _check_ours(asked.output, place, is_one=True)
            return cls(dict.fromkeys(numbers, place), place if asked.whole else None)
        _check_ours(asked.output, place, is_one=False)
        return cls({n: place / f"seed-{n}" for n in numbers}, place / ALL if asked.whole else None)


def _check_ours(output: str, place: Path, *, is_one: bool) -> None:
    """Refuses a folder that holds something else than networks of this command: one, or several in folders within."""
    there = [each for each in place.iterdir() if not each.name.startswith(".")] if place.is_dir() else []
    if not there:
        return
    has_one = OURS in (description(place) or {})
    has_several = all(NETWORK.fullmatch(each.name) and OURS in (description(each) or {}) for each in there)
    if not (has_one or has_several) or place.resolve() == Path.cwd():
        what = "a network of this command" if is_one else "a folder of networks of this command alone"
        raise UsageError(f"--output {output} is there, and not {what}: name a folder to make")
    if is_one and not has_one:
        raise UsageError(f"--output {output} holds networks of several trainings: ask for two or more, or name another")
    if has_one and not is_one:
        raise UsageError(f"--output {output} is the network of a single training: name another folder for several")


def _begun(made: Recipe, asked: Retraining) -> Recipe:
    """The recipe that begins from the network which the command line names, or from the one that it says itself.

    Raises:
        UsageError: there is none such, or it has other weights.
    """
    pipeline = made.pipeline
    if asked.start is not None:
        named = asked_start(asked.start)
        others = tuple(each for each in pipeline.strategies if not isinstance(each, Transfer))
        try:
            pipeline = replace(pipeline, strategies=(Transfer(named.source, named.digest), *others))
        except ValueError as error:
            raise UsageError(f"--start {asked.start}: {error}") from error
    try:
        family = made.family
        for each in pipeline.strategies:
            if isinstance(each, Transfer) and (known := each.known()) is not None:
                family = family or known.family
    except ValueError as error:
        raise UsageError(
            f"the pipeline cannot begin as it says: {error}: --start names where the network lies now"
        ) from error
    return replace(made, pipeline=pipeline, family=family)


def _task(made: Recipe, asked: Retraining, known: Task | None, display: Display) -> Task:
    """What is learned.

    Raises:
        UsageError: it cannot be said.
    """
    data = asked.images(None if known is None else known.data, made.size, made.split)
    if known is not None and known.data.n_train is not None:
        before, n = known.data.n_train, data.n_train
        others = f"the study had {counted(before, 'image')} to train, this has {n or 'all that validation leaves'}"
        same = f"{counted(before, 'image')} to train, as in the study: --n-train N for another number"
        display.say(same if n == before else others)
    family = asked.family or made.family
    if family is None and made.origin is not None:
        names = ", ".join(families.ALL)
        raise UsageError(f"{asked.pipeline} does not say of which family its network is: add --family, of {names}")
    if family is None:
        family = "cnn1d" if data.is_series else family_for(data.side)
        display.say(f"networks of family {family}: nothing says which; --family names another")
    start = next((each.source for each in made.pipeline.strategies if isinstance(each, Transfer)), None)
    task = Task(data, family, made.stem_stride, made.test_time_flip, start=start or None)
    try:
        check_begins(task)
    except ValueError as error:
        raise UsageError(printable(f"--family {family}: {error}")) from error
    return task


@dataclass
class _Work:
    """The trainings of one command."""

    asked: Retraining
    made: Recipe
    task: Task
    objective: Objective
    facts: Mapping[str, Any]  # of the worker
    display: Display
    places: _Places
    failed: list[tuple[int, str]] = field(default_factory=list)  # seed, why it did not come to its end

    def done(self) -> Result:
        """What all trainings came to.

        Raises:
            UsageError: the pipeline cannot train on these data, or diverged with every seed; a folder is in the way.
        """
        data = self.facts["data"]
        if (reason := obstacle(self.made.pipeline, self.task, data["size"], data["n_train"])) is not None:
            raise UsageError(f"the pipeline cannot be trained on {self.task.data.name}: {reason}")
        before = {number: self._ended(folder, number) for number, folder in self.places.seeds.items()}
        if self.places.of_all is not None:
            before[0] = self._ended(self.places.of_all, 0)
        say_data(self.facts, self.display)
        for number in (number for number, about in before.items() if about is not None):
            self.display.say(f"{_title(number)} was trained before")
        runs = self._runs(before)
        return Result(
            self.made.pipeline,
            self.task.family,
            self.task.data.name,
            data["n_train"],
            data["n_val"],
            self._n_sure,
            self.facts["device"]["model"],
            self.made.metric,
            runs,
            self.failed,
            None if self.places.of_all is None else self._of_all(self.places.of_all, before[0], runs),
            self._of_origin(),
        )

    @property
    def _n_sure(self) -> int:
        """Images from whose number an interval of an accuracy comes."""
        return as_many(self.made.metric, self.facts.get("validated", ()), self.facts["data"]["n_val"])

    @property
    def _identity(self) -> dict[str, object]:
        """What a network follows from, beside its seed: as its description tells it."""
        device, data = self.facts["device"], self.facts["data"]
        return {
            "pipeline": self.made.pipeline.to_json(),
            "data": {"content": data["content"], "split": data["split"]},
            "network": [self.task.family, self.task.stem_stride, self.task.test_time_flip],
            "seed": self.asked.seed,
            "device": [device["model"], device["torch"]],
        }

    def _ended(self, folder: Path, number: int) -> Mapping[str, Any] | None:
        """What is known of the training of a seed that ended before; None where it did not.

        Raises:
            UsageError: it was trained otherwise.
        """
        if (about := description(folder)) is None:
            return None
        told: Mapping[str, Any] = about[OURS]
        now = {**self._identity, "number": number}
        if changed := [name for name in now if told.get(name) != now[name]]:
            raise UsageError(f"{folder} was trained with another {' and '.join(changed)}: name another folder with -o")
        return told

    def _runs(self, before: Mapping[int, Mapping[str, Any] | None]) -> list[Run]:
        runs = []
        for number, folder in self.places.seeds.items():
            told = before[number] or self._trained(number, folder, {})
            if told is not None:
                runs.append(Run(number, told["train_seconds"], told["wall_seconds"], told["accuracy"], folder))
        if self.failed and not runs:
            seeds = counted(len(self.failed), "seed")
            raise UsageError(f"the pipeline diverged with {seeds}, {self.failed[0][1]}: lower its learning rate, lr")
        return runs

    def _of_all(self, folder: Path, told: Mapping[str, Any] | None, runs: Sequence[Run]) -> OfAll:
        data, promise = self.facts["data"], None
        n = n_whole(data, self.facts.get("n_splits", 1))
        if runs:
            found, n_val = [run.accuracy for run in runs], self._n_sure
            promise = promised(fmean(found), len(runs), n_val, data["n_train"], n, spread(found, n_val))
        if told is None:
            about: dict[str, object] = {"refit": {"n_images": n, **(asdict(promise) if promise else {})}}
            if runs:
                about |= calibration_of_twin({_title(runs[0].seed): runs[0].network})
            self.display.say(f"now on all {counted(n, 'image')}, those that validate included")
            told = self._trained(0, folder, about)
        if told is None:
            why = f"the training on all images was given up {self.failed.pop()[1]}"
            raise UsageError(f"{why}: lower its learning rate, lr; the other networks are in {self.asked.output}")
        return OfAll(told["train_seconds"], n, folder, promise)

    def _trained(self, number: int, folder: Path, about: Mapping[str, object]) -> Mapping[str, Any] | None:
        """What is known of the training of a seed, whose network is exported now; None where it diverged.

        Raises:
            DeviceFault, DeviceError: it cannot be trained.
            StorageError: its network cannot be written.
        """
        pipeline, of_all = self.made.pipeline, number == 0
        seeds = Seeds.of(self.asked.seed, 0, repeat=FRESH + number)
        self.display.trial_started(number, ALL_IMAGES if of_all else None, pipeline)

        def watch(report: Report) -> str | None:
            interruptions.check()
            self.display.epoch_finished(number, report, None if of_all else self._accuracy(report))
            return None

        try:
            with told_as_device_fault(f"{_title(number)} cannot be trained"):
                last = to_its_end(self.objective, pipeline, seeds, watch, whole=of_all)
        except GivenUp as given_up:
            self.failed.append((number, str(given_up)))
            self.display.trial_finished(number, "diverged", f"given up {given_up}")
            return None
        told = {
            **self._identity,
            **{"number": number, "train_seconds": last.train_seconds, "wall_seconds": last.wall_seconds},
            "accuracy": None if of_all else self._accuracy(last),
        }
        kept = {"metric": self.made.metric, **({} if of_all else {"val_accuracy": told["accuracy"]})}
        with told_as_no_room(), told_as_device_fault(f"the network of {_title(number)} cannot be exported"):
            self.objective.export(folder.absolute(), {**kept, **about, OURS: told})
        took = records.in_seconds(last.train_seconds, last.wall_seconds)
        reached = f"trained in {took}" if of_all else f"{self._accuracy(last):.2%} after {took}"
        self.display.trial_finished(number, "complete", reached)
        return told

    def _accuracy(self, report: Report) -> float:
        """The accuracy that counts."""
        return report.balanced_accuracy if self.made.metric == "balanced" else report.accuracy

    def _of_origin(self) -> float | None:
        """The accuracy of the network that the pipeline comes from, if these are the images that it was measured on."""
        origin, now = self.made.origin or {}, self._identity["data"]
        there = {key: (origin.get("data") or {}).get(key) for key in ("content", "split")}
        return origin.get(ACCURACIES[self.made.metric]) if there == now else None


def _title(number: int) -> str:
    """A training in words."""
    return f"seed {number}" if number else f"the network of {ALL_IMAGES}"
