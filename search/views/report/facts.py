"""What a report says of the study itself: its data, its device, and how to do it again."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version

from objectives import __version__
from objectives.words import counted
from search.host.called import command
from search.study import records
from search.study.snapshot import Snapshot
from search.views.training import starts

LIBRARIES = ("optuna", "numpy", "plotly")
MANY = 12  # classes, of which more are not listed by name


def data(now: Snapshot) -> list[tuple[str, str]]:
    """(name, text) of what the study trains on."""
    of = now.attributes[records.IDENTITY]["data"]
    about = now.attributes.get(records.ABOUT, {})
    place = now.spec.data.name
    rows = [("data", place)]
    rows += [("found", line) for line in about.get("lines", ())]
    if not about.get("lines"):
        rows += [
            ("images", f"{of['n_train']} to train, {of['n_val']} to validate, in {counted(of['n_classes'], 'class')}")
        ]
    rows += [("largest class", f"{of['largest_share']:.1%} of those that validate")]
    if now.spec.task.data.is_series:
        rows += [("trained at", f"length {of['size']}, in {counted(of['channels'], 'channel')}")]
    else:
        rows += [("trained at", f"{of['size']} pixels a side, in {'grey' if of['channels'] == 1 else 'colour'}")]
        said = "have the same label" if of["flip"] else "are not used: they may have another label"
        rows += [("mirror images", said)]
    if (start := now.attributes.get(records.START)) is not None:
        rows += [("start", starts.in_words(start))]
    if classes := of.get("classes"):
        listed = ", ".join(f"{name} {n}" for name, n, *_ in classes[:MANY])
        more = f" and {len(classes) - MANY} more" if len(classes) > MANY else ""
        rows += [("classes", f"{listed}{more}")]
    if about.get("n_skipped"):
        rows += [("left out", f"{counted(about['n_skipped'], 'file')} that cannot be used")]
    rows += [("warning", warning) for warning in about.get("warnings", ())]
    return [*rows, ("content", f"{of['content']}"), ("split", f"{of['split']}")]


def again(now: Snapshot) -> list[tuple[str, str]]:
    """(name, text) of what it takes to do the study again."""
    identity = now.attributes[records.IDENTITY]
    device = identity["device"]
    rows = [
        ("device", f"{device['model']}, {device['driver']}, {counted(device['threads'], 'thread')}"),
        ("workers", str(identity["workers"])),
        ("torch", str(device["torch"])),
        ("frontrunner", f"{__version__} (of this report), timing version {identity['timing_version']}"),
        *((name, found) for name in LIBRARIES if (found := _version(name))),
        ("seed", f"{now.spec.search.seed}: split, weights, order and sampler derive from it and from a trial's number"),
        ("number formats", ", ".join(name for name, why in now.attributes[records.FORMATS].items() if why is None)),
        ("floor", f"{now.floor:.2%}: what is less accurate counts for nothing"),
        ("database", now.database.shown),
        ("networks", str(now.artifacts)),
    ]
    return [(name, text) for name, text in rows if text]


def commands(now: Snapshot) -> list[tuple[str, str]]:
    """(what it does, command)."""
    option = now.database.option
    return [
        ("go on with it, or begin it elsewhere with its file", f"{command('run')} --study {now.name}{option}"),
        (
            f"{'train' if now.kind.trains else 'make'} its front with more fresh seeds, open the test split",
            f"{command('confirm')} --study {now.name}{option}",
        ),
        *(
            [
                (
                    "take a point apart, ingredient by ingredient",
                    f"{command('ablate')} --study {now.name} --trial N{option}",
                )
            ]
            if now.kind.is_timed
            else []
        ),
        ("make this page again", f"{command('report')} --study {now.name}{option}"),
    ]


def study_file(now: Snapshot) -> list[str]:
    """The lines of a study file that asks for this study: what is not said has its default."""
    plain = now.spec.model_dump(mode="json", exclude_defaults=True, exclude={"storage"})  # a URL may hold a password
    sections = {name: value for name, value in plain.items() if isinstance(value, dict)}
    lines = [f"{name} = {_toml(value)}" for name, value in plain.items() if name not in sections]
    for name, values in sections.items():
        lines += _section(name, values)
    return lines


def _section(name: str, values: dict[str, object]) -> list[str]:
    own = {key: value for key, value in values.items() if not isinstance(value, dict)}
    lines = [f"[{name}]", *(f"{_key(key)} = {_toml(value)}" for key, value in own.items())]
    for key, value in values.items():
        if isinstance(value, dict):  # an empty one may say that there is one: [reduce.base]
            lines += _section(f"{name}.{key}", value)
    return lines


def _key(name: str) -> str:
    """A key as TOML wants it: with a dot in quotes."""
    return name if name.replace("_", "").isalnum() and name.isascii() else json.dumps(name)


def _toml(value: object) -> str:
    """A value as TOML writes it, which for what studies hold is how JSON does."""
    return json.dumps(value, ensure_ascii=False)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
