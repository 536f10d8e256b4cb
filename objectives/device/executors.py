"""How the steps of a segment are run: `Eager`, `Compiled`, `CudaGraph`. `objectives.device.auto` chooses among them.

All do the same work. What an executor needs before it is fast, compilation or capture, happens while the clock runs.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from objectives.device.formats import LossScaler, NumberFormat
from objectives.networks.network import Network
from objectives.networks.resnet import Convolution
from objectives.networks.trainee import Trainee
from objectives.state import Step
from objectives.strategies.base import Multiply, Strategy

Recorded = tuple[Tensor, list[Tensor]]  # logits and activations, see `Network.recorded`
CAPTURE_WARM_UP = 3  # steps on a side stream before a capture, as CUDA graphs ask for


@dataclass(frozen=True)
class Segment:
    """What stays constant between two boundaries: all that a step needs."""

    trainee: Trainee
    strategies: tuple[Strategy, ...]  # bound
    number_format: NumberFormat
    scaler: LossScaler | None  # where the number format asks for one
    label_smoothing: float
    behind: int = 0  # parts of the network that batches have gone through before: see `features`

    def is_same(self, other: Segment) -> bool:
        """Whether steps prepared for the other segment train this one: nothing that they hold was replaced."""
        mine, theirs = ((*s.strategies, s.trainee, s.number_format, s.scaler) for s in (self, other))
        identical = len(mine) == len(theirs) and all(one is two for one, two in zip(mine, theirs, strict=True))
        return identical and (self.label_smoothing, self.behind) == (other.label_smoothing, other.behind)

    @property
    def device(self) -> torch.device:
        """Where the network lies."""
        return next(self.trainee.model.parameters()).device


class Executor(Protocol):
    """Runs the steps of one segment."""

    @property
    def segment(self) -> Segment:
        """What is trained."""

    @property
    def notes(self) -> list[str]:
        """What happened that a reader of the trial should know; the reader empties it."""

    def step(self, x: Tensor, y: Tensor) -> Step:
        """Trains on one batch (x: [batch, channels, height, width], y: [batch]); the loss stays on the device.

        The network is in training mode. What is returned is valid until the next step.
        """


class Eager:
    """Runs the steps of one segment as ordinary PyTorch calls. Nothing in a step waits for the device."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.notes: list[str] = []
        self.forward: Callable[[Tensor], Tensor | Recorded] = _forward(segment)
        model = segment.trainee.model
        self._device = segment.device
        self._always = torch.ones((), device=self._device)
        # A forward pass that overflows in fp16 poisons the running statistics: a skipped step restores them.
        self._statistics = [b for b in model.buffers() if b.is_floating_point()] if segment.scaler else []
        for layer in model.convolutions():
            layer.compute = _wrapped(layer, segment)
        wrap_products(model, segment.strategies)
        model.train()

    def step(self, x: Tensor, y: Tensor) -> Step:
        segment = self.segment
        for strategy in segment.strategies:
            x, y = strategy.batch(x, y)
        kept = [statistic.clone() for statistic in self._statistics]
        with segment.number_format.context(self._device):
            told = self.forward(x)
        logits, activations = told if isinstance(told, tuple) else (told, [])
        loss = F.cross_entropy(logits.float(), y, label_smoothing=segment.label_smoothing)
        total = loss
        for strategy in segment.strategies:
            for penalty in (strategy.penalty(segment.trainee), strategy.activation_penalty(activations)):
                total = total if penalty is None else total + penalty
        done = Step(x, y, loss.detach(), self._differentiated(total))
        for strategy in segment.strategies:
            strategy.gradients(segment.trainee, done)
        self._optimise()
        for statistic, before in zip(self._statistics, kept, strict=True):
            statistic.copy_(torch.where(done.taken > 0, statistic, before))
        for strategy in segment.strategies:
            strategy.after_step(segment.trainee, done)
        return done

    def _differentiated(self, total: Tensor) -> Tensor:
        """Leaves the gradients of `total`; scalar 1, or 0 where they overflowed and loss scaling skips the step."""
        optimizer, scaler = self.segment.trainee.optimizer, self.segment.scaler
        if scaler is None:
            total.backward()  # type: ignore[no-untyped-call]
            return self._always
        scaler.scale(total).backward()  # type: ignore[no-untyped-call]
        scaler.unscale_(optimizer)
        return scaler.step_taken(optimizer)

    def _optimise(self) -> None:
        """Steps the optimizer down the gradients, where they are finite, and drops them."""
        optimizer, scaler = self.segment.trainee.optimizer, self.segment.scaler
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
        optimizer.zero_grad(set_to_none=True)


