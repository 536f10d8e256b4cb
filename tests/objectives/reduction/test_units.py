"""Laws of what can be cut: every neuron, parameter and FLOP where it belongs, and the order of what is tried."""

from __future__ import annotations

import pytest

from objectives.networks.architecture import Architecture, Stage
from objectives.networks.network import build
from objectives.networks.plain import build_plain
from objectives.reduction.course import after, candidates, left
from objectives.reduction.settings import Iteration, Reduction
from objectives.reduction.units import Unit, most_worthwhile, units, whole, worth

# LeNet-5 (LeCun et al. 1998) on 28 pixels with a border of 2, in plain numbers: 61,706 parameters.
LENET5 = {
    "conv1": Unit(6, 156, 2 * 25 * 6 * 28 * 28),
    "conv2": Unit(16, 2416, 2 * 150 * 16 * 10 * 10),
    "dense1": Unit(120, 48120, 2 * 400 * 120),
    "dense2": Unit(84, 10164, 2 * 120 * 84),
}
CLASSIFIER = Unit(10, 850, 2 * 84 * 10)
PARTS = (*LENET5.values(), CLASSIFIER)
LENET5_WHOLE = Unit(sum(p.neurons for p in PARTS), sum(p.parameters for p in PARTS), sum(p.flops for p in PARTS))
RESIDUAL = Architecture(1, 10, (Stage(6, (5,)), Stage(7, (4, 0))), transition="projection")


def test_the_scores_of_lenet_5_are_those_of_the_thesis() -> None:
    assert LENET5_WHOLE.parameters == 61706
    scores = worth(LENET5, LENET5_WHOLE, beta=1, gamma=1)
    expected = {"conv1": 0.31, "conv2": 0.68, "dense1": 1.40, "dense2": 0.55}  # the last one is 0.5448
    assert scores == pytest.approx(expected, abs=0.0055)
    equal = dict.fromkeys(LENET5, 0.64)
    assert most_worthwhile(scores, equal) == "dense1"
    assert most_worthwhile(worth(LENET5, LENET5_WHOLE, beta=0, gamma=100), equal) == "conv2"
    assert most_worthwhile(scores, {**equal, "dense1": 0.16}) == "conv2", "the operation size counts"
    assert most_worthwhile(scores, {}) is None


def test_the_network_of_lenet_5_has_these_numbers_and_scores() -> None:
    model = build(build_plain("lenet5", width=1, in_channels=1, n_classes=10, size=28))
    assert units(model, 28) == LENET5
    assert whole(model, 28) == LENET5_WHOLE


def test_inputs_are_cut_by_choice_only_and_count_those_who_read_them() -> None:
    model = build(build_plain("lenet300", width=1, in_channels=1, n_classes=10, size=28))
    assert list(units(model, 28)) == ["dense1", "dense2"]
    assert units(model, 28, inputs=True)["inputs"] == Unit(784, 784 * 300, 2 * 784 * 300)
    assert whole(model, 28).neurons == 410
    assert whole(model, 28, inputs=True).neurons == 410 + 784


def test_of_equal_products_the_first_is_tried_first() -> None:
    scores = {"a": 0.5, "b": 1.0, "c": 1.0}
    assert most_worthwhile(scores, {"a": 0.64, "b": 0.32, "c": 0.32}) == "a"
    assert most_worthwhile(scores, {"b": 0.32, "c": 0.32}) == "b"


def test_every_parameter_and_flop_of_a_residual_network_is_an_axis_s_or_the_classifier_s() -> None:
    model = build(RESIDUAL)
    parts, total = units(model, 8), whole(model, 8)
    assert {axis: part.neurons for axis, part in parts.items()} == RESIDUAL.axis_sizes()
    classifier = 7 * 10 + 10
    assert sum(part.parameters for part in parts.values()) + classifier == total.parameters
    assert sum(part.flops for part in parts.values()) + 2 * 7 * 10 == total.flops
    assert sum(part.neurons for part in parts.values()) + 10 == total.neurons
    # all members of a stage: the projection, the branch's second convolution, two norms, the constant of a dead branch
    assert parts["stage1"].parameters == 6 * 7 + 9 * 4 * 7 + 2 * 2 * 7 + 7


@pytest.mark.parametrize("n", [2, 3, 5, 16, 120])
def test_at_least_one_channel_stays_and_at_least_one_goes(n: int) -> None:
    for share in (0.01, 0.04, 0.08, 0.16, 0.32, 0.64, 0.99):
        assert 1 <= left(n, share) < n
    assert left(100, 0.64) == 36


def refused(axis: str, n: int, share: float) -> Iteration:
    """An attempt that was refused."""
    return Iteration(1, axis, share, n, left(n, share), 0.5, 0.5, False, 0, 0.0, 0.0, "")


def test_a_refused_size_is_halved_until_the_axis_is_given_up() -> None:
    settings, shares, tried = Reduction(), {"a": 0.64, "b": 0.64}, []
    while "a" in shares:
        tried.append(shares["a"])
        shares = after(shares, refused("a", 1000, shares["a"]), settings)
        assert shares["b"] == 0.64
    assert tried == [0.64, 0.32, 0.16, 0.08]


def test_a_size_that_takes_away_as_many_channels_as_the_refused_one_is_passed_over() -> None:
    settings, shares, tried = Reduction(), {"a": 0.64}, []
    while "a" in shares:
        tried.append(left(6, shares["a"]))
        shares = after(shares, refused("a", 6, shares["a"]), settings)
    assert tried == [2, 4, 5]


def test_what_is_tried_while_all_is_refused_follows_from_the_network_alone() -> None:
    model, settings = build(RESIDUAL), Reduction()
    shares = dict.fromkeys(RESIDUAL.axis_sizes(), 0.64)
    foreseen = list(candidates(model, 8, shares, 1, settings))
    assert [each.number for each in foreseen] == list(range(1, len(foreseen) + 1))
    for candidate in foreseen:
        assert candidate == next(candidates(model, 8, shares, candidate.number, settings))
        shares = after(shares, refused(candidate.axis, candidate.n_before, candidate.share), settings)
    assert not shares
    assert {candidate.axis for candidate in foreseen} == set(RESIDUAL.axis_sizes())
