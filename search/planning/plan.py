"""A plan: the study that so many minutes suffice for, chosen from the data and from probed seconds, and explained."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass

from objectives.networks import families
from objectives.networks.architecture import FAMILIES
from objectives.starts.likeness import settings_of
from objectives.starts.origin import Origin
from objectives.words import counted
from objectives.work import step_memory
from search.planning.budget import ANCHOR_SHARE, FILL_SHARE, LEAST_PROPOSED, OVERHEAD, SEARCH_SHARE
from search.planning.costs import Costs, Network
from spaces.base import Given, Parameters
from spaces.ladders import ladder

SIZES = (8, 16, 24, 32, 48, 64, 96, 128, 160, 192, 224)  # pixels: sides of images to choose from
SMALL = 12  # pixels, up to which networks have two stages
PROBE_BATCH = 64  # images
# The fewest epochs: 3 of 4,000 images, and half as many of four times the images, where steps tell as epochs do.
FIRST_EPOCHS, FIRST_IMAGES = 3, 4_000
FEWEST, MOST = 2, 100  # epochs
SHOWN = 24_000  # images: a run on all pixels that sees so many ...
LONG_SHARE = 0.4  # ... may take this share of the minutes, or images get smaller
SOONER = 2  # times fewer epochs, at the fewest, where pipelines may start from a trained network
WIDTHS = {"cpu": (0.25, 1.0), "cuda": (0.25, 2.0)}  # times the channels of the family, by kind of device
FAMILY_REASONS = {
    "small": "for images so small",
    "fast": "which was ahead where families were compared, in single runs on a CPU (benchmarks/ten_minutes.md)",
}
STEMS = {  # by the number of strides to choose from
    1: ("stride 2 and a pooling", "of stride 2 with a pooling behind it, as trained networks for large images have"),
    2: (
        "stride 1, 2 to choose",
        "of stride 1, and 2 as a strategy: short runs pay with a quarter of the work, long ones with all pixels",
    ),
}
KEPT = 10  # networks on a disk, about
BEFORE_TRAINING = 13.0  # seconds on the wall: imports, images, probes; of two minutes, on one core (2026-11-27)
# Device seconds of a proposed run in the mean, beside the geometric mean of the first and the longest run: 23 runs of 5
# and 10 minutes came to .40 to 1.15, .62 in the median (benchmarks/ten_minutes.md).
PROPOSED = 0.6
ERR = 0.3  # share by which forecasts of seconds may err: of modelled steps one in ten does by more than 0.24
MOST_TRIALS, MOST_SECONDS = 10**6, 3e7  # in a study file


@dataclass(frozen=True)
class Images:
    """What a plan must know of the data."""

    name: str  # as `DataSpec.name`
    n_train: int  # to train on, validation split off
    n_val: int
    n_classes: int
    channels: int
    own_size: int  # pixels: the side at which nothing is lost
    size: int  # ... at which they were looked at: the most that minutes may have room for
    flips: bool | None  # whether flips fit; None: it was not looked into
    flips_because: str  # in words
    seed: int = 0  # of the split, and of the study
    n_splits: int = 1  # trainings side by side
    root: str | None = None  # as `DataSpec.root`, `.labels`, and `.n_train`
    labels: str | None = None
    most_train: int | None = None
    family: str | None = None  # a residual one, of networks that trainings start from; None: as the size suggests


@dataclass(frozen=True)
class Choice:
    """A setting with its reason."""

    setting: str
    value: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """A study for a data set, a device, and minutes on it."""

    name: str
    minutes: float
    images: Images
    family: str
    size: int
    epochs: tuple[int, int]
    batch_size: tuple[int, int]
    width: tuple[float, float]
    depth: tuple[int, int]
    first_seconds: tuple[float, float]  # device seconds of the first rung: least, most
    trial_seconds: tuple[float, float]  # ... of a trial of the search
    longest_seconds: float  # ... of the longest run that the minutes have room for
    n_trials: tuple[int, int]  # least, most
    memory: tuple[int, int]  # bytes of a step, of the smallest and of the largest batch with the widest network
    disk: int  # bytes of networks that are kept
    choices: tuple[Choice, ...]
    start: str | None = None  # that pipelines may begin from, as `[network]` says it

    def to_json(self) -> dict[str, object]:
        """This plan as plain JSON data."""
        return asdict(self)

    def lines(self) -> list[str]:
        """This plan in words."""
        first, trial, n = self.first_seconds, self.trial_seconds, self.n_trials
        needed = BEFORE_TRAINING + OVERHEAD * self.images.n_splits * first[0]
        is_short = 60 * self.minutes < needed
        return [
            f"a plan for {counted(self.minutes, 'minute')}:",
            *(f"  {choice.setting:8}{choice.reason}" for choice in self.choices),
            f"  expected: a first network after {first[0]:.2g} to {first[1]:.2g} s, then trials of {trial[0]:.2g} to "
            f"{trial[1]:.2g} s, {n[0]} to {n[1]} of them, and a longest one of {self.longest_seconds:.2g} s",
            f"  a step takes {self.memory[0] / 1e6:.0f} to {self.memory[1] / 1e6:.0f} MB of memory, the networks up to "
            f"{self.disk / 1e6:.0f} MB of disk",
            *([f"warning: a first network takes about {needed:.2g} s, all told: these minutes are too few"] * is_short),
        ]

    def study_file(self) -> str:
        """The study as a file, to keep and to edit."""
        images, minutes = self.images, counted(self.minutes, "minute")
        asked = {"root": images.root, "labels": images.labels}
        data = [f"{key} = {_quoted(value)}" for key, value in asked.items() if value is not None]
        data += [] if images.most_train is None else [f"n_train = {images.most_train}"]
        data += [] if images.flips is not False else [f"flip = false  # {images.flips_because}"]
        lines = [
            f"# Made by `frontrunner plan` for {minutes}; edit it as you like before the study begins.",
            *(f"# {choice.setting}: {choice.reason}" for choice in self.choices),
            f"description = {json.dumps(minutes)}",
            "",
            "[data]",
            f"name = {_quoted(images.name)}",
            f"size = {self.size}",
            *data,
            "",
            "[network]",
            f'family = "{self.family}"',
            *([] if self.start is None else [f"start = {_quoted(self.start)}"]),
            "",
            "[space]",
            f"epochs = {list(self.epochs)}",
            f"batch_size = {list(self.batch_size)}",
            f"depth = {list(self.depth)}",
            f"width = {list(self.width)}",
            "",
            "[search]",
            *([f"seed = {images.seed}"] if images.seed else []),
            f"n_trials = {self.n_trials[1]}  # where it is run without --minutes",
            f"fastest = {self.first_seconds[0]:.3g}",
            f"slowest = {min(max(60 * self.minutes, 2.1 * self.first_seconds[0]), MOST_SECONDS):.4g}",
        ]
        return "\n".join(lines) + "\n"


def family_for(size: int) -> str:
    """The family for images of so many pixels a side."""
    return "small" if size <= SMALL else "fast"


def to_probe(size: int, family: str | None = None) -> list[Network]:
    """Networks whose steps say what the others take, the decisive one first; of a family, or as the size suggests."""
    family, narrow = family or family_for(size), WIDTHS["cpu"][0]
    smaller = [each for each in SIZES if SMALL < each < size]
    others = [Network(family, smaller[len(smaller) // 2], narrow, 1)] if smaller else []
    return [*(Network(family, size, narrow, stride) for stride in _strides(family)), *others]


def _strides(family: str) -> tuple[int, ...]:
    """Of stems to choose from: large images are halved twice anyway."""
    return (1,) if families.is_of_imagenet(family) else (1, 2)


def fewest_epochs(n_train: int) -> int:
    """Epochs after which a network is worth something."""
    return min(max(FEWEST, math.floor(FIRST_EPOCHS * math.sqrt(FIRST_IMAGES / n_train))), MOST // 4)


def affordable(size: int, n_train: int, seconds: float, costs: Costs, family: str | None = None) -> int:
    """Pixels a side at which a run on all of them takes a share of the seconds; at most `size`."""
    family, batch = family or family_for(size), min(2 * _batches(n_train)[0], _batches(n_train)[1])
    sizes = sorted({*(each for each in SIZES if SMALL < each < size), size})

    def took(each: int) -> float:
        epochs = min(max(2 * FEWEST, round(SHOWN / n_train)), MOST // 2)
        return costs.of_run(Network(family, each, WIDTHS["cpu"][0], 1), n_train, epochs, batch)

    return max((each for each in sizes if took(each) <= LONG_SHARE * seconds), default=sizes[0])


def chosen(name: str, minutes: float, images: Images, costs: Costs, device: str, start: Origin | None = None) -> Plan:
    """The plan for so many minutes on a device of that kind (cpu, cuda), perhaps with a network to start from."""
    seconds = 60 * minutes / (OVERHEAD * images.n_splits)  # of training, if nothing else were done
    family = images.family or family_for(images.size)
    deep, wide = (1, 1.0) if start is None else settings_of(start.architecture, family)
    least, most = min(WIDTHS[device][0], wide), max(WIDTHS[device][1], wide)
    fewest, batch = fewest_epochs(images.n_train), _batches(images.n_train)
    if start is not None:
        fewest = max(1, fewest // SOONER)
    step = min(2 * batch[0], batch[1])

    def run(size: int, width: float, stride: int, epochs: int) -> float:
        return costs.of_run(Network(family, size, width, stride), images.n_train, epochs, step)

    stride = _strides(family)[-1] if images.size >= 16 else 1
    size = affordable(images.size, images.n_train, seconds, costs, family)
    longest = FILL_SHARE * seconds
    epochs = min(max(4 * fewest, int(longest / run(size, least, stride, 1))), MOST)
    first = run(size, least, stride, fewest)
    shape = {"in_channels": images.channels, "n_classes": images.n_classes, "size": size}
    network = families.build(family, depth=1, width=most, **shape)
    given = Given(family, (costs.number_format,), (fewest, epochs), batch, (1, 1), (least, most), True, images.name)
    proposed = max(first, PROPOSED * math.sqrt(first * longest))
    n = _forecast_trials(_known(given, size, images.n_train, costs), first, proposed, seconds, minutes)
    return Plan(
        name,
        minutes,
        images,
        family,
        size,
        (fewest, epochs),
        batch,
        (least, most),
        (1, max(2 if seconds > 100 * first and not families.has_one_depth(family) else 1, deep)),
        (first * (1 - ERR), first * (1 + ERR)),
        (proposed * (1 - ERR), proposed * (1 + ERR)),
        longest,
        (min(max(1, round(n * (1 - ERR))), MOST_TRIALS), min(max(2, round(n * (1 + ERR))), MOST_TRIALS)),
        (step_memory(network, size, batch[0]), step_memory(network, size, batch[1])),
        KEPT * 4 * sum(layer.kernel**2 * layer.n_in * layer.n_out for layer in network.layers(size)),
        _reasons(images, costs, family, size, (fewest, epochs), batch, (least, most), first, device, start),
        None if start is None else start.source,
    )


def _known(given: Given, size: int, n_train: int, costs: Costs) -> list[float]:
    """Device seconds of the known pipelines that a study tries first."""

    def seconds(parameters: Parameters) -> float:
        stride = 2 if parameters.get("stride") else 1
        width = min(max(float(parameters.get("width", 1.0)), given.width[0]), given.width[1])
        batch = min(max(2 ** int(parameters["batch.log2_size"]), given.batch_size[0]), given.batch_size[1])
        network = Network(given.family, size, width, stride)
        return costs.of_run(network, n_train, int(parameters["epochs"]), batch)

    return [seconds(rung.within(given)) for rung in ladder(given).values()]


def _forecast_trials(known: list[float], first: float, proposed: float, seconds: float, minutes: float) -> int:
    """How many trials there will be before the longest run: known pipelines that may run, then what is proposed."""
    begun = [took for took in known if took <= ANCHOR_SHARE * seconds] or known[:1]
    searching = (SEARCH_SHARE - BEFORE_TRAINING / (60 * minutes)) * seconds - sum(begun)
    if searching < LEAST_PROPOSED * first:
        return len(begun)
    return len(begun) + math.ceil(searching / proposed)


def _quoted(text: str) -> str:
    """A string of TOML: one of JSON, but for the one control character that JSON lets stand as it is."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _batches(n_train: int) -> tuple[int, int]:
    """The smallest and the largest batch: an epoch of the smaller ones has some sixty steps, where images suffice."""
    middle = min(max(32, 2 ** round(math.log2(max(n_train, 2) / 60))), 256)
    largest = 2 ** int(math.log2(max(2, n_train)))
    return min(max(4, middle // 2), largest), min(middle * 2, largest)


def _reasons(
    images: Images,
    costs: Costs,
    family: str,
    size: int,
    epochs: tuple[int, int],
    batch: tuple[int, int],
    width: tuple[float, float],
    first: float,
    device: str,
    start: Origin | None,
) -> tuple[Choice, ...]:
    stages = len(FAMILIES[family].widths)
    own = images.own_size
    full = "the images' own" if size == own else f"of {own} that they have: more would take too long"
    why = "that of the start" if start is not None else FAMILY_REASONS.get(family, "as was asked")
    return (
        Choice("size", f"{size} pixels", f"{size} pixels, {full}"),
        Choice("family", family, f"{family}, {stages} stages, {why}"),
        *([] if start is None else [Choice("start", start.source, f"{start.words}, or from scratch: {start.cost}")]),
        Choice("stem", *STEMS[len(_strides(family))]),
        Choice(
            "epochs",
            f"{epochs[0]} to {epochs[1]}",
            f"{epochs[0]} show {epochs[0] * images.n_train} images, which "
            f"takes {first:.2g} s at the narrowest; {epochs[1]} are what the longest run has room for",
        ),
        Choice(
            "batch",
            f"{batch[0]} to {batch[1]}",
            f"{images.n_train} images are {images.n_train // batch[0]} to "
            f"{max(1, images.n_train // batch[1])} steps an epoch",
        ),
        Choice(
            "width",
            f"x{width[0]:g} to x{width[1]:g}",
            f"from x{width[0]:g}, which shows the images most often, to x{width[1]:g}",
        ),
        Choice("format", costs.number_format, f"{costs.number_format} has the fastest steps on this {device}"),
        Choice("flips", {True: "yes", False: "no", None: "as the data say"}[images.flips], images.flips_because),
    )
