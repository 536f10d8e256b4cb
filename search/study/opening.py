"""A study is created whole, resumed as what it is, and never confused with another one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, get_args

import optuna
from pydantic import ValidationError

from objectives.host.durable import damaged, sums
from objectives.pipeline import NumberFormatName, Pipeline
from objectives.starts import naming
from objectives.starts.origin import Origin, is_export, resolved
from search.database.reading import trials
from search.database.storage import Database
from search.errors import Foreign, StorageError, UsageError
from search.host import rubbish
from search.host.called import command
from search.proposals import interest
from search.proposals.samplers import experimental
from search.study import differences, records
from search.study.files.sections import WEIGHTS
from search.study.snapshot import Snapshot
from search.study.spec import StudySpec
from search.study.study import Study, keep_place
from spaces import SPACES
from spaces.base import Given, obstacle
from spaces.restricted import check, suggestion, walk

UNREADABLE = (LookupError, TypeError, ValueError, AttributeError)  # what another version has written looks like this
IDENTIFYING = ("device", "data", "timing_version")  # facts that enter the identity of a study
MOST_WARNINGS = 20  # of data, that a study keeps
FLOOR_SHARE = 1 / 8  # of the way from chance to an accuracy of 1: the floor where a study names none


@contextmanager
def understood(name: str) -> Iterator[None]:
    """Reads of a study what may be of another version, or damaged.

    Raises:
        Foreign: it is.
    """
    try:
        yield
    except UNREADABLE as error:
        why = f"study {name!r} was made by another version of frontrunner, or is damaged ({_mistake(error)})"
        raise Foreign(why) from error


def find(name: str, database: Database) -> optuna.Study | None:
    """The study of that name in the database, or None. One whose creation was interrupted is removed."""
    try:
        found = optuna.load_study(study_name=name, storage=database.optuna)
    except KeyError:
        return None
    with understood(name):
        if records.IDENTITY in found.user_attrs:
            return found
    ours = [direction.name for direction in found.directions] == ["MINIMIZE", "MAXIMIZE"]
    if not ours or found.get_trials(deepcopy=False):
        raise StorageError(f"study {name!r} in this storage was not made by frontrunner: choose another name with --as")
    optuna.delete_study(study_name=name, storage=database.optuna)
    return None


def streams(name: str, database: Database) -> bool:
    """Whether the study of that name, where there is one, began with images that memory did not hold."""
    with database.exclusive(name):
        found = find(name, database)
    return found is not None and bool(found.user_attrs[records.IDENTITY].get("data", {}).get("streamed"))


def opened(name: str, spec: StudySpec, found: optuna.Study, database: Database) -> Study:
    """A stored study, without a look at device and data: to read it.

    Raises:
        Foreign: this version does not understand it.
        UsageError: the spec asks for another one: the difference and the way out.
    """
    study = _readable(name, spec, found, database)
    if told := _changes(study, spec):
        raise _unlike(name, told)
    if spec.search.floor not in (None, study.floor):
        raise UsageError(
            f"study {name!r} counts results from a floor of {study.floor:g}, the file says {spec.search.floor:g}: "
            f"start a new study with {command('run')} --as NAME, or restore what it was"
        )
    return study


def loaded(name: str, database: Database) -> optuna.Study:
    """The study of that name, whoever understands it.

    Raises:
        UsageError: there is none, or it is not ours.
    """
    try:
        found = optuna.load_study(study_name=name, storage=database.optuna)
    except KeyError as error:
        known = optuna.get_all_study_names(database.optuna)
        hint = suggestion(name, known) if known else ""
        raise UsageError(f"there is no study {name!r} in {database.shown}{hint}") from error
    with understood(name):
        if records.IDENTITY not in found.user_attrs:
            raise UsageError(f"study {name!r} is not one of ours, or was never finished: choose another")
    return found


def stored(name: str, database: Database) -> Study:
    """The study of that name as it is in the database, whatever its file or the spaces say now: to read it, to mend it.

    Raises:
        Foreign: this version does not understand it.
        UsageError: there is none, or it is not ours.
    """
    found = loaded(name, database)
    return _readable(name, None, found, database)


def seen(name: str, database: Database) -> Snapshot:
    """The study of that name as it is at this moment, whatever its file or the spaces say now: to look at it.

    Raises:
        Foreign: this version does not understand it.
        UsageError: there is none, or it is not ours.
    """
    found = loaded(name, database)
    study = _known(name, None, found, database)
    with understood(name), rubbish.kept():
        return study.snapshot(study.patiently(lambda: trials(database.optuna.engine, found._study_id)))


def changes(study: Study) -> list[str]:
    """Why this version would not go on with a study that it can read."""
    try:
        return _changes(study, study.spec)
    except UNREADABLE as error:
        return [f"its space: {error}"]


def _readable(name: str, spec: StudySpec | None, found: optuna.Study, database: Database) -> Study:
    """A stored study with a spec, or with its own, its trials read."""
    study = _known(name, spec, found, database)
    with understood(name), rubbish.kept():
        study.trials()
    return study


def _known(name: str, spec: StudySpec | None, found: optuna.Study, database: Database) -> Study:
    """A stored study with a spec, or with its own."""
    with understood(name):
        known = found.user_attrs
        own = StudySpec.model_validate(known["spec"])
        spec = own if spec is None else spec
        usable = tuple(n for n, reason in known[records.FORMATS].items() if reason is None)
        of_others = known.get(records.BASE), known.get(records.START)
        given = given_by_facts(spec, usable, known[records.IDENTITY]["data"], *of_others)
        return Study(name, spec, found, database, given, float(known[records.FLOOR]))


def _changes(study: Study, spec: StudySpec) -> list[str]:
    """Where a stored study differs from the one that a spec asks for."""
    stored = study.optuna.user_attrs[records.IDENTITY]
    asked: dict[str, object] = {"name": spec.task.data.kind}
    for name in ("n_train", "size", "channels", "flip"):  # what is said, and not left to the images
        if (value := getattr(spec.data, name)) is not None:
            asked[name] = value
    facts = {name: stored.get(name) for name in ("device", "workers", "timing_version")}
    if (base := _base_now(spec) or stored.get("base")) is not None:
        facts[records.BASE] = base
    if (start := _start_now(spec) or stored.get("start")) is not None:
        facts[records.START] = start
    unknown = set(study.given.number_formats) - set(get_args(NumberFormatName))
    said = [f"number format {name!r} is unknown to this version" for name in sorted(unknown)]
    now = identity(spec, study.given, facts | {"data": stored["data"] | asked})
    return said + differences.in_words(stored, now)


def _base_now(spec: StudySpec) -> dict[str, str] | None:
    """The exported network that a spec names, if it is still there: a study keeps its own copy."""
    folder = spec.reduce.folder if spec.reduce is not None else None
    return None if folder is None or damaged(folder) else {"weights": sums(folder).get(WEIGHTS, "absent")}


def _start_now(spec: StudySpec) -> dict[str, str] | None:
    """The exported network that a spec starts from, if it is still there; a worker looks at other weights."""
    source = None if spec.network.start is None else resolved(spec.network.start)
    if source is None or not is_export(source) or (known := naming.found(source)) is None:
        return None
    return {"digest": known.digest}


def is_elsewhere(now: Snapshot, spec: StudySpec) -> bool:
    """Whether a spec looks for a study's images in another place, so that they may be others."""
    return StudySpec.model_validate(now.attributes["spec"]).data != spec.data


