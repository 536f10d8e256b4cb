"""A run of so many minutes: its study is planned where there is none, its best pipeline trained on all images."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from optuna.trial import FrozenTrial

from objectives.data.room import free_on_host, told
from objectives.errors import DataError, DeviceLost
from objectives.host.durable import write_file
from objectives.inference.folder import description
from objectives.pipeline import Pipeline, Report
from objectives.starts.origin import Origin
from objectives.task import DataSpec, Seeds, Task
from objectives.words import counted
from search.errors import StorageError, told_as_no_room
from search.host.places import STUDIES
from search.planning import budget, costs, plan
from search.planning.budget import Budget
from search.planning.costs import Costs
from search.planning.plan import Images, Plan
from search.planning.promise import Gain, both_sides, n_whole, promised
from search.study import records
from search.study.asked import of_data
from search.study.confirmation import ACCURACIES
from search.study.snapshot import Snapshot
from search.study.spec import StudySpec, read
from search.study.study import Study
from search.views.display import Display
from search.workers.place import Kept, Place, ThisProcess
from search.workers.seam import Halted, Objective, Training, TrialFault, WorkerLost
from search.workers.single import GivenUp, to_its_end
from spaces.base import BASELINE

PLAN_SHARE = 1 / 20  # of the minutes: what all probes may take
MIRROR_SHARE = 1 / 25  # ... and of it the training that flips are judged by
FEWEST_SECONDS = 1.0  # that such a training takes, for a verdict that is worth anything
# FLOPs a second, for a size before a step was taken. One core did 0.9e11 to 1.8e11 (AMD EPYC, bf16); of a GPU a guess.
# A faster device trains on smaller images than it could.
RATES = {"cpu": 1e11, "cuda": 2e13}
AGAIN = 1  # the seeds of a training on all images: the next ones of the trial


@dataclass(frozen=True)
class Planner:
    """What a study is planned for, and with: all that a command says, and who is told."""

    data: DataSpec
    name: str
    minutes: float
    place: Place
    training: Training
    display: Display
    storage: str  # `Database.place`
    start: Origin | None = None  # a trained network that pipelines may begin from
    seed: int | None = None  # as it was said

    @property
    def family(self) -> str | None:
        """Of networks that may start from one; None: as the images suggest."""
        return None if self.start is None else self.start.family

    def study(self, held: ExitStack) -> tuple[str, StudySpec, Place]:
        """(name, spec, where it trains) of the study: from its file, planned and written where there is none.

        Raises:
            UsageError: the file is no study, or one of other data.
            DataError, DeviceError, StorageError: the images or the device cannot be used.
        """
        path, place = STUDIES / f"{self.name}.toml", self.place
        if not path.is_file():
            check_writable(path)
            made, place = self.plan(held, judges_flips=False)
            for line in made.lines():
                self.display.say(line)
            write(made, path)
            self.display.say(f"study {self.name!r}: {path}, to keep and to edit")
        name, spec = read(str(path), None if self.start is None else self.start.source)
        return name, of_data(str(path), spec, self.data, self.seed), place

    def plan(self, held: ExitStack, *, judges_flips: bool = True) -> tuple[Plan, Place]:
        """The plan, after a few steps of a few networks on the device; and that, open while `held` is.

        `judges_flips`: whether a network is trained to see if flips fit, instead of being left to the first of a run.

        Raises:
            DataError, DeviceError, StorageError: the images or the device cannot be used.
        """
        from objectives.data.card import examine
        from search.views.card import title

        data, place, seconds, free = self.data, self.place, 60 * self.minutes, free_on_host()
        card = examine(data, decode=False, progress=self.display.data_read)
        self.display.say(f"{title(card)}; for a plan, steps of a few networks are timed ...")
        own = data.size or card.suggested_size
        nominal = costs.nominal(plan.to_probe(own, self.family)[0], RATES[place.kind])
        n_train = max(2, min(card.n_train, data.n_train or card.n_train))
        size = plan.affordable(own, n_train, seconds, nominal, self.family)
        source = None if self.start is None else self.start.source
        task = Task(replace(data, size=size), self.family or plan.family_for(size), start=source)
        inner = held.enter_context(ExitStack())
        objectives = place.opened(self.name, task, self.storage, self.training, inner, self.display.data_read)
        images, found = self._examined(objectives[0], size, judges_flips)
        made = plan.chosen(self.name, self.minutes, replace(images, own_size=own), found, place.kind, self.start)
        if words := told(images.n_train + images.n_val, made.size, images.channels, free):
            self.display.say(words)
        if isinstance(place, ThisProcess):  # a training there is interrupted otherwise
            inner.close()
            return made, place
        return made, Kept(place, task, objectives, inner)

    def _examined(self, objective: Objective, size: int, judges_flips: bool) -> tuple[Images, Costs]:
        """What a plan must know of the data and of the device."""
        facts, data, seconds = objective.facts(), self.data, 60 * self.minutes
        known, most = cast("dict[str, Any]", facts["data"]), PLAN_SHARE * seconds
        networks, formats = plan.to_probe(size, self.family), objective.number_formats()
        channels = int(known["channels"])
        found = costs.probed(objective.probe, networks, formats, channels, plan.PROBE_BATCH, most)
        mirrored, words = None, "not looked into"
        if known["flip"] and data.flip is None:
            words = "as the data say, until the first network of a run is shown mirror images"
            if judges_flips and MIRROR_SHARE * seconds >= FEWEST_SECONDS:
                mirrored = objective.mirrored(MIRROR_SHARE * seconds)
        images = Images(
            data.name,
            known["n_train"],
            known["n_val"],
            known["n_classes"],
            known["channels"],
            size,
            size,
            None if mirrored is None else not mirrored["refuted"],
            words if mirrored is None else str(mirrored["words"]),
            data.seed,
            cast("int", facts.get("n_splits", 1)),
            data.root,
            data.labels,
            data.n_train,
            self.family,
        )
        return images, found


def check_writable(path: Path) -> None:
    """Refuses, before a plan takes its time, a place for its study file that takes none.

    Raises:
        StorageError: it cannot be written there.
    """
    above = next(each for each in path.absolute().parents if each.exists())  # nothing is made for what may be refused
    if not above.is_dir():
        raise _unwritable(path, os.strerror(errno.ENOTDIR))
    if not os.access(above, os.W_OK | os.X_OK):
        raise _unwritable(path, os.strerror(errno.EACCES))


def write(made: Plan, path: Path) -> None:
    """Writes the study file of a plan.

    Raises:
        StorageError: it cannot be.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, made.study_file().encode())
    except OSError as error:
        raise _unwritable(path, error.strerror) from error


