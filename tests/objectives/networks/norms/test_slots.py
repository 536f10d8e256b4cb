"""Laws of the norm slot: weight normalisation and its gradients, the norms that are none, networks of every kind."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from objectives.networks import flops
from objectives.networks.architecture import Architecture, NormKind, Stage
from objectives.networks.norms.slots import MOMENTUM, Affine, MeanNorm, Norm, Shift, norm_of, normalised
from objectives.networks.resnet import Block, ResNet

KINDS: tuple[NormKind, ...] = get_args(NormKind)
each_kind = pytest.mark.parametrize("kind", KINDS)
SMALL = Architecture(2, 4, (Stage(5, (6, 4)), Stage(7, (3, 0, 4))))
POOLED = replace(SMALL, transition="pool", stem="haar")


def operands() -> tuple[Tensor, Tensor, Tensor]:
    """Directions, gains, images, in double precision."""
    torch.manual_seed(3)
    v, g = torch.randn(4, 3, 3, 3).double().requires_grad_(), torch.randn(4).double().requires_grad_()
    return v, g, torch.randn(5, 3, 6, 6).double()


def test_filters_are_those_of_a_naive_loop_and_of_torch() -> None:
    v, g, _ = operands()
    found = normalised(v, g)
    for o in range(4):
        torch.testing.assert_close(found[o], g[o] * v[o] / v[o].square().sum().sqrt())
    torch.testing.assert_close(found, torch._weight_norm(v, g.view(-1, 1, 1, 1), 0))


def test_gradients_are_the_published_ones_and_turn_directions_without_making_them_longer() -> None:
    """dg = <dw, v> / |v|; dv = g / |v| dw - g dg / |v|^2 v (equation 3): orthogonal to v."""
    v, g, x = operands()
    w = normalised(v, g)
    loss = F.conv2d(x, w).square().sum()
    dw, dv, dg = torch.autograd.grad(loss, (w, v, g))
    for o in range(4):
        length = v[o].norm()
        expected = (dw[o] * v[o]).sum() / length
        torch.testing.assert_close(dg[o], expected)
        torch.testing.assert_close(dv[o], g[o] / length * dw[o] - g[o] * expected / length**2 * v[o])
        assert abs((dv[o] * v[o]).sum()) < 1e-10 * dv[o].norm() * length


def test_only_the_direction_of_v_counts_and_a_dead_filter_computes_nothing_and_breaks_nothing() -> None:
    v, g, x = operands()
    torch.testing.assert_close(normalised(v * torch.rand(4, 1, 1, 1).double(), g), normalised(v, g))
    with torch.no_grad():
        v[1] = 0
        g[1] = 0
    w = normalised(v, g)
    assert not w[1].any()
    gradients = torch.autograd.grad(F.conv2d(x, w).square().sum(), (v, g))
    assert all(gradient.isfinite().all() and not gradient[1].any() for gradient in gradients)


# --- norms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ghost", [0, 2, 3, 5, 9])
def test_a_mean_only_norm_takes_the_mean_of_each_ghost_away_and_nothing_else(ghost: int) -> None:
    torch.manual_seed(1)
    norm, ordinary = MeanNorm(3, ghost).double(), nn.BatchNorm2d(3).double()
    norm.bias.data.normal_()
    x = torch.randn(5, 3, 4, 4).double() * 3 + 1
    found = norm(x)
    expected = torch.empty_like(x)
    n = -(-5 // ghost) if 0 < ghost < 5 else 1
    for chunk in torch.arange(5).tensor_split(n):
        for c in range(3):
            expected[chunk, c] = x[chunk, c] - x[chunk, c].mean() + norm.bias[c]
    torch.testing.assert_close(found, expected.detach() + 0 * found)
    if n == 1:
        ordinary(x)
        torch.testing.assert_close(norm.running_mean, ordinary.running_mean)
    mean = norm.running_mean.clone()
    assert 0 < float(mean.abs().max()) < MOMENTUM * 3
    torch.testing.assert_close(norm.eval()(x), x - (mean - norm.bias).view(1, -1, 1, 1))
    assert torch.equal(norm.running_mean, mean)


def test_a_shift_adds_and_an_affine_one_scales_first() -> None:
    torch.manual_seed(2)
    x = torch.randn(2, 3, 4, 4)
    for norm in (Shift(3), Affine(3)):
        assert torch.equal(norm(x), x)
        norm.bias.data.normal_()
        scale = 1.0
        if isinstance(norm, Affine):
            scale = norm.weight.data.normal_().view(1, -1, 1, 1)
        torch.testing.assert_close(norm(x), x * scale + norm.bias.view(1, -1, 1, 1))
        norm.reset_parameters()
        assert torch.equal(norm(x), x)


@each_kind
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_norms_put_out_the_precision_that_they_read(kind: NormKind, dtype: torch.dtype) -> None:
    x = torch.randn(4, 3, 2, 2).to(dtype)
    norm = norm_of(kind, 3, 2).double() if dtype == torch.float64 else norm_of(kind, 3, 2)
    for is_training in (True, False):
        assert norm.train(is_training)(x).dtype == dtype


# --- networks ---------------------------------------------------------------------------------------------------------


def network(kind: NormKind, architecture: Architecture = SMALL, seed: int = 5) -> ResNet:
    torch.manual_seed(seed)
    return ResNet(replace(architecture, norm=kind)).double()


@each_kind
def test_an_architecture_with_a_norm_survives_json_and_one_of_before_has_batch_norms(kind: NormKind) -> None:
    architecture = replace(SMALL, norm=kind)
    plain = json.loads(json.dumps(architecture.to_json()))
    assert Architecture.from_json(plain) == architecture
    assert plain.pop("norm") == kind
    assert Architecture.from_json(plain) == SMALL


def test_norms_that_are_unknown_or_have_no_meaning_are_refused() -> None:
    with pytest.raises(ValueError, match="no such norm"):
        replace(SMALL, norm="layer")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="none of factorised layers: 'weight'"):
        replace(SMALL, norm="weight", factors=(("head", (2,)),))


@each_kind
@pytest.mark.parametrize("architecture", [SMALL, POOLED])
def test_every_kind_starts_with_the_same_draws_costs_the_same_and_labels_all_it_has(
    kind: NormKind, architecture: Architecture
) -> None:
    model, plain = network(kind, architecture), network("batch", architecture)
    assert torch.equal(model.head.weight, plain.head.weight)  # type: ignore[arg-type]
    assert flops.count(model.architecture, 8) == flops.count(architecture, 8)
    labels, sizes = model.axes(), model.architecture.axis_sizes()
    assert labels.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert all(label is None or sizes[label] == n for label, n in zip(labels[name], tensor.shape, strict=True))
    assert [type(norm) for _, norm in model.normed()] == [type(norm_of(kind, 1, 0))] * len(model.convolutions())
    assert model.counter in labels
    assert (model.architecture.fewest_values(8) is None) == (kind in ("weight", "none"))


@pytest.mark.parametrize("kind", KINDS[1:])
def test_without_batch_norms_branches_begin_at_nothing(kind: NormKind) -> None:
    model = network(kind)
    x = torch.rand(3, 5, 6, 6).double()
    assert torch.equal(model.stages[0][0](x), x)
    block = model.stages[1][0]
    assert isinstance(block, Block)
    assert block.last_scale.requires_grad
    assert torch.equal(block(x), F.relu(block._shortcut(x, None)))


def test_weights_that_are_normalised_begin_as_they_would_without() -> None:
    model, plain = network("weight"), network("batch")
    for layer, before in zip(model.convolutions(), plain.convolutions(), strict=True):
        assert torch.equal(layer.weight, before.weight)
        assert not layer.filters.any() or torch.allclose(layer.filters, before.weight)


@each_kind
@pytest.mark.parametrize("architecture", [SMALL, POOLED])
def test_what_is_recorded_is_what_norms_read_and_the_logits_stay_the_same(
    kind: NormKind, architecture: Architecture
) -> None:
    model, read = network(kind, architecture), []
    x = torch.randn(4, 2, 8, 8).double()
    expected = model(x)
    norms = [module for module in model.modules() if isinstance(module, Norm)]
    handles = [m.register_forward_pre_hook(lambda _, given: read.append(given[0].clone())) for m in norms]
    logits, seen = model.recorded(x)
    assert torch.equal(logits, expected)
    assert len(seen) == len(norms)
    assert all(torch.equal(one, other) for one, other in zip(seen, read, strict=True))  # nobody wrote to it since
    for handle in handles:
        handle.remove()
