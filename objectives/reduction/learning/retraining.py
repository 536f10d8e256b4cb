"""A network that was cut learns again: as its pipeline trained it, in fewer epochs."""

from __future__ import annotations

from dataclasses import replace

import torch

from objectives.data.augment import Batches
from objectives.device.clock import Clock
from objectives.device.executors import Executor, Segment, prepared
from objectives.device.formats import LossScaler
from objectives.networks.network import Network
from objectives.networks.trainee import Trainee
from objectives.pipeline import Pipeline
from objectives.reduction.terms import Terms
from objectives.state import Schedule, TrainState
from objectives.task import Seeds
from objectives.train import augmentation, run_epoch, sgd


def retrained(model: Network, terms: Terms, seeds: Seeds, epochs: int, clock: Clock, share: float = 1.0) -> Network:
    """The network after `epochs` more on the training images; it is trained in place, and in evaluation mode again.

    Batch size, momentum, weight decay, augmentation, label smoothing, number format and the course of the learning rate
    are those of the base's pipeline, whose strategies take no part: the rate goes back to its peak, or a share, and
    falls again within these epochs (after the learning-rate rewinding of Renda et al. 2020). At a constant rate, which
    only shakes a base that has come to rest, LeNet-300-100 came to 1.0 to 2.0 times fewer parameters, with this to 7.8
    (`benchmarks/reduction.md`). Momentum begins at 0.

    What comes back is the network after the last epoch: to choose the best by validation, as the thesis' code does,
    would have the luckiest of several judged by the images that chose it. Every step is charged.
    """
    if not epochs:
        return model
    pipeline = replace(terms.pipeline, lr=terms.pipeline.lr * terms.settings.lr * share, epochs=epochs, strategies=())
    state = TrainState(
        trainee=Trainee(model, sgd(model, pipeline), shadows={}, born={}),
        pipeline=pipeline,
        schedule=Schedule(pipeline.schedule, epochs),
        data=terms.dataset.train,
        normalise=terms.normalise,
        full=model.architecture,
        ends=epochs,
    )
    batches = Batches(
        terms.dataset.train,
        pipeline.batch_size,
        augmentation(pipeline, terms.dataset),
        terms.normalise,
        (seeds.order, seeds.augmentation),
    )
    terms.number_format.set_float32_products()
    torch.manual_seed(seeds.augmentation)  # for networks that draw while they train
    with clock.span("steps"):
        executor = _executor(state, terms, batches)
        for epoch in range(epochs):
            if run_epoch(executor, batches, replace(state, epoch=epoch)).diverged:
                break
    for layer in model.convolutions():
        layer.compute = None  # it pins the number format of this training
    return model.eval()


def _executor(state: TrainState, terms: Terms, batches: Batches) -> Executor:
    """What runs the steps: no compilation, which takes longer than it saves in so few epochs."""
    scaler = LossScaler(terms.device.type) if terms.number_format.scaled else None
    segment = Segment(state.trainee, (), terms.number_format, scaler, state.pipeline.label_smoothing)
    return prepared(_executor_name(state.pipeline, terms), segment, batches.shape)


def _executor_name(pipeline: Pipeline, terms: Terms) -> str:
    return "eager" if terms.device.type == "cpu" or pipeline.executor == "eager" else "cuda_graph"
