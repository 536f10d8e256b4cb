"""Searchers compared in worlds: python -m benchmarks.worlds --study RECORDED --contenders pareto,tpe --seeds 20.

Simulated studies (search/simulation/), by the code of real ones, against a simulated clock, in three worlds that no
searcher is made of at once: `trees` and `process`, models of the trainings of a recorded study, and `formulas`. Seeds
are paired. Writes one JSON line a study to --out, which is continued, and prints the tables of all that it holds:
the share of the gap between the anchors alone and the best front known that was closed after shares of the budget,
noise apart, the seconds until 75 and 90 % of it were, and what that is less the first contender's, with 95 % intervals.

A contender is SAMPLER[/STOPPING][-PART], PART being what is left out of ours: cost, near, forecast, trend, cheap.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from math import log10
from pathlib import Path
from statistics import fmean, median, stdev
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import optuna

from benchmarks.workload import half_interval
from objectives.pipeline import Pipeline
from search.database import storage
from search.pareto.front import Box, Outcome, front, hypervolume
from search.proposals.proposal import Settings
from search.simulation import simulate
from search.simulation.simulate import Setting
from search.simulation.worlds import Analytic, Truth, World

WORLDS = ("trees", "process", "formulas")
SHARES = tuple((k + 1) / 40 for k in range(40))  # of the budget, at which progress is kept
TOLD = (0.25, 0.5, 0.75, 1.0)  # ... and told
BESIDE = (0.5, 1.0)  # ... and compared with the first contender
GAPS = (0.75, 0.9)
SPREAD = 0.04  # decades, of errors between seeds: see search.md


def _settings(**left: Any) -> Any:
    """Proposals sought with these settings, whatever a study says of them."""
    return patch("search.proposals.experience.Settings", lambda **said: Settings(**{**said, **left}))


WITHOUT: dict[str, Callable[[], Any]] = {
    "cost": partial(_settings, per_cost=0.0),
    "near": partial(_settings, n_random=200, n_near=0, n_refined=0),
    "forecast": lambda: patch("search.proposals.experience.interest", SimpleNamespace(forecast=lambda *_: 1.0)),
    "trend": lambda: patch("search.proposals.experience.LEARNING", 0.0),
    "cheap": lambda: patch("search.proposals.startup.CHEAP_SHARE", 1.0),
}


@contextmanager
def contending(words: str) -> Iterator[dict[str, str]]:
    """What a contender changes in `[search]`, with the part left out that it names."""
    searcher, _, part = words.partition("-")
    sampler, _, stopping = searcher.partition("/")
    with ExitStack() as stack:
        if part:
            stack.enter_context(WITHOUT[part]())
        yield {"sampler": sampler, "stopping": stopping or "front"}


@dataclass(frozen=True)
class Scaled:
    """A world whose trainings take other seconds."""

    world: World
    decades: float

    def truths(self, pipelines: Sequence[Pipeline]) -> list[Truth]:
        return [replace(each, log_seconds=each.log_seconds + self.decades) for each in self.world.truths(pipelines)]


def alike(world: World, other: World, setting: Setting) -> Scaled:
    """A world in which the anchors together take the seconds that they take in the other one."""
    seconds = [sum(point.cost for point in simulate.known(setting, each, [])[0]) for each in (world, other)]
    return Scaled(world, log10(seconds[1] / seconds[0]))


def play(setting: Setting, world: World, words: str, seconds: float, seed: int) -> dict[str, Any]:
    """One simulated study."""
    with contending(words) as search:
        steps = simulate.simulated(setting, world, SPREAD, seconds, **search, seed=seed)
    found = simulate.progress(steps, world, setting.box, [share * seconds for share in SHARES])
    true = simulate.true_outcomes(world, [step.pipeline for step in steps if step.outcome is not None])
    best = [(point.cost, point.accuracy) for point in front(true)]
    return {"seed": seed, "seconds": seconds, "n": len(steps), "found": found, "best": best}


def report(results: Sequence[dict[str, Any]], known: dict[str, tuple[list[Outcome], list[Outcome]]], box: Box) -> None:
    """Prints a table a world."""
    for kind in dict.fromkeys(r["world"] for r in results):
        here = [r for r in results if r["world"] == kind]
        least = hypervolume(known[kind][0], box)
        most = hypervolume([*known[kind][1], *(Outcome(0, s, a) for r in here for s, a in r["best"])], box)
        print(f"\n{kind}: anchors alone {least:.4f}, best front known {most:.4f} of the box\n")
        head = ["contender", "studies", "trials", *(f"at {share:.0%}" for share in TOLD)]
        head += [*(f"seconds to {gap:.0%}" for gap in GAPS), *(f"less the first's at {share:.0%}" for share in BESIDE)]
        print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
        names = list(dict.fromkeys(r["contender"] for r in here))
        closed = {(r["contender"], r["seed"]): [(v - least) / (most - least) for v in r["found"]] for r in here}
        for name in names:
            of = [r for r in here if r["contender"] == name]
            gaps = [closed[name, r["seed"]] for r in of]
            cells = [name, str(len(of)), f"{fmean(r['n'] for r in of):.0f}"]
            for share in TOLD:
                now = [gap[SHARES.index(share)] for gap in gaps]
                cells.append(f"{fmean(now):.2f} +- {stdev(now) if len(now) > 1 else 0.0:.2f}")
            cells += [_until(gaps, gap, of[0]["seconds"]) for gap in GAPS]
            pairs = [(closed[name, r["seed"]], closed.get((names[0], r["seed"]))) for r in of]
            for share in BESIDE if name != names[0] else ():
                k = SHARES.index(share)
                cells.append(_less([one[k] - other[k] for one, other in pairs if other is not None]))
            print(f"| {' | '.join(cells)} |")


def _less(differences: Sequence[float]) -> str:
    """Mean of paired differences with half of its 95 % interval, and in how many pairs the first one is ahead."""
    half = f" +- {half_interval(differences):.3f}" if len(differences) > 1 else ""
    return f"{fmean(differences):+.3f}{half} (behind in {sum(d < 0 for d in differences)} of {len(differences)})"


def _until(gaps: Sequence[Sequence[float]], gap: float, seconds: float) -> str:
    """Seconds until a share of the gap is closed, the median, and by how many studies."""
    when = [next((s for s, now in zip(SHARES, each, strict=True) if now >= gap), None) for each in gaps]
    reached = [each for each in when if each is not None]
    middle = median(each if each is not None else 9.0 for each in when)
    return f"{f'{middle * seconds:.1f}' if middle <= 1 else 'more'} ({len(reached)} of {len(when)})"


def main() -> None:
    """Plays what is missing, and prints the tables."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.worlds", description=(__doc__ or "").split("\n\n")[0])
    p.add_argument("--study", required=True, help="a recorded study")
    p.add_argument("--storage", metavar="URL", help="database (default: as the program)")
    p.add_argument("--seconds", type=float, default=30.0, help="simulated seconds a study")
    p.add_argument("--seeds", type=int, default=20)
    p.add_argument("--contenders", default="tpe,pareto,nsga2,random")
    p.add_argument("--worlds", default=",".join(WORLDS))
    p.add_argument("--out", default="worlds.jsonl", help="file of results, which is continued")
    p.add_argument("--only-report", action="store_true")
    options = p.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    recorded = simulate.opened(storage.url(options.storage, None), options.study)
    setting = Setting.of(recorded)
    data = setting.facts["data"]
    kinds = options.worlds.split(",")
    worlds: dict[str, World] = {kind: simulate.world(recorded, kind) for kind in WORLDS if kind != "formulas"}
    formulas = Analytic(recorded.spec.task, data["size"], data["n_train"])
    worlds = {**worlds, "formulas": alike(formulas, worlds["trees"], setting)}
    worlds = {kind: worlds[kind] for kind in kinds}
    path = Path(options.out)

    def results() -> list[dict[str, Any]]:
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    have = {(r["world"], r["contender"], r["seed"]) for r in results()}
    for seed in range(options.seeds) if not options.only_report else ():
        for kind in kinds:
            for words in options.contenders.split(","):
                if (kind, words, seed) not in have:
                    played = play(setting, worlds[kind], words, options.seconds, seed)
                    with path.open("a") as file:
                        file.write(json.dumps({"world": kind, "contender": words, **played}) + "\n")
                    print(f"{kind}, {words}, seed {seed}: {played['n']} trials", file=sys.stderr, flush=True)
    print(f"{date.today()}, study {options.study}, {options.seconds:g} simulated seconds")
    for kind, world in worlds.items():
        if kind != "formulas":
            print(f"{kind}: R^2 on trainings left out {world.explained}")  # type: ignore[attr-defined]
    known = {kind: simulate.known(setting, world, []) for kind, world in worlds.items()}
    report([r for r in results() if r["world"] in kinds], known, setting.box)


if __name__ == "__main__":
    main()
