"""Laws of surgery: what a network computes and how it trains on survive a change of its size."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
import torch_pruning
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from objectives.networks import flops
from objectives.networks.architecture import Architecture, Downsampling, Stage, interior_axis, stage_axis
from objectives.networks.network import Network, architecture_of, build
from objectives.networks.norms.slots import GhostBatchNorm
from objectives.networks.plain import AnyArchitecture
from objectives.networks.resnet import Block, FactorisedHead, ResNet
from objectives.networks.surgery import NEW, Index, drop_block, insert_block, insert_branch, reindex
from objectives.networks.trainee import Shadow, Trainee
from objectives.state import Step
from objectives.strategies.ema import SHADOW, Ema
from tests.objectives.networks.factorised import with_factors
from tests.objectives.networks.layered import plain_architectures

Groups = list[dict[str, object]]
OPTIMIZERS: dict[str, Callable[[Groups], Optimizer]] = {
    "sgd": lambda groups: SGD(groups, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3, fused=True),
    # eps: the usual 1e-8 blows the rounding error of a gradient that should be zero up to 1e-10 of a step
    "adam": lambda groups: Adam(groups, lr=0.01, eps=1e-3, weight_decay=1e-3),
    "adamw": lambda groups: AdamW(groups, lr=0.01, eps=1e-3, amsgrad=True),
}
each_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS)
AVERAGE = Ema(horizon=1.0).having_learned(rate=0.25)

# --- trainees of every architecture -----------------------------------------------------------------------------------


def stages(*, first: bool) -> st.SearchStrategy[Stage]:
    blocks = st.lists(st.integers(0, 9), min_size=0 if first else 1, max_size=3)
    return st.builds(Stage, st.integers(1, 9), blocks.map(tuple))


unfactorised = st.builds(
    Architecture,
    in_channels=st.sampled_from([1, 3]),
    n_classes=st.integers(2, 4),
    stages=st.tuples(stages(first=True), st.lists(stages(first=False), max_size=2)).map(lambda p: (p[0], *p[1])),
    stem_stride=st.integers(1, 2),
    stem=st.sampled_from(["conv", "haar"]),
    transition=st.sampled_from(["projection", "pool"]),
    stem_kernel=st.sampled_from([1, 3, 5, 7]),
    stem_pool=st.booleans(),
    downsampling=st.sampled_from([None, Downsampling("average"), Downsampling("average", behind=True)]),  # draw nothing
)
residual_ones = st.builds(with_factors, unfactorised, st.integers(0, 1000))
architectures = st.one_of(residual_ones, plain_architectures())
seeds = st.integers(0, 10_000)
SMALL = Architecture(3, 4, (Stage(5, (6, 4)), Stage(7, (3, 0, 4))))


def images(architecture: AnyArchitecture, size: int = 6) -> tuple[Tensor, Tensor]:
    """Four images and their classes; a plain network takes those of its own size."""
    size = size if isinstance(architecture, Architecture) else architecture.size
    x = torch.randn(4, *architecture.shape(size), dtype=torch.float64)
    return x, torch.randint(architecture.n_classes, (4,))


def trainee_of(architecture: AnyArchitecture, seed: int, optimizer: str = "sgd", steps: int = 2) -> Trainee:
    """In double precision, in the middle of a training: nothing is at its initial value.

    Weights and the rest have options of their own; there is an EMA, and a random mask on every weight.
    """
    torch.manual_seed(seed)
    model = build(architecture).double()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.dim() == 1 and tensor.is_floating_point():
                tensor.uniform_(*((0.5, 1.5) if re.search(r"weight|var", name) else (-0.2, 0.4)))
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() == 1]
    groups: Groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0, "lr": 0.02, "peak": 3}]
    averages = {name: t.clone() for name, t in model.state_dict().items() if t.is_floating_point()}
    produced = [name for name, labels in model.axes().items() if len(labels) > 1 and labels[0] is not None]
    masks = {name: (torch.rand_like(model.get_parameter(name)) < 0.7).double() for name in produced}
    trainee = Trainee(
        model,
        OPTIMIZERS[optimizer](groups),
        shadows={SHADOW: Shadow(averages, "weight"), "mask": Shadow(masks, "mask")},
        born={label: torch.arange(size) / 2 for label, size in model.architecture.axis_sizes().items()},
    )
    for _ in range(steps):
        step(trainee, *images(architecture))
    return trainee


def step(trainee: Trainee, x: Tensor, y: Tensor) -> Trainee:
    """The trainee after one more optimizer step, EMA included. In place."""
    loss = F.cross_entropy(trainee.model.train()(x), y)
    loss.backward()
    trainee.optimizer.step()
    trainee.optimizer.zero_grad()
    AVERAGE.after_step(trainee, Step(x, y, loss.detach(), torch.ones(())))
    return trainee


def everything(trainee: Trainee) -> dict[str, Tensor]:
    """Every tensor of a trainee, by a name that says what it belongs to."""
    found = {f"model {name}": tensor.detach() for name, tensor in trainee.model.state_dict().items()}
    for name, parameter in trainee.model.named_parameters():
        for key, value in trainee.optimizer.state.get(parameter, {}).items():
            found[f"{key} {name}"] = value
    for key, shadow in trainee.shadows.items():
        found |= {f"{key} {name}": tensor for name, tensor in shadow.tensors.items()}
    return found | {f"born {label}": epochs for label, epochs in trainee.born.items()}


def options(trainee: Trainee) -> dict[str, dict[str, object]]:
    """The optimizer's options for every parameter that it trains, by name."""
    names = {parameter: name for name, parameter in trainee.model.named_parameters()}
    return {
        names[parameter]: {key: value for key, value in group.items() if key != "params"}
        for group in trainee.optimizer.param_groups
        for parameter in group["params"]
    }


