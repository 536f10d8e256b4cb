"""What a user sees while a study runs: a live display on a terminal, plain lines elsewhere; all on stderr."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Protocol, Self, cast

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text

from objectives.pipeline import Pipeline, Report
from objectives.words import counted
from search.pareto.front import Outcome
from search.pareto.kinds import PARETO, Kind
from search.study import records
from search.study.snapshot import Snapshot
from search.views.plot import Mark, front_of, marks, plot
from search.views.reading import MANY_FILES, Tenths
from search.views.training.starts import in_words

WIDEST, HIGHEST = 80, 10  # columns and lines of the plot
MAX_LISTED = 20  # files that cannot be used
TRIAL = "trial"
STARTING = "getting the worker ready ..."  # torch, images and device take seconds, of which nothing else is told
ABOVE = 6  # lines of a terminal that are left to what is said above a live display


class Display:
    """Shows a run while its context is open. This one shows nothing."""

    has_front = False  # as far as was shown

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the terminal as it was."""

    def say(self, line: str) -> None:
        """A message that belongs to no trial."""

    def data_read(self, what: str, done: int, total: int) -> None:
        """So many of the files of the data are listed, read, decoded; a `Progress`."""

    def study_started(
        self, now: Snapshot, n_trials: int, deadline: float | None = None, goal: Goal | None = None
    ) -> None:
        """The study is open; its trials come next, until there are so many or the deadline (of `time.monotonic()`).

        `goal`: what else is to be come to.
        """

    def trial_started(self, number: int, anchor: str | None, pipeline: Pipeline) -> None:
        """A trial begins to train."""

    def epoch_finished(self, number: int, report: Report, accuracy: float | None) -> None:
        """A trial finished an epoch; without an accuracy where there is none to measure."""

    def trial_finished(self, number: int, reason: str, message: str) -> None:
        """A trial ended."""

    def study_stands(self, now: Snapshot) -> None:
        """A trial was added to the study."""


class Goal(Protocol):
    """What a run is to come to, and where it stands."""

    def line(self, now: Snapshot) -> str:
        """Where it stands, in words."""

    def done(self, now: Snapshot) -> tuple[int, int]:
        """(trainings that ended, all)."""


