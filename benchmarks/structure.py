"""Networks that change size beside plain runs: python -m benchmarks.structure --data digits --epochs 30 --seeds 5.

Every case with every seed, interleaved. A case is compared with plain runs of the same seed at *its* seconds: the plain
pipeline is trained for several lengths, and its accuracy is read off between them. The networks that an adaptive
run and PruneTrain ended with are trained from scratch as well, for as many epochs as a plain run. A line of JSON for
each goes to --out; the same command goes on where it was interrupted. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from math import log
from pathlib import Path
from statistics import fmean

import numpy as np
import torch

from benchmarks.training import conditions
from benchmarks.widening import trained
from benchmarks.workload import half_interval
from objectives.data.dataset import load
from objectives.device.allocator import keep_freed_memory
from objectives.networks.architecture import FAMILIES
from objectives.networks.plain import residual
from objectives.pipeline import Pipeline, Report
from objectives.strategies.adaptive import Adaptive
from objectives.strategies.fixed_architecture import FixedArchitecture
from objectives.strategies.lottery_ticket import LotteryTicket
from objectives.strategies.low_rank import LowRank
from objectives.strategies.morph_net import MorphNet
from objectives.strategies.net2net import Net2Net
from objectives.strategies.prune_train import PruneTrain, kappa_for
from objectives.task import DataSpec, Task

FROM_SCRATCH = ("adaptive", "PruneTrain")
LENGTHS = (0.3, 0.5, 0.75, 1.0)  # of the epochs, that the plain pipeline is trained for
ACTS = {  # what an adaptive network does, by the events that tell of it
    "wider": r"round \d+: wider",
    "deeper": r"round \d+: deeper",
    "back": "back to",
    "keeps its size": "keeps its size",
    "stops growing": "stops growing",
    "out of budget": r"ends at epoch \d+: its budget",
}


@dataclass(frozen=True)
class Run:
    """How one training ended."""

    accuracy: float
    train_seconds: float
    train_flops: float
    inference_flops: float
    n_parameters: int
    acts: dict[str, int]  # what an adaptive network did

    @classmethod
    def of(cls, reports: Sequence[Report]) -> Run:
        """What these reports come to."""
        last, events = reports[-1], [event for each in reports for event in each.events]
        acts = Counter(act for event in events for act, pattern in ACTS.items() if re.match(pattern, event))
        return cls(
            last.accuracy, last.train_seconds, last.train_flops, last.inference_flops, last.n_parameters, dict(acts)
        )


def cases(plain: Pipeline) -> dict[str, Pipeline]:
    """The pipelines by name, each with the settings of the plain one."""
    share = 0.3
    return {
        "half width": replace(plain, width=plain.width / 2),
        "PruneTrain": replace(plain, strategies=(PruneTrain(lpr=0.6, kappa=kappa_for(share)),)),
        "Net2Net": replace(plain, strategies=(Net2Net(operators="wider"),)),
        "adaptive": replace(plain, strategies=(Adaptive(kappa=kappa_for(share)),)),
        "adaptive, from full width": replace(plain, strategies=(Adaptive(kappa=kappa_for(share), start=1.0),)),
        "adaptive, without pruning": replace(plain, strategies=(Adaptive(lpr=0.0),)),
        "adaptive, by accuracy": replace(plain, strategies=(Adaptive(kappa=kappa_for(share), judge="accuracy"),)),
        "MorphNet": replace(plain, strategies=(MorphNet(),)),
        "MorphNet, going on": replace(plain, strategies=(MorphNet(then="continue"),)),
        "MorphNet to half the FLOPs": replace(plain, strategies=(MorphNet(budget=0.5),)),
        "lottery ticket": replace(plain, strategies=(LotteryTicket(),)),
        "low rank": replace(plain, strategies=(LowRank(),)),
        "BASELINE": Pipeline(epochs=plain.epochs, width=plain.width),
    }


def main() -> None:
    """Trains everything and prints the table."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.structure", description=(__doc__ or "").split("\n\n")[0])
    p.add_argument("--data", default="digits")
    p.add_argument("--n-train", type=int)
    p.add_argument("--family", default="small", choices=sorted(FAMILIES))
    p.add_argument("--stem-stride", type=int, default=1)
    p.add_argument("--width", type=float, default=1.0)
    p.add_argument("--epochs", type=int, default=30)
    p.add_argument("--batch", type=int, default=64)
    p.add_argument("--lr", type=float, default=0.8, help="peak, for 256 samples")
    p.add_argument("--seeds", type=int, default=5)
    p.add_argument("--cases", default=".*", help="regular expression of the names to train beside the plain ones")
    p.add_argument("--out", type=Path, default=Path("structure.jsonl"), help="file of results, which is continued")
    options = p.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    task = Task(DataSpec(options.data, n_train=options.n_train), options.family, stem_stride=options.stem_stride)
    dataset = load(task.data, torch.device("cpu"))
    plain = Pipeline(
        **{"batch_size": options.batch, "lr": options.lr, "lr_rule": "linear", "epochs": options.epochs},
        **{"schedule": "one_cycle", "label_smoothing": 0.1, "crop": False, "flip": True, "width": options.width},
    )
    lengths = {f"plain, {share:.0%}": replace(plain, epochs=max(1, round(share * plain.epochs))) for share in LENGTHS}
    chosen = {name: case for name, case in cases(plain).items() if re.fullmatch(options.cases, name)}
    kept = {name: value for name, value in vars(options).items() if name not in ("seeds", "cases", "out")}
    rows = read(options.out, kept)
    asked = {name: again(name) for name in (*lengths, *chosen)}
    for seed in range(options.seeds):
        for name, pipeline in {**lengths, **chosen}.items():
            if all(seed in rows.get(each, {}) for each in asked[name]):
                continue
            for each in asked[name]:
                reports, result = trained(pipeline, task, dataset, seed)
                rows.setdefault(each, {})[seed] = run = Run.of(reports)
                found = residual(result.model.architecture)
                row = {"of": kept, "case": each, "seed": seed, "network": found.describe(), **asdict(run)}
                with options.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                pipeline = replace(plain, strategies=(FixedArchitecture.like(found),))  # of the second, if there is one
    print(conditions(torch.device("cpu"), f"python -m benchmarks.structure {shlex.join(sys.argv[1:])}".rstrip()))
    names = [each for name in asked for each in asked[name]]
    report({name: [rows[name][seed] for seed in range(options.seeds)] for name in names}, list(lengths))


