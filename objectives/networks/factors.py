"""Weights as products of thinner ones: Tucker-2 for convolutions (Kim et al. 2016), singular values for a classifier.

The outer factors of a convolution are orthonormal but for a scale. Scales are such that all factors of a weight have
the same norm, so that weight decay and a learning rate treat them alike. In double precision, on the CPU: the matrices
are small.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

ROUNDS = 3  # of alternating least squares after the truncated start


def of(weight: Tensor, ranks: tuple[int, ...]) -> dict[str, Tensor]:
    """The factors of a weight by name, from its inputs to its outputs: `reduce`, `core` of a convolution, `expand`.

    A convolution [out, in, k, k] of ranks (i, o) becomes [i, in, 1, 1], [o, i, k, k] and [out, o, 1, 1]; a matrix
    [out, in] of rank (r,) becomes [r, in] and [out, r]. At full rank their product is the weight; else no product of
    such a matrix is nearer to it (Eckart & Young 1936), and of such a convolution hardly one: after `ROUNDS` little is
    left to gain.

    Raises:
        ValueError: ranks that such a weight does not have.
    """
    n_ranks, most = (1, (min(weight.shape),)) if weight.dim() == 2 else (2, (weight.shape[1], weight.shape[0]))
    if len(ranks) != n_ranks or not all(1 <= rank <= n for rank, n in zip(ranks, most, strict=True)):
        raise ValueError(f"a weight of shape {list(weight.shape)} has no ranks {ranks}: at most {most}")
    exact = weight.detach().cpu().double()
    if exact.dim() == 2:
        out = _leading(exact, ranks[0])
        parts = {"reduce": out.T @ exact, "expand": out}
    else:
        inner, outer = _leading(_by_input(exact), ranks[0]), _leading(exact.flatten(1), ranks[1])
        for _ in range(ROUNDS):
            inner = _leading(_by_input(torch.einsum("oikl,or->rikl", exact, outer)), ranks[0])
            outer = _leading(torch.einsum("oikl,ir->orkl", exact, inner).flatten(1), ranks[1])
        core = torch.einsum("oikl,ir,os->srkl", exact, inner, outer)
        parts = {"reduce": inner.T[:, :, None, None], "core": core, "expand": outer[:, :, None, None]}
    norms = torch.stack([part.norm() for part in parts.values()])
    mean = norms.log().mean().exp()
    scaled = parts if mean == 0 else {name: part * (mean / part.norm()) for name, part in parts.items()}
    return {name: part.to(weight) for name, part in scaled.items()}


def product(parts: Mapping[str, Tensor]) -> Tensor:
    """The weight that factors stand for; the inverse of `of` at full rank."""
    if "core" not in parts:
        return parts["expand"] @ parts["reduce"]
    return torch.einsum("osij,srkl,rcij->ockl", parts["expand"], parts["core"], parts["reduce"])


def like(weight: Tensor, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The factors of another weight that share the outer ones of `parts`, as near to it as those allow."""
    fixed = {name: part.detach().cpu().double() for name, part in parts.items()}
    exact, back = weight.detach().cpu().double(), torch.linalg.pinv(fixed["expand"].flatten(1))
    if "core" not in parts:
        return {"reduce": (back @ exact).to(weight), "expand": parts["expand"].to(weight)}
    ahead = torch.linalg.pinv(fixed["reduce"].flatten(1))
    core = torch.einsum("oikl,ir,so->srkl", exact, ahead, back)
    return {**{name: part.to(weight) for name, part in parts.items()}, "core": core.to(weight)}


def _by_input(weight: Tensor) -> Tensor:
    """[in, out k k] of a convolution [out, in, k, k]."""
    return weight.transpose(0, 1).flatten(1)


def _leading(matrix: Tensor, rank: int) -> Tensor:
    """[rows, rank] the directions that hold most of a matrix [rows, columns]: its first left singular vectors."""
    directions: Tensor = torch.linalg.eigh(matrix @ matrix.T).eigenvectors  # ascending
    return directions[:, -rank:].flip(1)
