"""A plan is a study that can be read, whatever the images, the minutes and the device; more of each never buys less."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from search.minutes import RATES
from search.planning import costs, plan
from search.planning.plan import Images, Plan
from search.study.spec import StudySpec, read

SIZES = (8, 12, 16, 28, 32, 64, 150, 224)
N_TRAIN = (20, 100, 1_000, 4_000, 20_000, 100_000)
MINUTES = (0.2, 1.0, 2.0, 5.0, 10.0, 30.0, 120.0, 600.0)
DEVICES = ("cpu", "cuda")


def images(size: int = 32, n_train: int = 1_000, n_classes: int = 10, name: str = "digits") -> Images:
    n_val = max(2, n_train // 4)
    return Images(name, n_train, n_val, n_classes, 3, size, size, None, "it was not looked into")


def planned(found: Images, minutes: float, device: str, slower: float = 1.0) -> Plan:
    """The plan where steps take so many times what the fastest device of that kind takes."""
    rate = RATES[device] / slower
    return plan.chosen("mine", minutes, found, costs.nominal(plan.to_probe(found.size, found.family)[0], rate), device)


def study(made: Plan, folder: Path) -> StudySpec:
    """The study of a plan, as whoever runs its file reads it."""
    path = folder / f"{made.name}.toml"
    path.write_bytes(made.study_file().encode())
    name, spec = read(str(path))
    assert name == made.name
    return spec


@settings(max_examples=60)
@given(
    size=st.integers(8, 224),
    n_train=st.integers(20, 100_000),
    n_classes=st.sampled_from((2, 1_000)),
    minutes=st.floats(0.2, 600),
    device=st.sampled_from(DEVICES),
    slower=st.floats(1, 1_000),
)
@example(size=8, n_train=20, n_classes=2, minutes=3e7, device="cuda", slower=1.0)
@example(size=224, n_train=100_000, n_classes=1_000, minutes=0.2, device="cpu", slower=1_000.0)
def test_a_plan_is_a_study_whatever_images_and_minutes(
    size: int, n_train: int, n_classes: int, minutes: float, device: str, slower: float
) -> None:
    made = planned(images(size, n_train, n_classes), minutes, device, slower)
    with TemporaryDirectory() as folder:
        spec = study(made, Path(folder))
    assert (spec.space.epochs, spec.space.batch_size) == (made.epochs, made.batch_size)
    assert (spec.space.depth, spec.space.width, spec.data.size) == (made.depth, made.width, made.size)
    assert 4 <= made.size <= size
    assert made.batch_size[1] <= n_train
    assert made.epochs[0] < made.epochs[1]
    for least, most in (made.epochs, made.batch_size, made.depth, made.width, made.n_trials, made.memory):
        assert 0 < least <= most
    for low, high in (made.first_seconds, made.trial_seconds):
        assert 0 < low < high
    assert made.first_seconds[0] <= made.trial_seconds[0]


@pytest.mark.parametrize(("minutes", "words"), [(1.0, "1 minute"), (0.5, "0.5 minutes"), (30.0, "30 minutes")])
def test_a_plan_says_its_minutes_as_people_do(minutes: float, words: str) -> None:
    made = planned(images(), minutes, "cpu")
    assert made.lines()[0] == f"a plan for {words}:"
    assert f'description = "{words}"\n' in made.study_file()


@pytest.mark.parametrize("device", DEVICES)
def test_every_choice_has_a_reason(device: str) -> None:
    for size, n_train, minutes in product(SIZES, N_TRAIN, MINUTES):
        made = planned(images(size, n_train), minutes, device)
        assert len({choice.setting for choice in made.choices}) == len(made.choices)
        for choice in made.choices:
            assert choice.value
            assert choice.reason in "\n".join(made.lines())
            assert f"# {choice.setting}: {choice.reason}" in made.study_file().splitlines()
        told = next(choice.reason for choice in made.choices if choice.setting == "size")
        assert ("the images' own" in told) == (made.size == size)


@pytest.mark.parametrize("device", DEVICES)
def test_more_minutes_never_buy_less(device: str) -> None:
    """Where they buy larger images, epochs of those take longer: only at one size are there never fewer."""
    for size, n_train in product(SIZES, N_TRAIN):
        plans = [planned(images(size, n_train), minutes, device) for minutes in MINUTES]
        for less, more in pairwise(plans):
            assert less.size <= more.size
            assert less.epochs[1] <= more.epochs[1] or less.size < more.size
            assert less.longest_seconds < more.longest_seconds
            assert less.n_trials[1] <= more.n_trials[1] or less.size < more.size


def test_trials_are_forecast_as_they_are_begun() -> None:
    """Known pipelines that may run, the first anyway; then what is proposed, where enough of the cheapest runs fit."""
    minutes, seconds = 10.0, 480.0
    before = plan.BEFORE_TRAINING / 600 * seconds

    def left(n: float) -> float:
        """Seconds of a known pipeline that leaves the search so many of the first runs of a second."""
        return plan.SEARCH_SHARE * seconds - before - n

    assert plan._forecast_trials([500.0, 600.0], 1.0, 2.0, seconds, minutes) == 1
    assert plan._forecast_trials([1.0, 2.0, 500.0], 40.0, 40.0, seconds, minutes) == 2
    share = plan.ANCHOR_SHARE * seconds
    for n in (plan.LEAST_PROPOSED - 0.5, plan.LEAST_PROPOSED + 0.5):
        known = [left(n) / 3] * 3
        assert max(known) < share
        proposed = plan._forecast_trials(known, 1.0, 2.0, seconds, minutes) - 3
        assert proposed == (math.ceil(n / 2.0) if n >= plan.LEAST_PROPOSED else 0)


def test_more_images_never_ask_for_more_epochs() -> None:
    fewest = [plan.fewest_epochs(n) for n in range(2, 120_000, 97)]
    assert fewest == sorted(fewest, reverse=True)
    assert all(plan.FEWEST <= n <= plan.MOST for n in fewest)


@pytest.mark.parametrize("device", DEVICES)
def test_a_slower_device_is_never_given_more(device: str) -> None:
    for size, n_train, minutes in product(SIZES, N_TRAIN, (1.0, 10.0)):
        fast, slow = (planned(images(size, n_train), minutes, device, slower) for slower in (1.0, 30.0))
        assert slow.size <= fast.size
        assert slow.n_trials <= fast.n_trials or slow.size < fast.size


def test_what_is_probed_is_what_may_be_chosen() -> None:
    for size in range(8, 257):
        networks = plan.to_probe(size)
        assert networks[0].size == size
        assert len(set(networks)) == len(networks) >= costs.FEWEST
        assert {each.family for each in networks} == {plan.family_for(size)}
        assert all(each.size <= size for each in networks)


@pytest.mark.parametrize("device", DEVICES)
def test_networks_that_trainings_start_from_are_planned_as_they_are(device: str, tmp_path: Path) -> None:
    """Their stem halves images twice anyway: no stride is offered, nor another depth."""
    for size, minutes in product((16, 96, 224), MINUTES):
        networks = plan.to_probe(size, "imagenet18")
        assert {(each.family, each.stride) for each in networks} == {("imagenet18", 1)}
        made = planned(replace(images(size), family="imagenet18"), minutes, device)
        spec = study(made, tmp_path)
        assert (spec.network.family, spec.space.depth, spec.space.width[0]) == ("imagenet18", (1, 1), 0.25)
        told = {choice.setting: choice.value for choice in made.choices}
        assert told["stem"] == "stride 2 and a pooling"


NAMES = [
    'say "cheese"',
    "two\nlines",
    "tab\there",
    "back\\slash",
    "Füchse, 狐 🦊",
    "# none",
    "\x7f\x1f",
    "'''",
    "a = 1]",
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_folder_of_any_name_is_found_again(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    found = images(name=f"folder:{tmp_path / name}")
    spec = study(planned(found, 1.0, "cpu"), tmp_path)
    assert spec.data.name == f"folder:{tmp_path / name}"
    assert Path(spec.data.name.removeprefix("folder:")).is_dir()


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param({"most_train": 500}, id="fewer images"),
        pytest.param({"root": "/some where"}, id="a root"),
        pytest.param({"name": "folder:x", "labels": 'a "table".csv'}, id="a table of labels"),
        pytest.param({"seed": 7}, id="a seed"),
    ],
)
def test_the_study_trains_on_the_images_that_were_asked_for(asked: dict[str, object], tmp_path: Path) -> None:
    found = replace(images(), **asked)  # type: ignore[arg-type]
    data = study(planned(found, 10.0, "cpu"), tmp_path).task.data
    assert (data.name, data.root, data.labels) == (found.name, found.root, found.labels)
    assert (data.n_train, data.seed) == (found.most_train, found.seed)


@pytest.mark.parametrize(("flips", "told"), [(True, None), (None, None), (False, False)])
def test_flips_are_ruled_out_only_where_they_were_refuted(
    flips: bool | None, told: bool | None, tmp_path: Path
) -> None:
    found = replace(images(), flips=flips, flips_because="mirror images: 40.0% of 100 instead of 90.0%")
    assert study(planned(found, 1.0, "cpu"), tmp_path).data.flip is told
