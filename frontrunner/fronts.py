"""Studies and their fronts: frozen records, read from the database each time they are asked for."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from frontrunner.errors import plain
from frontrunner.models import Model

if TYPE_CHECKING:
    from objectives.pipeline import Pipeline
    from search.pareto.choice import Candidate
    from search.study.snapshot import Snapshot

WIDTH = 120  # columns of what is printed
Interval = tuple[float, float]  # of 95 %: low, high


@dataclass(frozen=True, repr=False)
class Point:
    """A point of a front: means of fresh seeds where it has some, else the training that it was chosen for."""

    study: str
    trial: int  # its number
    seconds: float  # of the device, to train it (modelled ones where a study counts in those), or to make it smaller
    seconds_interval: Interval | None  # None: its spread is not known
    accuracy: float  # of the validation images, in [0, 1]
    interval: Interval
    n_seeds: int  # fresh ones; 0: one run, which was the luckiest of many
    flops: float  # of an inference; 1 multiply-add = 2 FLOPs
    n_parameters: int
    is_disturbed: bool  # other work disturbed the device whenever it was timed
    pipeline: Pipeline  # how it is trained
    words: str  # ... in words
    network: Path | None  # the folder of its network; None where that is not on this machine

    def model(self, device: str = "auto") -> Model:
        """Its network; see `Model.load`.

        Raises:
            ValueError: it is not on this machine, or cannot be used.
        """
        if self.network is None:
            raise ValueError(f"the network of trial {self.trial} is not on this machine: load it where it was trained")
        return Model.load(self.network, device)

    def __repr__(self) -> str:
        return f"<trial {self.trial} of {self.study}: {self.accuracy:.2%} in {self.seconds:.3g} s: {self.words}>"

    def _repr_html_(self) -> str:
        return _table([self])


class Front(tuple[Point, ...]):
    """The points of a front, by rising cost: an immutable sequence that shows itself as a table."""

    __slots__ = ()

    def __repr__(self) -> str:
        from search.views.columns import columns

        return "\n".join(columns(HEADER, [_cells(each) for each in self], WIDTH)) if self else "<an empty front>"

    def _repr_html_(self) -> str:
        return _table(self)


@dataclass(frozen=True)
class Effect:
    """What a strategy did in a study, as its models tell; see `frontrunner report`."""

    strategy: str
    n_runs: int  # that had it
    n_pairs: int  # of which a twin was trained that differs in nothing else
    seconds: tuple[float, float, float] | None  # what they are multiplied by: middle, least, most; None: too few runs
    points: tuple[float, float, float] | None  # of accuracy that it brings, likewise


@dataclass(frozen=True, repr=False)
class Study:
    """A study in a database: each question reads how it stands now, also while it runs."""

    name: str
    storage: str  # URL of the database

    def front(self) -> Front:
        """The Pareto front, by rising seconds; of a study that makes a network smaller, by rising FLOPs.

        Raises:
            ValueError: the study cannot be read.
        """
        from search.study import opening

        now = self._now()
        with plain(), opening.understood(now.name):
            return Front(_point(each, now) for each in now.candidates)

    def best(
        self,
        *,
        under_seconds: float | None = None,
        min_accuracy: float | None = None,
        within: float = 0.0,
        under_mflop: float | None = None,
    ) -> Point:
        """The most accurate point that costs so much at most, or the cheapest of at least an accuracy in [0, 1].

        `within`: so many percentage points less are as good, where it costs less. As `frontrunner best` has it.

        Raises:
            ValueError: there is none such, or the study cannot be read.
        """
        from search.commands.networks.best import choice

        now = self._now()
        with plain():
            return _point(choice(now, under_seconds, under_mflop, min_accuracy, within / 100).best, now)

    def effects(self) -> tuple[Effect, ...]:
        """What each strategy did; nothing of fewer than ten runs.

        Raises:
            ValueError: the study cannot be read.
        """
        from search.proposals.effects import effects
        from search.views.effects import NAMES

        now = self._now()
        with plain():
            return tuple(
                Effect(
                    NAMES.get(each.switch, each.switch),
                    each.n,
                    each.n_pairs,
                    None if each.seconds is None else each.seconds.factors,
                    each.points,
                )
                for each in effects(now)
            )

    def __repr__(self) -> str:
        from search.database import storage

        return f"<study {self.name} in {storage.shown(self.storage)}: {len(self.front())} points on its front>"

    def _now(self) -> Snapshot:
        from search.commands.networks.best import read

        with plain():
            return read(self.name, self.storage)


def load(study: str | Path, storage: str | Path | None = None) -> Study:
    """The study of that name; or the only one in a database, where a path of its file is given instead.

    `storage`: where it lies, a path or a URL; else what OPTUNA_STORAGE says, then studies/optuna.db.

    Raises:
        ValueError: there is none such, or it cannot be read; what there is instead.
    """
    from search.database import catalogue
    from search.database import storage as databases
    from search.study import records

    with plain():
        if storage is None and Path(study).is_file():
            url = _url(study)
            database = databases.open_storage(url, create=False)
            name = catalogue.only_name(database, records.IDENTITY, f"load(NAME, {str(study)!r}) names one")
            found = Study(name, url)
        else:
            found = Study(str(study), databases.url(None if storage is None else _url(storage), None))
    found._now()
    return found


def _url(place: str | Path) -> str:
    """The URL of a database that a path or a URL names."""
    text = os.fspath(place)
    return text if "://" in text else f"sqlite:///{os.path.abspath(os.path.expanduser(text))}"


HEADER = ("trial", "seconds", "accuracy", "interval", "seeds", "pipeline")


def _cells(each: Point) -> list[str]:
    low, high = each.interval
    mark = "*" if each.is_disturbed and not each.n_seeds else ""
    seconds, span = f"{mark}{each.seconds:.3g}", f"{100 * low:.1f} to {100 * high:.1f}"
    return [str(each.trial), seconds, f"{each.accuracy:.2%}", span, str(each.n_seeds or ""), each.words]


def _table(points: Sequence[Point]) -> str:
    """Points as HTML, in which nothing of others is markup."""
    rows = [HEADER, *map(_cells, points)]
    lines = [
        "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)
        for row, tag in zip(rows, ["th", *["td"] * len(points)], strict=True)
    ]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _point(each: Candidate, now: Snapshot) -> Point:
    from search.study import opening, records

    with opening.understood(now.name):
        trial = now.trials[each.trial]
        trains, told = now.kind.trains, trial.user_attrs
        return Point(
            now.name,
            each.trial,
            each.cost if trains else records.seconds(trial),
            each.cost_interval if trains else None,
            each.accuracy,
            each.interval,
            each.n_seeds,
            float(told["inference_flops"]),
            int(told["n_parameters"]),
            bool(told.get(records.NOISY)),
            records.pipeline(trial),
            records.in_words(trial),
            now.network(each.trial),
        )
