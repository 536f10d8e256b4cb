"""Who makes the attempts: this process, or several at once. What comes of them is the same.

What is tried next, should an attempt be refused, is known before it ends. Workers therefore try the next ones beside
it; the first that is accepted counts, in the order in which one alone would have tried them, and the rest is forgotten.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from multiprocessing import active_children, get_context
from multiprocessing.queues import Queue
from typing import Protocol

import safetensors.torch
import torch

from objectives.data.dataset import Dataset
from objectives.export import ExportedModel
from objectives.host.children import die_with_parent
from objectives.networks.network import Network, architecture_of, build
from objectives.reduction.attempts import Outcome, attempt
from objectives.reduction.course import Candidate
from objectives.reduction.settings import Reduction
from objectives.reduction.terms import Terms


class Crew(Protocol):
    """Makes attempts."""

    def outcomes(self, parent: Network, candidates: Iterator[Candidate]) -> Iterator[tuple[Candidate, Outcome]]:
        """What comes of candidates on a network, in their order, for as long as the consumer asks."""


@dataclass(frozen=True)
class Alone:
    """This process, one attempt after the other."""

    terms: Terms
    seed: int

    def outcomes(self, parent: Network, candidates: Iterator[Candidate]) -> Iterator[tuple[Candidate, Outcome]]:
        for candidate in candidates:
            yield candidate, attempt(parent, candidate, self.terms, self.seed)


@dataclass(frozen=True)
class Workers:
    """A process for each device, each with the data in it."""

    pool: ProcessPoolExecutor
    n: int
    terms: Terms

    def outcomes(self, parent: Network, candidates: Iterator[Candidate]) -> Iterator[tuple[Candidate, Outcome]]:
        packed = _packed(parent)
        pending: deque[tuple[Candidate, Future[tuple[Packed, Outcome]]]] = deque()
        try:
            while True:
                for candidate in islice(candidates, self.n - len(pending)):
                    pending.append((candidate, self.pool.submit(_attempt, packed, candidate)))
                if not pending:
                    return
                candidate, future = pending.popleft()
                made, outcome = future.result()
                model = self.terms.trainable(_unpacked(made))
                yield candidate, replace(outcome, model=model, found=replace(outcome.found, model=model))
        finally:  # one was accepted
            for _, future in pending:
                future.cancel()  # what runs already ends in vain, about when the one that counted did


Packed = tuple[dict[str, object], bytes]  # architecture as JSON data, weights as safetensors


@contextmanager
def working(
    devices: Sequence[str], base: ExportedModel, dataset: Dataset, settings: Reduction, seed: int
) -> Iterator[Workers]:
    """Workers on these devices, one for each time that a device is named; they end with the block.

    Where that is left before its end, what they try is not waited for.
    """
    others = active_children()
    context = get_context("spawn")
    waiting = context.Queue()
    for device in devices:
        waiting.put(device)
    # the data go through shared memory, once for all
    starting = (waiting, base, dataset.on(torch.device("cpu")), settings, seed, torch.get_num_threads())
    pool = ProcessPoolExecutor(len(devices), context, _start, starting)
    try:
        yield Workers(pool, len(devices), Terms.of(base, dataset, settings))
    except BaseException:
        for child in (each for each in active_children() if each not in others):
            child.kill()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_here: Alone | None = None  # of a worker


def _start(
    waiting: Queue[str], base: ExportedModel, dataset: Dataset, settings: Reduction, seed: int, threads: int
) -> None:
    """What a worker does first."""
    global _here
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the process that they work for
    torch.set_num_threads(threads)
    device = torch.device(waiting.get())
    if device.type == "cuda":
        torch.cuda.set_device(device)
    _here = Alone(Terms.of(base, dataset.on(device), settings), seed)


def _attempt(packed: Packed, candidate: Candidate) -> tuple[Packed, Outcome]:
    """What comes of a candidate, its network apart: tensors of another process would live as long as that."""
    assert _here is not None
    parent = _here.terms.trainable(_unpacked(packed))
    outcome = attempt(parent, candidate, _here.terms, _here.seed)
    nobody = None  # of the other process: see `Workers.outcomes`
    return _packed(outcome.model), replace(
        outcome,
        model=nobody,  # type: ignore[arg-type]
        found=replace(outcome.found, model=nobody),  # type: ignore[arg-type]
    )


def _packed(model: Network) -> Packed:
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    return model.architecture.to_json(), safetensors.torch.save(weights)


def _unpacked(packed: Packed) -> Network:
    plain, weights = packed
    model = build(architecture_of(plain))
    model.load_state_dict(safetensors.torch.load(weights))
    return model
