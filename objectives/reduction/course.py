"""What is tried when: the operation size of every axis, as it follows from what was accepted and refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from objectives.networks.network import Network
from objectives.reduction.settings import Iteration, Reduction
from objectives.reduction.units import most_worthwhile, units, whole, worth

Shares = Mapping[str, float]  # operation size of every axis that is not given up, in the network's order


@dataclass(frozen=True)
class Candidate:
    """A smaller network that could be tried."""

    number: int  # of the attempt, from 1: its seeds follow
    axis: str
    share: float  # of its channels that is to go
    n_before: int  # channels
    n_after: int


def left(n: int, share: float) -> int:
    """Channels of `n` that are left when a share goes: at least one stays, at least one goes."""
    return n - max(1, min(n - 1, round(share * n)))


def begun(model: Network, size: int, settings: Reduction) -> Shares:
    """The operation sizes to start from."""
    parts = units(model, size, inputs=settings.inputs)
    return {axis: settings.operation for axis, part in parts.items() if part.neurons > 1}


def after(shares: Shares, done: Iteration, settings: Reduction) -> Shares:
    """The operation sizes after an attempt: that of an axis is halved when it was refused.

    A size that would take away as many channels as the one just refused is passed over. An axis is given up when its
    size has come down to the smallest, or when it has one channel left.
    """
    return _after(shares, done.axis, done.n_before, done.n_after, settings, accepted=done.accepted)


def candidates(model: Network, size: int, shares: Shares, number: int, settings: Reduction) -> Iterator[Candidate]:
    """What is tried on a network, from attempt `number` on, for as long as all of it is refused."""
    parts = units(model, size, inputs=settings.inputs)
    scores = worth(parts, whole(model, size, inputs=settings.inputs), settings.beta, settings.gamma)
    while (axis := most_worthwhile(scores, shares)) is not None:
        n = parts[axis].neurons
        candidate = Candidate(number, axis, shares[axis], n, left(n, shares[axis]))
        yield candidate
        shares = _after(shares, axis, n, candidate.n_after, settings, accepted=False)
        number += 1


def _after(
    shares: Shares, axis: str, n_before: int, n_after: int, settings: Reduction, *, accepted: bool
) -> dict[str, float]:
    share = shares[axis]
    if accepted:
        given_up = n_after == 1
    else:
        share /= 2
        while share > settings.smallest and left(n_before, share) == n_after:
            share /= 2
        given_up = share <= settings.smallest
    return {other: share if other == axis else kept for other, kept in shares.items() if other != axis or not given_up}