class Compiled(Eager):
    """Eager, but for the network's forward and backward pass, which torch.compile makes into fewer kernels.

    Its first step compiles; where that fails it goes on eagerly, with a note. Nothing that earlier compilations left on
    the disk is used, so that the seconds of a trial do not depend on which trials ran before it.
    """

    def __init__(self, segment: Segment, backend: str = "inductor") -> None:
        super().__init__(segment)
        self._compiles = True  # its next step
        torch._dynamo.reset()  # else it falls back to eager after eight networks, and keeps the old ones alive
        if backend == "inductor":
            import torch._inductor.config as inductor

            inductor.force_disable_caches = True
            inductor.compile_threads = 1  # else a pool of processes outlives the worker
            inductor.fallback_random = True  # networks that draw draw what they would eagerly
            warnings.filterwarnings("ignore", "dynamo_pgo force disabled")  # as was asked
            folder = os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp(prefix="frontrunner-compiled-")
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.forward = torch.compile(_forward(segment), dynamic=False, backend=backend)

    def step(self, x: Tensor, y: Tensor) -> Step:
        compiles, self._compiles = self._compiles, False
        try:
            return super().step(x, y)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # no working compiler
            if not compiles:
                raise
            self.notes.append(f"compile not used: {str(error).splitlines()[0]}")
            self.forward = _forward(self.segment)
            self.segment.trainee.optimizer.zero_grad(set_to_none=True)
            return super().step(x, y)

    @staticmethod
    def imported() -> None:
        """Imports the compiler, which takes seconds, once in a process."""
        import torch._dynamo
        import torch._inductor.compile_fx  # noqa: F401


Shape = tuple[int, ...]  # of a batch: [batch, channels, height, width], of features perhaps [batch, values]


class CudaGraph:
    """Captures a whole step, optimizer included, as one CUDA graph and replays it: one launch instead of hundreds.

    The learning rate must be a tensor. Warm-up and capture leave no trace in what is trained.

    Raises:
        RuntimeError: the step cannot be captured.
    """

    def __init__(self, segment: Segment, shape: Shape) -> None:
        self.segment = segment
        self.notes: list[str] = []
        eager, memory = Eager(segment), Memory(segment)
        layout = torch.channels_last if len(shape) == 4 else torch.contiguous_format  # features may be plain values
        self._x = torch.randn(shape, device=segment.device).contiguous(memory_format=layout)
        self._y = torch.zeros(shape[0], dtype=torch.int64, device=segment.device)
        side = torch.cuda.Stream(segment.device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(segment.device))
        with torch.cuda.stream(side):
            for _ in range(CAPTURE_WARM_UP):
                eager.step(self._x, self._y)
        torch.cuda.current_stream(segment.device).wait_stream(side)
        memory.restore()
        self._graph = torch.cuda.CUDAGraph()
        try:
            # threads that fetch images pin memory meanwhile, which by default would fail, and the capture with it
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._done = eager.step(self._x, self._y)
        finally:
            memory.restore()

    def step(self, x: Tensor, y: Tensor) -> Step:
        self._x.copy_(x)
        self._y.copy_(y)
        self._graph.replay()
        return self._done