def _unwritable(path: Path, why: str | None) -> StorageError:
    return StorageError(f"{path} cannot be written ({why}): choose another folder to work in")


def judge_flips(study: Study, objective: Objective, seconds: float, say: Callable[[str], None]) -> None:
    """Whether flips fit the images, once, and where nobody has said: by the network that has just been trained.

    What is proposed from then on follows. Where mirror images were trained on before, it stays what the data say: a
    pipeline that is trained once more must be the same. `seconds`: what a training may take where there is no such
    network; see `search.workers.seam`.
    """

    def is_open() -> bool:
        now = study.snapshot()
        said = now.spec.data.flip is not None or "augment.flip" in now.spec.space.fix or now.spec.test_time_flip
        chosen = [t for t in now.trials if records.PIPELINE in t.user_attrs and not records.only_says_more(t)]
        begun = [t for t in chosen if t.user_attrs.get(records.ANCHOR) != BASELINE]
        is_late = any(records.pipeline(trial).flip for trial in begun)
        return now.given.flip and records.FLIPS not in now.attributes and not said and not is_late

    if not is_open() or (study.snapshot().n_splits > 1 and seconds < FEWEST_SECONDS):
        return
    try:
        found = objective.mirrored(seconds)
    except (TrialFault, DeviceLost, WorkerLost) as fault:
        say(f"whether flips fit was not seen: {fault}")
        return

    def settled() -> bool:
        with study.exclusive():  # another worker may have begun to flip meanwhile
            if is_still_open := is_open():
                study.optuna.set_user_attr(records.FLIPS, found)
            return is_still_open

    if study.patiently(settled):
        say(str(found["words"]))


def refit(
    study: Study, objective: Objective, left: Budget, display: Display, halt: Callable[[], None] | None = None
) -> None:
    """Trains the best pipeline that there is time for on all images, and keeps its network; says so where none is.

    `halt`: ends it in the midst of an epoch, where the time is up; without one it is given up after that epoch.

    Raises:
        StorageError: the network cannot be written.
    """
    now = study.snapshot()
    chosen = budget.to_refit(now, left.left())
    if not now.front:
        display.say("nothing is on the front to be trained on all images: the same command goes on")
        return
    if chosen is None:
        display.say("no time is left to train on all images: the networks of the front are what there is")
        return
    if budget.refitted(now) == chosen.number and study.networks.refit.is_dir():
        display.say(f"trial {chosen.number} is still the one to go with, and was trained on all images before")
        return
    data = now.attributes[records.IDENTITY]["data"]
    n, fresh = n_whole(data, now.n_splits), now.fresh_of(chosen)
    twins = {f"trial {each.number}": study.networks.of(each.number) for each in (chosen, *fresh)}
    sides = sides_of_twins(now, objective, chosen, twins, left.left(), display)
    pipeline = budget.in_time(now, chosen, left.left())
    display.say(f"trial {chosen.number} is trained on all {counted(n, 'image')}, those that validate included")
    seeds = Seeds.of(study.spec.search.seed, chosen.number, repeat=AGAIN)
    last = _in_time(objective, pipeline, seeds, left, display, halt)
    if last is None:
        return
    gain, more = sides or (Gain(0.0, 0.0, 0.0), calibration_of_twin(twins))
    reached = min(1.0, now.accuracy(chosen) + gain.expected)
    promise = promised(reached, len(fresh), now.n_sure, data["n_train"], n, beside=gain.spread)
    told = {"trial": chosen.number, "train_seconds": last.train_seconds, "n_images": n, "flip_gain": gain.expected}
    told |= asdict(promise) | {"measured": now.accuracy(chosen)}
    about = {"study": study.name, "trial": chosen.number, "refit": told, "metric": study.spec.metric, **more}
    study.patiently(lambda: study.optuna.set_user_attr(records.REFIT, None))  # killed in between, no old one is told
    with told_as_no_room():
        objective.export(study.networks.refit, about)
    study.patiently(lambda: study.optuna.set_user_attr(records.REFIT, told))


