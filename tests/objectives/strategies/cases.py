"""One list of every strategy with small parameters, and what the tests of strategies share.

A new strategy gets a row in `CASES`, which puts it under every law of `test_laws.py`, and a test file of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from objectives.data.dataset import Dataset
from objectives.device.executors import Eager, Segment
from objectives.device.formats import FORMATS, LossScaler
from objectives.networks.network import Network
from objectives.networks.plain import INPUTS
from objectives.networks.trainee import Trainee
from objectives.pipeline import Pipeline, Report
from objectives.state import TrainState
from objectives.strategies.adaptive import Adaptive
from objectives.strategies.average_pooling import AveragePooling
from objectives.strategies.balanced_sampling import BalancedSampling
from objectives.strategies.base import Strategy
from objectives.strategies.batch_growth import BatchGrowth
from objectives.strategies.bias_learning_rate import BiasLearningRate
from objectives.strategies.block_floating_point import BlockFloatingPoint
from objectives.strategies.column_row_sampling import ColumnRowSampling
from objectives.strategies.data_fraction import DataFraction
from objectives.strategies.discriminative_rates import DiscriminativeRates
from objectives.strategies.dynamic_fixed_point import DynamicFixedPoint
from objectives.strategies.ema import Ema
from objectives.strategies.fixed_architecture import FixedArchitecture
from objectives.strategies.fixed_point import FixedPoint
from objectives.strategies.float8 import Float8
from objectives.strategies.freeze import Freeze
from objectives.strategies.frozen_stages import FrozenStages
from objectives.strategies.gradient_approximation import GradientApproximation
from objectives.strategies.gradient_clipping import GradientClipping
from objectives.strategies.haar_stem import HaarStem
from objectives.strategies.identity_init import IdentityInit
from objectives.strategies.inconsistent_sgd import InconsistentSGD
from objectives.strategies.kernel_rescaling import KernelRescaling
from objectives.strategies.linear_probe import LinearProbe
from objectives.strategies.lookahead import Lookahead
from objectives.strategies.lottery_ticket import LotteryTicket
from objectives.strategies.low_rank import LowRank
from objectives.strategies.morph_net import MorphNet
from objectives.strategies.muon import Muon
from objectives.strategies.net2net import Net2Net
from objectives.strategies.plateau import Plateau
from objectives.strategies.progressive_resolution import ProgressiveResolution
from objectives.strategies.prune_train import PruneTrain
from objectives.strategies.pruned_activation_gradients import PrunedActivationGradients
from objectives.strategies.regime_adaptation import RegimeAdaptation
from objectives.strategies.s3_pool import S3Pool
from objectives.strategies.standardization_loss import StandardizationLoss
from objectives.strategies.stochastic_pooling import StochasticPooling
from objectives.strategies.strided_stem import StridedStem
from objectives.strategies.structure_and_strength import StructureAndStrength
from objectives.strategies.swa import Swa
from objectives.strategies.switch_format import SwitchFormat
from objectives.strategies.transfer import Transfer
from objectives.strategies.weight_norm import WeightNorm
from objectives.strategies.whitening import Whitening
from objectives.task import DataSpec, Seeds, Task
from objectives.train import Trained, begun, bound, starting_state, train
from tests.objectives.starts.made import standing

TASK = Task(DataSpec("digits"), "small", stem_stride=2)
SEEDS = Seeds(1, 2, 3)
PLAIN = Pipeline(batch_size=50, epochs=4, lr=0.2, schedule="one_cycle", crop=False, flip=False, width=0.5)


@dataclass(frozen=True)
class Ground:
    """Where the laws are tried: a family of networks and the run that strategies are added to."""

    task: Task
    plain: Pipeline

    def using(self, *strategies: Strategy, **settings: object) -> Pipeline:
        """The run with strategies, and perhaps other settings."""
        return replace(self.plain, strategies=strategies, **settings)  # type: ignore[arg-type]


RESIDUAL = Ground(TASK, PLAIN)
IN_BF16 = Ground(TASK, replace(PLAIN, number_format="bf16"))
UNNORMED = Ground(TASK, replace(PLAIN, lr=0.3))  # without batch norms so few steps need a higher rate
LARGE = Ground(Task(TASK.data, "imagenet18"), replace(PLAIN, width=0.125))  # with the stem of networks for large images
PLAIN_GROUNDS = {  # convolutions with batch norms in front of a dense layer; dense layers with biases on pixels
    "vgg": Ground(Task(TASK.data, "vgg"), replace(PLAIN, width=0.125)),
    "lenet300": Ground(Task(TASK.data, "lenet300"), replace(PLAIN, width=0.25)),
}

Surgery = Literal["pruning", "widening"]


@dataclass(frozen=True)
class Case:
    """A strategy as the laws need it."""

    active: Strategy  # acts within `PLAIN`
    neutral: Strategy  # must not act at all
    events: tuple[str, ...]  # patterns: what `active` reports at the boundaries of `PLAIN`, in order
    learns: bool  # has learned something once it is bound to its first segment
    commutes: tuple[Surgery, ...] = ("pruning", "widening")  # with what its step commutes; say why where one is missing
    ground: Ground = RESIDUAL
    saturates: bool = False  # its numbers have a largest one, so that no learning rate makes a run leave them

    def using(self, *strategies: Strategy, **settings: object) -> Pipeline:
        """The run of its ground with strategies."""
        return self.ground.using(*strategies, **settings)

    @property
    def task(self) -> Task:
        return self.ground.task


CASES = {
    "Adaptive": Case(
        Adaptive(lpr=0.3, kappa=0.0, interval=3, threshold=0.1, rounds=1, gain=0.9, least=1, tail=0.25, budget=99.0),
        Adaptive(lpr=0.0, rounds=0),
        events=(
            r"lambda .* from LPR 0.3",
            "PruneTrain will hardly prune: .*",
            r"round 2: wider, 8\[8\]-8\[8\] to 12\[12\]-12\[12\]: one more epoch brings nothing; it lacks capacity",
            "PruneTrain removed nothing",
            "the learning rate falls from here on, and nothing is penalised",
        ),
        learns=True,
    ),
    "Net2Net": Case(
        Net2Net(start_width=0.5, start_depth=0.5, at=0.3, until=0.3),
        Net2Net(start_width=1.0, start_depth=1.0),
        events=(r"grown 8\[8\]-8\[8\] to 8\[8\]-16\[16\]",),
        learns=False,
    ),
    "PruneTrain": Case(
        PruneTrain(lpr=0.4, interval=3, threshold=0.2),  # leaves 8 to 10 channels of the last 16, whichever the images
        PruneTrain(lpr=0.0),
        events=(r"lambda .* from LPR 0.4", r"pruned .* to .*"),
        learns=True,
    ),
    "Ema": Case(Ema(horizon=0.5), Ema(horizon=0.0), events=(), learns=True),
    "ProgressiveResolution": Case(
        ProgressiveResolution(start=0.5, until=0.25, steps=1),
        ProgressiveResolution(start=1.0, until=0.25, steps=1),
        events=("images 4 -> 8 pixels",),
        learns=True,
    ),
    "AveragePooling": Case(AveragePooling(), AveragePooling(side=1), events=(), learns=False),
    "BiasLearningRate": Case(BiasLearningRate(factor=8.0), BiasLearningRate(factor=1.0), events=(), learns=False),
    "BlockFloatingPoint": Case(
        BlockFloatingPoint(),
        BlockFloatingPoint(bits=32),
        events=("8-bit block floating point rounded at random is emulated: .*",),
        learns=False,
        commutes=(),  # other channels draw other numbers
    ),
    "BalancedSampling": Case(
        BalancedSampling(),
        BalancedSampling(share=0.0),
        events=(r"classes come 50 to 50 times an epoch, they have \d\d to 5\d images",),
        learns=True,
    ),
    "ColumnRowSampling": Case(
        ColumnRowSampling(share=0.5, least=4, until=0.5),
        ColumnRowSampling(share=1.0),
        events=("layers read all of their channels from here on",),
        learns=False,
        commutes=(),  # of fewer channels it takes fewer
    ),
    "BatchGrowth": Case(
        BatchGrowth(at=0.5, until=0.5, steps=1, rate="scaled", momentum="corrected"),
        BatchGrowth(factor=1),
        events=("batch 50 to 100",),
        learns=False,
    ),
    "DataFraction": Case(
        DataFraction(start=0.5, until=0.5, steps=2),
        DataFraction(start=1.0),
        events=("250 of 500 images", "375 of 500 images", "500 of 500 images"),
        learns=True,
    ),
    "DynamicFixedPoint": Case(
        DynamicFixedPoint(),
        DynamicFixedPoint(bits=32),
        events=("DFP16 is emulated: .*",),
        learns=False,
        commutes=("pruning",),  # half of a number may round unlike half of what it rounds to
    ),
    "FixedPoint": Case(
        FixedPoint(),
        FixedPoint(bits=32),
        events=("fixed point <4, 12> rounded at random is emulated: .*",),
        learns=False,
        commutes=(),
        saturates=True,
    ),
    "Float8": Case(
        Float8(),
        Float8("fp32", "fp32"),
        events=(r"fp8 \(e4m3, errors e5m2\) is emulated: .*",),
        learns=False,
        commutes=("pruning",),
    ),
    "FixedArchitecture": Case(
        FixedArchitecture(((8, (8,)), (16, (12,)))), FixedArchitecture(), events=(), learns=False
    ),
    "Freeze": Case(Freeze(start=0.5), Freeze(start=1.0), events=("frozen: stem", "frozen: stage 0"), learns=False),
    "FrozenStages": Case(
        FrozenStages(parts=2, until=0.5, statistics="adapted"),
        FrozenStages(parts=0),
        events=("stage 0 trains from here on", "stem trains from here on"),
        learns=False,
    ),
    "LinearProbe": Case(
        LinearProbe(),
        LinearProbe(share=0.0),
        events=(r"the head starts as a linear probe: \d\d% of 500 images are told rightly by one on all others",),
        learns=False,
    ),
    "DiscriminativeRates": Case(
        DiscriminativeRates(body=0.5, decay=0.8), DiscriminativeRates(body=1.0, decay=1.0), events=(), learns=False
    ),
    "GradientApproximation": Case(
        GradientApproximation("skip", until=0.75),
        GradientApproximation(share=0.0),
        events=("gradients are exact from here on",),
        learns=True,
    ),
    "GradientClipping": Case(
        GradientClipping(norm=0.5),
        GradientClipping(norm=0.0),
        events=(r"gradients of [\d.]+% of the steps were longer than 0.5",),
        learns=True,
        commutes=("pruning",),  # copies of a channel share a gradient, and what is shared is shorter
    ),
    "HaarStem": Case(HaarStem(), HaarStem(levels=0), events=(), learns=False),
    "Plateau": Case(
        Plateau(gain=0.9),
        Plateau(gain=0.0),
        events=(r"loss .*, best before .*: cools down to epoch 3",),
        learns=False,
    ),
    "S3Pool": Case(S3Pool(), S3Pool(side=1), events=(), learns=False),
    "StochasticPooling": Case(
        StochasticPooling(),
        StochasticPooling(side=1),
        events=(),
        learns=False,
        commutes=(),  # every channel draws for itself: of fewer or more of them each draws something else
    ),
    "RegimeAdaptation": Case(
        RegimeAdaptation(reference=40),
        RegimeAdaptation(share=0.0),
        events=("5 epochs instead of 4, for 50 updates",),
        learns=False,
    ),
    "Transfer": Case(
        Transfer(standing("small", 0.75)),
        Transfer(),
        events=(
            r"begins from the network in small-.*, its classifier too; nobody knows how long it trained; 16.* to .*",
        ),
        learns=False,
    ),
    "StridedStem": Case(StridedStem(), StridedStem(stride=1), events=(), learns=False),
    "IdentityInit": Case(IdentityInit(), IdentityInit(share=0.0), events=(), learns=False),
    "KernelRescaling": Case(
        KernelRescaling(),
        KernelRescaling(start=3, kernel=3),
        events=("kernels of the stem 3 -> 5 pixels",),
        learns=False,
    ),
    "InconsistentSGD": Case(
        InconsistentSGD(sigmas=0.0, stop=2),
        InconsistentSGD(stop=0),
        events=(r"\d+ of \d+ batches were above the limit: \d+ further steps",),
        learns=True,
    ),
    "Lookahead": Case(Lookahead(interval=4, pull=0.8), Lookahead(pull=1.0), events=(), learns=False),
    "MorphNet": Case(
        MorphNet(strength=3.0, learn=0.3),
        MorphNet(iterations=0),
        events=(r"morphed 8\[8\]-16\[16\] to .*, from scratch: \d+% of the channels were alive, omega .*",),
        learns=True,
        commutes=("pruning",),  # copies of a channel are two channels that are alive: they cost more
    ),
    "LotteryTicket": Case(
        LotteryTicket(levels=1, rewind=1),
        LotteryTicket(levels=0),
        events=("kept the weights of epoch 1", "level 1: 20% of weights pruned, back to epoch 1"),
        learns=False,
    ),
    "LowRank": Case(
        LowRank(rank=0.5),
        LowRank(rank=1.0),
        events=(r"factorised 4 of 5 layers, which keep \d\d% of their energy; \d\d% of the FLOPs",),
        learns=False,
    ),
    "Muon": Case(Muon(), Muon(lr=0.0), events=(), learns=False),
    "StandardizationLoss": Case(
        StandardizationLoss(alpha=0.1),
        StandardizationLoss(alpha=0.0),
        events=(),
        learns=False,
        commutes=("pruning",),  # copies of a channel are two channels that are to be standardised
        ground=UNNORMED,
    ),
    "PrunedActivationGradients": Case(
        PrunedActivationGradients(),
        PrunedActivationGradients(share=0.0),
        events=(),
        learns=False,
        commutes=(),  # it draws a number for every entry, and other ones where there are fewer
    ),
    "StructureAndStrength": Case(
        StructureAndStrength(until=0.5),
        StructureAndStrength(until=0.0),
        events=("structures are free from here on",),
        learns=False,
    ),
    "SwitchFormat": Case(
        SwitchFormat(),
        SwitchFormat(at=1.0),
        events=("bf16 until epoch 2, fp32 from here on",),
        learns=False,
        ground=IN_BF16,
    ),
    "Swa": Case(Swa(start=0.5, lr=0.2, images=200), Swa(start=1.0), events=("averaging since epoch 2",), learns=False),
    "WeightNorm": Case(WeightNorm(norm="mean_only"), WeightNorm(norm="batch"), events=(), learns=False),
    "Whitening": Case(
        Whitening(frozen=0.5), Whitening(share=0.0), events=("the stem trains from here on",), learns=True
    ),
}

# Of the space `everything` alone: `make test-all` tries each of them with every other strategy, and in plain networks.
RARE = {
    *("AveragePooling", "BatchGrowth", "ColumnRowSampling", "GradientApproximation", "GradientClipping"),
    *("DiscriminativeRates", "LinearProbe"),
    *("InconsistentSGD", "PrunedActivationGradients", "RegimeAdaptation", "S3Pool", "StandardizationLoss"),
    *("StochasticPooling", "StructureAndStrength"),
}


# A probe of features that are small has large weights: from there on a run goes at a lower rate.
GENTLE = {name: replace(ground, plain=replace(ground.plain, lr=0.02)) for name, ground in PLAIN_GROUNDS.items()}
# What plain networks make of the cases that do not need residual blocks, where it is something else.
PRUNING = PruneTrain(lpr=0.5, interval=3, threshold=0.3)
ON_PLAIN: dict[str, dict[str, dict[str, object]]] = {
    "vgg": {
        "Transfer": {
            "active": Transfer(standing("vgg", 0.25)),
            "events": (r"begins from the network in vgg-.*, its classifier too; .*",),
        },
        "LinearProbe": {"ground": GENTLE["vgg"]},
        "FrozenStages": {"events": ("conv2 trains from here on", "conv1 trains from here on")},
        "Net2Net": {"events": (r"grown conv 8-8-8-8-16-16 dense 16 to conv 8-8-16-16-32-32 dense 32",)},
        "PruneTrain": {"active": PRUNING, "events": (r"lambda .* from LPR 0.5", r"pruned .* to .*")},
    },
    "lenet300": {
        "Transfer": {
            "active": Transfer(standing("lenet300", 0.5)),
            "events": (r"begins from the network in lenet300-.*, its classifier too; .*",),
        },
        "LinearProbe": {"ground": GENTLE["lenet300"]},
        "FrozenStages": {"events": ("dense2 trains from here on", "dense1 trains from here on")},
        "Net2Net": {"events": (r"grown inputs 64 dense 40-16 to inputs 64 dense 75-25",)},
        "PruneTrain": {"active": PRUNING, "events": (r"lambda .* from LPR 0.5", r"pruned .* to .*")},
    },
}
# Strategies that act on norms, or on convolutions behind the first one: dense networks have neither.
NEED_NORMS = ("BiasLearningRate", "GradientApproximation", "IdentityInit", "Muon", "StructureAndStrength")
EMULATED = tuple(name for name, case in CASES.items() if case.active.emulated)
OF_ANY_CONVOLUTION = (*EMULATED, "SwitchFormat")  # whatever network it is in, and slow
NEED_BLOCKS = tuple(name for name, case in CASES.items() if case.active.needs_blocks)
PLAIN_CASES = {
    f"{name} on {family}": replace(case, **{"ground": ground, **ON_PLAIN[family].get(name, {})})  # type: ignore[arg-type]
    for family, ground in PLAIN_GROUNDS.items()
    for name, case in CASES.items()
    if name not in (*NEED_BLOCKS, *OF_ANY_CONVOLUTION) and (family == "vgg" or name not in NEED_NORMS)
}


class NothingIsRead(TorchDispatchMode):
    """A context in which no tensor's value may decide anything on the host: on a GPU that would wait for the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        assert "_local_scalar_dense" not in str(func), "a value of a tensor was read"
        return func(*args, **(kwargs or {}))


