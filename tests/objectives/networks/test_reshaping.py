"""Laws of the surgery that changes what layers are: factors, larger kernels in the stem, a network begun anew."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from objectives.networks.architecture import Architecture, Stage
from objectives.networks.resnet import ResNet
from objectives.networks.surgery import begun_anew, drop_block, factorise, insert_block, reindex, resize_stem
from objectives.strategies.ema import SHADOW
from tests.objectives.networks.factorised import labels
from tests.objectives.networks.test_surgery import (
    SMALL,
    assert_close,
    averaged,
    everything,
    images,
    options,
    outputs,
    step,
    subset,
    trainee_of,
)

FULL = {  # the full ranks of every layer of SMALL: the channels that each reads and writes
    "head": (4,),
    "stage0.block0.conv1": (5, 6),
    "stage0.block0.conv2": (6, 5),
    "stage0.block1.conv1": (5, 4),
    "stage0.block1.conv2": (4, 5),
    "stage1.block0.conv1": (5, 3),
    "stage1.block0.conv2": (3, 7),
    "stage1.block2.conv1": (7, 4),
    "stage1.block2.conv2": (4, 7),
}


def test_these_are_all_layers() -> None:
    assert set(FULL) == set(labels(SMALL))


def test_at_full_ranks_the_function_stays_and_so_does_that_of_the_averages() -> None:
    old, (x, y) = trainee_of(SMALL, 1), images(SMALL)
    new = factorise(old, FULL)
    assert_close(outputs(new.model, x), outputs(old.model, x))
    assert_close(outputs(averaged(new), x), outputs(averaged(old), x))
    step(new, x, y)
    assert all(tensor.isfinite().all() for tensor in everything(new).values())


def test_what_is_not_factorised_travels_as_it_is_and_factors_begin_without_momentum() -> None:
    old = trainee_of(SMALL, 2)
    before = everything(old)
    new = factorise(old, {"stage0.block1.conv2": (2, 3), "head": (2,)})
    assert dict(new.model.architecture.factors) == {"head": (2,), "stage0.block1.conv2": (2, 3)}
    after = everything(new)
    parts = {name for name in after if re.search(r"(conv2|head)\.(reduce|core|expand)\.weight", name)}
    assert len({name.split(" ")[1] for name in parts}) == 5
    kept = {name.replace("expand.bias", "bias"): tensor for name, tensor in after.items() if name not in parts}
    assert all(torch.equal(tensor, before[name]) for name, tensor in kept.items())
    gone = {name.split(" ")[1] for name in before if name not in kept}
    assert gone == {"stages.0.1.conv2.weight", "head.weight"}
    assert not any(after[name].any() for name in parts if name.startswith("momentum_buffer"))
    assert options(new)["stages.0.1.conv2.core.weight"] == options(old)["stages.0.1.conv2.weight"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in everything(old).items())  # the way back


def test_a_factorised_network_is_pruned_grown_and_shortened_like_any_other() -> None:
    old, (x, y) = trainee_of(SMALL, 3), images(SMALL)
    new = factorise(old, FULL)
    torch.manual_seed(0)
    pruned = reindex(new, subset(new))
    shorter = drop_block(reindex(new, {}), 0, 0)
    longer = insert_block(new, 0, 0, 3)
    assert {label for label, _ in longer.model.architecture.factors} == {
        label.replace("stage0.block1", "stage0.block2").replace("stage0.block0", "stage0.block1") for label in FULL
    }
    assert {label for label, _ in shorter.model.architecture.factors} == {
        label for label in FULL if not label.startswith("stage0.block0")
    }
    for trainee in (pruned, shorter, longer):
        step(trainee, x, y)
        assert outputs(trainee.model, x)["training"].isfinite().all()
        assert Architecture.from_json(trainee.model.architecture.to_json()) == trainee.model.architecture


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        ({"stage0.block7.conv1": (1, 1)}, "there is no layer 'stage0.block7.conv1'"),
        ({"stage1.block1.conv1": (1, 1)}, "there is no layer 'stage1.block1.conv1'"),  # its branch is gone
        ({"head": (1, 1)}, "there is no layer 'head' that could be factorised into"),
        ({"head": (5,)}, "has no ranks"),
    ],
)
def test_layers_that_cannot_be_factorised_are_refused(ranks: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        factorise(trainee_of(SMALL, 1, steps=0), ranks)


def test_no_layer_is_factorised_twice() -> None:
    once = factorise(trainee_of(SMALL, 1, steps=0), {"head": (2,)})
    with pytest.raises(ValueError, match="is factorised already"):
        factorise(once, {"head": (1,)})


@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_a_resampled_stem_sees_a_larger_image_of_the_same_thing_alike(kernel: int) -> None:
    architecture = Architecture(1, 2, (Stage(4, ()),), stem_kernel=3)
    old = trainee_of(architecture, 4)
    new = resize_stem(old, kernel)
    assert new.model.architecture.stem_kernel == kernel
    before, after = (t.model.get_parameter("stem.0.weight").detach() for t in (old, new))
    assert after.shape[-1] == kernel
    at, scale = torch.arange(25, dtype=torch.float64) - 12, kernel / 3

    def seen(weight: torch.Tensor, pitch: float, image: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Any:
        """What a kernel puts out in the middle of an image with pixels of a size."""
        x = image(at[:, None] * pitch, at[None, :] * pitch)[None, None]
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2)[0, :, 12, 12].numpy()

    for image in (lambda u, v: 1 + 0.3 * u - 0.2 * v, lambda u, v: u * v):  # linear along each side: exactly
        assert seen(after, 1 / scale, image) == pytest.approx(seen(before, 1.0, image))
    expected = seen(before, 1.0, lambda u, v: (0.5 + 0.4 * u + 0.3 * v).sin())  # waves of 13 pixels and longer
    assert seen(after, 1 / scale, lambda u, v: (0.5 + 0.4 * u + 0.3 * v).sin()) == pytest.approx(expected, abs=0.02)


def test_a_resampled_stem_travels_with_its_averages_and_options_and_stays_frozen() -> None:
    old, (x, y) = trainee_of(replace(SMALL, stem="haar"), 5), images(SMALL)
    old.model.get_parameter("stem.0.weight").requires_grad_(False)
    new = resize_stem(old, 5)
    assert not new.model.get_parameter("stem.0.weight").requires_grad
    assert options(new) == options(old)
    same = [name for name in everything(old) if not name.endswith("stem.0.weight")]
    assert all(torch.equal(everything(new)[name], everything(old)[name]) for name in same)
    averages = new.shadows[SHADOW].tensors["stem.0.weight"].sum((2, 3))
    torch.testing.assert_close(averages, old.shadows[SHADOW].tensors["stem.0.weight"].sum((2, 3)))
    step(new, x, y)


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match="must be odd"):
        resize_stem(trainee_of(SMALL, 1, steps=0), 4)


def test_a_network_begun_anew_is_one_that_was_never_trained() -> None:
    old = trainee_of(SMALL, 6)
    other = Architecture(3, 4, (Stage(8, ()), Stage(16, (12, 0))))
    torch.manual_seed(1)
    new = begun_anew(old, other)
    torch.manual_seed(1)
    expected = ResNet(other).state_dict()
    assert new.model.architecture == other
    assert all(torch.equal(tensor.float(), expected[name]) for name, tensor in new.model.state_dict().items())
    assert not any(value.any() for state in new.optimizer.state.values() for value in state.values())
    assert all(torch.equal(new.shadows[SHADOW].tensors[name], t) for name, t in new.model.named_parameters())
    assert options(new)["stages.1.0.conv1.weight"] == options(old)["stages.1.0.conv1.weight"]
    assert options(new)["stages.1.0.bn2.bias"] == options(old)["stages.1.0.bn2.bias"]
    assert not new.born
