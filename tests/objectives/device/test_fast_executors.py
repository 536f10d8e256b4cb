"""Laws of the executors: each does what `Eager` does, its set-up leaves no trace, it is chosen only where it pays."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from objectives.data.dataset import Dataset, Images
from objectives.device.auto import MEASURED_STEPS, Auto, Executors, Experience
from objectives.device.executors import Compiled, CudaGraph, Eager, Executor, Memory, Segment, unusable
from objectives.device.formats import FORMATS
from objectives.networks.architecture import Architecture, Downsampling, PoolingMethod, Stage
from objectives.networks.resnet import ResNet
from objectives.networks.trainee import Trainee
from objectives.state import TrainState
from objectives.strategies.base import Strategy
from objectives.strategies.muon import Muon
from tests.objectives.strategies.cases import (
    CASES,
    EMULATED,
    PLAIN,
    RARE,
    TASK,
    Case,
    begin,
    contents,
    finish,
    first_batch,
    using,
)

N_STEPS = 4
HOST = ("_local_scalar_dense", "nonzero", "equal", "masked_select", "_unique2")  # operators that wait for the device

each_strategy = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need an NVIDIA GPU")


def segment_of(state: TrainState) -> Segment:
    return Segment(state.trainee, state.pipeline.strategies, FORMATS[state.pipeline.number_format], None, 0.1)


def run(executor: Executor, batch: tuple[Tensor, Tensor], n_steps: int = N_STEPS) -> list[float]:
    """Losses of some steps on one batch, for which networks and strategies that draw draw the same."""
    torch.manual_seed(0)
    return [executor.step(*batch).loss.item() for _ in range(n_steps)]


# --- the same work ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=n, marks=[pytest.mark.long] * (n in (*RARE, *EMULATED))) for n, case in CASES.items()],
)
def test_a_compiled_step_does_what_an_eager_one_does(case: Case, digits: Dataset) -> None:
    """With the backend that traces forward and backward but generates no code: the step's structure is under test."""
    one, other = (begin(using(case.active), digits) for _ in range(2))
    if case.active.emulated:  # draws and rounds otherwise, and says so
        assert unusable("compile", segment_of(one)) is not None
        return
    eager, compiled = Eager(segment_of(one)), Compiled(segment_of(other), backend="aot_eager")
    batch = first_batch(digits)
    assert run(compiled, batch) == pytest.approx(run(eager, batch), rel=1e-4)
    expected, found = contents(one.trainee), contents(other.trainee)
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=2e-3, atol=2e-4)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, in the compiler's own imports
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++")
@pytest.mark.parametrize("method", [None, "stochastic", "s3"])
def test_generated_code_learns_what_an_eager_step_does(method: PoolingMethod | None) -> None:
    """Where the network draws, from the same numbers."""
    downsampling = None if method is None else Downsampling(method)
    x, y = torch.randn(8, 1, 6, 6).contiguous(memory_format=torch.channels_last), torch.arange(8) % 3
    segments = []
    for _ in range(2):
        torch.manual_seed(0)
        model = ResNet(Architecture(1, 3, (Stage(4, ()), Stage(4, (2,))), downsampling=downsampling))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True)
        segments.append(Segment(Trainee(model, optimizer, {}, {}), (), FORMATS["fp32"], None, 0.0))
    executors = Eager(segments[0]), Compiled(segments[1])
    expected, found = (run(executor, (x, y)) for executor in executors)
    assert found == pytest.approx(expected, rel=1e-4)


@needs_gpu
@each_strategy
def test_a_replayed_step_does_what_an_eager_one_does(case: Case, digits: Dataset) -> None:
    if not case.active.capturable:
        pytest.skip("decides on the host, and says so")
    cuda = torch.device("cuda")
    on_gpu = replace(digits, train=Images(digits.train.x.to(cuda), digits.train.y.to(cuda)))
    x, y = first_batch(on_gpu)
    one, other = (begin(using(case.active), on_gpu) for _ in range(2))
    eager, graph = Eager(segment_of(one)), CudaGraph(segment_of(other), tuple(x.shape))
    coarse = 20 if isinstance(case.active, Muon) else 1  # on a GPU its directions are in bf16
    assert run(graph, (x, y)) == pytest.approx(run(eager, (x, y)), rel=coarse * 1e-3)
    expected, found = contents(one.trainee), contents(other.trainee)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=coarse * 5e-3, atol=coarse * 5e-4)


