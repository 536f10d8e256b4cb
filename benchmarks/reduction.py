"""Trained networks made smaller: python -m benchmarks.reduction --data digits --seeds 3 --out reduction.jsonl.

Every case with every seed: the base is trained once a seed and network, then reduced. A line of JSON for each goes to
--out as soon as it is there; the same command goes on where it was interrupted. The test split is opened at the end of
a case, for its base and the network that came of it. Beside SNARE: filters and neurons of all layers cut by the same
share by their L1 norms, with as many epochs of retraining, again and again while the accuracy allows it.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks.widening import trained
from objectives.data.dataset import Dataset, load
from objectives.data.held_out import load_test
from objectives.device.allocator import keep_freed_memory
from objectives.device.clock import Clock
from objectives.evaluation import evaluate
from objectives.export import ExportedModel, export, load_model
from objectives.networks import flops
from objectives.networks.network import Network
from objectives.networks.plain import INPUTS
from objectives.pipeline import Pipeline
from objectives.reduction.attempts import cut
from objectives.reduction.learning.retraining import retrained
from objectives.reduction.settings import CriterionName, Iteration, Reduction
from objectives.reduction.snare import is_within, n_parameters, reduced, right
from objectives.reduction.terms import Terms
from objectives.task import DataSpec, Seeds, Task

FAMILIES = ("lenet300", "lenet5", "thin")
CRITERIA: tuple[CriterionName, ...] = (
    *("taylor", "taylor_sum", "activation", "l1_own", "l1_next", "l1_both", "similarity", "random"),
)
UNIFORM = 0.32  # share of every layer that plain magnitude pruning takes at first
MOST_ATTEMPTS = 40  # of plain magnitude pruning, unless told


@dataclass(frozen=True)
class Case:
    """What is reduced, and how."""

    family: str
    settings: Reduction
    is_uniform: bool = False  # by plain magnitude pruning


def cases(epochs: int, iterations: int | None) -> dict[str, Case]:
    """Every case by its name: FAMILY, what differs from the default, epsilon in points."""
    plain = Reduction(epochs=epochs, iterations=iterations)
    found: dict[str, Case] = {}
    for family in FAMILIES:
        for epsilon in (0.5, 0.1):
            settings = replace(plain, epsilon=epsilon / 100)
            found[f"{family} both {epsilon}"] = Case(family, settings)
            found[f"{family} FLOPs {epsilon}"] = Case(family, replace(settings, beta=0.0))
            found[f"{family} parameters {epsilon}"] = Case(family, replace(settings, gamma=0.0))
            found[f"{family} blocks {epsilon}"] = Case(family, replace(settings, retraining="blocks"))
            found[f"{family} uniform {epsilon}"] = Case(family, replace(settings, criterion="l1_own"), is_uniform=True)
        for criterion in CRITERIA:
            for n, word in ((0, "cut only"), (epochs, "retrained")):
                settings = replace(plain, epsilon=0.01, criterion=criterion, epochs=n)
                found[f"{family} {criterion} {word}"] = Case(family, settings)
    found["lenet300 inputs 0.5"] = Case("lenet300", replace(plain, inputs=True))
    return found


def main() -> None:
    """Reduces everything that is not in the file yet, and prints a line for each."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.reduction", description=(__doc__ or "").split("\n\n")[0])
    p.add_argument("--data", default="digits")
    p.add_argument("--n-train", type=int)
    p.add_argument("--size", type=int, help="side of the images; digits need 12 for LeNet-5")
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
    for name, case, seed in asked:
        base = based(Task(spec, case.family), data, options.base_epochs, seed)
        found = {"case": name, "seed": seed, "data": options.data, **outcome(base, data, case, seed)}
        found["test"] = tested(base, data, spec, found.pop("network"))
        with options.out.open("a") as file:
            file.write(json.dumps(found) + "\n")
        print(
            f"{name}, seed {seed}: parameters / {found['by_parameters']:.1f}, FLOPs / {found['by_flops']:.1f}, "
            f"{len(found['iterations'])} attempts, {found['seconds']:.0f} s, test {found['test']}",
            flush=True,
        )


def based(task: Task, data: Dataset, epochs: int, seed: int) -> ExportedModel:
    """The base of a seed, trained here."""
    pipeline = Pipeline(batch_size=128, lr=0.1, epochs=epochs, schedule="one_cycle", crop=False, flip=False)
    _, result = trained(pipeline, task, data, seed)
    with tempfile.TemporaryDirectory() as folder:
        export(result, data, Path(folder) / "model", {})
        return load_model(Path(folder) / "model")


def outcome(base: ExportedModel, data: Dataset, case: Case, seed: int) -> dict[str, object]:
    """How much smaller a base became, with its log."""
    attempts: list[Iteration] = []
    if case.is_uniform:
        network, seconds = uniformly(base, data, case.settings, seed)
    else:
        reduction = reduced(base, data, case.settings, seed)
        while True:
            try:
                attempts.append(next(reduction))
            except StopIteration as end:
                network, seconds = end.value.model, end.value.report.train_seconds
                break
    before, after = base.network.architecture, network.architecture
    sizes = before.axis_sizes()
    return {
        "by_parameters": n_parameters(base.network) / n_parameters(network),
        "by_flops": flops.count(before, data.size)[0] / flops.count(after, data.size)[0],
        "pruned": {axis: 1 - n / sizes[axis] for axis, n in after.axis_sizes().items()},
        "seconds": seconds,
        "iterations": [each.to_json() for each in attempts],
        "network": network,
    }


def uniformly(base: ExportedModel, data: Dataset, settings: Reduction, seed: int) -> tuple[Network, float]:
    """What plain magnitude pruning of all layers alike comes to, and its seconds.

    A share of every layer at a time, by L1 norms, with the retraining of SNARE and as many attempts; what loses too
    much is taken back, and the share is halved.
    """
    terms, clock = Terms.of(base, data, settings), Clock(data.train.x.device)
    best, share = terms.trainable(base.network), UNIFORM
    reference, n = right(terms.evaluated(best)), len(data.val.y)
    for number in range(1, (settings.iterations or MOST_ATTEMPTS) + 1):
        model, sizes = best, best.architecture.axis_sizes()
        for axis, size in sizes.items():
            if axis != INPUTS and size > 1:
                model = cut(model, axis, size - max(1, round(share * size)), terms, seed)
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
