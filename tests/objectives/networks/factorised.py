"""Architectures with factorised layers, for the laws of networks and of surgery."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from objectives.networks.architecture import HEAD, Architecture, layer_label


def labels(architecture: Architecture) -> list[str]:
    """Every layer that can be factorised."""
    blocks = [(s, b) for s, stage in enumerate(architecture.stages) for b, width in enumerate(stage.interiors) if width]
    return [HEAD, *(layer_label(s, b, n) for s, b in blocks for n in (1, 2))]  # type: ignore[arg-type]


def with_factors(architecture: Architecture, seed: int, share: float = 0.3) -> Architecture:
    """The architecture with about this share of its layers factorised, into 1 to 4 channels."""
    random = Random(seed)
    chosen = [label for label in sorted(labels(architecture)) if random.random() < share]
    ranks = {label: tuple(random.randint(1, 4) for _ in range(1 if label == HEAD else 2)) for label in chosen}
    return replace(architecture, factors=tuple(ranks.items()))
