"""Which of two fronts is better? python -m benchmarks.measure RESULTS.jsonl

Shows pairs of confirmed fronts of `benchmarks.search` whose order depends on the scale of quality: the share
of accuracy, or decades of error. Whoever reads it says which one a person would pick.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

from search.pareto.front import Box, Outcome, front, hypervolume

Front = tuple[Outcome, ...]


def confirmed(result: Mapping[str, Any]) -> Front:
    """The front of the means over fresh seeds."""
    means = [
        (math.exp(fmean(math.log(s) for s, _ in point["runs"])), fmean(a for _, a in point["runs"]))
        for point in result["confirmed"]
    ]
    return front(Outcome(i, *mean) for i, mean in enumerate(means))


def in_accuracy(points: Front, box: Box) -> float:
    """The share of the box that is dominated where quality is accuracy."""
    area, below = 0.0, box.useful
    for point in points:
        if point.cost < box.slowest and point.accuracy > box.useful:
            area += box.speed(point.cost) * (point.accuracy - below)
            below = point.accuracy
    return area / (1 - box.useful)


def disputed(results: list[dict[str, Any]], box: Box) -> Iterator[tuple[Front, Front]]:
    """Pairs of fronts, the first of which is better in decades of error, and worse in accuracy."""
    for a, b in combinations([confirmed(result) for result in results], 2):
        for one, other in ((a, b), (b, a)):
            if hypervolume(one, box) > hypervolume(other, box) and in_accuracy(one, box) < in_accuracy(other, box):
                yield one, other


def main() -> None:
    """Prints the pairs, and how often the two scales agree."""
    results = [json.loads(line) for path in sys.argv[1:] for line in Path(path).read_text().splitlines()]
    known = next(result for result in results if result["box"])
    box = Box(**known["box"])
    n_pairs, found = math.comb(len(results), 2), list(disputed(results, box))
    print(f"{len(results)} fronts, {n_pairs} pairs, of which the scales order {n_pairs - len(found)} alike; {box}\n")
    for one, other in found:
        for name, points in (("decades of error", one), ("accuracy", other)):
            words = ", ".join(f"{p.accuracy:.1%} after {p.cost:.2f} s" for p in points)
            print(f"* {name} ({hypervolume(points, box):.3f}, {in_accuracy(points, box):.3f}): {words}")
        print()


if __name__ == "__main__":
    main()
