"""The training loop: a generator of reports. Whoever consumes it decides whether training goes on.

Nothing that the consumer does between two reports is on the clock.
"""

from __future__ import annotations

from collections.abc import Generator
from copy import deepcopy
from dataclasses import dataclass, replace
from math import isfinite, nan

import torch
from torch import Tensor
from torch.optim import Optimizer

from objectives.data.augment import Augmentation, Batches, Normalisation, Statistics
from objectives.data.dataset import Dataset, Images
from objectives.device.auto import EXPECTED, Auto, Executors
from objectives.device.clock import Clock, PeakMemory
from objectives.device.comparison import admitted
from objectives.device.executors import Compiled, Eager, Executor, Segment, wrap_products
from objectives.device.features import fed
from objectives.device.formats import FORMATS, LossScaler, NumberFormat
from objectives.evaluation import Evaluation, evaluate, finiteness
from objectives.feasibility import first_architecture, full_architecture, layers, obstacle
from objectives.modelled.seconds import computes_in, step_seconds
from objectives.networks import flops
from objectives.networks.network import Network, build
from objectives.networks.plain import AnyArchitecture
from objectives.networks.trainee import Trainee
from objectives.pipeline import Pipeline, Report
from objectives.state import Schedule, TrainState
from objectives.strategies.base import Outline
from objectives.task import Seeds, Task

WARM_UP_STEPS = 3


@dataclass(frozen=True)
class Trained:
    """The result of a finished training, ready to export."""

    model: Network  # as deployed, in evaluation mode
    pipeline: Pipeline
    report: Report
    mirrored: bool  # its accuracy is that of an image and its mirror image taken together


def train(pipeline: Pipeline, task: Task, dataset: Dataset, seeds: Seeds) -> Generator[Report, None, Trained]:
    """Trains with `pipeline` and yields a report per epoch; returns the network that is deployed in the end.

    Runs on the device that holds `dataset`. Close the generator to stop early.

    Raises:
        ValueError: the pipeline cannot train on images of this size.
        torch.OutOfMemoryError: the device is too small for the pipeline.
    """
    if reason := obstacle(pipeline, task, dataset.size, len(dataset.train.y)):
        raise ValueError(f"{pipeline.describe()}: {reason}")
    device = dataset.train.x.device
    number_format = admitted(
        FORMATS[pipeline.number_format], layers(pipeline, task, dataset.size, dataset.channels), device
    )
    clock = Clock(device)
    state, batches = _ready(pipeline, task, dataset, seeds, clock, number_format)
    memory, executors = PeakMemory(device), Executors(pipeline.executor, dict(EXPECTED))
    scaler = LossScaler(device.type) if number_format.scaled else None
    spent = Spent()
    with clock.span("calibration"):
        state = begun(state, *batches.first())
        state, batches = fed(state, batches)
    while state.epoch < state.ends:
        with clock.span("steps"):
            state = bound(state)
            executor = executors.of(_segment(state, number_format, scaler, batches), batches.shape)
            epoch = run_epoch(executor, batches, state)
        spent = spent.and_by(epoch, state, batches, task)
        state = replace(state, epoch=state.epoch + 1, loss=epoch.loss, events=(*state.events, *executor.notes))
        state = replace(state, train_seconds=clock.charged, train_flops=spent.flops)
        executor.notes.clear()
        del executor  # a boundary may replace the network that it pins
        with memory.evaluating():
            result = evaluated(state, task, dataset, clock, number_format)
        if state.epoch < state.ends:
            state = replace(state, accuracy=result.accuracy if _is_read(state) else nan)
            with clock.span("boundary"):
                before, state = state, after_boundary(state)
                state, batches = fed(state, batches)
            if state.pipeline.number_format != before.pipeline.number_format:
                number_format, scaler = FORMATS[state.pipeline.number_format], None  # it goes over to fp32
                number_format.set_float32_products()
            if state.epoch >= state.ends:  # the boundary ended the run, perhaps with another model
                with memory.evaluating():
                    result = evaluated(state, task, dataset, clock, number_format)
        report = _report(state, epoch, result, dataset.size, clock, memory, spent)
        state = replace(state, history=(*state.history, report), events=())
        yield report
    return Trained(result.model, pipeline, report, task.test_time_flip)


