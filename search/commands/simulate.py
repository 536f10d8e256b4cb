"""Searches in a table of recorded trainings, against a simulated clock: frontrunner simulate --study NAME.

The same code searches as in real studies; what a pipeline takes and reaches is what a model of the table says.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

FEWEST = 30  # trainings that a table must have: a model of fewer says nothing


def perform(options: argparse.Namespace) -> int:
    """Simulates what was asked for and prints a table; 0, 2 usage, 4 storage, 130 interrupted."""
    from search.commands.exits import OK, exit_code
    from search.database import storage

    def simulate() -> int:
        print(*_lines(options), sep="\n")
        return OK

    return exit_code(simulate, storage.url(options.storage, None))


def _lines(options: argparse.Namespace) -> list[str]:
    import optuna

    from objectives.words import counted
    from search.database import storage
    from search.errors import UsageError
    from search.host.called import command
    from search.pareto.front import hypervolume
    from search.simulation import simulate
    from search.views.columns import columns

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    recorded = simulate.opened(storage.url(options.storage, None), options.study)
    if not recorded.kind.is_timed:
        raise UsageError(
            f"study {options.study!r} minimises {recorded.kind.words}: what is simulated is seconds of a clock"
        )
    if recorded.box is None or len(recorded.points) < FEWEST:
        n = len(recorded.points)
        raise UsageError(
            f"study {options.study!r} has {counted(n, 'training')} that ran to the end, a table needs {FEWEST}: "
            f"{command('record')} --study STUDY adds some"
        )
    setting, world = simulate.Setting.of(recorded), simulate.world(recorded, options.model)
    seconds = options.seconds or simulate.usual(recorded, setting, world)
    shares = (0.1, 0.25, 0.5, 0.75, 1.0)
    rows, tried, n_proposed = [], [], []
    for seed in range(options.seeds):
        searched = {"sampler": options.sampler, "stopping": options.stopping, "seed": seed}
        steps = simulate.simulated(setting, world, options.spread, seconds, **searched)
        tried += [step.pipeline for step in steps]
        n_proposed.append(sum(step.is_proposed for step in steps))
        found = simulate.progress(steps, world, setting.box, [share * seconds for share in shares])
        rows.append([str(seed), str(len(steps)), str(n_proposed[-1]), *(f"{each:.4f}" for each in found)])
    least, most = (hypervolume(each, setting.box) for each in simulate.known(setting, world, tried))
    explained = " and ".join(f"{each:.2f}" for each in world.explained)
    return [
        *columns(
            ["seed", "trials", "proposed", *(f"at {share:.0%}" for share in shares), ""], [[*row, ""] for row in rows]
        ),
        *_unproposed(n_proposed, seconds),
        "Shares of the region of interest that the fronts found truly dominate, after shares of "
        f"{seconds:.3g} simulated seconds.",
        f"Anchors alone reach {least:.4f}; the best front known of this world {most:.4f}.",
        f"Of trainings left out the model ({options.model}) explains {explained} of the variance, of decades of "
        "seconds and of error.",
    ]


def _unproposed(n_proposed: Sequence[int], seconds: float) -> list[str]:
    """That some studies had no time for more than known pipelines."""
    if not (n_short := sum(n == 0 for n in n_proposed)):
        return []
    studies = "all studies" if n_short == len(n_proposed) else f"{n_short} of {len(n_proposed)} studies"
    return [
        f"In {studies} known pipelines took all of the {seconds:.3g} s: nothing was proposed, so that sampler and "
        "stopping made no difference: --seconds allows more."
    ]
