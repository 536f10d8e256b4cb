"""Laws of the test whether flips fit: what it refutes, what it lets pass, and with what certainty."""

from __future__ import annotations

import json
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import binomtest

from objectives import mirroring
from objectives.data.augment import Normalisation
from objectives.data.dataset import Dataset, Images
from objectives.errors import DataError
from objectives.export import load_model, logits
from objectives.mirroring import Mirrored, mirrored
from objectives.objective import TrainingObjective
from objectives.pipeline import Pipeline
from objectives.task import DataSpec, Seeds, Task

TASK = Task(DataSpec("digits"), "small", stem_stride=2)


def cheap(pipeline: Pipeline, task: Task) -> float:
    """Seconds of a step, where all images and epochs are affordable."""
    return 1e-6


def at_random_mirrored(images: Images, seed: int) -> Images:
    """Every other image as its mirror image, by lot."""
    turned = torch.rand(len(images.y), generator=torch.Generator().manual_seed(seed)) < 0.5
    x = torch.where(turned[:, None, None, None], images.x.flip(3), images.x)
    return Images(x.contiguous(memory_format=torch.channels_last), images.y)


def threes_and_their_mirror_images(images: Images) -> Images:
    """Two classes, each of which is the other one in a mirror."""
    x = images.x[images.y == 3]
    turned = torch.arange(len(x)) % 2 == 1
    x = torch.where(turned[:, None, None, None], x.flip(3), x).contiguous(memory_format=torch.channels_last)
    return Images(x, turned.long())


def test_digits_refute_flips(digits: Dataset) -> None:
    found = mirrored(TASK, digits, cheap)
    assert found.n == 328
    assert found.accuracy > 0.85
    assert found.mirrored_accuracy < 0.5
    assert found.refuted
    assert found.words == (
        f"mirror images: {found.mirrored_accuracy:.1%} of 328 instead of {found.accuracy:.1%}: "
        "flips do not fit these images"
    )


def test_images_that_show_either_side_alike_support_flips(digits: Dataset) -> None:
    even = replace(digits, train=at_random_mirrored(digits.train, 0), val=at_random_mirrored(digits.val, 1))
    found = mirrored(TASK, even, cheap)
    assert found.accuracy > 0.7
    assert not found.refuted
    assert found.words.endswith("nothing speaks against flips")


def test_classes_that_are_mirror_images_of_each_other_refute_flips(digits: Dataset) -> None:
    images = [threes_and_their_mirror_images(part) for part in (digits.train, digits.val)]
    found = mirrored(TASK, replace(digits, classes=("3", "E"), train=images[0], val=images[1]), cheap)
    assert found.accuracy > 0.9
    assert found.mirrored_accuracy < 0.1
    assert found.refuted


def test_few_images_are_asked_in_every_split(digits: Dataset) -> None:
    thirds = [torch.arange(180) % 3 == part for part in range(3)]
    x, y = digits.train.x[:180], digits.train.y[:180]
    first, *others = (
        replace(digits, train=Images(x[~third], y[~third]), val=Images(x[third], y[third])) for third in thirds
    )
    found = mirrored(TASK, replace(first, again=tuple(others)), cheap)
    assert found.n == 180
    assert found.refuted


def test_where_seconds_are_short_fewer_images_are_trained_on(digits: Dataset) -> None:
    sparing = mirrored(TASK, digits, lambda pipeline, task: mirroring.SECONDS / (4 * pipeline.batch_size))
    assert sparing.n == 328
    assert sparing.accuracy < mirrored(TASK, digits, cheap).accuracy
    assert mirrored(TASK, digits, lambda pipeline, task: inf).n == 328  # one batch, whatever it takes


@given(st.integers(0, 200), st.integers(0, 200))
def test_the_chance_is_that_of_an_exact_binomial_test(lost: int, won: int) -> None:
    assume(lost + won)
    found = Mirrored(1.0, 500, lost, won, right=300)
    assert found.p == pytest.approx(binomtest(lost, lost + won, 0.5, alternative="greater").pvalue, rel=1e-9)


@pytest.mark.parametrize(
    ("n", "lost", "won", "refuted"),
    [
        (500, 0, 0, False),  # the mirror changes nothing
        (500, 60, 55, False),  # as often one way as the other
        (500, 55, 5, True),
        (328, 62, 36, False),  # 8 points, by chance in one of 180 cases: seen where flips fit
        (20, 9, 0, False),  # 45 points, by chance in one of 512
        (20, 10, 0, True),
        (5000, 90, 10, False),  # for certain, but 1.6 points
        (500, 5, 55, False),  # the mirror even helps
    ],
)
def test_flips_are_refuted_where_the_loss_is_certain_and_matters(n: int, lost: int, won: int, refuted: bool) -> None:
    found = Mirrored(1.0, n, lost, won, right=int(0.8 * n))
    assert found.refuted is refuted
    plain = found.to_json()
    assert json.loads(json.dumps(plain)) == plain
    assert {"seconds", "n", "accuracy", "mirrored_accuracy", "p", "refuted", "words"} <= set(plain)
    assert "\n" not in found.words