@dataclass(frozen=True)
class _Standing:
    """Where a study stands compared with its goal, for a line of text."""

    n_trials: int
    deadline: float | None  # of `time.monotonic()`; None: the number of trials is the goal
    started: float
    n_at_start: int
    goal: Goal | None = None  # another one

    @property
    def seconds_left(self) -> float | None:
        """Until the deadline; None without one."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def done(self, now: Snapshot) -> tuple[int, int]:
        return (now.n_counted, self.n_trials) if self.goal is None else self.goal.done(now)

    def line(self, now: Snapshot) -> str:
        if self.goal is not None:
            return self.goal.line(now)
        done = now.n_counted
        total = f"{done} of {self.n_trials} trials" if self.deadline is None else counted(done, "trial")
        parts = [total, f"{len(now.front)} on the front"]
        if (volume := now.hypervolume()) is not None:
            parts.append(f"hypervolume {volume:.3f}")
        if now.counts.confirmations:
            parts.append(counted(now.counts.confirmations, "confirmation"))
        elif self.deadline is None and done > self.n_at_start:
            per_trial = (time.monotonic() - self.started) / (done - self.n_at_start)
            parts.append(f"about {duration(per_trial * max(0, self.n_trials - done))} left")
        return ", ".join(parts)


class PlainDisplay(Display):
    """One line per event, for logs."""

    def __init__(self, console: Console, *, every_epoch: bool, what: str = TRIAL) -> None:
        self._console, self._every_epoch, self._what = console, every_epoch, what
        self._standing: _Standing | None = None
        self._kind = PARETO
        self._best: Outcome | None = None  # that was said
        self._tenths = Tenths()
        self._trained: Pipeline | None = None  # that was said last

    def __enter__(self) -> Self:
        self.say(STARTING)
        return self

    def say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def data_read(self, what: str, done: int, total: int) -> None:
        if total >= MANY_FILES and (line := self._tenths.line(what, done, total)):
            self.say(line)

    def study_started(
        self, now: Snapshot, n_trials: int, deadline: float | None = None, goal: Goal | None = None
    ) -> None:
        self._standing, self._kind = _Standing(n_trials, deadline, time.monotonic(), now.n_counted, goal), now.kind
        self.has_front = bool(now.front)
        self._say_best(now)

    def trial_started(self, number: int, anchor: str | None, pipeline: Pipeline) -> None:
        is_known, self._trained = self._what != TRIAL and pipeline == self._trained, pipeline
        self.say(f"{self._what} {number}" if is_known else trial_title(number, anchor, pipeline, self._what))

    def epoch_finished(self, number: int, report: Report, accuracy: float | None) -> None:
        if self._every_epoch:
            self.say(f"  {self._what} {number}: {epoch_line(report, accuracy, self._kind)}")

    def trial_finished(self, number: int, reason: str, message: str) -> None:
        self.say(f"  {outcome_line(number, reason, message, self._what)}")

    def study_stands(self, now: Snapshot) -> None:
        self.has_front = bool(now.front)
        if self._standing is not None and self._standing.deadline is None:
            self.say(f"  {self._standing.line(now)}")
        self._say_best(now)

    def _say_best(self, now: Snapshot) -> None:
        """What is best and how much time is left, where there is a deadline and another trial is the best one."""
        left = self._standing.seconds_left if self._standing is not None else None
        if left is None or not now.front or now.front[-1] == self._best:
            return
        self.say(f"  {best_line(now.front[-1], now.kind, is_first=self._best is None)}; {clock(left)} left")
        self._best = now.front[-1]


class LiveDisplay(Display):
    """A display that is redrawn in place: the trials at hand below the trials that ended."""

    def __init__(self, console: Console, what: str = TRIAL) -> None:
        self._console, self._what = console, what
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
        said = TextColumn("{task.fields[said]}", markup=False, style="progress.download")
        self._study = Progress(*columns[:2], said, console=console)
        self._epochs = Progress(*columns, TextColumn("{task.fields[now]}", markup=False), console=console)
        self._data_bar = self._study.add_task("images", total=None, visible=False, said="")
        self._study_bar = self._study.add_task("trials", total=None, visible=False, said="")
        self._bars: dict[int, TaskID] = {}  # of the trials at hand, by number
        self._titles: dict[int, str] = {}
        self._below = Text(STARTING, style="dim")
        self._marks: tuple[Mark, ...] = ()
        self._standing: _Standing | None = None
        self._kind = PARETO
        self._live = Live(get_renderable=self._frame, console=console, refresh_per_second=8, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False)

    def data_read(self, what: str, done: int, total: int) -> None:
        shown = not total or (total >= MANY_FILES and done < total)
        words, said = f"{what} images", f"{done}/{total or '?'}"
        # Without a total the bar only moves.
        self._study.update(
            self._data_bar, description=words, total=total or None, completed=done, visible=shown, said=said
        )

    def study_started(
        self, now: Snapshot, n_trials: int, deadline: float | None = None, goal: Goal | None = None
    ) -> None:
        self._standing, self._kind = _Standing(n_trials, deadline, time.monotonic(), now.n_counted, goal), now.kind
        self._study.update(self._data_bar, visible=False)  # of images that a cache holds nothing is told but the list
        self._study.update(self._study_bar, description="trials" if deadline is None else "time", visible=True)
        self.study_stands(now)

    def trial_started(self, number: int, anchor: str | None, pipeline: Pipeline) -> None:
        self._titles[number] = trial_title(number, anchor, pipeline, self._what)
        if self._standing is None:  # nothing but this is told of
            self._below = Text("")
        self._bars[number] = self._epochs.add_task(
            f"{self._what} {number}", total=pipeline.epochs if self._kind.trains else None, now=""
        )

    def epoch_finished(self, number: int, report: Report, accuracy: float | None) -> None:
        now = f"{reached(report, accuracy, self._kind)}  {'; '.join(report.events)}"
        self._epochs.update(self._bars[number], completed=report.epoch, total=report.epochs, now=now)

    def trial_finished(self, number: int, reason: str, message: str) -> None:
        self._epochs.remove_task(self._bars.pop(number))
        line = f"{outcome_line(number, reason, message, self._what)}  {self._titles.pop(number).partition(': ')[2]}"
        style = "" if reason == "complete" else "dim"
        self._console.print(Text(line, style=style), no_wrap=True, overflow=self._cut)

    def study_stands(self, now: Snapshot) -> None:
        self.has_front = bool(now.front)
        if self._standing is None:
            return
        if self._standing.deadline is None:
            done, total = self._standing.done(now)
            self._study.update(self._study_bar, completed=done, total=total, said=f"{done}/{total}")
        best = [best_line(now.front[-1], now.kind, is_first=True)] if now.front and not self._standing.goal else []
        self._below, self._marks = Text("\n".join([self._standing.line(now), *best])), marks(now)

    def _frame(self) -> Group:
        """What is shown at this moment; asked for by the thread that draws."""
        self._count_down()
        titles = list(self._titles.values())
        cut = len(titles) > 1  # a frame that is higher than the terminal loses its lower end: the bars
        lines = [Text(title, style="bold", no_wrap=cut, overflow=self._cut if cut else None) for title in titles]
        parts: list[RenderableType] = [*lines, self._epochs, self._study, self._below]
        return Group(*parts, *self._plot(len(self._console.render_lines(Group(*parts), pad=False))))

    @property
    def _cut(self) -> Literal["crop", "ellipsis"]:
        """How a line ends that is too long. An ellipsis as an escape is six columns too many: the frame breaks."""
        return "crop" if self._console.options.ascii_only else "ellipsis"

    def _count_down(self) -> None:
        """The bar of time, where there is a deadline."""
        left = self._standing.seconds_left if self._standing is not None else None
        if self._standing is not None and left is not None:
            gone = time.monotonic() - self._standing.started
            self._study.update(self._study_bar, total=gone + left, completed=gone, said=f"{clock(left)} left")

    def _plot(self, n_other: int) -> list[Text]:
        """The plot in the lines that others leave, from the second point on: a single one is no front."""
        if len(self._marks) < 2:
            return []
        width, height = self._console.size
        room = min(HIGHEST, height - n_other - ABOVE)
        ascii_only = self._console.options.ascii_only
        drawn = plot(self._marks, min(width, WIDEST), room, ascii_only=ascii_only, subject=front_of(self._kind))
        return [Text(line, no_wrap=True, overflow="crop") for line in drawn]


def trial_title(number: int, anchor: str | None, pipeline: Pipeline, what: str = TRIAL) -> str:
    """A trial in words: its number, its name where it is an anchor, its pipeline."""
    return f"{what} {number}{f' ({anchor})' if anchor else ''}: {pipeline.describe()}"


def epoch_line(report: Report, accuracy: float | None, kind: Kind) -> str:
    """An epoch in words, or an attempt at a smaller network, of which nobody knows how many come."""
    events = f"  {'; '.join(report.events)}" if report.events else ""
    which = f"epoch {report.epoch} of {report.epochs}" if kind.trains else f"attempt {report.epoch - 1}"
    return f"{which}  {reached(report, accuracy, kind)}{events}"


def reached(report: Report, accuracy: float | None, kind: Kind) -> str:
    """Where a training stands: its seconds, its accuracy, and what else counts."""
    cost = [] if kind.is_timed else [kind.said(kind.cost(report))]
    return "  ".join([f"{report.train_seconds:.2f} s", *cost, *([] if accuracy is None else [f"{accuracy:.2%}"])])


def outcome_line(number: int, reason: str, message: str, what: str = TRIAL) -> str:
    """How a trial ended, in words."""
    return f"{what} {number}: {message}" + ("" if reason == "complete" else f"  [{reason.replace('_', ' ')}]")


def best_line(best: Outcome, kind: Kind, *, is_first: bool) -> str:
    """The most accurate trial in words, the first of which say that a single training's accuracy is of validation."""
    where = " on validation" if is_first else ""
    joint = "in" if kind.trains else "with"
    return f"best so far {best.accuracy:.2%}{where} {joint} {kind.said(best.cost)} (trial {best.trial})"


