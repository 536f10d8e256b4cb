"""Our loop beside those of other libraries, in pairs: the part `peers` of `benchmarks.training`.

Each contestant lives in a process of its own, as a user's training does: its allocator and its heap are its own. The
processes take turns; the order within a round is random. Three contestants a peer tell where a difference comes from:
as its users run it; with the allocator settings of our process; with our batches as well, so that only loops differ.
"""

from __future__ import annotations

import gc
import logging
import math
import multiprocessing
import random
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from multiprocessing.connection import Connection
from statistics import median

import numpy as np
import numpy.typing as npt
import torch

from benchmarks import peers
from benchmarks.peak import architecture_of
from benchmarks.workload import Workload, bounds
from objectives.device.allocator import keep_freed_memory
from objectives.networks.flops import count


@dataclass(frozen=True)
class Contestant:
    """A loop and what it is given."""

    peer: str | None  # a key of peers.PEERS; None: our loop
    keeps_memory: bool = True  # objectives.device.allocator
    our_batches: bool = True  # made by objectives.data.augment; else by a DataLoader over torchvision's transforms


SUSTAINED = 80e9  # FLOP/s: roughly what one core makes of these networks
OURS = Contestant(None)
GIVEN = {  # what a peer is given, by what the table calls it
    "as its users run it": (False, False),
    "+ our allocator": (True, False),
    "+ our batches": (True, True),
}


@dataclass(frozen=True)
class Result:
    """What one run took, and where it ended."""

    seconds: float
    process_seconds: float
    weights: npt.NDArray[np.float32]  # all parameters, flat


class Corner:
    """The process of one contestant, idle until it is called."""

    def __init__(self, contestant: Contestant, workload: Workload) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, contestant, workload), daemon=True)
        self._process.start()
        theirs.close()

    def run(self) -> Result:
        """One run, timed in there.

        Raises:
            RuntimeError: the process ended.
        """
        try:
            self._connection.send(True)
            return self._connection.recv()
        except (EOFError, BrokenPipeError) as error:
            raise RuntimeError("the process of a contestant ended: its message is above") from error

    def close(self) -> None:
        """Ends the process."""
        self._connection.close()
        self._process.join()


HEAD = (
    "| network, format | peer | what it is given | pairs x steps | ours, ms per step (GFLOP/s) | peer, likewise "
    "| peer / ours | 95 % bounds | ratio of CPU times | same weights |\n|---|---|---|---|---|---|---|---|---|---|"
)


def contest(name: str, workload: Workload, n_rounds: int) -> Iterator[str]:
    """Rows of HEAD for every installed peer that offers the workload's number format.

    Raises:
        RuntimeError: a peer that is fed our batches does not reach our weights: it would do different work.
    """
    for peer_name, peer in peers.PEERS.items():
        if peer.version is None or workload.pipeline.number_format not in peer.formats:
            continue
        sides = {"ours": OURS} | {given: Contestant(peer_name, *flags) for given, flags in GIVEN.items()}
        runs = rounds(sides, workload, n_rounds)
        for given in GIVEN:
            yield f"| {name} | {peer_name} {peer.version} | {given} {_row(runs['ours'], runs[given], workload)}"
        apart = difference(runs["ours"][0], runs["+ our batches"][0])
        if apart:
            raise RuntimeError(f"{peer_name} ends {apart:g} from our weights: the two do not do the same work")


def sized(workload: Workload, seconds: float) -> Workload:
    """The workload with about as many steps as take `seconds` at SUSTAINED: no clock, so always the same ones."""
    return workload.of(seconds * SUSTAINED / _step_flops(workload))


def rounds(sides: dict[str, Contestant], workload: Workload, n_rounds: int) -> dict[str, list[Result]]:
    """The runs of every side over rounds in which they take turns in random order; a first round warms up."""
    order = random.Random(0)
    runs: dict[str, list[Result]] = {name: [] for name in sides}
    with ExitStack() as stack:
        corners = {name: stack.enter_context(closing(Corner(side, workload))) for name, side in sides.items()}
        for number in range(n_rounds + 1):
            for name in order.sample(list(corners), len(corners)):
                run = corners[name].run()
                if number > 0:
                    runs[name].append(run)
    return runs


def difference(a: Result, b: Result) -> float:
    """The largest difference between the weights that two runs reached."""
    return float(np.abs(a.weights.astype(np.float64) - b.weights).max())


def _row(ours: list[Result], theirs: list[Result], workload: Workload) -> str:
    ratios = [b.seconds / a.seconds for a, b in zip(ours, theirs, strict=True)]
    low, high = bounds(ratios)
    steps = [median(run.seconds for run in runs) / workload.n_steps for runs in (ours, theirs)]
    speeds = [f"{1000 * step:.2f} ({_step_flops(workload) / step / 1e9:,.0f})" for step in steps]
    process_ratio = median(b.process_seconds / a.process_seconds for a, b in zip(ours, theirs, strict=True))
    same = "bit for bit" if difference(ours[0], theirs[0]) == 0 else "other draws"
    return (
        f"| {len(ratios)} x {workload.n_steps} | {speeds[0]} | {speeds[1]} | {median(ratios):.3f} "
        f"| {low:.3f} to {high:.3f} | {process_ratio:.3f} | {same} |"
    )


def _step_flops(workload: Workload) -> int:
    return workload.pipeline.batch_size * count(architecture_of(workload), workload.dataset.size)[1]


def left_out(formats: Sequence[str]) -> Iterator[str]:
    """Why a peer, or a number format of one, is not compared."""
    for name, peer in peers.PEERS.items():
        if peer.version is None:
            yield f"{name} is left out: it is not installed: pip install -c constraints.txt -e '.[bench]'"
        elif missing := [each for each in formats if each not in peer.formats]:
            yield f"{name} {peer.version} is left out in {', '.join(missing)}: it has no such option for a CPU"


def _serve(connection: Connection, contestant: Contestant, workload: Workload) -> None:
    """Runs the contestant whenever a message comes, until the other end closes."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # a peer's advice on worker processes and progress bars
    logging.disable(logging.WARNING)
    if contestant.keeps_memory:
        keep_freed_memory()
    while True:
        try:
            connection.recv()
        except EOFError:
            return
        connection.send(_timed(contestant, workload))
        gc.freeze()  # what was imported need not be searched for garbage between runs


def _timed(contestant: Contestant, workload: Workload) -> Result:
    gc.collect()
    if contestant.peer is None:
        report, model = workload.ours()
        is_cpu = workload.dataset.train.x.device.type == "cpu"  # where the seconds charged are CPU time
        seconds, process_seconds = report.wall_seconds, report.train_seconds if is_cpu else math.nan
    else:
        run = peers.warmed(contestant.peer, workload, our_batches=contestant.our_batches)
        assert run.model is not None
        seconds, process_seconds, model = run.seconds, run.process_seconds, run.model
    weights = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    return Result(seconds, process_seconds, weights.cpu().numpy())
