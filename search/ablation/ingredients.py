"""What makes a pipeline another one than BASELINE, and what it is without each of that. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from objectives.pipeline import Pipeline
from objectives.strategies.base import Strategy
from objectives.strategies.transfer import Transfer
from spaces.base import BASELINE, Given, obstacle
from spaces.fine_tuning import FINE_TUNING
from spaces.ingredients import EVERYTHING
from spaces.run import outlined

WHOLE = ""  # the key of a pipeline that nothing is taken from
# Settings that are switched off together, to what BASELINE has. A rate belongs to its batch: each alone would train at
# a rate that nobody means.
SETTINGS: Mapping[str, tuple[str, ...]] = {
    "number_format": ("number_format",),
    "batch": ("batch_size", "ghost_batch", "lr", "lr_rule"),
    "epochs": ("epochs",),
    "schedule": ("schedule",),
    "momentum": ("momentum",),
    "weight_decay": ("weight_decay",),
    "label_smoothing": ("label_smoothing",),
    "augmentation": ("crop", "flip", "alternating_flip", "cutout"),
    "depth": ("depth",),
    "width": ("width",),
    "executor": ("executor",),
}
SWITCHES = {strategy.__name__: switch for switch, (strategy, _) in EVERYTHING.items()}
CHANGED_EXECUTOR = "set up in"  # what a trial says where `auto` left eager steps


@dataclass(frozen=True)
class Variant:
    """A pipeline of an ablation."""

    key: str  # of what is switched off: a group of SETTINGS, a strategy's switch; WHOLE: nothing, BASELINE: everything
    pipeline: Pipeline


@dataclass(frozen=True)
class Apart:
    """A pipeline that is taken apart."""

    variants: tuple[Variant, ...]  # the whole one first; with all that differs switched off at once last
    left_out: Mapping[str, str]  # key of what cannot be switched off: why, in words

    @property
    def n_ingredients(self) -> int:
        """What is switched off by itself."""
        return sum(variant.key not in (WHOLE, BASELINE) for variant in self.variants)


def taken_apart(whole: Pipeline, baseline: Pipeline, given: Given, happened: str = "") -> Apart:
    """A pipeline, what it is with each ingredient switched off, and `baseline`, which has none of them.

    Left out is what the images, or other strategies, do not allow, and what is known to do nothing. `happened`: what
    the pipeline's own run told.
    """
    found, left_out = [Variant(WHOLE, whole)], dict[str, str]()
    for key in _differing(whole, baseline):
        if key == "executor" and whole.executor == "auto" and CHANGED_EXECUTOR not in happened:
            left_out[key] = "auto ran all its steps as eager ones"
            continue
        _add(found, left_out, key, partial(_with_settings, whole, baseline, key), given)
    run = outlined(given, whole)
    for strategy in whole.strategies:
        if (idle := strategy.idle(replace(run, epochs=whole.n_epochs(given.n_train)))) is not None:
            left_out[switch(strategy)] = f"it does nothing in this run: {idle}"
            continue
        gone = {strategy, *(each for each in whole.strategies if isinstance(strategy, Transfer) and _tunes(each))}
        rest = tuple(each for each in whole.strategies if each not in gone)
        _add(found, left_out, switch(strategy), partial(replace, whole, strategies=rest), given)
    if len(found) + len(left_out) > 2:  # else it is the only variant over again
        _add(found, left_out, BASELINE, lambda: baseline, given)
    return Apart(tuple(found), left_out)


def switch(strategy: Strategy) -> str:
    """What a strategy is called in the spaces."""
    name = type(strategy).__name__
    return SWITCHES.get(name, name)


def _tunes(strategy: Strategy) -> bool:
    """Whether spaces offer it to pipelines only that begin from a trained network."""
    return switch(strategy) in FINE_TUNING


def said(key: str, pipeline: Pipeline) -> str:
    """An ingredient as a pipeline has it, in words."""
    match key:
        case "batch":
            ghost = f" ghost {pipeline.ghost_batch}" if pipeline.ghost_batch else ""
            return f"batch {pipeline.batch_size}{ghost}, lr {pipeline.peak_lr:.4g}"
        case "augmentation":
            flip = "alternating flip" if pipeline.alternating_flip else "flip"
            cutout = [f"cutout {pipeline.cutout:.0%}"] * (pipeline.cutout > 0)
            return " ".join(["crop"] * pipeline.crop + [flip] * pipeline.flip + cutout) or "no augmentation"
        case "epochs":
            return f"{pipeline.epochs} epochs"
        case "schedule" | "executor":
            return str(getattr(pipeline, key)).replace("_", "-")
        case "width":
            return f"width x{pipeline.width:g}"
        case "label_smoothing":
            return f"smoothing {pipeline.label_smoothing:.3g}"
        case "momentum" | "weight_decay" | "depth":
            return f"{key.replace('_', ' ')} {getattr(pipeline, key):.4g}"
        case "number_format":
            return pipeline.number_format
        case _:
            return next((each.describe() for each in pipeline.strategies if switch(each) == key), "none")


def _add(found: list[Variant], left_out: dict[str, str], key: str, make: Callable[[], Pipeline], given: Given) -> None:
    """Adds a variant, or why there is none."""
    try:
        made = make()
        why = obstacle(made, given)
    except ValueError as error:
        why = str(error)
    if why is not None:
        left_out[key] = why
    elif all(made != variant.pipeline for variant in found):
        found.append(Variant(key, made))


def _differing(whole: Pipeline, baseline: Pipeline) -> list[str]:
    """Groups of settings that differ. A rate is the one that is trained at, whatever rule led to it."""

    def of(pipeline: Pipeline, names: tuple[str, ...]) -> list[object]:
        plain = replace(pipeline, lr=float(f"{pipeline.peak_lr:.9g}"), lr_rule="none")
        return [getattr(plain, name) for name in names]

    return [key for key, names in SETTINGS.items() if of(whole, names) != of(baseline, names)]


def _with_settings(whole: Pipeline, baseline: Pipeline, key: str) -> Pipeline:
    return replace(whole, **{name: getattr(baseline, name) for name in SETTINGS[key]})
