"""PruneTrain on ResNet-32 as published, in a shorter run: python -m benchmarks.published --data folder:DIR --epochs 45.

Batch 128, peak 0.1 with drops at 93 and 150 of 182 epochs, weight decay 5e-4, crops and flips, reconfigured every 10 of
182 epochs, all in proportion. `dense` prunes nothing; `ratio` has the published penalty ratio; `shrinkage` a
lambda larger by as much as the run has fewer steps than 182 epochs of 50,000 images, so that the penalty alone shrinks
norms by as much; `subgradient` the same with the published step instead of a proximal one; `0.5` and `0.75` have that
penalty ratio, between the two, with the proximal step. Prints Markdown. The paper removes 53 % of the FLOPs of
training and 66 % of those of inference on CIFAR-10.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace

import torch

from benchmarks.training import conditions
from benchmarks.widening import trained
from objectives.data.dataset import load
from objectives.device.allocator import keep_freed_memory
from objectives.networks.plain import residual
from objectives.pipeline import Pipeline
from objectives.strategies.prune_train import PruneTrain
from objectives.task import DataSpec, Task

CPU = torch.device("cpu")
DEPTH = 5  # residual blocks a stage of the thin family: ResNet-32
RATIO = 0.25  # lasso penalty ratio
BETWEEN = (0.5, 0.75)  # of the ratios between the published one and that of equal shrinkage
EPOCHS, EVERY, IMAGES = 182, 10, 50_000  # of the paper's run


def cases(epochs: int, n_train: int) -> dict[str, Pipeline]:
    """The pipelines by name, for a run of so many epochs over so many images."""
    plain = Pipeline(batch_size=128, lr=0.1, weight_decay=5e-4, epochs=epochs, schedule="step", depth=DEPTH)
    odds = RATIO / (1 - RATIO) * (EPOCHS * IMAGES) / (epochs * n_train)  # lambda is proportional to them
    every = max(1, round(epochs * EVERY / EPOCHS))
    published = PruneTrain(lpr=RATIO, mode="subgrad", interval=every)
    proximal = replace(published, mode="prox")
    equal = odds / (1 + odds)
    return {
        "dense": plain,
        "ratio": replace(plain, strategies=(published,)),
        **{str(ratio): replace(plain, strategies=(replace(proximal, lpr=ratio),)) for ratio in BETWEEN},
        "shrinkage": replace(plain, strategies=(replace(proximal, lpr=equal),)),
        "subgradient": replace(plain, strategies=(replace(published, lpr=equal),)),
    }


def main() -> None:
    """Trains the cases one after the other and prints a row each, as soon as there is one."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.published", description=(__doc__ or "").split("\n\n")[0])
    p.add_argument("--data", required=True, help="folder:DIR of CIFAR-10")
    p.add_argument("--n-train", type=int, default=10_000)
    p.add_argument("--epochs", type=int, default=45)
    p.add_argument("--cases", nargs="+", default=["shrinkage"], choices=list(cases(1, 1)))
    p.add_argument("--seed", type=int, default=0)
    options = p.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    task = Task(DataSpec(options.data, n_train=options.n_train), "thin")
    dataset = load(task.data, CPU)
    print(conditions(CPU, f"python -m benchmarks.published {shlex.join(sys.argv[1:])}"))
    head = ["case", "accuracy", "CPU s", "FLOPs of training", "of inference", "parameters", "network at the end"]
    print(f"\n| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    for name in options.cases:
        reports, ended = trained(cases(options.epochs, len(dataset.train.y))[name], task, dataset, options.seed)
        for each in reports:
            shares = f"{each.accuracy:.4f}, {each.inference_flops / each.full_flops:.3f} of the FLOPs"
            print(f"<!-- {name}, epoch {each.epoch}: {shares}; {'; '.join(each.events)} -->")
        first, last = reports[0], reports[-1]  # the first epoch trains the dense network
        cells = [name, f"{last.accuracy:.1%}", f"{last.train_seconds:.0f}"]
        cells.append(f"{last.train_flops / (first.train_flops * options.epochs):.0%}")
        cells.append(f"{last.inference_flops / last.full_flops:.0%}")
        cells.append(f"{last.n_parameters / first.n_parameters:.0%}")
        cells.append(residual(ended.model.architecture).describe())
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