def sides_of_twins(
    now: Snapshot, objective: Objective, chosen: FrozenTrial, twins: Mapping[str, Path], left: float, display: Display
) -> tuple[Gain, dict[str, object]] | None:
    """What both sides of an image together are expected to be worth, by networks of the pipeline, on unseen images.

    (accuracy gained, what an export of such a network is told); None where that is nothing, or is not to be looked
    into. `twins`: folders by name, which need not be there; `left`: seconds on the wall.
    """
    fits = now.given.flip and now.restrictions.fix.get("augment.flip") is not False
    wanted = fits and now.spec.search.refit_test_time_flip and not now.spec.test_time_flip
    present = [(name, folder) for name, folder in twins.items() if folder.is_dir()]
    evaluation = chosen.user_attrs["eval_seconds"] / max(1, len(records.curve(chosen)))  # of one split
    seconds = 2 * len(present) * evaluation * budget.wall_per_second(now) / now.n_splits
    if not wanted or not present or seconds > min(PLAN_SHARE * left, budget.spare(now, chosen, left)):
        return None
    try:
        seen = {name: objective.both_sides(folder) for name, folder in present}
    except (DataError, TrialFault, DeviceLost, WorkerLost) as fault:
        display.say(f"what both sides of an image are worth was not seen: {fault}")
        return None
    gain = both_sides(list(seen.values()), ACCURACIES[now.spec.metric])
    name, last = list(seen.items())[-1]
    verdict = "the last network takes both" if gain.expected > 0 else "the last network takes images alone"
    measured = f"{100 * gain.measured:+.1f} points of {counted(last['n'], 'image')} are told rightly"
    display.say(f"with their mirror images {measured}, {100 * gain.expected:+.1f} are expected of others: {verdict}")
    fitted = {"temperature": last["calibration"]["temperature"], "n_images": 0}
    source = f"that of {name} on both sides of an image, trained on a part of the images"
    about = {"test_time_flip": True, "calibration": {**fitted, "source": source}}
    return (gain, about) if gain.expected > 0 else None


def _in_time(
    objective: Objective,
    pipeline: Pipeline,
    seeds: Seeds,
    left: Budget,
    display: Display,
    halt: Callable[[], None] | None,
) -> Report | None:
    """The last report of a training on all images; None, and said why, where it failed or the time was up before."""
    seen: list[Report] = []

    def watch(report: Report) -> str | None:
        seen.append(report)
        return "the time is up" if left.left() < 0 and report.epoch < report.epochs else None

    alarm = threading.Timer(max(0.0, left.left()), halt or (lambda: None))
    alarm.daemon = True
    try:
        alarm.start()
        return to_its_end(objective, pipeline, seeds, watch, whole=True)
    except GivenUp as given_up:
        display.say(f"it was given up {given_up}")
    except Halted:
        display.say(f"it was given up in epoch {1 + (seen[-1].epoch if seen else 0)}: the time is up")
    except (TrialFault, DeviceLost, WorkerLost) as fault:
        display.say(f"it failed: {fault}")
    finally:
        alarm.cancel()
    return None


def calibration_of_twin(twins: Mapping[str, Path]) -> dict[str, object]:
    """How sure a network may be that no image is left to measure by: as sure as the first of its twins that knows.

    Their folders are by name, and need not be there.

    A twin has the same pipeline and nearly the same images; a few more of them make it right more often, if anything.
    """
    for name, folder in twins.items():
        twin = description(folder)
        if twin is not None and twin.get("calibration"):
            fitted = {"temperature": twin["calibration"]["temperature"], "n_images": 0}
            return {"calibration": {**fitted, "source": f"that of {name}, trained on a part of the images"}}
    return {}