def again(name: str) -> tuple[str, ...]:
    """The trainings of a case: of some the network that it ends with from scratch, too."""
    return (name, f"the network of {name}, from scratch") if name in FROM_SCRATCH else (name,)


def read(path: Path, of: dict[str, object]) -> dict[str, dict[int, Run]]:
    """The results of a file by case and seed, as far as they are of these settings."""
    rows: dict[str, dict[int, Run]] = {}
    for row in map(json.loads, path.read_text().splitlines() if path.exists() else ()):
        if row.get("of") == of:
            told = {field.name: row[field.name] for field in fields(Run)}
            rows.setdefault(row["case"], {})[row["seed"]] = Run(**told)
    return rows


def report(rows: dict[str, list[Run]], lengths: Sequence[str]) -> None:
    """Prints the table; each case is compared with the plain runs of the same seed at its own seconds."""
    head = ["pipeline", "accuracy", "seconds", "training FLOPs", "inference FLOPs", "parameters"]
    head += ["points above plain at equal seconds", "what it did, a run"]
    print(f"\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    full = rows[lengths[-1]]
    for name, runs in rows.items():
        ratios = [
            [getattr(run, of) / getattr(base, of) for run, base in zip(runs, full, strict=True)]
            for of in ("train_flops", "inference_flops", "n_parameters")
        ]
        cells = [_interval([100 * run.accuracy for run in runs], "%")]
        cells.append(f"{fmean(run.train_seconds for run in runs):.2f}")
        cells += [f"{fmean(each):.0%}" for each in ratios]
        gains = [_gain(run, [rows[length][seed] for length in lengths]) for seed, run in enumerate(runs)]
        cells.append("" if name in lengths else _interval(gains, ""))
        did = sum((Counter(run.acts) for run in runs), Counter[str]())
        cells.append(", ".join(f"{act} {n / len(runs):.1f}" for act, n in did.items()))
        print(f"| {name} | {' | '.join(cells)} |")
    sys.stdout.flush()


def _gain(run: Run, plain: Sequence[Run]) -> float:
    """Points of accuracy above plain runs at its seconds, read off between them; the ends hold beyond them."""
    seconds = [log(each.train_seconds) for each in plain]
    order = np.argsort(seconds)
    known = np.array([100 * each.accuracy for each in plain])[order]
    at = np.interp(log(run.train_seconds), np.array(seconds)[order], known)
    return float(100 * run.accuracy - at)


def _interval(values: Sequence[float], unit: str) -> str:
    """The mean with its 95 % interval over seeds (Student's t)."""
    if len(values) < 2:
        return f"{values[0]:.2f}{unit}"
    return f"{fmean(values):.2f}{unit} ± {half_interval(values):.2f}"


if __name__ == "__main__":
    main()
