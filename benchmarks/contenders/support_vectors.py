"""Support vector machines: what a few thousand small images may need no more than."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.svm import SVC

from benchmarks.contenders.hog import Floats, hog
from benchmarks.contenders.job import LARGE, VALIDATION, Bytes, Job, Ready, pixels_of

COSTS, WIDTHS = (1.0, 3.0, 10.0, 30.0), (1.0, 2.0, 4.0)  # C; gamma times the mean squared distance of two images
PROBED = 1000  # images that a first machine is timed with


def on_hog(job: Job) -> Ready:
    """A support vector machine on histograms of oriented gradients, cells of 4 pixels, of large images 8."""
    return _support_vectors(job, lambda pixels: hog(pixels, 4 if pixels.shape[1] < LARGE else 8))


def on_pixels(job: Job) -> Ready:
    """A support vector machine on pixels."""
    return _support_vectors(job, lambda pixels: (pixels.reshape(len(pixels), -1) / 255).astype(np.float32))


def _support_vectors(job: Job, features: Callable[[Bytes], Floats]) -> Ready:
    """A machine with radial basis functions: C and gamma by a validation split, then trained on all.

    Kernels come from one matrix product, which is faster than libsvm's own. Where the budget is too short for all
    images it takes as many as a first machine promises, by the square of their number.
    """
    files = job.files
    random = np.random.default_rng(job.seed)
    order = random.permutation(len(files))
    x = features(pixels_of(files))[order]
    y = np.array([file.parent.name for file in files])[order]
    mean = x.mean(0)
    x -= mean  # keeps digits of the distances
    apart = _squared_distances(x, x)
    scale = 1 / float(apart.mean())
    probed = min(PROBED, len(y))
    began = time.process_time()
    _machine(apart[:probed, :probed], y[:probed], COSTS[-1], scale * WIDTHS[-1])
    took = time.process_time() - began
    runs = len(COSTS) * len(WIDTHS) * (1 - VALIDATION) ** 2 + 1  # of all images
    n = min(len(y), int(probed * math.sqrt(max(job.left, 0.0) / runs / took)))
    n_val = round(VALIDATION * n)
    found = {
        (cost, width): _agreement(
            _machine(apart[n_val:n, n_val:n], y[n_val:n], cost, scale * width),
            _kernel(apart[:n_val, n_val:n], scale * width),
            y[:n_val],
        )
        for cost in COSTS
        for width in WIDTHS
    }
    cost, width = max(found, key=lambda key: found[key])
    machine = _machine(apart[:n, :n], y[:n], cost, scale * width)

    def predict(unseen: Sequence[Path]) -> list[str]:
        new = features(pixels_of(unseen)) - mean
        return list(machine.predict(_kernel(_squared_distances(new, x[:n]), scale * width)))

    about = {"C": cost, "gamma, mean squared distances": width, "images": n}
    return Ready(predict, about, found[cost, width])


def _squared_distances(a: Floats, b: Floats) -> Floats:
    return np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T, 0)


def _kernel(apart: Floats, gamma: float) -> npt.NDArray[np.float64]:
    return np.exp(-gamma * apart.astype(np.float64))


def _machine(apart: Floats, y: npt.NDArray[np.str_], cost: float, gamma: float) -> SVC:
    return SVC(C=cost, kernel="precomputed", cache_size=500).fit(_kernel(apart, gamma), y)


def _agreement(machine: SVC, kernel: npt.NDArray[np.float64], y: npt.NDArray[np.str_]) -> float:
    return float((machine.predict(kernel) == y).mean())
