"""Searchers compared live: python -m benchmarks.search --study FILE --seconds 30 --seeds 8 --contenders pareto,tpe.

Every contender has the same budget of device seconds, in which its questions are charged at the CPU seconds that they
take; contenders take turns, seed by seed. Every point of the front found is then trained with two fresh seeds, and what
counts is the share of the region of interest that these means dominate: the front as a user would get it, not the one
of the luckiest seeds. Writes one JSON line a study to --out, and prints the tables of all that it holds.

A contender is SAMPLER[/STOPPING] of this checkout, or NAME=FOLDER:SAMPLER of another one (an older version in a clone).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from datetime import date
from itertools import combinations
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import optuna

from objectives.pipeline import Pipeline
from objectives.task import Seeds
from search import trial
from search.database import storage
from search.study import opening, queue, records, spec
from search.study.study import Study
from search.views.display import Display
from search.workers.process import WorkerProcess
from search.workers.seam import preparation

NOISY = """[data]
name = "folder:{folder}/noisy"
n_train = 600
channels = 1
size = 8
flip = false

[network]
family = "small"

[space]
epochs = [3, 30]
batch_size = [16, 128]
depth = [1, 2]
width = [0.5, 2.0]

[search]
n_trials = 60
"""
N_FRESH = 2  # seeds that every point of a front is trained with again: what confirms
FRESH = 10**6  # trial numbers from here on are nobody's: their seeds are fresh
SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)  # of the budget, at which progress is told
EARLY = 0.1  # of the budget: by then a front should have three points


def play(study_file: str, sampler: str, seconds: float, seed: int, n_fresh: int = 2 * N_FRESH) -> dict[str, Any]:
    """One study within a budget, its front confirmed. Uses nothing that versions since 2026-11-25 lack."""
    name, read = spec.read(study_file)
    sampler, _, stopping = sampler.partition("/")
    changed = {"sampler": sampler, "stopping": stopping or "front", "seed": seed}
    search = read.search.model_copy(update={"n_trials": 10**6, "repeats": 0, **changed})
    read = read.model_copy(update={"search": search})
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(WorkerProcess(preparation(read.task, "cpu"), fresh=True)) as worker,
    ):
        database = storage.open_storage(f"sqlite:///{folder}/studies.db")
        more = [worker.probe] if hasattr(worker, "probe") else []
        study = opening.created(name, read, database, worker.facts(), worker.number_formats(), 1, {}, *more)
        queue.enqueue_anchors(study)
        steps, clock, asking = [], 0.0, 0.0
        while clock < seconds:
            began = time.process_time()
            asked = study.ask()
            asking += time.process_time() - began
            number, _ = trial.run(study, asked, worker, Display(), math.inf)
            ended = study.trials()[number]
            clock = asking + sum(_seconds(t) for t in study.trials())
            outcome = list(ended.values) if records.is_finished_run(ended) else None
            steps.append({"clock": clock, "outcome": outcome, **_described(ended)})
        front = study.snapshot().front
        confirmed = [_again(study, worker, point.trial, n_fresh) for point in front]
        attributes, did = study.optuna.user_attrs, _did(study)
    return {
        **{"study": name, "seed": seed, "seconds": seconds, "asking": asking, "steps": steps, "confirmed": confirmed},
        "effects": did,
        **{"box": attributes.get("box"), "n_val": attributes["identity"]["data"]["n_val"], "floor": study.floor},
    }


def _did(study: Study) -> list[dict[str, object]]:
    """What each strategy did, where the version can tell."""
    try:
        from search.views import effects
    except ImportError:
        return []
    return effects.as_json(study.snapshot())


def _again(study: Study, worker: WorkerProcess, number: int, n_fresh: int) -> dict[str, Any]:
    """A point of the front, and what its pipeline comes to with fresh seeds."""
    ended = study.trials()[number]
    runs = []
    for repeat in range(n_fresh):
        seeds = Seeds.of(study.spec.search.seed, FRESH + number, repeat)
        *_, last = worker.reports(records.pipeline(ended), seeds)
        runs.append((last.train_seconds, trial.accuracy_of(study, last)))
    return {"trial": number, "observed": list(ended.values), "runs": runs, **_described(ended)}


def _seconds(ended: optuna.trial.FrozenTrial) -> float:
    curve = ended.user_attrs.get(records.CURVE)
    return float(curve[-1][1]) if curve else 0.0


def _described(ended: optuna.trial.FrozenTrial) -> dict[str, Any]:
    plain = ended.user_attrs[records.PIPELINE]
    names = [strategy["strategy"] for strategy in Pipeline.from_json(plain).to_json()["strategies"]]  # type: ignore[attr-defined]
    return {"strategies": names, "epochs": plain["epochs"], "anchor": ended.user_attrs.get(records.ANCHOR)}


def make_noisy_digits(folder: str, noise: float = 5.0) -> None:
    """Writes scikit-learn's digits with normal noise (values are 0 to 16) as a folder of images, and its study file."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    pixels = np.clip(x + np.random.default_rng(0).normal(0, noise, x.shape), 0, 16) / 16 * 255
    for number, (image, label) in enumerate(zip(pixels, y, strict=True)):
        place = Path(folder) / "noisy" / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.reshape(8, 8).astype(np.uint8)).save(place / f"{number:04d}.png")
    (Path(folder) / "noisy_digits.toml").write_text(NOISY.format(folder=Path(folder).absolute()))


