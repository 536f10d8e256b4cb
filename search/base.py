"""The network that a study makes smaller: exported before, or trained once; kept beside the networks of its trials."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from objectives.host.durable import damaged, sums, write_folder
from objectives.task import Seeds
from search.errors import DeviceFault, UsageError, told_as_no_room
from search.invocation import Invocation
from search.study.files.sections import UNSTOPPED, ReduceSection
from search.study.spec import StudySpec
from search.views.display import Display
from search.workers.seam import Objective, TrialFault
from search.workers.single import GivenUp, to_its_end

REPEAT = 2  # of the seeds of trial 0: they are those of the training of the base


def check(spec: StudySpec, asked: Invocation) -> None:
    """Refuses what a command line asks of a study that makes a network smaller, and that it cannot do.

    Raises:
        UsageError: the words and the way out.
    """
    if spec.reduce is None:
        return
    if asked.minutes is not None:
        raise UsageError("--minutes plans trainings by their seconds; a study of kind reduce ends by --n-trials")
    if asked.cluster is not None:
        raise UsageError("--cluster: the network that a study of kind reduce makes smaller lies on this machine alone")
    if spec.search.stopping != "none":
        raise UsageError(f"--stopping: {UNSTOPPED.format(spec.search.stopping)}")


def check_model(spec: StudySpec) -> None:
    """Refuses a folder that holds no exported network, before anything is opened.

    Raises:
        UsageError: it does not.
    """
    try:
        if spec.reduce is not None:
            spec.reduce.check()
    except ValueError as error:
        raise UsageError(str(error)) from error


def provided(
    name: str,
    spec: StudySpec,
    folder: Path,
    objective: Objective,
    display: Display,
    facts: Mapping[str, Any],
    is_new: bool,
) -> Mapping[str, Any]:
    """The facts of a worker, with those of the network that the study makes smaller, which then lies in its folder.

    Made anew for `is_new` studies, unless an interrupted beginning left what would be made.

    Raises:
        UsageError: the network is none that can be made smaller.
        DeviceFault, StorageError: it cannot be trained, or not be written.
    """
    if spec.reduce is None:
        return facts
    if damaged(folder) or (is_new and not _is_what_would_be_made(spec, folder, facts)):
        with told_as_no_room():
            if spec.reduce.folder is not None:
                check_model(spec)
                _copy(spec.reduce, folder)
            else:
                _train(name, spec, folder, objective, display)
    base = cast("dict[str, Any]", objective.facts()["base"])
    if not base["is_measured"]:
        rule = "what it may lose is measured on images that it was not trained on"
        raise UsageError(f"study {name!r}: the network to make smaller was trained on all images: {rule}: take another")
    if is_new and base["trained_on"] != (data := facts["data"])["split"] and base["content"] == data["content"]:
        display.say("warning: the network was trained on another split of these images, perhaps on some that validate")
    if is_new:
        said = f"{base['accuracy']:.2%} on validation, {spec.what.said(base['inference_flops'])} an inference"
        display.say(f"to be made smaller: {said}, {base['n_parameters']:,} parameters: {folder}")
    return {**facts, "base": base}


def number_format(facts: Mapping[str, Any]) -> dict[str, str | None] | None:
    """The only number format of a study that makes a network smaller, as `number_formats` puts it; None of others."""
    base = facts.get("base")
    return None if base is None else {str(base["pipeline"]["number_format"]): None}


def _is_what_would_be_made(spec: StudySpec, folder: Path, facts: Mapping[str, Any]) -> bool:
    """Whether a whole folder holds the network that the study asks for."""
    assert spec.reduce is not None
    if spec.reduce.folder is not None:
        return not damaged(spec.reduce.folder) and sums(folder) == sums(spec.reduce.folder)
    assert spec.reduce.base is not None
    about, data = json.loads((folder / "model.json").read_bytes()), facts["data"]
    asked = {"pipeline": spec.reduce.base.pipeline.to_json(), "made_of": _made_of(spec)}
    asked |= {"data": {"content": data["content"], "split": data["split"]}}
    return all(about.get(name) == value for name, value in asked.items())


def _made_of(spec: StudySpec) -> list[object]:
    """What a base follows from beside its pipeline and the images."""
    return [spec.network.family, spec.network.stem_stride, spec.search.seed]


def _copy(reduce: ReduceSection, folder: Path) -> None:
    """Keeps an exported network: what becomes of its folder does not matter any more."""
    assert reduce.folder is not None
    write_folder(folder, {name: (reduce.folder / name).read_bytes() for name in sums(reduce.folder)})


def _train(name: str, spec: StudySpec, folder: Path, objective: Objective, display: Display) -> None:
    """Trains and exports the base."""
    assert spec.reduce is not None
    assert spec.reduce.base is not None
    pipeline, seeds = spec.reduce.base.pipeline, Seeds.of(spec.search.seed, 0, repeat=REPEAT)
    display.say(f"the network to make smaller is trained first, once: {pipeline.describe()}")
    try:
        last = to_its_end(objective, pipeline, seeds)
        objective.export(folder, {"study": name, "made_of": _made_of(spec)})
    except GivenUp as given_up:
        why = f"diverged in epoch {given_up.last.epoch}: lower reduce.base.lr"
        raise UsageError(f"the network to make smaller {why}") from given_up
    except TrialFault as fault:
        raise DeviceFault(f"the network to make smaller cannot be trained: {fault}") from fault
    display.say(f"  {last.accuracy:.2%} after {last.train_seconds:.2f} s")