def assert_equal(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    different = [name for name in expected if not torch.equal(found[name], expected[name])]
    assert not different


def assert_close(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    torch.testing.assert_close(dict(found), dict(expected), rtol=1e-10, atol=1e-10)


def outputs(model: Network, x: Tensor) -> dict[str, Tensor]:
    """What a network computes in evaluation and in training; the network itself is left alone."""
    model = deepcopy(model)
    return {"evaluation": model.eval()(x).detach(), "training": model.train()(x).detach()}


def averaged(trainee: Trainee) -> Network:
    """The network of the averages."""
    model = deepcopy(trainee.model)
    model.load_state_dict({**model.state_dict(), **trainee.shadows[SHADOW].tensors})
    return model


def gradients(trainee: Trainee, x: Tensor, y: Tensor) -> dict[nn.Parameter, Tensor]:
    """Of the cross-entropy in training, by parameter; the trainee is left as it was."""
    statistics = {name: buffer.clone() for name, buffer in trainee.model.named_buffers()}
    parameters = list(trainee.model.parameters())
    found = torch.autograd.grad(F.cross_entropy(trainee.model.train()(x), y), parameters)
    trainee.model.load_state_dict(statistics, strict=False)
    return dict(zip(parameters, found, strict=True))


def branches(architecture: Architecture) -> list[tuple[int, int]]:
    return [(s, b) for s, stage in enumerate(architecture.stages) for b, width in enumerate(stage.interiors) if width]


def block(trainee: Trainee, stage: int, position: int) -> Block:
    found = trainee.model.stages[stage][position]  # type: ignore[index]
    assert isinstance(found, Block)
    return found


# --- indices ----------------------------------------------------------------------------------------------------------


def identity(trainee: Trainee) -> dict[str, Tensor]:
    return {label: torch.arange(size) for label, size in trainee.model.architecture.axis_sizes().items()}


def subset(trainee: Trainee) -> dict[str, Tensor]:
    """A random non-empty subset of the channels of every axis."""
    return {
        label: torch.randperm(size)[: int(torch.randint(1, size + 1, ()))].sort().values
        for label, size in trainee.model.architecture.axis_sizes().items()
    }


def repeats(trainee: Trainee) -> dict[str, Tensor]:
    """Every channel of every axis at least once, some more often, in any order."""
    index = {}
    for label, size in trainee.model.architecture.axis_sizes().items():
        channels = torch.cat([torch.arange(size), torch.randint(size, (int(torch.randint(4, ())),))])
        index[label] = channels[torch.randperm(len(channels))]
    return index


def enlarged(trainee: Trainee) -> dict[str, Tensor]:
    """Every channel of every axis once, and some new ones among them."""
    index = {}
    for label, size in trainee.model.architecture.axis_sizes().items():
        channels = torch.cat([torch.arange(size), torch.full((int(torch.randint(4, ())),), NEW)])
        index[label] = channels[torch.randperm(len(channels))]
    return index


def gathered(tensors: Mapping[str, Tensor], trainee: Trainee, index: Index) -> dict[str, Tensor]:
    """Plain selection of channels from tensors named like the model's, nothing shared."""
    found = {}
    for name, tensor in tensors.items():
        for dim, label in enumerate(trainee.model.axes()[name]):
            if label in index:
                tensor = tensor.index_select(dim, index[label])
        found[name] = tensor
    return found


# --- every operation --------------------------------------------------------------------------------------------------


def without_branch(trainee: Trainee, stage: int, position: int, bias: bool = True) -> Trainee:
    """The trainee with the last convolution of a block at zero since long ago, averages included. In place."""
    at = f"stages.{stage}.{position}"
    for tensors in (trainee.model.state_dict(), trainee.shadows[SHADOW].tensors):
        dead = (f"{at}.conv2", f"{at}.bn2.running_mean", *([] if bias else [f"{at}.bn2.bias"]))
        for name, tensor in tensors.items():
            if name.startswith(dead):
                tensor.zero_()
    return trainee


OPERATIONS: dict[str, Callable[[Trainee], Trainee]] = {
    "nothing": lambda t: reindex(t, {}),
    "identity": lambda t: reindex(t, identity(t)),
    "prune": lambda t: reindex(t, subset(t)),
    "widen": lambda t: reindex(t, repeats(t)),
    "enlarge": lambda t: reindex(t, enlarged(t)),
    "prune one axis": lambda t: reindex(t, {"stage0": torch.tensor([0, 2, 3])}),
    "insert first": lambda t: insert_block(t, 0, 0, 3, epoch=2),
    "insert last": lambda t: insert_block(t, 1, 3, 3, epoch=2),
    "drop transition": lambda t: drop_block(t, 1, 0),
    "drop basic": lambda t: drop_block(t, 0, 1),
}
each_operation = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS.keys())


@each_optimizer
@each_operation
def test_the_old_trainee_is_untouched_and_shares_no_memory_with_the_new_one(
    operation: Callable[[Trainee], Trainee], optimizer: str
) -> None:
    old = trainee_of(SMALL, 1, optimizer)
    before = {name: tensor.clone() for name, tensor in everything(old).items()}
    options_before = deepcopy(options(old))
    new = operation(old)
    memory = {tensor.untyped_storage().data_ptr(): name for name, tensor in everything(old).items()}
    shared = [name for name, t in everything(new).items() if t.untyped_storage().data_ptr() in memory]
    assert not shared
    step(new, *images(SMALL))
    assert_equal(everything(old), before)
    assert options(old) == options_before


@each_optimizer
@each_operation
def test_all_that_belongs_to_a_tensor_has_its_shape_and_its_memory_layout(
    operation: Callable[[Trainee], Trainee], optimizer: str
) -> None:
    """The layout is no matter of taste: the fused SGD of the CPU walks parameter and momentum as flat memory."""
    new = operation(trainee_of(SMALL, 2, optimizer))
    tensors, fresh = everything(new), ResNet(new.model.architecture).double().state_dict()
    for kind_and_name, tensor in tensors.items():
        kind, name = kind_and_name.split(" ")
        if kind not in ("born", "step"):
            assert tensor.dtype == fresh[name].dtype
            assert tensor.shape == fresh[name].shape
            assert tensor.stride() == fresh[name].stride(), kind_and_name
            assert tensor.dim() != 4 or tensor.is_contiguous(memory_format=torch.channels_last)
    for shadow in new.shadows.values():  # in the order of the model: averages are updated side by side
        assert list(shadow.tensors) == [name for name in fresh if name in shadow.tensors]
    sizes = {label: len(epochs) for label, epochs in new.born.items()}
    assert sizes == new.model.architecture.axis_sizes()
    for name, labels in new.model.axes().items():
        assert all(label is None or sizes[label] == n for label, n in zip(labels, fresh[name].shape, strict=True))


@each_optimizer
@each_operation
def test_options_frozen_parameters_and_counters_travel(operation: Callable[[Trainee], Trainee], optimizer: str) -> None:
    old = trainee_of(SMALL, 3, optimizer)
    old.model.head.bias.requires_grad_(False)
    old.model.stem[0].weight.requires_grad_(False)
    for buffer in old.model.buffers():
        if not buffer.is_floating_point():
            buffer.fill_(17)
    old.optimizer.param_groups[0]["lr"] = 0.3  # by a schedule, after the optimizer was made
    new = operation(old)
    assert type(new.optimizer) is type(old.optimizer)
    assert new.optimizer.defaults == old.optimizer.defaults
    for name, parameter in new.model.named_parameters():
        assert parameter.requires_grad == (name not in ("head.bias", "stem.0.weight"))
        assert options(new)[name] == options(old)["stem.0.weight" if parameter.dim() > 1 else "stem.1.bias"]
    n_new = len(set(branches(new.model.architecture)) - set(branches(SMALL)))
    assert sum(int(b) != 17 for b in new.model.buffers() if not b.is_floating_point()) == 2 * n_new


@each_operation
def test_what_the_optimizer_does_not_train_stays_untrained(operation: Callable[[Trainee], Trainee]) -> None:
    old = trainee_of(SMALL, 4)
    left_out = {"stem.1.weight", "stages.0.0.bn1.weight", "stages.1.2.conv1.weight", "head.bias"}
    trained = [p for name, p in old.model.named_parameters() if name not in left_out]
    old = replace(old, optimizer=SGD(trained, lr=0.1, momentum=0.9))
    new = operation(old)
    assert len(dict(new.model.named_parameters()).keys() - options(new).keys()) == len(left_out)


@each_operation
def test_a_training_before_its_first_step_can_be_operated_on(operation: Callable[[Trainee], Trainee]) -> None:
    for optimizer in OPTIMIZERS:
        new = operation(trainee_of(SMALL, 5, optimizer, steps=0))
        assert not any(new.optimizer.state.values())
        assert all(t.isfinite().all() for t in everything(step(new, *images(SMALL))).values())


@each_operation
def test_optimizer_state_that_surgery_does_not_know_is_refused(operation: Callable[[Trainee], Trainee]) -> None:
    old = trainee_of(SMALL, 6)
    weight = old.model.head.weight
    old.optimizer.state[weight]["trust"] = torch.ones_like(weight)
    with pytest.raises(ValueError, match="optimizer state 'trust' is not known to surgery") as caught:
        operation(old)
    assert "\n" not in str(caught.value)


def test_mode_and_ghost_batches_travel() -> None:
    model = ResNet(SMALL, ghost=2)
    for training in (True, False):
        old = Trainee(model.train(training), SGD(model.parameters()), shadows={}, born={})
        for new in (reindex(old, {}).model, insert_block(old, 0, 1, 3).model):
            assert all(module.training == training for module in new.modules())
            assert all(module.ghost == 2 for module in new.modules() if isinstance(module, GhostBatchNorm))


# --- the same channels ------------------------------------------------------------------------------------------------


@each_optimizer
@settings(max_examples=8)
@given(architectures, seeds)
def test_all_channels_in_order_are_the_identity(optimizer: str, architecture: AnyArchitecture, seed: int) -> None:
    old = trainee_of(architecture, seed, optimizer)
    x, y = images(architecture, 7)
    for index in (identity(old), {}):
        new = reindex(old, index)
        assert new.model.architecture == architecture
        assert new.model.axes() == old.model.axes()
        assert_equal(everything(new), everything(old))
        assert_equal(outputs(new.model, x), outputs(old.model, x))
        found, expected = new.optimizer.state_dict(), old.optimizer.state_dict()
        assert found["param_groups"] == expected["param_groups"]
        assert found["state"].keys() == expected["state"].keys()
        assert_equal(everything(step(new, x, y)), everything(step(deepcopy(old), x, y)))


# --- widening ---------------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(architectures, seeds)
def test_widening_preserves_the_function_and_that_of_the_averages(architecture: AnyArchitecture, seed: int) -> None:
    old = trainee_of(architecture, seed)
    x, _ = images(architecture, 7)
    wide = reindex(old, repeats(old))
    wider = reindex(wide, repeats(wide))
    for new in (wide, wider):
        assert_close(outputs(new.model, x), outputs(old.model, x))
        assert_close(outputs(averaged(new), x), outputs(averaged(old), x))


@settings(max_examples=25)
@given(architectures, seeds)
def test_carried_gradients_are_those_of_the_widened_network(architecture: AnyArchitecture, seed: int) -> None:
    """So the momentum of a widened training is what it would have been."""
    old = trainee_of(architecture, seed)
    x, y = images(architecture)
    for parameter, gradient in gradients(old, x, y).items():
        old.optimizer.state[parameter] = {
            "momentum_buffer": gradient,
            "exp_avg": gradient,
            "exp_avg_sq": gradient.square(),
            "max_exp_avg_sq": gradient.square(),
        }
    wide = reindex(old, repeats(old))
    for new in (wide, reindex(wide, repeats(wide))):
        for parameter, gradient in gradients(new, x, y).items():
            state = new.optimizer.state[parameter]
            torch.testing.assert_close(state["momentum_buffer"], gradient, rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(state["exp_avg"], gradient, rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(state["exp_avg_sq"], gradient.square(), rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(state["max_exp_avg_sq"], gradient.square(), rtol=1e-9, atol=1e-12)


@settings(max_examples=15)
@given(architectures, seeds)
def test_masks_are_copied_and_originals_keep_their_epoch_of_birth(architecture: AnyArchitecture, seed: int) -> None:
    old = trainee_of(architecture, seed)
    index = repeats(old)
    new = reindex(old, index, epoch=99)
    assert_equal(new.shadows["mask"].tensors, gathered(old.shadows["mask"].tensors, old, index))
    assert new.shadows["mask"].travel == "mask"
    for label, channels in index.items():
        seen: set[int] = set()
        for channel, epoch in zip(channels.tolist(), new.born[label].tolist(), strict=True):
            assert epoch == (99 if channel in seen else old.born[label][channel])
            seen.add(channel)


def test_channels_of_unknown_birth_are_as_old_as_the_training() -> None:
    old = replace(trainee_of(SMALL, 1), born={})
    new = reindex(old, {"stage0": torch.tensor([0, 1, 1, 4])}, epoch=3)
    assert {label: epochs.tolist() for label, epochs in new.born.items()} == {"stage0": [0, 0, 3, 0]}


@each_optimizer
@settings(max_examples=15)
@given(architectures, seeds)
def test_new_channels_change_nothing_for_anyone_and_are_learned(
    optimizer: str, architecture: AnyArchitecture, seed: int
) -> None:
    """Neither what the network computes, nor its averages, nor the gradients and the state of what was there."""
    old = trainee_of(architecture, seed, optimizer)
    index = enlarged(old)
    new, (x, y) = reindex(old, index, epoch=99), images(architecture, 7)
    assert_close(outputs(new.model, x), outputs(old.model, x))
    assert_close(outputs(averaged(new), x), outputs(averaged(old), x))

    back = {
        label: (channels != NEW).nonzero().flatten()[channels[channels != NEW].argsort()]
        for label, channels in index.items()
    }
    assert_equal(everything(replace(reindex(new, back), born=old.born)), everything(old))
    found = gradients(new, x, y)
    by_name = {name: found[parameter] for name, parameter in new.model.named_parameters()}
    expected = gradients(old, x, y)
    assert_close(gathered(by_name, new, back), {name: expected[p] for name, p in old.model.named_parameters()})

    for label, channels in index.items():
        assert (new.born[label][channels == NEW] == 99).all()
        assert torch.equal(new.born[label][channels != NEW], old.born[label][channels[channels != NEW]])
    if any((channels == NEW).any() for channels in index.values()):
        head = new.model.head
        before = None if isinstance(head, FactorisedHead) else head.weight.detach().clone()
        step(step(new, x, y), x, y)
        assert all(tensor.isfinite().all() for tensor in everything(new).values())
        if before is None:
            return  # what a new channel between the two halves of a head reads is random, whether or not that is new
        last = new.model.axes()["head.weight"][1]
        added = index[last] == NEW
        assert not before[:, added].any()
        is_dead = not by_name["head.weight"][:, added].any()  # the ReLU before it is 0 for all of four images
        learns = added.any() and expected[old.model.head.weight].any() and not is_dead
        assert new.model.head.weight[:, added].any() or not learns


def test_new_channels_begin_as_in_a_new_network() -> None:
    old = trainee_of(SMALL, 3, "adam")
    index = {
        label: torch.cat([torch.arange(size), torch.full((64,), NEW)]) for label, size in SMALL.axis_sizes().items()
    }
    new = reindex(old, index)
    for name, labels in new.model.axes().items():
        tensor = new.model.state_dict()[name]
        if tensor.dim() == 4:
            rows = tensor[-64:]
            assert rows.std().item() == pytest.approx((2 / (len(tensor) * tensor[0, 0].numel())) ** 0.5, rel=0.1)
            assert labels[1] is None or not tensor[:-64, -64:].any()
        elif tensor.dim() == 1 and labels[0] is not None:
            assert (tensor[-64:] == float(name.endswith(("weight", "var")))).all()
    for name, parameter in new.model.named_parameters():
        state = new.optimizer.state[parameter]
        fresh = torch.ones_like(parameter, dtype=torch.bool)
        old_part = tuple(slice(SMALL.axis_sizes()[label]) if label else slice(None) for label in new.model.axes()[name])
        fresh[old_part] = False
        assert not state["exp_avg"][fresh].any()
        mean = state["exp_avg_sq"][old_part].mean()
        torch.testing.assert_close(state["exp_avg_sq"][fresh], mean.expand(int(fresh.sum())))
    for mask in new.shadows["mask"].tensors.values():
        assert (mask[-64:] == 1).all()


# --- pruning ----------------------------------------------------------------------------------------------------------


def kill(trainee: Trainee, keep: Index) -> None:
    """Zeroes, in the model and its averages, the weights that make the channels outside `keep` dead. In place.

    Inside a block both sides are zero. A stage's channels still have a producer, but nobody reads them.
    """
    for tensors in (trainee.model.state_dict(), trainee.shadows[SHADOW].tensors):
        for name, labels in trainee.model.axes().items():
            if len(labels) < 2:
                continue
            for dim, label in enumerate(labels):
                if label in keep and (dim == 1 or "block" in label):
                    dead = torch.ones(tensors[name].shape[dim], dtype=torch.bool)
                    dead[keep[label]] = False
                    tensors[name].index_fill_(dim, dead.nonzero().flatten(), 0.0)


@settings(max_examples=25)
@given(architectures, seeds)
def test_pruning_dead_channels_preserves_the_function_and_that_of_the_averages(
    architecture: AnyArchitecture, seed: int
) -> None:
    old = trainee_of(architecture, seed)
    keep = subset(old)
    kill(old, keep)
    new, (x, _) = reindex(old, keep), images(architecture)
    assert_close(outputs(new.model, x), outputs(old.model, x))
    assert_close(outputs(averaged(new), x), outputs(averaged(old), x))


@each_optimizer
@settings(max_examples=15)
@given(architectures, seeds)
def test_pruning_dead_channels_commutes_with_a_step(optimizer: str, architecture: AnyArchitecture, seed: int) -> None:
    old = trainee_of(architecture, seed, optimizer)
    keep = subset(old)
    kill(old, keep)
    x, y = images(architecture)
    pruned_first = step(reindex(old, keep), x, y)
    assert_close(everything(pruned_first), everything(reindex(step(old, x, y), keep)))


@settings(max_examples=15)
@given(architectures, seeds)
def test_pruning_selects_and_changes_no_value(architecture: AnyArchitecture, seed: int) -> None:
    old = trainee_of(architecture, seed, "adam")
    keep = subset(old)
    new = everything(reindex(old, keep))
    for kind in ("model", "exp_avg", "exp_avg_sq", SHADOW, "mask"):
        tensors = {k.split(" ")[1]: t for k, t in everything(old).items() if k.split(" ")[0] == kind}
        expected = gathered(tensors, old, keep)
        assert_equal({name: new[f"{kind} {name}"] for name in expected}, expected)
    assert_equal({label: new[f"born {label}"] for label in keep}, {k: old.born[k][keep[k]] for k in keep})


def producer(model: Network, label: str) -> nn.Conv2d:
    """A convolution whose outputs are the channels of an axis."""
    name = next(n for n, labels in model.axes().items() if len(labels) == 4 and labels[0] == label)
    found = model.get_submodule(name.removesuffix(".weight"))
    assert isinstance(found, nn.Conv2d)
    return found


wide_enough = residual_ones.filter(lambda a: 1 not in a.axis_sizes().values())


@settings(max_examples=15)
@given(wide_enough, seeds, st.data())
def test_pruning_an_axis_cuts_what_torch_pruning_cuts(
    architecture: Architecture, seed: int, data: st.DataObject
) -> None:
    """Widths of 1 are left out: Torch-Pruning takes a convolution from 1 to 1 channel for a depthwise one."""
    old = trainee_of(architecture, seed, steps=0)
    label = data.draw(st.sampled_from(sorted(set(old.model.architecture.axis_sizes()) - {"head.rank"})))
    keep = subset(old)[label]
    dead = sorted(set(range(old.model.architecture.axis_sizes()[label])) - set(keep.tolist()))
    assume(dead)
    cut = deepcopy(old.model).eval()
    offsets = [(p, 0) for name, p in cut.named_parameters() if name.endswith("offset")]
    graph = torch_pruning.DependencyGraph().build_dependency(
        cut, images(architecture, 8)[0], unwrapped_parameters=offsets
    )
    graph.get_pruning_group(producer(cut, label), torch_pruning.prune_conv_out_channels, dead).prune()
    assert_equal(reindex(old, {label: keep}).model.state_dict(), cut.state_dict())


@settings(max_examples=10)
@given(architectures, seeds)
def test_a_pruned_and_grown_network_is_rebuilt_from_its_architecture_alone(
    architecture: AnyArchitecture, seed: int
) -> None:
    old = trainee_of(architecture, seed)
    pruned = reindex(old, subset(old))
    grown, size = reindex(pruned, repeats(pruned)), 8
    if isinstance(architecture, Architecture):
        grown = insert_block(grown, 0, 0, 2)
    else:
        size = architecture.size
    costs = [flops.count(t.model.architecture, size) for t in (old, pruned, grown)]
    assert costs[1] <= costs[0]
    assert costs[2] > costs[1] or not isinstance(architecture, Architecture)
    for trainee in (pruned, grown):
        plain = json.loads(json.dumps(trainee.model.architecture.to_json()))
        rebuilt = build(architecture_of(plain)).double()
        rebuilt.load_state_dict(trainee.model.state_dict())
        x, _ = images(architecture)
        assert_equal(outputs(rebuilt, x), outputs(trainee.model, x))


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"stage2": [0]}, "there is no axis 'stage2': the network has stage0, stage0.block0, stage0.block1, stage1"),
        ({"stage1.block1": [0]}, "there is no axis 'stage1.block1'"),  # a block without branch
        ({"stage0": []}, "axis stage0 has channels 0 to 4: "),
        ({"stage0": [0, 5]}, "axis stage0 has channels 0 to 4: "),
        ({"stage0.block0": [-2, 0]}, "axis stage0.block0 has channels 0 to 5: "),
        ({"stage0": [0], "stage1": [7]}, "axis stage1 has channels 0 to 6: "),
    ],
)
def test_channels_that_do_not_exist_are_refused_in_one_line(index: dict[str, list[int]], message: str) -> None:
    channels = {label: torch.tensor(found, dtype=torch.int64) for label, found in index.items()}
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        reindex(trainee_of(SMALL, 1, steps=0), channels)
    assert "\n" not in str(caught.value)


