"""Stopping by a bound: no trial goes on that even an optimist expects to be dominated.

The front says what accuracy a trial must beat in the time that it will take; what it may still gain, the trials that
finished before tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from search.pareto.curves import Curve, gain_ratio
from search.pareto.front import best_within
from search.pareto.stopping import Past, StopReason, check_rungs, rung


@dataclass(frozen=True)
class FrontStopping:
    """Stops a trial when even an optimist expects its result to be dominated, or to miss the floor.

    At a rung, a fraction f of the schedule, the trial is granted the final accuracy U that it would reach if it closed
    as much of its error as the luckiest finished trials did from f on, and the time that its lowest rate predicts. It
    is `dominated` when a finished trial needed no longer than that and is at least as accurate as U. Elapsed time only
    grows and the front only rises: where U is a true upper bound, no trial is lost.

    Measured 2026-11-22 on recorded trainings of tiny networks on scikit-learn digits (1 thread, 500 validation images,
    2 to 20 epochs; one-cycle, cosine and step schedules), 80 a table, replayed in 100 random orders:

        table                               seconds saved  hypervolume kept (worst)  stopped  of these on the true front
        A: residual CNN                     24 %           0.9995 (0.9974)           31       0.95
        B: residual CNN, noisy images       23 %           0.9992 (0.9902)           29       0.08
        C: MLP, noisy images, not tuned on  24 %           1.0000 (1.0000)           31       0.00

    Of the stopped trials 1.55, 0.10 and 0.19 would have joined the front of that moment; 0.55, 0.10 and 0.19 with more
    than a standard error of accuracy to spare. Random sampling, no surgery: a sampler that learns proposes fewer trials
    worth stopping, and surgery after the last decision makes the forecast of time too high.

    Raises:
        ValueError: a parameter is outside its range.
    """

    # What else was tried, 40 orders each; "lost" counts stopped trials of the true front in tables A, B, C.
    # Fractions of the schedule at which a trial is judged, once each, at the first settled report at or past it.
    # A first rung at 0.25 saved 1 to 5 % more of the seconds and lost 1.8, 0.1, 0.
    rungs: tuple[float, ...] = (0.33, 0.5, 0.75)
    # Finished trials, anchors included, before any is stopped.
    # 12 and 16 saved 1 and 2 % less; from 5 to 16 as many were lost.
    n_startup: int = 8
    # Finished curves above the floor that must cover the fraction. 10 saved 1 to 2 % less and lost as many.
    min_curves: int = 5
    # Of the gain ratios, the low (lucky) end. 0.2 lost 2.3, 0.5, 0; 0.05 lost 0.8, 0, 0 and saved 1 to 4 % less.
    quantile: float = 0.1
    # Share of the error left at U that is waived, because the luckiest trials are the ones that make a front.
    # 0 saved 30, 35, 40 % and lost 1.9, 1.6, 0.1; 0.5 saved 19, 11, 17 % and lost 0.9, 0, 0.
    accuracy_margin: float = 0.3
    # Share taken off the predicted time, whose error at the first rung was 2 % in the median, over 7 % in one of ten.
    # 0.2 saved 2 to 4 % less and lost 0.7, 0, 0.
    seconds_margin: float = 0.1

    def __post_init__(self) -> None:
        check_rungs(self.rungs, self.n_startup)
        if self.min_curves < 1:
            raise ValueError(f"min_curves is {self.min_curves}: it must be at least 1")
        for name in ("quantile", "accuracy_margin", "seconds_margin"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}: it must lie between 0 and 1")

    def decide(self, curve: Curve, past: Past) -> StopReason | None:
        """Why the trial stops here, or None: it goes on."""
        if len(past.curves) < self.n_startup or rung(curve, self.rungs) is None:
            return None
        accuracy = self.optimistic_accuracy(curve, [other for other in past.curves if other[-1].accuracy >= past.floor])
        if accuracy < past.floor:
            return "below_floor"
        rival = best_within(past.front, self.optimistic_seconds(curve))
        # A rival this accurate is above the floor too: collapsed networks on the front dominate nothing that counts.
        return "dominated" if rival is not None and rival >= accuracy else None

    def optimistic_accuracy(self, curve: Curve, finished: Sequence[Curve]) -> float:
        """U, what the trial may still reach: never below its best so far; 1 where too few finished curves tell.

        `finished` should hold no collapsed network: it says nothing about what can be gained. Choosing the curves of
        the nearest horizons, or of the nearest accuracies at this fraction, was no better at equal savings.
        """
        fraction, best = curve[-1].fraction, max(point.accuracy for point in curve)
        ratios = sorted(ratio for other in finished if (ratio := gain_ratio(other, fraction)) is not None)
        if len(ratios) < self.min_curves:
            return 1.0
        left = min(1.0, _quantile(ratios, self.quantile)) * (1.0 - self.accuracy_margin)  # share of the error
        return max(best, 1.0 - (1.0 - best) * left)

    def optimistic_seconds(self, curve: Curve) -> float:
        """The least final time to expect: at the lower of the mean and the latest rate, less the margin.

        Where epochs grow longer (progressive resolution) both rates are too low, which is safe; where surgery made them
        shorter, the latest rate is the right one. Never below the time already spent.
        """
        last = curve[-1]
        rate = last.train_seconds / last.epoch
        if len(curve) > 1:
            before = curve[-2]
            rate = min(rate, (last.train_seconds - before.train_seconds) / (last.epoch - before.epoch))
        final = last.train_seconds + rate * (last.epochs - last.epoch)
        return max(last.train_seconds, final * (1.0 - self.seconds_margin))


def _quantile(ordered: Sequence[float], q: float) -> float:
    """The q-quantile of ascending values, interpolated."""
    position = q * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)
