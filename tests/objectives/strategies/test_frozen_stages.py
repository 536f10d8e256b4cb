"""The laws of FrozenStages. What is computed once of frozen parts has laws of its own, in device/test_features.py."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
import torch
import torch.nn.functional as F

from objectives.data.dataset import Dataset
from objectives.device.executors import Compiled, Eager, Segment
from objectives.device.formats import FORMATS
from objectives.networks import flops
from objectives.networks.plain import sections
from objectives.networks.resnet import ResNet
from objectives.networks.surgery import insert_block
from objectives.networks.trainee import Trainee
from objectives.state import Step
from objectives.strategies.base import Strategy
from objectives.strategies.ema import Ema
from objectives.strategies.frozen_stages import FrozenStages
from objectives.strategies.net2net import Net2Net
from objectives.strategies.prune_train import PruneTrain
from objectives.strategies.swa import Swa
from objectives.train import deployed
from tests.objectives.strategies.cases import PLAIN_GROUNDS, contents, finish, first_batch, stepped, using
from tests.objectives.strategies.starting import boundary, equal, frozen, put_out, started, within

PARTS = ("stem.", "stages.0.", "stages.1.")
EARLY = FrozenStages(parts=2)


@dataclass(frozen=True)
class Gradients(Strategy):
    """Keeps the names of the parameters that have a gradient."""

    seen: set[str] = field(default_factory=set, compare=False)

    def gradients(self, trainee: Trainee, step: Step) -> None:
        self.seen.update(name for name, p in trainee.model.named_parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("strategy", "n_frozen"),  # parts in each of ten epochs
    [
        (FrozenStages(parts=1), [1] * 10),
        (FrozenStages(parts=9), [3] * 10),  # all but the head
        (FrozenStages(parts=0), [0] * 10),
        (FrozenStages(parts=3, until=0.6), [3, 3, 2, 2, 1, 1, 0, 0, 0, 0]),  # at 0.2, 0.4, 0.6
        (FrozenStages(parts=2, until=0.1), [2, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        (FrozenStages(parts=2, until=0.99), [2, 2, 2, 2, 2, 1, 1, 1, 1, 1]),  # its last share is never reached
    ],
    ids=repr,
)
def test_parts_thaw_from_the_head_down_at_even_intervals(
    strategy: FrozenStages, n_frozen: list[int], digits: Dataset
) -> None:
    state = started(digits, strategy, epochs=10, depth=2)
    for epoch in range(10):
        before = state.trainee
        state = boundary(state, epoch) if epoch else state
        model = state.trainee.model
        names = {name for name, _ in model.named_parameters() if name.startswith(PARTS[: n_frozen[epoch]])}
        assert frozen(model) == names
        assert model.still == n_frozen[epoch]
        changes = epoch > 0 and n_frozen[epoch] != n_frozen[epoch - 1]
        assert (state.trainee is not before) == changes
        assert epoch == 0 or bool(state.events) == changes
        if changes:
            assert frozen(before.model) > names  # the old trainee is as it was


@pytest.mark.parametrize("statistics", ["kept", "adapted"])
def test_frozen_parts_do_not_move_their_statistics_included_and_the_others_do(statistics: str, digits: Dataset) -> None:
    """Momentum, weight decay and averaging go on around them."""
    state = started(digits, replace(EARLY, statistics=statistics), Ema(), weight_decay=0.1)
    model = state.trainee.model
    before, moving = within(model, *PARTS[:2]), within(model, "stages.1.", "head.")
    stepped(state, digits, 5)
    assert equal(within(model, *PARTS[:2]), before)
    still_there = [name for name, t in within(model, "stages.1.", "head.").items() if torch.equal(t, moving[name])]
    assert all(name.endswith("num_batches_tracked") for name in still_there)


def test_kept_statistics_are_those_of_the_start(digits: Dataset) -> None:
    plain, kept = (started(digits, *strategies).trainee for strategies in ((), (EARLY,)))
    assert contents(plain).keys() == contents(kept).keys()
    assert equal(contents(plain), contents(kept))


def test_adapted_statistics_are_those_of_one_pass_over_all_images(digits: Dataset) -> None:
    """In one batch, so that means of means are means."""
    state = started(digits, replace(EARLY, statistics="adapted"), batch_size=500)
    model = state.trainee.model
    assert isinstance(model, ResNet)
    x = state.normalise(digits.train.x)
    for layer, norm in model.normed()[:2]:  # of the stem, and the first one of a block
        x = layer(x).detach()
        variance, mean = torch.var_mean(x, (0, 2, 3))
        torch.testing.assert_close((norm.running_mean, norm.running_var), (mean, variance), rtol=1e-5, atol=1e-6)
        x = F.relu(F.batch_norm(x, None, None, norm.weight, norm.bias, training=True)).detach()
    plain = started(digits, batch_size=500).trainee.model
    assert equal(within(model, "stages.1.", "head."), within(plain, "stages.1.", "head."))  # behind them nothing is new


def test_statistics_of_what_has_thawed_go_on(digits: Dataset) -> None:
    state = boundary(started(digits, FrozenStages(parts=3, until=0.75)), 1)
    before = within(state.trainee.model, *PARTS)
    stepped(state, digits, 2)
    after = within(state.trainee.model, *PARTS)
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved
    assert all(name.startswith("stages.1.") for name in moved)
    assert "stages.1.0.bn1.running_mean" in moved


@pytest.mark.parametrize("ground", [None, *PLAIN_GROUNDS], ids=str)
def test_the_backward_pass_ends_behind_what_is_frozen(ground: str | None, digits: Dataset) -> None:
    watch = Gradients()
    where = {} if ground is None else {"ground": PLAIN_GROUNDS[ground]}
    state = started(digits, EARLY, watch, **where)  # type: ignore[arg-type]
    model = state.trainee.model
    parts = tuple(f"{name}." for name in sections(model.architecture)[:2])
    has_node: dict[str, bool] = {}
    for name, layer in model.named_modules():
        layer.register_forward_hook(lambda _, __, out, name=name: has_node.update({name: out.requires_grad}))
    stepped(state, digits)
    trained = {name for name, _ in model.named_parameters() if not name.startswith(parts)}
    assert watch.seen == trained
    assert len(has_node) > 3
    for name, found in has_node.items():
        assert found == (not f"{name}.".startswith(parts)), name


def test_flops_fall_as_counted(digits: Dataset) -> None:
    """Cropped images are new ones in every epoch: the forward pass stays whole, the backward pass ends early."""
    reports, trained = finish(using(FrozenStages(parts=3, until=0.75), crop=True), digits)
    names = [{name for name, _ in trained.model.named_parameters() if name.startswith(PARTS[:n])} for n in (3, 2, 1)]
    work = [flops.count(trained.model.architecture, 8, frozenset(each))[1] for each in (*names, set())]
    assert work == sorted(work)
    assert len(set(work)) == 4
    assert [report.train_flops for report in reports] == [500 * sum(work[: n + 1]) for n in range(4)]


def test_frozen_parts_compute_as_in_evaluation(digits: Dataset) -> None:
    state = started(digits, EARLY)
    model, (x, _) = state.trainee.model.train(), first_batch(digits)
    assert model.fixed() == 2
    assert torch.equal(put_out(model, 2, x), put_out(model.eval(), 2, x))


@pytest.mark.parametrize("parts", [1, 2])
def test_pruning_goes_on_and_leaves_what_frozen_parts_put_out_as_it_was(parts: int, digits: Dataset) -> None:
    """What nobody reads any more is removed at both ends; the channels that stay hold the very numbers."""
    prune = PruneTrain(lpr=0.9, interval=1, threshold=0.2)
    state = started(digits, prune, FrozenStages(parts=parts))
    before = state.trainee.model
    for epoch in (1, 2, 3):
        state = boundary(stepped(state, digits, 10), epoch)
    after, (x, _) = state.trainee.model, first_batch(digits)
    assert after.architecture != before.architecture
    assert after.still == parts
    assert frozen(after) == {name for name, _ in after.named_parameters() if name.startswith(PARTS[:parts])}
    held, kept = (put_out(model, parts, x).unbind(1) for model in (before, after))
    assert all(any(torch.allclose(channel, other, atol=1e-6) for other in held) for channel in kept)


def test_pruning_begins_with_a_word_where_nothing_is_left_to_prune(digits: Dataset) -> None:
    reports, trained = finish(using(FrozenStages(parts=9), PruneTrain(lpr=0.4)), digits)
    assert reports[0].events == ("PruneTrain does nothing in this run: all that it could prune is frozen",)
    assert trained.model.architecture.describe() == "8[8]-16[16]"


def test_what_growth_adds_to_a_frozen_part_trains(digits: Dataset) -> None:
    state = started(digits, EARLY)
    deeper = insert_block(state.trainee, 0, 1, 5)
    model = deeper.model
    assert frozen(model) == {
        name for name in dict(model.named_parameters()) if name.startswith(("stem.", "stages.0.0."))
    }
    assert model.fixed() == 2  # the stem and the first block: features end before what trains
    assert [model.get_submodule(f"stages.0.{block}").training for block in range(2)] == [False, True]
    before = within(model, "stem.", "stages.0.")
    stepped(replace(state, trainee=deeper), digits, 2)
    moved = {name for name, t in within(model, "stem.", "stages.0.").items() if not torch.equal(t, before[name])}
    assert moved
    assert all(name.startswith("stages.0.1.") for name in moved)


def test_a_run_grows_while_its_early_parts_are_frozen(digits: Dataset) -> None:
    grow = Net2Net(start_width=0.5, start_depth=0.5, at=0.3, until=0.3)
    reports, _ = finish(using(grow, FrozenStages(parts=2), depth=2), digits)
    assert any("grown" in event for report in reports for event in report.events)
    assert reports[-1].accuracy >= 0.5


def test_an_average_that_is_deployed_keeps_the_statistics_of_frozen_parts(digits: Dataset) -> None:
    state = started(digits, EARLY, Swa(start=0.25, images=100))
    for epoch in (1, 2, 3):
        state = boundary(stepped(state, digits, 3), epoch)
    averaged = deployed(stepped(replace(state, epoch=4), digits))
    assert averaged is not state.trainee.model
    assert equal(within(averaged, *PARTS[:2]), within(state.trainee.model, *PARTS[:2]))
    assert not equal(within(averaged, "stages.1."), within(state.trainee.model, "stages.1."))


@pytest.mark.parametrize("behind", [0, 2])
def test_a_compiled_step_does_what_an_eager_one_does(behind: int, digits: Dataset) -> None:
    """On images, and on what two frozen parts make of them."""
    states = [started(digits, EARLY) for _ in range(2)]
    x, y = first_batch(digits)
    x = put_out(states[0].trainee.model, behind, x)
    segments = [Segment(s.trainee, s.pipeline.strategies, FORMATS["fp32"], None, 0.0, behind) for s in states]
    for running in (Eager(segments[0]), Compiled(segments[1], backend="aot_eager")):
        for _ in range(3):
            running.step(x, y)
        assert running.notes == []
    torch.testing.assert_close(*(contents(state.trainee) for state in states), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("parameters", [{"parts": -1}, {"until": 0.0}, {"until": 1.1}, {"statistics": "new"}])
def test_parameters_out_of_range_are_refused_with_the_ranges(parameters: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"parts from 0, until in \(0, 1\]|statistics are kept or adapted"):
        FrozenStages(**parameters)  # type: ignore[arg-type]