# --- deeper -----------------------------------------------------------------------------------------------------------


def moved(name: str, stage: int, shift: Callable[[int], int]) -> str:
    """The name of a tensor or an axis after the blocks of one stage moved."""
    return re.sub(
        rf"(stages\.{stage}\.|stage{stage}\.block)(\d+)", lambda m: f"{m[1]}{shift(int(m[2]))}", name, count=1
    )


@each_optimizer
@settings(max_examples=12)
@given(residual_ones, seeds, st.data())
def test_an_inserted_block_is_the_identity_and_learns(
    optimizer: str, architecture: AnyArchitecture, seed: int, data: st.DataObject
) -> None:
    old = trainee_of(architecture, seed, optimizer)
    stage = data.draw(st.integers(0, len(architecture.stages) - 1))
    position = data.draw(st.integers(min(stage, 1), len(architecture.stages[stage].interiors)))
    interior = data.draw(st.integers(2, 9))
    new, (x, y) = insert_block(old, stage, position, interior, epoch=12), images(architecture)

    assert_equal(outputs(new.model, x), outputs(old.model, x))
    assert_equal(outputs(averaged(new), x), outputs(averaged(old), x))

    at, axis = f"stages.{stage}.{position}.", interior_axis(stage, position)
    of_block = {name: t for name, t in everything(new).items() if name.split(" ")[1].startswith(at)}
    carried = {k: t for k, t in everything(new).items() if k not in of_block and k != f"born {axis}"}
    shifted = {moved(name, stage, lambda b: b + (b >= position)): t for name, t in everything(old).items()}
    assert_equal(carried, shifted)
    assert new.born[axis].tolist() == [12] * interior

    kinds = {name.split(" ")[0] for name in everything(old)} - {"born"}
    for name, parameter in block(new, stage, position).named_parameters():
        assert parameter.requires_grad
        assert options(new)[at + name] == options(old)["stem.0.weight" if parameter.dim() > 1 else "stem.1.bias"]
        state = new.optimizer.state[parameter]
        assert state.keys() == old.optimizer.state[next(old.model.parameters())].keys()
        assert not any(value.any() for value in state.values())
        assert torch.equal(new.shadows[SHADOW].tensors[at + name], parameter)
        if parameter.dim() == 4:
            assert (new.shadows["mask"].tensors[at + name] == 1).all()
    assert {name.split(" ")[0] for name in of_block} == kinds

    inserted, seen = block(new, stage, position), []
    inserted.bn2.register_forward_hook(lambda module, given, result: seen.append(given[0]))
    learned = gradients(new, x, y)
    speaks = bool((seen[0].var((0, 2, 3)) > 1e-12).any())  # few channels may all be dead by chance
    assert not learned[inserted.conv1.weight].any()
    assert not learned[inserted.conv2.weight].any()
    upstream = learned[inserted.bn2.bias]
    assert learned[inserted.bn2.weight].any() or not speaks or not upstream.any()  # where the block's input is dead
    step(new, x, y)
    assert inserted.bn2.weight.any() or not speaks or not upstream.any()


