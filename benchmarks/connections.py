"""How many connections networks can do without: python -m benchmarks.connections --out FILE.

The thesis' table 4.4 (Viehmann 2020) on other data: the share of each layer's connections that can go within a point of
validation accuracy, the other layers whole, by magnitude, Taylor, OBD and chance. Cases: `once` (without retraining),
`retrained` (after every step), `surgery` (dynamic network surgery of all layers) and `sizes` (bytes on disk in 8 bits
and as shared values, and the accuracy of those, of the whole network and of the one after surgery). Writes one JSON
line a result to --out and goes on where it was interrupted; --only-report prints the tables of what is there.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, get_args

import torch

from benchmarks.training import conditions
from benchmarks.widening import trained
from benchmarks.workload import half_interval
from objectives.data.dataset import Dataset, load
from objectives.device.allocator import keep_freed_memory
from objectives.networks.network import Network
from objectives.pipeline import Pipeline
from objectives.reduction.connections.masks import (
    Judge,
    Masked,
    MaskedTraining,
    accuracy,
    examples,
    largest_share,
    pruned_in_steps,
)
from objectives.reduction.connections.saliency import SaliencyName, connections, saliencies
from objectives.reduction.connections.splicing import Surgery, operated
from objectives.reduction.quantisation.quantised import eight_bit, eight_bit_inputs, ranges, shared, sizes
from objectives.task import DataSpec, Seeds, Task

CASES = ("once", "retrained", "surgery", "sizes")
NAMES: tuple[SaliencyName, ...] = get_args(SaliencyName)
# Of LeNet-5 on MNIST, epsilon 1 %: % pruned by Taylor, magnitude, OBD, chance without retraining; then with 5 epochs
# after every 1 %, where the criteria no longer differ. It has one OBD, without a word on how: both of ours beside it.
THESIS = {
    "conv1.convolution.weight": ({"taylor": 57.3, "magnitude": 50.0, "obd": 58.8, "random": 36.9}, 77.8),
    "conv2.convolution.weight": ({"taylor": 68.4, "magnitude": 70.1, "obd": 80.0, "random": 69.1}, 98.0),
    "dense1.weight": ({"taylor": 96.6, "magnitude": 96.7, "obd": 96.7, "random": 96.6}, 99.6),
    "dense2.weight": ({"taylor": 89.3, "magnitude": 89.9, "obd": 89.0, "random": 88.2}, 99.1),
    "head.weight": ({"taylor": 76.2, "magnitude": 66.7, "obd": 76.1, "random": 48.6}, 94.9),
}
# Shares that are tried one after the other with retraining: finer where a layer that is nearly empty is told from one
# that is emptier still. The thesis prunes 1 % at a time and retrains for 5 epochs each.
STEPS = (*(n / 20 for n in range(1, 19)), *(n / 100 for n in range(91, 100)), 0.992, 0.994, 0.996, 0.998)


@dataclass(frozen=True)
class Setting:
    """What a network of one seed is studied with."""

    model: Network
    dataset: Dataset
    judge: Judge
    training: MaskedTraining
    surgery: MaskedTraining
    n_examples: int

    @classmethod
    def of(cls, options: argparse.Namespace, seed: int, dataset: Dataset) -> Setting:
        """Trains the network of a seed."""
        pipeline = Pipeline(
            batch_size=64, lr=options.lr, epochs=options.epochs, schedule="one_cycle", crop=False, flip=False
        )
        task = Task(DataSpec(options.data, n_train=options.n_train), options.family, options.stem_stride)
        model = trained(pipeline, task, dataset, seed)[1].model
        training = MaskedTraining(dataset, pipeline, options.retrain_epochs, 0.1, Seeds.of(1, seed))
        surgery = replace(training, epochs=options.surgery_epochs, lr=0.3)
        return cls(model, dataset, Judge.of(model, dataset, options.epsilon), training, surgery, options.examples)


Row = dict[str, Any]  # what a result adds to its case and seed


def once(s: Setting) -> Iterator[Row]:
    """Without retraining: every criterion on every layer, and on all connections ranked together."""
    x, y = examples(s.dataset, s.n_examples, s.training.seeds.order)
    for name in NAMES:
        worth = saliencies(s.model, name, x, y, seed=s.training.seeds.init)
        for layer, each in worth.items():
            yield {"name": name, "layer": layer, "share": largest_share(s.model, {layer: each}, s.judge)}
        yield {"name": name, "layer": "all", "share": largest_share(s.model, worth, s.judge, scope="global")}


def retrained(s: Setting) -> Iterator[Row]:
    """With retraining after every step; `obd_hutchinson` is left out, whose probes would take most of the time."""
    for name in (each for each in NAMES if each != "obd_hutchinson"):
        for layer in connections(s.model):
            found = pruned_in_steps(s.model, name, [layer], STEPS, s.judge, s.training, n_examples=s.n_examples)
            yield {"name": name, "layer": layer, "share": found.share}


def surgery(s: Setting) -> Iterator[Row]:
    """Dynamic network surgery with thresholds from mild to harsh, and training for as long with none."""
    for c in (-1e9, 0.0, 0.5, 1.0, 1.5, 2.0):
        found = operated(s.model, Surgery(c=c), s.surgery)
        yield {"name": "none" if c < -1e6 else f"c = {c:g}", "layer": "all", "share": found.share, **_lost(s, found)}


def _lost(s: Setting, found: Masked) -> Row:
    return {"lost": s.judge.base - found.accuracy}


def sized(s: Setting) -> Iterator[Row]:
    """Bytes on disk and accuracy lost: of the network, and of the one after surgery with c = 1."""
    x, _ = examples(s.dataset, s.n_examples, s.training.seeds.order)
    for which, model in (("whole", s.model), ("after surgery", operated(s.model, Surgery(c=1.0), s.surgery).model)):
        base, known = accuracy(model, s.dataset), sizes(model)
        yield {"name": which, "layer": "fp32", "bytes": known.float32, "lost": s.judge.base - base}
        small = eight_bit(model)
        yield {"name": which, "layer": "8 bits", "bytes": small.n_bytes, "lost": _moved(s, small.model)}
        with eight_bit_inputs(small.model, ranges(small.model, x)):
            lost = _moved(s, small.model)
        yield {"name": which, "layer": "8 bits, activations too", "bytes": small.n_bytes, "lost": lost}
        for bits in ((8, 5), (5, 5), (4, 4), (3, 3)):
            few = shared(model, *bits)
            words = f"shared, {bits[0]} and {bits[1]} bits"
            yield {"name": which, "layer": words, "bytes": few.n_bytes, "lost": _moved(s, few.model)}


def _moved(s: Setting, model: Network) -> float:
    return s.judge.base - accuracy(model, s.dataset)


STUDIES = {"once": once, "retrained": retrained, "surgery": surgery, "sizes": sized}


def play(options: argparse.Namespace) -> None:
    """Every case of every seed that --out does not hold whole."""
    key = {name: getattr(options, name) for name in KEY}
    done = {(row["case"], row["seed"]) for row in read(options) if row["layer"] == "done"}
    dataset = load(DataSpec(options.data, n_train=options.n_train), torch.device("cpu"))
    for seed in range(options.seeds):
        wanted = [case for case in options.cases if (case, seed) not in done]
        if not wanted:
            continue
        setting = Setting.of(options, seed, dataset)
        for case in wanted:
            began, rows = time.monotonic(), []
            for row in STUDIES[case](setting):
                rows.append(row)
                print(f"seed {seed}, {case}: {row}", file=sys.stderr, flush=True)
            rows.append({"name": "", "layer": "done", "wall_seconds": time.monotonic() - began})
            with options.out.open("a") as out:  # a case is there whole or not at all
                for row in rows:
                    print(json.dumps({**key, "case": case, "seed": seed, "base": setting.judge.base, **row}), file=out)


KEY = ("data", "n_train", "family", "epochs", "lr", "epsilon", "retrain_epochs", "surgery_epochs", "examples")


def read(options: argparse.Namespace) -> list[Row]:
    """The results in --out of these options."""
    lines = options.out.read_text().splitlines() if options.out.exists() else []
    rows = [json.loads(line) for line in lines]
    return [row for row in rows if all(row[name] == getattr(options, name) for name in KEY)]


def report(rows: Sequence[Row]) -> Iterator[str]:
    """The tables of the cases that there are, as lines of Markdown."""
    by_seed = {row["seed"]: row["base"] for row in rows}
    yield f"Validation accuracy of the whole networks: {_spread(list(by_seed.values()))} over {len(by_seed)} seeds."
    for case in CASES:
        of = [row for row in rows if row["case"] == case and row["layer"] != "done"]
        if not of:
            continue
        seconds = [row["wall_seconds"] for row in rows if row["case"] == case and row["layer"] == "done"]
        yield f"\n{case}, {fmean(seconds):.0f} seconds a seed\n"
        yield from _shares(of) if case in ("once", "retrained") else _losses(of)


def _shares(rows: Sequence[Row]) -> Iterator[str]:
    names = list(dict.fromkeys(row["name"] for row in rows))
    yield f"| layer | {' | '.join(names)} | thesis, MNIST |\n|{'---|' * (len(names) + 2)}"
    for layer in dict.fromkeys(row["layer"] for row in rows):
        of = [row for row in rows if row["layer"] == layer]
        cells = [_spread([row["share"] for row in of if row["name"] == name]) for name in names]
        yield f"| {layer} | {' | '.join(cells)} | {_thesis(of[0])} |"


def _thesis(row: Row) -> str:
    if row["family"] != "lenet5" or row["layer"] not in THESIS:
        return ""
    by_name, with_training = THESIS[row["layer"]]
    return f"{with_training}" if row["case"] == "retrained" else ", ".join(f"{k} {v}" for k, v in by_name.items())


def _losses(rows: Sequence[Row]) -> Iterator[str]:
    what = "bytes" if "bytes" in rows[0] else "share"
    yield f"| network | | {'bytes' if what == 'bytes' else '% pruned'} | points lost |\n|---|---|---|---|"
    for name, layer in dict.fromkeys((row["name"], row["layer"]) for row in rows):
        of = [row for row in rows if (row["name"], row["layer"]) == (name, layer)]
        first = f"{fmean(row['bytes'] for row in of):,.0f}" if what == "bytes" else _spread([r["share"] for r in of])
        yield f"| {name} | {layer} | {first} | {_spread([row['lost'] for row in of])} |"


def _spread(shares: Sequence[float]) -> str:
    """A mean in per cent with its 95 % interval over seeds."""
    half = f" ± {100 * half_interval(shares):.1f}" if len(shares) > 1 else ""
    return f"{100 * fmean(shares):.1f}{half}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Plays what is missing, and prints the tables."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    p = argparse.ArgumentParser(prog="python -m benchmarks.connections", description=(__doc__ or "").split("\n\n")[0])
    p.add_argument("--cases", type=lambda text: text.split(","), default=["once"], help=f"of {','.join(CASES)}")
    p.add_argument("--data", default="fashion_mnist", help="a data set, or folder:PATH")
    p.add_argument("--n-train", type=int, default=20_000)
    p.add_argument("--family", default="lenet5", help="lenet5, lenet300, small, ... (digits are too small for lenet5)")
    p.add_argument("--stem-stride", type=int, default=1)
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--epochs", type=int, default=10, help="of the network's training (thesis: 200)")
    p.add_argument("--lr", type=float, default=0.05, help="its peak learning rate; retraining: a tenth")
    p.add_argument("--epsilon", type=float, default=0.01, help="accuracy that may be lost")
    p.add_argument("--retrain-epochs", type=int, default=1, help="after each of 31 steps (thesis: 5, after each 1 %%)")
    p.add_argument("--surgery-epochs", type=int, default=5)
    p.add_argument("--examples", type=int, default=1000, help="training images that saliencies see")
    p.add_argument("--out", type=Path, default=Path("connections.jsonl"), help="file of results, which is continued")
    p.add_argument("--only-report", action="store_true")
    options = p.parse_args(words)
    if unknown := sorted({*options.cases} - {*CASES}):
        p.error(f"unknown case {unknown[0]!r}: choose of {', '.join(CASES)}")
    torch.set_num_threads(1)
    keep_freed_memory()
    if not options.only_report:
        play(options)
    print(conditions(torch.device("cpu"), f"python -m benchmarks.connections {shlex.join(words)}".rstrip()))
    rows = read(options)
    print("\n".join(report(rows)) if rows else "no results")
    return 0


if __name__ == "__main__":
    sys.exit(main())
