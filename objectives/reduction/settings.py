"""How a trained network is made smaller: `Reduction`, and `Iteration`, what is told of an attempt. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Literal, get_args

CriterionName = Literal[
    "taylor", "taylor_sum", "activation", "l1_own", "l1_next", "l1_both", "similarity", "random"
]  # see `criteria`
RetrainingName = Literal["full", "blocks"]


@dataclass(frozen=True)
class Reduction:
    """Settings of SNARE (Viehmann 2020).

    Raises:
        ValueError: a value is out of range.
    """

    epsilon: float = 0.005  # validation accuracy that may be lost, in (0, 1]
    beta: float = 1.0  # weight of a layer's share of the parameters in its score
    gamma: float = 1.0  # weight of its share of the FLOPs
    criterion: CriterionName = "taylor"  # which neurons go first
    operation: float = 0.64  # share of a layer's neurons that is tried first; halved when refused
    smallest: float = 0.04  # share at which a layer is given up
    epochs: int = 5  # of retraining after each operation; 0: none
    lr: float = 1.0  # peak learning rate of retraining, as a share of the peak of the base's pipeline
    retraining: RetrainingName = "full"  # blocks: towards the activations of the network before, then one epoch
    iterations: int | None = None  # at most; None: until every layer is given up
    inputs: bool = False  # inputs of a dense first layer may be pruned as well

    def __post_init__(self) -> None:
        if self.criterion not in get_args(CriterionName):
            raise ValueError(f"criterion is {self.criterion!r}: choose one of {', '.join(get_args(CriterionName))}")
        if self.retraining not in get_args(RetrainingName):
            raise ValueError(f"retraining is {self.retraining!r}: choose one of {', '.join(get_args(RetrainingName))}")
        for name, low, high in _RANGES:
            if not low <= (value := getattr(self, name)) <= high:  # also false for NaN
                raise ValueError(f"{name} is {value!r}: it must lie between {low:g} and {high:g}")
        if self.smallest > self.operation:
            raise ValueError(f"smallest = {self.smallest:g}, operation = {self.operation:g}: the smallest comes last")
        if self.iterations is not None and self.iterations < 1:
            raise ValueError(f"iterations is {self.iterations}: at least one is needed")

    def describe(self) -> str:
        """These settings in words, for tables and notes: what is neutral is left out."""
        retrained = f"{self.epochs} epochs of {'blocks' if self.retraining == 'blocks' else 'all'} lr x{self.lr:.2g}"
        parts = [
            f"SNARE {self.criterion.replace('_', ' ')}",
            f"epsilon {100 * self.epsilon:.2g} points",
            f"beta {self.beta:g} gamma {self.gamma:g}",
            f"{self.operation:.0%} first",
            retrained if self.epochs else "not retrained",
            f"{self.iterations} attempts" if self.iterations is not None else "to the end",
        ]
        return ", ".join(parts + ["inputs as well"] * self.inputs)

    def to_json(self) -> dict[str, object]:
        """These settings as plain JSON data; `from_json` is the inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, object]) -> Reduction:
        """The settings that `to_json` wrote.

        Raises:
            ValueError: an unknown setting, or a value out of range.
        """
        if unknown := sorted(set(plain) - {f.name for f in fields(cls)}):
            raise ValueError(f"unknown setting {unknown[0]!r} of a reduction: it was written by another version")
        return cls(**plain)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Iteration:
    """One attempt at a smaller network."""

    number: int  # from 1
    axis: str  # label of the channel axis that was cut
    share: float  # of its channels that was to go: the operation size
    n_before: int  # channels of the axis
    n_after: int
    cut_accuracy: float  # on the validation images before retraining, in [0, 1]
    accuracy: float  # after it
    accepted: bool
    n_parameters: int  # of the network tried
    flops: float  # of an inference, per image
    seconds: float  # device seconds that the attempt took: criterion, surgery, retraining; not evaluation
    architecture: str  # of the network tried, in words

    def to_json(self) -> dict[str, object]:
        """This attempt as plain JSON data; `from_json` is the inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, object]) -> Iteration:
        """The attempt that `to_json` wrote."""
        return cls(**plain)  # type: ignore[arg-type]


_RANGES: tuple[tuple[str, float, float], ...] = (
    ("epsilon", 1e-6, 1.0),
    ("beta", 0.0, 1e3),
    ("gamma", 0.0, 1e3),
    ("operation", 0.01, 0.99),
    ("smallest", 0.01, 0.99),
    ("epochs", 0, 1000),
    ("lr", 1e-6, 10.0),
)  # name, lowest, highest value
