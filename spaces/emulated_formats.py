"""Number formats, also those that no unit of the device has: for studies of kind `modelled`.

What a training would learn in each is found by emulating it, what it would take by a formula: no seconds of a clock.
All else is BASELINE's but for what decides how long a run is.
"""

from __future__ import annotations

from dataclasses import replace
from math import log2
from typing import cast

from objectives.pipeline import LR_REFERENCE_BATCH, NumberFormatName, Pipeline, ScheduleName
from objectives.strategies.base import Strategy
from objectives.strategies.block_floating_point import BlockFloatingPoint
from objectives.strategies.dynamic_fixed_point import DynamicFixedPoint
from objectives.strategies.fixed_point import FixedPoint
from objectives.strategies.float8 import Float8, FormatName
from objectives.strategies.methods.names import RoundingName
from objectives.strategies.swa import Swa
from objectives.strategies.switch_format import SwitchFormat
from spaces.base import BASELINE, Given, Parameters, Trial, baseline

EMULATED = ("dfp", "fixed", "block", "fp8")
AVERAGE = Swa(start=0.5, lr=0.2)  # of SWALP


def sample(trial: Trial, given: Given) -> Pipeline:
    """A run in one number format, up to its end or to where it goes over to fp32."""
    name = str(trial.suggest_categorical("format", (*given.number_formats, *EMULATED)))
    batch_size = 2 ** trial.suggest_int(
        "batch.log2_size", round(log2(given.batch_size[0])), round(log2(given.batch_size[1]))
    )
    rate = trial.suggest_float("lr", 0.2 * given.rate, 6.4 * given.rate, log=True)
    epochs = trial.suggest_int("epochs", *given.epochs, log=True)
    return replace(
        baseline(given),
        number_format=cast("NumberFormatName", "fp32" if name in EMULATED else name),
        batch_size=batch_size,
        lr=Pipeline(batch_size=batch_size, lr=rate, lr_rule="linear").peak_lr,
        epochs=epochs,
        schedule=cast("ScheduleName", trial.suggest_categorical("schedule", ("one_cycle", "step"))),
        depth=trial.suggest_int("depth", *given.depth),
        width=trial.suggest_float("width", *given.width, step=0.25),
        strategies=_strategies(trial, name, epochs),
    )


def _strategies(trial: Trial, name: str, epochs: int) -> tuple[Strategy, ...]:
    """The format as a strategy, if it is emulated, and what follows it."""
    found: tuple[Strategy, ...] = () if name not in EMULATED else (_emulated(trial, name),)
    if name == "fp32" or epochs == 1:
        return found
    if name == "block" and trial.suggest_categorical("block.average", (False, True)):
        return (*found, AVERAGE)
    if trial.suggest_categorical("switch", (False, True)):
        found += (SwitchFormat(at=trial.suggest_float("switch.at", 0.25, 0.9)),)
    return found


def _emulated(trial: Trial, name: str) -> Strategy:
    match name:
        case "dfp":
            return DynamicFixedPoint(bits=int(trial.suggest_categorical("dfp.bits", (16, 12, 8, 6))))
        case "fixed":
            return FixedPoint(
                bits=int(trial.suggest_categorical("fixed.bits", (16, 12, 8))),
                integer_bits=trial.suggest_int("fixed.integer_bits", 2, 6),
                rounding=cast("RoundingName", trial.suggest_categorical("fixed.rounding", ("stochastic", "nearest"))),
            )
        case "block":
            return BlockFloatingPoint(bits=int(trial.suggest_categorical("block.bits", (8, 6, 4))))
        case _:
            return Float8(errors=cast("FormatName", trial.suggest_categorical("fp8.errors", ("e5m2", "e4m3"))))


def anchors(given: Given) -> dict[str, Parameters]:
    """BASELINE in every format as published, in 6 bits that go over to fp32, and SWALP."""
    plain = baseline(given)
    reference: Parameters = {
        "format": "fp32",
        "batch.log2_size": round(log2(min(max(plain.batch_size, given.batch_size[0]), given.batch_size[1]))),
        "lr": plain.peak_lr * LR_REFERENCE_BATCH / plain.batch_size,
        "epochs": plain.epochs,
        "schedule": plain.schedule,
        "depth": plain.depth,
        "width": min(max(plain.width, given.width[0]), given.width[1]),
    }
    stays: Parameters = {"switch": False} if plain.epochs > 1 else {}
    known = {BASELINE: reference}
    known |= {
        f"BASELINE in {name}": reference | {"format": name} | stays for name in given.number_formats if name != "fp32"
    }
    fixed: Parameters = {"format": "fixed", "fixed.bits": 16, "fixed.integer_bits": 4}
    known["BASELINE in DFP16"] = reference | {"format": "dfp", "dfp.bits": 16} | stays
    for rounding in ("stochastic", "nearest"):
        known[f"BASELINE in fixed point, {rounding}"] = reference | fixed | {"fixed.rounding": rounding} | stays
    known["BASELINE in fp8"] = reference | {"format": "fp8", "fp8.errors": "e5m2"} | stays
    block: Parameters = reference | {"format": "block", "block.bits": 8}
    if plain.epochs == 1:
        return known | {"BASELINE in 8-bit blocks": block}
    known["BASELINE in 8-bit blocks"] = block | {"block.average": False} | stays
    known["SWALP"] = block | {"block.average": True}
    switching: Parameters = {"block.bits": 6, "block.average": False, "switch": True, "switch.at": 0.5}
    return known | {"6-bit blocks, then fp32": block | switching}
