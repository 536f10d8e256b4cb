"""What mirror images are worth, decided by measurement: to train on them, and to tell an image by both of its sides.

Whether flips fit the images is told by what a network that never saw a mirror image makes of them.

What is refuted is that the images look alike in the mirror, not that labels stay: shoes of Fashion-MNIST point to the
left, so that it is refuted, too (84 % become 66 %), and flips are worth nothing there (-0.3 points in 5 epochs, +0.3 in
15, 3 seeds each, 4000 images). On digits, where labels change, they cost 3.6 and 0.3 points (2026-11-26).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from math import comb

import torch

from objectives.data.augment import Normalisation
from objectives.data.dataset import Dataset
from objectives.device.formats import FORMATS
from objectives.evaluation import accuracies, told_rightly
from objectives.export import ExportedModel, logits
from objectives.inference.calibration import calibrated
from objectives.networks.network import Network
from objectives.pipeline import Pipeline
from objectives.strategies.strided_stem import StridedStem
from objectives.strategies.whitening import Whitening
from objectives.task import Seeds, Task
from objectives.train import train

Probe = Callable[[Pipeline, Task], float]  # device seconds of a step, strategies apart

SECONDS = 10.0  # of the device: what all trainings together may take unless told, as far as a step foretells
EPOCHS = (4, 20)  # fewest and most: with fewer seconds fewer images are trained on
BATCH = (16, 64)  # images; a sixteenth of the training set between these, so that few images make many steps, too
WIDTH = 0.25  # times the channels of the family: what seconds suffice for
STRIDED = 16  # pixels, from which on every second one is enough to tell
# Of the one-sided test. Of six networks of four folders of CIFAR-10, where flips fit, five had chances of .4 to .7, one
# of .006; of two of Fashion-MNIST, where they do not, both of 1e-55 and less. A wrong verdict costs a point or two.
LEVEL = 0.001
LOSS = 0.02  # of accuracy: less would be no reason to do without flips


@dataclass(frozen=True)
class Mirrored:
    """How accurate a network is on validation images and on their mirror images, of which it was trained on neither."""

    seconds: float  # of the device, for training
    n: int  # validation images
    lost: int  # of them told rightly, and wrongly in the mirror
    won: int  # ... and the other way round
    right: int  # told rightly as they are

    @property
    def accuracy(self) -> float:
        """On the images as they are."""
        return self.right / self.n

    @property
    def mirrored_accuracy(self) -> float:
        """On their mirror images."""
        return (self.right - self.lost + self.won) / self.n

    @property
    def p(self) -> float:
        """Chance of so many lost, or more, if the mirror changed nothing: exact and one-sided (McNemar 1947)."""
        n = self.lost + self.won
        return float(sum(comb(n, k) for k in range(self.lost, n + 1)) / 2**n)

    @property
    def refuted(self) -> bool:
        """Whether the mirror costs accuracy: for certain, and enough to matter."""
        return self.p < LEVEL and self.accuracy - self.mirrored_accuracy >= LOSS

    @property
    def words(self) -> str:
        """The verdict in a line."""
        verdict = "flips do not fit these images" if self.refuted else "nothing speaks against flips"
        return f"mirror images: {self.mirrored_accuracy:.1%} of {self.n} instead of {self.accuracy:.1%}: {verdict}"

    def to_json(self) -> dict[str, object]:
        """This as plain JSON data."""
        told = ("accuracy", "mirrored_accuracy", "p", "refuted", "words")
        return asdict(self) | {name: getattr(self, name) for name in told}


def mirrored(task: Task, dataset: Dataset, probe: Probe, seconds: float = SECONDS) -> Mirrored:
    """Trains a small network without flips on every split, for seconds, and shows it validation images both ways.

    A weak network refutes little: it has little to lose. `probe` gives the device seconds of a step of a pipeline,
    `seconds` is about what all trainings together may take.
    """
    n, stride = len(dataset.train.y), 2 if dataset.size >= STRIDED and task.stem_stride == 1 else 1
    plain = Pipeline(
        batch_size=min(max(BATCH[0], 2 ** (n // 16).bit_length() // 2), BATCH[1]),
        lr=0.8,
        lr_rule="linear",
        schedule="one_cycle",
        crop=dataset.size >= 8,
        flip=False,
        width=WIDTH,
        strategies=(StridedStem(stride), Whitening()),
    )
    data = replace(task.data, size=dataset.size)
    step = probe(plain, replace(task, data=data, stem_stride=stride * task.stem_stride))
    affordable = int(seconds / len(dataset.splits) / step) * plain.batch_size  # images seen in a training
    epochs = min(max(EPOCHS[0], affordable // n), EPOCHS[1])
    most = max(plain.batch_size, affordable // epochs)
    found = Mirrored(0.0, 0, 0, 0, 0)
    for split in dataset.splits:
        took, model = _trained(replace(plain, epochs=epochs), task, _part(split, most))
        each = seen(model, split)
        found = Mirrored(
            *(found.seconds + took, found.n + each.n, found.lost + each.lost, found.won + each.won),
            found.right + each.right,
        )
    return found


def seen(model: Network, dataset: Dataset) -> Mirrored:
    """What a network that was trained on images of this split, and on no mirror image, makes of those that validate."""
    right, also = (_right(model, dataset, is_mirrored) for is_mirrored in (False, True))
    lost, won = int((right & ~also).sum()), int((also & ~right).sum())
    return Mirrored(0.0, len(right), lost, won, int(right.sum()))


@torch.no_grad()
def both_sides(model: ExportedModel, dataset: Dataset) -> dict[str, object]:
    """What a network makes of images that validate: of each alone, and of each and its mirror image taken together.

    `dataset`: normalised as the network takes its images. What is returned: see `search.workers.seam`.
    """
    images, normalise = dataset.val, Normalisation(dataset, dataset.val.x.device)
    seen = [
        [logits(model.network, side, normalise, mirrored=False) for side in (x, x.flip(3))]
        for x, _ in images.piecewise(model.at_once)
    ]
    one, other = (torch.cat(side) for side in zip(*seen, strict=True))
    alone, both = ((told.argmax(1) == images.y) & told.isfinite().all(1) for told in (one, one + other))
    return {
        "n": len(images.y),
        "alone": _accuracies(alone, dataset),
        "both": _accuracies(both, dataset),
        "noise": _noise(alone ^ both, dataset),
        "calibration": calibrated(one + other, images.y).to_json(),
    }


def _accuracies(right: torch.Tensor, dataset: Dataset) -> dict[str, float]:
    accuracy, balanced_accuracy, _ = accuracies(right, dataset.val.y, dataset.n_classes)
    return {"accuracy": float(accuracy), "balanced_accuracy": float(balanced_accuracy)}


def _noise(changed: torch.Tensor, dataset: Dataset) -> dict[str, float]:
    """The variance of each accuracy gained, from [n] whether an image is told rightly by one and not by the other."""
    per_class = dataset.val.y.bincount(minlength=dataset.n_classes).double()
    by_class = dataset.val.y.bincount(changed.double(), minlength=dataset.n_classes)
    recalls = (by_class / per_class**2)[per_class > 0]
    return {
        "accuracy": float(by_class.sum() / per_class.sum() ** 2),
        "balanced_accuracy": float(recalls.mean() / len(recalls)),
    }


def _part(dataset: Dataset, most: int) -> Dataset:
    """The data set with so many training images at most, by lot."""
    if len(dataset.train.y) <= most:
        return dataset
    chosen = torch.randperm(len(dataset.train.y), generator=torch.Generator().manual_seed(0))[:most]
    return replace(dataset, train=dataset.train.part(chosen.to(dataset.train.y.device)))


def _trained(pipeline: Pipeline, task: Task, dataset: Dataset) -> tuple[float, Network]:
    """(device seconds, network) of a training."""
    training, seconds = train(pipeline, replace(task, test_time_flip=False), dataset, Seeds(0, 1, 2)), 0.0
    while True:
        try:
            seconds = next(training).train_seconds
        except StopIteration as end:
            return seconds, end.value.model


def _right(model: Network, dataset: Dataset, is_mirrored: bool) -> torch.Tensor:
    """[n] whether each validation image, or its mirror image, is told rightly."""
    normalise = (_InTheMirror if is_mirrored else Normalisation)(dataset, dataset.val.x.device)
    return told_rightly(model, dataset.val, normalise, FORMATS["fp32"], batch_size=BATCH[1])[0]


class _InTheMirror(Normalisation):
    """Shows a network the mirror image of each image."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return super().__call__(x).flip(3)
