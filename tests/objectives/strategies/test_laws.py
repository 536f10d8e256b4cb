"""The laws that every strategy obeys, over the one list of all of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache
from itertools import permutations

import pytest
import torch
from torch import Tensor

from objectives.data.dataset import Dataset
from objectives.device.formats import LossScaler
from objectives.networks.architecture import Architecture
from objectives.networks.network import architecture_of, build
from objectives.networks.norms import gains
from objectives.networks.surgery import drop_block, insert_block, reindex
from objectives.networks.trainee import Trainee
from objectives.pipeline import Pipeline, Report
from objectives.state import TrainState
from objectives.strategies import STRATEGIES
from objectives.strategies.base import Outline, Strategy
from objectives.strategies.ema import Ema
from objectives.strategies.net2net import Net2Net
from objectives.strategies.prune_train import PruneTrain
from objectives.train import Trained, after_boundary, bound, deployed, starting_state
from spaces import acceleration
from tests.objectives.strategies.cases import (
    CASES,
    EMULATED,
    NEED_BLOCKS,
    PLAIN,
    PLAIN_CASES,
    PLAIN_GROUNDS,
    RARE,
    RESIDUAL,
    SEEDS,
    Case,
    Ground,
    Surgery,
    begin,
    begin_in_double,
    contents,
    executor,
    finish,
    first_batch,
    killed,
    repeats,
    same_weights,
    stepped,
    subset,
    untimed,
    using,
)

GROUNDS = (RESIDUAL, *PLAIN_GROUNDS.values())
EVERYWHERE = {**CASES, **PLAIN_CASES}
each_strategy = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())

ON_PLAIN_NETWORKS = ("Net2Net", "PruneTrain", "Swa")  # surgery either way, and a second copy of the weights


def marks(name: str, *, is_dear: bool = False) -> tuple[pytest.MarkDecorator, ...]:
    """Of rare strategies `make test` tries laws that are not dear, and plain networks with a few others alone."""
    of = name.partition(" on ")[0]
    is_long = of not in ON_PLAIN_NETWORKS if name not in CASES else is_dear and of in RARE
    return (pytest.mark.long,) if is_long else ()


def each_case(*, is_dear: bool = False) -> pytest.MarkDecorator:
    cases = [pytest.param(case, id=n, marks=marks(n, is_dear=is_dear)) for n, case in EVERYWHERE.items()]
    return pytest.mark.parametrize("case", cases)


each_strategy_everywhere = each_case()
FORMATS = {f"{name}-fp32": (case, "fp32") for name, case in EVERYWHERE.items()}
FORMATS |= {f"{name}-bf16": (case, "bf16") for name, case in CASES.items() if not case.active.number_formats}
# Emulated formats are slow and differ in how they round: one of them, after what changes weights, tells of all.
WEIGHTS = ("LotteryTicket", "LowRank", "Muon", "PruneTrain", "Swa", "SwitchFormat")
FORMATS_OF_RUNS = {*EMULATED, "SwitchFormat"}


ORDER = {name: n for n, name in enumerate(CASES)}
OFFERED = {kind for kind, _ in acceleration.INGREDIENTS.values()}  # by the default space


def is_long(one: str, other: str) -> bool:
    if not RARE.isdisjoint((one, other)) or ORDER[one] > ORDER[other]:  # the other order is tried
        return True
    if OFFERED.isdisjoint((type(CASES[one].active), type(CASES[other].active))):
        return True
    is_quick = one in WEIGHTS and other == EMULATED[0]
    return bool({one, other} & FORMATS_OF_RUNS) and not is_quick and not {one, other} <= set(EMULATED)


PAIRS = [
    pytest.param(names, marks=[pytest.mark.long] * is_long(*names), id=" then ".join(names))
    for names in permutations(CASES, 2)
]
Untouched = Callable[[Ground, str], tuple[list[Report], Trained]]


@pytest.fixture(scope="module")
def untouched(digits: Dataset) -> Untouched:
    """The run of a ground without any strategy, in a number format: one for all strategies."""

    @cache
    def run(ground: Ground, number_format: str) -> tuple[list[Report], Trained]:
        return finish(ground.using(number_format=number_format), digits, ground.task)

    return run


@pytest.mark.parametrize("name", NEED_BLOCKS)
@pytest.mark.parametrize("ground", PLAIN_GROUNDS.values(), ids=PLAIN_GROUNDS.keys())
def test_what_needs_blocks_refuses_to_train_a_plain_network_in_one_line(
    name: str, ground: Ground, digits: Dataset
) -> None:
    for strategy in (CASES[name].active, CASES[name].neutral):
        with pytest.raises(ValueError, match=f"{name} needs a residual network") as refused:
            finish(ground.using(strategy), digits, ground.task)
        assert str(refused.value).endswith(f"{ground.task.family} is a plain one: leave it out")
        assert "\n" not in str(refused.value)


def test_every_strategy_has_a_case_with_parameters_of_its_own() -> None:
    assert set(CASES) == set(STRATEGIES)
    for name, case in CASES.items():
        assert type(case.active) is type(case.neutral) is STRATEGIES[name]


@each_strategy_everywhere
def test_it_trains(case: Case, digits: Dataset) -> None:
    reports, _ = finish(case.using(case.active), digits, case.task)
    assert reports[-1].epoch == reports[-1].epochs
    assert reports[-1].accuracy >= 0.6
    assert not any(report.diverged for report in reports)


@each_case(is_dear=True)
def test_it_is_reproducible_under_a_seed(case: Case, digits: Dataset) -> None:
    (reports, trained), (others, other) = (
        finish(case.using(case.active, crop=True), digits, case.task) for _ in range(2)
    )
    assert list(map(untimed, reports)) == list(map(untimed, others))
    assert same_weights(trained.model, other.model)


@pytest.mark.parametrize(
    ("case", "number_format"),
    [
        pytest.param(*each, id=name, marks=marks(name.rpartition("-")[0], is_dear=each[1] != "fp32"))
        for name, each in FORMATS.items()
    ],
)
def test_at_neutral_parameters_it_leaves_the_run_untouched(
    case: Case, number_format: str, digits: Dataset, untouched: Untouched
) -> None:
    reports, trained = finish(case.using(case.neutral, number_format=number_format), digits, case.task)
    others, other = untouched(case.ground, number_format)
    (idle,) = reports[0].events  # and says so
    assert idle.startswith(f"{type(case.neutral).__name__} does nothing in this run: ")
    reports[0] = replace(reports[0], events=())
    assert list(map(untimed, reports)) == list(map(untimed, others))
    assert same_weights(trained.model, other.model)


@each_strategy_everywhere
def test_it_knows_before_a_run_whether_it_can_act(case: Case, digits: Dataset) -> None:
    outline = Outline(starting_state(case.using(), case.task, digits, SEEDS).full, digits.size, PLAIN.epochs)
    assert case.active.idle(outline) is None or case.active.architecture(outline.full) != outline.full
    assert case.neutral.idle(outline) is not None


@each_strategy_everywhere
def test_at_active_parameters_it_changes_the_run_and_reports_what_it_did(
    case: Case, digits: Dataset, untouched: Untouched
) -> None:
    reports, trained = finish(case.using(case.active), digits, case.task)
    events = [event for report in reports for event in report.events]
    assert len(events) == len(case.events)
    assert all(re.fullmatch(pattern, event) for pattern, event in zip(case.events, events, strict=True))
    assert reports[-1].events == ()  # nothing follows the last epoch
    assert not same_weights(trained.model, untouched(case.ground, "fp32")[1].model)


@each_case(is_dear=True)
def test_a_run_that_diverges_ends_as_any_other_and_says_so(case: Case, digits: Dataset) -> None:
    """Whatever a strategy does at a boundary it does not fail on weights that are not finite any more."""
    absurd = case.using(case.active, lr=100.0, momentum=0.99, weight_decay=1.0, schedule="step")
    reports, _ = finish(absurd, digits, case.task)
    assert reports[-1].epoch == reports[-1].epochs
    assert any(report.diverged for report in reports) != case.saturates


@each_strategy_everywhere
def test_it_survives_json_without_what_it_learned(case: Case, digits: Dataset) -> None:
    pipeline = case.using(case.active)
    assert Pipeline.from_json(json.loads(json.dumps(pipeline.to_json()))) == pipeline
    (learned,) = begin(pipeline, digits, case.task).pipeline.strategies
    assert (learned is not case.active) == case.learns
    assert learned == case.active
    assert (hash(learned), repr(learned), learned.to_json()) == (
        hash(case.active),
        repr(case.active),
        case.active.to_json(),
    )
    assert repr(case.active) in repr(pipeline)


@each_strategy
def test_it_survives_the_process_boundary(case: Case, digits: Dataset) -> None:
    pipeline = Pipeline.from_json(json.loads(json.dumps(case.using(case.active).to_json())))
    reports, trained = finish(pipeline, digits, case.task)
    received = [Report.from_json(json.loads(json.dumps(report.to_json()))) for report in reports]
    assert received == reports
    expected, direct = finish(case.using(case.active), digits, case.task)
    assert list(map(untimed, received)) == list(map(untimed, expected))
    assert same_weights(trained.model, direct.model)
    assert trained.pipeline.to_json() == case.using(case.active).to_json()


@each_strategy
def test_it_is_prepared_once_for_a_segment(case: Case, digits: Dataset) -> None:
    """A strategy that becomes another one makes an executor capture its step again."""
    for strategy in (case.active, case.neutral):
        state = begin(case.using(strategy), digits, case.task)
        assert bound(state).pipeline.strategies[0] is state.pipeline.strategies[0]


SEVERAL = (Net2Net(at=0.2, until=0.4, steps=2), PruneTrain(lpr=1e-3, interval=1), Ema(horizon=3.0))
LONG_LIVED: dict[str, tuple[Ground, tuple[Strategy, ...]]] = {
    **{name: (case.ground, (case.active,)) for name, case in EVERYWHERE.items()},
    **{f"growth, its grace and averages, {n}": (ground, SEVERAL) for n, ground in enumerate(GROUNDS)},
}


@pytest.mark.parametrize(("ground", "strategies"), LONG_LIVED.values(), ids=LONG_LIVED.keys())
def test_a_segment_ends_only_where_a_strategy_says_that_it_did_something(
    ground: Ground, strategies: tuple[Strategy, ...], digits: Dataset
) -> None:
    """Each new segment is a new executor: a compilation or a capture. What changes every epoch lives in tensors."""
    state = begin(ground.using(*strategies, epochs=10), digits, ground.task)
    n_ended = 0
    for epoch in range(1, 10):
        before = executor(stepped(state, digits)).segment
        state = bound(after_boundary(replace(state, epoch=epoch, loss=1 / epoch, events=())))
        ended = not executor(state).segment.is_same(before)
        n_ended += ended
        assert bool(state.events) or not ended, epoch
    assert n_ended <= 4


@each_strategy_everywhere
@pytest.mark.parametrize("n_taken_before", [0, 2])
def test_a_step_skipped_by_loss_scaling_changes_nothing(case: Case, n_taken_before: int, digits: Dataset) -> None:
    if case.active.number_formats:
        with pytest.raises(ValueError, match="cannot run in number format fp16: choose fp32"):
            case.using(case.active, number_format="fp16")
        return
    state = begin(case.using(case.active, number_format="fp16"), digits, case.task)
    running = executor(state, LossScaler("cpu", 2.0**12))
    x, y = first_batch(digits)
    for _ in range(n_taken_before):
        assert running.step(x, y).taken == 1
    before = contents(state.trainee)
    assert running.step(x * 1e6, y).taken == 0
    after = contents(state.trainee)
    assert after.keys() == before.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []


@each_strategy
def test_a_run_teaches_nothing_to_the_strategy_that_was_sampled(case: Case, digits: Dataset) -> None:
    before = vars(case.active).copy()
    finish(case.using(case.active), digits, case.task)
    assert vars(case.active) == before


@pytest.mark.parametrize("names", PAIRS)
def test_any_two_strategies_train_together_or_refuse_each_other(names: tuple[str, str], digits: Dataset) -> None:
    one, other = (CASES[name].active for name in names)
    if one.refuses(other) or other.refuses(one):
        with pytest.raises(ValueError, match="cannot run with"):
            using(one, other)
        return
    ground = next((CASES[name].ground for name in names if CASES[name].ground is not RESIDUAL), RESIDUAL)
    if one.number_formats or other.number_formats:
        ground = replace(ground, plain=replace(ground.plain, number_format="fp32"))
    reports, _ = finish(ground.using(one, other), digits)
    assert reports[-1].accuracy >= 0.5


# --- surgery ----------------------------------------------------------------------------------------------------------


def pruned_and_widened(trainee: Trainee) -> Trainee:
    """Every other axis loses channels at random, the others gain copies."""
    fewer, more = subset(trainee), repeats(trainee)
    return reindex(trainee, {axis: (fewer, more)[n % 2][axis] for n, axis in enumerate(fewer)}, epoch=1)


def deepened(trainee: Trainee) -> Trainee:
    return insert_block(trainee, 0, len(trainee.model.architecture.stages[0].interiors), 5, epoch=1)


def without_a_branch(trainee: Trainee) -> Trainee:
    stages = enumerate(trainee.model.architecture.stages)
    stage, block = next((s, b) for s, stage in stages for b, interior in enumerate(stage.interiors) if interior)
    return drop_block(trainee, stage, block)


SURGERIES = (pruned_and_widened, deepened, without_a_branch)
OPERATIONS = {  # plain networks have no blocks
    f"{name}-{surgery.__name__}": (case, surgery)
    for name, case in EVERYWHERE.items()
    for surgery in SURGERIES[: 1 if case.task.family in PLAIN_GROUNDS else None]
}


@pytest.mark.parametrize(
    ("case", "surgery"),
    [
        pytest.param(*each, id=name, marks=marks(name.rpartition("-")[0], is_dear=each[1] is not SURGERIES[0]))
        for name, each in OPERATIONS.items()
    ],
)
def test_a_training_goes_on_after_surgery(case: Case, surgery: Callable[[Trainee], Trainee], digits: Dataset) -> None:
    torch.manual_seed(4)
    state = stepped(begin(case.using(case.active), digits, case.task), digits, 3)
    before = contents(state.trainee)
    operated = surgery(state.trainee)
    state = stepped(bound(replace(state, trainee=operated, epoch=1)), digits, 3)
    after, shapes = contents(state.trainee), {name: t.shape for name, t in operated.model.state_dict().items()}
    assert {kind_and_name.split(" ")[0] for kind_and_name in after} == {name.split(" ")[0] for name in before}
    for kind_and_name, tensor in after.items():
        assert tensor.shape in (shapes[kind_and_name.split(" ")[1]], ()), kind_and_name
        assert tensor.isfinite().all(), kind_and_name
    assert state.trainee is operated
    network = deployed(state)
    assert network.architecture == operated.model.architecture
    assert network(first_batch(digits)[0]).isfinite().all()


@dataclass(frozen=True)
class Operate(Strategy):
    """All surgeries, one at each boundary, whatever the others do; of plain networks the one that they have."""

    def between_epochs(self, state: TrainState) -> TrainState:
        if state.epoch > (len(SURGERIES) if isinstance(state.full, Architecture) else 1):
            return state
        return replace(state, trainee=SURGERIES[state.epoch - 1](state.trainee))


@each_case(is_dear=True)
def test_it_trains_while_another_strategy_operates(case: Case, digits: Dataset) -> None:
    for strategies in ((case.active, Operate()), (Operate(), case.active)):
        reports, trained = finish(case.using(*strategies), digits, case.task)
        # surgery may leave few channels to a layer, and no shortcut leads past one in a plain network
        assert reports[-1].accuracy >= (0.4 if case.ground is RESIDUAL else 0.25)
        assert not any(report.diverged for report in reports)
        rebuilt = build(architecture_of(trained.model.architecture.to_json()))
        rebuilt.load_state_dict(trained.model.state_dict())


def commuting(surgery: Surgery) -> pytest.MarkDecorator:
    cases = {name: case for name, case in EVERYWHERE.items() if surgery in case.commutes}
    return pytest.mark.parametrize("case", cases.values(), ids=cases.keys())


@commuting("pruning")
def test_a_step_commutes_with_pruning_dead_channels(case: Case, digits: Dataset) -> None:
    torch.manual_seed(5)
    state = stepped(begin_in_double(case.using(case.active), digits, case.task), digits, 3)
    keep = subset(state.trainee)
    killed(state.trainee, keep)
    pruned = bound(replace(state, trainee=reindex(state.trainee, keep)))
    assert pruned.trainee.model.architecture != state.trainee.model.architecture
    stepped(pruned, digits, 2)
    stepped(state, digits, 2)
    assert_close(contents(pruned.trainee), contents(reindex(state.trainee, keep)))


@commuting("widening")
def test_a_step_that_moves_no_weight_commutes_with_widening(case: Case, digits: Dataset) -> None:
    """Momentum, statistics and averages travel as they would have grown.

    Weights do not: producers that share a gradient take half of its step each, and consumers that share a weight take
    the whole step each. Weight decay is left out, since it pulls at a weight and not at a gradient.
    """
    torch.manual_seed(6)
    state = stepped(begin_in_double(case.using(case.active, lr=0.0, weight_decay=0.0), digits, case.task), digits, 3)
    index = repeats(state.trainee)
    wide = stepped(bound(replace(state, trainee=reindex(state.trainee, index))), digits)
    stepped(state, digits)
    assert_close(contents(wide.trainee), contents(reindex(state.trainee, index)))


@commuting("widening")
def test_a_step_commutes_with_widening_in_all_that_holds_no_copies(case: Case, digits: Dataset) -> None:
    """And in the momentum and the statistics of all the rest. See above for what does not commute.

    Nor do the gains of filters that read copies, and their momentum: both follow the length of the whole filter.
    """
    torch.manual_seed(7)
    start = stepped(begin_in_double(case.using(case.active, weight_decay=0.0), digits, case.task), digits, 3)
    for axis, channels in repeats(start.trainee).items():
        state, index = replace(start, trainee=deepcopy(start.trainee)), {axis: channels}
        wide = stepped(bound(replace(state, trainee=reindex(state.trainee, index))), digits)
        stepped(bound(state), digits)
        held, expected = contents(wide.trainee), contents(reindex(state.trainee, index))
        labels, parameters = wide.trainee.model.axes(), dict(wide.trainee.model.named_parameters())
        kinds = ("model", *wide.trainee.shadows)
        moved = [
            f"{kind} {name}"
            for kind in kinds
            for name in parameters
            if axis in labels[name] and f"{kind} {name}" in held
        ]
        tied = {name for names in gains.pairs(wide.trainee.model) if axis in labels[names[0]][1:] for name in names}
        moved += [key for key in held if key.partition(" ")[2] in tied and key not in moved]
        assert moved
        assert len(moved) < len(held) / 2
        for name in moved:
            del held[name], expected[name]
        assert_close(held, expected)


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """In double precision, but for the logits, which enter the loss in single precision."""
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


# --- what is learned --------------------------------------------------------------------------------------------------


def test_a_strategy_learns_only_what_it_declares() -> None:
    learned = Ema(2.0).having_learned(rate=0.5)
    assert (learned.horizon, learned.rate) == (2.0, 0.5)
    assert (learned.having_learned().rate, Ema(2.0).rate) == (0.5, None)
    with pytest.raises(TypeError, match="Ema learns no horizon"):
        Ema(2.0).having_learned(horizon=1.0)
