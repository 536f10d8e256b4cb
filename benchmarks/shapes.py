"""Networks that change size: python -m benchmarks.shapes [lambda] [prune] [grow] [widen] [cost].

lambda: the strength that the lasso penalty ratio gives, beside published values. prune: PruneTrain beside the same
pipeline without it. grow: Net2Net beside the large network from scratch, at equal epochs and at equal seconds. widen:
how new channels begin, see `benchmarks.widening`. cost: what the lasso, a reconfiguration and a growth cost, and
seconds against FLOPs as width shrinks. Prints Markdown.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import mean, median, stdev

import torch
from torch.nn.functional import cross_entropy

from benchmarks.training import conditions
from benchmarks.widening import trained, widening
from benchmarks.workload import half_interval
from objectives.data.dataset import Dataset, load
from objectives.device.allocator import keep_freed_memory
from objectives.networks import flops, surgery
from objectives.networks.architecture import build
from objectives.networks.resnet import ResNet
from objectives.networks.trainee import Trainee
from objectives.pipeline import Pipeline
from objectives.strategies.methods import lasso
from objectives.strategies.methods.flat_lasso import FlatGroups
from objectives.strategies.net2net import Net2Net
from objectives.strategies.prune_train import PruneTrain
from objectives.task import DataSpec, Task

CPU = torch.device("cpu")
PUBLISHED = {(3, 10): 3.2e-4, (5, 10): 1.95e-4, (9, 10): 1.24e-4, (5, 100): 3.75e-4}  # (depth, classes): LPR 0.2
PARTS = ("lambda", "prune", "grow", "widen", "cost")


def lambdas(n_seeds: int) -> None:
    """Strength at LPR 0.2 on random images of CIFAR's size, mean over seeds, beside the published value."""
    print(f"\n| network | classes | lambda at LPR 0.2, mean of {n_seeds} (deviation) | published | ratio |")
    print("|---|---|---|---|---|")
    for (depth, n_classes), published in PUBLISHED.items():
        found = []
        for seed in range(n_seeds):
            torch.manual_seed(seed)
            model = ResNet(build("thin", depth=depth, width=1, in_channels=3, n_classes=n_classes)).train()
            x = torch.randn(128, 3, 32, 32).contiguous(memory_format=torch.channels_last)
            y = torch.randint(n_classes, (128,))
            with torch.no_grad():
                loss = float(cross_entropy(model(x), y))
            found.append(lasso.strength(0.2, loss, float(lasso.value(model))))
        ratio = mean(found) / published
        row = f"{mean(found):.3g} ({stdev(found):.1g}) | {published:.3g} | {ratio:.3f}"
        print(f"| ResNet-{6 * depth + 2} | {n_classes} | {row} |", flush=True)


