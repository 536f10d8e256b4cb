"""Sections of a study file that one kind has: `[reduce]`, which network is made smaller, and `[machine]`, whose seconds
are modelled; and what a file of that kind need not say, or may not.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from objectives.host.durable import damaged, sums
from objectives.modelled.machine import Machine
from objectives.networks import families
from objectives.pipeline import NumberFormatName, Pipeline, ScheduleName
from objectives.starts.naming import origin
from objectives.words import expanded, printable

WEIGHTS = "weights.safetensors"  # of an exported network: its sum tells it from others
REDUCTION = "reduction"  # the space of such studies
FORMATS = "emulated_formats"  # the space of studies of kind modelled
ONE_DEPTH = (1, 1)  # of [space], where the family is a plain one
STARTING = ("acceleration", "everything")  # the spaces whose pipelines may begin from a trained network
# Of [space], what a reduction does not choose, with what stands there in studies of this kind.
UNUSED: dict[str, tuple[tuple[float, float] | None, ...]] = {
    "epochs": ((1, 1),),
    "batch_size": ((64, 512),),
    "depth": ((1, 3), ONE_DEPTH),
    "width": ((0.5, 2.0),),
    "executors": (None,),
}
LR = 1.6  # per 256 images
UNSTOPPED = "stopping {!r} judges by seconds, of which a reduction takes more the further it comes: leave it out"

Epochs = Annotated[int, Field(ge=1, le=1000)]
Share = Annotated[float, Field(ge=1e-6, le=1)]
Positive = Annotated[float, Field(gt=0, le=1e18)]


class Section(BaseModel):
    """A part of a study file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class BaseSection(Section):
    """`[reduce.base]`: how the network is trained that is made smaller, once; what `Pipeline` says unless given."""

    epochs: Annotated[int, Field(ge=1, le=10_000)] = 10
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 64
    lr: Annotated[float, Field(gt=0, le=100)] = LR  # of a family without norms an eighth of it
    schedule: ScheduleName = "one_cycle"
    label_smoothing: Annotated[float, Field(ge=0, le=0.99)] = 0.1
    depth: Annotated[int, Field(ge=1, le=9)] = 1
    width: Annotated[float, Field(ge=0.25, le=8)] = 1.0

    @property
    def pipeline(self) -> Pipeline:
        """How it is trained: in fp32, at a rate that follows the batch, without augmentation."""
        return Pipeline(**self.model_dump(), lr_rule="linear", crop=False, flip=False)