def _ready(
    pipeline: Pipeline, task: Task, dataset: Dataset, seeds: Seeds, clock: Clock, number_format: NumberFormat
) -> tuple[TrainState, Batches]:
    """The state before the first step and what it is trained on, with everything warmed up."""
    number_format.set_float32_products()
    state = starting_state(pipeline, task, dataset, seeds)
    batches = Batches(
        dataset.train,
        pipeline.batch_size,
        augmentation(pipeline, dataset),
        state.normalise,
        (seeds.order, seeds.augmentation),
    )
    with clock.span("warm_up"):
        warm_up(state, batches, number_format)
    torch.manual_seed(seeds.augmentation)  # for strategies that draw from the default generator
    return state, batches


def starting_state(pipeline: Pipeline, task: Task, dataset: Dataset, seeds: Seeds) -> TrainState:
    """The state before the first step: initial weights by `seeds.init` alone, on the device of the data."""
    device = dataset.train.x.device
    full = full_architecture(pipeline, task, dataset.channels, dataset.n_classes, dataset.size)
    start = first_architecture(pipeline, full)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.init)  # drawn on the CPU: the same weights on every device
        model = build(start, pipeline.ghost_batch).to(device)
    return TrainState(
        trainee=Trainee(model, sgd(model, pipeline), shadows={}, born={}),
        pipeline=pipeline,
        schedule=Schedule(pipeline.schedule, pipeline.epochs),
        data=dataset.train,
        normalise=Normalisation(normalised_by(pipeline, dataset), device),
        full=full,
        ends=pipeline.epochs,
        classes=dataset.classes,
    )


def normalised_by(pipeline: Pipeline, of: Statistics) -> Statistics:
    """What a pipeline normalises the pixels of a data set by."""
    for strategy in pipeline.strategies:
        of = strategy.normalised_by(of)
    return of


def sgd(model: Network, pipeline: Pipeline) -> torch.optim.SGD:
    """The pipeline's optimizer before its first step, its momentum at 0."""
    device = next(model.parameters()).device
    optimizer = torch.optim.SGD(
        model.parameters(),
        # on a GPU a tensor, so that a captured step sees it change
        lr=torch.tensor(pipeline.peak_lr, device=device) if device.type == "cuda" else pipeline.peak_lr,
        momentum=pipeline.momentum,
        nesterov=pipeline.momentum > 0,
        weight_decay=pipeline.weight_decay,
        fused=True,
    )
    if pipeline.momentum > 0:  # a fused SGD whose first step loss scaling skips would leave its buffers uninitialised
        for parameter in model.parameters():
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def augmentation(pipeline: Pipeline, dataset: Dataset) -> Augmentation:
    """The pipeline's augmentation in pixels of this data set; a flip only where it keeps the label, of series none."""
    if dataset.is_series:
        return Augmentation()
    return Augmentation(
        padding=dataset.size // 8 if pipeline.crop else 0,
        flip=pipeline.flip and dataset.flip,
        alternating=pipeline.alternating_flip,
        cutout=round(pipeline.cutout * dataset.size),
    )


def warm_up(state: TrainState, batches: Batches, number_format: NumberFormat) -> None:
    """Runs a few steps on dummy data with copies of everything: kernels are chosen and memory is mapped off the clock.

    Model, optimizer and random state are left as they were.
    """
    device, n = state.data.x.device, batches.batch_size
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        x = torch.randn(batches.shape, device=device).contiguous(memory_format=torch.channels_last)
        y = torch.zeros(n, dtype=torch.int64, device=device)
        few = Images(state.data.x[:n], state.data.y[:n])  # what looks at all images need not do so twice
        state = bound(begun(replace(state, trainee=deepcopy(state.trainee), data=few), x, y))
        scaler = LossScaler(device.type) if number_format.scaled else None
        executor = Eager(_segment(state, number_format, scaler, batches))
        for _ in range(WARM_UP_STEPS):
            executor.step(x.clone(), y)
    if state.pipeline.executor == "compile":
        Compiled.imported()


