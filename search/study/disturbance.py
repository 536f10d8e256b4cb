"""Was a training disturbed? What the device was like just after it.

On a CPU what neighbours took of the core disturbs nothing: it is not among a training's seconds. What they take of
caches, memory and hyper-threads is (3 to 5 %), and slows the reference workload likewise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from statistics import mean, median

from objectives.pipeline import Reading, Report
from search.study import records
from search.study.snapshot import Snapshot

BUDGET = 0.03  # of the mean training: seconds that the reference workload may take after one
LEAST_STEPS, MOST_STEPS = 7, 50  # of the reference workload, two of which warm up: fewer say nothing, more say no more
PROBES = 9  # when a study is created
LEAST_THRESHOLD = 0.03

Measure = Callable[[int], Reading]  # what a device is like, from so many steps of the reference workload


@dataclass(frozen=True)
class Calibration:
    """The device of a study while it is created. The defaults are those of studies that were made without."""

    step_seconds: float | None = None  # of the reference workload
    threshold: float = LEAST_THRESHOLD  # share by which the reference workload may be slower
    n_foreign: int = 0  # processes of others on the GPU, which may be there for good


def calibrated(devices: Sequence[Measure]) -> dict[str, object]:
    """A `Calibration` of the device as plain JSON data, from probes as short as they will ever be.

    All workers are probed at the same time: what they take from each other is no disturbance.
    """
    with ThreadPoolExecutor(len(devices)) as threads:
        probed = threads.map(lambda measure: [measure(LEAST_STEPS) for _ in range(PROBES)], devices)
        readings = [reading for several in probed for reading in several]
    middle = median(reading.step_seconds for reading in readings)
    deviation = median(abs(reading.step_seconds / middle - 1) for reading in readings)
    n_foreign = max(reading.n_foreign for reading in readings)
    return asdict(Calibration(middle, max(LEAST_THRESHOLD, 3 * deviation), n_foreign))


@dataclass(frozen=True)
class Watch:
    """What a disturbance is judged by. Read before a training: after it the database may be away."""

    calibration: Calibration
    device: Mapping[str, str]  # of the study's identity
    seconds: tuple[float, ...]  # of the trainings that have ended

    @classmethod
    def of(cls, now: Snapshot) -> Watch:
        """The watch over the next training of a study."""
        known = now.attributes
        finished = tuple(trial.values[0] for trial in now.trials if records.is_finished_run(trial))
        return cls(Calibration(**known.get(records.CALIBRATION, {})), known[records.IDENTITY]["device"], finished)

    def observed(self, report: Report, measure: Measure) -> dict[str, object]:
        """What is to be told of a training that has just ended with this report: user attributes of its trial."""
        if self.device["model"] == records.MIXED:  # what is slow for one model is fast for another
            return {}
        n_steps = self._n_steps(report)
        reading = measure(n_steps) if n_steps >= LEAST_STEPS else None
        return judged(report, reading, self.calibration) if reading is not None else {}

    def _n_steps(self, report: Report) -> int:
        """Steps of the reference workload that the budget has room for."""
        if self.calibration.step_seconds is None:
            return 0
        budget = BUDGET * mean([*self.seconds, report.train_seconds])
        return min(MOST_STEPS, int(budget / self.calibration.step_seconds))


def judged(report: Report, reading: Reading, calibration: Calibration) -> dict[str, object]:
    """The user attributes of a training that had this reading after it."""
    assert calibration.step_seconds is not None
    ratio = reading.step_seconds / calibration.step_seconds
    attributes: dict[str, object] = {records.REFERENCE_RATIO: round(ratio, 4)}
    signs = []
    if ratio - 1 > calibration.threshold:
        signs.append(f"the reference workload took {ratio:.2f}x its time")
    if (more := reading.n_foreign - calibration.n_foreign) > 0:
        signs.append(f"{more} other process{'es' if more > 1 else ''} on the GPU")
    if reading.throttled:
        signs.append(f"the GPU was throttled by {' and '.join(reading.throttled)}")
    if signs:
        attributes[records.NOISY] = "; ".join(signs)
        attributes[records.UNDISTURBED] = round(report.train_seconds / max(1.0, ratio), 4)
    return attributes
