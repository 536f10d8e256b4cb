"""How networks came to their size: the timelines of trials as cells of a table, below the front, and as JSON."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from math import log

from optuna.trial import FrozenTrial

from search.pareto.kinds import PARETO, Kind
from search.study import records
from search.study.records import Moment
from search.study.snapshot import Snapshot
from search.views.columns import columns

COLUMNS = ("epoch", "seconds", "widths", "blocks", "MFLOP", "accuracy", "decision")
MOST_POINTS = 5  # shown below the front, the most accurate ones, and ...
MOST_MOMENTS = 5  # ... of each: before its largest changes, and the last
# as `describe` of either kind of architecture puts it
NETWORK = r"(?:\d+\[[\d ]*\](?:-\d+\[[\d ]*\])*|(?: ?(?:inputs|conv|dense) \d+(?:-\d+)*)+)"


def header(kind: Kind) -> list[str]:
    """The names of `cells`."""
    return list(COLUMNS) if kind.trains else ["attempt", *COLUMNS[1:]]


def cells(moment: Moment, kind: Kind = PARETO) -> list[str]:
    """A row of a table: the network that an epoch trained, its blocks a stage, and what was decided after it."""
    return [
        kind.moment(moment.epoch).split()[-1],
        f"{moment.train_seconds:.2f}",
        moment.architecture,
        _joined(moment.blocks),
        f"{moment.inference_flops / 1e6:.2f}",
        f"{moment.val_accuracy:.2%}",
        moment.words,
    ]


def lines(now: Snapshot, width: int | None = None) -> list[str]:
    """How networks of the front came to their size, in a few rows each; nothing where none changed it."""
    found = [(trial.number, moments) for trial in now.front_trials if (moments := records.timeline(trial))]
    if not found:
        return []
    rows = [
        [str(number), *_brief(moment)] for number, moments in found[-MOST_POINTS:] for moment in _outstanding(moments)
    ]
    said = (
        "How networks of the front came to their size: the epochs before their largest changes, with what was decided "
        "then, and the last. Widths and blocks: of each stage. All of it: --json, and the notes of the dashboard."
    )
    return [*columns(["trial", *COLUMNS], rows, width), said, ""]


def as_json(trial: FrozenTrial) -> list[dict[str, object]] | None:
    """The timeline of a trial as plain data; None where its network kept its size."""
    moments = records.timeline(trial)
    return [{**asdict(moment), "widths": moment.widths, "blocks": moment.blocks} for moment in moments] or None


def _brief(moment: Moment) -> list[str]:
    """`cells` without the insides of blocks, and without what a change made of what: a later row shows it."""
    epoch, seconds, _, *others, decision = cells(moment)
    return [epoch, seconds, _joined(moment.widths), *others, re.sub(f",? {NETWORK} to {NETWORK}", "", decision)]


def _outstanding(moments: Sequence[Moment]) -> list[Moment]:
    """The moments before the largest changes of a network's work, and the last one."""
    changes = {
        i: abs(log(after.inference_flops / before.inference_flops))
        for i, (before, after) in enumerate(pairwise(moments))
        if before.architecture != after.architecture
    }
    largest = sorted(changes, key=lambda i: changes[i])[1 - MOST_MOMENTS :]
    return [moments[i] for i in [*sorted(largest), len(moments) - 1]]


def _joined(numbers: Sequence[int]) -> str:
    return "-".join(map(str, numbers))
