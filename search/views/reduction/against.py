"""How much smaller a network of a study is than the one that it was made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.trial import FrozenTrial

from search.pareto.kinds import REDUCE
from search.study import records

COLUMNS = ("fewer FLOPs", "difference", "parameters", "seconds")


def fewer(before: float, after: float) -> str:
    """How many times less is left."""
    return f"{before / after:.2f}x"


def words(flops: float, trial: FrozenTrial, base: Mapping[str, Any]) -> str:
    """How much fewer FLOPs and parameters than before."""
    parameters = fewer(base["n_parameters"], trial.user_attrs["n_parameters"])
    return f"{fewer(base['inference_flops'], flops)} fewer FLOPs and {parameters} fewer parameters than before"


def of_base(base: Mapping[str, Any]) -> str:
    """The network before, in words."""
    size = f"{REDUCE.said(base['inference_flops'])}, {base['n_parameters']:,} parameters"
    return f"{size} and {base['accuracy']:.2%}"


def cells(flops: float, accuracy: float, trial: FrozenTrial, base: Mapping[str, Any]) -> list[str]:
    """The columns of a network beside its FLOPs and its accuracy."""
    return [
        fewer(base["inference_flops"], flops),
        f"{100 * (accuracy - base['accuracy']):+.2f}",
        f"{trial.user_attrs['n_parameters']:,}",
        f"{records.seconds(trial):.1f}",
    ]
