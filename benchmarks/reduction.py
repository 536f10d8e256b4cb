"""Trained networks made smaller: python -m benchmarks.reduction --data digits --seeds 3 --out reduction.jsonl.

Every case with every seed: the base is trained once a seed and network, then reduced. A line of JSON for each goes to
--out as soon as it is there; the same command goes on where it was interrupted. The test split is opened at the end of
a case, for its base and the network that came of it. Beside SNARE stands pruning by magnitude (benchmarks/magnitude.py)
with as many epochs of retraining, again and again while the accuracy allows it; and narrow networks from scratch.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch

from benchmarks import magnitude
from benchmarks.widening import trained
from objectives.data.dataset import Dataset, load
from objectives.data.held_out import load_test
from objectives.device.allocator import keep_freed_memory
from objectives.device.clock import Clock
from objectives.evaluation import evaluate
from objectives.export import ExportedModel, export, load_model
from objectives.networks import flops
from objectives.networks.network import Network
from objectives.pipeline import Pipeline
from objectives.reduction.latency import latencies
from objectives.reduction.learning.retraining import retrained
from objectives.reduction.settings import CriterionName, Iteration, Reduction
from objectives.reduction.snare import is_within, n_parameters, reduced, right
from objectives.reduction.terms import Terms
from objectives.task import DataSpec, Seeds, Task

NETWORKS = {"lenet300": ("lenet300", 1), "lenet5": ("lenet5", 1), "resnet20": ("thin", 3)}  # family, blocks a stage
Rival = Callable[[Network, float, Terms, int], Network]  # a network without a share of its channels
RIVALS: dict[str, Rival] = {"uniform": magnitude.uniform, "torch-pruning": magnitude.across}
CRITERIA: tuple[CriterionName, ...] = (
    *("taylor", "taylor_sum", "activation", "l1_own", "l1_next", "l1_both", "similarity", "random"),
)
SCRATCH = (0.055, 0.08, 0.13, 0.25, 0.35)  # times the channels; 0.055 of lenet300: a twentieth of its parameters
LONGER = 5  # times the base's epochs, of networks from scratch: by default as many as of it and sixteen attempts
FIRST = 0.32  # share of the channels that magnitude pruning takes at first
MOST_ATTEMPTS = 40  # of magnitude pruning, unless told
LATENCY = 4.0  # seconds for measuring how long networks take


@dataclass(frozen=True)
class Case:
    """What is reduced, and how."""

    family: str
    settings: Reduction
    rival: Rival | None = None  # in place of SNARE
    depth: int = 1  # residual blocks a stage
    width: float | None = None  # in place of SNARE: a network so much narrower from scratch


def cases(epochs: int, iterations: int | None) -> dict[str, Case]:
    """Every case by its name: FAMILY, what differs from the default, epsilon in points."""
    plain = Reduction(epochs=epochs, iterations=iterations)
    found: dict[str, Case] = {}
    for network, (family, depth) in NETWORKS.items():
        case = Case(family, plain, depth=depth)
        for epsilon in (0.5, 0.1):
            settings = replace(plain, epsilon=epsilon / 100)
            found[f"{network} both {epsilon}"] = replace(case, settings=settings)
            found[f"{network} FLOPs {epsilon}"] = replace(case, settings=replace(settings, beta=0.0))
            found[f"{network} parameters {epsilon}"] = replace(case, settings=replace(settings, gamma=0.0))
            found[f"{network} blocks {epsilon}"] = replace(case, settings=replace(settings, retraining="blocks"))
            for name, rival in RIVALS.items():
                found[f"{network} {name} {epsilon}"] = replace(
                    case, settings=replace(settings, criterion="l1_own"), rival=rival
                )
        for criterion in CRITERIA:
            for n, word in ((0, "cut only"), (epochs, "retrained")):
                settings = replace(plain, epsilon=0.01, criterion=criterion, epochs=n)
                found[f"{network} {criterion} {word}"] = replace(case, settings=settings)
    for family in ("lenet300", "lenet5"):
        for width in SCRATCH:
            found[f"{family} scratch {width}"] = Case(family, plain, width=width)
    found["lenet300 inputs 0.5"] = Case("lenet300", replace(plain, inputs=True))
    return found


def main() -> None:
    """Reduces everything that is not in the file yet, and prints a line for each."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.reduction", description=(__doc__ or "").split("\n\n")[0])
    p.add_argument("--data", default="digits")
    p.add_argument("--n-train", type=int)
    p.add_argument("--size", type=int, help="side of the images; digits need 12 for LeNet-5")
    p.add_argument("--stem-stride", type=int, default=1, help="of the residual network")
    p.add_argument("--base-epochs", type=int, default=20)
    p.add_argument("--epochs", type=int, default=5, help="of retraining after each operation")
    p.add_argument("--iterations", type=int)
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--cases", default="lenet.* both .*", help="regular expression of the names")
    p.add_argument("--out", type=Path, default=Path("reduction.jsonl"))
    options = p.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    lines = options.out.read_text().splitlines() if options.out.exists() else []
    done = {(each["case"], each["seed"], each["data"]) for each in map(json.loads, lines)}
    spec = DataSpec(options.data, n_train=options.n_train, size=options.size)
    data = load(spec, torch.device("cpu"))
    asked = [
        (name, case, seed)
        for seed in range(options.seeds)
        for name, case in cases(options.epochs, options.iterations).items()
        if re.fullmatch(options.cases, name) and (name, seed, options.data) not in done
    ]
    of: tuple[str, int, int] | None = None
    for name, case, seed in asked:
        if of != (case.family, case.depth, seed):
            of = case.family, case.depth, seed
            task = Task(spec, case.family, options.stem_stride)
            base = based(task, data, options.base_epochs, seed, case.depth)
        if case.width is None:
            came = outcome(base, data, case, seed)
        else:
            came = narrow(base, based(task, data, LONGER * options.base_epochs, seed, case.depth, case.width), data)
        found = {"case": name, "seed": seed, "data": options.data, **came}
        found["test"] = tested(base, data, spec, found.pop("network"))
        with options.out.open("a") as file:
            file.write(json.dumps(found) + "\n")
        print(
            f"{name}, seed {seed}: parameters / {found['by_parameters']:.1f}, FLOPs / {found['by_flops']:.1f}, "
            f"{len(found['iterations'])} attempts, {found['seconds']:.0f} s, test {found['test']}",
            flush=True,
        )


