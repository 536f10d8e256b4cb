"""Results of `benchmarks.ten_minutes`, and their tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from benchmarks.workload import half_interval

WITHIN = 0.2  # share by which forecasts may err
ONCE = ("hog-svm", "pixel-svm")  # end when they are done: one run serves every budget from there on


@dataclass(frozen=True)
class Cell:
    """One run that is asked for."""

    folder: str
    contender: str
    minutes: float  # of CPU
    seed: int


@dataclass(frozen=True)
class Result(Cell):
    """How it ended."""

    accuracy: float  # on the hidden images
    n_test: int
    cpu_seconds: float  # of the whole tree, until it could predict
    wall_seconds: float  # likewise
    predict_seconds: float  # of CPU, for the hidden images
    told: float | None  # the accuracy that its user is told
    interval: Sequence[float] | None  # likewise: 95 %
    first_usable_seconds: float  # of CPU, until there was a network at all
    curve: Sequence[Sequence[float]]  # (CPU seconds, accuracy on validation images so far)
    about: Mapping[str, object]
    date: str

    @property
    def cell(self) -> Cell:
        """What was asked for."""
        return Cell(self.folder, self.contender, self.minutes, self.seed)

    def passes(self, accuracy: float) -> float | None:
        """CPU seconds until its validation accuracy was above this one; None: it never was."""
        return next((seconds for seconds, reached in self.curve if reached > accuracy), None)


def read(file: Path) -> list[Result]:
    """All results in a file; none where there is no file."""
    lines = file.read_text().splitlines() if file.exists() else []
    return [Result(**json.loads(line)) for line in lines]


def tables(results: Sequence[Result]) -> Iterator[str]:
    """All tables as lines of Markdown."""
    for folder in dict.fromkeys(result.folder for result in results):
        here = [result for result in results if result.folder == folder]
        yield from _accuracies(folder, here)
        yield from _support_vectors(here)
        yield from _passing(here)
    yield from _budgets(results)
    yield from _told(results)
    yield from _forecasts(results)


def _accuracies(folder: str, results: Sequence[Result]) -> Iterator[str]:
    budgets = sorted({result.minutes for result in results})
    yield f"\n{folder}: test accuracy, {results[0].n_test} images, +- is half of a 95 % interval of the mean over seeds"
    yield from _head("contender", "seeds", *(f"{minutes:g} min" for minutes in budgets))
    for contender in _contenders(results):
        row = [_at(results, contender, minutes) for minutes in budgets]
        yield _line(contender, _counts(row), *(_mean([r.accuracy for r in found]) for found in row))


def _support_vectors(results: Sequence[Result]) -> Iterator[str]:
    yield from _head("machine", "accuracy", "CPU seconds to it", "images", "C", "gamma")
    for contender in ONCE:
        if found := [result for result in results if result.contender == contender]:
            names = ("images", "C", "gamma, mean squared distances")
            about = (", ".join(f"{value:g}" for value in dict.fromkeys(r.about[name] for r in found)) for name in names)  # type: ignore[str-format]
            seconds = ", ".join(f"{result.cpu_seconds:.1f}" for result in found)
            yield _line(contender, _mean([r.accuracy for r in found]), seconds, *about)


def _passing(results: Sequence[Result]) -> Iterator[str]:
    """When networks are better than the best machine of the same seed: by budgets, and by their validation images."""
    machines = [result for result in results if result.contender in ONCE]
    best = {r.seed: max(m.accuracy for m in machines if m.seed == r.seed) for r in machines}
    networks = [contender for contender in _contenders(results) if contender not in ONCE]
    if not best or not networks:
        return
    yield from _head("contender", "smallest budget above the machines", "CPU seconds, by its validation images")
    for contender in networks:
        mine = [r for r in results if r.contender == contender and r.seed in best]
        if not mine:
            continue
        ahead = [
            minutes
            for minutes in sorted({r.minutes for r in mine})
            if fmean(r.accuracy - best[r.seed] for r in mine if r.minutes == minutes) > 0
        ]
        longest = [r for r in mine if r.minutes == max(r.minutes for r in mine) and r.curve]
        passed = [seconds for r in longest if (seconds := r.passes(best[r.seed])) is not None]
        within = f"{median(passed):.0f} ({len(passed)} of {len(longest)} seeds)" if passed else "never"
        yield _line(contender, f"{ahead[0]:g} min" if ahead else "none", within if longest else "not known")


def _budgets(results: Sequence[Result]) -> Iterator[str]:
    """What was used of a budget."""
    yield "\nCPU and wall seconds until it could predict, CPU seconds until the first network; means"
    yield from _head("contender", "minutes", "runs", "CPU", "most CPU", "wall", "first network", "predictions")
    for contender in _contenders(results):
        for minutes in sorted({r.minutes for r in results if r.contender == contender}):
            found = [r for r in results if (r.contender, r.minutes) == (contender, minutes)]
            means = [[r.cpu_seconds for r in found], [r.wall_seconds for r in found]]
            first, predictions = [r.first_usable_seconds for r in found], [r.predict_seconds for r in found]
            cpu, wall, *rest = (f"{fmean(values):.1f}" for values in (*means, first, predictions))
            yield _line(contender, f"{minutes:g}", str(len(found)), cpu, f"{max(means[0]):.1f}", wall, *rest)


def _told(results: Sequence[Result]) -> Iterator[str]:
    """What users are told beside what is so. The hidden images are a sample, too: 2,000 of them tell 2 points."""
    yield "\nThe accuracy that its user is told beside that of the hidden images"
    yield from _head("contender", "runs", "told above test, points", "intervals that held")
    for contender in _contenders(results):
        found = [r for r in results if r.contender == contender and r.told is not None]
        if not found:
            continue
        above = _mean([r.told - r.accuracy for r in found if r.told is not None], sign="+")
        held = [r.interval[0] <= r.accuracy <= r.interval[1] for r in found if r.interval is not None]
        yield _line(contender, str(len(found)), above, f"{sum(held)} of {len(held)}" if held else "none told")


def _forecasts(results: Sequence[Result]) -> Iterator[str]:
    """What came, as shares of what the plan had forecast."""
    told = [result.about["forecast"] for result in results if "forecast" in result.about]
    if not told:
        return
    yield "\nWhat came, over what the plan had forecast: seconds of the first and the longest run, trials, the end"
    yield from _head("of", "runs", "least", "median", "most", "within 20 %")
    for name in ("first", "longest", "trials", "end"):
        pairs = [each[name] for each in told if len(each[name]) == 2]  # type: ignore[index]
        if ratios := [came / forecast for forecast, came in pairs]:
            within = sum(abs(ratio - 1) <= WITHIN for ratio in ratios)
            shown = (f"{ratio:.2f}" for ratio in (min(ratios), median(ratios), max(ratios)))
            yield _line(name, str(len(ratios)), *shown, f"{within} of {len(ratios)}")


def _contenders(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(result.contender for result in results))


def _at(results: Sequence[Result], contender: str, minutes: float) -> list[Result]:
    """What a contender had reached by a budget; a machine that was not done on every seed, nothing."""
    found = [r for r in results if r.contender == contender]
    if contender in ONCE:
        return found if all(r.cpu_seconds <= 60 * minutes for r in found) else []
    return [r for r in found if r.minutes == minutes]


def _counts(row: Sequence[Sequence[Result]]) -> str:
    return ", ".join(str(n) for n in dict.fromkeys(len(found) for found in row if found))


def _mean(values: Sequence[float], sign: str = "") -> str:
    """In points of accuracy."""
    if not values:
        return ""
    spread = f" +- {100 * half_interval(values):.1f}" if len(values) > 1 else ""
    return f"{100 * fmean(values):{sign}.1f}{spread}"


def _head(*columns: str) -> Iterator[str]:
    yield ""
    yield _line(*columns)
    yield "|" + "---|" * len(columns)


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
