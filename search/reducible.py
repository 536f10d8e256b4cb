"""A network that is to be made smaller: it, its data and its device, opened and held by this process."""

from __future__ import annotations

import hashlib
import os
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import cast

import torch

from objectives.data.dataset import Dataset
from objectives.data.reading import keep
from objectives.device.formats import FORMATS, unavailable
from objectives.device.opening import opened
from objectives.errors import DataError, DeviceError
from objectives.export import ExportedModel, load_model
from objectives.inference.answers import sized
from objectives.inference.folder import DESCRIPTION, WEIGHTS
from objectives.networks import flops
from objectives.objective import on_host
from objectives.reduction.result import Weighed
from objectives.reduction.settings import Iteration
from objectives.reduction.snare import n_parameters, reduced
from objectives.reduction.terms import Terms, as_taken
from objectives.strategies import STRATEGIES
from objectives.task import DataSpec, Task
from objectives.train import Trained
from objectives.words import counted, some
from search.errors import StorageError, UsageError
from search.host import devices
from search.host.locks import Held, locked
from search.host.owner import this_process
from search.host.places import run_folder
from search.invocation import Reducing
from search.views.reduction.display import Display


@dataclass(frozen=True)
class Work:
    """A network that is to be made smaller, and what for."""

    asked: Reducing
    base: ExportedModel
    dataset: Dataset  # normalised as the network takes it
    spec: DataSpec
    terms: Terms
    workers: tuple[str, ...] = ()  # devices of the processes that try ahead, one name each

    @property
    def device(self) -> torch.device:
        return self.terms.device

    @cached_property
    def before(self) -> Weighed:
        """The network to begin with."""
        accuracy = self.terms.evaluated(self.terms.trainable(self.base.network)).accuracy
        return self.weighed(self.base, self.asked.base, accuracy)

    def weighed(self, model: ExportedModel, folder: Path, accuracy: float) -> Weighed:
        """What an exported network costs."""
        network = model.network
        work = float(flops.count(network.architecture, self.dataset.size)[0])
        size = (folder / WEIGHTS).stat().st_size
        return Weighed(network.architecture.describe(), n_parameters(network), work, size, accuracy)

    def tried(self) -> tuple[tuple[Iteration, ...], Trained]:
        """The attempts of the journal, and the network that they came to."""
        course = reduced(
            self.base,
            self.dataset,
            self.terms.settings,
            self.asked.seed,
            journal=self.asked.journal,
            goes_on=lambda: False,
        )
        attempts = []
        while True:
            try:
                attempts.append(next(course))
            except StopIteration as end:
                return tuple(attempts), cast("Trained", end.value)


def taken(asked: Reducing, held: ExitStack) -> tuple[torch.device, tuple[str, ...]]:
    """The device, and those of the processes that try ahead; held by this process until the stack is closed.

    So is the folder of the result.

    Raises:
        UsageError, StorageError, DeviceError: it cannot be meant, somebody else has it, it does not work.
    """
    request = devices.requested(asked.device)
    n_workers = request.n
    if request.slots[0].device == "cpu":
        n = n_workers * asked.threads
        if n > devices.n_cores():
            raise UsageError(
                f"--device {asked.device} with --threads {asked.threads} takes {n} cores, this process may use "
                f"{devices.n_cores()}: fewer of either"
            )
        request = replace(request, n=n, workers=n)
    about, where = this_process().to_json(), os.path.realpath(asked.result)
    digest = hashlib.sha256(os.fsencode(where)).hexdigest()[:16]
    try:
        held.enter_context(locked(run_folder() / f"reduction-{digest}.lock", about, elsewhere=devices.ELSEWHERE))
    except Held as error:
        who = error.holder.get("pid", "?")
        raise StorageError(f"process {who} makes {asked.output} already: wait for it, or choose another") from error
    slots = held.enter_context(devices.taken(request, f"reduction {asked.output}", where))
    workers = tuple(slot.device for slot in slots[:n_workers]) if n_workers > 1 else ()
    return opened(slots[0].device), workers


def prepared(asked: Reducing, device: torch.device, workers: tuple[str, ...], display: Display) -> Work:
    """The network and its data, on the device.

    Raises:
        DataError: they cannot be used, or do not fit each other.
        DeviceError: the device lacks memory, or the number format.
    """
    base = _in_format(_base(asked.base), asked, device)
    told = cast("dict[str, object]", base.about.get("data") or {})
    spec = sized(base, asked.images(None, None, None))
    if not spec.is_series:
        spec = asked.images(base.size, base.channels, cast("bool | None", told.get("flip")))
    keep(spec, display.data_read)
    on_cpu = on_host(Task(spec, "thin"), asked.threads)
    fitting = as_taken(base, on_cpu).on(device)
    _say_of_data(fitting, base, told, display)
    try:
        return Work(asked, base, fitting, spec, Terms.of(base, fitting, asked.settings), workers)
    except ValueError as error:
        raise DataError(f"{asked.base / DESCRIPTION}: {error}") from error


def _base(folder: Path) -> ExportedModel:
    try:
        return load_model(folder)
    except ValueError as error:
        said = str(error)
        raise DataError(said if str(folder) in said else f"{folder} is not an exported model: {said}") from error
    except (LookupError, TypeError, AttributeError, ArithmeticError) as error:
        cause = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise DataError(f"{folder / DESCRIPTION} describes no network that this version knows ({cause})") from error


def _in_format(base: ExportedModel, asked: Reducing, device: torch.device) -> ExportedModel:
    """The network, to be trained in the number format that is asked for."""
    pipeline = base.about.get("pipeline")
    if not isinstance(pipeline, dict):
        raise DataError(f"{asked.base / DESCRIPTION} does not say how the network was trained: export it again")
    name = asked.number_format or str(pipeline.get("number_format"))
    if name in FORMATS and (reason := unavailable(name, device)):
        whose = "--number-format is" if asked.number_format else f"{asked.model} was trained in"
        raise DeviceError(f"{whose} {name}, which {reason}: choose another, --number-format fp32")
    kept = [each for each in pipeline.get("strategies", ()) if _runs_in(str(each.get("strategy")), name)]
    about = {**base.about, "pipeline": {**pipeline, "number_format": name, "strategies": kept}}
    return replace(base, about=about)


def _runs_in(strategy: str, number_format: str) -> bool:
    """Whether a strategy can run in a number format; one that this version does not know is told elsewhere."""
    formats = STRATEGIES[strategy].number_formats if strategy in STRATEGIES else ()
    return not formats or number_format in formats


def _say_of_data(dataset: Dataset, base: ExportedModel, told: dict[str, object], display: Display) -> None:
    """What the data are, and in what they are not those of the network."""
    if dataset.about:
        display.say(dataset.about)
    if dataset.skipped:
        display.say(f"{counted(len(dataset.skipped), 'file')} cannot be used, left out: {some(dataset.skipped)}")
    warnings = list(dataset.warnings)
    if told.get("content") != dataset.content_hash:
        warnings.append("the network was trained on other images than these")
    elif told.get("split") != dataset.split_hash:
        warnings.append(
            "the network was trained on another split of these images (--seed and --n-train are those of its study): "
            "it may know those that validate, and lose more than is measured"
        )
    if base.about.get("accuracy") is None:
        warnings.append("the network was trained on all images: it knows those that validate, little may be accepted")
    for warning in warnings:
        display.say(f"warning: {warning}")
