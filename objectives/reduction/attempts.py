"""One attempt at a smaller network: an axis is cut, the network learns again, and is judged by validation images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from objectives.device.clock import Clock
from objectives.evaluation import Evaluation
from objectives.networks import surgery
from objectives.networks.network import Network
from objectives.networks.trainee import Trainee
from objectives.reduction import criteria, merging
from objectives.reduction.course import Candidate
from objectives.reduction.learning.blockwise import taught
from objectives.reduction.learning.retraining import retrained
from objectives.reduction.settings import CriterionName
from objectives.reduction.terms import Terms
from objectives.task import Seeds

JUDGED = 2000  # training images by which channels are judged, at most
# Of the rate of retraining, in the one epoch that follows block-wise: too short to come to rest from all of it.
SHORT = 0.1
READS_IMAGES: frozenset[CriterionName] = frozenset({"taylor", "taylor_sum", "activation"})


@dataclass(frozen=True)
class Outcome:
    """What came of a candidate."""

    model: Network
    cut_accuracy: float  # before it learned again
    found: Evaluation  # after it
    seconds: float  # of the device: criterion, surgery, retraining
    wall_seconds: float  # that those took


def attempt(parent: Network, candidate: Candidate, terms: Terms, seed: int) -> Outcome:
    """What comes of cutting `parent`, which stays as it is: a function of network, candidate, terms and seed."""
    seeds = Seeds.of(seed, candidate.number)
    clock = Clock(terms.device)
    with clock.span("calibration"):
        model = cut(parent, candidate.axis, candidate.n_after, terms, seeds.init)
    cut_accuracy = terms.evaluated(model).accuracy
    epochs, share = terms.settings.epochs, 1.0
    if terms.settings.retraining == "blocks" and epochs:
        model, epochs, share = taught(model, parent, candidate.axis, terms, seeds, clock), 1, SHORT
    model = retrained(model, terms, seeds, epochs, clock, share)
    found = terms.evaluated(model)
    return Outcome(model, cut_accuracy, found, clock.charged, clock.wall_seconds)


def cut(parent: Network, axis: str, n: int, terms: Terms, seed: int) -> Network:
    """A network with the `n` channels of an axis that matter most by the criterion."""
    criterion = terms.settings.criterion
    if criterion == "similarity":
        parent, chosen = merging.merge(parent, axis, n)
    else:
        batches = _judging(terms, seed) if criterion in READS_IMAGES else iter(())
        chosen = criteria.kept(criteria.scores(parent, [axis], batches, criterion, seed)[axis], n)
    trainee = Trainee(parent, torch.optim.SGD(parent.parameters(), lr=0.0), shadows={}, born={})
    return surgery.reindex(trainee, {axis: chosen}).model.eval()


def _judging(terms: Terms, seed: int) -> Iterator[criteria.Batch]:
    """Batches of training images as they are, drawn by `seed`, at most as large as those of training."""
    images = terms.dataset.train
    chosen = np.random.default_rng(seed).permutation(len(images.y))[:JUDGED]
    for some in torch.split(torch.from_numpy(np.sort(chosen)).to(terms.device), terms.pipeline.batch_size):
        yield terms.normalise(images.x[some]), images.y[some]
