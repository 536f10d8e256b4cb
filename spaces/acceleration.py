"""The default space of acceleration pipelines on one page. Conditions are `if`s; dotted names are groups.

The space `everything` asks the same page for all that `LEFT` settles here, and for all ingredients.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache, partial
from math import log2
from typing import cast

from objectives.feasibility import ENOUGH_FOR_NORMS, reshapes
from objectives.networks.plain import sections
from objectives.pipeline import (
    LR_REFERENCE_BATCH,
    MAX_LR,
    ExecutorName,
    LrRule,
    NumberFormatName,
    Pipeline,
    ScheduleName,
    peak_lr,
)
from objectives.starts.likeness import settings_of
from objectives.strategies.base import Strategy
from objectives.strategies.transfer import Transfer
from spaces.base import BASELINE, Given, Least, Narrowed, Parameters, Trial, Value, baseline, obstacle
from spaces.fine_tuning import FINE_TUNING
from spaces.ingredients import EVERYTHING, can_act
from spaces.ladders import ladder
from spaces.run import Ingredients, outlined

# What the default space leaves of what the space `everything` asks: the range between, or one value, which is no
# parameter at all. A trial had up to 41, of which a study of 30 to 60 trials can learn few.
LEFT: dict[str, tuple[Value, ...]] = {
    # From BASELINE's to where batches of 16 to 128 had their best on digits, and once as much.
    "lr": (0.2, 6.4),
    # The rule under which a rate means the same at every batch: at equal rates the best and the worst of batches of 16
    # to 128 are 1.3 points apart under it, 2.3 under `sqrt`, 3.2 under `none` (digits, benchmarks/ingredients.md). It
    # is exact in binary, so that BASELINE stays 0.1 at 128.
    "batch.lr_rule": ("linear",),
    "batch.ghost": (0,),  # for batches far larger than those that a study of minutes trains with
    "momentum": (0.9,),  # every published recipe for these networks; another one is another rate
    "weight_decay": (5e-4,),  # likewise (He et al. 2016, Page 2018)
    "schedule": ("one_cycle",),  # what all fast recipes use (Smith 2018, Page 2018, Jordan 2024); `step` is BASELINE's
    "label_smoothing": (0.1,),  # +0.3 and +0.7 points on Fashion-MNIST, nothing on digits
    "augment.flip": (True,),  # where it keeps the label; the study says whether
    "augment.alternating_flip": (False,),  # -0.2 and +0.25 points
    "augment.cutout": (0.0,),  # -0.8 and -0.3 points
    "identity.share": (1.0,),  # as published
    "whiten.frozen": (1.0,),  # as published; saves the gradient of the stem
    "grow.steps": (1,),
    "grow.rewarm": (False,),
    "grow.start_depth": (1.0,),  # width alone lost 0.3 points, width and depth 0.5 (benchmarks/shapes.md)
    "prune.interval": (2,),
    "prune.round_to": (1,),  # 8 kept 77 % of the FLOPs where 1 kept 55 %, at equal accuracy
    "prune.adapt_batch": (False,),
    "resolution.steps": (2,),
    "frozen.thaws": (False,),  # what a few epochs have no room for
    "frozen.adapted": (False,),  # as published for linear probes; adapted ones are another pass over the images
    "freeze.start": (0.5,),  # earlier ones lost 9 points on noisy digits in the mean (benchmarks/search.md)
    "balance.share": (0.5,),  # +3.0 and +0.2 points of balanced accuracy, all the way +2.1 and -0.1
}
# Of the learning rate where a trained network may be begun from: a tenth of BASELINE's, that of all who fine-tune.
LEAST_RATE = 0.02
STARTING = ("start", *FINE_TUNING)  # what is asked only where there is a trained network to begin from
TUNING_RATE = 0.1  # of known pipelines that go on from a trained network
# benchmarks/ingredients.md; balance only where classes are uneven
DEFAULT = (
    *("start", "haar", "stride", "grow", "identity", "whiten", "prune"),
    *("frozen", "probe", "rates", "freeze", "resolution", "balance"),
)
INGREDIENTS: Ingredients = {switch: EVERYTHING[switch] for switch in DEFAULT}

Chosen = tuple[Strategy, ...]


def sample(trial: Trial, given: Given) -> Pipeline:
    """A pipeline with at most one instance of each strategy that paid somewhere, and of the two core ones.

    Each has at most two knobs.
    """
    return pipeline(Narrowed(trial, left(given)), given, INGREDIENTS)


def left(given: Given) -> dict[str, tuple[Value, ...]]:
    """What is left of what the space `everything` asks; see `LEFT`."""
    # `auto` measures for itself what a choice between it and another one would ask
    narrowest, most = LEFT["lr"]
    least = float(narrowest) if given.start is None else LEAST_RATE
    rates = {"lr": (least * given.rate, float(most) * given.rate)}
    return {**LEFT, **rates} if given.executors else {**LEFT, **rates, "executor": ("auto",)}


def pipeline(trial: Trial, given: Given, ingredients: Ingredients, most: int | None = None) -> Pipeline:
    """A pipeline: settings, then the strategies that the ingredients choose, in the order in which they apply.

    At most `most` of them, or as many as go together. Nothing is asked that has no effect in the run at hand.
    """
    batch_size = 2 ** trial.suggest_int("batch.log2_size", *_log2(given.batch_size))
    depth = trial.suggest_int("depth", *given.depth)
    width = trial.suggest_float("width", *given.width, step=0.25)
    epochs = trial.suggest_int("epochs", *given.epochs, log=True)
    rule = cast("LrRule", trial.suggest_categorical("batch.lr_rule", ("none", "sqrt", "linear")))
    # a pipeline says the rate that it trains at, whatever rule led to it
    lr = min(peak_lr(trial.suggest_float("lr", 0.02, 6.4, log=True), batch_size, rule), MAX_LR)
    momentum = trial.suggest_float("momentum", 0.8, 0.98)
    number_format = cast("NumberFormatName", trial.suggest_categorical("number_format", given.number_formats))
    shape = {"batch_size": batch_size, "lr": lr, "momentum": momentum, "epochs": epochs, "depth": depth, "width": width}
    plain = Pipeline(number_format=number_format, **shape)
    can_train = partial(_can_train, given, number_format, batch_size, depth, width)
    run, is_possible = outlined(given, plain), can_train(())
    # two images are enough for every norm: then only a trained network may be in the way
    is_tight = given.start is not None or min(batch_size, given.n_train) < ENOUGH_FOR_NORMS
    strategies: Chosen = ()
    reshaping: Chosen = ()
    for switch, (kind, chosen) in ingredients.items():
        refused = len(strategies) == most
        refused |= switch in FINE_TUNING and not any(isinstance(s, Transfer) for s in strategies)
        refused |= any(isinstance(s, kind.excludes) or issubclass(kind, s.excludes) for s in strategies)
        offered, has_say = can_act(switch, run), is_tight and reshapes(kind)
        if not refused and offered:  # nor what images so small, in batches so small, cannot be trained with
            offered = can_train((*reshaping, chosen(Least(), given, run))) if has_say else is_possible
        if not refused and offered and trial.suggest_categorical(switch, (False, True)):
            strategies += (chosen(trial, given, run),)
            if has_say:
                reshaping += (strategies[-1],)
                is_possible = can_train(reshaping)
    flip = given.flip and bool(trial.suggest_categorical("augment.flip", (True, False)))
    alternates = flip and epochs > 1
    return replace(
        plain,
        ghost_batch=ghost_batch(trial, batch_size),
        weight_decay=trial.suggest_float("weight_decay", 1e-5, 5e-3, log=True),
        schedule=cast("ScheduleName", trial.suggest_categorical("schedule", ("one_cycle", "cosine", "step"))),
        label_smoothing=trial.suggest_float("label_smoothing", 0.0, 0.2),
        crop=given.crops and bool(trial.suggest_categorical("augment.crop", (True, False))),
        flip=flip,
        alternating_flip=alternates and bool(trial.suggest_categorical("augment.alternating_flip", (False, True))),
        cutout=float(trial.suggest_categorical("augment.cutout", (0.0, 0.25, 0.5))) if given.are_images else 0.0,
        executor=cast("ExecutorName", trial.suggest_categorical("executor", given.executors or ("auto", "eager"))),
        strategies=strategies,
    )


@lru_cache(maxsize=4096)  # a question draws hundreds of pipelines, most of which ask the same of the same network
def _can_train(
    given: Given, number_format: NumberFormatName, batch_size: int, depth: int, width: float, reshaping: Chosen
) -> bool:
    """Whether the images of a study can be trained on by such a run; `reshaping`: its strategies that have a say."""
    run = Pipeline(number_format=number_format, batch_size=batch_size, depth=depth, width=width, strategies=reshaping)
    return obstacle(run, given) is None


def anchors(given: Given) -> dict[str, Parameters]:
    """Known pipelines, BASELINE foremost."""
    return known(given, INGREDIENTS)


def known(given: Given, ingredients: Ingredients) -> dict[str, Parameters]:
    """BASELINE and its twin in bf16, a long one-cycle run, that pruned and grown, one with progressive resolution, and
    the rungs of the data set's ladder. All but BASELINE take the nearest batch and width that the study allows.
    """
    reference = _as_parameters(baseline(given), ingredients)
    bf16: Parameters = {"number_format": "bf16"} if "bf16" in given.number_formats else {}
    common = reference | {name: left[0] for name, left in LEFT.items()} | bf16
    common |= {"augment.flip": given.flip, "augment.crop": False, "executor": (given.executors or ("auto",))[0]}
    # The three long ones take 15 of the demo's 55 device seconds. Without long runs among its anchors the best accuracy
    # of a study was 3.6 points lower (noisy digits, 30 s each).
    long = _nearest(common | {"batch.log2_size": 6, "lr": 1.6 * given.rate, "epochs": given.epochs[1]}, given)
    run = outlined(given, _plain(long))
    found = {"BASELINE in bf16": reference | bf16} if bf16 else {}
    if can_act("resolution", run):
        shown = {"resolution": True, "resolution.start": 0.5, "resolution.until": 0.5}
        found["progressive resolution"] = long | shown | {"epochs": reference["epochs"]}
    found["long one-cycle"] = long
    if can_act("prune", run):
        found["PruneTrain"] = long | {"prune": True, "prune.share": min(0.2, run.prunable)}
    if can_act("grow", run):
        found["Net2Net"] = long | {"grow": True, "grow.start": 0.5, "grow.at": 0.3}
    found |= _begun(common, given)
    found |= {name: common | _at_rate(rung.within(given), given) for name, rung in ladder(given).items()}
    every = {BASELINE: reference} | {name: _nearest(parameters, given) for name, parameters in found.items()}
    return {name: _asked(parameters, given) for name, parameters in every.items()}


def _asked(parameters: Parameters, given: Given) -> Parameters:
    """The parameters without those of a start, where there is none."""
    if given.start is not None:
        return parameters
    return {name: value for name, value in parameters.items() if name.partition(".")[0] not in STARTING}


def _begun(common: Parameters, given: Given) -> dict[str, Parameters]:
    """Known ways to go on from a trained network as it is, where there is one: a probe of it, all of it, one by one."""
    if given.start is None:
        return {}
    depth, width = settings_of(given.start.architecture, given.family)
    shape = {"depth": min(max(depth, given.depth[0]), given.depth[1]), "width": width}
    fewest, most = given.epochs
    tuned = common | shape | {"start": True, "lr": TUNING_RATE * given.rate, "epochs": round((fewest * most) ** 0.5)}
    n_parts = len(sections(given.start.architecture))
    frozen: Parameters = {"frozen": True, "frozen.parts": n_parts} if n_parts else {}
    return {
        "start, a probe of it": tuned | frozen | {"probe": True, "epochs": fewest},
        "start, all of it": tuned,
        "start, a probe, then all of it": tuned | {"probe": True},
    }


def _at_rate(parameters: Parameters, given: Given) -> Parameters:
    """The parameters with a learning rate for the family."""
    return parameters | {"lr": float(parameters["lr"]) * given.rate} if "lr" in parameters else parameters


def _plain(parameters: Parameters) -> Pipeline:
    """What parameters say of a pipeline that `outlined` reads."""
    return Pipeline(
        batch_size=2 ** int(parameters["batch.log2_size"]),
        lr=float(parameters["lr"]),
        lr_rule=cast("LrRule", parameters["batch.lr_rule"]),
        epochs=int(parameters["epochs"]),
        depth=int(parameters["depth"]),
        width=float(parameters["width"]),
    )


def _nearest(parameters: Parameters, given: Given) -> Parameters:
    """The parameters with the nearest batch and width that the study allows.

    A batch of 128 on a machine that has room for 32 would only run out of memory.
    """
    (least, most), (narrowest, widest) = _log2(given.batch_size), given.width
    n_steps = min(max(round((float(parameters["width"]) - narrowest) / 0.25), 0), int((widest - narrowest) / 0.25))
    log2_size = min(max(int(parameters["batch.log2_size"]), least), most)
    return parameters | {"batch.log2_size": log2_size, "width": narrowest + 0.25 * n_steps}


def _as_parameters(reference: Pipeline, ingredients: Ingredients) -> Parameters:
    """A pipeline without strategies as parameters of these spaces, every ingredient switched off."""
    parameters: Parameters = {
        "number_format": reference.number_format,
        "batch.log2_size": round(log2(reference.batch_size)),
        "batch.lr_rule": "linear",
        "batch.ghost": reference.ghost_batch,
        "lr": reference.peak_lr * LR_REFERENCE_BATCH / reference.batch_size,
        "momentum": reference.momentum,
        "weight_decay": reference.weight_decay,
        "epochs": reference.epochs,
        "schedule": reference.schedule,
        "label_smoothing": reference.label_smoothing,
        "augment.crop": reference.crop,
        "augment.flip": reference.flip,
        "augment.alternating_flip": reference.alternating_flip,
        "augment.cutout": reference.cutout,
        "depth": reference.depth,
        "width": reference.width,
        "executor": reference.executor,
    }
    return parameters | dict.fromkeys(ingredients, False)


def ghost_batch(trial: Trial, batch_size: int) -> int:
    """Samples per ghost batch; asked only where a batch holds several."""
    if batch_size < 128:
        return 0
    return int(trial.suggest_categorical("batch.ghost", (0, 32, 64)))


def _log2(bounds: tuple[int, int]) -> tuple[int, int]:
    return round(log2(bounds[0])), round(log2(bounds[1]))
