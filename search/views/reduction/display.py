"""What a user sees while a network is reduced: a live display on a terminal, plain lines elsewhere; all on stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from objectives.reduction.settings import Iteration
from search.views.display import ABOVE, clock
from search.views.reading import MANY_FILES, Tenths
from search.views.reduction import words


class Display:
    """Shows a reduction while its context is open. This one shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the terminal as it was."""

    def say(self, line: str) -> None:
        """A message that belongs to no attempt."""

    def data_read(self, what: str, done: int, total: int) -> None:
        """So many of the files of the data are listed, read, decoded; a `Progress`."""

    def begun(self, n_parameters: int, accuracy: float, least: float, deadline: float | None) -> None:
        """Attempts come next, at a network of this size and validation accuracy; those below `least` are refused."""

    def attempted(self, tried: Iteration, *, before: bool = False) -> None:
        """An attempt ended; `before`: in an earlier run of the command."""

    def doing(self, what: str) -> None:
        """What comes after the attempts."""


class PlainDisplay(Display):
    """One line per event, for logs."""

    def __init__(self, console: Console) -> None:
        self._console, self._tenths = console, Tenths()

    def say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def data_read(self, what: str, done: int, total: int) -> None:
        if total >= MANY_FILES and (line := self._tenths.line(what, done, total)):
            self.say(line)

    def begun(self, n_parameters: int, accuracy: float, least: float, deadline: float | None) -> None:
        self.say(_began(n_parameters, accuracy, least))

    def attempted(self, tried: Iteration, *, before: bool = False) -> None:
        if not before:
            self.say(words.line(tried))


class LiveDisplay(Display):
    """A display that is redrawn in place: the attempt at hand, and a plot, below those that ended."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._spinner = Spinner("dots" if not console.options.ascii_only else "line", "reading the data ...")
        self._attempts: list[Iteration] = []
        self._before: tuple[int, float] | None = None
        self._deadline: float | None = None
        self._since = time.monotonic()
        self._doing = ""
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
        self._doing = f"{what} images, {done} of {total or '?'}" if total >= MANY_FILES and done < total else ""

    def begun(self, n_parameters: int, accuracy: float, least: float, deadline: float | None) -> None:
        self.say(_began(n_parameters, accuracy, least))
        self._before, self._deadline, self._since = (n_parameters, accuracy), deadline, time.monotonic()

    def attempted(self, tried: Iteration, *, before: bool = False) -> None:
        self._attempts.append(tried)
        self._since = time.monotonic()
        if not before:
            self._console.print(Text(words.line(tried), style="" if tried.accepted else "dim"), no_wrap=False)

    def doing(self, what: str) -> None:
        self._doing = what

    def _frame(self) -> Group:
        """What is shown at this moment; asked for by the thread that draws."""
        self._spinner.update(text=Text(self._now()))
        parts: list[RenderableType] = [self._spinner]
        if self._before is not None and self._attempts:
            parts.append(Text(words.standing(self._attempts, self._before[0]), style="bold"))
            width, height = self._console.size
            room = height - len(self._console.render_lines(Group(*parts), pad=False)) - ABOVE
            points = words.marks(self._attempts, self._before)
            drawn = words.drawn(points, width, room, ascii_only=self._console.options.ascii_only)
            parts += [Text(line, no_wrap=True, overflow="crop") for line in drawn]
        return Group(*parts)

    def _now(self) -> str:
        """What is being done, and how much time is left."""
        if self._doing or self._before is None:
            return self._doing or "reading the data ..."
        left = f"; {clock(max(0.0, self._deadline - time.monotonic()))} left" if self._deadline is not None else ""
        return f"attempt {len(self._attempts) + 1}, {time.monotonic() - self._since:.0f} s{left}"


def chosen(*, quiet: bool) -> Display:
    """The display for where this process writes to."""
    err = Console(stderr=True)
    if quiet:
        return Display()
    return LiveDisplay(err) if sys.stderr.isatty() and not err.is_dumb_terminal else PlainDisplay(err)


def _began(n_parameters: int, accuracy: float, least: float) -> str:
    return f"before: {n_parameters:,} parameters, {accuracy:.2%} on validation; accepted from {least:.2%} on"