def say_data(facts: Mapping[str, object], display: Display) -> None:
    """What a worker knows of its images: how many there are, which cannot be used, what to beware of."""
    if about := facts.get("about"):
        display.say(str(about))
    if start := facts.get(records.START):
        display.say(f"to start from: {in_words(cast('dict[str, Any]', start))}")
    say_skipped(cast("list[str]", facts["skipped"]), display)
    for warning in cast("list[str]", facts["warnings"]):
        display.say(f"warning: {warning}")


@contextmanager
def resumable(display: Display, command: str, best: str = "") -> Iterator[None]:
    """Says how to go on where the block is interrupted, and what names the best network until then, if there is one."""
    try:
        yield
    except KeyboardInterrupt:
        if best and display.has_front:
            display.say(f"the best network so far: {best}")
        display.say(f"interrupted; to go on: {command}")
        raise


def say_skipped(skipped: Sequence[str], display: Display) -> None:
    """Names files that cannot be used, the first of them."""
    if skipped:
        display.say(f"{counted(len(skipped), 'file')} cannot be used, left out:")
    for file in skipped[:MAX_LISTED]:
        display.say(f"  {file}")
    if len(skipped) > MAX_LISTED:
        display.say(f"  ... and {len(skipped) - MAX_LISTED} more")


def clock(seconds: float) -> str:
    """Seconds that are left as minutes and seconds, with hours where there are any."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def display_of(*, quiet: bool, verbose: bool, what: str = TRIAL) -> Display:
    """What shows a run: nothing, lines, or a table that is drawn again and again where stderr is a terminal.

    `what`: what is trained, one by one.
    """
    err = Console(stderr=True)
    if quiet:
        return Display()
    redraws = sys.stderr.isatty() and not err.is_dumb_terminal  # FORCE_COLOR makes a terminal of a file
    if redraws and not verbose:
        return LiveDisplay(err, what)
    return PlainDisplay(err, every_epoch=verbose, what=what)
