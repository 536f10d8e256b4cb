"""What trainings of one pipeline came to: for people, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from objectives.pipeline import Pipeline
from objectives.words import counted
from search.pareto.intervals import LEAST_DEGREES, Estimate, of_accuracies, of_costs, wilson
from search.planning.promise import Promise
from search.views.columns import columns


@dataclass(frozen=True)
class Run:
    """A training that came to its end; its network is exported."""

    seed: int  # counted from 1
    train_seconds: float  # of the device
    wall_seconds: float
    accuracy: float  # that counts, of the images that validate
    network: Path


@dataclass(frozen=True)
class OfAll:
    """The training on all images, those that validate included."""

    train_seconds: float
    n_images: int
    network: Path
    promise: Promise | None  # of its accuracy; None: no other training tells of it


@dataclass(frozen=True)
class Result:
    """What a pipeline came to on data."""

    pipeline: Pipeline
    family: str
    data: str
    n_train: int
    n_val: int
    n_sure: int  # images from whose number an interval of an accuracy comes
    device: str
    metric: str
    runs: Sequence[Run]
    failed: Sequence[tuple[int, str]]  # seed, why: those that did not come to their end
    of_all: OfAll | None
    exported: float | None  # accuracy of the network that the pipeline comes from, on the same images; None: of others

    @property
    def seconds(self) -> Estimate:
        """Mean device seconds of a training."""
        return of_costs([[run.train_seconds for run in self.runs]])[0]

    @property
    def accuracy(self) -> Estimate:
        """Mean accuracy, with the interval of seeds, or of the number of images where seeds are too few."""
        found = of_accuracies([[run.accuracy for run in self.runs]])[0]
        return found if found.interval else Estimate(found.mean, wilson(found.mean, self.n_sure))

    @property
    def has_spread(self) -> bool:
        """Whether seeds tell the intervals."""
        return len(self.runs) > LEAST_DEGREES


def as_json(found: Result) -> dict[str, object]:
    """What a program is told."""
    measured = {
        "train_seconds": asdict(found.seconds),
        "val_accuracy": {**asdict(found.accuracy), "from": "seeds" if found.has_spread else "images"},
    }
    return {
        "pipeline": found.pipeline.to_json(),
        "pipeline_words": found.pipeline.describe(),
        "family": found.family,
        "data": found.data,
        "images": {"train": found.n_train, "validation": found.n_val},
        "device": found.device,
        "metric": found.metric,
        **(measured if found.runs else {"train_seconds": None, "val_accuracy": None}),
        "exported_accuracy": found.exported,
        "seeds": [{**asdict(run), "network": str(run.network.absolute())} for run in found.runs],
        "failed": [{"seed": seed, "why": why} for seed, why in found.failed],
        "all_images": None if found.of_all is None else _of_all_json(found.of_all),
    }


def lines(found: Result, width: int | None = None) -> list[str]:
    """What people are told."""
    said = [found.pipeline.describe(), ""]
    if found.runs:
        rows = [
            [str(run.seed), f"{run.train_seconds:.2f}", f"{run.accuracy:.2%}", str(run.network)] for run in found.runs
        ]
        said += [*columns(["seed", "seconds", "accuracy", "network"], rows, width), "", *_means(found)]
    if found.failed:
        why = "; ".join(f"seed {seed} was given up {why}" for seed, why in found.failed)
        said.append(f"failed    {why}")
    if found.of_all is not None:
        said += _of_all(found.of_all, found)
    return said


def _means(found: Result) -> list[str]:
    """Means with what is known of their spread."""
    n, accuracy, seconds = len(found.runs), found.accuracy, found.seconds
    mean = f"mean of {counted(n, 'seed')}, " if n > 1 else ""
    assert accuracy.interval is not None
    low, high = accuracy.interval
    is_balanced = found.metric == "balanced"
    images = f"from the number of images{' of each class' if is_balanced else ''}, {found.n_val}"
    source, kind = "from the spread of seeds" if found.has_spread else images, "accuracy"
    if is_balanced:
        kind = "balanced accuracy"
    said = [f"{kind:<9} {accuracy.mean:.2%} ({mean}95 %: {low:.1%} to {high:.1%}, {source})"]
    if found.exported is not None:
        said.append(f"          {found.exported:.2%} in the training that the pipeline comes from, on these images")
    if seconds.interval is not None:
        spread = f"{mean}95 %: {seconds.interval[0]:.3g} to {seconds.interval[1]:.3g}"
    elif n > 1:
        took = [run.train_seconds for run in found.runs]
        spread = f"{mean}{min(took):.3g} to {max(took):.3g}; an interval takes {LEAST_DEGREES + 1} seeds"
    else:
        spread = f"one training; an interval takes {LEAST_DEGREES + 1} seeds"
    return [*said, f"seconds   {seconds.mean:.3g} ({spread}) on {found.device}"]


def _of_all(of_all: OfAll, found: Result) -> list[str]:
    said = f"of all {counted(of_all.n_images, 'image')}, in {of_all.train_seconds:.3g} s"
    if of_all.promise is None:
        return [f"network   {of_all.network}, {said}: nothing tells how accurate it is"]
    low, high = of_all.promise.interval
    measured = f"{of_all.promise.measured:.1%} of {counted(len(found.runs), 'seed')}, and what more images bring"
    expected = f"expect {of_all.promise.accuracy:.1%} on new images ({low:.1%} to {high:.1%}): {measured}"
    return [f"network   {of_all.network}, {said}", f"          {expected}"]


def _of_all_json(of_all: OfAll) -> dict[str, object]:
    return {**asdict(of_all), "network": str(of_all.network.absolute())}