@needs_gpu
def test_a_step_is_captured_while_threads_fetch_images(digits: Dataset) -> None:
    """As `auto` does, in the middle of an epoch."""
    cuda = torch.device("cuda")
    on_gpu = replace(digits, train=digits.train.on(cuda))
    state, (x, y) = begin(using(), on_gpu), first_batch(on_gpu)
    is_captured = threading.Event()

    def fetch() -> int:
        pinned = [torch.zeros(1 << 16, dtype=torch.uint8).pin_memory()]
        while not is_captured.is_set():
            pinned.append(torch.zeros_like(pinned[0]).pin_memory())  # which nothing lets go: all is new memory
        return len(pinned)

    with ThreadPoolExecutor(2) as readers:
        fetching = [readers.submit(fetch) for _ in range(2)]
        try:
            run(CudaGraph(segment_of(state), tuple(x.shape)), (x, y))
        finally:
            is_captured.set()
        assert all(each.result() > 1 for each in fetching)


class _NoHost(TorchDispatchMode):
    """Refuses every operator whose result the host has to wait for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.rpartition("::")[2]
        assert name not in HOST, f"a step asks the device for {name}"
        return func(*args, **(kwargs or {}))


@each_strategy
def test_a_step_that_may_be_captured_never_asks_the_device_for_a_number(case: Case, digits: Dataset) -> None:
    if not case.active.capturable:
        pytest.skip("decides on the host, and says so")
    state = begin(using(case.active), digits)
    eager, batch = Eager(segment_of(state)), first_batch(digits)
    with _NoHost():
        for _ in range(2):
            eager.step(*batch)


def test_the_check_above_notices_a_host_decision() -> None:
    with _NoHost(), pytest.raises(AssertionError, match="asks the device"):
        torch.ones(()).item()


@each_strategy
def test_what_is_done_to_prepare_a_capture_leaves_no_trace(case: Case, digits: Dataset) -> None:
    one, other = (begin(using(case.active), digits) for _ in range(2))
    eager, batch = Eager(segment_of(one)), first_batch(digits)
    before, memory, random = contents(one.trainee), Memory(segment_of(one)), torch.get_rng_state()
    run(eager, (torch.randn_like(batch[0]), batch[1]))
    memory.restore()
    after = contents(one.trainee)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert torch.equal(torch.get_rng_state(), random)
    assert run(eager, batch) == run(Eager(segment_of(other)), batch)


# --- which one runs ---------------------------------------------------------------------------------------------------


class Watch:
    """A clock that only moves when told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@dataclass(frozen=True)
