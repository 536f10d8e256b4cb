"""`Invocation`, `Confirming`, `Retraining`, `Reducing`: what one command line asks for, parsed once.

They end at the session: rooms get the values they use.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import ClassVar

from objectives.networks import families
from objectives.reduction.settings import CriterionName, Reduction, RetrainingName
from objectives.starts.origin import Origin
from objectives.task import DataSpec, as_data
from objectives.words import expanded
from search.database import storage
from search.errors import UsageError
from search.host import devices
from search.host.called import command
from search.study.asked import asked_data, asked_start, named_after, override
from search.study.spec import StudySpec, check_name, read


@dataclass(frozen=True)
class Asked:
    """What is asked of every command that trains; None where a flag was not given."""

    study: str | None  # name or path of a study file; of one that is confirmed: its name in the database
    data: str | None
    data_root: str | None
    labels: str | None  # path of a table
    device: str
    workers: int | None
    cluster: str | None
    storage: str | None
    in_process: bool
    json: bool
    verbose: bool
    quiet: bool
    words: Sequence[str]  # as they were typed

    def workers_of(self, of_study: int | str) -> int | None:
        """The workers of a study on this host, in all its runs, of which this is one; as the study has them."""
        if self.workers is not None or self.cluster is not None or not isinstance(of_study, int):
            return self.workers
        return max(of_study, devices.requested(self.device, None).workers)

    @property
    def at_a_time(self) -> int:
        """How many workers this run has, if all of them are free."""
        if self.cluster is not None:
            return self.workers or 1
        return 1 if self.in_process else devices.requested(self.device, None).n


@dataclass(frozen=True)
class Confirming(Asked):
    """A command line of `frontrunner confirm`."""

    seeds: int  # fresh ones for each point of the front

    @property
    def again(self) -> str:
        """The command that goes on."""
        return f"{command('confirm')} {shlex.join(map(_without_password, self.words))}"


@dataclass(frozen=True)
class Ablating(Asked):
    """A command line of `frontrunner ablate`."""

    trial: int
    seeds: int  # rounds
    minutes: float | None
    output: str | None  # the page

    @property
    def again(self) -> str:
        """The command that goes on."""
        return f"{command('ablate')} {shlex.join(map(_without_password, self.words))}"


@dataclass(frozen=True)
class Planning(Asked):
    """A command line of `frontrunner plan`."""

    minutes: float
    as_name: str | None
    n_train: int | None
    seed: int | None
    start: str | None = None  # that pipelines may begin from

    @property
    def begun(self) -> Origin | None:
        """The network that pipelines may begin from.

        Raises:
            UsageError: there is none such, or no study that is planned can begin from it.
        """
        if self.start is None:
            return None
        known = asked_start(self.start)
        if known.family is None or families.is_plain(known.family):
            what = (
                f"{known.words} is no residual network of ours"
                if known.family is None
                else f"{known.words} is a plain network"
            )
            raise UsageError(f"--start {self.start}: {what}: plans are of residual ones: write a study file for it")
        return known

    @property
    def named(self) -> tuple[DataSpec, str]:
        """(the data, the name of their study).

        Raises:
            UsageError: there can be no such study.
        """
        assert self.data is not None  # its parser sees to it
        data = asked_data(self.data, self.data_root, self.labels, self.n_train, self.seed or 0)
        return data, check_name(self.as_name or named_after(data, self.start))


@dataclass(frozen=True)
class Invocation(Asked):
    """A command line of `search.run`; None where a flag was not given. `search.run.parser` says what each one means."""

    as_name: str | None
    n_train: int | None
    mixed_devices: bool
    n_trials: int | None
    add: int | None
    timeout: float | None  # seconds
    seed: int | None
    sampler: str | None = None
    stopping: str | None = None
    minutes: float | None = None
    start: str | None = None
    age: float = 0.0  # seconds that the program has run when this was made
    program: ClassVar[str] = "run"

    def asked(self) -> tuple[str, StudySpec]:
        """(name, spec) of the study that is meant.

        Raises:
            UsageError: there is no such study, or it is not a valid one.
        """
        assert self.study is not None
        name, spec = read(self.study, self.start)
        changed = self.data, self.data_root, self.n_train, self.seed, self.labels, self.start
        name, spec = override(name, spec, *changed)
        return check_name(name if self.as_name is None else self.as_name), self.adapted(spec)

    @property
    def planning(self) -> Planning:
        """What is planned where no study is named, but data and minutes are."""
        assert self.minutes is not None
        shared = {field.name: getattr(self, field.name) for field in fields(Asked)}
        own = {"as_name": self.as_name, "n_train": self.n_train, "seed": self.seed, "start": self.start}
        return Planning(**shared, minutes=self.minutes, **own)  # type: ignore[arg-type]

    def adapted(self, spec: StudySpec) -> StudySpec:
        """The spec with what this command line changes and no identity holds."""
        given = {"sampler": self.sampler, "stopping": self.stopping, "timeout": self.timeout}
        changes = {key: value for key, value in given.items() if value is not None}
        return spec.model_copy(update={"search": spec.search.model_copy(update=changes)})

    def total(self, done: int, spec: StudySpec) -> int:
        """The number of trials that a study shall have which has `done`."""
        if self.add is not None:
            return done + self.add
        return spec.search.n_trials if self.n_trials is None else self.n_trials

    def again(self, n_trials: int) -> str:
        """The command that goes on: the same one, but `--add` counts from where the study stood before."""
        words = [_without_password(word) for word in self.words]
        if self.add is not None:
            at = next(i for i, word in enumerate(words) if word.startswith("--add"))
            words[at : at + (1 if "=" in words[at] else 2)] = ["--n-trials", str(n_trials)]
        return f"{command(self.program)} {shlex.join(words)}"


@dataclass(frozen=True)
class Recording(Invocation):
    """A command line of `frontrunner record`: a study that draws at random and trains every draw to its end, once."""

    program: ClassVar[str] = "record"

    def asked(self) -> tuple[str, StudySpec]:
        """(name, spec) of the table of a study; its name says so.

        Raises:
            UsageError: there is no such study, or it is not a valid one.
        """
        name, spec = super().asked()
        if not spec.what.is_timed:
            raise UsageError(f"study {name!r} minimises {spec.what.words}: what is recorded is seconds of a clock")
        changes = {"sampler": "random", "stopping": "none", "repeats": 0, "confirm": 0}
        spec = spec.model_copy(update={"search": spec.search.model_copy(update=changes)})
        return check_name(f"{name[:57]}-record" if self.as_name is None else self.as_name), spec


@dataclass(frozen=True)
class Retraining:
    """A command line of `frontrunner train`; `search.commands.parsers` says what each flag means."""

    pipeline: str | None  # folder or file; None: a point of the study
    study: str | None
    trial: int | None
    under_seconds: float | None
    under_mflop: float | None
    min_accuracy: float | None
    data: str | None
    output: str
    seeds: int
    whole: bool
    family: str | None
    size: int | None
    channels: int | None
    labels: str | None
    data_root: str | None
    n_train: int | None
    seed: int
    device: str
    in_process: bool
    storage: str | None
    json: bool
    verbose: bool
    quiet: bool
    words: Sequence[str]  # as they were typed
    start: str | None = None  # in the place of what the pipeline begins from

    def images(self, known: DataSpec | None, size: int | None, split: int) -> DataSpec:
        """The data to train on. `known`: those of the study, `size` and `split`: as the pipeline was found with.

        Raises:
            UsageError: they cannot be meant.
        """
        name = known.name if self.data is None and known is not None else as_data(self.data or "")
        is_same = known is not None and known.name == name
        before = known if known is not None and is_same else DataSpec(name)
        given = {
            "root": self.data_root,
            "labels": self.labels,
            "channels": self.channels,
            "size": self.size or (None if before.is_series else size),
            "n_train": self.n_train,
        }
        changes = {key: value for key, value in given.items() if value is not None}
        try:
            return replace(before, **changes, seed=split)  # type: ignore[arg-type]
        except ValueError as error:
            raise UsageError(str(error)) from error

    @property
    def place(self) -> Path:
        """The folder of the network, or of the folders of several."""
        return Path(expanded(self.output))

    @property
    def again(self) -> str:
        """The command that goes on."""
        return f"{command('train')} {shlex.join(map(_without_password, self.words))}"


@dataclass(frozen=True)
class Reducing:
    """A command line of `frontrunner reduce`; `search.commands.parsers` says what each flag means."""

    model: str
    data: str
    output: str
    epsilon: float  # percentage points
    budget_minutes: float | None
    criterion: CriterionName
    beta: float
    gamma: float
    retraining: RetrainingName
    epochs: int
    iterations: int | None
    inputs: bool
    number_format: str | None  # None: that of the training
    quantise: str | None  # affine, shared
    labels: str | None
    data_root: str | None
    n_train: int | None
    seed: int
    device: str
    threads: int
    test: bool
    json: bool
    quiet: bool
    words: Sequence[str]  # as they were typed

    @property
    def base(self) -> Path:
        """The folder of the network."""
        return Path(expanded(self.model))

    @property
    def result(self) -> Path:
        """The folder that is written."""
        return Path(expanded(self.output))

    @property
    def journal(self) -> Path:
        """What a reduction goes on from: beside its result, which is written anew each time."""
        whole = self.result.absolute()
        return whole.with_name(f".{whole.name}.journal")

    @property
    def settings(self) -> Reduction:
        """How the network is made smaller.

        Raises:
            UsageError: it cannot be.
        """
        try:
            return Reduction(
                epsilon=self.epsilon / 100,
                beta=self.beta,
                gamma=self.gamma,
                criterion=self.criterion,
                epochs=self.epochs,
                retraining=self.retraining,
                iterations=self.iterations,
                inputs=self.inputs,
            )
        except ValueError as error:
            raise UsageError(str(error)) from error

    def images(self, size: int | None, channels: int | None, flip: bool | None) -> DataSpec:
        """The data, as a network takes them.

        Raises:
            UsageError: they cannot be meant.
        """
        try:
            spec = DataSpec(
                as_data(self.data),
                root=self.data_root,
                n_train=self.n_train,
                drop_small_classes=True,  # what the network does not tell is refused by name
                labels=self.labels,
                seed=self.seed,
            )
            return spec if spec.is_series else replace(spec, size=size, channels=channels, flip=flip)
        except ValueError as error:
            raise UsageError(str(error)) from error

    @property
    def again(self) -> str:
        """The command that goes on."""
        return f"{command('reduce')} {shlex.join(self.words)}"


def _without_password(word: str) -> str:
    """A word of the command line as it may be printed: a URL with a password says *** instead."""
    flag, _, value = word.partition("=") if word.startswith("--storage=") else ("", "", word)
    shown = storage.shown(value) if "://" in value else value
    return f"{flag}={shown}" if flag else shown
