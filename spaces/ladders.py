"""Known-good pipelines by data set, from the fastest useful one to the most accurate: the best of our own runs."""

from __future__ import annotations

from dataclasses import dataclass

from spaces.base import Given, Parameters


@dataclass(frozen=True)
class Rung:
    """A known-good pipeline for a study of any length."""

    position: float  # of its epochs in the study's range, on a logarithmic scale: 0 the fewest, 1 the most
    parameters: Parameters  # what differs from a one-cycle run of the default space without strategies, in bf16

    def within(self, given: Given) -> Parameters:
        """The rung for a study."""
        fewest, most = given.epochs
        return self.parameters | {"epochs": round(fewest * (most / fewest) ** self.position)}


# The first network says whether flips fit: it must have seen none. Without them it was at 57.5 % instead of 58.9 % on
# 4,000 images of CIFAR-10 (FAST, 3 epochs, 3 seeds, 2026-11-26); a training for that alone took as long again.
_UNFLIPPED: Parameters = {"augment.flip": False}
_SHORT: Parameters = {"batch.log2_size": 6, "lr": 0.8}
_WHITENED = _SHORT | {"whiten": True}
_DIGITS: Parameters = {"batch.log2_size": 5, "lr": 1.6, "number_format": "fp32"}

# For data that nobody has seen: what the ladders of the others have in common.
GENERIC: dict[str, Rung] = {
    "ladder, short": Rung(0.0, _WHITENED | _UNFLIPPED),
    "ladder, longer": Rung(0.5, _WHITENED),
    "ladder, wider and longer": Rung(0.75, _WHITENED | {"width": 1.5}),
}

# Likewise, in networks of four stages, narrow enough for a CPU: see benchmarks/ten_minutes.md.
_STRIDED = _WHITENED | {"width": 0.25, "stride": True}
FAST: dict[str, Rung] = {
    "ladder, every second pixel": Rung(0.0, _STRIDED | _UNFLIPPED),
    "ladder, every second pixel, longer": Rung(0.3, _STRIDED),
    "ladder, all pixels": Rung(0.3, _WHITENED | {"width": 0.25, "augment.crop": True}),
}

# Likewise, in networks for large images, whose stem takes every second pixel and whose pooling takes every second of
# those anyway.
LARGE: dict[str, Rung] = {
    "ladder, narrow": Rung(0.0, _WHITENED | {"width": 0.25} | _UNFLIPPED),
    "ladder, narrow and longer": Rung(0.5, _WHITENED | {"width": 0.25}),
    "ladder, wider and longer": Rung(0.5, _WHITENED | {"width": 0.5}),
}

LADDERS: dict[str, dict[str, Rung]] = {
    "digits": {
        "ladder, identity start": Rung(0.0, _DIGITS | {"identity": True}),
        "ladder, whitened": Rung(0.6, _DIGITS | {"whiten": True}),
        "ladder, whitened and long": Rung(1.0, _DIGITS | {"whiten": True}),
    },
    "fashion_mnist": {
        "ladder, narrow": Rung(0.0, _WHITENED | {"width": 0.5}),
        "ladder, large batches": Rung(0.0, _WHITENED | {"batch.log2_size": 7}),
        "ladder, wider": Rung(1 / 3, _WHITENED | {"width": 1.5}),
        "ladder, wider and longer": Rung(2 / 3, _WHITENED | {"width": 1.5}),
        "ladder, widest": Rung(1.0, _WHITENED | {"width": 2.0}),
    },
    "cifar10": {
        "ladder, wavelets": Rung(0.0, _WHITENED | {"haar": True}),
        "ladder, longer wavelets": Rung(0.5, _WHITENED | {"haar": True}),
        "ladder, small images first": Rung(
            0.75, _WHITENED | {"resolution": True, "resolution.start": 0.5, "resolution.until": 0.5}
        ),
        "ladder, widest": Rung(1.0, _WHITENED | {"width": 2.0, "augment.crop": True}),
    },
}


def ladder(given: Given) -> dict[str, Rung]:
    """The rungs of a study, from the fastest on: of its data set, or of its family for data that nobody has seen."""
    of_family = {"fast": FAST, "imagenet18": LARGE, "imagenet34": LARGE}
    return LADDERS.get(given.data, of_family.get(given.family, GENERIC))
