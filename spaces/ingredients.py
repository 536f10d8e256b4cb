"""The strategies as ingredients of a space: a function each asks for its parameters, a switch names it.

Nothing is asked that has no effect in the run at hand, of which `Run` tells.
"""

from __future__ import annotations

from objectives.networks.architecture import WIDTH_STEP, Architecture
from objectives.strategies.adaptive import Adaptive
from objectives.strategies.average_pooling import AveragePooling
from objectives.strategies.balanced_sampling import BalancedSampling
from objectives.strategies.base import Strategy
from objectives.strategies.batch_growth import BatchGrowth
from objectives.strategies.bias_learning_rate import BiasLearningRate
from objectives.strategies.column_row_sampling import ColumnRowSampling
from objectives.strategies.data_fraction import DataFraction
from objectives.strategies.ema import Ema
from objectives.strategies.freeze import Freeze
from objectives.strategies.gradient_approximation import GradientApproximation
from objectives.strategies.gradient_clipping import GradientClipping
from objectives.strategies.haar_stem import HaarStem
from objectives.strategies.identity_init import IdentityInit
from objectives.strategies.inconsistent_sgd import InconsistentSGD
from objectives.strategies.kernel_rescaling import KernelRescaling
from objectives.strategies.lookahead import Lookahead
from objectives.strategies.lottery_ticket import LotteryTicket
from objectives.strategies.low_rank import LowRank
from objectives.strategies.morph_net import MorphNet
from objectives.strategies.muon import Muon
from objectives.strategies.net2net import Net2Net
from objectives.strategies.plateau import Plateau
from objectives.strategies.progressive_resolution import SIZE_STEP, ProgressiveResolution
from objectives.strategies.prune_train import PruneTrain, kappa_for
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
from spaces import fine_tuning, updates
from spaces.base import Given, Trial
from spaces.run import MOST_LPR, Ingredients, Run, deepest, last_boundary, widest

SHARES = (0.1, 0.8)  # of the channels that PruneTrain is to remove
RANKS = (0.1, 0.6)  # shares of the channels that low rank leaves; at 0.6 a layer takes half its work, at 0.8 82 %
LEAST_STRIDED = 16  # pixels a side


def can_act(switch: str, run: Run) -> bool:
    """Whether an ingredient has an effect in such a run. What acts between epochs needs two of them."""
    full = run.full
    if not isinstance(full, Architecture) and EVERYTHING[switch][0].needs_blocks:
        return False
    if switch in fine_tuning.FINE_TUNING:
        return run.has_start and fine_tuning.can_act(switch, run)
    match switch:
        case "start":
            return run.has_start
        case "adaptive":  # a round, a growth and a tail
            return run.epochs > 3
        case "grow":
            return run.epochs > 1 and (widest(run) > WIDTH_STEP or deepest(run) > 1)
        case "prune":
            return run.epochs > 1 and run.prunable >= SHARES[0]
        case "approximate":
            return GradientApproximation().idle(run) is None
        case "regime":
            return RegimeAdaptation().idle(run) is None
        case "batches" | "isgd" | "freeze" | "kernel" | "lottery" | "morph" | "plateau" | "swa":
            return run.epochs > 1
        case "lowrank":  # a smaller rank makes no layer dearer
            return LowRank(rank=RANKS[1]).idle(run) is None
        case "stride":  # smaller images leave little to skip
            return isinstance(full, Architecture) and full.stem_stride == 1 and run.size >= LEAST_STRIDED
        case "bias":
            return BiasLearningRate().idle(run) is None
        case "identity":
            return IdentityInit().idle(run) is None
        case "sampling":
            return ColumnRowSampling().idle(run) is None
        case "structure":
            return StructureAndStrength().idle(run) is None
        case "muon":
            return Muon().idle(run) is None
        case "switch":
            return run.is_low and run.epochs > 1
        case "balance":
            return run.is_uneven
        case "resolution":
            return run.epochs > 1 and run.size > SIZE_STEP
        case _:
            return True


def transfer(trial: Trial, given: Given, run: Run) -> Strategy:
    """A trained network to begin from, in the place of a random one."""
    assert given.start is not None  # or it is not offered
    return Transfer(given.start.source, given.start.digest)


def net2net(trial: Trial, given: Given, run: Run) -> Strategy:
    """Starts narrow and grows; starts shallow, too, where no layer is wide enough to start narrow."""
    at = trial.suggest_float("grow.at", 0.1, 0.6)
    steps = trial.suggest_int("grow.steps", 1, 2) if run.epochs > 2 else 1
    rewarms = trial.suggest_categorical("grow.rewarm", (False, True))
    most = widest(run)
    start = trial.suggest_float("grow.start", 0.25, 0.75) if most > WIDTH_STEP else 1.0
    deepens = deepest(run) > 1
    return Net2Net(
        start_width=min(start, 1 - 5 / most) if most > WIDTH_STEP else 1.0,  # widths are rounded to multiples of 8
        # half the blocks where nothing else grows
        start_depth=trial.suggest_float("grow.start_depth", 0.3, 1.0 if most > WIDTH_STEP else 0.5) if deepens else 1.0,
        at=at,
        until=at if steps == 1 else trial.suggest_float("grow.until", 0.6, 0.8),
        steps=steps,
        lr_after=trial.suggest_float("grow.lr_after", 0.1, 1.0) if rewarms else 0.0,
    )


