"""SNARE: any trained network made smaller, automatically, within an accuracy budget (Viehmann 2020).

A generator of attempts, as training is one of epochs: whoever consumes it decides whether it goes on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import islice, takewhile
from pathlib import Path

from torch import nn

from objectives.data.dataset import Dataset
from objectives.evaluation import Evaluation
from objectives.export import ExportedModel
from objectives.networks import flops
from objectives.networks.network import Network
from objectives.pipeline import Report
from objectives.reduction.attempts import Outcome
from objectives.reduction.course import Candidate, Shares, after, begun, candidates
from objectives.reduction.crew import Alone, Crew, working
from objectives.reduction.journal import Journal, Progress
from objectives.reduction.settings import Iteration, Reduction
from objectives.reduction.terms import Terms
from objectives.train import Trained


def reduced(
    base: ExportedModel,
    dataset: Dataset,
    settings: Reduction,
    seed: int,
    *,
    journal: Path | None = None,
    goes_on: Callable[[], bool] = lambda: True,
    workers: Sequence[str] = (),
) -> Generator[Iteration, None, Trained]:
    """Makes `base` smaller and yields every attempt; returns the smallest network that was accepted, else the base.

    Runs on the device that holds `dataset`, whose training images judge channels and retrain, and whose validation
    images accept: an attempt is accepted unless its accuracy there is below the base's, measured here, by more than
    `settings.epsilon`. Always the same under a `seed`, but for the seconds. `goes_on` is asked before every attempt.
    With `workers`, names of devices, processes there try ahead what follows if an attempt is refused: the same attempts
    in less time, and the same network where the devices compute alike.

    With `journal`, a folder, every attempt is durable before it is told. A reduction that was interrupted, at any
    moment, begins by telling the attempts of its journal again and goes on as if nothing had happened.

    What it returns is exported with `terms.as_taken(base, dataset)`, the data normalised as the network takes them.

    Raises:
        DataError: the network takes other images than these, or tells other classes.
        ValueError: the journal is one of another reduction, or damaged.
        OSError: the journal cannot be written.
    """
    terms = Terms.of(base, dataset, settings)
    model = terms.trainable(base.network)
    reference = right(terms.evaluated(model))
    kept = None if journal is None else Journal(journal, _identity(model, terms, seed))
    progress = Progress() if kept is None else kept.read()
    shares = begun(model, dataset.size, settings)
    for iteration in progress.iterations:
        shares = after(shares, iteration, settings)
        yield iteration
    if progress.accepted is not None:
        model = terms.trainable(progress.accepted)
    with working(workers, base, terms.dataset, settings, seed) if workers else nullcontext(Alone(terms, seed)) as crew:
        found = _Attempts(terms, reference, crew, kept, goes_on)
        model, progress = yield from found.after(progress, model, shares)
    return _trained(model, base, terms, progress)


@dataclass(frozen=True)
class _Attempts:
    """Attempts one after the other, each of them kept before it is told."""

    terms: Terms
    reference: int  # images that the base tells rightly
    crew: Crew
    kept: Journal | None
    goes_on: Callable[[], bool]

    def after(
        self, progress: Progress, model: Network, shares: Shares
    ) -> Generator[Iteration, None, tuple[Network, Progress]]:
        """Those that follow; returns the smallest network that was accepted, `model` if none is, and all attempts."""
        settings, is_done = self.terms.settings, False
        while not is_done:
            is_done = True  # unless one of these is accepted
            n_before = len(progress.iterations)
            n_left = None if settings.iterations is None else max(0, settings.iterations - n_before)
            following = candidates(model, self.terms.dataset.size, shares, n_before + 1, settings)
            asked = takewhile(lambda _: self.goes_on(), islice(following, n_left))
            for candidate, outcome in self.crew.outcomes(model, asked):
                iteration = _iteration(candidate, outcome, self.terms, self.reference)
                progress = _with(progress, iteration, outcome)
                shares = after(shares, iteration, settings)
                if self.kept is not None:
                    self.kept.write(progress)
                yield iteration
                if iteration.accepted:
                    model, is_done = self.terms.trainable(outcome.model), False
                    break
        return model, progress


def is_within(n_right: int, reference: int, n: int, epsilon: float) -> bool:
    """Whether `n_right` of `n` images are at most a share `epsilon` fewer than `reference`: the loss may be all of it.

    In images, so that no rounding of shares decides.
    """
    return reference - n_right <= epsilon * n + 1e-9


def right(found: Evaluation) -> int:
    """Images that are told rightly."""
    return sum(found.right)


def _iteration(candidate: Candidate, outcome: Outcome, terms: Terms, reference: int) -> Iteration:
    architecture, found = outcome.model.architecture, outcome.found
    n = len(terms.dataset.val.y)
    return Iteration(
        number=candidate.number,
        axis=candidate.axis,
        share=candidate.share,
        n_before=candidate.n_before,
        n_after=candidate.n_after,
        cut_accuracy=outcome.cut_accuracy,
        accuracy=found.accuracy,
        accepted=found.is_finite and is_within(right(found), reference, n, terms.settings.epsilon),
        n_parameters=n_parameters(outcome.model),
        flops=float(flops.count(architecture, terms.dataset.size)[0]),
        seconds=outcome.seconds,
        architecture=architecture.describe(),
    )


def _with(progress: Progress, iteration: Iteration, outcome: Outcome) -> Progress:
    return Progress(
        (*progress.iterations, iteration),
        deepcopy(outcome.model) if iteration.accepted else progress.accepted,
        progress.wall_seconds + outcome.wall_seconds,
    )


def _trained(model: Network, base: ExportedModel, terms: Terms, progress: Progress) -> Trained:
    """The reduced network as a training that ran to its end."""
    found = terms.evaluated(model)
    n = len(progress.iterations)
    report = Report(
        epoch=n,
        epochs=n,
        train_seconds=sum(each.seconds for each in progress.iterations),
        accuracy=found.accuracy,
        balanced_accuracy=found.balanced_accuracy,
        settled=True,
        loss=float("nan"),
        diverged=not found.is_finite,
        wall_seconds=progress.wall_seconds,
        boundary_seconds=0.0,
        eval_seconds=0.0,
        train_flops=0.0,
        inference_flops=float(flops.count(model.architecture, terms.dataset.size)[0]),
        full_flops=float(flops.count(base.network.architecture, terms.dataset.size)[0]),
        n_parameters=n_parameters(model),
        peak_memory=0,
        eval_peak_memory=0,
        skipped_steps=0,
        architecture=model.architecture.describe(),
        right=found.right,
    )
    return Trained(model, terms.pipeline, report, terms.mirrored)


def n_parameters(model: nn.Module) -> int:
    """Parameters of a network."""
    return sum(parameter.numel() for parameter in model.parameters())


def _identity(model: Network, terms: Terms, seed: int) -> dict[str, object]:
    """What the course of a reduction follows from, but for how many attempts there may be."""
    weights = hashlib.sha256(json.dumps(model.architecture.to_json(), sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        weights.update(name.encode())
        weights.update(tensor.detach().cpu().contiguous().numpy().data)
    data = terms.dataset
    about = {"content": data.content_hash, "split": data.split_hash, "mean": data.mean, "std": data.std}
    return {
        "settings": replace(terms.settings, iterations=None).to_json(),
        "base": weights.hexdigest(),
        "pipeline": terms.pipeline.to_json(),
        "data": about,
        "seed": seed,
    }
