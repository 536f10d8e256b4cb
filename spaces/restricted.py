"""A space as a study file restricts it: parameters fixed, choices excluded. And a walk over all that is left."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from objectives.networks.architecture import FAMILIES, build
from objectives.pipeline import Pipeline
from objectives.starts.origin import Origin
from spaces import everything
from spaces.acceleration import STARTING
from spaces.base import BASELINE, Given, Parameters, Space, Trial, Value

RENAMED = {"grow.start_width": "grow.start", "prune.lpr": "prune.share", "prune.kappa": "prune.share"}
# all is asked in it
_FAMILY = next(iter(FAMILIES))
_SOME = build(_FAMILY, depth=1, width=1.0, in_channels=3, n_classes=2)
AMPLE = Given(
    *(_FAMILY, ("fp32",), (1, 40), (64, 512), (1, 3), (0.25, 4.0)),
    flip=True,
    unevenness=99.0,
    start=Origin("", "", "a network", _FAMILY, _SOME, None),
)


@dataclass(frozen=True)
class Restrictions:
    """What a study file forbids."""

    fix: Mapping[str, Value] = field(default_factory=dict)  # parameter -> its only value
    exclude: Mapping[str, Sequence[Value]] = field(default_factory=dict)  # categorical parameter -> values left out


class RestrictedTrial:
    """A trial that never asks about what is fixed or has one value only, nor offers what is excluded. Such a parameter
    is no parameter of the trial: samplers do not see it."""

    def __init__(self, trial: Trial, restrictions: Restrictions, preset: Mapping[str, Value]) -> None:
        self._trial, self._restrictions = trial, restrictions
        self.settled: dict[str, BaseDistribution] = {}  # what had one value only
        self._preset = preset  # an anchor's values; one that may not be chosen here is used without being suggested

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Value:
        left = [choice for choice in choices if choice not in self._restrictions.exclude.get(name, ())]
        preset = self._unsuggested(name, CategoricalDistribution(left))
        return self._trial.suggest_categorical(name, left) if preset is None else preset

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        preset = self._unsuggested(name, IntDistribution(low, high, step=step, log=log))
        return self._trial.suggest_int(name, low, high, step=step, log=log) if preset is None else int(preset)

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        preset = self._unsuggested(name, FloatDistribution(low, high, step=step, log=log))
        return self._trial.suggest_float(name, low, high, step=step, log=log) if preset is None else float(preset)

    def _unsuggested(self, name: str, distribution: BaseDistribution) -> Value | None:
        """The value that is used without asking, or None."""
        fixed = self._restrictions.fix.get(name)
        value = self._preset.get(name, fixed)
        if value is not None and (fixed is not None or not contains(distribution, value)):
            return value
        if not distribution.single():
            return None
        self.settled[name] = distribution
        return _first(distribution)


class _Explorer:
    """A trial that follows a list of decisions, then takes the first choice and the lowest or highest number.

    It notes what it is asked.
    """

    def __init__(self, decisions: Parameters, *, highest: bool) -> None:
        self.decisions, self.highest = dict(decisions), highest
        self.asked: dict[str, BaseDistribution] = {}

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Value:
        self.asked[name] = CategoricalDistribution(choices)
        return self.decisions.setdefault(name, choices[0])

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        self.asked[name] = IntDistribution(low, high, step=step, log=log)
        return int(self.decisions.setdefault(name, high if self.highest else low))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        self.asked[name] = FloatDistribution(low, high, step=step, log=log)
        return float(self.decisions.setdefault(name, high if self.highest else low))


def sample(space: Space, trial: Trial, given: Given, restrictions: Restrictions, anchor: str | None = None) -> Pipeline:
    """The pipeline that a trial chooses from a restricted space; for an anchor that pipeline."""
    preset = _anchors(space, given, restrictions)[anchor] if anchor is not None else {}
    return space.sample(RestrictedTrial(trial, restrictions, preset), given)


def usable_anchors(space: Space, given: Given, restrictions: Restrictions) -> list[tuple[str, Parameters]]:
    """The anchors that a study tries first, of equal ones the first."""
    usable: list[tuple[str, Parameters]] = []
    for name, parameters in _anchors(space, given, restrictions).items():
        if parameters not in [known for _, known in usable]:
            usable.append((name, parameters))
    return usable


def anchor_pipelines(space: Space, given: Given, restrictions: Restrictions) -> dict[str, Pipeline]:
    """The pipelines of the anchors that a study tries first, by name, in the order of the space."""
    return {
        name: anchor_pipeline(space, given, restrictions, name)
        for name, _ in usable_anchors(space, given, restrictions)
    }


def anchor_pipeline(space: Space, given: Given, restrictions: Restrictions, name: str) -> Pipeline:
    """The pipeline of an anchor, also of one that equals another since more is restricted."""
    parameters = _anchors(space, given, restrictions)[name]
    return space.sample(RestrictedTrial(_Explorer(parameters, highest=False), restrictions, parameters), given)


def _anchors(space: Space, given: Given, restrictions: Restrictions) -> dict[str, Parameters]:
    """The anchors that are allowed. BASELINE is the same in every study; others obey the restrictions."""
    found: dict[str, Parameters] = {}
    for name, parameters in space.anchors(given).items():
        if name == BASELINE:
            found[name] = parameters
        elif not any(parameters.get(key) in values for key, values in restrictions.exclude.items()):
            found[name] = {key: restrictions.fix.get(key, value) for key, value in parameters.items()}
    return found


def walk(space: Space, given: Given, restrictions: Restrictions) -> dict[str, list[str]]:
    """Every parameter that can be asked, with its distributions as JSON: what a study's identity says of its space.

    Each choice of each categorical parameter and both ends of each number are taken at least once, every other
    decision being the first one on the way there; once where numbers are at their lowest and once at their highest,
    since what is asked in a long run of a large network is not asked in a short one of a small one.
    """
    found: dict[str, set[str]] = {}
    seen: set[tuple[bool, str, Value]] = set()
    paths: list[tuple[bool, Parameters]] = [(False, {}), (True, {})]
    while paths:
        highest, decisions = paths.pop()
        explorer = _Explorer(decisions, highest=highest)
        trial = RestrictedTrial(explorer, restrictions, {})
        space.sample(trial, given)
        for name, distribution in (explorer.asked | trial.settled).items():
            found.setdefault(name, set()).add(distribution_to_json(distribution))
        for name, distribution in explorer.asked.items():
            for value in _branches(distribution):
                if (highest, name, value) not in seen:
                    seen.add((highest, name, value))
                    paths.append((highest, explorer.decisions | {name: value}))
    return {name: sorted(found[name]) for name in sorted(found)}


def check(space: Space, given: Given, restrictions: Restrictions) -> None:
    """Refuses restrictions that the space cannot follow.

    Raises:
        ValueError: an unknown parameter, a value that it cannot have, nothing left to choose.
    """
    free = walk(space, given, Restrictions())
    for section, names in (("fix", restrictions.fix), ("exclude", restrictions.exclude)):
        for name in names:
            if name not in free:
                raise ValueError(f"[space.{section}] {name}: {_not_asked(name, space, given, free)}")
    for name, value in restrictions.fix.items():
        if not any(contains(_distribution(d), value) for d in free[name]):
            raise ValueError(f"[space.fix] {name} = {json.dumps(value)}: {_must_be(free[name])}")
    for name, values in restrictions.exclude.items():
        distribution = _distribution(free[name][0])
        if not isinstance(distribution, CategoricalDistribution):
            raise ValueError(
                f"[space.exclude] {name}: only values of a choice can be excluded; narrow its range instead"
            )
        for value in values:
            if not contains(distribution, value):
                raise ValueError(f"[space.exclude] {name} = {json.dumps(value)}: {_must_be(free[name])}")
        if set(values) >= set(distribution.choices):
            raise ValueError(f"[space.exclude] {name}: every value is excluded; leave at least one")
        fixed = restrictions.fix.get(name)
        if fixed is not None and contains(CategoricalDistribution(list(values)), fixed):
            shown = json.dumps(fixed)
            raise ValueError(f"[space] {name}: {shown} is what fix says and what exclude leaves out: drop one of them")


@cache
def names() -> frozenset[str]:
    """Every parameter that a space may ask."""
    return frozenset(walk(everything, AMPLE, Restrictions()))


def unknown(name: str, known: Sequence[str] | Mapping[str, object]) -> str:
    """That there is no parameter of that name, and what it may be called."""
    if name in RENAMED:
        return f"no such parameter any more; it is {RENAMED[name]!r}, which means something else"
    return f"no such parameter{suggestion(name, known)}"


def _not_asked(name: str, space: Space, given: Given, free: Mapping[str, object]) -> str:
    """Why a space does not ask a parameter."""
    ample = replace(AMPLE, executors=given.executors)
    if name in walk(space, ample, Restrictions()):
        runs, way_out = f"epochs = {list(given.epochs)}, images of {given.size} pixels", ", or allow longer ones"
        if given.start is None and name.partition(".")[0] in STARTING:
            return "it is asked of pipelines that begin from a trained network: name one as start under [network]"
        if name.startswith("balance"):
            runs, way_out = f"classes of {given.unevenness:.1f} : 1 images at most", ""
        return f"it has no effect in runs as these ({runs}) and is not asked: leave it out{way_out}"
    if name in names():
        return 'the space "everything" asks it, this one does not: leave it out, or choose that one'
    return unknown(name, free)


def _must_be(plain: list[str]) -> str:
    """What a parameter may be, and where more of it may be found."""
    distribution = _distribution(plain[0])
    only = len(plain) == 1 and distribution.single()
    if isinstance(distribution, (IntDistribution, FloatDistribution)) and not only:
        whole = "be a whole number " if isinstance(distribution, IntDistribution) else "lie "
        return f"it must {whole}between {distribution.low:g} and {distribution.high:g}"
    return f"it must be one of {described(plain[0])}" + ('; the space "everything" may offer more' if only else "")


def suggestion(name: str, known: Sequence[str] | Mapping[str, object]) -> str:
    """A hint to the known name that is closest to a mistyped one, or begins like it, or what names there are."""
    close = difflib.get_close_matches(name, list(known), n=1) or [each for each in known if each.startswith(name)]
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(sorted(known))}"


def contains(distribution: BaseDistribution, value: Value) -> bool:
    """Whether a value lies in a distribution; True and 1 differ, unlike in Optuna."""
    if isinstance(distribution, CategoricalDistribution):
        return any(
            choice == value and isinstance(choice, bool) == isinstance(value, bool) for choice in distribution.choices
        )
    return isinstance(value, (int, float)) and not isinstance(value, bool) and distribution._contains(value)


def _first(distribution: BaseDistribution) -> Value:
    """The first choice, or the lowest number."""
    if isinstance(distribution, CategoricalDistribution):
        choice = distribution.choices[0]
        assert choice is not None
        return choice
    assert isinstance(distribution, (IntDistribution, FloatDistribution))
    return distribution.low


def _branches(distribution: BaseDistribution) -> Sequence[Value]:
    if isinstance(distribution, CategoricalDistribution):
        return [choice for choice in distribution.choices if choice is not None]
    assert isinstance(distribution, (IntDistribution, FloatDistribution))
    return [distribution.low, distribution.high]


def _distribution(plain: str) -> BaseDistribution:
    from optuna.distributions import json_to_distribution

    return json_to_distribution(plain)


def described(plain: str) -> str:
    """A distribution, given as JSON, in words."""
    try:
        distribution = _distribution(plain)
    except (ValueError, KeyError, TypeError):  # of another version
        return plain
    if isinstance(distribution, CategoricalDistribution):
        return ", ".join(json.dumps(choice) for choice in distribution.choices)
    if distribution.single():
        return f"{_first(distribution):g}"
    if isinstance(distribution, (IntDistribution, FloatDistribution)):
        steps = f" in steps of {distribution.step:g}" if distribution.step not in (None, 1) else ""
        return f"{distribution.low:g} to {distribution.high:g}{steps}{' (log)' if distribution.log else ''}"
    return plain