def adaptive(trial: Trial, given: Given, run: Run) -> Strategy:
    """A network that finds its own size: what it prunes and what an epoch brings decide how it grows."""
    prunes = run.prunable >= SHARES[0]
    share = trial.suggest_float("adaptive.share", SHARES[0], min(SHARES[1], run.prunable)) if prunes else 0.0
    return Adaptive(
        start=trial.suggest_float("adaptive.start", 0.25, 1.0),
        gain=trial.suggest_float("adaptive.gain", 0.01, 0.2, log=True),
        lpr=MOST_LPR if prunes else 0.0,
        kappa=kappa_for(share),
    )


def prune_train(trial: Trial, given: Given, run: Run) -> Strategy:
    """Channels that a group lasso kills are removed. Its strength follows epochs and rate, so that it prunes in all."""
    share = trial.suggest_float("prune.share", SHARES[0], min(SHARES[1], run.prunable))
    return PruneTrain(
        lpr=MOST_LPR,
        kappa=kappa_for(share),
        interval=trial.suggest_int("prune.interval", 1, 5),
        round_to=int(trial.suggest_categorical("prune.round_to", (1, 8))),
        adapt_batch=bool(trial.suggest_categorical("prune.adapt_batch", (False, True))),
    )


def progressive_resolution(trial: Trial, given: Given, run: Run) -> Strategy:
    """Smaller images in early epochs."""
    several = run.size >= 3 * SIZE_STEP  # there is more than one size below the full one
    start = trial.suggest_float("resolution.start", 0.4, 0.9) if several else 0.5
    return ProgressiveResolution(
        start=min(start, (run.size - SIZE_STEP) / run.size),
        until=trial.suggest_float("resolution.until", 0.2, 0.8),
        steps=trial.suggest_int("resolution.steps", 1, 3) if several else 1,
    )


def data_fraction(trial: Trial, given: Given, run: Run) -> Strategy:
    """Fewer images in early epochs."""
    return DataFraction(
        start=trial.suggest_float("data.start", 0.2, 0.9),
        until=trial.suggest_float("data.until", 0.2, 1.0),
        steps=trial.suggest_int("data.steps", 1, 3),
    )


def balanced_sampling(trial: Trial, given: Given, run: Run) -> Strategy:
    """Small classes more often."""
    return BalancedSampling(share=trial.suggest_float("balance.share", 0.25, 1.0))


def haar_stem(trial: Trial, given: Given, run: Run) -> Strategy:
    """The image as wavelets of half its size."""
    return HaarStem()


def strided_stem(trial: Trial, given: Given, run: Run) -> Strategy:
    """A first convolution that skips every second pixel."""
    return StridedStem()


def average_pooling(trial: Trial, given: Given, run: Run) -> Strategy:
    """Means of pixels in the place of strides."""
    return AveragePooling(behind=_behind("average", trial, run))


def stochastic_pooling(trial: Trial, given: Given, run: Run) -> Strategy:
    """One pixel of four, drawn by what it holds."""
    return StochasticPooling(behind=_behind("stochastic", trial, run))


def s3_pool(trial: Trial, given: Given, run: Run) -> Strategy:
    """Rows and columns that are sampled."""
    strips = int(trial.suggest_categorical("s3.strips", (1, 2, 4, 8)))
    return S3Pool(strips=strips, behind=_behind("s3", trial, run))


def identity_init(trial: Trial, given: Given, run: Run) -> Strategy:
    """Convolutions that start as the identity."""
    return IdentityInit(share=trial.suggest_float("identity.share", 0.2, 1.0))


def whitening(trial: Trial, given: Given, run: Run) -> Strategy:
    """A stem that whitens patches."""
    return Whitening(frozen=float(trial.suggest_categorical("whiten.frozen", (0.0, 1.0))))


def weight_norm(trial: Trial, given: Given, run: Run) -> Strategy:
    """Weights that are normalised in the place of activations."""
    return WeightNorm(
        norm="mean_only" if trial.suggest_categorical("weightnorm.mean_only", (False, True)) else "weight"
    )


def standardization_loss(trial: Trial, given: Given, run: Run) -> Strategy:
    """A penalty in the place of norms."""
    return StandardizationLoss(alpha=trial.suggest_float("standard.alpha", 1e-4, 0.1, log=True))


def lottery_ticket(trial: Trial, given: Given, run: Run) -> Strategy:
    """Trainings one after the other, each with fewer weights: a control, which saves no time."""
    levels = trial.suggest_int("lottery.levels", 1, 2) if run.epochs > 2 else 1
    latest = min(2, run.epochs - levels - 1)  # every training has an epoch after it
    return LotteryTicket(levels=levels, rewind=trial.suggest_int("lottery.rewind", 0, latest) if latest > 0 else 0)


