"""Laws of calibration: it finds what it should, changes no prediction, and stays in bounds whatever it is given."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor

from objectives.inference.calibration import (
    BOUNDS,
    NONE,
    Calibration,
    calibrated,
    expected_error,
    likeliest,
    temperature,
)

LOW, HIGH = BOUNDS


def drawn(n: int, k: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits [n, k], and labels drawn as likely as they say."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, k, generator=generator)
    return logits, torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]


@pytest.mark.parametrize("k", [2, 10, 100])
@pytest.mark.parametrize("times", [0.3, 1.0, 4.0])
def test_the_temperature_is_what_logits_were_multiplied_by(times: float, k: int) -> None:
    logits, y = drawn(4000, k)
    assert temperature(times * logits, y) == pytest.approx(times, rel=0.12)
    assert likeliest(times * logits, y) == pytest.approx(times * likeliest(logits, y), rel=1e-5)


@pytest.mark.parametrize("k", [2, 10])
def test_few_images_change_nothing_unless_they_speak_against_it(k: int) -> None:
    seeds = range(30)
    found, likely = ([math.log(choose(*drawn(60, k, seed))) for seed in seeds] for choose in (temperature, likeliest))
    assert sum(each == 0 for each in found) > len(seeds) / 2
    assert all(abs(a) <= abs(b) + 1e-12 and a * b >= 0 for a, b in zip(found, likely, strict=True))
    for logits, y in (drawn(60, k, seed) for seed in seeds):
        assert temperature(6 * logits, y) > 2.5


def test_no_other_temperature_makes_the_labels_likelier() -> None:
    logits, y = drawn(500, 5)
    best = temperature(3 * logits, y)
    losses = [torch.nn.functional.cross_entropy(3 * logits / t, y) for t in (best, 0.97 * best, 1.03 * best)]
    assert min(losses) == losses[0]


def test_too_sure_a_network_is_mended_and_tells_the_same() -> None:
    logits, y = drawn(2000, 10)
    found = calibrated(5 * logits, y)
    assert found.error_before is not None
    assert found.error_after is not None
    assert found.error_after < 0.035 < 0.2 < found.error_before
    assert found.nll_before is not None
    assert found.nll_after is not None
    assert found.nll_after < found.nll_before
    assert torch.equal((5 * logits / found.temperature).argmax(1), logits.argmax(1))
    assert calibrated(5 * logits, y) == found
    assert Calibration.from_json(json.loads(json.dumps(found.to_json()))) == found


def right(n: int, k: int, margin: float) -> tuple[Tensor, Tensor]:
    """Logits of a network that tells all images rightly."""
    y = torch.arange(n) % k
    return margin * torch.nn.functional.one_hot(y, k).double(), y


@pytest.mark.parametrize("n", [1, 2, 3, 10, 300])
@pytest.mark.parametrize("k", [2, 10])
@pytest.mark.parametrize("margin", [1e-30, 1e-3, 1.0, 50.0, 1e30])
@pytest.mark.parametrize("is_right", [True, False])
def test_few_images_and_perfect_or_hopeless_networks_stay_in_bounds(
    n: int, k: int, margin: float, is_right: bool
) -> None:
    logits, y = right(n, k, margin)
    found = calibrated(logits if is_right else -logits, y)
    assert LOW <= found.temperature <= HIGH
    told = [found.error_before, found.error_after]
    assert told == [None, None] if n < 2 else all(each is not None and 0 <= each <= 1 for each in told)


def test_of_a_network_that_is_right_n_times_one_error_in_n_is_not_ruled_out() -> None:
    logits, y = right(100, 2, 10.0)
    likely, found = (
        float((logits / choose(logits, y)).softmax(1).max(1).values.mean()) for choose in (likeliest, temperature)
    )
    assert likely == pytest.approx(1 - 1 / 202, abs=1e-6)
    assert 1 - 1 / 1000 > found > likely


def test_logits_that_say_nothing_are_left_as_they_are() -> None:
    assert temperature(torch.zeros(6, 3), torch.zeros(6, dtype=torch.int64)) == 1.0
    assert calibrated(torch.full((6, 3), torch.nan), torch.zeros(6, dtype=torch.int64)) == NONE
    logits, y = drawn(400, 4)
    assert calibrated(torch.cat([logits, torch.full((1, 4), torch.inf)]), torch.cat([y, y[:1]])) == calibrated(
        logits, y
    )


def test_errors_are_those_of_images_that_are_not_in_the_fit() -> None:
    logits, y = torch.tensor([[4.0, 0.0], [0.0, 4.0]]), torch.tensor([0, 0])  # one right, one wrong
    found = calibrated(logits, y)
    ends = [temperature(logits[1:], y[1:]), temperature(logits[:1], y[:1])]  # each by the other alone
    sure = [float(torch.sigmoid(torch.tensor(4.0 / end))) for end in ends]
    assert found.error_after == pytest.approx((abs(1 - sure[0]) + abs(0 - sure[1])) / 2, abs=1e-6)


@pytest.mark.parametrize(
    ("sure", "is_right", "expected"),
    [
        ([0.9, 0.9], [1, 1], 0.1),
        ([0.9, 0.9], [1, 0], 0.4),
        ([0.55, 0.95], [1, 0], 0.7),  # two bins: 0.45 and 0.95
        ([1.0], [1], 0.0),
    ],
)
def test_the_expected_error_is_the_gap_between_sureness_and_rightness(
    sure: list[float], is_right: list[int], expected: float
) -> None:
    probabilities = torch.tensor([[p, 1 - p] for p in sure], dtype=torch.float64)
    assert expected_error(probabilities, 1 - torch.tensor(is_right)) == pytest.approx(expected, abs=1e-9)
