"""The laws of FixedArchitecture."""

from __future__ import annotations

import pytest

from objectives.data.dataset import Dataset
from objectives.networks import flops
from objectives.networks.architecture import FAMILIES, Architecture, build
from objectives.strategies.adaptive import Adaptive
from objectives.strategies.base import Outline, Strategy
from objectives.strategies.fixed_architecture import FixedArchitecture
from objectives.strategies.haar_stem import HaarStem
from objectives.strategies.net2net import Net2Net
from objectives.strategies.prune_train import PruneTrain
from tests.objectives.strategies.cases import PLAIN, begin, finish, same_weights, using

FOUND = ((8, (5, 0)), (12, (7,)))  # as PruneTrain leaves networks


def plain(family: str) -> Architecture:
    return build(family, depth=1, width=0.5, in_channels=3, n_classes=10, stem_stride=2)


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("stages", [FOUND, ((8, ()),), ((8, (3,)), (8, (0,)), (4, (2, 2)), (1, (1,)))], ids=repr)
def test_stages_are_those_given_as_many_as_there_are_and_nothing_else_changes(
    family: str, stages: tuple[tuple[int, tuple[int, ...]], ...]
) -> None:
    before, strategy = plain(family), FixedArchitecture(stages)
    after = strategy.architecture(before)
    assert tuple((stage.width, stage.interiors) for stage in after.stages) == stages
    expected = before.to_json() | {"stages": after.to_json()["stages"]}
    assert after.to_json() == expected
    assert strategy.describe() == f"fixed at {after.describe()}"
    assert FixedArchitecture.like(after) == strategy


def test_the_network_that_is_left_has_the_stages_and_the_full_one_is_what_the_settings_ask_for(digits: Dataset) -> None:
    reports, trained = finish(using(FixedArchitecture(FOUND), HaarStem()), digits)
    architecture = trained.model.architecture
    assert (architecture.describe(), architecture.stem) == ("8[5 0]-12[7]", "haar")
    assert [report.inference_flops for report in reports] == [flops.count(architecture, 8)[0]] * 4
    full = HaarStem().architecture(begin(PLAIN, digits).full)
    assert [report.full_flops for report in reports] == [flops.count(full, 8)[0]] * 4


def test_the_network_that_prune_train_found_trains_from_scratch(digits: Dataset) -> None:
    prunes = PruneTrain(lpr=0.4, interval=3, threshold=0.2)
    reports, found = finish(using(prunes), digits)
    again, trained = finish(using(FixedArchitecture.like(found.model.architecture)), digits)
    assert trained.model.architecture == found.model.architecture
    assert again[-1].inference_flops == reports[-1].inference_flops < reports[-1].full_flops
    assert again[-1].train_flops < reports[-1].train_flops
    assert not same_weights(trained.model, found.model)
    smaller, _ = finish(using(FixedArchitecture.like(found.model.architecture), prunes), digits)
    assert smaller[-1].inference_flops <= again[-1].inference_flops


@pytest.mark.parametrize("like", [False, True])
def test_stages_that_the_settings_ask_for_change_nothing_and_it_says_so(like: bool, digits: Dataset) -> None:
    full = begin(PLAIN, digits).full
    strategy = FixedArchitecture.like(full) if like else FixedArchitecture()
    assert strategy.idle(Outline(full, 8, 4)) == "the settings ask for the same network"
    assert FixedArchitecture(FOUND).idle(Outline(full, 8, 4)) is None


def test_lists_from_json_are_the_same_stages() -> None:
    read = FixedArchitecture([[8, [5, 0]], [12, [7]]])  # type: ignore[arg-type]
    assert (read, hash(read)) == (FixedArchitecture(FOUND), hash(FixedArchitecture(FOUND)))


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        (((0, (8,)),), "stage 0 has a width below 1 or an interior below 0"),
        (((8, (8,)), (8, (-1,))), "stage 1 has a width below 1 or an interior below 0"),
        (((8, (8,)), (8, ())), "stage 1 needs a transition block"),
        *((stages, "in whole numbers") for stages in (3, None, "8[8]", (8, 8), ((8,),), ((8, 8),), ((8.0, (8,)),))),
        (((True, (8,)),), "in whole numbers"),
    ],
    ids=repr,
)
def test_what_is_no_network_is_refused_in_one_line(stages: object, words: str) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        FixedArchitecture(stages)  # type: ignore[arg-type]
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("other", [Net2Net, Adaptive])
def test_it_refuses_what_chooses_a_start_of_its_own(other: type[Strategy]) -> None:
    for strategies in ((FixedArchitecture(FOUND), other()), (other(), FixedArchitecture(FOUND))):
        with pytest.raises(ValueError, match="cannot run with"):
            using(*strategies)
    using(FixedArchitecture(FOUND), PruneTrain())