def begun(state: TrainState, x: Tensor, y: Tensor) -> TrainState:
    """The state after every strategy was calibrated on the first batch; those that cannot act say so."""
    pipeline = state.pipeline
    epochs, size = pipeline.n_epochs(len(state.data.y)), int(state.data.x.shape[-1])
    outline = Outline(state.full, size, epochs, batch_size=pipeline.batch_size)
    for index in range(len(state.pipeline.strategies)):
        state = state.pipeline.strategies[index].begin(state, x, y)
        if (reason := state.pipeline.strategies[index].idle(outline)) is not None:
            name = type(state.pipeline.strategies[index]).__name__
            state = state.with_event(f"{name} does nothing in this run: {reason}")
    return state


def bound(state: TrainState) -> TrainState:
    """The state with every strategy prepared for the next segment."""
    for strategy in state.pipeline.strategies:
        state = state.with_strategy(strategy, strategy.bound(state))
    return state


def after_boundary(state: TrainState) -> TrainState:
    """The state to continue from after every strategy acted on the boundary between two epochs."""
    for index in range(len(state.pipeline.strategies)):
        state = state.pipeline.strategies[index].between_epochs(state)
    return state


def deployed(state: TrainState) -> Network:
    """The network to evaluate and export."""
    model = state.trainee.model
    for strategy in state.pipeline.strategies:
        model = strategy.deployed(model, state)
    return model.eval()


@dataclass(frozen=True)
class Epoch:
    """What one epoch of steps did."""

    loss: float  # mean over the steps taken; NaN when none was
    diverged: bool  # a step was taken down a loss that is not finite
    n_skipped: int  # steps skipped by loss scaling
    n_images: int  # seen by the network
    size: int  # pixels: side of these images


@dataclass(frozen=True)
class Spent:
    """What the epochs so far took beside seconds."""

    flops: float = 0.0
    n_skipped: int = 0  # steps skipped by loss scaling
    modelled_seconds: float = 0.0  # of the task's machine, if it names one

    def and_by(self, epoch: Epoch, state: TrainState, batches: Batches, task: Task) -> Spent:
        """This and an epoch, which trained the network of the state."""
        work = epoch.n_images * _work(state, epoch.size) - _spared(state, epoch, batches)
        modelled = self.modelled_seconds + _modelled_seconds(state, epoch, task)
        return Spent(self.flops + work, self.n_skipped + epoch.n_skipped, modelled)


def evaluated(state: TrainState, task: Task, dataset: Dataset, clock: Clock, number_format: NumberFormat) -> Evaluation:
    """The network that the state deploys, with its accuracies.

    The last deployment of a run is charged: it is used. So is every evaluation that a strategy reads.
    Finite only where the network in training and all its averages are too: what is deployed later comes from them.
    """
    is_read = _is_read(state) and state.epoch < state.ends
    with clock.span("boundary" if is_read or state.epoch >= state.ends else "evaluation"):
        model = deployed(state)
    with clock.span("boundary" if is_read else "evaluation"):
        batch_size = min(state.pipeline.batch_size, len(state.data.y))
        flips = task.test_time_flip
        found = evaluate(model, dataset.val, state.normalise, number_format, batch_size=batch_size, mirrored=flips)
        return replace(found, is_finite=found.is_finite and _is_finite(state.trainee))


def _is_read(state: TrainState) -> bool:
    """Whether a strategy decides by the accuracy of this epoch."""
    return any(strategy.reads_accuracy for strategy in state.pipeline.strategies)


def _is_finite(trainee: Trainee) -> bool:
    """Whether all numbers of the network in training are, and of what follows it."""
    shadows = [tensor for shadow in trainee.shadows.values() for tensor in shadow.tensors.values()]
    return bool(finiteness([*trainee.model.state_dict().values(), *shadows]))