class ReduceSection(Section):
    """`[reduce]`: a network, exported (`model`) or to be trained (`base`), and ranges as [least, most]."""

    model: Annotated[str, Field(min_length=1)] | None = None  # folder of an exported network
    base: BaseSection | None = None
    epsilon: tuple[Share, Share] = (0.001, 0.01)  # validation accuracy that may be lost
    epochs: tuple[Epochs, Epochs] = (1, 5)  # of retraining, after each operation
    iterations: tuple[Epochs, Epochs] = (5, 20)  # attempts

    @field_validator("epsilon", "epochs", "iterations", mode="before")
    @classmethod
    def _pair(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value  # TOML has no tuples

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if (self.model is None) == (self.base is None):
            raise ValueError('it needs one network: either model = "FOLDER" of an exported one, or [reduce.base]')
        for name in ("epsilon", "epochs", "iterations"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} = [{low:g}, {high:g}]: the least comes first")
        return self

    @property
    def ranges(self) -> tuple[tuple[float, float], tuple[int, int], tuple[int, int]]:
        """Of epsilon, of epochs, of iterations."""
        return self.epsilon, self.epochs, self.iterations

    @property
    def settings(self) -> dict[str, object]:
        """What tells a network from others before it is trained."""
        return {} if self.base is None else {"settings": self.base.model_dump()}

    @property
    def folder(self) -> Path | None:
        """Where the exported network lies; None where one is to be trained."""
        return Path(expanded(self.model)) if self.model is not None else None

    def check(self) -> None:
        """Refuses a folder that holds no exported network.

        Raises:
            ValueError: it does not.
        """
        if self.folder is None:
            return
        wrong = damaged(self.folder) or [name for name in (WEIGHTS,) if name not in sums(self.folder)]
        if wrong:
            why = f"{wrong[0]} is missing or damaged" if self.folder.is_dir() else "there is no such folder"
            raise ValueError(f"reduce.model = {printable(str(self.model))!r} is no exported network: {why}")


class MachineSection(Section):
    """`[machine]`: whose modelled seconds a study minimises, as `benchmarks.time_model` prints it."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    step_seconds: Positive
    launch_seconds: Positive
    bandwidth: Positive
    half_length: Positive
    rates: dict[NumberFormatName, Positive]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        Machine(**self.model_dump())
        return self

    @property
    def machine(self) -> Machine:
        """As the time model takes it."""
        return Machine(**self.model_dump())


def having_rates(number_formats: tuple[str, ...], machine: MachineSection | None) -> tuple[str, ...]:
    """The number formats that a study can offer: where seconds are modelled, those that have a rate."""
    return number_formats if machine is None else tuple(name for name in number_formats if name in machine.rates)


def completed(plain: Mapping[str, Any]) -> Mapping[str, Any]:
    """A study file with what it need not say: of kind `reduce` its space, and of an exported network, or one to start
    from, its family; of a plain family, or one of ImageNet, its depth, and a rate that suits networks without norms
    where one is trained to be made smaller.

    Raises:
        ValueError: it says what such a study has no use for.
    """
    made = _of_family(_of_its_kind(plain))
    network, space, reduce = (made.get(name) for name in ("network", "space", "reduce"))
    if not isinstance(network, dict) or not families.has_one_depth(family := str(network.get("family"))):
        return made
    found: dict[str, Any] = {**made}
    if isinstance(space, dict):
        found["space"] = {"depth": ONE_DEPTH, **space}
    if isinstance(reduce, dict) and isinstance(base := reduce.get("base"), dict):
        rate = families.rate(family)
        if rate < 1:  # half of what is best with many steps: of 200 digits LeNet-5 learned nothing at that
            rate /= 2
        found["reduce"] = {**reduce, "base": {"lr": LR * rate, **base}}
    return found


def _of_family(plain: Mapping[str, Any]) -> Mapping[str, Any]:
    """A study file with the family of the network that its pipelines may start from, where it says none."""
    network = plain.get("network")
    if not isinstance(network, dict) or not isinstance(start := network.get("start"), str) or "family" in network:
        return plain
    try:
        known = origin(start)
    except ValueError as error:
        raise ValueError(f"network.start: {error}") from error
    if known.family is None:
        raise ValueError(f"network.start: no family has networks as {known.words}, {known.architecture.describe()}")
    return {**plain, "network": {"family": known.family, **network}}


def _of_its_kind(plain: Mapping[str, Any]) -> Mapping[str, Any]:
    if plain.get("reduce") is not None and plain.get("kind", "pareto") == "pareto":
        raise ValueError('[reduce] belongs to studies of kind "reduce": begin the file with kind = "reduce"')
    if plain.get("machine") is not None and plain.get("kind") != "modelled":
        raise ValueError('[machine] belongs to studies of kind "modelled": begin the file with kind = "modelled"')
    reduce, space, search = (plain.get(name) or {} for name in ("reduce", "space", "search"))
    if plain.get("kind") == "modelled" and isinstance(space, dict) and isinstance(search, dict):
        return {**plain, "space": {"name": FORMATS, **space}, "search": {"stopping": "none", "repeats": 0, **search}}
    if plain.get("kind") != "reduce" or not all(isinstance(each, dict) for each in (reduce, space, search)):
        return plain  # of another kind, or about to be told what is wrong
    for name, unused in UNUSED.items():
        if name in space and space[name] not in (*unused, *(list(each or ()) for each in unused)):
            raise ValueError(f"[space] {name}: a study of kind reduce has its ranges under [reduce]: leave it out")
    made: dict[str, Any] = {
        **plain,
        "space": {"name": REDUCTION, "epochs": UNUSED["epochs"][0], **space},
        "search": {"stopping": "none", **search},
    }
    if reduce.get("model") is not None:
        made.setdefault("network", {"family": "small"})  # nothing of it is asked: the folder says what it holds
    return made


def _check_modelled(machine: MachineSection | None, stopping: str) -> None:
    if machine is None:
        raise ValueError('kind "modelled" needs a section [machine]: python -m benchmarks.time_model prints one')
    if stopping != "none":
        raise ValueError(f"stopping {stopping!r} judges by seconds of a clock, which are modelled here: leave it out")


def check_start(kind: str, space: str) -> None:
    """Refuses a network to start from where nothing does.

    Raises:
        ValueError: the words.
    """
    if kind == "reduce":
        raise ValueError('network.start: kind "reduce" makes a trained network smaller: leave start out')
    if space not in STARTING:
        raise ValueError(f"network.start: space {space!r} begins at random: choose {' or '.join(STARTING)}")


def check_kind(
    kind: str,
    space: str,
    reduce: ReduceSection | None,
    metric: str,
    stopping: str,
    seconds: object,
    machine: MachineSection | None = None,
) -> None:
    """Refuses what does not belong together.

    `seconds`: whether [search] names any.

    Raises:
        ValueError: a part that another kind has, or lacks.
    """
    belongs = {REDUCTION: "reduce", FORMATS: "modelled"}
    if kind != "reduce" and (other := belongs.get(space, kind)) != kind:
        raise ValueError(f'space {space!r} belongs to studies of kind "{other}": leave it out, or say that kind')
    if kind == "modelled":
        _check_modelled(machine, stopping)
        return
    if kind == "pareto":
        return
    if reduce is None:
        raise ValueError('kind "reduce" needs a network: model = "FOLDER" under [reduce], or a section [reduce.base]')
    if space != REDUCTION:
        raise ValueError(f'space {space!r} chooses how networks are trained: kind "reduce" has {REDUCTION!r}')
    if metric != "plain":
        raise ValueError('metric "balanced": a smaller network is accepted by its plain accuracy: leave it out')
    if stopping != "none":
        raise ValueError(UNSTOPPED.format(stopping))
    if seconds:
        raise ValueError('fastest and slowest are seconds: what kind "reduce" minimises is FLOPs: leave them out')
