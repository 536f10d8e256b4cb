"""Laws of what crosses process boundaries and is stored with every trial: `Pipeline` and `Report`."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import dataclass, fields, replace
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from objectives.device.formats import FORMATS
from objectives.pipeline import Pipeline, Report
from objectives.reduction.settings import Reduction
from objectives.strategies import STRATEGIES
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


def compatible(names: list[str]) -> list[str]:
    """The strategies of a list without those that one before them excludes or that exclude one before them."""
    kept: list[Strategy] = []
    for strategy in (STRATEGIES[name]() for name in names):
        if not any(strategy.refuses(other) or other.refuses(strategy) for other in kept):
            kept.append(strategy)
    return [type(strategy).__name__ for strategy in kept]


def drawn(settings: dict[str, object]) -> Pipeline:
    """The pipeline of some settings, in fp32 where one of its strategies can run in nothing else."""
    if any(strategy.number_formats for strategy in settings["strategies"]):  # type: ignore[attr-defined]
        settings = settings | {"number_format": "fp32"}
    return Pipeline(**settings)  # type: ignore[arg-type]


# What the generator draws for every strategy and every setting. Two tests see that none is missing.
PRUNING: dict[str, st.SearchStrategy[object]] = {
    "lpr": st.floats(0, 1, exclude_max=True),
    "interval": st.integers(1, 99),
    "mode": st.sampled_from(["prox", "subgrad"]),
    "threshold": st.floats(1e-9, 0.5),
    "round_to": st.integers(1, 64),
    "stop": st.floats(0, 1),
    "grace": st.integers(0, 9),
    "adapt_batch": st.booleans(),
}
BITS = st.integers(2, 16) | st.just(32)
ROUNDING = st.sampled_from(["nearest", "stochastic"])
STRATEGIES_DRAWN: dict[str, st.SearchStrategy[Strategy]] = {
    "BlockFloatingPoint": st.builds(BlockFloatingPoint, bits=BITS, rounding=ROUNDING, by_slice=st.booleans()),
    "DynamicFixedPoint": st.builds(DynamicFixedPoint, bits=BITS),
    "FixedPoint": st.builds(
        FixedPoint, bits=st.integers(8, 16) | st.just(32), integer_bits=st.integers(1, 8), rounding=ROUNDING
    ),
    "Float8": st.builds(
        Float8, activations=st.sampled_from(["e4m3", "e5m2"]), errors=st.sampled_from(["e4m3", "e5m2"])
    ),
    "SwitchFormat": st.builds(SwitchFormat, at=st.floats(0, 1, exclude_min=True)),
    "Adaptive": st.builds(
        Adaptive,
        start=st.floats(0, 1, exclude_min=True),
        rounds=st.integers(0, 9),
        gain=st.floats(0, 1, exclude_max=True),
        patience=st.integers(1, 9),
        least=st.integers(1, 9),
        factor=st.floats(1.01, 9),
        tail=st.floats(0.01, 0.99),
        rewarm=st.floats(0.01, 1),
        budget=st.floats(0.01, 9),
        judge=st.sampled_from(["loss", "accuracy"]),
        **PRUNING,  # type: ignore[arg-type]
    ),
    "AveragePooling": st.builds(AveragePooling, side=st.integers(1, 2), behind=st.booleans()),
    "BalancedSampling": st.builds(BalancedSampling, share=st.floats(0, 1)),
    "BiasLearningRate": st.builds(BiasLearningRate, factor=st.floats(1, 1024)),
    "BatchGrowth": st.builds(
        BatchGrowth,
        factor=st.integers(1, 99),
        at=st.floats(0.01, 0.5),
        until=st.floats(0.5, 0.99),
        steps=st.integers(1, 8),
        rate=st.sampled_from(["kept", "scaled"]),
        momentum=st.sampled_from(["kept", "corrected"]),
    ),
    "ColumnRowSampling": st.builds(
        ColumnRowSampling,
        share=st.floats(0, 1, exclude_min=True),
        least=st.integers(1, 99),
        choice=st.sampled_from(["largest", "drawn"]),
        until=st.floats(0, 1, exclude_min=True),
    ),
    "DataFraction": st.builds(
        DataFraction,
        start=st.floats(0, 1, exclude_min=True),
        until=st.floats(0, 1, exclude_min=True),
        steps=st.integers(1, 16),
        balanced=st.booleans(),
    ),
    "FixedArchitecture": st.builds(
        FixedArchitecture,
        stages=st.lists(
            st.tuples(st.integers(1, 999), st.lists(st.integers(0, 999), min_size=1, max_size=9).map(tuple)), max_size=5
        ).map(tuple),
    ),
    "Freeze": st.builds(Freeze, start=st.floats(0.01, 0.5), until=st.floats(0.5, 1)),
    "FrozenStages": st.builds(
        FrozenStages,
        parts=st.integers(0, 9),
        until=st.floats(0, 1, exclude_min=True),
        statistics=st.sampled_from(["kept", "adapted"]),
    ),
    "LinearProbe": st.builds(LinearProbe, share=st.floats(0, 1)),
    "DiscriminativeRates": st.builds(
        DiscriminativeRates, body=st.floats(0, 1, exclude_min=True), decay=st.floats(0, 1, exclude_min=True)
    ),
    "GradientApproximation": st.builds(
        GradientApproximation,
        mode=st.sampled_from(["batch", "skip", "early"]),
        share=st.floats(0, 1, exclude_max=True),
        until=st.floats(0, 1, exclude_min=True),
    ),
    "GradientClipping": st.builds(GradientClipping, norm=st.floats(0, 1e9, exclude_max=True)),
    "HaarStem": st.builds(HaarStem, levels=st.integers(0, 1)),
    "Plateau": st.builds(Plateau, gain=st.floats(0, 1, exclude_max=True), cooldown=st.floats(0, 1)),
    "S3Pool": st.builds(S3Pool, side=st.integers(1, 2), strips=st.integers(1, 99), behind=st.booleans()),
    "StandardizationLoss": st.builds(StandardizationLoss, alpha=st.floats(0, 10)),
    "StochasticPooling": st.builds(StochasticPooling, side=st.integers(1, 2), behind=st.booleans()),
    "RegimeAdaptation": st.builds(RegimeAdaptation, reference=st.integers(1, 9999), share=st.floats(0, 1)),
    "StridedStem": st.builds(StridedStem, stride=st.integers(1, 2)),
    "IdentityInit": st.builds(IdentityInit, share=st.floats(0, 1)),
    "KernelRescaling": st.builds(
        KernelRescaling,
        start=st.sampled_from((1, 3)),
        kernel=st.sampled_from((3, 5, 7)),
        at=st.floats(0.01, 0.99),
    ),
    "InconsistentSGD": st.builds(
        InconsistentSGD,
        sigmas=st.floats(0, 99),
        stop=st.integers(0, 100),
        pace=st.floats(0, 100, exclude_min=True),
        fixed=st.booleans(),
    ),
    "Lookahead": st.builds(Lookahead, interval=st.integers(1, 99), pull=st.floats(0, 1, exclude_min=True)),
    "LotteryTicket": st.builds(
        LotteryTicket, levels=st.integers(0, 9), share=st.floats(0.01, 0.99), rewind=st.integers(0, 9)
    ),
    "MorphNet": st.builds(
        MorphNet,
        strength=st.floats(0, 1000),
        cost=st.sampled_from(["flops", "size"]),
        budget=st.floats(0.01, 100),
        threshold=st.floats(1e-6, 0.9),
        iterations=st.integers(0, 10),
        learn=st.floats(0.01, 0.99),
        then=st.sampled_from(["retrain", "continue"]),
    ),
    "LowRank": st.builds(LowRank, rank=st.floats(0, 1, exclude_min=True), at=st.floats(0.01, 0.99)),
    "Muon": st.builds(
        Muon,
        lr=st.floats(0, 10),
        momentum=st.floats(0, 1, exclude_max=True),
        steps=st.integers(1, 10),
        keep_norm=st.booleans(),
    ),
    "PrunedActivationGradients": st.builds(PrunedActivationGradients, share=st.floats(0, 1, exclude_max=True)),
    "StructureAndStrength": st.builds(
        StructureAndStrength, until=st.floats(0, 1), dictionary=st.sampled_from(["patches", "random"])
    ),
    "Swa": st.builds(Swa, start=st.floats(0, 1), lr=st.floats(0, 1), images=st.integers(16, 99_999)),
    "WeightNorm": st.builds(WeightNorm, norm=st.sampled_from(["batch", "mean_only", "weight"])),
    "Transfer": st.builds(Transfer, source=st.sampled_from(["", "net", "/a place/net", "torchvision:resnet18"])),
    "Whitening": st.builds(Whitening, share=st.floats(0, 1), frozen=st.floats(0, 1)),
    "Ema": st.builds(Ema, horizon=st.floats(0, 100)),
    "Net2Net": st.builds(
        Net2Net,
        start_width=st.floats(0, 1, exclude_min=True),
        start_depth=st.floats(0, 1, exclude_min=True),
        at=st.floats(0.01, 0.4),
        until=st.floats(0.4, 0.99),
        steps=st.integers(1, 9),
        operators=st.sampled_from(["wider", "deeper", "both"]),
        noise=st.floats(0, 1),
        lr_after=st.floats(0, 1),
    ),
    "PruneTrain": st.builds(PruneTrain, **PRUNING),  # type: ignore[arg-type]
    "ProgressiveResolution": st.builds(
        ProgressiveResolution,
        start=st.floats(0, 1, exclude_min=True),
        until=st.floats(0, 1, exclude_max=True),
        steps=st.integers(1, 16),
    ),
}
SETTINGS_DRAWN: dict[str, st.SearchStrategy[object]] = {
    "number_format": st.sampled_from(list(FORMATS)),
    "batch_size": st.integers(1, 65536),
    "lr": st.floats(0, 100),
    "lr_rule": st.sampled_from(["none", "sqrt", "linear"]),
    "ghost_batch": st.integers(0, 65536),
    "momentum": st.floats(0, 0.9999),
    "weight_decay": st.floats(0, 1),
    "epochs": st.integers(1, 100_000),
    "schedule": st.sampled_from(["one_cycle", "cosine", "step"]),
    "label_smoothing": st.floats(0, 0.99),
    "crop": st.booleans(),
    "flip": st.booleans(),
    "alternating_flip": st.booleans(),
    "executor": st.sampled_from(["auto", "eager", "cuda_graph", "compile"]),
    "cutout": st.floats(0, 1),
    "depth": st.integers(1, 100),
    "width": st.floats(0.01, 100),
    "strategies": st.lists(st.sampled_from(list(STRATEGIES_DRAWN)), unique=True).flatmap(
        lambda names: st.tuples(*(STRATEGIES_DRAWN[name] for name in compatible(names)))
    ),
    "reduction": st.none() | st.builds(Reduction, epsilon=st.floats(0.001, 1), inputs=st.booleans()),
}
pipelines = st.fixed_dictionaries(SETTINGS_DRAWN).map(drawn)

reports = st.builds(
    Report,
    loss=st.floats(),
    **{f.name: st.floats(0, 1e18) for f in fields(Report) if f.type == "float" and f.name != "loss"},
    **{f.name: st.integers(0, 2**60) for f in fields(Report) if f.type == "int"},
    **{f.name: st.booleans() for f in fields(Report) if f.type == "bool"},
    events=st.lists(st.text(), max_size=3).map(tuple),
    architecture=st.text(),
)


def test_a_pipeline_that_reduces_nothing_is_written_as_before_there_were_reductions() -> None:
    assert "reduction" not in Pipeline().to_json()
    assert "reduction" in Pipeline(reduction=Reduction()).to_json()


def test_the_generator_draws_every_setting_and_every_strategy() -> None:
    assert set(SETTINGS_DRAWN) == {f.name for f in fields(Pipeline)}
    assert set(STRATEGIES_DRAWN) == set(STRATEGIES)


@given(pipelines)
def test_a_pipeline_survives_json(pipeline: Pipeline) -> None:
    restored = Pipeline.from_json(json.loads(json.dumps(pipeline.to_json(), allow_nan=False)))
    assert restored == pipeline
    assert hash(restored) == hash(pipeline)
    assert [type(getattr(restored, f.name)) for f in fields(Pipeline)] == [
        type(getattr(pipeline, f.name)) for f in fields(Pipeline)
    ]


@given(pipelines)
def test_a_pipeline_is_described_in_one_line_that_names_its_strategies(pipeline: Pipeline) -> None:
    words = pipeline.describe()
    assert "\n" not in words
    if pipeline.reduction is not None:  # what is reduced is the same for a whole study
        assert words == pipeline.reduction.describe()
        return
    (computes_in,) = [s.describe() for s in pipeline.strategies if s.emulated] or [pipeline.number_format]
    assert words.startswith(f"{computes_in}, {pipeline.epochs} epochs")
    assert all(strategy.describe() in words for strategy in pipeline.strategies)


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"colour": 1}, "unknown pipeline setting 'colour': it was written by another version"),
        ({"strategies": [{"strategy": "Magic"}]}, "unknown strategy 'Magic': this version has .*, Ema, "),
        ({"strategies": [{"horizon": 1.0}]}, "unknown strategy None: this version has .*, Ema, "),
        ({"strategies": "Ema"}, "strategies must be a list, not 'Ema'"),
        ({"strategies": [{"strategy": "Ema", "colour": 1}]}, "Ema has no parameter 'colour'"),
        ({"strategies": [{"strategy": "Ema", "rate": 0.5}]}, "Ema has no parameter 'rate'"),
        ({"strategies": [{"strategy": "Ema", "horizon": -1.0}]}, "horizon of an EMA is -1.0 epochs"),
        ({"strategies": [{"strategy": "ProgressiveResolution", "start": 0.0}]}, r"start must lie in \(0, 1\]"),
        ({"lr_rule": "cubic"}, "lr_rule is 'cubic': choose one of none, sqrt, linear"),
        ({"schedule": "steps"}, "schedule is 'steps': choose one of one_cycle, cosine, step"),
    ],
)
def test_what_this_version_does_not_know_is_refused_in_one_line(plain: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Pipeline.from_json(plain)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "below", "lowest", "highest", "above"),
    [
        ("batch_size", 0, 1, 65536, 65537),
        ("lr", -1e-9, 0.0, 100.0, 100.1),
        ("ghost_batch", -1, 0, 65536, 65537),
        ("momentum", -0.1, 0.0, 0.9999, 1.0),
        ("weight_decay", -1e-9, 0.0, 1.0, 1.1),
        ("epochs", 0, 1, 100_000, 100_001),
        ("label_smoothing", -0.1, 0.0, 0.99, 1.0),
        ("cutout", -0.1, 0.0, 1.0, 1.1),
        ("depth", 0, 1, 100, 101),
        ("width", 0.0, 0.01, 100.0, 101.0),
    ],
)
def test_a_setting_outside_its_range_is_refused_with_its_name_its_value_and_the_range(
    name: str, below: float, lowest: float, highest: float, above: float
) -> None:
    for value in (lowest, highest):
        assert getattr(Pipeline(**{name: value}), name) == value  # type: ignore[arg-type]
    for value in (below, above, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"^{name} is {value!r}: it must lie between {lowest:g} and {highest:g}$"):
            Pipeline(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rule", "batch_size", "factor"),
    [
        ("none", 64, 1),
        ("none", 1024, 1),
        ("sqrt", 64, 0.5),
        ("sqrt", 256, 1),
        ("sqrt", 1024, 2),
        ("linear", 64, 0.25),
        ("linear", 256, 1),
        ("linear", 1024, 4),
    ],
)
def test_the_peak_learning_rate_follows_the_batch_size_by_rule(rule: str, batch_size: int, factor: float) -> None:
    assert Pipeline(lr=0.3, lr_rule=rule, batch_size=batch_size).peak_lr == pytest.approx(0.3 * factor)  # type: ignore[arg-type]


@dataclass(frozen=True)
class WithoutAverages(Strategy):
    """Excludes one strategy."""

    excludes: ClassVar[tuple[type[Strategy], ...]] = (Ema,)


SAME = Ema()


@pytest.mark.parametrize(
    "strategies",
    [
        (WithoutAverages(), Ema()),
        (Ema(), WithoutAverages()),
        (Ema(), ProgressiveResolution(), WithoutAverages()),
        (Ema(1.0), Ema(2.0)),
        (Ema(1.0), Ema(1.0)),
        (SAME, SAME),
    ],
)
def test_strategies_that_exclude_each_other_or_repeat_are_refused_by_name(strategies: tuple[Strategy, ...]) -> None:
    with pytest.raises(ValueError, match=r"^(\w+) cannot run with (\w+): choose one$") as caught:
        Pipeline(strategies=strategies)
    assert "Ema" in str(caught.value)


def test_strategies_keep_their_order() -> None:
    strategies = (WithoutAverages(), ProgressiveResolution())
    assert Pipeline(strategies=strategies).strategies == strategies
    assert Pipeline(strategies=strategies) != Pipeline(strategies=strategies[::-1])


@given(reports)
def test_a_report_survives_json_with_any_loss(report: Report) -> None:
    restored = Report.from_json(json.loads(json.dumps(report.to_json())))
    assert repr(restored) == repr(report)  # NaN is not equal to itself
    assert replace(restored, loss=0.0) == replace(report, loss=0.0)


@given(reports)
def test_a_report_of_an_earlier_version_is_read_without_its_network(report: Report) -> None:
    plain = report.to_json()
    del plain["architecture"]
    assert repr(Report.from_json(plain)) == repr(replace(report, architecture=""))


@pytest.mark.parametrize("module", ["pipeline", "strategies", "networks.architecture", "feasibility", "task", "errors"])
def test_what_the_owner_of_a_study_imports_does_not_load_torch(module: str) -> None:
    code = f"import sys, objectives.{module}; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
