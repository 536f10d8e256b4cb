"""Where what a study was made of and what is asked for differ, in words."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from objectives.data import content
from objectives.words import some
from search.study import records
from spaces.restricted import described

MOST = 6  # parameters that are told one by one
# TIMING_VERSION of objectives.device.clock, and what changed with it. Seconds of two versions share no front.
TIMING = {
    2: "the last deployment of a run is charged",
    3: "seconds on a CPU are CPU time, no longer wall time; runs are charged for each table of images that they use",
}
SECTIONS = {"fixed": "[space.fix] ", "excluded": "[space.exclude] "}  # parts of an identity: where a study says them


def in_words(stored: Mapping[str, Any], now: Mapping[str, Any], images: content.Names | None = None) -> list[str]:
    """The differences between two identities, or between the facts of two workers; none where they are the same.

    `images`: their names, as far as they are known.
    """
    if (timing := _timing(stored.get("timing_version", 0), now.get("timing_version", 0))) is not None:
        return [timing]  # all else would hide it
    if (was := stored.get("kind")) != (is_now := now.get("kind")):
        return [f"kind was {_short(was)}, is {_short(is_now)}"]  # of which all else follows
    told: list[str] = []
    restricted = {name for key in SECTIONS for name in _changed(stored.get(key) or {}, now.get(key) or {})}
    for key in _changed(stored, now):
        was, is_now = stored.get(key), now.get(key)
        if key == "space" and was and is_now:
            told += _space(was, is_now, restricted)
        elif key == "data" and was and is_now:
            told += _data(was, is_now, images or {})
        elif key == "start":
            told.append(_start(was, is_now))
        else:
            told += _plain(was, is_now, SECTIONS.get(key, key))
    return told


def _changed(stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [key for key in sorted({*stored, *now}) if not records.same_json(stored.get(key), now.get(key))]


def _space(was: Mapping[str, Any], now: Mapping[str, Any], restricted: Collection[str]) -> Iterator[str]:
    """What may be chosen; not what only follows from a restriction that changed, or from another space."""
    if was.get("name") != now.get("name"):
        yield f"space was {', '.join(was.get('name', ['absent']))}, is {', '.join(now['name'])}"
        return
    changed = [name for name in _changed(was, now) if name not in restricted and name.split(".")[0] not in restricted]
    both = [name for name in changed if name in was and name in now]
    for name in both[:MOST]:
        yield f"{name} was {_distributions(was[name])}, is {_distributions(now[name])}"
    space = f"space {', '.join(now.get('name', ['absent']))}: "
    for what, names in (
        ("changed", both[MOST:]),
        ("added", [name for name in changed if name not in was]),
        ("removed", [name for name in changed if name not in now]),
    ):
        if names:
            more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
            yield f"{space}parameters {what}: {', '.join(names[:MOST])}{more}"
            space = ""


def _start(was: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> str:
    """What pipelines may begin from. A digest says nothing to a reader, but that it is another one."""
    if was and now:
        return f"the network to start from has other weights ({now['digest'][:12]}, not {was['digest'][:12]})"
    return f"it {'starts' if was else 'does not start'} from a trained network"


def _distributions(plain: list[str]) -> str:
    return " or ".join(dict.fromkeys(described(each) for each in plain))


def _timing(was: int, now: int) -> str | None:
    """How seconds were measured."""
    if was == now:
        return None
    changes = "; ".join(why for version, why in TIMING.items() if was < version <= now)
    return (
        f"it was timed in another way (timing version {was}, this is {now}"
        f"{': since then ' if changes else ''}{changes}), and seconds of two ways share no front"
    )


def _data(was: Mapping[str, Any], now: Mapping[str, Any], images: content.Names) -> Iterator[str]:
    """What is learned: by image where that is known. A digest says nothing to a reader; the split follows from it."""
    words, explained = content.differences(was, now, images)
    if words:
        yield some(words, 5)
    told = [key for key in _changed(was, now) if key not in explained]
    if "content" in told:
        yield "data: images or their labels changed"
    elif "split" in told:
        yield "data: the same images, but others of them are for validation"
    if "streamed" in told:
        was_streamed = ("streamed as they were used", "held in memory")
        before, since = was_streamed if was.get("streamed") else reversed(was_streamed)
        yield f"images were {before}, and are now {since}, which takes other seconds: by the memory that is free"
    for key in told:
        if key not in ("content", "split", "streamed"):
            yield from _plain(was.get(key), now.get(key), f"data.{key}")


def _plain(was: Any, now: Any, where: str) -> Iterator[str]:
    """Of two JSON values."""
    if isinstance(was, dict) and isinstance(now, dict):
        for key in _changed(was, now):
            yield from _plain(was.get(key), now.get(key), f"{where}{key}" if where[-1:] == " " else f"{where}.{key}")
    else:
        yield f"{where} was {_short(was)}, is {_short(now)}"


def _short(value: Any) -> str:
    text = "absent" if value is None else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