def using(*strategies: Strategy, **settings: object) -> Pipeline:
    return RESIDUAL.using(*strategies, **settings)


def finish(pipeline: Pipeline, dataset: Dataset, task: Task = TASK) -> tuple[list[Report], Trained]:
    """All reports of a training, and its result."""
    reports, training = [], train(pipeline, task, dataset, SEEDS)
    while True:
        try:
            reports.append(next(training))
        except StopIteration as end:
            return reports, end.value


def same_weights(one: Network, other: Network) -> bool:
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def untimed(report: Report) -> Report:
    """A report without what differs from run to run."""
    return replace(
        report,
        **dict.fromkeys(("train_seconds", "wall_seconds", "boundary_seconds", "eval_seconds"), 0.0),
        **dict.fromkeys(("peak_memory", "eval_peak_memory"), 0),
    )


def first_batch(dataset: Dataset) -> tuple[Tensor, Tensor]:
    return dataset.train.x[:50].float() / 128 - 1, dataset.train.y[:50]


def begin(pipeline: Pipeline, dataset: Dataset, task: Task = TASK) -> TrainState:
    """The state in which the first step is taken."""
    return bound(begun(starting_state(pipeline, task, dataset, SEEDS), *first_batch(dataset)))


def begin_in_double(pipeline: Pipeline, dataset: Dataset, task: Task = TASK) -> TrainState:
    """`begin` in double precision: where an equality is claimed."""
    state = starting_state(pipeline, task, dataset, SEEDS)
    state.trainee.model.double()
    for kept in state.trainee.optimizer.state.values():
        kept.update({key: value.double() for key, value in kept.items()})
    x, y = first_batch(dataset)
    return bound(begun(state, x.double(), y))


