"""What an objective trains and what it tells: `Pipeline`, `Report` and `Reading`, frozen and plain.

A pipeline converts to and from JSON, so that it can be stored with a trial, sent to a worker and exported with a model.
Nothing here imports torch: the process that owns a study describes pipelines without ever loading it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import permutations
from typing import Literal, cast, get_args

from objectives.reduction.settings import Reduction
from objectives.strategies import STRATEGIES
from objectives.strategies.base import Strategy

NumberFormatName = Literal["fp32", "tf32", "bf16", "fp16"]
LrRule = Literal["none", "sqrt", "linear"]
ScheduleName = Literal["one_cycle", "cosine", "step"]
ExecutorName = Literal["auto", "eager", "cuda_graph", "compile"]

LR_REFERENCE_BATCH = 256  # samples; `Pipeline.lr` is stated for this batch size
MAX_LR = 100.0  # of `Pipeline.lr`


@dataclass(frozen=True)
class Pipeline:
    """One way to train: settings, of which a run has exactly one each, and strategies, applied left to right.

    Raises:
        ValueError: a setting is outside its range, or two strategies exclude each other.
    """

    number_format: NumberFormatName = "fp32"  # see formats.FORMATS
    batch_size: int = 128  # samples per optimizer step
    lr: float = 0.1  # peak learning rate; see `lr_rule`
    lr_rule: LrRule = (
        "none"  # how `lr`, stated for a batch of 256, follows the batch size (Hoffer et al. 2017; Goyal et al. 2017)
    )
    ghost_batch: int = 0  # samples that share batch-norm statistics (Hoffer et al. 2017); 0: the whole batch
    momentum: float = 0.9  # Nesterov momentum
    weight_decay: float = 5e-4  # L2, on every parameter
    epochs: int = 10  # length of the schedule
    schedule: ScheduleName = "step"  # share of the peak learning rate over the run
    label_smoothing: float = 0.0  # probability mass spread over all classes
    crop: bool = True  # random shift by up to an eighth of the image, zero-padded
    flip: bool = True  # random horizontal flip
    alternating_flip: bool = False  # a flip at random in the first epoch, then every other time (Jordan 2024)
    cutout: float = 0.0  # side of the square that is blanked, as a share of the image (DeVries & Taylor 2017)
    depth: int = 1  # residual blocks per stage
    width: float = 1.0  # multiplier of the family's stage widths
    executor: ExecutorName = "eager"  # how steps are run; see objectives.device.executors
    strategies: tuple[Strategy, ...] = ()
    # How a network that was trained so is made smaller: then that is what runs, with these settings for retraining.
    reduction: Reduction | None = None

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            _check_choice(name, getattr(self, name), choices)
        for name, low, high in _RANGES:
            _check_range(name, getattr(self, name), low, high)
        for strategy, other in permutations(self.strategies, 2):
            if strategy.refuses(other):
                raise ValueError(f"{type(strategy).__name__} cannot run with {type(other).__name__}: choose one")
        for strategy in self.strategies:
            if strategy.number_formats and self.number_format not in strategy.number_formats:
                name, possible = type(strategy).__name__, " or ".join(strategy.number_formats)
                raise ValueError(f"{name} cannot run in number format {self.number_format}: choose {possible}")

    @property
    def peak_lr(self) -> float:
        """Peak learning rate of the optimizer at this batch size."""
        return peak_lr(self.lr, self.batch_size, self.lr_rule)

    def with_batch(self, batch_size: int, peak_lr: float) -> Pipeline:
        """These settings with another batch size and, as far as `MAX_LR` allows, another peak learning rate at it."""
        scaled = replace(self, batch_size=batch_size, lr=1.0)
        return replace(scaled, lr=min(MAX_LR, peak_lr / scaled.peak_lr))

    @property
    def last_format(self) -> NumberFormatName:
        """The number format that a run ends in: of its last evaluations."""
        name: str = self.number_format
        for strategy in self.strategies:
            name = strategy.last_format(name, self.epochs)
        return cast("NumberFormatName", name)

    def n_epochs(self, n_train: int) -> int:
        """The epochs of a run over so many images: `epochs`, unless a strategy changes their number."""
        epochs = self.epochs
        for strategy in self.strategies:
            epochs = strategy.n_epochs(epochs, self.batch_size, n_train)
        return epochs

    @property
    def is_emulated(self) -> bool:
        """Whether it computes as no unit of the device does, so that its seconds mean nothing."""
        return any(strategy.emulated for strategy in self.strategies)

    def describe(self) -> str:
        """This pipeline in words, for tables and notes: what is neutral is left out; of a reduction all but itself."""
        if self.reduction is not None:
            return self.reduction.describe()
        rule = "" if self.lr_rule == "none" else f" {self.lr_rule}"
        emulated = [strategy for strategy in self.strategies if strategy.emulated]
        parts = [
            *([strategy.describe() for strategy in emulated] or [self.number_format]),
            f"{self.epochs} epochs {self.schedule.replace('_', '-')}",
            f"batch {self.batch_size}" + (f" ghost {self.ghost_batch}" if self.ghost_batch else ""),
            f"lr {self.lr:.3g}{rule}",
            f"depth {self.depth}" + (f" width x{self.width:g}" if self.width != 1 else ""),
        ]
        flip = "alternating flip" if self.alternating_flip else "flip"
        augmentations = ["crop"] * self.crop + [flip] * self.flip + [f"cutout {self.cutout:.0%}"] * (self.cutout > 0)
        parts.append(" ".join(augmentations) or "no augmentation")
        if self.label_smoothing >= 0.005:
            parts.append(f"smoothing {self.label_smoothing:.2f}")
        parts += [strategy.describe() for strategy in self.strategies if strategy not in emulated]
        if self.executor not in ("auto", "eager"):  # `auto` says in the trial what it chose
            parts.append(self.executor.replace("_", " "))
        return ", ".join(parts)

    def to_json(self) -> dict[str, object]:
        """This pipeline as plain JSON data; `from_json` is the inverse."""
        apart = ("strategies", "reduction")
        plain: dict[str, object] = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in apart}
        plain["strategies"] = [strategy.to_json() for strategy in self.strategies]
        return plain if self.reduction is None else {**plain, "reduction": self.reduction.to_json()}

    @classmethod
    def from_json(cls, plain: Mapping[str, object]) -> Pipeline:
        """The pipeline that `to_json` wrote.

        Raises:
            ValueError: an unknown setting or strategy, or a value out of range.
        """
        settings = dict(plain)
        listed, reduction = settings.pop("strategies", ()), settings.pop("reduction", None)
        if unknown := sorted(set(settings) - {f.name for f in fields(cls)}):
            raise ValueError(f"unknown pipeline setting {unknown[0]!r}: it was written by another version")
        if not isinstance(listed, (list, tuple)):
            raise ValueError(f"strategies must be a list, not {listed!r}")
        strategies = tuple(_strategy(item) for item in listed)
        reduced = None if reduction is None else Reduction.from_json(cast("Mapping[str, object]", reduction))
        return cls(**settings, strategies=strategies, reduction=reduced)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Report:
    """What a training tells after every epoch."""

    epoch: int  # epochs finished
    epochs: int  # epochs in the run; the report with epoch == epochs is final
    train_seconds: float  # of the device, charged so far: all but evaluation and warm-up; see objectives.device.clock
    accuracy: float  # of the deployed network on the validation images, in [0, 1]
    balanced_accuracy: float  # mean of the recalls of the classes, in [0, 1]
    settled: bool  # the accuracy says something about the final one: images and network have their full size
    loss: float  # mean training loss over the steps taken in this epoch; NaN when loss scaling skipped all of them
    diverged: bool  # that loss is not finite, or a logit, weight or statistic of the network, or an average of its own
    wall_seconds: float  # what was charged took so long by the clock on the wall
    boundary_seconds: float  # within train_seconds: surgery and whatever else strategies do between epochs
    eval_seconds: float  # of the device: evaluation so far; not charged
    train_flops: float  # of the network, spent so far; 1 multiply-add = 2 FLOPs. Not what strategies compute beside it
    inference_flops: float  # of the deployed network, per image
    full_flops: float  # of an inference by the network that the pipeline's settings ask for, before any surgery
    n_parameters: int  # of the deployed network
    peak_memory: int  # bytes at the peak of training: allocated on a GPU, resident on a CPU
    eval_peak_memory: int  # likewise of evaluation; on a CPU what training has freed stays resident
    skipped_steps: int  # optimizer steps skipped by fp16 loss scaling so far
    events: tuple[str, ...] = ()  # what strategies did at the boundary that ended this epoch, in words
    # The deployed network, as `Architecture.describe` puts it: the one whose accuracy and work these are. What the
    # boundary makes of it is told with the next epoch, which trains that. Empty in reports of earlier versions.
    architecture: str = ""
    modelled_seconds: float = 0.0  # of the task's machine so far, by the time model; 0 where it names none
    right: tuple[int, ...] = ()  # validation images of each class that the deployed network tells rightly; likewise

    def to_json(self) -> dict[str, object]:
        """This report as plain JSON data; `from_json` is the inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, object]) -> Report:
        """The report that `to_json` wrote."""
        values = dict(plain)
        values |= {name: tuple(values.get(name, ())) for name in ("events", "right")}  # type: ignore[arg-type]
        return cls(**values)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Reading:
    """What a device is like just now, between two trainings."""

    step_seconds: float  # of the reference workload: median of its steps
    n_foreign: int = 0  # processes of others that compute on the GPU
    throttled: tuple[str, ...] = ()  # why the clocks of the GPU are lowered, in words

    def to_json(self) -> dict[str, object]:
        """This reading as plain JSON data; `from_json` is the inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, object]) -> Reading:
        """The reading that `to_json` wrote."""
        return cls(**{**plain, "throttled": tuple(plain["throttled"])})  # type: ignore[arg-type]


# name, lowest, highest value of every bounded setting
_RANGES: tuple[tuple[str, float, float], ...] = (
    ("batch_size", 1, 65536),
    ("lr", 0.0, MAX_LR),
    ("ghost_batch", 0, 65536),
    ("momentum", 0.0, 0.9999),
    ("weight_decay", 0.0, 1.0),
    ("epochs", 1, 100_000),
    ("label_smoothing", 0.0, 0.99),
    ("cutout", 0.0, 1.0),
    ("depth", 1, 100),
    ("width", 0.01, 100.0),
)

_DEFAULTS = {f.name: f.default for f in fields(Pipeline)}

_CHOICES = {
    "number_format": get_args(NumberFormatName),
    "lr_rule": get_args(LrRule),
    "schedule": get_args(ScheduleName),
    "executor": get_args(ExecutorName),
}


def peak_lr(lr: float, batch_size: int, rule: LrRule) -> float:
    """Peak learning rate of the optimizer for a batch, of one that is stated for `LR_REFERENCE_BATCH` images."""
    factor = batch_size / LR_REFERENCE_BATCH
    return lr * {"none": 1.0, "sqrt": math.sqrt(factor), "linear": factor}[rule]


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}: choose one of {', '.join(choices)}")


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # also false for NaN
        raise ValueError(f"{name} is {value!r}: it must lie between {low:g} and {high:g}")
    if isinstance(value, float) and isinstance(_DEFAULTS[name], int):
        raise ValueError(f"{name} is {value!r}: it must be a whole number")


def _strategy(plain: Mapping[str, object]) -> Strategy:
    parameters = dict(plain)
    name = parameters.pop("strategy", None)
    if name not in STRATEGIES:
        raise ValueError(f"unknown strategy {name!r}: this version has {', '.join(sorted(STRATEGIES))}")
    strategy = STRATEGIES[str(name)]
    if unknown := sorted(set(parameters) - {f.name for f in fields(strategy) if f.init}):
        raise ValueError(f"{name} has no parameter {unknown[0]!r}: it was written by another version")
    return strategy(**{**strategy.of_before, **parameters})
