"""What each ingredient brings: python -m benchmarks.ingredients [thin] [wide] [fast].

Every ingredient beside the same pipeline without it, accuracy and charged seconds, interleaved by seed. Prints
Markdown.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace

import torch

from benchmarks.shapes import CPU, comparison
from benchmarks.training import conditions
from objectives.data.dataset import load
from objectives.device.allocator import keep_freed_memory
from objectives.pipeline import Pipeline
from objectives.strategies.average_pooling import AveragePooling
from objectives.strategies.base import Strategy
from objectives.strategies.batch_growth import BatchGrowth
from objectives.strategies.bias_learning_rate import BiasLearningRate
from objectives.strategies.column_row_sampling import ColumnRowSampling
from objectives.strategies.data_fraction import DataFraction
from objectives.strategies.ema import Ema
from objectives.strategies.freeze import Freeze
from objectives.strategies.gradient_approximation import GradientApproximation
from objectives.strategies.gradient_clipping import GradientClipping
from objectives.strategies.haar_stem import HaarStem
from objectives.strategies.identity_init import IdentityInit
from objectives.strategies.inconsistent_sgd import InconsistentSGD
from objectives.strategies.lookahead import Lookahead
from objectives.strategies.muon import Muon
from objectives.strategies.plateau import Plateau
from objectives.strategies.progressive_resolution import ProgressiveResolution
from objectives.strategies.pruned_activation_gradients import PrunedActivationGradients
from objectives.strategies.regime_adaptation import RegimeAdaptation
from objectives.strategies.s3_pool import S3Pool
from objectives.strategies.standardization_loss import StandardizationLoss
from objectives.strategies.stochastic_pooling import StochasticPooling
from objectives.strategies.structure_and_strength import StructureAndStrength
from objectives.strategies.swa import Swa
from objectives.strategies.switch_format import SwitchFormat
from objectives.strategies.weight_norm import WeightNorm
from objectives.strategies.whitening import Whitening
from objectives.task import DataSpec, Task

PLAIN = Pipeline(batch_size=64, lr=0.2, epochs=6, schedule="one_cycle", label_smoothing=0.1, crop=False, flip=True)
NETWORKS = {
    "thin": PLAIN,
    "wide": replace(PLAIN, width=0.5, epochs=5),
    "fast": replace(PLAIN, width=0.25, epochs=5),
}

STRATEGIES: tuple[Strategy, ...] = (
    AveragePooling(),
    BatchGrowth(),
    BiasLearningRate(),
    ColumnRowSampling(),
    DataFraction(),
    Ema(),
    Freeze(),
    GradientApproximation(),
    GradientClipping(),
    HaarStem(),
    IdentityInit(),
    InconsistentSGD(),
    Lookahead(),
    Muon(),
    Plateau(),
    ProgressiveResolution(),
    StandardizationLoss(),
    S3Pool(),
    StochasticPooling(),
    PrunedActivationGradients(),
    StructureAndStrength(),
    Swa(),
    WeightNorm(),
    Whitening(),
)

VARIANTS: dict[str, Strategy] = {
    "BatchGrowth, both": BatchGrowth(rate="scaled", momentum="corrected"),
    "BatchGrowth, lr scaled": BatchGrowth(rate="scaled"),
    "BatchGrowth, momentum corrected": BatchGrowth(momentum="corrected"),
    "ColumnRowSampling, drawn": ColumnRowSampling(choice="drawn"),
    "GradientApproximation, early": GradientApproximation("early"),
    "GradientApproximation, skip": GradientApproximation("skip"),
    "GradientClipping at 1": GradientClipping(1.0),
    "InconsistentSGD, 1 sigma": InconsistentSGD(sigmas=1.0),
    "StructureAndStrength, half of the run": StructureAndStrength(until=0.5),
    "StructureAndStrength, random": StructureAndStrength(dictionary="random"),
}
LARGE: dict[str, object] = {"batch_size": 512, "lr_rule": "sqrt"}  # as Hoffer et al. 2017 do


def cases(plain: Pipeline) -> dict[str, Pipeline]:
    """The plain pipeline, with each strategy at its defaults and in variants, and with each setting that matters."""
    found = {"plain": plain, "plain, once more (the noise)": plain}
    found |= {type(s).__name__: replace(plain, strategies=(s,)) for s in STRATEGIES}
    found |= {name: replace(plain, strategies=(s,)) for name, s in VARIANTS.items()}
    settings: dict[str, dict[str, object]] = {
        "alternating flip": {"alternating_flip": True},
        "WeightNorm mean-only": {"strategies": (WeightNorm(norm="mean_only"),)},
        "crop": {"crop": True},
        "cutout 25 %": {"cutout": 0.25},
        "no label smoothing": {"label_smoothing": 0.0},
        "bf16": {"number_format": "bf16"},
        "bf16, then fp32": {"number_format": "bf16", "strategies": (SwitchFormat(),)},
        "batch 128": {"batch_size": 128},
        "ghost 32": {"ghost_batch": 32},
        "ghost 32, GradientApproximation": {"ghost_batch": 32, "strategies": (GradientApproximation(),)},
        "batch 512": LARGE,
        "batch 512, ghost 64": {**LARGE, "ghost_batch": 64},
        "batch 512, ghost 64, RegimeAdaptation": {
            **LARGE,
            "ghost_batch": 64,
            "strategies": (RegimeAdaptation(plain.batch_size),),
        },
        "five sixths of the epochs": {"epochs": round(5 / 6 * plain.epochs)},
        "six tenths of the epochs": {"epochs": round(0.6 * plain.epochs)},
    }
    return found | {name: replace(plain, **values) for name, values in settings.items()}  # type: ignore[arg-type]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the networks that are named, or all."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingredients", description=__doc__.partition("\n")[0])
    parser.add_argument("networks", nargs="*", choices=[*NETWORKS, []], help="thin, wide, fast (default: all)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=None, help="of all but the shorter one (default: the network's)")
    parser.add_argument("--depth", type=int, default=1, help="blocks a stage; 3 of thin are ResNet-20")
    parser.add_argument("--n-train", type=int, default=8_000)
    parser.add_argument("--data", default="fashion_mnist", help="a data set, or folder:PATH")
    parser.add_argument("--stem-stride", type=int, default=2)
    parser.add_argument("--only", nargs="+", default=None, help="ingredients, by name (default: all)")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    keep_freed_memory()
    print(conditions(CPU, f"python -m benchmarks.ingredients {shlex.join(words)}".rstrip()))
    data = DataSpec(options.data, n_train=options.n_train)
    dataset = load(data, CPU)
    for network in options.networks or NETWORKS:
        plain = NETWORKS[network]
        plain = replace(plain, epochs=options.epochs or plain.epochs, depth=options.depth)
        print(
            f"\n{network}: {plain.describe()}; {options.n_train} images, stem stride {options.stem_stride}\n",
            flush=True,
        )
        chosen = {n: p for n, p in cases(plain).items() if options.only is None or n in ("plain", *options.only)}
        comparison(chosen, Task(data, network, options.stem_stride), dataset, options.seeds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
