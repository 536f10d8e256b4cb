"""The training loops of Lightning, skorch and fastai on our workloads: one function each, imported when it is called.

Each is used as a good user of that library would, with its own means: its precision option, its learning-rate schedule
per step, a `DataLoader` in the process itself. Whatever it can switch off is off: progress bar, checkpoints, logging,
validation. What favours a peer and costs its user a line is given to all of them: the fused SGD, `channels_last` (the
network brings it along), the faster of torchvision's two generations of transforms.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data import Dataset as TorchDataset

from benchmarks.bare import Run
from benchmarks.workload import SEEDS, Workload
from objectives.data.augment import Batches, Normalisation
from objectives.data.dataset import Dataset, Images
from objectives.data.vision import import_torchvision
from objectives.pipeline import Pipeline
from objectives.state import Schedule
from objectives.train import WARM_UP_STEPS, augmentation, starting_state


@dataclass(frozen=True)
class Feed:
    """Where a peer's batches come from: a dataset and the `DataLoader` options that go with it."""

    dataset: TorchDataset[tuple[Tensor, Tensor]]
    options: dict[str, object]

    def loader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """Its loader, in the process itself."""
        return DataLoader(self.dataset, num_workers=0, **self.options)  # type: ignore[arg-type]


class Photos(TorchDataset[tuple[Tensor, int]]):
    """The training images one at a time, each through torchvision's transforms: what most users of all three write.

    The first generation of transforms, on tensors: 55 us an image of 28x28. The second took 64, PIL images 60 and 86
    (2026-11-23, AMD EPYC, one busy core).
    """

    def __init__(self, pipeline: Pipeline, dataset: Dataset) -> None:
        transforms = import_torchvision("transforms")
        chosen = augmentation(pipeline, dataset)
        steps = [transforms.RandomCrop(dataset.size, padding=chosen.padding)] if chosen.padding else []
        if chosen.flip:
            steps.append(transforms.RandomHorizontalFlip())
        steps += [transforms.ConvertImageDtype(torch.float32), transforms.Normalize(dataset.mean, dataset.std)]
        self._transform = transforms.Compose(steps)
        self._x, self._y = dataset.train.x, dataset.train.y.tolist()

    def __len__(self) -> int:
        return len(self._y)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(self._x[index]), self._y[index]


class OurBatches(IterableDataset[tuple[Tensor, Tensor]]):
    """The batches that our loop trains on, whole: each iteration is the next epoch."""

    def __init__(self, pipeline: Pipeline, dataset: Dataset) -> None:
        normalise = Normalisation(dataset, dataset.train.x.device)
        seeds = (SEEDS.order, SEEDS.augmentation)
        self._batches = Batches(dataset.train, pipeline.batch_size, augmentation(pipeline, dataset), normalise, seeds)
        self._epoch = 0

    def __len__(self) -> int:
        return self._batches.n_steps

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        epoch, self._epoch = self._epoch, self._epoch + 1
        return self._batches.epoch(epoch)


def feed(workload: Workload, *, ours: bool) -> Feed:
    """The workload's batches: as our loop makes them, or as a peer's user would."""
    pipeline, dataset = workload.pipeline, workload.dataset
    if ours:
        return Feed(OurBatches(pipeline, dataset), {"batch_size": None})
    options = {"batch_size": pipeline.batch_size, "shuffle": True, "drop_last": True}
    return Feed(Photos(pipeline, dataset), options)


@dataclass(frozen=True)
class Job:
    """What every peer is given."""

    workload: Workload
    feed: Feed
    model: nn.Module  # with the initial weights of our loop

    @property
    def optimizer(self) -> Callable[..., torch.optim.SGD]:
        """The constructor of our optimizer."""
        p = self.workload.pipeline
        return partial(
            torch.optim.SGD, momentum=p.momentum, weight_decay=p.weight_decay, nesterov=p.momentum > 0, fused=True
        )

    def share(self, step: float) -> float:
        """Share of the peak learning rate at a step of the run."""
        p = self.workload.pipeline
        return Schedule(p.schedule, p.epochs)((step + 0.5) * p.epochs / self.workload.n_steps)


def with_lightning(job: Job) -> Run:
    """Lightning: a `LightningModule` and a `Trainer` in barebones mode, which switches off all that costs speed."""
    import lightning

    pipeline, timed = job.workload.pipeline, []

    class Classifier(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = job.model

        def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
            x, y = batch
            return F.cross_entropy(self.model(x), y)

        def configure_optimizers(self) -> dict[str, object]:
            optimizer = job.optimizer(self.parameters(), lr=pipeline.peak_lr)
            scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, job.share)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    class Timer(lightning.Callback):
        def on_train_start(self, trainer: object, pl_module: object) -> None:
            timed.append(_now())

        def on_train_end(self, trainer: object, pl_module: object) -> None:
            timed.append(_now())

    precision = {"fp32": "32-true", "bf16": "bf16-mixed"}[pipeline.number_format]
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=pipeline.epochs,
        precision=precision,
        barebones=True,
        callbacks=[Timer()],
    )
    trainer.fit(Classifier(), train_dataloaders=job.feed.loader())
    return _run(timed, job.model)


