"""A reduction as a study sees it: a `Report` for the network as it was, and one for every attempt at a smaller one."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from math import nan
from pathlib import Path

from objectives.data.dataset import Dataset
from objectives.device.clock import peak_memory
from objectives.export import ExportedModel, load_model
from objectives.host.durable import sums
from objectives.inference.folder import WEIGHTS
from objectives.networks import flops
from objectives.pipeline import Pipeline, Report
from objectives.reduction.settings import Iteration, Reduction
from objectives.reduction.snare import n_parameters, reduced
from objectives.reduction.terms import Terms
from objectives.task import Seeds
from objectives.train import Trained


def about(folder: Path, dataset: Dataset) -> dict[str, object]:
    """What a study keeps of the network that it makes smaller, as plain JSON data.

    Raises:
        DataError: the network takes other images than these, or tells other classes.
        ValueError: the folder is damaged, or of another version.
    """
    base = load_model(folder)
    first = _first(base, Pipeline.from_json(base.about["pipeline"]), dataset)  # type: ignore[arg-type]
    trained_on: dict[str, str] = base.about.get("data", {})  # type: ignore[assignment]
    return {
        "weights": sums(folder)[WEIGHTS],
        "pipeline": base.about["pipeline"],
        "architecture": first.architecture,
        "accuracy": first.accuracy,
        "inference_flops": first.inference_flops,
        "n_parameters": first.n_parameters,
        "content": trained_on.get("content"),
        "trained_on": trained_on.get("split"),
        "is_measured": base.about.get("accuracy") is not None,
    }


def reports(
    base: ExportedModel, pipeline: Pipeline, dataset: Dataset, seeds: Seeds
) -> Generator[Report, None, Trained]:
    """Makes `base` smaller as `pipeline` says; returns the smallest network that was accepted.

    Each report is of the smallest network accepted so far, with what was tried as an event: the first of the base, the
    last, which has `epoch == epochs`, once more of what is returned. Nobody knows before how many attempts there are.

    Raises:
        DataError: the network takes other images than these, or tells other classes.
    """
    assert pipeline.reduction is not None
    told = _first(base, pipeline, dataset)
    yield told
    running = reduced(base, dataset, pipeline.reduction, seeds.init)
    while True:
        try:
            told = _after(told, next(running), dataset, pipeline.reduction)
        except StopIteration as end:
            trained: Trained = end.value
            break
        yield told
    last = replace(
        trained.report,
        epoch=told.epoch,
        epochs=told.epoch,
        peak_memory=told.peak_memory,
        eval_peak_memory=told.eval_peak_memory,
        events=(_ended(pipeline.reduction, told.epoch - 1),),
    )
    yield last
    return replace(trained, pipeline=pipeline, report=last)


def _first(base: ExportedModel, pipeline: Pipeline, dataset: Dataset) -> Report:
    """The report of a network that nothing was tried on yet."""
    terms = Terms.of(base, dataset, pipeline.reduction or Reduction())
    model = terms.trainable(base.network)
    found, work = terms.evaluated(model), float(flops.count(model.architecture, dataset.size)[0])
    peak = peak_memory(terms.device)
    return Report(
        epoch=1,
        epochs=_at_most(pipeline.reduction, 1),
        train_seconds=0.0,
        accuracy=found.accuracy,
        balanced_accuracy=found.balanced_accuracy,
        settled=True,
        loss=nan,
        diverged=not found.is_finite,
        wall_seconds=0.0,
        boundary_seconds=0.0,
        eval_seconds=0.0,
        train_flops=0.0,
        inference_flops=work,
        full_flops=work,
        n_parameters=n_parameters(model),
        peak_memory=peak,
        eval_peak_memory=peak,
        skipped_steps=0,
        architecture=model.architecture.describe(),
        right=found.right,
    )


def _after(told: Report, done: Iteration, dataset: Dataset, reduction: Reduction) -> Report:
    """The report after an attempt. How right a network is class by class is told of the last one only."""
    peak = peak_memory(dataset.train.x.device)
    now = replace(
        told,
        epoch=done.number + 1,
        epochs=_at_most(reduction, done.number + 1),
        train_seconds=told.train_seconds + done.seconds,
        wall_seconds=told.wall_seconds + done.seconds,  # nobody tells those of one attempt
        peak_memory=max(told.peak_memory, peak),
        eval_peak_memory=max(told.eval_peak_memory, peak),
        events=(_words(done),),
    )
    if not done.accepted:
        return now
    return replace(
        now,
        accuracy=done.accuracy,
        balanced_accuracy=done.accuracy,
        right=(),
        inference_flops=done.flops,
        n_parameters=done.n_parameters,
        architecture=done.architecture,
    )


def _at_most(reduction: Reduction | None, told: int) -> int:
    """How many reports there may be, so many having been told: never the last one."""
    limit = reduction.iterations if reduction is not None and reduction.iterations is not None else 0
    return max(told, limit + 1) + 1


def _words(done: Iteration) -> str:
    """An attempt in words."""
    verdict = "" if done.accepted else " refused"
    return f"{done.axis} {done.n_before} -> {done.n_after}{verdict}: {done.accuracy:.1%}"


def _ended(reduction: Reduction, n: int) -> str:
    """Why no more was tried."""
    if reduction.iterations is not None and n >= reduction.iterations:
        return f"ended with attempt {n}"
    return f"ended after {n} attempts: nothing is left to be made smaller"