class Takes(Strategy):
    """Lets seconds pass on a watch in every step."""

    seconds: float
    watch: Watch

    def batch(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        self.watch.seconds += self.seconds
        return x, y


def automatic(
    state: TrainState, slower: float, faster: float, setup: float, expected: Experience
) -> tuple[Auto, dict[str, Experience], Watch]:
    """`Auto` between two real executors whose steps and set-up take so many seconds on a watch."""
    watch = Watch()

    def prepare() -> Executor:
        watch.seconds += setup
        return Eager(replace(segment_of(state), strategies=(Takes(faster, watch),)))

    experience = {"fast": expected}
    segment = replace(segment_of(state), strategies=(Takes(slower, watch),))
    return Auto(segment, "fast", prepare, experience, watch), experience, watch


@pytest.fixture
def state(digits: Dataset) -> TrainState:
    return begin(PLAIN, digits)


def test_the_fast_executor_is_taken_where_the_steps_left_pay_for_it(state: TrainState, digits: Dataset) -> None:
    auto, experience, watch = automatic(state, 2.0, 1.0, 30.0, Experience(60.0, 1.5))
    auto.expect(100, at_least=100)
    run(auto, first_batch(digits), 2 * MEASURED_STEPS + 1)
    assert watch.seconds == 2.0 * MEASURED_STEPS + 30.0 + 1.0 + 1.0 * MEASURED_STEPS
    assert auto.notes == ["fast set up in 29 s, steps x2.00 as fast"]
    assert experience["fast"] == Experience((60.0 + 29.0) / 2, (1.5 + 2.0) / 2)
    run(auto, first_batch(digits), 10)
    assert watch.seconds == 2.0 * MEASURED_STEPS + 30.0 + 1.0 + 1.0 * (MEASURED_STEPS + 10)


@pytest.mark.parametrize(
    ("n_left", "setup", "speedup"),
    [(MEASURED_STEPS + 30, 30.0, 2.0), (10_000, 1.0, 1.0), (10_000, 1e6, 1.5)],
    ids=["exactly even", "nothing to gain", "never paid back"],
)
def test_it_is_left_alone_where_they_do_not(
    state: TrainState, digits: Dataset, n_left: int, setup: float, speedup: float
) -> None:
    auto, experience, watch = automatic(state, 2.0, 1.0, 0.0, Experience(setup, speedup))
    auto.expect(n_left, at_least=n_left)
    run(auto, first_batch(digits), MEASURED_STEPS + 3)
    assert (auto.notes, watch.seconds) == ([], 2.0 * (MEASURED_STEPS + 3))
    assert experience["fast"] == Experience(setup, speedup)


@pytest.mark.parametrize("fast", [3.0, 2.0])
def test_an_executor_that_measures_no_faster_is_given_up(state: TrainState, digits: Dataset, fast: float) -> None:
    auto, experience, watch = automatic(state, 2.0, fast, 0.0, Experience(0.0, 2.0))
    auto.expect(1000, at_least=1000)
    run(auto, first_batch(digits), 2 * MEASURED_STEPS + 1)
    (note,) = auto.notes
    assert note.endswith("as fast: given up")
    assert experience["fast"].speedup == (2.0 + 2.0 / fast) / 2
    before = watch.seconds
    run(auto, first_batch(digits), 10)
    assert watch.seconds - before == 10 * 2.0


def test_a_segment_is_expected_to_last_as_long_again_but_not_beyond_the_run(state: TrainState, digits: Dataset) -> None:
    """A set-up of 30 s for a gain of 1 s a step pays only once the segment has lasted for more than 30 steps."""
    auto, _, _ = automatic(state, 2.0, 1.0, 30.0, Experience(30.0, 2.0))
    changed_after = []
    for epoch in range(6):
        auto.expect(1000 - 10 * epoch, at_least=10)
        run(auto, first_batch(digits), 10)
        changed_after += [10 * epoch] * bool(auto.notes)
        auto.notes.clear()
    assert changed_after == [40]
    late, _, _ = automatic(state, 2.0, 1.0, 30.0, Experience(30.0, 2.0))
    for epoch in range(6):
        late.expect(60 - 10 * epoch, at_least=10)  # the run ends with this segment
        run(late, first_batch(digits), 10)
    assert late.notes == []


def test_an_executor_goes_on_until_something_that_it_holds_is_replaced(state: TrainState) -> None:
    executors, segment = Executors("eager", {}), segment_of(state)
    first = executors.of(segment, (50, 1, 8, 8))
    assert executors.of(segment_of(state), (50, 1, 8, 8)) is first
    assert executors.of(segment, (25, 1, 8, 8)) is not first
    second = executors.of(segment, (50, 1, 8, 8))
    moved = replace(segment, trainee=deepcopy(segment.trainee))
    assert executors.of(moved, (50, 1, 8, 8)) is not second
    third = executors.of(segment, (50, 1, 8, 8))
    assert executors.of(replace(segment, strategies=(Takes(1.0, Watch()),)), (50, 1, 8, 8)) is not third


def test_an_executor_that_a_device_lacks_is_named_and_eager_runs(digits: Dataset) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    reports, trained = finish(using(executor="cuda_graph", epochs=2), digits)
    others, other = finish(using(epochs=2), digits)
    assert reports[0].events == ("cuda_graph not used: CUDA graphs need an NVIDIA GPU",)
    assert reports[0].loss == others[0].loss
    assert trained.report.accuracy == other.report.accuracy
    assert TASK.family == "small"


def test_auto_is_eager_in_a_run_too_short_for_anything_else(digits: Dataset) -> None:
    reports, _ = finish(using(executor="auto"), digits)
    others, _ = finish(PLAIN, digits)
    assert [r.loss for r in reports] == [r.loss for r in others]
    assert all(not report.events for report in reports)
