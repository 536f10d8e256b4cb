"""One reduction: a network and its data opened, attempts until it is enough, the smaller network exported and compared.

What was tried lies in a journal at every moment, so that an end, of whatever kind, loses the attempt at hand at most.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from math import inf
from types import FrameType
from typing import NoReturn

import torch

from objectives.data.held_out import HeldOut, load_test
from objectives.device.clock import describe
from objectives.device.formats import FORMATS
from objectives.errors import DeviceError
from objectives.evaluation import evaluate
from objectives.export import ExportedModel, export, load_model
from objectives.host.durable import write_file
from objectives.reduction.latency import latencies
from objectives.reduction.quantisation.forms import save
from objectives.reduction.quantisation.quantised import eight_bit, shared
from objectives.reduction.result import Comparison, Ending, Latency, Result
from objectives.reduction.settings import Iteration
from objectives.reduction.snare import reduced
from objectives.words import counted
from search.errors import UsageError
from search.host.interruptions import check, put_off
from search.invocation import Reducing
from search.reducible import Work, prepared, taken
from search.views.reduction import words
from search.views.reduction.display import Display, chosen
from search.views.reduction.page import page

LATENCY_SECONDS = 6.0  # that both networks are timed for at most
LATENCY_SHARE = 0.05  # ... of a budget
EXPORTING = 1.0  # seconds that files take, about
MARGIN = 1.2  # of a forecast, for neighbours that come and go
AGAIN = 1.0  # seconds after which an end is asked for again: Python may drop what is raised while objects are cleared
QUANTISED = {"affine": eight_bit, "shared": shared}
QUANTISED_WEIGHTS = "weights"  # ends in how; `objectives.reduction.quantisation.forms.load` reads it
PAGE, DOCUMENT = "reduction.html", "reduction.json"  # beside the network


class TimeUp(BaseException):
    """The budget ends; as KeyboardInterrupt nobody on the way takes it for an error of his own."""


def reduce(asked: Reducing, age: float) -> None:
    """Makes a network smaller, or goes on with it, and prints the result.

    `age`: seconds that the program has run.

    Raises:
        UsageError, DataError, StorageError, DeviceError: one line each, with the way out.
        KeyboardInterrupt: the best network so far is exported, and the way to go on is printed.
    """
    deadline = inf if asked.budget_minutes is None else time.monotonic() - age + 60 * asked.budget_minutes
    with ExitStack() as held:
        display = held.enter_context(chosen(quiet=asked.quiet))
        try:
            result = _reduced(prepared(asked, *taken(asked, held), display), display, deadline)
        except torch.OutOfMemoryError as error:
            cause = str(error).partition("\n")[0]
            raise DeviceError(f"{asked.device} has too little memory ({cause}): try --device cpu") from error
        except KeyboardInterrupt:
            display.say(f"interrupted; to go on: {asked.again}")
            raise
    if asked.json:
        print(json.dumps(_document(asked, result)))
        return
    places = [f"network     {asked.result}", f"page        {asked.result / PAGE}"]
    if asked.quantise is not None:
        places.append(f"quantised   {asked.result / QUANTISED_WEIGHTS}.{asked.quantise}")
    print(*words.lines(result), *places, sep="\n")


@dataclass
class _Limit:
    """Until when attempts may go on."""

    at: float  # of `time.monotonic()`
    took: list[float] = field(default_factory=list)  # seconds of the last attempts
    since: float = 0.0  # when the attempt at hand began
    is_reached: bool = False  # another attempt would have ended too late

    def allows(self) -> bool:
        """Whether another attempt is forecast to end in time: as long as the longest of the last three. The first is
        begun on trial."""
        self.since = time.monotonic()
        forecast = MARGIN * max(self.took[-3:], default=0.0)
        self.is_reached = self.since + forecast >= self.at
        return not self.is_reached

    def ended(self) -> None:
        """An attempt ended now."""
        self.took.append(time.monotonic() - self.since)


def _reduced(work: Work, display: Display, deadline: float) -> Result:
    """The reduction, after its attempts; its network is exported.

    Raises:
        UsageError: the journal is one of another reduction, or damaged.
        KeyboardInterrupt: what is best so far is exported where there is something.
    """
    asked, began = work.asked, time.monotonic()
    least = work.before.accuracy - work.terms.settings.epsilon
    display.begun(work.before.n_parameters, work.before.accuracy, least, deadline if deadline < inf else None)
    try:
        attempts, _ = work.tried()
    except ValueError as error:
        raise UsageError(str(error)) from error
    if attempts:
        display.say(f"goes on after {counted(len(attempts), 'attempt')}")
    opening = time.monotonic() - began  # evaluates three networks, as the end does
    timing = LATENCY_SECONDS if deadline == inf else min(LATENCY_SECONDS, LATENCY_SHARE * (deadline - began))
    limit = _Limit(deadline - opening - timing - EXPORTING, [each.seconds for each in attempts])
    ending = _attempted(work, attempts, limit, display)
    display.doing("exporting ...")
    with put_off():
        result = _exported(work, ending)
    if ending == "interrupted":
        raise KeyboardInterrupt
    display.doing("comparing ...")
    result = replace(result, compared=_compared(work, result.compared, timing, display))
    with put_off():
        result = replace(result, compared=_quantised(work, result.compared))
        _written(asked, result)
    if ending == "time":
        display.say(f"time is up; to go on: {asked.again}")
    return result


def _attempted(work: Work, before: tuple[Iteration, ...], limit: _Limit, display: Display) -> Ending:
    """Makes attempts until nothing is left to try, or an end is asked for."""
    asked, n = work.asked, 0
    course = reduced(
        work.base,
        work.dataset,
        work.terms.settings,
        asked.seed,
        journal=asked.journal,
        workers=work.workers,
        goes_on=limit.allows,
    )
    try:
        with ended_at(limit.at):
            for tried in course:
                n += 1
                display.attempted(tried, before=n <= len(before))
                if n > len(before):
                    limit.ended()
                check()
    except TimeUp:
        return "time"
    except KeyboardInterrupt:
        return "interrupted"
    return "time" if limit.is_reached else "complete"


@contextmanager
def ended_at(deadline: float) -> Iterator[None]:
    """Raises TimeUp in the midst of the block once the deadline (of `time.monotonic()`) is there. For the main thread.

    A forecast may be wrong, and the first attempt has none.
    """
    if deadline == inf:
        yield
        return
    handler = signal.signal(signal.SIGALRM, _time_is_up)
    try:
        signal.setitimer(signal.ITIMER_REAL, max(1e-3, deadline - time.monotonic()), AGAIN)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


def _time_is_up(number: int, frame: FrameType | None) -> NoReturn:
    raise TimeUp


def _exported(work: Work, ending: Ending) -> Result:
    """The reduction as its journal has it; its network is on the disk."""
    asked = work.asked
    attempts, trained = work.tried()
    about = {
        "reduction": {
            "settings": work.terms.settings.to_json(),
            "seed": asked.seed,
            "ending": ending,
            "base": {key: work.base.about.get(key) for key in ("study", "trial", "accuracy")},
            "attempts": [each.to_json() for each in attempts],
        }
    }
    export(trained, work.dataset, asked.result, about)
    after = work.weighed(load_model(asked.result), asked.result, trained.report.accuracy)
    found = Comparison(work.before, after, len(work.dataset.val.y))
    result = Result(work.terms.settings, asked.seed, attempts, ending, found)
    _written(asked, result)
    return result


def _written(asked: Reducing, result: Result) -> None:
    """Writes page and document beside the network."""
    write_file(asked.result / DOCUMENT, json.dumps(_document(asked, result), indent=1).encode())
    write_file(asked.result / PAGE, page(result, title=asked.model).encode("utf-8", "replace"))


def _document(asked: Reducing, result: Result) -> dict[str, object]:
    """The result for programs."""
    return {"model": str(asked.base.absolute()), "output": str(asked.result.absolute()), **result.to_json()}


def _compared(work: Work, found: Comparison, timing: float, display: Display) -> Comparison:
    """The comparison with latencies, and the accuracies on test images where they are asked for."""
    asked = work.asked
    networks = [work.base, load_model(asked.result)]
    if asked.test:
        held_out = load_test(work.spec, work.dataset)
        if held_out is None:
            display.say("the data have no test split: the accuracies are those of the validation images")
        else:
            for warning in held_out.warnings:
                display.say(f"warning: {warning}")
            before, after = (_tested(work, each, held_out) for each in networks)
            found = replace(
                found,
                base=replace(found.base, test_accuracy=before),
                reduced=replace(found.reduced, test_accuracy=after),
                n_test=len(held_out.images.y),
            )
    if (found.base.n_parameters, found.base.flops) == (found.reduced.n_parameters, found.reduced.flops):
        return found  # nothing was accepted: what readings of one network differ by is chance
    threads = f", {counted(torch.get_num_threads(), 'thread')}" if work.device.type == "cpu" else ""
    where = f"{describe(work.device).model}{threads}"
    return replace(found, latencies=_timed(work, networks, timing, display), device=where)


def _quantised(work: Work, found: Comparison) -> Comparison:
    """The comparison with the network in fewer bits, where it is asked for; its file lies beside the export."""
    if (name := work.asked.quantise) is None:
        return found
    made = QUANTISED[name](load_model(work.asked.result).network)
    save(made.forms, work.asked.result / f"{QUANTISED_WEIGHTS}.{name}")
    accuracy = work.terms.evaluated(made.model.to(work.device)).accuracy
    smaller = replace(found.reduced, n_bytes=made.n_bytes, accuracy=accuracy, test_accuracy=None)
    return replace(found, quantised=smaller)


def _timed(work: Work, networks: list[ExportedModel], timing: float, display: Display) -> tuple[Latency, ...]:
    FORMATS["fp32"].set_float32_products()
    shape = tuple(work.dataset.val.x.shape[1:])
    try:
        return latencies(networks[0].network, networks[1].network, shape, work.device, timing)
    except torch.OutOfMemoryError:
        display.say("warning: the device has too little memory to time the networks")
        return ()


def _tested(work: Work, model: ExportedModel, held_out: HeldOut) -> float:
    terms = work.terms
    return evaluate(
        model.network.to(work.device).eval(),
        held_out.images,
        terms.normalise,
        terms.number_format,
        batch_size=terms.pipeline.batch_size,
        mirrored=model.mirrored,
    ).accuracy
