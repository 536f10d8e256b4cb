"""Adaptive: a network that finds its own size while it trains, PruneTrain shrinking it and Net2Net growing it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf, isfinite
from typing import TYPE_CHECKING, ClassVar, Literal

from objectives.networks.plain import residual
from objectives.strategies.base import Outline, Strategy, learned
from objectives.strategies.freeze import Freeze
from objectives.strategies.net2net import Net2Net
from objectives.strategies.plateau import Plateau
from objectives.strategies.prune_train import PruneTrain
from objectives.strategies.swa import Swa

if TYPE_CHECKING:
    from torch import Tensor

    from objectives.networks.plain import AnyArchitecture
    from objectives.networks.trainee import Trainee
    from objectives.state import TrainState
    from objectives.strategies.methods.rounds import Decision, Round, Rules, Seen


@dataclass(frozen=True)
class Adaptive(PruneTrain):
    """Trains in rounds, each until one more epoch brings nothing, and lets what was pruned say how to go on.

    The procedure of the training thesis (Buehler), in the place of MorphNet (Gordon et al. 2018): where blocks died the
    network grows wider, where channels did it grows deeper, where nothing did the two take turns; what still shrinks
    trains on; a growth that brought nothing is taken back, to the very network before it, and the other one is tried.
    `methods.rounds` decides. New channels are `fresh` (see Net2Net) and spared by the penalty for `grace` epochs.

    The learning rate stays at its peak during the rounds, rises to it once more after a growth, and falls linearly to 0
    in the tail, which begins when no growth is left, and in time for `pipeline.epochs` at the latest. There nothing is
    penalised any more.

    The run takes at most an epoch longer than `budget` times what the full network would take for all of its epochs, by
    the seconds per FLOP of the first epoch. A growth that leaves no round and tail within that is not begun; one that
    leaves fewer epochs shortens the run. What a network costs is known from the seconds per FLOP of the last epoch.

    It decides by the mean training loss of an epoch, which costs nothing, or by validation accuracy: then the
    evaluations are charged, and the accuracy that it reports is that of images that it has looked at.

    Raises:
        ValueError: a parameter outside its range.
    """

    lpr: float = 0.6
    kappa: float = 6.0  # a fifth of the channels, by forecast
    start: float = 0.5  # share of the channels at the start, in (0, 1]
    rounds: int = 3  # growths at most; 0: it only prunes, as PruneTrain does
    # An epoch whose loss is not this share below the best before it brought nothing, in [0, 1); the loss above the
    # smallest that label smoothing leaves.
    gain: float = 0.05
    patience: int = 1  # such epochs in a row that end a round
    least: int = 2  # epochs of a round
    factor: float = 1.5  # of the channels when a stage grows wider, above 1
    shrinking: float = 0.02  # share of its FLOPs, lost at four boundaries, above which a network trains on
    occupied: float = 0.6  # share of its channels kept, below which a stage was too wide
    tail: float = 0.3  # share of the run in which the learning rate falls, in (0, 1)
    rewarm: float = 0.3  # share of the learning rate from which it rises within an epoch after a growth, in (0, 1]
    budget: float = 1.0  # of the seconds of the full network for all epochs
    judge: Literal["loss", "accuracy"] = "loss"
    past: tuple[Round, ...] = learned(())  # rounds so far, the present one last
    failed: frozenset[Literal["wider", "deeper"]] = learned(frozenset())  # growths that brought nothing
    kept: Trainee | None = learned(None)  # the network before the last growth
    before: Adaptive | None = learned(None)  # what this strategy was then

    needs_blocks: ClassVar[bool] = True
    # The way back would thaw a stage that was frozen since.
    excludes: ClassVar[tuple[type[Strategy], ...]] = (PruneTrain, Net2Net, Plateau, Swa, Freeze)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.start <= 1 or not 0 < self.tail < 1 or not 0 < self.rewarm <= 1:
            raise ValueError(f"{self!r}: start and rewarm lie in (0, 1], tail in (0, 1)")
        if self.rounds < 0 or self.patience < 1 or self.least < 1 or self.factor <= 1 or self.budget <= 0:
            raise ValueError(f"{self!r}: rounds from 0, patience and least from 1, factor above 1, budget above 0")
        if not 0 <= self.gain < 1 or not 0 <= self.shrinking < 1 or not 0 <= self.occupied <= 1:
            raise ValueError(f"{self!r}: gain and shrinking lie in [0, 1), occupied in [0, 1]")
        if self.judge not in ("loss", "accuracy"):
            raise ValueError(f"{self!r}: judge is loss or accuracy")

    @property
    def reads_accuracy(self) -> bool:
        return self.judge == "accuracy" and self.rounds > 0

    def describe(self) -> str:
        if self.rounds == 0:
            return super().describe()
        by = "" if self.judge == "loss" else " by accuracy"
        prunes = f", {super().describe()}" if self.lpr > 0 else ""
        return f"adaptive from width {self.start:.0%}, grown where an epoch gains less than {self.gain:.1%}{by}{prunes}"

    def idle(self, outline: Outline) -> str | None:
        if self.rounds == 0:
            return super().idle(outline)
        return None if outline.epochs > 1 else "a run of one epoch has no boundary at which it could change"

    def architecture(self, architecture: AnyArchitecture) -> AnyArchitecture:
        if self.rounds == 0:
            return architecture
        return Net2Net(start_width=self.start, operators="wider").architecture(architecture)

    def begin(self, state: TrainState, x: Tensor, y: Tensor) -> TrainState:
        if self.rounds == 0 or state.ends < 2:
            return super().begin(state, x, y)
        from objectives.strategies.methods.rounds import Round

        schedule = replace(state.schedule, held=True, restart=state.ends - self._n_tail(state.ends), restart_share=1.0)
        first = self.having_learned(past=(Round(0, residual(state.trainee.model.architecture)),))
        return PruneTrain.begin(first, replace(state, schedule=schedule).with_strategy(self, first), x, y)

    def between_epochs(self, state: TrainState) -> TrainState:
        state = self._pruned(state)
        (me,) = (strategy for strategy in state.pipeline.strategies if isinstance(strategy, Adaptive))
        if me.past and state.epoch == state.schedule.restart:
            state = state.with_event("the learning rate falls from here on, and nothing is penalised")
        if not me.past:
            return state
        latest = state.schedule.restart
        if latest is None or state.epoch >= latest:
            return me._within_budget(state)
        state = me._within_budget(state)
        latest = state.schedule.restart or latest
        return me._without_dead(state) if state.epoch >= latest else me._decided(state, latest)

    def _without_dead(self, state: TrainState) -> TrainState:
        """The state without what is dead where a tail begins: what nobody shrinks any more would come back to life."""
        rebuilt = self._reconfigured(state) if self.strength > 0 else state
        return rebuilt if rebuilt is state else rebuilt.with_strategy(self, self.having_learned(has_pruned=True))

    def _penalised_until(self, state: TrainState) -> float:
        """Nothing is penalised in the tail: a network of its final size recovers what the penalty took."""
        until = super()._penalised_until(state)
        return until if state.schedule.restart is None or not self.past else min(until, state.schedule.restart)

    def _is_due(self, state: TrainState) -> bool:
        """Also where the tail begins."""
        return super()._is_due(state) or (bool(self.past) and state.epoch == state.schedule.restart)

    def settled(self, state: TrainState) -> bool:
        """Only in the tail: accuracy at the peak learning rate says little, and the network may change."""
        return not self.past or (state.schedule.restart is not None and state.epoch > state.schedule.restart)

    def _within_budget(self, state: TrainState) -> TrainState:
        """The state whose end is at most an epoch beyond the budget: networks of other shapes take other times."""
        ends = state.epoch + max(1, self._fits(state)(state.trainee.model.architecture) + 1)
        if ends >= state.ends:
            return state
        restart = max(float(state.epoch), min(float(ends - self._n_tail(ends)), state.schedule.restart or 0.0))
        share = state.schedule(restart)
        schedule = replace(state.schedule, epochs=ends, restart=restart, restart_share=share)
        return replace(state, schedule=schedule, ends=ends).with_event(f"ends at epoch {ends}: its budget is spent")

    # --- a decision and what follows from it --------------------------------------------------------------------------

    @property
    def _rules(self) -> Rules:
        from objectives.strategies.methods.rounds import Rules

        names = ("gain", "patience", "least", "rounds", "factor", "shrinking", "occupied")
        return Rules(**{name: getattr(self, name) for name in names})

    def _decided(self, state: TrainState, latest: float) -> TrainState:
        """The state to continue from after looking at the round."""
        from objectives.strategies.methods.rounds import decide

        before = residual(self.kept.model.architecture) if self.kept is not None else None
        seen = self._seen(state, latest)
        fits = self._fits(state)
        n_needed = self.least + self._n_tail(state.ends)
        decision = decide(seen, self._rules, lambda network: fits(network) >= n_needed, before)
        if decision.act == "go on":
            return state
        if decision.act == "keep":
            return state.with_event(f"keeps its size: {decision.why}")
        old, reached = self.past[-1], min(seen.measures[self.past[-1].epoch :])
        me: Adaptive = self
        if decision.goes_back:
            assert self.kept is not None
            assert self.before is not None
            assert old.operator is not None
            me = self.before.having_learned(failed=self.failed | {old.operator}, past=self.past[:-1])
            state, reached = replace(state.with_strategy(self, me), trainee=self.kept), old.reached
            state = state.with_event(f"back to {self.kept.model.architecture.describe()}")
        if decision.act == "stop":
            return me._cooling(state, decision)
        return me._grown(state, decision, reached, fits)

    def _n_tail(self, ends: int) -> int:
        """Epochs in which the learning rate falls, of a run of so many."""
        return max(1, round(self.tail * ends))

    def _seen(self, state: TrainState, latest: float) -> Seen:
        from objectives.networks import flops
        from objectives.strategies.methods.rounds import Seen, least_loss

        if self.judge == "loss":
            least = least_loss(state.pipeline.label_smoothing, state.full.n_classes)
            measures = tuple(loss - least for loss in (*(report.loss for report in state.history), state.loss))
        else:
            measures = (*(1 - report.accuracy for report in state.history), 1 - state.accuracy)
        now = residual(state.trainee.model.architecture)
        inference = flops.count(now, int(state.data.x.shape[-1]))[0]
        return Seen(
            rounds=self.past,
            now=now,
            measures=tuple(each if isfinite(each) else inf for each in measures),
            flops=(*(report.inference_flops for report in state.history), float(inference)),
            epochs_to_tail=int(latest) - state.epoch,
            failed=self.failed,
        )

    def _fits(self, state: TrainState) -> Callable[[AnyArchitecture], int]:
        """How many epochs of a network the budget still holds."""
        rate, left = _seconds_per_flop(state), self.budget * _forecast(state) - state.train_seconds
        return lambda network: int(left / (rate * _work(state, network))) if rate > 0 else state.pipeline.epochs

    def _grown(
        self, state: TrainState, decision: Decision, reached: float, fits: Callable[[AnyArchitecture], int]
    ) -> TrainState:
        """The state with the network that was decided on."""
        from objectives.networks import surgery
        from objectives.strategies.methods import widening
        from objectives.strategies.methods.rounds import Round

        assert decision.architecture is not None
        assert decision.act in ("wider", "deeper")
        old = state.trainee
        if decision.act == "deeper":
            (stage,) = decision.stages
            interiors = decision.architecture.stages[stage].interiors
            trainee = surgery.insert_block(old, stage, len(interiors) - 1, interiors[-1], state.epoch)
        else:
            sizes, wanted = old.model.architecture.axis_sizes(), decision.architecture.axis_sizes()
            device = next(old.model.parameters()).device
            index = {
                axis: widening.sources("fresh", n, wanted[axis] - n, device)
                for axis, n in sizes.items()
                if wanted[axis] > n and widening.can_learn("fresh", old, axis)
            }
            trainee = surgery.reindex(old, index, state.epoch) if index else old
        now = Round(state.epoch, residual(trainee.model.architecture), decision.act, decision.stages, reached)
        me = self.having_learned(past=(*self.past, now), kept=old, before=self.having_learned(kept=None, before=None))
        ends = min(state.pipeline.epochs, state.epoch + fits(now.architecture))
        schedule = replace(state.schedule, warmed=float(state.epoch), warmed_share=self.rewarm)
        schedule = replace(schedule, epochs=ends, restart=ends - self._n_tail(ends))
        grown = replace(state.with_strategy(self, me), trainee=trainee, schedule=schedule, ends=ends)
        words = f"{decision.act}, {old.model.architecture.describe()} to {now.architecture.describe()}"
        words += "" if ends == state.ends else f", until epoch {ends}"
        return grown.with_event(f"round {len(me.past)}: {words}: {decision.why}")

    def _cooling(self, state: TrainState, decision: Decision) -> TrainState:
        """The state whose learning rate falls from here on, over a tail as long as the rounds before it allow."""
        me = self.having_learned(kept=None, before=None)
        state = me._without_dead(state.with_strategy(self, me))
        ends = min(state.ends, state.epoch + max(1, round(self.tail / (1 - self.tail) * state.epoch)))
        schedule = replace(state.schedule, restart=state.epoch, restart_share=state.schedule(state.epoch), epochs=ends)
        return replace(state, schedule=schedule, ends=ends).with_event(
            f"stops growing, cools down to epoch {ends}: {decision.why}"
        )


def _work(state: TrainState, network: AnyArchitecture) -> float:
    """FLOPs of an epoch of training a network on the images in use."""
    from objectives.networks import flops

    return float(len(state.data.y) * flops.count(network, int(state.data.x.shape[-1]))[1])


def _seconds_per_flop(state: TrainState) -> float:
    """Of the steps of the last epoch; 0 where no time was measured."""
    seconds, spent = state.train_seconds, state.train_flops
    if state.history:
        seconds, spent = seconds - state.history[-1].train_seconds, spent - state.history[-1].train_flops
    return seconds / spent if spent > 0 else 0.0


def _forecast(state: TrainState) -> float:
    """Seconds that the full network would take for all epochs, behind the stem that strategies gave it.

    By the seconds per FLOP of the first epoch: what a run may take is known from then on, and stays.
    """
    now = state.trainee.model.architecture
    full = state.full.behind_stem_of(now)
    rate = _seconds_per_flop(state)
    if state.history:
        first = state.history[0]
        rate = (first.train_seconds - first.boundary_seconds) / first.train_flops if first.train_flops > 0 else 0.0
    return state.pipeline.epochs * rate * _work(state, full)
