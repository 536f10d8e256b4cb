"""What a user sees while a study runs: a live display on a terminal, plain lines elsewhere; all on stderr."""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text

from objectives.pipeline import Pipeline, Report
from search.study.snapshot import Snapshot
from search.views.reading import MANY_FILES, Tenths


class Display:
    """Shows a run while its context is open. This one shows nothing."""

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

    def study_started(self, now: Snapshot, n_trials: int) -> None:
        """The study is open; its trials come next."""

    def trial_started(self, number: int, anchor: str | None, pipeline: Pipeline) -> None:
        """A trial begins to train."""

    def epoch_finished(self, number: int, report: Report, accuracy: float) -> None:
        """A trial finished an epoch."""

    def trial_finished(self, number: int, reason: str, message: str) -> None:
        """A trial ended."""

    def study_stands(self, now: Snapshot) -> None:
        """A trial was added to the study."""


@dataclass
class _Standing:
    """Where a study stands compared with its goal, for one line of text."""

    n_trials: int
    started: float
    n_at_start: int

    def line(self, now: Snapshot) -> str:
        done = now.n_counted
        parts = [f"{done} of {self.n_trials} trials", f"{len(now.front)} on the front"]
        if (volume := now.hypervolume()) is not None:
            parts.append(f"hypervolume {volume:.3f}")
        if now.counts.confirmations:
            parts.append(f"{now.counts.confirmations} confirmations")
        elif done > self.n_at_start:
            per_trial = (time.monotonic() - self.started) / (done - self.n_at_start)
            parts.append(f"about {duration(per_trial * max(0, self.n_trials - done))} left")
        return ", ".join(parts)


class PlainDisplay(Display):
    """One line per event, for logs."""

    def __init__(self, console: Console, *, every_epoch: bool) -> None:
        self._console, self._every_epoch = console, every_epoch
        self._standing: _Standing | None = None
        self._tenths = Tenths()

    def say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def data_read(self, what: str, done: int, total: int) -> None:
        if total >= MANY_FILES and (line := self._tenths.line(what, done, total)):
            self.say(line)

    def study_started(self, now: Snapshot, n_trials: int) -> None:
        self._standing = _Standing(n_trials, time.monotonic(), now.n_counted)

    def trial_started(self, number: int, anchor: str | None, pipeline: Pipeline) -> None:
        self.say(trial_title(number, anchor, pipeline))

    def epoch_finished(self, number: int, report: Report, accuracy: float) -> None:
        if self._every_epoch:
            self.say(f"  trial {number}: {epoch_line(report, accuracy)}")

    def trial_finished(self, number: int, reason: str, message: str) -> None:
        self.say(f"  {outcome_line(number, reason, message)}")

    def study_stands(self, now: Snapshot) -> None:
        if self._standing is not None:
            self.say(f"  {self._standing.line(now)}")


class LiveDisplay(Display):
    """A display that is redrawn in place: the trials at hand below the trials that ended."""

    def __init__(self, console: Console) -> None:
        self._console = console
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
        self._trials = Progress(*columns, console=console)
        self._epochs = Progress(*columns, TextColumn("{task.fields[now]}", markup=False), console=console)
        self._data_bar = self._trials.add_task("images", total=None, visible=False)
        self._study_bar = self._trials.add_task("trials", total=None, visible=False)
        self._bars: dict[int, TaskID] = {}  # of the trials at hand, by number
        self._titles: dict[int, str] = {}
        self._below = Text("starting the worker ...", style="dim")
        self._standing: _Standing | None = None
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
        # Without a total the bar only moves.
        words = f"{what} images"
        self._trials.update(self._data_bar, description=words, total=total or None, completed=done, visible=shown)

    def study_started(self, now: Snapshot, n_trials: int) -> None:
        self._standing = _Standing(n_trials, time.monotonic(), now.n_counted)
        self._trials.update(self._study_bar, total=n_trials, completed=self._standing.n_at_start, visible=True)
        self._below = Text(self._standing.line(now))

    def trial_started(self, number: int, anchor: str | None, pipeline: Pipeline) -> None:
        self._titles[number] = trial_title(number, anchor, pipeline)
        self._bars[number] = self._epochs.add_task(f"trial {number}", total=pipeline.epochs, now="")

    def epoch_finished(self, number: int, report: Report, accuracy: float) -> None:
        now = f"{report.train_seconds:.2f} s  {accuracy:.2%}  {'; '.join(report.events)}"
        self._epochs.update(self._bars[number], completed=report.epoch, total=report.epochs, now=now)

    def trial_finished(self, number: int, reason: str, message: str) -> None:
        self._epochs.remove_task(self._bars.pop(number))
        line = f"{outcome_line(number, reason, message)}  {self._titles.pop(number).partition(': ')[2]}"
        style = "" if reason == "complete" else "dim"
        self._console.print(Text(line, style=style), no_wrap=True, overflow="ellipsis")

    def study_stands(self, now: Snapshot) -> None:
        if self._standing is not None:
            self._trials.update(self._study_bar, completed=now.n_counted)
            self._below = Text(self._standing.line(now))

    def _frame(self) -> Group:
        """What is shown at this moment; asked for by the thread that draws."""
        titles = list(self._titles.values())
        cut = len(titles) > 1  # a frame that is higher than the terminal loses its lower end: the bars
        lines = [Text(title, style="bold", no_wrap=cut, overflow="ellipsis" if cut else None) for title in titles]
        return Group(*lines, self._epochs, self._trials, self._below)


def trial_title(number: int, anchor: str | None, pipeline: Pipeline) -> str:
    """A trial in words: its number, its name where it is an anchor, its pipeline."""
    return f"trial {number}{f' ({anchor})' if anchor else ''}: {pipeline.describe()}"


def epoch_line(report: Report, accuracy: float) -> str:
    """An epoch in words."""
    events = f"  {'; '.join(report.events)}" if report.events else ""
    return f"epoch {report.epoch} of {report.epochs}  {report.train_seconds:.2f} s  {accuracy:.2%}{events}"


def outcome_line(number: int, reason: str, message: str) -> str:
    """How a trial ended, in words."""
    return f"trial {number}: {message}" + ("" if reason == "complete" else f"  [{reason.replace('_', ' ')}]")


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