def run_epoch(executor: Executor, batches: Batches, state: TrainState) -> Epoch:
    """Runs the steps of one epoch. The device is asked for numbers once, at the end."""
    device = state.data.x.device
    total, n_taken = torch.zeros((), device=device), torch.zeros((), device=device)
    size = 0
    state.trainee.model.train()
    if isinstance(executor, Auto):
        executor.expect(batches.n_steps * (state.ends - state.epoch), at_least=batches.n_steps)
    for number, (x, y) in enumerate(batches.epoch(state.epoch)):
        share = state.schedule(state.epoch + (number + 0.5) / batches.n_steps)
        set_lr(state.trainee.optimizer, state.pipeline.peak_lr * share)
        step = executor.step(x, y)
        total += torch.where(step.taken > 0, step.loss, 0.0)
        n_taken += step.taken
        size = step.x.shape[-1] if batches.features is None else batches.side
    taken = int(n_taken.item())
    loss = total.item() / taken if taken else nan
    n_images = batches.n_steps * batches.batch_size
    return Epoch(loss, taken > 0 and not isfinite(loss), batches.n_steps - taken, n_images, size)


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Sets the learning rate of every parameter group: `lr` times the group's own `lr_factor`, 1 where it has none."""
    for group in optimizer.param_groups:
        value = lr * group.get("lr_factor", 1.0)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(value)
        else:
            group["lr"] = value


def _work(state: TrainState, size: int) -> float:
    """FLOPs of a training step per image of so many pixels a side: without gradients that are not computed, and as
    strategies save it."""
    model, strategies = state.trainee.model, state.pipeline.strategies
    frozen = frozenset(name for name, parameter in model.named_parameters() if not parameter.requires_grad)

    def counted(still: frozenset[str]) -> int:
        if not any(strategy.saves_work for strategy in strategies):
            return flops.count(model.architecture, size, still)[1]
        return flops.counted(model.architecture, size, still, lambda network: wrap_products(network, strategies))[1]

    whole = counted(frozen)
    work: float = whole
    for strategy in strategies:
        names, share = strategy.left_out(model)
        if share > 0:
            work -= share * (whole - counted(frozen | names))
    return work


def _spared(state: TrainState, epoch: Epoch, batches: Batches) -> float:
    """FLOPs of an epoch that features saved: of the fixed parts, for the images that they were known of."""
    features = batches.features
    if features is None:
        return 0.0
    n_known = epoch.n_images - features.n_new
    return n_known * flops.of_first_parts(state.trainee.model.architecture, epoch.size, features.n_parts)


def _modelled_seconds(state: TrainState, epoch: Epoch, task: Task) -> float:
    """Seconds of an epoch that the time model tells of the task's machine; 0 where it names none."""
    if task.machine is None:
        return 0.0
    network, batch_size = state.trainee.model.architecture, state.pipeline.batch_size
    step = step_seconds(network, epoch.size, batch_size, computes_in(state.pipeline), task.machine)
    return step * epoch.n_images / batch_size


def _full(state: TrainState) -> AnyArchitecture:
    """The network that the settings ask for, behind the stem that strategies gave it."""
    now = state.trainee.model.architecture
    return state.full.behind_stem_of(now)


def _segment(state: TrainState, number_format: NumberFormat, scaler: LossScaler | None, batches: Batches) -> Segment:
    pipeline, features = state.pipeline, batches.features
    behind = 0 if features is None else features.n_parts
    return Segment(state.trainee, pipeline.strategies, number_format, scaler, pipeline.label_smoothing, behind)


def _report(
    state: TrainState,
    epoch: Epoch,
    result: Evaluation,
    size: int,
    clock: Clock,
    memory: PeakMemory,
    spent: Spent,
) -> Report:
    """What the consumer is told of an epoch; `size` is the side of the validation images in pixels."""
    return Report(
        epoch=state.epoch,
        epochs=state.ends,
        train_seconds=clock.charged,
        accuracy=result.accuracy,
        balanced_accuracy=result.balanced_accuracy,
        settled=all(strategy.settled(state) for strategy in state.pipeline.strategies),
        loss=epoch.loss,
        diverged=epoch.diverged or not result.is_finite,
        wall_seconds=clock.wall_seconds,
        boundary_seconds=clock.seconds("boundary"),
        eval_seconds=clock.seconds("evaluation"),
        train_flops=spent.flops,
        inference_flops=flops.count(result.model.architecture, size)[0],
        full_flops=flops.count(_full(state), size)[0],
        n_parameters=sum(p.numel() for p in result.model.parameters()),
        peak_memory=memory.training,
        eval_peak_memory=memory.evaluation,
        skipped_steps=spent.n_skipped,
        events=state.events,
        architecture=result.model.architecture.describe(),
        right=result.right,
        modelled_seconds=spent.modelled_seconds,
    )