def comparison(cases: dict[str, Pipeline], task: Task, dataset: Dataset, n_seeds: int) -> None:
    """Every case with every seed, interleaved by seed; the first case is what the others are compared with.

    Points have 95 % intervals over the seeds (Student's t of the differences within a seed).
    """
    rows: dict[str, list[tuple[float, float, float, float, float]]] = {name: [] for name in cases}
    for seed in range(n_seeds):
        for name, pipeline in cases.items():
            reports, result = trained(pipeline, task, dataset, seed)
            architecture, last = result.model.architecture, reports[-1]
            kept = flops.count(architecture, dataset.size)[0]
            rows[name].append((last.accuracy, kept, last.train_flops, last.wall_seconds, last.train_seconds))
            told = f"{last.accuracy:.4f}, {last.train_seconds:.2f} s, {architecture.describe()}"
            print(f"<!-- seed {seed}, {name}: {told} -->", flush=True)
    columns = ("pipeline", "accuracy, mean (each)", "points", "inference FLOPs kept", "training FLOPs")
    print(f"\n| {' | '.join(columns)} | seconds (range) | CPU seconds (range) |")
    print("|---|---|---|---|---|---|---|")
    first = next(iter(rows.values()))
    for name, runs in rows.items():
        accuracy = mean(run[0] for run in runs)
        each = ", ".join(f"{run[0]:.2%}" for run in runs)
        points = [100 * (run[0] - beside[0]) for run, beside in zip(runs, first, strict=True)]
        sure = "" if runs is first or n_seeds == 1 else f" ± {half_interval(points):.2f}"
        cells = [f"{accuracy:.2%} ({each})", f"{mean(points):+.2f}{sure}"]
        cells += [f"{mean(r[i] / f[i] for r, f in zip(runs, first, strict=True)):.0%}" for i in (1, 2)]
        for i in (3, 4):
            ratios = sorted(r[i] / f[i] for r, f in zip(runs, first, strict=True))
            cells.append(f"x{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
        print(f"| {name} | {' | '.join(cells)} |")
    sys.stdout.flush()


def pruning(task: Task, dataset: Dataset, n_seeds: int, epochs: int) -> None:
    """PruneTrain beside the same pipeline without it."""
    plain = Pipeline(batch_size=64, lr=0.14, epochs=epochs, schedule="cosine", crop=False, flip=True)
    comparison(
        {
            "plain": plain,
            "PruneTrain, round_to 1": replace(plain, strategies=(PruneTrain(lpr=0.35),)),
            "PruneTrain, round_to 8": replace(plain, strategies=(PruneTrain(lpr=0.35, round_to=8),)),
        },
        task,
        dataset,
        n_seeds,
    )


def growing(task: Task, dataset: Dataset, n_seeds: int, epochs: int) -> None:
    """Net2Net beside the large network from scratch: for as many epochs, and for fewer, so that seconds are alike."""
    plain = Pipeline(batch_size=64, lr=0.2, epochs=epochs, schedule="cosine", crop=False, flip=True, depth=2)
    grown = replace(plain, strategies=(Net2Net(start_width=0.5, start_depth=0.5, at=0.4, until=0.4),))
    comparison(
        {
            "from scratch": plain,
            "Net2Net, half width and depth until 40 %": grown,
            "from scratch, 75 % of the epochs": replace(plain, epochs=round(0.75 * epochs)),
        },
        task,
        dataset,
        n_seeds,
    )


def costs() -> None:
    """Milliseconds of each part beside a training step, medians of interleaved rounds."""
    print(
        "\n| network | step, ms | lasso prox | flat prox | lasso subgradient | prune once | widen once | deepen once |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for family, depth in (("thin", 3), ("wide", 1)):
        architecture = build(family, depth=depth, width=1, in_channels=3, n_classes=10)
        trainee, step = _stepping(architecture, 32)
        sizes = architecture.axis_sizes()
        pruned = {axis: torch.arange(size - size // 8) for axis, size in sizes.items()}
        widened = {axis: torch.arange(size + size // 4) % size for axis, size in sizes.items()}
        flat = FlatGroups(trainee.model, {})
        parts: dict[str, Callable[[], object]] = {
            "step": step,
            "prox": lambda t=trainee: lasso.shrink_(t.model, torch.tensor(1e-6), {}),  # type: ignore[misc]
            "flat prox": lambda g=flat: g.shrink_(torch.tensor(1e-6)),  # type: ignore[misc]
            "subgrad": lambda t=trainee: lasso.penalty(t.model, 1e-6, {}).backward(),  # type: ignore[misc]
            "prune": lambda t=trainee, i=pruned: surgery.reindex(t, i),  # type: ignore[misc]
            "widen": lambda t=trainee, i=widened: surgery.reindex(t, i),  # type: ignore[misc]
            "deepen": lambda t=trainee, w=architecture.stages[1].width: surgery.insert_block(t, 1, 1, w),  # type: ignore[misc]
        }
        ms = {name: 1000 * seconds for name, seconds in _interleaved(parts, 9).items()}
        shares = [f"{ms[name]:.1f} ms ({ms[name] / ms['step']:.1%})" for name in list(parts)[1:]]
        print(f"| {family}, depth {depth} | {ms['step']:.0f} | {' | '.join(shares)} |", flush=True)
    print("\n| width of the wide family, depth 1 | FLOPs | seconds per step | seconds per FLOP |")
    print("|---|---|---|---|")
    widths = (1.0, 0.875, 0.75, 0.5, 0.25)
    built = [build("wide", depth=1, width=width, in_channels=3, n_classes=10) for width in widths]
    odd = {axis: torch.arange(size - 1) for axis, size in built[0].axis_sizes().items()}
    steps = [_stepping(a, 32) for a in built]
    narrow = surgery.reindex(steps[0][0], odd)
    all_steps = {f"x{width:g}": step for width, (_, step) in zip(widths, steps, strict=True)}
    all_steps["each axis one channel less"] = _step_of(narrow, 32)
    work = {name: flops.count(a, 32)[1] for name, a in zip(all_steps, built, strict=False)}
    work["each axis one channel less"] = flops.count(narrow.model.architecture, 32)[1]
    seconds = _interleaved(all_steps, 7)
    for name, each in seconds.items():
        share, cost = work[name] / work["x1"], each / seconds["x1"]
        print(f"| {name} | {share:.0%} | {cost:.0%} | x{cost / share:.2f} |", flush=True)


def _stepping(architecture: object, size: int) -> tuple[Trainee, Callable[[], object]]:
    """A fresh network with an optimizer, and its training step."""
    from objectives.networks.architecture import Architecture

    assert isinstance(architecture, Architecture)
    model = ResNet(architecture).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, nesterov=True, fused=True)
    trainee = Trainee(model, optimizer, {}, {})
    return trainee, _step_of(trainee, size)


def _step_of(trainee: Trainee, size: int) -> Callable[[], object]:
    x = torch.randn(128, 3, size, size).contiguous(memory_format=torch.channels_last)
    y = torch.randint(10, (128,))

    def step() -> None:
        cross_entropy(trainee.model(x), y).backward()  # type: ignore[no-untyped-call]
        trainee.optimizer.step()
        trainee.optimizer.zero_grad(set_to_none=True)

    return step


def _interleaved(parts: dict[str, Callable[[], object]], n_rounds: int) -> dict[str, float]:
    """Median seconds of each part over rounds in which all of them take turns; the first round warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(n_rounds + 1):
        for name, part in parts.items():
            start = time.perf_counter()
            part()
            seconds[name].append(time.perf_counter() - start)
    return {name: median(each[1:]) for name, each in seconds.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the parts that are named, or all."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shapes", description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--n-train", type=int, default=10_000)
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    keep_freed_memory()
    parts = options.parts or PARTS
    print(conditions(CPU, f"python -m benchmarks.shapes {shlex.join(words)}".rstrip()))
    if "lambda" in parts:
        lambdas(16)
    if "prune" in parts or "grow" in parts:
        task = Task(DataSpec("fashion_mnist", n_train=options.n_train), "thin", 2)
        dataset = load(task.data, CPU)
        if "prune" in parts:
            pruning(task, dataset, options.seeds, options.epochs)
        if "grow" in parts:
            growing(task, dataset, options.seeds, options.epochs)
    if "widen" in parts:
        widening()
    if "cost" in parts:
        costs()
    return 0


if __name__ == "__main__":
    sys.exit(main())
