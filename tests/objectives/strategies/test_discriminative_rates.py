"""The laws of DiscriminativeRates."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from objectives.data.dataset import Dataset
from objectives.networks.plain import sections
from objectives.networks.surgery import drop_block, insert_block, reindex
from objectives.networks.trainee import Trainee
from objectives.strategies.bias_learning_rate import BiasLearningRate
from objectives.strategies.discriminative_rates import DiscriminativeRates
from objectives.strategies.muon import Muon
from objectives.strategies.prune_train import PruneTrain
from objectives.train import set_lr
from tests.objectives.strategies.cases import PLAIN_GROUNDS, begin, contents, finish, repeats, stepped, subset, using
from tests.objectives.strategies.starting import equal, started

RATES = DiscriminativeRates(body=0.5, decay=0.25)
EXPECTED = {"head": 1.0, "stages.1": 0.5, "stages.0": 0.125, "stem": 0.03125}


def rates(trainee: Trainee, lr: float = 1.0) -> dict[str, float]:
    """The learning rate of every parameter, by name."""
    set_lr(trainee.optimizer, lr)
    names = {parameter: name for name, parameter in trainee.model.named_parameters()}
    return {names[p]: float(group["lr"]) for group in trainee.optimizer.param_groups for p in group["params"]}


def expected(name: str) -> float:
    return next(rate for section, rate in EXPECTED.items() if name.startswith(f"{section}."))


def is_as_expected(trainee: Trainee, factor: float = 1.0) -> bool:
    found = rates(trainee, factor)
    assert found.keys() == dict(trainee.model.named_parameters()).keys()  # each is in one group
    return all(rate == pytest.approx(factor * expected(name)) for name, rate in found.items())


def test_each_stage_learns_more_slowly_than_the_next(digits: Dataset) -> None:
    state = started(digits, RATES, depth=2)
    assert is_as_expected(state.trainee)
    assert is_as_expected(state.trainee, 0.3)  # whatever the schedule says


def test_layers_of_a_plain_network_count_as_stages(digits: Dataset) -> None:
    ground = PLAIN_GROUNDS["lenet300"]
    found = rates(begin(ground.using(RATES), digits, ground.task).trainee)
    assert {name.partition(".")[0]: rate for name, rate in found.items()} == {"dense1": 0.125, "dense2": 0.5, "head": 1}


def test_rates_stay_with_their_stages_through_surgery(digits: Dataset) -> None:
    torch.manual_seed(3)
    trainee = stepped(started(digits, RATES, depth=2), digits, 3).trainee
    for index in (subset(trainee), repeats(trainee)):
        assert is_as_expected(reindex(trainee, index))
    for stage in (0, 1):
        deeper = insert_block(trainee, stage, 2, 5)
        assert is_as_expected(deeper)
        assert is_as_expected(drop_block(deeper, stage, 1))


def test_it_changes_nothing_by_itself(digits: Dataset) -> None:
    plain, slower = (started(digits, *strategies).trainee for strategies in ((), (RATES,)))
    assert equal(contents(plain), contents(slower))


def test_a_step_is_as_much_shorter_as_the_rate_says(digits: Dataset) -> None:
    """Of SGD without momentum; weight decay keeps its share of the step."""
    settings = {"momentum": 0.0, "weight_decay": 0.1}
    before = started(digits, **settings).trainee.model.state_dict()
    moved = []
    for strategies in ((), (RATES,)):
        model = stepped(started(digits, *strategies, **settings), digits).trainee.model
        moved.append({name: p.detach() - before[name] for name, p in model.named_parameters()})
    for name, whole in moved[0].items():
        torch.testing.assert_close(moved[1][name], expected(name) * whole, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("other", [BiasLearningRate(factor=8.0), Muon(lr=0.1)], ids=repr)
def test_rates_multiply_those_of_other_strategies(other: Muon | BiasLearningRate, digits: Dataset) -> None:
    alone, both = (rates(begin(using(*strategies), digits).trainee) for strategies in ((other,), (other, RATES)))
    assert both == {name: pytest.approx(rate * expected(name)) for name, rate in alone.items()}


def test_pruning_shrinks_at_the_rate_of_the_head(digits: Dataset) -> None:
    state = begin(using(RATES, PruneTrain(lpr=0.4)), digits)
    first = state.trainee.optimizer.param_groups[0]
    assert first.get("lr_factor", 1.0) == 1
    assert state.trainee.model.head.weight in set(first["params"])


def test_a_run_that_grows_and_prunes_keeps_its_rates(digits: Dataset) -> None:
    reports, trained = finish(using(RATES, PruneTrain(lpr=0.4, interval=3, threshold=0.2)), digits)
    assert any("pruned" in event for report in reports for event in report.events)
    assert sections(trained.model.architecture) == ("stem", "stages.0", "stages.1")


@pytest.mark.parametrize("parameters", [{"body": 0.0}, {"body": 1.5}, {"decay": 0.0}, {"decay": 2.0}])
def test_parameters_out_of_range_are_refused_with_the_ranges(parameters: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"body and decay must lie in \(0, 1\]"):
        replace(RATES, **parameters)  # type: ignore[arg-type]