def test_an_inserted_block_begins_as_new_ones_do() -> None:
    new = insert_block(trainee_of(SMALL, 3), 1, 2, 32)
    inserted = block(new, 1, 2)
    for convolution in (inserted.conv1, inserted.conv2):
        he_normal = (2 / (convolution.out_channels * 9)) ** 0.5
        assert convolution.weight.std().item() == pytest.approx(he_normal, rel=0.1)
    expected = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0, "num_batches_tracked": 0.0}
    for norm, gamma in ((inserted.bn1, 1.0), (inserted.bn2, 0.0)):
        for name, value in {**expected, "weight": gamma}.items():
            assert (norm.state_dict()[name] == value).all()


def test_a_mask_of_another_type_keeps_it() -> None:
    old = trainee_of(SMALL, 3)
    masks = {name: mask.bool() for name, mask in old.shadows["mask"].tensors.items()}
    old = replace(old, shadows={"mask": Shadow(masks, "mask")})
    for new in (insert_block(old, 0, 1, 2), reindex(old, repeats(old))):
        assert all(mask.dtype == torch.bool for mask in new.shadows["mask"].tensors.values())


@pytest.mark.parametrize(
    ("stage", "position", "interior", "message"),
    [
        (0, -1, 3, "stage 0 takes a new block at positions 0 to 2, not at -1"),
        (0, 3, 3, "stage 0 takes a new block at positions 0 to 2, not at 3"),
        (1, 0, 3, "stage 1 takes a new block at positions 1 to 3, not at 0"),  # in front of the transition block
        (2, 1, 3, "a block of 3 channels cannot be inserted into stage 2"),
        (-1, 1, 3, "a block of 3 channels cannot be inserted into stage -1"),
        (0, 1, 0, "a block of 0 channels cannot be inserted into stage 0"),
    ],
)
def test_a_block_that_cannot_be_inserted_is_refused_in_one_line(
    stage: int, position: int, interior: int, message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        insert_block(trainee_of(SMALL, 1, steps=0), stage, position, interior)


# --- shallower --------------------------------------------------------------------------------------------------------


with_branch = residual_ones.filter(lambda a: bool(branches(a)))


@each_optimizer
@settings(max_examples=12)
@given(with_branch, seeds, st.data())
def test_dropping_a_dead_branch_preserves_the_function_and_that_of_the_averages(
    optimizer: str, architecture: AnyArchitecture, seed: int, data: st.DataObject
) -> None:
    trainee = trainee_of(architecture, seed, optimizer)
    x, y = images(architecture)
    for _ in range(2):  # the second time, another branch of what is left
        left = branches(trainee.model.architecture)
        if not left:
            break
        stage, position = data.draw(st.sampled_from(left))
        biased = data.draw(st.booleans())
        old = without_branch(trainee, stage, position, bias=biased)
        trainee = new = drop_block(old, stage, position)

        assert_close(outputs(new.model, x), outputs(old.model, x))
        assert_close(outputs(averaged(new), x), outputs(averaged(old), x))

        transition = stage > 0 and position == 0
        interiors = list(old.model.architecture.stages[stage].interiors)
        interiors[position : position + 1] = [0] if biased or transition else []
        assert new.model.architecture.stages[stage].interiors == tuple(interiors)

        gone = not (biased or transition)
        at, inside, after = f"stages.{stage}.{position}.", interior_axis(stage, position), everything(new)
        expected = {
            moved(name, stage, lambda b, p=position, g=gone: b - (g and b > p)): tensor
            for name, tensor in everything(old).items()
            if (f" {at}" not in name or ".shortcut." in name) and f" {inside}." not in f"{name}."
        }
        folded = f"{at}bn2.bias"
        for kind in ("model", SHADOW) if transition else ():
            name = f"{kind} {at}shortcut.1.bias"
            expected[name] = expected[name] + everything(old)[f"{kind} {folded}"]
        if biased and not transition:
            kinds = [name.split(" ")[0] for name in everything(old) if name.endswith(f" {folded}")]
            expected |= {f"{kind} {at}offset": everything(old)[f"{kind} {folded}"] for kind in kinds}
            assert options(new)[f"{at}offset"] == options(old)[folded]
        assert_equal(after, expected)
    step(trainee, x, y)


def test_a_training_goes_on_after_its_network_lost_every_branch() -> None:
    trainee = trainee_of(SMALL, 2)
    for stage, position in branches(SMALL):
        trainee = drop_block(without_branch(trainee, stage, position), stage, position)
    assert trainee.model.architecture == Architecture(3, 4, (Stage(5, (0, 0)), Stage(7, (0, 0, 0))))
    x, y = images(SMALL)
    before = F.cross_entropy(trainee.model(x), y)
    for _ in range(20):
        step(trainee, x, y)
    assert F.cross_entropy(trainee.model(x), y) < 0.5 * before


def test_an_offset_that_an_average_still_needs_is_kept() -> None:
    """The bias of the dead branch has just become zero, its average has not."""
    old = without_branch(trainee_of(SMALL, 2), 0, 1)
    block(old, 0, 1).bn2.bias.data.zero_()
    new, (x, _) = drop_block(old, 0, 1), images(SMALL)
    assert_close(outputs(averaged(new), x), outputs(averaged(old), x))


@pytest.mark.parametrize(("stage", "position"), [(1, 1), (0, 2), (1, 3), (2, 0), (-1, 0), (0, -1)])
def test_a_branch_that_does_not_exist_is_refused_in_one_line(stage: int, position: int) -> None:
    with pytest.raises(ValueError, match=rf"^block {position} of stage {stage} has no branch$"):
        drop_block(trainee_of(SMALL, 1, steps=0), stage, position)


@each_optimizer
@pytest.mark.parametrize(("stage", "position"), [(0, 1), (1, 0), (1, 1)])
def test_a_branch_that_is_put_back_changes_nothing_for_anyone_and_learns(
    optimizer: str, stage: int, position: int
) -> None:
    bare = Architecture(3, 4, (Stage(5, (6, 0)), Stage(7, (0, 0, 4))))
    old = trainee_of(bare, 3, optimizer)
    new, (x, y) = insert_branch(old, stage, position, 9, epoch=12), images(bare)
    assert new.model.architecture.stages[stage].interiors[position] == 9
    assert_close(outputs(new.model, x), outputs(old.model, x))
    assert_close(outputs(averaged(new), x), outputs(averaged(old), x))
    assert new.born[interior_axis(stage, position)].tolist() == [12] * 9
    at = f"stages.{stage}.{position}."
    before = block(new, stage, position).conv2.weight.detach().clone()
    for _ in range(2):  # first its last scale, then what that scales
        step(new, x, y)
    assert not torch.equal(block(new, stage, position).conv2.weight, before)
    rest = {name for name in everything(old) if f" {at}" not in name or ".shortcut." in name}
    assert rest <= everything(new).keys()


@pytest.mark.parametrize(("stage", "position", "interior"), [(0, 0, 3), (0, 2, 3), (2, 0, 3), (1, 1, 0), (1, -1, 3)])
def test_a_branch_that_cannot_be_put_back_is_refused_in_one_line(stage: int, position: int, interior: int) -> None:
    words = f"^block {position} of stage {stage} takes no branch of {interior} channels$"
    with pytest.raises(ValueError, match=words):
        insert_branch(trainee_of(SMALL, 1, steps=0), stage, position, interior)


def test_axes_are_named_alike_by_network_and_surgery() -> None:
    labels = {label for labels in ResNet(SMALL).axes().values() for label in labels if label is not None}
    expected = {stage_axis(s) for s in range(2)} | {interior_axis(s, b) for s, b in branches(SMALL)}
    assert labels == expected == SMALL.axis_sizes().keys()
