"""What early stopping cost a finished study: python -m benchmarks.replay --study NAME [--storage URL].

Trains every stopped trial once more, with the same pipeline and seeds on the same device,
but to its end, and asks whether it would have joined the front. The study is only read. Seconds vary from run to run:
those of a retraining are also shown scaled, by the recorded over the new seconds at the epoch where the trial was
stopped. Prints Markdown.

What this cannot show: that a sampler which had seen these trials to their end would have proposed others.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import date
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from objectives.errors import DataError, DeviceError
from objectives.pipeline import Report
from search.database import storage
from search.errors import DeviceFault, StorageError, UsageError
from search.pareto.front import Outcome, best_within, front
from search.study import records
from search.study.opening import stored
from search.study.study import Study
from search.trial import accuracy_of
from search.workers.process import WorkerProcess
from search.workers.seam import Objective, TrialFault, preparation


@dataclass(frozen=True)
class Replay:
    """A stopped trial as recorded, and trained to its end."""

    trial: int
    reason: str
    epoch: int  # where it was stopped
    epochs: int  # of the run
    recorded_seconds: float  # at that epoch
    recorded_accuracy: float  # likewise, as stored: 5 decimals
    seconds: float  # of the retraining at that epoch
    accuracy: float  # likewise, 5 decimals
    final_seconds: float  # of the retraining
    final_accuracy: float
    diverged: bool  # the retraining did, after that epoch: it ends there and joins no front

    @property
    def scaled_seconds(self) -> float:
        """Seconds that the recorded trial would have taken to the end."""
        return self.final_seconds * self.recorded_seconds / self.seconds

    @property
    def reproduced(self) -> bool:
        """Whether the accuracy at the epoch of the stop is the recorded one."""
        return self.accuracy == self.recorded_accuracy

    def outcome(self, *, scaled: bool) -> Outcome:
        """The result that stopping prevented."""
        return Outcome(self.trial, self.scaled_seconds if scaled else self.final_seconds, self.final_accuracy)


def replayed(study: Study, trial: FrozenTrial, objective: Objective) -> Replay:
    """The stopped trial, trained to its end.

    Raises:
        TrialFault: the retraining failed.
    """
    epoch, recorded_seconds, recorded_accuracy, _ = trial.user_attrs[records.CURVE][-1]
    reports: list[Report] = []
    with closing(objective.reports(records.pipeline(trial), study.seeds(trial))) as running:  # type: ignore[arg-type]
        for report in running:
            reports.append(report)
            if report.diverged:
                break
    at, last = reports[min(int(epoch), len(reports)) - 1], reports[-1]
    return Replay(
        trial.number,
        records.reason(trial),
        int(epoch),
        last.epochs,
        recorded_seconds,
        recorded_accuracy,
        at.train_seconds,
        round(accuracy_of(study, at), 5),
        last.train_seconds,
        accuracy_of(study, last),
        last.diverged,
    )


def with_replays(study: Study, replays: Sequence[Replay], *, scaled: bool) -> tuple[Outcome, ...]:
    """The front of the study had nothing been stopped."""
    recorded = records.outcomes(study.trials(), study.floor)
    finished = [replay.outcome(scaled=scaled) for replay in replays if not replay.diverged]
    return front([*recorded, *(outcome for outcome in finished if outcome.accuracy >= study.floor)])


def row(study: Study, replay: Replay) -> str:
    """A replay as a row of a Markdown table."""
    joins = []
    for scaled in (True, False):
        points = with_replays(study, [replay], scaled=scaled)
        joins.append("yes" if replay.trial in {point.trial for point in points} else "no")
    bar = best_within(study.snapshot().front, replay.scaled_seconds)
    end = "diverged" if replay.diverged else f"{replay.final_accuracy:.2%}"
    same = "" if replay.reproduced else f" (now {replay.accuracy:.2%})"
    return (
        f"| {replay.trial} | {replay.reason.replace('_', ' ')} | {replay.epoch} of {replay.epochs} "
        f"| {replay.recorded_accuracy:.2%}{same} | {replay.recorded_seconds:.2f} ({replay.seconds:.2f}) "
        f"| {end} | {replay.scaled_seconds:.2f} ({replay.final_seconds:.2f}) "
        f"| {'-' if bar is None else f'{bar:.2%}'} | {joins[0] if joins[0] == joins[1] else ' / '.join(joins)} |"
    )


HEAD = (
    "| trial | stopped as | epoch | accuracy then | seconds then (now) | final accuracy | final seconds (unscaled) "
    "| front at that time | joins (unscaled) |\n|---|---|---|---|---|---|---|---|---|"
)


def totals(study: Study, replays: Sequence[Replay]) -> list[str]:
    """What the replays show together."""
    recorded = study.snapshot().front
    said = []
    for scaled in (True, False):
        points = with_replays(study, replays, scaled=scaled)
        joined, left = (
            {p.trial for p in a} - {p.trial for p in b} for a, b in ((points, recorded), (recorded, points))
        )
        same = "yes" if points == recorded else f"no: {_numbers(joined)} would join, {_numbers(left)} would leave"
        said.append(f"front with stopping off equals the recorded one ({'' if scaled else 'un'}scaled seconds): {same}")
        if points != recorded:
            kept, whole = study.snapshot().hypervolume(recorded), study.snapshot().hypervolume(points)
            if kept is not None and whole:
                said[-1] += f"; hypervolume kept: {kept / whole:.4f}"
    trained = [t.user_attrs[records.CURVE][-1][1] for t in study.trials() if t.user_attrs.get(records.CURVE)]
    saved = sum(replay.scaled_seconds - replay.recorded_seconds for replay in replays)
    share = saved / (sum(trained) + saved)
    said.append(f"training seconds saved: {saved:.1f} of {sum(trained) + saved:.1f} ({share:.1%})")
    n_same = sum(replay.reproduced for replay in replays)
    said.append(f"accuracy at the epoch of the stop as recorded, to 5 decimals: {n_same} of {len(replays)}")
    return said


def check_same(name: str, identity: dict[str, Any], facts: dict[str, Any]) -> None:
    """Refuses another device or other data than those of the study.

    Raises:
        UsageError: the difference.
    """
    for part in ("device", "data", "timing_version"):
        if not records.same_json(identity[part], facts[part]):
            raise UsageError(
                f"{part} of study {name!r} was {identity[part]}, here it is {facts[part]}: replay it where it was made"
            )


def run(options: argparse.Namespace, command: str) -> None:
    """Replays the study that the command line names and prints the tables."""
    url = storage.url(options.storage, None)
    study = stored(options.study, storage.open_storage(url, create=False))
    stopped = [trial for trial in study.trials() if records.is_stopped(trial)]
    identity = study.optuna.user_attrs[records.IDENTITY]
    getting_ready = preparation(study.spec.task, options.device, identity["device"]["threads"])
    with closing(WorkerProcess(getting_ready)) as objective:
        check_same(study.name, identity, objective.facts())
        device, counts = identity["device"], records.counts(study.trials())
        print(f"{date.today()}, {device['model']}, torch {device['torch']}, {device['threads']} thread(s)\n")
        print(f"    {command}\n")
        print(f"Study {study.name}: {counts.complete} trials complete, {len(stopped)} stopped; ", end="")
        print(f"front of {len(study.snapshot().front)}.\n\n{HEAD}", flush=True)
        replays = []
        for trial in stopped:
            try:
                replays.append(replayed(study, trial, objective))
                print(row(study, replays[-1]), flush=True)
            except TrialFault as fault:
                print(f"| {trial.number} | {fault.reason}: {fault} |", flush=True)
    print()
    for line in totals(study, replays):
        print(f"* {line}")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.replay", description=(__doc__ or "").split("\n\n")[0])
    p.add_argument("--study", required=True, metavar="NAME", help="its name in the database")
    p.add_argument("--storage", metavar="URL", help="default: OPTUNA_STORAGE, then sqlite:///studies/optuna.db")
    p.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 (default: a GPU if there is one)")
    return p


def main(arguments: list[str] | None = None) -> int:
    """Replays a study; 0, or 2 when it cannot be replayed here."""
    words = sys.argv[1:] if arguments is None else arguments
    options = parser().parse_args(words)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        run(options, f"python -m benchmarks.replay {shlex.join(words)}")
    except (UsageError, StorageError, DataError, DeviceError, DeviceFault, TrialFault) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _numbers(trials: set[int]) -> str:
    return f"trial {', '.join(map(str, sorted(trials)))}" if trials else "none"


if __name__ == "__main__":
    sys.exit(main())
