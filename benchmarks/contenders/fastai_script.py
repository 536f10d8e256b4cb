"""fastai as its tutorials have it: `lr_find`, then `fit_one_cycle`, of a network without pretraining."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.contenders.job import BATCH, Job, Ready, pixels_of
from objectives.data.vision import import_torchvision

import_torchvision("transforms")  # before fastai does: beside a CPU build of torch, a plain import fails

from fastai.callback import schedule  # noqa: E402, F401  # adds lr_find and fit_one_cycle to Learner
from fastai.data.transforms import Normalize  # noqa: E402
from fastai.learner import Callback, CancelFitException, CancelValidException, Learner  # noqa: E402
from fastai.torch_core import set_seed  # noqa: E402
from fastai.vision.augment import aug_transforms  # noqa: E402
from fastai.vision.core import PILImage, PILImageBW  # noqa: E402
from fastai.vision.data import ImageDataLoaders  # noqa: E402
from fastai.vision.models.xresnet import xresnet18  # noqa: E402

RATES = 100  # steps of `lr_find`, its default: of 53 the rates were 1.5e-4 and 8.4e-4, of 100 1e-3, on one data set
RATES_SHARE = 0.2  # of what is left, that they may take
PROBED = 8  # batches that are timed first
USED = 0.97  # of what is left after that: a cycle that is cut off ends at a large rate


def with_fastai(job: Job) -> Ready:
    """fastai's xresnet18 from scratch: its learning-rate finder, then one cycle of the epochs that there is time for.

    It trains on all images, because nothing is chosen by validation. Where the finder would take too long, the rate is
    fastai's default.
    """
    torch.set_num_threads(1)
    set_seed(job.seed)
    _, size, _, channels = pixels_of(job.files[:1]).shape
    small = aug_transforms(max_rotate=0, max_zoom=1, max_lighting=0, max_warp=0, size=size, min_scale=0.8)
    loaders = ImageDataLoaders.from_folder(
        job.shown,
        bs=BATCH,
        num_workers=0,
        img_cls=PILImage if channels == 3 else PILImageBW,
        batch_tfms=[*small, Normalize()],
        device=torch.device("cpu"),
    )
    learner = Learner(
        loaders,
        xresnet18(n_out=loaders.c, c_in=channels),
        loss_func=torch.nn.CrossEntropyLoss(),
        path=tempfile.gettempdir(),
    )
    with learner.no_bar(), learner.no_logging(), learner.added_cbs([Unvalidated()]):
        about = _one_cycle(learner, job)

    def predict(files: Sequence[Path]) -> list[str]:
        with learner.no_bar(), learner.no_logging():
            found, _ = learner.get_preds(dl=loaders.test_dl(files))
        return [loaders.vocab[i] for i in found.argmax(1).tolist()]

    return Ready(predict, about)


def _one_cycle(learner: Learner, job: Job) -> dict[str, object]:
    """Trains a fastai Learner for the rest of the budget."""
    probe = Stopwatch(job, at_most=PROBED)
    learner.fit(1, cbs=[probe])
    rate, timed, is_affordable = learner.lr, probe, RATES * probe.seconds_a_batch <= RATES_SHARE * job.left
    if is_affordable:
        timed = Stopwatch(job)
        with learner.added_cbs([timed]):
            rate = learner.lr_find(num_it=RATES, show_plot=False).valley
    n_epochs = max(1, int(USED * job.left / timed.seconds_a_batch / len(learner.dls.train)))
    last = Stopwatch(job)
    learner.fit_one_cycle(n_epochs, rate, cbs=[last])
    is_cut = last.n_batches < n_epochs * len(learner.dls.train)
    return {"epochs": n_epochs, "lr": rate, "lr_find": is_affordable, "cut off": is_cut}


class Unvalidated(Callback):
    """Leaves validation out."""

    def before_validate(self) -> None:
        raise CancelValidException


class Stopwatch(Callback):
    """Times batches, and ends a fit with the budget or after a number of batches."""

    def __init__(self, job: Job, at_most: float = math.inf) -> None:
        self.job, self.at_most = job, at_most
        self.n_batches, self.began, self.ended = 0, math.nan, math.nan

    def after_batch(self) -> None:
        self.n_batches, self.ended = self.n_batches + 1, time.process_time()
        if self.n_batches == 1:  # not timed: it warms up
            self.began = self.ended
        if self.n_batches >= self.at_most or self.job.left <= 0:
            raise CancelFitException

    @property
    def seconds_a_batch(self) -> float:
        return (self.ended - self.began) / max(1, self.n_batches - 1)