def morph_net(trial: Trial, given: Given, run: Run) -> Strategy:
    """Widths learned under what channels cost, and scaled to a budget."""
    return MorphNet(
        strength=trial.suggest_float("morph.strength", 0.3, 10.0, log=True),
        budget=trial.suggest_float("morph.budget", 0.3, 1.0),
        learn=trial.suggest_float("morph.learn", 0.2, 0.5),
        then="continue" if trial.suggest_categorical("morph.goes_on", (False, True)) else "retrain",
    )


def low_rank(trial: Trial, given: Given, run: Run) -> Strategy:
    """Layers that become products of thinner ones after a warm-up."""
    return LowRank(rank=trial.suggest_float("lowrank.rank", *RANKS), at=trial.suggest_float("lowrank.at", 0.1, 0.6))


def kernel_rescaling(trial: Trial, given: Given, run: Run) -> Strategy:
    """Kernels of the stem that grow."""
    at = trial.suggest_float("kernel.at", 0.2, 0.8)
    if isinstance(run.full, Architecture) and run.full.stem_kernel > KernelRescaling.start:
        return KernelRescaling(kernel=run.full.stem_kernel, at=at)
    return KernelRescaling(at=at)


def freeze(trial: Trial, given: Given, run: Run) -> Strategy:
    """Early stages that stop training first."""
    return Freeze(start=min(trial.suggest_float("freeze.start", 0.3, 0.9), last_boundary(run)))


def plateau(trial: Trial, given: Given, run: Run) -> Strategy:
    """An end where the loss stalls."""
    return Plateau(gain=trial.suggest_float("plateau.gain", 0.005, 0.2, log=True))


def ema(trial: Trial, given: Given, run: Run) -> Strategy:
    """Averaged weights."""
    return Ema(horizon=trial.suggest_float("ema.horizon", 0.1, 3.0, log=True))


def swa(trial: Trial, given: Given, run: Run) -> Strategy:
    """Weights averaged over the last epochs."""
    start = min(trial.suggest_float("swa.start", 0.5, 0.9), last_boundary(run))
    return Swa(start=start, lr=trial.suggest_float("swa.lr", 0.05, 0.5, log=True))


def switch_format(trial: Trial, given: Given, run: Run) -> Strategy:
    """Low precision first, then fp32."""
    return SwitchFormat(at=trial.suggest_float("switch.at", 0.25, 0.9))


EVERYTHING: Ingredients = {
    "start": (Transfer, transfer),  # first: what follows acts on the network that it brings
    "regime": (RegimeAdaptation, updates.regime_adaptation),  # these two first: others look at where the run ends
    "plateau": (Plateau, plateau),
    "haar": (HaarStem, haar_stem),
    "stride": (StridedStem, strided_stem),
    "average": (AveragePooling, average_pooling),
    "stochastic": (StochasticPooling, stochastic_pooling),
    "s3": (S3Pool, s3_pool),
    "adaptive": (Adaptive, adaptive),  # before what it does the same as, and more
    "grow": (Net2Net, net2net),
    "identity": (IdentityInit, identity_init),
    "whiten": (Whitening, whitening),
    "isgd": (InconsistentSGD, updates.inconsistent_sgd),  # before what holds weights after a step
    "morph": (MorphNet, morph_net),
    "prune": (PruneTrain, prune_train),  # behind more that it cannot run with it would hardly be drawn
    "lottery": (LotteryTicket, lottery_ticket),  # after what sets initial weights
    "lowrank": (LowRank, low_rank),  # likewise
    "structure": (StructureAndStrength, updates.structure_and_strength),
    "weightnorm": (WeightNorm, weight_norm),  # after what sets initial weights
    "standard": (StandardizationLoss, standardization_loss),
    "kernel": (KernelRescaling, kernel_rescaling),  # before what freezes the stem
    "sampling": (ColumnRowSampling, updates.column_row_sampling),
    "sparse": (PrunedActivationGradients, updates.pruned_activation_gradients),
    "muon": (Muon, updates.muon),
    "bias": (BiasLearningRate, updates.bias_learning_rate),
    **fine_tuning.FINE_TUNING,  # after what sets weights or rates, and before what averages weights
    "freeze": (Freeze, freeze),
    "resolution": (ProgressiveResolution, progressive_resolution),
    "balance": (BalancedSampling, balanced_sampling),  # where it acts, before what it cannot run with
    "data": (DataFraction, data_fraction),
    "batches": (BatchGrowth, updates.batch_growth),
    "approximate": (GradientApproximation, updates.gradient_approximation),
    "clip": (GradientClipping, updates.gradient_clipping),  # of the gradients that there are in the end
    "lookahead": (Lookahead, updates.lookahead),
    "ema": (Ema, ema),
    "swa": (Swa, swa),
    "switch": (SwitchFormat, switch_format),
}


def _behind(switch: str, trial: Trial, run: Run) -> bool:
    """Whether a pooling stands behind a convolution, where it can stand before it as well."""
    is_free = isinstance(run.full, Architecture) and run.full.transition == "projection"
    return is_free and bool(trial.suggest_categorical(f"{switch}.behind", (False, True)))