def test_asking_says_the_same_again_and_leaves_nothing_to_export(tmp_path: Path) -> None:
    objective = TrainingObjective(replace(TASK, data=DataSpec("digits", n_train=100)), "cpu")
    one, other = ({**objective.mirrored(5.0), "seconds": 0} for _ in range(2))
    assert one == other
    with pytest.raises(ValueError, match="nothing to export"):
        objective.export(tmp_path / "model", {})


@pytest.mark.parametrize(("flip", "whole"), [(False, False), (True, False), (False, True)])
def test_the_network_of_the_last_training_is_asked_where_that_saw_no_mirror_image_and_not_what_it_is_shown(
    flip: bool, whole: bool
) -> None:
    objective = TrainingObjective(TASK, "cpu")
    last = list(objective.reports(Pipeline(epochs=2, batch_size=64, lr=0.8, flip=flip), Seeds(0, 1, 2), whole=whole))[
        -1
    ]
    found = objective.mirrored(0.2)
    assert (found["seconds"] == 0) == (not flip and not whole)
    assert found["n"] == 328
    if found["seconds"] == 0:
        assert found["accuracy"] == last.accuracy
        assert found["refuted"]


def test_what_both_sides_are_worth_is_what_a_training_that_takes_both_would_say(tmp_path: Path) -> None:
    """Of an exported network: accuracies, calibration, and how many images are told rightly by one of them only."""
    data = replace(TASK.data, flip=True)
    alone, both = (TrainingObjective(replace(TASK, data=data, test_time_flip=flips), "cpu") for flips in (False, True))
    for objective, name in ((alone, "alone"), (both, "both")):
        list(objective.reports(Pipeline(epochs=3, batch_size=32, flip=True), Seeds(0, 1, 2)))
        objective.export(tmp_path / name, {})
    found = alone.both_sides(tmp_path / "alone")
    described = {name: json.loads((tmp_path / name / "model.json").read_text()) for name in ("alone", "both")}
    for name, told in described.items():
        side = found[name]
        assert isinstance(side, dict)
        assert side == {key: pytest.approx(told[key]) for key in ("accuracy", "balanced_accuracy")}
    assert found["calibration"] == described["both"]["calibration"]
    gained, n, noise = described["both"]["accuracy"] - described["alone"]["accuracy"], found["n"], found["noise"]
    assert isinstance(n, int)
    assert isinstance(noise, dict)
    assert abs(gained) / n - 1e-9 <= noise["accuracy"] <= 1 / n
    with pytest.raises(DataError, match="is not an exported model"):
        alone.both_sides(tmp_path / "none")


def test_the_noise_of_what_both_sides_gain_is_what_drawing_images_of_each_class_anew_would_change(
    digits: Dataset, tmp_path: Path
) -> None:
    """In classes of uneven size: the recall of a small one tells less, and counts as much."""
    kept = torch.cat([torch.nonzero(digits.val.y == 0)[:4, 0], torch.nonzero(digits.val.y > 0)[:, 0]])
    uneven = replace(digits, flip=True, val=digits.val.part(kept))
    objective = TrainingObjective(TASK, "cpu", dataset=uneven)
    list(objective.reports(Pipeline(epochs=1, batch_size=32), Seeds(0, 1, 2)))
    objective.export(tmp_path / "model", {})
    noise = objective.both_sides(tmp_path / "model")["noise"]
    model, normalise = load_model(tmp_path / "model"), Normalisation(uneven, torch.device("cpu"))
    one, other = (logits(model.network, x, normalise, mirrored=False) for x in (uneven.val.x, uneven.val.x.flip(3)))
    changed = ((one.argmax(1) == uneven.val.y) ^ ((one + other).argmax(1) == uneven.val.y)).double()
    of_class = [changed[uneven.val.y == each] for each in range(10)]
    by_class = [float(each.sum()) / len(each) ** 2 for each in of_class]
    assert noise == {
        "accuracy": pytest.approx(float(changed.sum()) / len(kept) ** 2),
        "balanced_accuracy": pytest.approx(sum(by_class) / 10**2),
    }
    assert by_class[0] > 0


def test_a_network_of_all_images_takes_mirror_images_where_it_is_told_to(tmp_path: Path) -> None:
    objective = TrainingObjective(TASK, "cpu")
    for whole, told, expected in ((True, True, True), (True, None, False), (False, True, False)):
        list(objective.reports(Pipeline(epochs=1, batch_size=64), Seeds(0, 1, 2), whole=whole))
        objective.export(tmp_path / "model", {} if told is None else {"test_time_flip": told})
        assert load_model(tmp_path / "model").mirrored == expected
