"""What a study file may not say, in the words of TOML, which knows no tuples, dictionaries or instances."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from spaces.restricted import names, suggestion, unknown

WRONG = {  # a pydantic error -> what the value must be instead; what is in braces stands in the error's context
    "string_type": "it must be text in quotes",
    "int_type": "it must be a whole number",
    "int_from_float": "it must be a whole number",
    "float_type": "it must be a number",
    "bool_type": "it must be true or false",
    "dict_type": "it must be a section with a key for each parameter",
    "model_type": "it must be a section, with its keys in lines below [{where}]",
    "tuple_type": "it must be a list in brackets",
    "too_short": "there must be at least {min_length}",
    "string_too_short": "it must not be empty",
    "string_too_long": "it must have at most {max_length} characters",
    "literal_error": "it must be {expected}",
    "greater_than": "it must be more than {gt}",
    "greater_than_equal": "it must be at least {ge}",
    "less_than": "it must be less than {lt}",
    "less_than_equal": "it must be at most {le}",
}
RANGES = {  # by section
    "space": {"epochs": "whole numbers", "batch_size": "powers of two", "depth": "whole numbers", "width": "numbers"},
    "reduce": {"epsilon": "numbers", "epochs": "whole numbers", "iterations": "whole numbers"},
}
NOT_A_PAIR = ("tuple_type", "too_long", "missing", "int_type", "int_from_float", "float_type")
QUOTES = "a name with a dot stands in quotes"


def in_words(error: ValidationError, model: type[BaseModel]) -> str:
    """Every mistake in one line: where, what stands there, the rule, the name that was probably meant."""
    told = [each for each in error.errors() if each["type"] != "too_short" or not each["input"]]  # the rest were wrong
    return "; ".join(dict.fromkeys(_in_words(each, model) for each in told))


def of_toml(error: Exception) -> str:
    """What the reader of TOML says, with the mistake that is behind it most often."""
    said = str(error)
    if said.startswith("Invalid value"):
        return f"{said}: text stands in quotes, true and false are written small"
    if said.startswith("Exceeds the limit"):  # Python's, for the digits of an integer
        return "a number of thousands of digits: no number of a study is that large"
    if found := re.match(r"Cannot declare \((.*?),?\) twice(.*)", said):
        section = ".".join(part.strip(" '") for part in found[1].split(","))
        return f"the section [{section}] stands there twice{found[2]}: each stands there once"
    if said.startswith(("Cannot overwrite", "Cannot mutate")):
        return f"{said}: each key stands there once; {QUOTES}"
    return said


def _in_words(error: Mapping[str, Any], model: type[BaseModel]) -> str:
    kind, value, loc = error["type"], error["input"], error["loc"]
    where = ".".join(str(part) for part in loc if not isinstance(part, int))
    if loc[:1] == ("space",) and loc[1:2] in (("fix",), ("exclude",)) and len(loc) > 2:
        return _restriction(loc[1], loc[2], value)
    ranges = RANGES.get(loc[0], {}) if loc else {}
    if len(loc) > 1 and loc[1] in ranges and kind in NOT_A_PAIR:
        return f"{where}: it must be a range, {loc[1]} = [least, most], two {ranges[loc[1]]}"
    if kind == "extra_forbidden":
        return f"{where}: unknown key{_meant(where, model)}"
    if kind == "missing":
        return f"{where} is missing" if len(loc) > 1 else f"[{where}] is missing"
    if kind in WRONG:
        limits = {
            name: f"{limit:.12g}" if isinstance(limit, float) else limit for name, limit in error.get("ctx", {}).items()
        }
        rule = WRONG[kind].format(where=where, **limits)
        return f"{where} = {_shown(value)}: {rule}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message


def _meant(where: str, model: type[BaseModel]) -> str:
    """Where a key belongs that stands in another place; else what it may be called."""
    place, _, key = where.rpartition(".")
    sections = dict(_sections(model))
    if key in sections:
        return f"; [{key}] is a section of its own"
    if key in model.model_fields:
        return f"; {key} stands at the top, before the first section"
    within = [name for name in sections if name.startswith(f"{place}.")]
    for name in (*within, *(name for name in sections if "." not in name)):
        if key in sections[name].model_fields:
            return f"; it is a key of [{name}]"
    if key in names():
        return f"; it is a parameter of spaces: [space.fix] {key} = ... fixes it"
    return suggestion(key, sections.get(place, model).model_fields)


def _sections(model: type[BaseModel], above: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """(name as it stands in brackets, what it is made of) of the sections of a model, and of those within them."""
    for name, field in model.model_fields.items():
        annotation: Any = field.annotation
        section = next(iter(get_args(annotation)), annotation)  # of one that may be absent: the first
        if isinstance(section, type) and issubclass(section, BaseModel):
            yield above + name, section
            yield from _sections(section, f"{above}{name}.")


def _restriction(section: str, name: str, value: object) -> str:
    """A parameter that is fixed to, or kept from, what no parameter can be."""
    if isinstance(value, dict):
        while isinstance(value, dict) and len(value) == 1:  # TOML reads a.b = 1 as a table in a table
            ((inner, value),) = value.items()
            name = f"{name}.{inner}"
        if name not in names():
            return f"[space.{section}] {name}: {unknown(name, sorted(names()))}; {QUOTES}"
        return f'[space.{section}] {name}: {QUOTES}: "{name}" = {_shown(value)}'
    several = " or a list of them" if section == "exclude" else ""
    return f"[space.{section}] {name}: it must be a number, text, true or false{several}"


def _shown(value: object) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):  # an integer of more digits than Python prints
        return "..."
    return text if len(text) <= 60 else text[:57] + "..."
