"""What each strategy did, in a table and as JSON."""

from __future__ import annotations

from search.proposals.effects import Effect, effects
from search.study.snapshot import Snapshot
from search.views.columns import columns

NAMES = {
    "start": "trained start",
    "frozen": "frozen stages",
    "probe": "linear probe",
    "rates": "rates by depth",
    "haar": "Haar stem",
    "stride": "stem of stride 2",
    "average": "average pooling",
    "stochastic": "stochastic pooling",
    "s3": "S3Pool",
    "adaptive": "adaptive size",
    "approximate": "gradient approximation",
    "batches": "batch growth",
    "clip": "gradient clipping",
    "isgd": "inconsistent SGD",
    "regime": "regime adaptation",
    "grow": "Net2Net",
    "identity": "identity start",
    "whiten": "whitened stem",
    "morph": "MorphNet",
    "lottery": "lottery ticket",
    "lowrank": "low rank",
    "weightnorm": "weight norm",
    "standard": "standardization loss",
    "prune": "PruneTrain",
    "kernel": "kernel rescaling",
    "structure": "structure and strength",
    "sampling": "column-row sampling",
    "sparse": "pruned activation gradients",
    "muon": "Muon",
    "bias": "bias learning rate",
    "freeze": "freezing",
    "resolution": "progressive resolution",
    "data": "part of the images",
    "balance": "balanced sampling",
    "lookahead": "lookahead",
    "ema": "EMA",
    "swa": "SWA",
    "switch": "fp32 at the end",
    "plateau": "end at a plateau",
}


def lines(now: Snapshot, width: int | None = None) -> list[str]:
    """A table of what each strategy brought in this study; nothing where there are too few runs."""
    found = effects(now)
    if not found:
        return []
    rows = [row(effect) for effect in found]
    said = (
        "What each strategy did here: seconds and accuracy of the runs with it against the same pipelines without it, "
        "as the models of the search tell, with 95 % intervals; pairs that were both trained."
    )
    return [*columns(["strategy", "runs", "pairs", "seconds", "points"], rows, width, left=["strategy"]), said, ""]


def as_json(now: Snapshot) -> list[dict[str, object]]:
    """The same as plain data; decades of seconds, points of accuracy."""
    return [
        {
            "strategy": effect.switch,
            "runs": effect.n,
            "pairs": effect.n_pairs,
            "seconds": list(effect.seconds.factors) if effect.seconds else None,
            "points": list(effect.points) if effect.points else None,
        }
        for effect in effects(now)
    ]


def row(effect: Effect) -> list[str]:
    name = NAMES.get(effect.switch, effect.switch)
    if effect.seconds is None or effect.error is None or effect.points is None:
        return [name, str(effect.n), "", "", "too few runs to tell"]
    seconds, points = effect.seconds.factors, effect.points
    mark = "" if effect.error.is_sure else " (undecided)"
    return [
        name,
        str(effect.n),
        str(effect.n_pairs),
        f"x{seconds[0]:.2f} ({seconds[1]:.2f} to {seconds[2]:.2f})",
        f"{points[0]:+.2f} ({points[1]:+.2f} to {points[2]:+.2f}){mark}",
    ]