# --- the contest ------------------------------------------------------------------------------------------------------


def contest(options: argparse.Namespace) -> None:
    """Plays what is missing from the file of results, contenders in turn."""
    contenders = [_contender(words) for words in options.contenders.split(",")]
    have = {(r["contender"], r["seed"]) for r in _results(options.out)}
    for seed in range(options.seeds):
        turn = contenders[seed % len(contenders) :] + contenders[: seed % len(contenders)]
        for name, folder, sampler in turn:
            if (name, seed) in have:
                continue
            words = ["--study", options.study, "--seconds", str(options.seconds), "--fresh", str(options.fresh)]
            words += ["--play", f"{sampler}:{seed}"]
            environment = os.environ | {"PYTHONPATH": folder, "OMP_NUM_THREADS": "1"}
            script = str(Path(__file__).resolve())
            done = subprocess.run(
                [sys.executable, "-P", "-W", "ignore", script, *words],
                env=environment,
                cwd=folder,
                capture_output=True,
                text=True,
            )
            if done.returncode != 0:
                raise SystemExit(f"{name}, seed {seed}: {done.stderr[-2000:]}")
            result = json.loads(done.stdout.splitlines()[-1]) | {"contender": name}
            with Path(options.out).open("a") as file:
                file.write(json.dumps(result) + "\n")
            print(f"{name}, seed {seed}: {len(result['steps'])} trials", file=sys.stderr, flush=True)


def _contender(words: str) -> tuple[str, str, str]:
    """(name, folder of its version, sampler)."""
    name, _, rest = words.partition("=")
    folder, _, sampler = rest.rpartition(":")
    return (name, folder, sampler) if rest else (name, os.getcwd(), name)


def _results(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()] if Path(path).exists() else []


def report(path: str) -> None:
    """Prints the tables of a file of results."""
    results = _results(path)
    by = {
        name: [r for r in results if r["contender"] == name] for name in dict.fromkeys(r["contender"] for r in results)
    }
    box = _box(results)
    print(f"{date.today()}, {results[0]['study']}, {results[0]['seconds']:g} s a study; box {box}\n")
    _tell_shares(by, box)
    _tell_pairs(by, box)
    _tell_fronts(by)
    _tell_strategies(by)


def _box(results: Sequence[Mapping[str, Any]]) -> Any:
    """The region of interest of all studies together: each probed its own."""
    from search.pareto.front import Box

    boxes = [r["box"] for r in results if r["box"]]
    middle = {end: math.exp(fmean(math.log(b[end]) for b in boxes)) for end in ("fastest", "slowest")}
    return Box(**middle, useful=results[0]["floor"], n_images=results[0]["n_val"])


def _share(values: Iterable[Sequence[float]], box: Any) -> float:
    """The share of the box that (seconds, accuracy) dominate."""
    from search.pareto.front import Outcome, hypervolume

    return hypervolume([Outcome(0, s, a) for s, a in values], box)


def _confirmed(result: Mapping[str, Any], box: Any) -> float:
    return _share([_mean(point["runs"]) for point in result["confirmed"]], box)


def _observed(result: Mapping[str, Any], share: float) -> list[Sequence[float]]:
    """What had ended once a share of the budget was spent."""
    until = share * result["seconds"]
    return [step["outcome"] for step in result["steps"] if step["outcome"] and step["clock"] <= until]


def _tell_shares(by: Mapping[str, Sequence[Any]], box: Any) -> None:
    head = ["contender", "studies", "trials", "confirmed", "best accuracy, confirmed", "optimism", "asking, s"]
    head += [f"observed at {share:.0%}" for share in SHARES]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for name, of in by.items():
        best = [max((_mean(p["runs"])[1] for p in r["confirmed"]), default=0.0) for r in of]
        luck = [p["observed"][1] - _mean(p["runs"])[1] for r in of for p in r["confirmed"]]
        cells = [name, str(len(of)), f"{fmean(len(r['steps']) for r in of):.0f}"]
        cells += [_spread([_confirmed(r, box) for r in of]), _spread(best)]
        cells += [f"{fmean(luck or [0.0]):.4f}", f"{fmean(r['asking'] for r in of):.1f}"]
        cells += [f"{fmean(_share(_observed(r, share), box) for r in of):.4f}" for share in SHARES]
        print(f"| {' | '.join(cells)} |")


