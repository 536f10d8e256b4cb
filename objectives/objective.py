"""`TrainingObjective`: what a worker holds. A data set on a device, and trainings on it."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import cast, get_args

import torch

from objectives.data.augment import Normalisation
from objectives.data.dataset import Dataset, load
from objectives.data.held_out import HeldOut, load_test
from objectives.device import reference
from objectives.device.allocator import keep_freed_memory
from objectives.device.clock import TIMING_VERSION, Clock, describe
from objectives.device.comparison import admitted, compared
from objectives.device.executors import Eager, Segment, missing
from objectives.device.formats import FORMATS, LossScaler, unavailable
from objectives.device.opening import opened
from objectives.errors import DataError, DeviceError
from objectives.evaluation import evaluate
from objectives.export import export, load_model
from objectives.feasibility import full_architecture, layers, reachable
from objectives.host.durable import damaged
from objectives.mirroring import both_sides, mirrored, seen
from objectives.networks.families import is_plain
from objectives.networks.plain import AnyArchitecture
from objectives.pipeline import ExecutorName, Pipeline, Reading, Report
from objectives.reduction.reports import about
from objectives.reduction.reports import reports as reductions
from objectives.reduction.terms import as_taken
from objectives.repeated import train_on_splits
from objectives.starts.naming import origin
from objectives.starts.start import read
from objectives.strategies.transfer import Transfer
from objectives.task import Seeds, Task
from objectives.train import Trained, normalised_by, starting_state
from objectives.words import counted
from objectives.work import step_memory

SLOWEST_FORMAT = 1.5  # times fp32: a number format that is slower is dropped from a study
HOPELESS = 4  # times as slow on two small images: fp16 on a CPU would else take eight seconds to be found out
HOPELESS_SIDE = 32  # pixels at most: what is hopeless is so the more, the larger images are
PROBE_BATCH = 64  # images, or what PROBE_BYTES hold
PROBE_SIDE = 64  # pixels at most: a step in fp16 on two images of 224 pixels takes a CPU up to a minute
PROBE_BYTES = 64 << 20  # of activations
PROBE_STEPS = 5
PROBE_SECONDS = 0.5  # per format: a step in fp16 takes long on a CPU


def on_host(task: Task, threads: int = 1) -> Dataset:
    """The data of a task in host memory, and this process made ready to train on them with so many threads.

    No device is opened: a process that is forked afterwards may do so.
    """
    keep_freed_memory()
    torch.set_num_threads(threads)
    # The first optimizer of a process imports 800 modules, a second's work, which every fork would do again.
    torch.optim.SGD([torch.zeros(1, requires_grad=True)])
    if task.start is not None:
        with suppress(ValueError):  # who trains tells what is wrong with it
            read(task.start)  # once for all that are forked
    return load(task.data, torch.device("cpu"))


class TrainingObjective:
    """Trains pipelines on one task and one device.

    Raises:
        DataError: the images cannot be used.
        DeviceError: the device cannot be used.
    """

    def __init__(self, task: Task, device: str, threads: int = 1, dataset: Dataset | None = None) -> None:
        """`dataset`: the task's, where it is loaded already."""
        self._task = task
        self._device = opened(device)
        loaded = dataset or on_host(task, threads)
        if task.base is not None:  # a network was trained on one split: on others some that validate taught it
            loaded = replace(loaded, again=())
        self._dataset = loaded.on(self._device)
        shape = loaded.channels, loaded.n_classes, loaded.size
        try:
            self._check_start(full_architecture(Pipeline(), task, *shape))
        except ValueError as error:
            raise DataError(str(error)) from error
        if task.test_time_flip and not self._dataset.flip:
            raise DataError(
                f"test_time_flip = true, but a mirror image of {self._dataset.name} may have another label: "
                "leave it out, or set flip = true under [data]"
            )
        self._trained: Trained | None = None
        self._is_whole = False  # whether the last training was on all images
        self._exported_with = self._dataset  # what its network is normalised by
        self._formats: dict[str, str | None] | None = None  # once they are known
        self._test: HeldOut | None = None
        self._is_test_open = False

    def facts(self) -> dict[str, object]:
        """What seconds and accuracies depend on, as plain JSON data: it enters the identity of a study."""
        data = self._dataset
        validated = data.validated
        return {
            "device": asdict(describe(self._device)),
            "timing_version": TIMING_VERSION,
            "data": {
                "name": self._task.data.kind,
                "content": data.content_hash,
                "split": data.split_hash,
                "size": data.size,
                "channels": data.channels,
                "n_classes": data.n_classes,
                "n_train": len(data.train.y),
                "n_val": len(validated),
                "flip": data.flip,
                "classes": [list(each) for each in data.by_class],
                "largest_share": int(validated.bincount().max()) / len(validated),
                # The same numbers, and other seconds: part of what a study is. Absent where a memory holds the images,
                # so that studies of before go on.
                **({"streamed": True} if data.is_streamed else {}),
            },
            "executors": {name: missing(name, self._device) for name in get_args(ExecutorName)},
            "n_splits": len(data.splits),
            "about": data.about,
            "validated": validated.bincount(minlength=data.n_classes).tolist(),
            "images": dict(data.named),
            "skipped": list(data.skipped),
            "warnings": list(data.warnings),
            **self._about_base(),
            **({} if self._task.start is None else {"start": origin(self._task.start).to_json()}),
        }

    def _check_start(self, full: AnyArchitecture) -> None:
        """Refuses a start from which no network of the study can begin.

        Raises:
            ValueError: it is one, or none is there.
        """
        if self._task.start is None:
            return
        source, data = self._task.start, self._dataset
        known = origin(source)
        if known.is_series != data.is_series:
            takes, holds = ("series", "images") if known.is_series else ("images", "series")
            raise ValueError(f"the start, {known.words}, takes {takes}, and {data.name} holds {holds}")
        Transfer(source, known.digest).architecture(full)
        if not known.takes(data.channels):
            takes = counted(known.architecture.in_channels, "channel")
            raise ValueError(f"the start, {known.words}, takes {takes}, and {data.name} has {data.channels}")

    def _about_base(self) -> dict[str, object]:
        """What is known of the network that is made smaller, where there is one and it is whole."""
        if self._task.base is None or damaged(folder := Path(self._task.base)):
            return {}
        return {"base": about(folder, self._dataset)}

    def number_formats(self) -> dict[str, str | None]:
        """Every number format, with the reason why it is of no use on this device, or None where it is.

        A format must compute a training step of the family's shallowest network in at most 1.5 times the time of fp32,
        and nearly every convolution that pipelines may reach as fp32 does, gradients included.
        """
        if self._formats is not None:
            return self._formats
        reasons = {name: unavailable(name, self._device) for name in FORMATS}
        size = self._dataset.size
        side = size if is_plain(self._task.family) else min(size, PROBE_SIDE)
        plain = self._small(Pipeline(), side, self._task)
        few, small = replace(plain, batch_size=2), side if is_plain(self._task.family) else min(side, HOPELESS_SIDE)
        looks = ((few, small, 1, HOPELESS * SLOWEST_FORMAT), (plain, side, PROBE_STEPS, SLOWEST_FORMAT))
        for looked_at, pixels, n_steps, most in looks:
            usable = [name for name, reason in reasons.items() if reason is None]
            seconds = {
                name: self._step_seconds(replace(looked_at, number_format=name), pixels, self._task, n_steps)
                for name in usable
            }
            ratios = {name: found / seconds["fp32"] for name, found in seconds.items()}
            slow = {name: ratio for name, ratio in ratios.items() if ratio > most}
            reasons |= {name: f"{ratio:.1f} times the step time of fp32 on this device" for name, ratio in slow.items()}
        reached = reachable(self._task, self._dataset.size, self._dataset.channels)
        for name in (name for name, reason in reasons.items() if reason is None and name != "fp32"):
            reasons[name] = compared(FORMATS[name], reached, self._device).reason
        self._formats = {str(name): reason for name, reason in reasons.items()}
        return self._formats

    def reports(self, pipeline: Pipeline, seeds: Seeds, *, whole: bool = False) -> Generator[Report]:
        """Trains with `pipeline` on every split of the images; see `objectives.train.train`.

        With `whole` on all of them at once: accuracies are then those of images that are trained on. A pipeline with a
        reduction makes the task's base smaller instead, and yields a report per attempt.

        Raises:
            DataError: what the pipeline starts from is gone, or is another network.
            DeviceError: the device cannot compute in the number format.
        """
        self._trained, self._is_whole = None, whole
        self._exported_with = self._dataset
        if pipeline.reduction is not None:
            base = load_model(self._task.base or "")
            self._trained = yield from reductions(base, pipeline, self._dataset, seeds)
            self._exported_with = as_taken(base, self._dataset)
            return
        if reason := unavailable(pipeline.number_format, self._device):  # a study never asks for it
            raise DeviceError(f"number format {pipeline.number_format} {reason}: choose another, fp32")
        try:
            taken = normalised_by(pipeline, self._dataset)  # reads what it starts from
        except ValueError as error:
            raise DataError(str(error)) from error
        self._exported_with = replace(self._dataset, mean=taken.mean, std=taken.std)
        dataset = self._dataset.whole if whole else self._dataset
        self._trained = yield from train_on_splits(pipeline, self._task, dataset, seeds)

    def export(self, folder: Path, about: Mapping[str, object]) -> None:
        """Writes the network of the last training, which ran to its end, to `folder`.

        Raises:
            ValueError: the last training was stopped.
        """
        if self._trained is None:
            raise ValueError("there is nothing to export: the last training did not run to its end")
        data = self._task.data
        split = {"seed": data.seed, "n_train": data.n_train, "drop_small_classes": data.drop_small_classes}
        about = {**about, "split": split, "family": self._task.family, "stem_stride": self._task.stem_stride}
        export(self._trained, self._exported_with, folder, about, is_measured=not self._is_whole)

    def test(self, folder: Path) -> dict[str, object] | None:
        """How good the network exported to `folder` is on the test split; see `search.workers.seam`.

        Raises:
            DataError: the test split or the network cannot be read.
        """
        if not self._is_test_open:
            self._test, self._is_test_open = load_test(self._task.data, self._dataset), True
        if self._test is None:
            return None
        try:
            model = load_model(folder)
            pipeline = Pipeline.from_json(cast("Mapping[str, object]", model.about["pipeline"]))
        except ValueError as error:
            raise DataError(str(error)) from error
        size = self._dataset.size
        if pipeline.reduction is None:
            reached = layers(pipeline, self._task, size, self._dataset.channels)
        else:  # of whatever family
            reached = model.network.architecture.layers(size)
        found = evaluate(
            model.network.to(self._device),
            self._test.images,
            Normalisation(as_taken(model, self._dataset), self._device),
            admitted(FORMATS[pipeline.last_format], reached, self._device),
            batch_size=pipeline.batch_size,
            mirrored=model.mirrored,
        )
        accuracies = {"accuracy": found.accuracy, "balanced_accuracy": found.balanced_accuracy}
        return {**accuracies, "n": len(self._test.images.y), "warnings": list(self._test.warnings)}

    def reference(self, n_steps: int) -> Reading:
        """What the device is like just now; see `objectives.device.reference.read`."""
        return reference.read(self._device, n_steps)

    def probe(self, pipeline: Pipeline, task: Task | None = None) -> float:
        """Median device seconds of a training step of a pipeline without its strategies; see `search.workers.seam`.

        Where a batch is larger than what is probed, the seconds are scaled to it.
        """
        task, side = (task, task.data.side) if task is not None else (self._task, self._dataset.size)
        probed = self._small(replace(pipeline, strategies=(), ghost_batch=0), side, task)
        n_images = min(pipeline.batch_size, len(self._dataset.train.y))
        return self._step_seconds(probed, side, task) * max(1.0, n_images / probed.batch_size)

    def mirrored(self, seconds: float) -> dict[str, object]:
        """What mirror images are to a network that was trained on none; see `search.workers.seam`."""
        last = self._trained if len(self._dataset.splits) == 1 and not self._is_whole else None
        if last is not None and not (last.pipeline.flip or last.mirrored):
            return seen(last.model, self._exported_with).to_json()
        return mirrored(self._task, self._dataset, self.probe, seconds).to_json()

    def both_sides(self, folder: Path) -> dict[str, object]:
        """What both sides of an image are worth to the network exported to `folder`; see `search.workers.seam`.

        Raises:
            DataError: the network cannot be read.
        """
        try:
            model = load_model(folder)
        except ValueError as error:
            raise DataError(str(error)) from error
        return both_sides(model.on(self._device), as_taken(model, self._dataset))

    def close(self) -> None:
        """Lets go of the last training."""
        self._trained = None

    def _small(self, pipeline: Pipeline, side: int, task: Task) -> Pipeline:
        """The pipeline in batches that memory surely holds."""
        network = full_architecture(pipeline, task, self._dataset.channels, self._dataset.n_classes, side)
        held = PROBE_BYTES // step_memory(network, side, 1)
        return replace(pipeline, batch_size=max(2, min(pipeline.batch_size, PROBE_BATCH, held)), epochs=1)

    def _step_seconds(self, pipeline: Pipeline, side: int, task: Task, n_steps: int = PROBE_STEPS) -> float:
        """Median device seconds of a training step on made-up images of so many pixels a side."""
        batch, name = pipeline.batch_size, pipeline.number_format
        state = starting_state(pipeline, task, self._dataset, Seeds(0, 0, 0))
        scaler = LossScaler(self._device.type) if FORMATS[name].scaled else None
        FORMATS[name].set_float32_products()
        executor = Eager(Segment(state.trainee, (), FORMATS[name], scaler, 0.0))
        shape = state.trainee.model.architecture.shape(side)
        x = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0)).to(self._device)
        x, y = x.contiguous(memory_format=torch.channels_last), torch.zeros(batch, dtype=torch.int64).to(self._device)
        seconds: list[float] = []
        while len(seconds) <= n_steps and sum(seconds) < PROBE_SECONDS:
            clock = Clock(self._device)
            with clock.span("steps"):
                executor.step(x, y)
            seconds.append(clock.charged)
        return median(seconds[1:] or seconds)
