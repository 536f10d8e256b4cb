"""How long two networks take for a batch of images: measured in turns, on one device."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from objectives.reduction.result import Latency, Spread

BATCHES = (1, 256)  # images: one that is waited for, and many
ROUNDS = 15  # readings of each network
FEWEST = 3  # ... where a single one takes long
READING = 0.01  # seconds of a reading at least: the clock and a stray interrupt are small beside it
MOST_CALLS = 1000  # of a reading
TRIES = 5  # short readings that tell how many calls a reading needs: one alone may be disturbed, and say a single call
TRIED = 2  # calls of each


@torch.no_grad()
def latencies(
    base: nn.Module, reduced: nn.Module, shape: Sequence[int], device: torch.device, seconds: float
) -> tuple[Latency, ...]:
    """Latencies of two networks in evaluation mode on made-up images of `shape` (channels, height, width).

    They compute in fp32 as `load_model` hands them out, on as many threads as torch has. A round reads both networks,
    in an order that changes from round to round: what disturbs the device for longer than a reading disturbs both.
    What is left over of `seconds` is not used; a network that takes longer is read three times all the same.
    """
    networks = [base.to(device).eval(), reduced.to(device).eval()]
    return tuple(_measured(networks, batch, shape, device, seconds / len(BATCHES)) for batch in BATCHES)


def _measured(
    networks: Sequence[nn.Module], batch: int, shape: Sequence[int], device: torch.device, seconds: float
) -> Latency:
    x = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    x = x.contiguous(memory_format=torch.channels_last)
    began = time.perf_counter()
    calls = [_calls(network, x) for network in networks]  # warms up as well
    readings: tuple[list[float], list[float]] = ([], [])
    while len(readings[0]) < ROUNDS and (len(readings[0]) < FEWEST or time.perf_counter() - began < seconds):
        for which in (0, 1) if len(readings[0]) % 2 == 0 else (1, 0):
            readings[which].append(_reading(networks[which], x, calls[which]))
    ratios = [before / after for before, after in zip(*readings, strict=True)]
    return Latency(batch, Spread.of(readings[0]), Spread.of(readings[1]), Spread.of(ratios))


def _calls(network: Callable[[Tensor], Tensor], x: Tensor) -> int:
    """How many calls a reading needs to last long enough.

    A network that was called once a reading, after a disturbed look at it, seemed five times as slow as it was: its
    weights had left the caches.
    """
    quickest = min(_reading(network, x, TRIED) for _ in range(TRIES))
    return max(1, min(MOST_CALLS, round(READING / max(quickest, 1e-9))))


def _reading(network: Callable[[Tensor], Tensor], x: Tensor, calls: int) -> float:
    """Seconds of a call, from so many."""
    _await(x.device)
    began = time.perf_counter()
    for _ in range(calls):
        network(x)
    _await(x.device)
    return (time.perf_counter() - began) / calls


def _await(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