class Memory:
    """Everything that a step changes, as it was; `restore` brings it back in place."""

    def __init__(self, segment: Segment) -> None:
        trainee, self._device, self._scaler = segment.trainee, segment.device, segment.scaler
        tensors = list(trainee.model.state_dict().values())
        tensors += [tensor for shadow in trainee.shadows.values() for tensor in shadow.tensors.values()]
        states = trainee.optimizer.state.values()
        tensors += [value for state in states for value in state.values() if isinstance(value, Tensor)]
        tensors += [v for strategy in segment.strategies for v in vars(strategy).values() if isinstance(v, Tensor)]
        self._kept = [(tensor, tensor.detach().clone()) for tensor in tensors]
        self._scale = None if self._scaler is None else self._scaler.state_dict()
        self._random = torch.cuda.get_rng_state(self._device) if self._device.type == "cuda" else torch.get_rng_state()

    @torch.no_grad()
    def restore(self) -> None:
        for tensor, before in self._kept:
            tensor.copy_(before)
        if self._scaler is not None and self._scale is not None:
            self._scaler.load_state_dict(self._scale)
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(self._random, self._device)
        else:
            torch.set_rng_state(self._random)


def missing(name: str, device: torch.device) -> str | None:
    """What an executor needs and a device, or the machine that it is in, does not have; None where it has all."""
    if name == "cuda_graph" and device.type != "cuda":
        return "CUDA graphs need an NVIDIA GPU"
    if name == "compile" and device.type == "cuda" and find_spec("triton") is None:
        return "torch.compile needs triton on a GPU"
    if name == "compile" and shutil.which(os.environ.get("CXX", "g++")) is None:
        return "torch.compile needs a C++ compiler (g++, or the one that CXX names)"
    return None


def unusable(name: str, segment: Segment) -> str | None:
    """Why an executor cannot run a segment, or None where it can."""
    if (reason := missing(name, segment.device)) is not None:
        return reason
    if name == "cuda_graph" and (held := [type(s).__name__ for s in segment.strategies if not s.capturable]):
        return f"{held[0]} decides on the host"
    if name != "eager" and (held := [type(s).__name__ for s in segment.strategies if s.emulated]):
        return f"{held[0]} is emulated: compiled it would draw and round otherwise, and its seconds mean nothing"
    return None


def prepared(name: str, segment: Segment, shape: Shape) -> Executor:
    """The executor of that name for batches of `shape`; an eager one with a note where it cannot be had."""
    reason = unusable(name, segment)
    if reason is None:
        try:
            match name:
                case "compile":
                    return Compiled(segment)
                case "cuda_graph":
                    return CudaGraph(segment, shape)
                case _:
                    return Eager(segment)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # a step that cannot be captured
            reason = str(error).splitlines()[0]
    eager = Eager(segment)
    eager.notes.append(f"{name} not used: {reason}")
    return eager


def _forward(segment: Segment) -> Callable[[Tensor], Tensor | Recorded]:
    """What the network puts out, and where a strategy asks for them the activations on the way."""
    model = segment.trainee.model
    if segment.behind:
        rest = [compute for _, compute in model.parts()[segment.behind :]]

        def told(x: Tensor) -> Tensor:
            for compute in rest:
                x = compute(x)
            return x

        return told
    return model.recorded if any(strategy.reads_activations for strategy in segment.strategies) else model


def _wrapped(layer: Convolution, segment: Segment) -> Callable[[Tensor], Tensor] | None:
    """The layer's training computation with every strategy that wraps it, or None where it is the plain one."""
    plain = segment.number_format.convolution(layer)
    compute = plain
    for strategy in segment.strategies:
        compute = strategy.convolution(layer, compute)
    return None if compute is plain and not segment.number_format.strict else compute


def wrap_products(model: Network, strategies: Sequence[Strategy]) -> None:
    """Lets every layer multiply as strategies say while it trains; nothing stands in between where they say nothing."""
    for layer in model.multiplying():
        plain: Multiply = layer.multiplied
        multiply = plain
        for strategy in sorted(strategies, key=lambda each: not each.innermost):
            multiply = strategy.product(layer, multiply)
        layer.multiply = None if multiply is plain else multiply
