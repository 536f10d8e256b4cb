"""A study is created whole, resumed as what it is, and never confused with another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna

from objectives.pipeline import Pipeline
from search.database.storage import Database
from search.errors import StorageError, UsageError
from search.study import records
from search.study.spec import StudySpec
from search.study.study import Study, experimental
from spaces import SPACES
from spaces.base import Given, obstacle
from spaces.restricted import check, suggestion, walk

MIN_FLOOR = 0.2  # accuracy


def find(name: str, database: Database) -> optuna.Study | None:
    """The study of that name in the database, or None. One whose creation was interrupted is removed."""
    try:
        found = optuna.load_study(study_name=name, storage=database.optuna)
    except KeyError:
        return None
    if records.IDENTITY in found.user_attrs:
        return found
    ours = [direction.name for direction in found.directions] == ["MINIMIZE", "MAXIMIZE"]
    if not ours or found.get_trials(deepcopy=False):
        raise StorageError(f"study {name!r} in this storage was not made by frontrunner: choose another name with --as")
    optuna.delete_study(study_name=name, storage=database.optuna)
    return None


def opened(name: str, spec: StudySpec, found: optuna.Study, database: Database) -> Study:
    """A stored study, without a look at device and data: to read it.

    Raises:
        UsageError: the spec asks for another one: the difference and the way out.
    """
    stored = found.user_attrs[records.IDENTITY]
    usable = tuple(n for n, reason in found.user_attrs[records.FORMATS].items() if reason is None)
    given = _given(spec, usable, stored["data"])
    asked = {"name": spec.data.name, "n_train": spec.data.n_train or stored["data"]["n_train"]}
    _check_same(name, stored, identity(spec, given, stored | {"data": stored["data"] | asked}))
    return Study(name, spec, found, database, given, found.user_attrs[records.FLOOR])


def stored(name: str, database: Database) -> Study:
    """The study of that name as it is in the database, whatever its file says now: to read it, to mend it.

    Raises:
        UsageError: there is none, or it is not ours.
    """
    try:
        found = optuna.load_study(study_name=name, storage=database.optuna)
    except KeyError as error:
        known = [summary.study_name for summary in optuna.get_all_study_summaries(database.optuna)]
        hint = suggestion(name, known) if known else ""
        raise UsageError(f"there is no study {name!r} in {database.shown}{hint}") from error
    if records.IDENTITY not in found.user_attrs:
        raise UsageError(f"study {name!r} is not one of ours, or was never finished: choose another")
    spec = StudySpec.model_validate(found.user_attrs["spec"])
    return opened(name, spec, found, database)


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
    _check_same(name, found.user_attrs[records.IDENTITY], identity(spec, study.given, {**facts, "workers": workers}))
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
        if differences := _differences(facts, other):
            raise UsageError(
                f"study {name!r} cannot use devices that differ: {'; '.join(differences)}: name equal ones, "
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
) -> Study:
    """A new study in the database, for so many workers on a host, or records.CLUSTER.

    Raises:
        StorageError: another process has just created it.
        UsageError: its restrictions cannot be followed on this device or with these data.
    """
    usable = tuple(format_name for format_name, reason in number_formats.items() if reason is None)
    given = _given(spec, usable, facts["data"])
    try:
        check(SPACES[spec.space.name], given, spec.restrictions)
        if (reason := obstacle(Pipeline(batch_size=given.batch_size[0]), given)) is not None:
            raise ValueError(f"[space] batch_size = {list(spec.space.batch_size)}: {reason}")
    except ValueError as error:
        raise UsageError(f"study {name!r} on this device and data: {error}") from error
    floor = spec.search.floor
    if floor is None:
        floor = max(MIN_FLOOR, 2 / facts["data"]["n_classes"])
    try:
        study = optuna.create_study(study_name=name, storage=database.optuna, directions=["minimize", "maximize"])
    except optuna.exceptions.DuplicatedStudyError as error:
        raise StorageError(f"study {name!r} has just been created by another process: run the command again") from error
    with experimental():
        study.set_metric_names(list(records.METRICS))
    study.set_user_attr(records.FORMATS, dict(number_formats))
    study.set_user_attr(records.FLOOR, floor)
    study.set_user_attr(records.CALIBRATION, dict(calibration or {}))
    study.set_user_attr("spec", spec.model_dump(mode="json"))
    study.set_user_attr(
        records.IDENTITY, identity(spec, given, {**facts, "workers": workers})
    )  # last: a study without it was never finished
    return Study(name, spec, study, database, given, floor)


def identity(spec: StudySpec, given: Given, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What must not change within a study: seconds of two devices, accuracies of two data sets, share no front."""
    return {
        "kind": spec.kind,
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


def _given(spec: StudySpec, usable: tuple[str, ...], data: Mapping[str, Any]) -> Given:
    return spec.given(usable, data["flip"], size=data["size"], n_train=data["n_train"])


def _check_same(name: str, stored: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    if differences := _differences(stored, now):
        raise UsageError(
            f"study {name!r} does not match what was asked: {'; '.join(differences)}: "
            f"start a new study with --as NAME, or restore what it was"
        )


def _differences(stored: Any, now: Any, where: str = "") -> list[str]:
    """Where two JSON values differ, in words."""
    if isinstance(stored, dict) and isinstance(now, dict):
        found = []
        for key in sorted({*stored, *now}):
            found += _differences(stored.get(key), now.get(key), f"{where}.{key}" if where else str(key))
        return found
    if records.same_json(stored, now):
        return []
    return [f"{where} was {_short(stored)}, is {_short(now)}"]


def _short(value: Any) -> str:
    text = "absent" if value is None else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
