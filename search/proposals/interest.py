"""What a study is interested in: the box of its hypervolume, from forecasts, before anything has run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from objectives.modelled.seconds import nominal_step_seconds, run_seconds
from objectives.pipeline import Pipeline
from objectives.task import Task
from objectives.work import n_steps
from search.pareto.front import Box
from search.study.spec import StudySpec
from spaces import SPACES
from spaces.base import BASELINE, Given
from spaces.restricted import anchor_pipelines

SLOWER_THAN_BASELINE = 10  # times its seconds: what takes longer is of no interest
LEAST_EXTENT = 2.0  # slowest over fastest
LEAST_SHARE = 0.01  # of the FLOPs of a network that is made smaller: what is left below counts as that
SPARE = 2  # times the largest loss that is allowed: what has lost more counts for nothing

Probe = Callable[[Pipeline], float]  # device seconds of a training step of a pipeline, its strategies apart


def box(
    spec: StudySpec,
    given: Given,
    floor: float,
    data: Mapping[str, Any],
    probe: Probe | None = None,
    base: Mapping[str, Any] | None = None,
) -> Box:
    """The region of interest: from ten times the forecast seconds of BASELINE to those of the cheapest anchor, from the
    floor upwards, as far as the study file does not say otherwise.

    `data`: the facts of the data. Without a `probe` a typical device is assumed. `base`: of the network that is made
    smaller, the facts: then from its FLOPs to a hundredth of them, and from a little below what it may lose.
    """
    search, task = spec.search, spec.task
    if given.reducing is not None and base is not None:
        work, least = base["inference_flops"], max(floor, base["accuracy"] - SPARE * given.reducing.epsilon[1])
        return Box(LEAST_SHARE * work, work, least if search.useful is None else search.useful, int(data["n_val"]))
    pipelines = anchor_pipelines(SPACES[spec.space.name], given, spec.restrictions)
    if search.slowest and search.fastest:  # nothing is left to probe
        slowest, fastest = search.slowest, search.fastest
    else:
        seconds = {name: forecast(each, task, given, probe) for name, each in _ends(pipelines, task, given).items()}
        slowest = search.slowest or SLOWER_THAN_BASELINE * seconds[BASELINE]
        fastest = search.fastest or min(*seconds.values(), slowest / LEAST_EXTENT)
    slowest = max(slowest, LEAST_EXTENT * fastest)
    useful = search.useful if search.useful is not None else floor
    return Box(fastest, slowest, useful, int(data["n_val"]))


def forecast(pipeline: Pipeline, task: Task, given: Given, probe: Probe | None) -> float:
    """Seconds that a pipeline is expected to train, by the time model: of the task's machine, or one step of which was
    probed, or one that was not asked.

    Of reductions nothing is known beforehand that would tell them apart: of all the same.
    """
    if pipeline.reduction is not None:
        return 1.0
    if task.machine is not None:
        return run_seconds(pipeline, task, task.machine, given.size, 3, given.n_train)
    steps = n_steps(pipeline, given.n_train)
    step = nominal_step_seconds(pipeline, task, given.size)
    if probe is not None:
        plain = replace(pipeline, strategies=())
        step *= probe(plain) / nominal_step_seconds(plain, task, given.size)
    return steps * step


def _ends(pipelines: Mapping[str, Pipeline], task: Task, given: Given) -> dict[str, Pipeline]:
    """BASELINE, and the anchor of the least work: the two whose steps are probed."""

    def work(name: str) -> float:
        return n_steps(pipelines[name], given.n_train) * nominal_step_seconds(pipelines[name], task, given.size)

    return {name: pipelines[name] for name in dict.fromkeys((BASELINE, min(pipelines, key=work)))}