def with_skorch(job: Job) -> Run:
    """skorch: a `NeuralNetClassifier` without its reporting callbacks; bf16 by its mix-in for accelerate."""
    from skorch import NeuralNetClassifier
    from skorch.callbacks import LRScheduler
    from skorch.utils import noop

    pipeline, kind = job.workload.pipeline, NeuralNetClassifier
    silenced = ["epoch_timer", "train_loss", "valid_loss", "valid_acc"]
    options: dict[str, object] = {f"callbacks__{name}": None for name in silenced}
    if pipeline.number_format == "bf16":
        from accelerate import Accelerator
        from skorch.hf import AccelerateMixin

        kind = type("AcceleratedClassifier", (AccelerateMixin, NeuralNetClassifier), {})
        options["accelerator"] = Accelerator(mixed_precision="bf16", cpu=True)
        options["callbacks__print_log__sink"] = noop  # the mix-in cannot do without this callback
    else:
        options["callbacks__print_log"] = None
    schedule = LRScheduler(torch.optim.lr_scheduler.LambdaLR, lr_lambda=job.share, step_every="batch", event_name=None)
    net = kind(
        job.model,
        criterion=nn.CrossEntropyLoss,
        optimizer=job.optimizer,
        lr=pipeline.peak_lr,
        max_epochs=pipeline.epochs,
        train_split=None,
        verbose=0,
        callbacks=[("schedule", schedule)],
        **{f"iterator_train__{name}": value for name, value in job.feed.options.items()},
        **options,
    )
    net.initialize()
    timed = [_now()]
    net.partial_fit(job.feed.dataset)
    return _run([*timed, _now()], job.model)


def with_fastai(job: Job) -> Run:
    """fastai: a `Learner` without its recorder, torch's SGD in its `OptimWrapper`, its `ParamScheduler`.

    Its mixed precision enters `autocast("cuda")`, whatever the device: on a CPU it would compute in fp32.
    """
    from fastai.callback.schedule import ParamScheduler
    from fastai.data.core import DataLoaders
    from fastai.learner import Callback, Learner, Recorder
    from fastai.optimizer import OptimWrapper

    pipeline, n_steps, timed = job.workload.pipeline, job.workload.n_steps, []

    class Timer(Callback):
        order = 1000  # after every other callback

        def before_fit(self) -> None:
            timed.append(_now())

        def after_fit(self) -> None:
            timed.append(_now())

    learner = Learner(
        DataLoaders(job.feed.loader(), [], device=torch.device("cpu")),
        job.model,
        loss_func=F.cross_entropy,
        opt_func=partial(OptimWrapper, opt=job.optimizer),
        lr=pipeline.peak_lr,
        wd_bn_bias=True,
        cbs=[ParamScheduler({"lr": lambda done: pipeline.peak_lr * job.share(done * n_steps)}), Timer()],
    )
    learner.remove_cb(Recorder)
    with learner.no_bar(), learner.no_logging():
        learner.fit(pipeline.epochs)
    return _run(timed, job.model)


@dataclass(frozen=True)
class Peer:
    """A library with a training loop."""

    package: str  # its name on PyPI
    train: Callable[[Job], Run]
    formats: frozenset[str]  # number formats that it offers on a CPU by its own means

    @property
    def version(self) -> str | None:
        """The installed version; None when it is not installed."""
        try:
            return version(self.package)
        except PackageNotFoundError:
            return None


PEERS = {
    "Lightning": Peer("lightning", with_lightning, frozenset({"fp32", "bf16"})),
    "skorch": Peer("skorch", with_skorch, frozenset({"fp32", "bf16"})),
    "fastai": Peer("fastai", with_fastai, frozenset({"fp32"})),
}


def warmed(name: str, workload: Workload, *, our_batches: bool) -> Run:
    """The peer's run after a few untimed steps of another network of the same shape, as `train` has them."""
    n_warm = min(WARM_UP_STEPS, len(workload.dataset.train.y) // workload.pipeline.batch_size)
    images = workload.dataset.train
    few = Images(*(tensor[: n_warm * workload.pipeline.batch_size] for tensor in (images.x, images.y)))
    small = replace(
        workload,
        pipeline=replace(workload.pipeline, epochs=1),
        dataset=replace(workload.dataset, train=few),
    )
    import_torchvision("transforms")  # before a peer does: beside a CPU build of torch, a plain import fails
    for each in (small, workload):
        model = starting_state(each.pipeline, each.task, each.dataset, SEEDS).trainee.model
        torch.manual_seed(SEEDS.order)
        run = PEERS[name].train(Job(each, feed(each, ours=our_batches), model))
    return run


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _run(timed: list[tuple[float, float]], model: nn.Module) -> Run:
    (start, process_start), (end, process_end) = timed
    return Run(end - start, process_end - process_start, model)  # type: ignore[arg-type]
