"""Two networks that are timed in turns; what readings come to."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from objectives.reduction.latency import BATCHES, FEWEST, ROUNDS, TRIED, TRIES, latencies
from objectives.reduction.result import Spread


class Noted(nn.Module):
    """A network that notes on which batches it is called."""

    def __init__(self, name: str, calls: list[tuple[str, int]]) -> None:
        super().__init__()
        self.name, self.calls = name, calls

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append((self.name, len(x)))
        return x.flatten(1)


@pytest.mark.parametrize(("seconds", "n"), [(0.0, FEWEST), (60.0, ROUNDS)])
def test_both_networks_are_read_equally_often_in_changing_order(
    seconds: float, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("objectives.reduction.latency.MOST_CALLS", 1)
    calls: list[tuple[str, int]] = []
    found = latencies(Noted("base", calls), Noted("reduced", calls), (1, 4, 4), torch.device("cpu"), seconds)
    assert [each.batch for each in found] == list(BATCHES)
    for each in found:
        assert each.base.n == each.reduced.n == each.speed_up.n == n
        read = [name for name, batch in calls if batch == each.batch][2 * TRIES * TRIED :]
        rounds = [tuple(read[i : i + 2]) for i in range(0, len(read), 2)]
        orders = [("base", "reduced"), ("reduced", "base")]
        assert rounds == [orders[i % 2] for i in range(n)]


@pytest.mark.parametrize(
    ("readings", "expected"),
    [([2.0], (2.0, 2.0, 2.0)), ([1.0, 3.0], (2.0, 1.5, 2.5)), ([5.0, 1.0, 3.0, 2.0, 4.0], (3.0, 2.0, 4.0))],
)
def test_a_spread_is_median_and_quartiles(readings: list[float], expected: tuple[float, float, float]) -> None:
    found = Spread.of(readings)
    assert (found.median, found.low, found.high, found.n) == (*expected, len(readings))
