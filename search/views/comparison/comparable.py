"""Whether the fronts of two studies can be compared: what they were measured by must be the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from objectives.words import some
from search.study import records
from search.study.snapshot import Snapshot


def obstacles(a: Snapshot, b: Snapshot) -> list[str]:
    """Why accuracies or costs of the one say nothing of the other, a phrase each; none where they do."""
    one, two = (each.attributes[records.IDENTITY] for each in (a, b))
    return [*_data(one["data"], two["data"]), *_costs(one, two), *_measures(a, b, one, two)]


def remarks(a: Snapshot, b: Snapshot) -> list[str]:
    """What differs and leaves them comparable, but should be known."""
    one, two = (each.attributes[records.IDENTITY] for each in (a, b))
    told = []
    if one.get("workers") != two.get("workers"):
        told.append(f"workers that share the machine, which changes seconds a little: {_two(one, two, 'workers')}")
    if one.get("family") != two.get("family"):
        told.append(f"family of the networks: {_two(one, two, 'family')}")
    names = [" ".join(each.get("space", {}).get("name", [])) for each in (one, two)]
    if names[0] != names[1]:
        told.append(f"spaces: {names[0]} and {names[1]}")
    return told


def _data(one: Mapping[str, Any], two: Mapping[str, Any]) -> Iterator[str]:
    """Other images, or others of them to validate with."""
    if one["content"] != two["content"]:
        if one["name"] != two["name"]:
            yield f"other data ({_two(one, two, 'name')})"
        elif one["size"] != two["size"] or one["channels"] != two["channels"]:
            sizes = [f"{each['size']} pixels in {'grey' if each['channels'] == 1 else 'colour'}" for each in (one, two)]
            yield f"other images ({sizes[0]} and {sizes[1]})"
        else:
            yield "other images or labels"
    elif one["split"] != two["split"]:
        n = [f"{each['n_val']} beside {each['n_train']} to train" for each in (one, two)]
        yield f"other validation images ({n[0]} and {n[1]})" if n[0] != n[1] else "another split into validation images"


def _costs(one: Mapping[str, Any], two: Mapping[str, Any]) -> Iterator[str]:
    """Seconds that were measured in another way, or elsewhere, or modelled of other machines."""
    if one["kind"] == "modelled" and one.get("machine") != two.get("machine"):
        yield "another machine that is modelled"
    if one["kind"] != "pareto":
        return
    if one["timing_version"] != two["timing_version"]:
        yield f"seconds measured in another way (timing version {_two(one, two, 'timing_version')})"
    devices = one["device"], two["device"]
    changed = [key for key in sorted({*devices[0], *devices[1]}) if devices[0].get(key) != devices[1].get(key)]
    if changed:
        told = [f"{'' if key == 'model' else f'{key} '}{_two(*devices, key)}" for key in changed]
        yield f"another device ({some(told, 2)})"


def _measures(a: Snapshot, b: Snapshot, one: Mapping[str, Any], two: Mapping[str, Any]) -> Iterator[str]:
    """Accuracies of another kind, or of networks that were made of another one."""
    if a.spec.metric != b.spec.metric:
        yield f"another accuracy ({a.spec.metric} and {b.spec.metric})"
    if a.spec.test_time_flip != b.spec.test_time_flip:
        yield "mirror images taken together in one of them only"
    if (one.get("base") or {}).get("weights") != (two.get("base") or {}).get("weights"):
        yield "another network that is made smaller"


def _two(one: Mapping[str, Any], two: Mapping[str, Any], key: str) -> str:
    return f"{one.get(key)} and {two.get(key)}"
