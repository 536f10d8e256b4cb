"""Rules of early stopping on recorded trainings: python -m benchmarks.stopping --study NAME [--storage URL].

Takes the trainings that ran to their end of a study that was recorded without stopping (`frontrunner record`), lets
them come in random orders, and asks every rule after every epoch. Prints Markdown: how many trials each stops, which
share of the seconds that saves, how many of the stopped ones would have joined the front of their moment, and the
share of the box that the front dominates, in that of the whole table, once a share of the table's seconds is spent:
what a rule saves is spent on trials that come later.

Last it tells what the study itself noted of the rule `front` in shadow: which trainings it would have stopped, in the
order in which they were recorded, and how many of these joined the front of their moment.

What this cannot show: which trials a sampler that learns would have proposed instead.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from random import Random
from statistics import fmean, stdev

from search.database import storage
from search.pareto.curves import Curve
from search.pareto.front import Box, Outcome, dominates, front, hypervolume
from search.pareto.rules import STOPPING
from search.pareto.stopping import Stopping
from search.study.opening import stored
from search.views.training import shadow

SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)  # of the seconds of the whole table


@dataclass
class Replay:
    """Trainings that come one after another, each judged by those before."""

    floor: float
    box: Box
    curves: list[Curve] = field(default_factory=list)
    stopped: list[Curve] = field(default_factory=list)
    front: tuple[Outcome, ...] = ()
    spent: list[tuple[float, tuple[Outcome, ...]]] = field(default_factory=list)  # seconds of a trial, front after it
    n_false: int = 0  # stopped, and would have joined the front

    @property
    def seconds(self) -> float:
        """Of all trainings so far."""
        return sum(seconds for seconds, _ in self.spent)

    @property
    def growth(self) -> float:
        """Share of the box that the later half of the trials added, per second."""
        recent = self.spent[len(self.spent) // 2 :]
        seconds = sum(each for each, _ in recent)
        before = self.spent[len(self.spent) // 2 - 1][1] if len(self.spent) > 1 else ()
        return (hypervolume(self.front, self.box) - hypervolume(before, self.box)) / seconds if seconds else 0.0

    def run(self, number: int, curve: Curve, rule: Stopping) -> None:
        """Lets a training run until the rule stops it, or to its end."""
        end = Outcome(number, curve[-1].train_seconds, curve[-1].accuracy)
        for n in range(1, len(curve)):
            if rule.decide(curve[:n], self) is not None:
                self.stopped.append(curve[:n])
                joins = end.accuracy >= self.floor and not any(dominates(each, end) for each in self.front)
                self.n_false += joins
                self.spent.append((curve[n - 1].train_seconds, self.front))
                return
        self.curves.append(curve)
        if end.accuracy >= self.floor:
            self.front = front([*self.front, end])
        self.spent.append((end.cost, self.front))

    def found(self, seconds: float) -> float:
        """The share of the box that was dominated once so many seconds were spent."""
        clock, best = 0.0, tuple[Outcome, ...]()
        for each, found in self.spent:
            clock += each
            if clock > seconds:
                break
            best = found
        return hypervolume(best, self.box)


def replayed(curves: Sequence[Curve], floor: float, box: Box, rule: Stopping, seed: int) -> Replay:
    """The trainings in a random order."""
    replay, numbers = Replay(floor, box), list(range(len(curves)))
    Random(seed).shuffle(numbers)
    for number in numbers:
        replay.run(number, curves[number], rule)
    return replay


def main() -> None:
    """Prints the table of a study."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.stopping", description=(__doc__ or "").split("\n\n")[0])
    p.add_argument("--study", required=True)
    p.add_argument("--storage", metavar="URL", help="database (default: as the program)")
    p.add_argument("--orders", type=int, default=100)
    options = p.parse_args()
    study = stored(options.study, storage.open_storage(storage.url(options.storage, None), create=False)).snapshot()
    assert study.box is not None, "a study of a version without a box"
    curves = study.curves
    whole = sum(curve[-1].train_seconds for curve in curves)
    most = hypervolume(study.front, study.box)
    print(f"{date.today()}, study {study.name}, {len(curves)} trainings of {whole:.0f} s, {options.orders} orders\n")
    print(
        "| rule | stopped | seconds saved | of the stopped would have joined "
        + "".join(f"| found at {share:.0%} " for share in SHARES)
        + "|\n|"
        + "---|" * (4 + len(SHARES))
    )
    for name, rule in STOPPING.items():
        replays = [replayed(curves, study.floor, study.box, rule, seed) for seed in range(options.orders)]
        n_stopped = fmean(len(replay.stopped) for replay in replays)
        shares = [replay.n_false / len(replay.stopped) for replay in replays if replay.stopped]
        cells = [f"{n_stopped:.1f}", f"{fmean(1 - replay.seconds / whole for replay in replays):.1%}"]
        cells.append(f"{fmean(shares):.1%} +- {stdev(shares):.1%}" if len(shares) > 1 else "-")
        cells += [f"{fmean(replay.found(share * whole) for replay in replays) / most:.4f}" for share in SHARES]
        print(f"| {name} | " + " | ".join(cells) + " |")
    print("", *shadow.lines(study), sep="\n")


if __name__ == "__main__":
    main()
