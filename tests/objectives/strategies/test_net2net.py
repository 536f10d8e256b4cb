"""The laws of Net2Net, and of Net2Net together with PruneTrain."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from objectives.data.dataset import Dataset
from objectives.networks.trainee import Trainee
from objectives.pipeline import Pipeline
from objectives.state import TrainState
from objectives.strategies.base import Strategy
from objectives.strategies.ema import Ema
from objectives.strategies.freeze import Freeze
from objectives.strategies.lookahead import Lookahead
from objectives.strategies.methods import lasso
from objectives.strategies.net2net import Net2Net
from objectives.strategies.prune_train import PruneTrain
from objectives.train import after_boundary, bound, starting_state
from tests.objectives.strategies.cases import (
    SEEDS,
    TASK,
    begin,
    begin_in_double,
    contents,
    finish,
    first_batch,
    killed,
    stepped,
)
from tests.objectives.strategies.cases import using as small

FULL = "16[16 16]-32[32 32]"
HALF = "8[8]-16[16]"


def using(*strategies: Strategy, **settings: object) -> Pipeline:
    """A pipeline whose full network is `FULL`."""
    return small(*strategies, **{"width": 1.0, "depth": 2, **settings})


def growing(**parameters: object) -> Net2Net:
    """From `HALF` to `FULL` after the second of four epochs, by exact copies."""
    chosen = {
        "start_width": 0.5,
        "start_depth": 0.5,
        "at": 0.5,
        "until": 0.5,
        "new_channels": "copies",
        "noise": 0.0,
        **parameters,
    }
    return Net2Net(**chosen)  # type: ignore[arg-type]


def boundary(state: TrainState, epoch: int) -> TrainState:
    """The state after the boundary that follows `epoch` epochs."""
    return after_boundary(replace(state, epoch=epoch, events=()))


def shape(state: TrainState) -> str:
    return state.trainee.model.architecture.describe()


def outputs(state: TrainState, x: Tensor) -> dict[str, Tensor]:
    """What the network computes in evaluation and in training, and its averages; the network itself is left alone."""
    model = deepcopy(state.trainee.model)
    found = {"evaluation": model.eval()(x).detach(), "training": model.train()(x).detach()}
    for name, shadow in state.trainee.shadows.items():
        floating = {key: tensor for key, tensor in shadow.tensors.items() if tensor.is_floating_point()}
        model.load_state_dict({**state.trainee.model.state_dict(), **floating})
        found[name] = model.eval()(x).detach()
    return found


# --- what grows -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operators", "start"), [("wider", "8[8 8]-16[16 16]"), ("deeper", "16[16]-32[32]"), ("both", HALF)]
)
def test_what_does_not_grow_has_its_full_size_from_the_start(operators: str, start: str, digits: Dataset) -> None:
    state = begin(using(growing(operators=operators)), digits)
    assert (shape(state), state.full.describe()) == (start, FULL)
    assert boundary(state, 1) == replace(state, epoch=1, events=())
    grown = boundary(state, 2)
    assert grown.trainee.model.architecture == state.full
    assert grown.events == (f"grown {start} to {FULL}",)


@pytest.mark.parametrize("operators", ["wider", "deeper", "both"])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("kind", ["copies", "antisymmetric", "fresh"])
def test_growth_preserves_the_function_and_that_of_every_average(
    kind: str, steps: int, operators: str, digits: Dataset
) -> None:
    times = {"steps": steps, "at": 0.25, "until": 0.75 if steps > 1 else 0.25}
    net2net = growing(new_channels=kind, operators=operators, **times)
    x = first_batch(digits)[0].double()
    state = begin_in_double(using(net2net, Lookahead(interval=3), Ema(), epochs=8), digits)
    for epoch in range(1, 8):
        state = stepped(bound(state), digits, 2)
        before, state = outputs(state, x), boundary(state, epoch)
        torch.testing.assert_close(outputs(state, x), before, rtol=1e-10, atol=1e-10)
    assert state.trainee.model.architecture == state.full


@pytest.mark.parametrize("noise", [1e-3, 1e-1])
def test_noise_moves_the_function_a_little(noise: float, digits: Dataset) -> None:
    x = first_batch(digits)[0].double()
    state = stepped(begin_in_double(using(growing(noise=noise)), digits), digits, 3)
    before, after = outputs(state, x), outputs(boundary(state, 2), x)
    for mode, logits in before.items():
        moved = (after[mode] - logits).norm() / logits.norm()
        assert 0.01 * noise < moved < 10 * noise


def test_noise_is_on_the_copies_alone(digits: Dataset) -> None:
    state = begin(using(growing(noise=0.1)), digits)
    weight, grown = (s.trainee.model.stem[0].weight.detach() for s in (state, boundary(state, 2)))
    assert torch.equal(grown[:8], weight)
    assert not (grown[8:, None] == weight).flatten(2).any(2).any()


def twins(grown: Trainee, old: int) -> float:
    """The greatest difference, in the first convolution, between a new channel and the old one it is most like."""
    weight = grown.model.stem[0].weight.detach().flatten(1)
    assert isinstance(weight, Tensor)
    return float(torch.cdist(weight[old:], weight[:old]).amin(1).max())


def test_only_noise_ever_separates_a_copy_from_its_original(digits: Dataset) -> None:
    """Copies have equal shares of the gradient, and nothing else tells them apart."""
    for noise in (0.0, 1e-2):
        state = stepped(begin_in_double(using(growing(noise=noise, operators="wider")), digits), digits, 3)
        grown = boundary(state, 2)
        at_birth = twins(grown.trainee, 8)
        later = twins(stepped(bound(grown), digits, 10).trainee, 8)
        if noise == 0:
            assert at_birth == 0
            assert later < 1e-12
        else:
            assert 1e-4 < at_birth < 0.1
            assert later > at_birth


def copies(trainee: Trainee, start: Mapping[str, int]) -> float:
    """The share of the channels beyond those at the start whose filter points where one of these points."""
    found = []
    for axis, old in start.items():
        rows = [g.weight.detach().flatten(1) for g in lasso.grouped(trainee.model) if g.out_axis == axis]
        filters = torch.nn.functional.normalize(torch.cat(rows, 1), dim=1)
        found.append((filters[old:] @ filters[:old].T).amax(1) > 0.99)
    return float(torch.cat(found).float().mean())


@pytest.mark.parametrize(
    ("kind", "become_different"), [("fresh", True), ("antisymmetric", True), ("copies", False), (None, True)]
)
def test_new_channels_become_different_ones_within_two_epochs_but_copies_with_little_noise_do_not(
    kind: str | None, become_different: bool, digits: Dataset
) -> None:
    chosen = {} if kind is None else {"new_channels": kind}
    net2net = Net2Net(start_width=0.5, at=0.5, until=0.5, **chosen)  # type: ignore[arg-type]
    state = begin(using(net2net), digits)
    start = state.trainee.model.architecture.axis_sizes()
    state = stepped(bound(boundary(stepped(state, digits, 10), 2)), digits, 20)  # ten batches are an epoch
    share = copies(state.trainee, start)
    assert (share < 0.05) if become_different else (share > 0.9)


def test_pipelines_that_were_stored_before_there_were_kinds_still_mean_copies() -> None:
    stored = using(Net2Net(noise=0.03, new_channels="copies")).to_json()
    plain = json.loads(json.dumps(stored))
    assert plain["strategies"][0].pop("new_channels") == "copies"
    assert Pipeline.from_json(plain) == Pipeline.from_json(stored)
    assert Pipeline.from_json(using(Net2Net()).to_json()) == using(Net2Net())


@pytest.mark.parametrize(("kind", "grows"), [("fresh", True), ("copies", False), ("antisymmetric", False)])
def test_what_only_frozen_layers_read_is_not_grown_and_frozen_filters_are_not_copied(
    kind: str, grows: bool, digits: Dataset
) -> None:
    """The stem and the first stage are frozen by then: its channels are read by the second, its interior by nobody."""
    net2net = growing(new_channels=kind, start_depth=1.0, at=0.75, until=0.75)
    state = begin(using(Freeze(start=0.25, until=1.0), net2net, depth=1), digits)
    for epoch in (1, 2, 3):
        state = bound(boundary(state, epoch))
    kept = "stage0.block0" if grows else "stage0, stage0.block0"
    assert f"frozen layers keep their width: {kept}" in state.events
    assert shape(state) == ("16[8]-32[32]" if grows else "8[8]-32[32]")


def test_a_network_whose_transition_blocks_have_no_branch_deepens(digits: Dataset) -> None:
    fast = replace(TASK, family="fast")
    pipeline = using(growing(operators="deeper"), width=0.125, depth=2)
    start = starting_state(pipeline, fast, digits, SEEDS)
    assert (shape(start), start.full.describe()) == ("8[]-16[0 16]-32[0]-64[0 64]", "8[]-16[0 16 16]-32[0]-64[0 64 64]")
    grown = boundary(start, 2)
    assert grown.trainee.model.architecture == grown.full


def test_new_channels_and_blocks_are_born_when_they_grow(digits: Dataset) -> None:
    grown = boundary(begin(using(growing()), digits), 2)
    for axis, size in {"stage0": 8, "stage0.block0": 8, "stage1": 16, "stage1.block0": 16}.items():
        assert grown.trainee.born[axis].tolist() == [0] * size + [2] * size
    for axis, size in {"stage0.block1": 16, "stage1.block1": 32}.items():
        assert grown.trainee.born[axis].tolist() == [2] * size


def test_a_new_block_learns_from_its_first_step(digits: Dataset) -> None:
    """Its last gamma is 0: it has no gradient but that of this gamma, and the rest once the gamma has moved."""
    state = bound(boundary(begin_in_double(using(growing(), weight_decay=0.0), digits), 2))
    for s in (0, 1):
        assert not state.trainee.model.get_parameter(f"stages.{s}.1.bn2.weight").any()
    before = contents(state.trainee)
    first = contents(stepped(state, digits).trainee)
    second = contents(stepped(state, digits).trainee)
    for s in (0, 1):
        for name in (f"model stages.{s}.1.conv1.weight", f"model stages.{s}.1.conv2.weight"):
            assert torch.equal(first[name], before[name])
            assert not torch.equal(second[name], before[name])
        assert first[f"model stages.{s}.1.bn2.weight"].all()


# --- when it grows ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "until", "steps", "epochs", "expected"),
    [
        (0.5, 0.5, 1, 4, {2: FULL}),
        (0.3, 0.9, 1, 10, {3: FULL}),  # one growth reaches everything
        (0.3, 0.5, 2, 10, {3: "16[16 16]-24[24 24]", 5: FULL}),
        (0.1, 0.9, 3, 10, {1: "8[8]-24[24]", 5: "16[16 16]-24[24 24]", 9: FULL}),
        (0.3, 0.3, 2, 10, {3: FULL}),  # both at once
        (0.31, 0.31, 1, 10, {4: FULL}),  # growths wait for the next boundary
        (0.95, 0.95, 1, 10, {9: FULL}),  # but not for one that does not come
        (0.6, 0.9, 2, 2, {1: FULL}),
    ],
)
def test_it_grows_in_steps_from_at_until_until(
    at: float, until: float, steps: int, epochs: int, expected: dict[int, str], digits: Dataset
) -> None:
    net2net = growing(at=at, until=until, steps=steps)
    state, grown = begin(using(net2net, epochs=epochs), digits), {}
    settled = {}
    for epoch in range(1, epochs):
        before, state = shape(state), boundary(state, epoch)
        settled[epoch] = (net2net.settled(state), before == FULL)
        if state.events:
            grown[epoch] = shape(state)
            assert state.events[0].startswith(f"grown {before} to ")
            assert state.events[-1].endswith(f" to {shape(state)}")
    assert grown == expected
    assert all(claimed == full for claimed, full in settled.values())  # of the network that was trained and evaluated


@pytest.mark.parametrize("lr_after", [0.25, 1.0])
def test_after_a_growth_the_learning_rate_falls_from_its_new_share_to_nothing(lr_after: float, digits: Dataset) -> None:
    state = begin(using(growing(lr_after=lr_after, steps=2, at=0.25, until=0.5), epochs=8), digits)
    before = state.schedule
    for epoch in range(1, 8):
        state = boundary(state, epoch)
        if epoch < 2:
            assert state.schedule == before
            continue
        start = 2 if epoch < 4 else 4  # growths
        for now in (epoch, epoch + 0.3):
            assert state.schedule(now) == pytest.approx(lr_after * (8 - now) / (8 - start))


def test_without_a_share_of_its_own_the_schedule_goes_on(digits: Dataset) -> None:
    state = begin(using(growing()), digits)
    assert boundary(state, 2).schedule is state.schedule


@pytest.mark.parametrize(
    "parameters",
    [
        {"start_width": 0.0},
        {"start_depth": 1.1},
        {"at": 0.0},
        {"at": 0.6, "until": 0.5},
        {"until": 1.0},
        {"steps": 0},
        {"noise": -0.1},
        {"lr_after": 1.1},
        {"operators": "narrower"},
        {"new_channels": "old"},
    ],
    ids=str,
)
def test_parameters_out_of_range_are_refused_in_one_line(parameters: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"^Net2Net\(.*\): .*(start_width|steps|operators|new_channels)"):
        Net2Net(**parameters)  # type: ignore[arg-type]


# --- with PruneTrain --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kill(Strategy):
    """Kills the last channels of some axes at a boundary, as a strong penalty would."""

    axes: tuple[str, ...]
    n_left: int
    epoch: int

    def between_epochs(self, state: TrainState) -> TrainState:
        if state.epoch == self.epoch:
            killed(state.trainee, {axis: torch.arange(self.n_left) for axis in self.axes})
        return state


PRUNING = PruneTrain(lpr=1e-3, interval=1)  # kills nothing by itself


@pytest.mark.parametrize("order", [(PRUNING, growing()), (growing(), PRUNING)], ids=["prune, grow", "grow, prune"])
@pytest.mark.parametrize(
    ("axes", "n_left", "pruned", "grown"),
    [
        (("stage0.block0",), 5, "8[5]-16[16]", "16[5 16]-32[32 32]"),
        (("stage1",), 5, "8[8]-5[16]", "16[16 16]-5[32 32]"),
        (("stage0", "stage1.block0"), 7, "7[8]-16[7]", "7[16 16]-32[7 32]"),
        (("stage0", "stage0.block0", "stage1", "stage1.block0"), 3, "3[3]-3[3]", "3[3 16]-3[3 32]"),
        (("stage1.block0",), 0, "8[8]-16[0]", "16[16 16]-32[0]"),  # nor does a stage that lost a block gain one
        (("stage0.block0",), 0, "8[0]-16[16]", "16[0]-32[32 32]"),
    ],
)
def test_what_was_pruned_in_a_round_is_not_grown_in_it(
    order: tuple[Strategy, ...], axes: tuple[str, ...], n_left: int, pruned: str, grown: str, digits: Dataset
) -> None:
    reports, trained = finish(using(Kill(axes, n_left, epoch=1), *order), digits)
    assert reports[0].events[-1] == f"pruned {HALF} to {pruned}"
    assert reports[1].events[0] == f"grown {pruned} to {grown}"
    assert trained.model.architecture.describe() == grown


def test_pruning_comes_first_where_both_are_due(digits: Dataset) -> None:
    kill = Kill(("stage0.block0",), 5, epoch=2)
    reports, _ = finish(using(kill, PRUNING, growing()), digits)
    assert reports[1].events == (
        f"pruned {HALF} to 8[5]-16[16]",
        "grown 8[5]-16[16] to 16[5 16]-32[32 32]",
    )


def test_what_was_pruned_before_it_grew_stays_as_it_is_in_later_rounds(digits: Dataset) -> None:
    kill = Kill(("stage1",), 12, epoch=1)
    reports, trained = finish(using(kill, PRUNING, growing(steps=2, at=0.5, until=0.75)), digits)
    assert [len(report.events) for report in reports[1:]] == [1, 1, 0]
    assert trained.model.architecture.describe() == "16[16 16]-12[32 32]"


def test_what_grew_is_in_its_grace_and_outlives_it(digits: Dataset) -> None:
    state = bound(boundary(begin(using(PRUNING, growing()), digits), 2))
    (pruning, _) = state.pipeline.strategies
    assert isinstance(pruning, PruneTrain)
    assert pruning.exempt is not None
    assert {axis: int(mask.sum()) for axis, mask in pruning.exempt.items()} == {
        **{"stage0": 8, "stage0.block0": 8, "stage1": 16, "stage1.block0": 16},
        **{"stage0.block1": 16, "stage1.block1": 32},
    }
    reports, trained = finish(using(PRUNING, growing()), digits)
    assert trained.model.architecture.describe() == FULL
    assert reports[-1].accuracy >= 0.6
