"""What each ingredient brings: python -m benchmarks.ingredients [thin] [fast].

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
from objectives.strategies.bias_learning_rate import BiasLearningRate
from objectives.strategies.data_fraction import DataFraction
from objectives.strategies.ema import Ema
from objectives.strategies.freeze import Freeze
from objectives.strategies.haar_stem import HaarStem
from objectives.strategies.identity_init import IdentityInit
from objectives.strategies.lookahead import Lookahead
from objectives.strategies.muon import Muon
from objectives.strategies.plateau import Plateau
from objectives.strategies.progressive_resolution import ProgressiveResolution
from objectives.strategies.s3_pool import S3Pool
from objectives.strategies.stochastic_pooling import StochasticPooling
from objectives.strategies.swa import Swa
from objectives.strategies.whitening import Whitening
from objectives.task import DataSpec, Task

PLAIN = Pipeline(batch_size=64, lr=0.2, epochs=6, schedule="one_cycle", label_smoothing=0.1, crop=False, flip=True)
NETWORKS = {"thin": replace(PLAIN, depth=1), "fast": replace(PLAIN, width=0.25, epochs=5)}

STRATEGIES: tuple[Strategy, ...] = (
    AveragePooling(),
    BiasLearningRate(),
    DataFraction(),
    Ema(),
    Freeze(),
    HaarStem(),
    IdentityInit(),
    Lookahead(),
    Muon(),
    Plateau(),
    ProgressiveResolution(),
    S3Pool(),
    StochasticPooling(),
    Swa(),
    Whitening(),
)


def cases(plain: Pipeline) -> dict[str, Pipeline]:
    """The plain pipeline, with each strategy at its defaults, and with each setting that is an ingredient."""
    found = {"plain": plain, "plain, once more (the noise)": plain}
    found |= {type(s).__name__: replace(plain, strategies=(s,)) for s in STRATEGIES}
    settings: dict[str, dict[str, object]] = {
        "alternating flip": {"alternating_flip": True},
        "crop": {"crop": True},
        "cutout 25 %": {"cutout": 0.25},
        "no label smoothing": {"label_smoothing": 0.0},
        "bf16": {"number_format": "bf16"},
        "batch 128": {"batch_size": 128},
        "six tenths of the epochs": {"epochs": round(0.6 * plain.epochs)},
    }
    return found | {name: replace(plain, **values) for name, values in settings.items()}  # type: ignore[arg-type]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the networks that are named, or both."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingredients", description=__doc__.partition("\n")[0])
    parser.add_argument("networks", nargs="*", choices=[*NETWORKS, []], help="thin, fast (default: both)")
    parser.add_argument("--seeds", type=int, default=3)
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
        print(
            f"\n{network}: {plain.describe()}; {options.n_train} images, stem stride {options.stem_stride}\n",
            flush=True,
        )
        chosen = {n: p for n, p in cases(plain).items() if options.only is None or n in ("plain", *options.only)}
        comparison(chosen, Task(data, network, options.stem_stride), dataset, options.seeds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