def executor(state: TrainState, scaler: LossScaler | None = None) -> Eager:
    """Runs the steps of the segment that begins with a bound state."""
    number_format = FORMATS[state.pipeline.number_format]
    return Eager(Segment(state.trainee, state.pipeline.strategies, number_format, scaler, 0.0))


def stepped(state: TrainState, dataset: Dataset, n_steps: int = 1) -> TrainState:
    """A bound state after steps on the first batch, in the precision of its model. In place."""
    x, y = first_batch(dataset)
    running = executor(state)
    torch.manual_seed(0)  # for strategies that draw
    for _ in range(n_steps):
        running.step(x.to(next(state.trainee.model.parameters()).dtype), y)
    return state


def contents(trainee: Trainee) -> dict[str, Tensor]:
    """A copy of everything that a step may change, by `kind name`."""
    tensors = {f"model {name}": tensor for name, tensor in trainee.model.state_dict().items()}
    for name, parameter in trainee.model.named_parameters():
        tensors |= {f"{key} {name}": value for key, value in trainee.optimizer.state[parameter].items()}
    for key, shadow in trainee.shadows.items():
        tensors |= {f"{key} {name}": tensor for name, tensor in shadow.tensors.items()}
    return {name: tensor.clone() for name, tensor in tensors.items()}