def _tell_pairs(by: Mapping[str, Sequence[Any]], box: Any) -> None:
    shares = {name: {r["seed"]: _confirmed(r, box) for r in of} for name, of in by.items()}
    for one, other in combinations(shares, 2):
        seeds = shares[one].keys() & shares[other].keys()
        ahead = sum(shares[one][seed] > shares[other][seed] for seed in seeds)
        apart = [shares[one][seed] - shares[other][seed] for seed in seeds]
        print(f"\n{one} above {other}: {ahead} of {len(seeds)} seeds, by {_spread(apart or [0.0])}")


def _tell_fronts(by: Mapping[str, Sequence[Any]]) -> None:
    """How many points a front has early, and what its points lose once they are trained again after confirmation."""
    from search.pareto.front import Outcome, front

    for name, of in by.items():
        early = [len(front(Outcome(0, s, a) for s, a in _observed(r, EARLY) if a >= r["floor"])) for r in of]
        lost = []
        for result in of:
            means = [Outcome(i, *_mean(point["runs"])) for i, point in enumerate(result["confirmed"])]
            for point in front(means):
                more = [accuracy for _, accuracy in result["confirmed"][point.trial]["runs"][N_FRESH:]]
                lost += [point.accuracy - fmean(more)] if more else []
        again = f"{_spread(lost)} over {len(lost)} points" if lost else "not measured"
        print(f"\n{name}: front points after {EARLY:.0%} of the budget {early}; lost after confirmation {again}")


def _tell_strategies(by: Mapping[str, Sequence[Any]]) -> None:
    print("\n| contender | strategy: trials a study (least), share of confirmed front points |\n|---|---|")
    for name, of in by.items():
        tried = Counter(s for r in of for step in r["steps"] for s in step["strategies"])
        points = [p for r in of for p in r["confirmed"]]
        held = Counter(s for p in points for s in p["strategies"])
        least = {s: min(sum(s in step["strategies"] for step in r["steps"]) for r in of) for s in tried}
        words = [
            f"{s}: {tried[s] / len(of):.1f} (least {least[s]}), {held[s] / len(points):.0%}" for s in sorted(tried)
        ]
        print(f"| {name} | {'; '.join(words)} |")
    print("\n| contender | strategy: factor of seconds, points of accuracy, means over studies |\n|---|---|")
    for name, of in by.items():
        told = [each for r in of for each in r.get("effects", ()) if each["points"]]
        words = []
        for strategy in dict.fromkeys(each["strategy"] for each in told):
            here = [each for each in told if each["strategy"] == strategy]
            factor = math.exp(fmean(math.log(each["seconds"][0]) for each in here))
            words.append(f"{strategy}: x{factor:.2f}, {fmean(each['points'][0] for each in here):+.1f} ({len(here)})")
        if words:
            print(f"| {name} | {'; '.join(words)} |")


def _mean(runs: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Of the runs that confirm."""
    seconds, accuracies = zip(*runs[:N_FRESH], strict=True)
    return math.exp(fmean(map(math.log, seconds))), fmean(accuracies)


def _spread(values: Sequence[float]) -> str:
    return f"{fmean(values):.4f} +- {stdev(values) if len(values) > 1 else 0.0:.4f}"


def main() -> None:
    """Plays one study, or the contest."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.search", description=(__doc__ or "").split("\n\n")[0])
    p.add_argument("--study", required=True, help="study file")
    p.add_argument("--seconds", type=float, default=30.0, help="device seconds a study, its questions included")
    p.add_argument("--seeds", type=int, default=8)
    p.add_argument(
        "--fresh", type=int, default=2 * N_FRESH, help=f"fresh seeds a point: what is beyond {N_FRESH} tells its loss"
    )
    p.add_argument("--contenders", default="pareto,tpe")
    p.add_argument("--out", default="search.jsonl", help="file of results, which is continued")
    p.add_argument(
        "--noisy-digits", metavar="FOLDER", help="first makes the data and study file noisy_digits.toml there"
    )
    p.add_argument("--play", metavar="SAMPLER:SEED", help="one study, as JSON on stdout")
    options = p.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if options.play:
        sampler, _, seed = options.play.rpartition(":")
        print(json.dumps(play(options.study, sampler, options.seconds, int(seed), options.fresh)))
        return
    if options.noisy_digits:
        make_noisy_digits(options.noisy_digits)
    contest(options)
    report(options.out)


if __name__ == "__main__":
    main()