def based(task: Task, data: Dataset, epochs: int, seed: int, depth: int, width: float = 1.0) -> ExportedModel:
    """The base of a seed, trained here; or a narrower one."""
    pipeline = Pipeline(
        batch_size=128,
        lr=0.1,
        epochs=epochs,
        schedule="one_cycle",
        crop=False,
        flip=False,
        depth=depth,
        width=width,
    )
    _, result = trained(pipeline, task, data, seed)
    with tempfile.TemporaryDirectory() as folder:
        export(result, data, Path(folder) / "model", {})
        return load_model(Path(folder) / "model")


def outcome(base: ExportedModel, data: Dataset, case: Case, seed: int) -> dict[str, object]:
    """How much smaller a base became, with its log."""
    attempts: list[Iteration] = []
    if case.rival is not None:
        network, seconds = by_magnitude(case.rival, base, data, case.settings, seed)
    else:
        reduction = reduced(base, data, case.settings, seed)
        while True:
            try:
                attempts.append(next(reduction))
            except StopIteration as end:
                network, seconds = end.value.model, end.value.report.train_seconds
                break
    return {
        **compared(base.network, network, data),
        "seconds": seconds,
        "iterations": [each.to_json() for each in attempts],
        "network": network,
    }


def narrow(base: ExportedModel, found: ExportedModel, data: Dataset) -> dict[str, object]:
    """How much smaller a network from scratch is than a base."""
    return {
        **compared(base.network, found.network, data),
        "seconds": cast("float", found.about["train_seconds"]),
        "iterations": [],
        "network": found.network,
        "validation": [cast("float", each.about["accuracy"]) for each in (base, found)],
    }


def compared(base: Network, network: Network, data: Dataset) -> dict[str, object]:
    """How much smaller and faster a network is."""
    before, after = base.architecture, network.architecture
    sizes, shape = before.axis_sizes(), (data.channels, data.size, data.size)
    speed = latencies(base, network, shape, data.train.x.device, LATENCY)
    return {
        "by_parameters": n_parameters(base) / n_parameters(network),
        "by_flops": flops.count(before, data.size)[0] / flops.count(after, data.size)[0],
        "pruned": {axis: 1 - n / sizes[axis] for axis, n in after.axis_sizes().items()},
        "speed_up": {each.batch: each.speed_up.median for each in speed},
    }


def by_magnitude(
    rival: Rival, base: ExportedModel, data: Dataset, settings: Reduction, seed: int
) -> tuple[Network, float]:
    """What pruning by magnitude comes to, and its seconds.

    A share of the channels at a time, with the retraining of SNARE and as many attempts; what loses too much is taken
    back, and the share is halved.
    """
    terms, clock = Terms.of(base, data, settings), Clock(data.train.x.device)
    best, share = terms.trainable(base.network), FIRST
    reference, n = right(terms.evaluated(best)), len(data.val.y)
    for number in range(1, (settings.iterations or MOST_ATTEMPTS) + 1):
        model = rival(best, share, terms, seed)
        model = retrained(terms.trainable(model), terms, Seeds.of(seed, number), settings.epochs, clock)
        if is_within(right(terms.evaluated(model)), reference, n, settings.epsilon):
            best = terms.trainable(model)
        elif share / 2 < settings.smallest:
            break
        else:
            share /= 2
    return best, clock.charged


def tested(base: ExportedModel, data: Dataset, spec: DataSpec, network: object) -> dict[str, float] | None:
    """Accuracies of the base and of what came of it on the test split, where there is one."""
    held_out = load_test(spec, data)
    if held_out is None:
        return None
    terms = Terms.of(base, data, Reduction())
    assert isinstance(network, Network)

    def accuracies() -> Iterator[tuple[str, float]]:
        for word, model in (("base", base.network), ("reduced", network)):
            found = evaluate(model, held_out.images, terms.normalise, terms.number_format, batch_size=128)
            yield word, found.accuracy

    return dict(accuracies())


if __name__ == "__main__":
    main()