def subset(trainee: Trainee) -> dict[str, Tensor]:
    """A random choice of some channels of every axis, at least one of each."""
    sizes = _channels(trainee)
    return {axis: torch.randperm(n)[: int(torch.randint(1, n + 1, ()))].sort().values for axis, n in sizes.items()}


def repeats(trainee: Trainee) -> dict[str, Tensor]:
    """Every channel of every axis, then a few of them once more."""
    sizes = _channels(trainee)
    return {axis: torch.cat([torch.arange(n), torch.randint(n, (3,))]) for axis, n in sizes.items()}


def _channels(trainee: Trainee) -> dict[str, int]:
    """Channels of every axis that layers put out: pixels do not die, and have no copies."""
    return {axis: n for axis, n in trainee.model.architecture.axis_sizes().items() if axis != INPUTS}


def killed(trainee: Trainee, keep: Mapping[str, Tensor]) -> Trainee:
    """The trainee whose channels outside `keep` are dead for good. In place.

    All that produces or reads them is zero, and so are its momentum and its averages: no gradient brings them back.
    """
    axes = trainee.model.axes()
    for name, parameter in trainee.model.named_parameters():
        averages = [s.tensors[name] for s in trainee.shadows.values() if s.travel == "weight" and name in s.tensors]
        for tensor in (parameter.detach(), *trainee.optimizer.state[parameter].values(), *averages):
            for dim, axis in enumerate(axes[name]):
                if axis in keep:
                    dead = torch.ones(tensor.shape[dim], dtype=torch.bool).index_fill_(0, keep[axis], False)
                    tensor.index_fill_(dim, dead.nonzero().flatten(), 0.0)
    return trainee