def _mistake(error: Exception) -> str:
    """What was not understood, in a line."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}"
    return f"without {error}" if isinstance(error, KeyError) else str(error).partition("\n")[0]


def resumed(
    name: str,
    spec: StudySpec,
    found: optuna.Study,
    database: Database,
    facts: Mapping[str, Any],
    workers: int | str = 1,
) -> Study:
    """A stored study, open for more trials.

    Raises:
        UsageError: it was made of something else: the difference and the way out.
    """
    study = opened(name, spec, found, database)
    now = identity(spec, study.given, {**facts, "workers": workers})
    if told := differences.in_words(found.user_attrs[records.IDENTITY], now, facts.get("images", {})):
        raise _unlike(name, told)
    keep_place(found, spec)
    return study


def blurred(facts: Mapping[str, Any], mixed_devices: bool) -> Mapping[str, Any]:
    """The facts as a study compares them: without the device's model and driver where several are mixed on purpose."""
    return (
        {**facts, "device": {**facts["device"], "model": records.MIXED, "driver": records.MIXED}}
        if mixed_devices
        else facts
    )


def check_alike(name: str, facts: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> None:
    """Seconds of two kinds of devices share no front, within one run either.

    Raises:
        UsageError: they differ.
    """
    for other in others:
        one, two = ({key: each[key] for key in IDENTIFYING} for each in (facts, other))
        if told := differences.in_words(one, two):
            raise UsageError(
                f"study {name!r} cannot use devices that differ: {'; '.join(told)}: name equal ones, "
                "or begin a study with --mixed-devices"
            )


def created(
    name: str,
    spec: StudySpec,
    database: Database,
    facts: Mapping[str, Any],
    number_formats: Mapping[str, str | None],
    workers: int | str = 1,
    calibration: Mapping[str, object] | None = None,
    probe: interest.Probe | None = None,
) -> Study:
    """A new study in the database, for so many workers on a host, or records.CLUSTER.

    `probe` tells what a step takes on its device.

    Raises:
        StorageError: another process has just created it.
        UsageError: its restrictions cannot be followed on this device or with these data.
    """
    given, floor = checked(name, spec, facts, number_formats)
    base, start = facts.get(records.BASE), facts.get(records.START)
    box = interest.box(spec, given, floor, facts["data"], probe, base)
    try:
        study = optuna.create_study(study_name=name, storage=database.optuna, directions=["minimize", "maximize"])
    except optuna.exceptions.DuplicatedStudyError as error:
        raise StorageError(f"study {name!r} has just been created by another process: run the command again") from error
    with experimental():
        study.set_metric_names(list(spec.what.metrics))
    about = {records.FORMATS: dict(number_formats), records.FLOOR: floor, records.BOX: asdict(box)}
    about |= {records.CALIBRATION: dict(calibration or {}), records.BASE: base, records.START: start}
    about |= {"spec": spec.model_dump(mode="json"), records.ABOUT: _about(facts)}
    for attribute, value in about.items():
        if value is not None:
            study.set_user_attr(attribute, value)
    keep_place(study, spec)
    known = identity(spec, given, {**facts, "workers": workers})
    study.set_user_attr(records.IDENTITY, known)  # last: a study without it was never finished
    return Study(name, spec, study, database, given, floor)


def checked(
    name: str, spec: StudySpec, facts: Mapping[str, Any], number_formats: Mapping[str, str | None]
) -> tuple[Given, float]:
    """(what its space is given, its floor) of a study that is to be.

    Raises:
        UsageError: its restrictions cannot be followed.
    """
    usable = tuple(format_name for format_name, reason in number_formats.items() if reason is None)
    given = given_by_facts(spec, usable, facts["data"], facts.get(records.BASE), facts.get(records.START))
    try:
        for executor in spec.space.executors or ():
            if reason := facts.get("executors", {}).get(executor):
                raise ValueError(f"[space] executors: {executor} would run as eager: {reason}: leave it out")
        check(SPACES[spec.space.name], given, spec.restrictions)
        if spec.what.trains and (reason := obstacle(Pipeline(batch_size=given.batch_size[0]), given)) is not None:
            raise ValueError(f"[space] batch_size = {list(spec.space.batch_size)}: {reason}")
    except ValueError as error:
        raise UsageError(f"study {name!r} on this device and data: {error}") from error
    floor = spec.search.floor if spec.search.floor is not None else default_floor(spec.metric, facts["data"])
    if (base := facts.get(records.BASE)) is not None and base["accuracy"] < floor:
        below = f"reaches {base['accuracy']:.2%}, below the floor of {floor:.2%}: take a better one, or set floor"
        raise UsageError(f"study {name!r}: the network to make smaller {below} under [search]")
    return given, floor


def _about(facts: Mapping[str, Any]) -> dict[str, object]:
    """What there is to say of the images, for those who read of the study when they are elsewhere."""
    validated = list(facts.get("validated", ()))
    return {
        "lines": str(facts.get("about", "")).splitlines(),
        "warnings": list(facts.get("warnings", ()))[:MOST_WARNINGS],
        "n_skipped": len(facts.get("skipped", ())),
        "n_splits": facts.get("n_splits", 1),
        "validated": validated if len(validated) <= records.MANY_CLASSES else [],
    }


def default_floor(metric: str, data: Mapping[str, Any]) -> float:
    """The accuracy below which a result counts for nothing: out of reach for a network that has learned nothing.

    Chance is what a network that gives one answer to all images may reach: the share of the largest class. Validation
    images of a single class tell nothing of a network: of them one counts as another's, so that the floor is below 1.
    """
    chance = 1 / data["n_classes"]
    if metric == "plain":
        chance = max(chance, min(data["largest_share"], 1 - 1 / data["n_val"]))
    return float(round(chance + FLOOR_SHARE * (1 - chance), 6))


def identity(spec: StudySpec, given: Given, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What must not change within a study: seconds of two devices, accuracies of two data sets, share no front."""
    base = facts.get(records.BASE, {})
    reduced = {"base": {"weights": base.get("weights"), **spec.reduce.settings}} if spec.reduce is not None else {}
    start = {} if spec.network.start is None else {"start": {"digest": facts.get(records.START, {}).get("digest")}}
    return {
        "kind": spec.kind,
        **reduced,
        **start,
        **({} if spec.machine is None else {"machine": spec.machine.model_dump()}),
        "space": walk(SPACES[spec.space.name], given, spec.restrictions) | {"name": [spec.space.name]},
        "fixed": dict(spec.space.fix),
        "excluded": {name: sorted(map(str, values)) for name, values in spec.restrictions.exclude.items()},
        "data": facts["data"],
        "family": spec.network.family,
        "stem_stride": spec.network.stem_stride,
        "metric": spec.metric,
        "test_time_flip": spec.test_time_flip,
        "seed": spec.search.seed,
        "device": facts["device"],
        "workers": facts["workers"],
        "timing_version": facts["timing_version"],
    }


def given_by_facts(
    spec: StudySpec,
    usable: tuple[str, ...],
    data: Mapping[str, Any],
    base: Mapping[str, Any] | None = None,
    start: Mapping[str, Any] | None = None,
) -> Given:
    """What a space is given, by the facts about the data, the network to make smaller, and the one to start from."""
    sizes = [n for _, n, _ in data.get("classes", ())]  # which earlier versions did not tell
    unevenness = max(sizes) / min(sizes) if sizes else 1.0
    trained = Pipeline.from_json(base["pipeline"]) if base is not None else None
    begun = Origin.from_json(start) if start is not None else None
    known = {"size": data["size"], "n_train": data["n_train"], "unevenness": unevenness, "base": trained}
    return spec.given(usable, data["flip"], **known, start=begun)


def _unlike(name: str, told: Sequence[str]) -> UsageError:
    return UsageError(
        f"study {name!r} does not match what was asked: {'; '.join(told)}: "
        f"start a new study with {command('run')} --as NAME, or restore what it was"
    )
