"""The space of acceleration pipelines on one page. Conditions are `if`s; dotted names are groups.

`INGREDIENTS` are those of the default space; the space `everything` offers all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import log, log2, sqrt
from typing import cast

from objectives.networks.architecture import WIDTH_STEP, build
from objectives.pipeline import ExecutorName, LrRule, NumberFormatName, Pipeline, ScheduleName
from objectives.strategies.base import Outline, Strategy
from objectives.strategies.bias_learning_rate import BiasLearningRate
from objectives.strategies.data_fraction import DataFraction
from objectives.strategies.ema import Ema
from objectives.strategies.freeze import Freeze
from objectives.strategies.haar_stem import HaarStem
from objectives.strategies.identity_init import IdentityInit
from objectives.strategies.lookahead import Lookahead
from objectives.strategies.muon import Muon
from objectives.strategies.net2net import Net2Net
from objectives.strategies.plateau import Plateau
from objectives.strategies.progressive_resolution import SIZE_STEP, ProgressiveResolution
from objectives.strategies.prune_train import LEAST_KAPPA, PruneTrain
from objectives.strategies.swa import Swa
from objectives.strategies.whitening import Whitening
from spaces.base import BASELINE, Given, Least, Parameters, Trial, baseline, obstacle
from spaces.ladders import LADDERS

MOST_LPR = 0.6  # 0.5 over 10 epochs cost 1.5 points of accuracy (Fashion-MNIST)

Chosen = Callable[[Trial, Given, Outline], Strategy]
Ingredients = Mapping[str, tuple[type[Strategy], Chosen]]  # by the name of its switch


def sample(trial: Trial, given: Given) -> Pipeline:
    """A pipeline with at most one instance of each strategy that paid somewhere, and of the two core ones."""
    return pipeline(trial, given, INGREDIENTS)


def pipeline(trial: Trial, given: Given, ingredients: Ingredients) -> Pipeline:
    """A pipeline: settings, then the strategies that the ingredients choose, in the order in which they apply.

    Nothing is asked that has no effect in the run at hand.
    """
    batch_size = 2 ** trial.suggest_int("batch.log2_size", *_log2(given.batch_size))
    depth = trial.suggest_int("depth", *given.depth)
    width = trial.suggest_float("width", *given.width, step=0.25)
    epochs = trial.suggest_int("epochs", *given.epochs, log=True)
    lr = trial.suggest_float("lr", 0.02, 2.0, log=True)
    lr_rule = cast("LrRule", trial.suggest_categorical("batch.lr_rule", ("none", "sqrt", "linear")))
    momentum = trial.suggest_float("momentum", 0.8, 0.98)
    plain = Pipeline(batch_size=batch_size, lr=lr, lr_rule=lr_rule, momentum=momentum, epochs=epochs)
    outline = outlined(given, depth, width, epochs)
    strategies: tuple[Strategy, ...] = ()
    for switch, (kind, chosen) in ingredients.items():
        refused = any(isinstance(s, kind.excludes) or issubclass(kind, s.excludes) for s in strategies)
        offered = can_act(switch, outline) and (switch != "prune" or prunes(given, outline, plain))
        if not refused and offered:  # nor what images so small, in batches so small, cannot be trained with
            first = (*strategies, chosen(Least(), given, outline))
            offered = obstacle(Pipeline(batch_size=batch_size, depth=depth, strategies=first), given) is None
        if not refused and offered and trial.suggest_categorical(switch, (False, True)):
            strategies += (chosen(trial, given, outline),)
    flip = given.flip and bool(trial.suggest_categorical("augment.flip", (True, False)))
    alternates = flip and epochs > 1
    return Pipeline(
        number_format=cast("NumberFormatName", trial.suggest_categorical("number_format", given.number_formats)),
        batch_size=batch_size,
        lr=lr,
        lr_rule=lr_rule,
        ghost_batch=ghost_batch(trial, batch_size),
        momentum=momentum,
        weight_decay=trial.suggest_float("weight_decay", 1e-5, 5e-3, log=True),
        epochs=epochs,
        schedule=cast("ScheduleName", trial.suggest_categorical("schedule", ("one_cycle", "cosine", "step"))),
        label_smoothing=trial.suggest_float("label_smoothing", 0.0, 0.2),
        crop=given.crops and bool(trial.suggest_categorical("augment.crop", (True, False))),
        flip=flip,
        alternating_flip=alternates and bool(trial.suggest_categorical("augment.alternating_flip", (False, True))),
        cutout=float(trial.suggest_categorical("augment.cutout", (0.0, 0.25, 0.5))),
        depth=depth,
        width=width,
        executor=cast("ExecutorName", trial.suggest_categorical("executor", given.executors)),
        strategies=strategies,
    )


def outlined(given: Given, depth: int, width: float, epochs: int) -> Outline:
    """What is known of a run before its first step."""
    # neither channels nor classes play a part in what can act
    full = build(given.family, depth=depth, width=width, in_channels=3, n_classes=2)
    return Outline(full, given.size, epochs)


def can_act(switch: str, outline: Outline) -> bool:
    """Whether an ingredient has an effect in such a run. What acts between epochs needs two of them."""
    match switch:
        case "grow":
            return outline.epochs > 1 and (_widest(outline) > WIDTH_STEP or _deepest(outline) > 1)
        case "prune" | "freeze" | "plateau" | "swa":
            return outline.epochs > 1
        case "resolution":
            return outline.epochs > 1 and outline.size > SIZE_STEP
        case _:
            return True


def prunes(given: Given, outline: Outline, plain: Pipeline) -> bool:
    """Whether the strongest penalty of this space shrinks norms in such a run by as much as it takes to prune.

    By expectation, as `PruneTrain` forecasts it from the weights: He-normal filters, a loss of ln 10, half the peak
    rate on average.
    """
    total, inputs = 0.0, 0
    for stage in outline.full.stages:
        for interior in stage.interiors:
            pairs = [(inputs or stage.width, interior), (interior, stage.width)] if interior else []
            pairs += [(inputs, stage.width)] if inputs not in (0, stage.width) else []
            total += sum(n_out * sqrt(2 * n_in / n_out) + n_in * sqrt(2) for n_in, n_out in pairs)
            inputs = stage.width
        inputs = stage.width
    strength = MOST_LPR / (1 - MOST_LPR) * log(10) / max(total, 1.0)
    n_steps = (outline.epochs - 1) * max(1, given.n_train // plain.batch_size)
    return strength * plain.peak_lr * n_steps / (1 - plain.momentum) > LEAST_KAPPA * sqrt(2)


def anchors(given: Given) -> dict[str, Parameters]:
    """Known pipelines, BASELINE foremost."""
    return known(given, INGREDIENTS)


def known(given: Given, ingredients: Ingredients) -> dict[str, Parameters]:
    """BASELINE, its twins in bf16 and with progressive resolution, a long one-cycle run, that pruned and grown, and the
    rungs of the data set's ladder.
    """
    parameters = _baseline_parameters(given, ingredients)
    found = {BASELINE: parameters}
    if "bf16" in given.number_formats:
        found["BASELINE in bf16"] = parameters | {"number_format": "bf16"}
    found["progressive resolution"] = parameters | {
        "resolution": True,
        "resolution.start": 0.5,
        "resolution.until": 0.5,
        "resolution.steps": 2,
    }
    long = parameters | {
        "number_format": "bf16" if "bf16" in given.number_formats else "fp32",
        "batch.log2_size": 6,
        "lr": 0.4,
        "epochs": given.epochs[1],
        "schedule": "one_cycle",
        "label_smoothing": 0.1,
        "augment.crop": False,
    }
    found["long one-cycle"] = long
    found["PruneTrain"] = long | {
        "prune": True,
        "prune.kappa": 6.0,
        "prune.interval": 2,
        "prune.round_to": 8,
        "prune.adapt_batch": False,
    }
    found["Net2Net"] = long | {
        "grow": True,
        "grow.start_width": 0.5,
        "grow.start_depth": 1.0,
        "grow.at": 0.3,
        "grow.steps": 1,
        "grow.rewarm": False,
    }
    longest = outlined(given, baseline(given).depth, 1.0, given.epochs[1])
    for name, switch in {"progressive resolution": "resolution", "PruneTrain": "prune", "Net2Net": "grow"}.items():
        if not can_act(switch, longest) or (
            switch == "prune" and not prunes(given, longest, Pipeline(batch_size=64, lr=0.4))
        ):
            del found[name]
    return found | {name: parameters | rung.within(given) for name, rung in LADDERS.get(given.data, {}).items()}


def _baseline_parameters(given: Given, ingredients: Ingredients) -> Parameters:
    """BASELINE as parameters of this space, every ingredient switched off."""
    reference = baseline(given)
    parameters: Parameters = {
        "number_format": reference.number_format,
        "batch.log2_size": round(log2(reference.batch_size)),
        "batch.lr_rule": reference.lr_rule,
        "batch.ghost": reference.ghost_batch,
        "lr": reference.lr,
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


def net2net(trial: Trial, given: Given, outline: Outline) -> Strategy:
    """Starts narrow, and shallow where there are several blocks, and grows in one step or two."""
    at = trial.suggest_float("grow.at", 0.1, 0.6)
    steps = trial.suggest_int("grow.steps", 1, 2) if outline.epochs > 2 else 1
    rewarms = trial.suggest_categorical("grow.rewarm", (False, True))
    widest = _widest(outline)
    start = trial.suggest_float("grow.start_width", 0.25, 0.75) if widest > WIDTH_STEP else 1.0
    deepens = _deepest(outline) > 1
    return Net2Net(
        start_width=min(start, 1 - 5 / widest) if widest > WIDTH_STEP else 1.0,  # widths are rounded to multiples of 8
        # half the blocks where nothing else grows
        start_depth=trial.suggest_float("grow.start_depth", 0.3, 1.0 if widest > WIDTH_STEP else 0.5)
        if deepens
        else 1.0,
        at=at,
        until=at if steps == 1 else trial.suggest_float("grow.until", 0.6, 0.8),
        steps=steps,
        lr_after=trial.suggest_float("grow.lr_after", 0.1, 1.0) if rewarms else 0.0,
    )


def prune_train(trial: Trial, given: Given, outline: Outline) -> Strategy:
    """Channels that a group lasso kills are removed. Its strength follows epochs and rate, so that it prunes in all."""
    return PruneTrain(
        lpr=MOST_LPR,
        kappa=trial.suggest_float("prune.kappa", 3.0, 20.0, log=True),
        interval=trial.suggest_int("prune.interval", 1, 5),
        round_to=int(trial.suggest_categorical("prune.round_to", (1, 8))),
        adapt_batch=bool(trial.suggest_categorical("prune.adapt_batch", (False, True))),
    )


def progressive_resolution(trial: Trial, given: Given, outline: Outline) -> Strategy:
    """Smaller images in early epochs."""
    several = outline.size >= 3 * SIZE_STEP  # there is more than one size below the full one
    start = trial.suggest_float("resolution.start", 0.4, 0.9) if several else 0.5
    return ProgressiveResolution(
        start=min(start, (outline.size - SIZE_STEP) / outline.size),
        until=trial.suggest_float("resolution.until", 0.2, 0.8),
        steps=trial.suggest_int("resolution.steps", 1, 3) if several else 1,
    )


def data_fraction(trial: Trial, given: Given, outline: Outline) -> Strategy:
    """Fewer images in early epochs."""
    return DataFraction(
        start=trial.suggest_float("data.start", 0.2, 0.9),
        until=trial.suggest_float("data.until", 0.2, 1.0),
        steps=trial.suggest_int("data.steps", 1, 3),
    )


def haar_stem(trial: Trial, given: Given, outline: Outline) -> Strategy:
    """The image as wavelets of half its size."""
    return HaarStem()


def identity_init(trial: Trial, given: Given, outline: Outline) -> Strategy:
    """Convolutions that start as the identity."""
    return IdentityInit(share=trial.suggest_float("identity.share", 0.2, 1.0))


def whitening(trial: Trial, given: Given, outline: Outline) -> Strategy:
    """A stem that whitens patches."""
    return Whitening(frozen=float(trial.suggest_categorical("whiten.frozen", (0.0, 1.0))))


def muon(trial: Trial, given: Given, outline: Outline) -> Strategy:
    """Orthogonalised momentum for convolutions."""
    return Muon(
        lr=trial.suggest_float("muon.lr", 0.02, 1.0, log=True), momentum=trial.suggest_float("muon.momentum", 0.5, 0.95)
    )


def bias_learning_rate(trial: Trial, given: Given, outline: Outline) -> Strategy:
    """Biases that learn faster."""
    return BiasLearningRate(factor=trial.suggest_float("bias.factor", 2.0, 64.0, log=True))


def freeze(trial: Trial, given: Given, outline: Outline) -> Strategy:
    """Early stages that stop training first."""
    return Freeze(start=min(trial.suggest_float("freeze.start", 0.3, 0.9), _last_boundary(outline)))


def plateau(trial: Trial, given: Given, outline: Outline) -> Strategy:
    """An end where the loss stalls."""
    return Plateau(gain=trial.suggest_float("plateau.gain", 0.005, 0.2, log=True))


def ema(trial: Trial, given: Given, outline: Outline) -> Strategy:
    """Averaged weights."""
    return Ema(horizon=trial.suggest_float("ema.horizon", 0.1, 3.0, log=True))


def swa(trial: Trial, given: Given, outline: Outline) -> Strategy:
    """Weights averaged over the last epochs."""
    start = min(trial.suggest_float("swa.start", 0.5, 0.9), _last_boundary(outline))
    return Swa(start=start, lr=trial.suggest_float("swa.lr", 0.05, 0.5, log=True))


def lookahead(trial: Trial, given: Given, outline: Outline) -> Strategy:
    """Slow weights that fast ones return to."""
    return Lookahead(
        interval=trial.suggest_int("lookahead.interval", 3, 10), pull=trial.suggest_float("lookahead.pull", 0.3, 0.9)
    )


EVERYTHING: Ingredients = {
    "plateau": (Plateau, plateau),  # first: others look at where the run ends
    "haar": (HaarStem, haar_stem),
    "grow": (Net2Net, net2net),
    "identity": (IdentityInit, identity_init),
    "whiten": (Whitening, whitening),
    "prune": (PruneTrain, prune_train),
    "muon": (Muon, muon),
    "bias": (BiasLearningRate, bias_learning_rate),
    "freeze": (Freeze, freeze),
    "resolution": (ProgressiveResolution, progressive_resolution),
    "data": (DataFraction, data_fraction),
    "lookahead": (Lookahead, lookahead),
    "ema": (Ema, ema),
    "swa": (Swa, swa),
}
DEFAULT = ("haar", "grow", "identity", "whiten", "prune", "freeze", "resolution")  # benchmarks/ingredients.md
INGREDIENTS: Ingredients = {switch: EVERYTHING[switch] for switch in DEFAULT}


def _log2(bounds: tuple[int, int]) -> tuple[int, int]:
    return round(log2(bounds[0])), round(log2(bounds[1]))


def _widest(outline: Outline) -> int:
    """Channels of the widest layer."""
    return max(stage.width for stage in outline.full.stages)


def _deepest(outline: Outline) -> int:
    """Blocks of the longest stage."""
    return max(len(stage.interiors) for stage in outline.full.stages)


def _last_boundary(outline: Outline) -> float:
    """The share of the run after which its last epoch begins."""
    return (outline.epochs - 1) / outline.epochs
