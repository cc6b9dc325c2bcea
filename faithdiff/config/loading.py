"""Reads YAML into sections, and says in words what is wrong with it and where."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Callable
from pathlib import Path
from typing import Required, TypedDict, TypeVar, cast

from pydantic import BaseModel, ValidationError

from faithdiff.config.checks import problems
from faithdiff.config.profile import Profile
from faithdiff.config.yaml_file import Layer, Layers, Location, misread
from faithdiff.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)


class _Problem(TypedDict, total=False):
    """One of pydantic's errors, as its ``errors()`` describes it."""

    type: Required[str]
    loc: Required[Location]
    msg: Required[str]
    input: Required[object]
    ctx: dict[str, str]


class _Tags(TypedDict):
    """How a union is told apart: by which key, and which schema each of its values means."""

    mapping: dict[str, str]


# The part of JSON schema that pydantic writes and we read.
_Schema = TypedDict(
    "_Schema",
    {
        "$ref": str,
        "$defs": "dict[str, _Schema]",
        "type": str,
        "properties": "dict[str, _Schema]",
        "patternProperties": "dict[str, _Schema]",
        "additionalProperties": "_Schema | bool",
        "items": "_Schema",
        "anyOf": "list[_Schema]",
        "oneOf": "list[_Schema]",
        "discriminator": _Tags,
    },
    total=False,
)


def load_profile(file: Path, *over: Layer) -> Profile:
    """Read a profile, and check it as a whole.

    Args:
        over: Settings that count before those of the file, the nearest first.

    Raises:
        ConfigError: The file is missing, is not YAML, does not fit the schema, or says something
            that cannot be meant; each line names the file that a value comes from.
    """
    layers = Layers.read(file)
    for layer in reversed(over):
        layers = layers.below(layer)
    profile = _check(layers.merged(), Profile, lambda path: str(layers.origin(path)))
    if found := [f"{layers.origin(path)}: {_dotted(path)}: {m}" for path, m in problems(profile)]:
        raise ConfigError("\n".join(found))
    return profile


def load_yaml(file: Path, model: type[Model]) -> Model:
    """Read a YAML file into a model; ``extends: other.yaml`` fills in what the file leaves out.

    Raises:
        ConfigError: Names the file, the path of the field, the value and what is allowed.
    """
    layers = Layers.read(file)
    return _check(layers.merged(), model, lambda path: str(layers.origin(path)))


def parse(data: object, model: type[Model], where: str) -> Model:
    """Check plain data against a model; `where` opens each message (a file, or file and path)."""
    return _check(data, model, lambda _: where)


def _check(data: object, model: type[Model], where: Callable[[Location], str]) -> Model:
    try:
        checked = model.model_validate(data)
    except ValidationError as error:
        schema = cast(_Schema, model.model_json_schema())
        lines = []
        for item in cast(list[_Problem], error.errors()):
            path, message = _explain(item, schema)
            place = f"{_dotted(path)}: " if path else ""
            lines.append(f"{where(path)}: {place}{message}")
        raise ConfigError("\n".join(lines)) from None
    odd = [f"{where(p)}: {_dotted(p)}: {m}" for p, m in misread(data, checked.model_dump())]
    if odd:
        raise ConfigError("\n".join(odd))
    return checked


def _explain(item: _Problem, schema: _Schema) -> tuple[Location, str]:
    """Where an error lies, and what is wrong there in words."""
    path, allowed = _walk(schema, item["loc"])
    kind, context, found = item["type"], item.get("ctx", {}), reprlib.repr(item["input"])
    if path and item["input"] is None and kind != "missing":
        return path, "null removes what a file inherits, and there is no such key to remove"
    if kind == "list_type" and isinstance(item["input"], int | float):
        return path, f"must be a list, such as [{item['input']}], not {found}"
    if kind == "extra_forbidden":
        close = difflib.get_close_matches(str(path[-1]), allowed, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        return path, f"unknown key{hint} (allowed: {', '.join(allowed) or 'none'})"
    if kind == "literal_error":
        return path, f"{found} is not one of {context['expected'].replace(' or ', ', ')}"
    if kind == "union_tag_invalid":
        tag = context["discriminator"].strip("'")
        return (*path, tag), f"{context['tag']!r} is not one of {context['expected_tags']}"
    if kind == "union_tag_not_found":
        return (*path, context["discriminator"].strip("'")), "is missing"
    if kind == "missing":
        return path, "is missing"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return path, f"must be a group of keys, not {found}"
    message = re.sub(r"^\w+ should ", "must ", item["msg"]).removeprefix("Value error, ")
    message = message.partition(", unable to parse")[0]
    if kind == "too_short":
        return path, f"must have at least {context['min_length']} entry, and has none"
    if kind == "value_error" or ", not " in message:
        return path, message
    return path, f"{message}, not {found}"


def _dotted(location: Location) -> str:
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).lstrip(".")


def _walk(schema: _Schema, location: Location) -> tuple[Location, list[str]]:
    """Follow a location through the JSON schema.

    Returns:
        The location as a reader of the file knows it (pydantic adds the tag of a dataset's
        `source`, and ``[key]`` for a key), and the keys allowed beside its last part.
    """
    path: list[str | int] = []
    node, allowed = _deref(schema, schema), list[str]()
    for part in location:
        if part == "[key]":
            break
        if "discriminator" in node:
            node = _deref(schema, {"$ref": node["discriminator"]["mapping"].get(str(part), "")})
            continue
        if {"$ref": f"#/$defs/{part}"} in node.get("oneOf", []):
            node = schema["$defs"][str(part)]
            continue
        if "oneOf" in node and "properties" not in node:  # a number or `auto`: the tag of it
            continue
        path.append(part)
        allowed = list(node.get("properties", {}))
        node = _deref(schema, _step(node, part))
    return tuple(path), allowed


def _step(node: _Schema, part: str | int) -> _Schema | bool:
    if isinstance(part, int):
        return node.get("items", {})
    if part in node.get("properties", {}):
        return node["properties"][part]
    # dict[Name, X]: a key with a pattern gives patternProperties, dict[str, X] gives the other
    patterns = list(node.get("patternProperties", {}).values())
    return patterns[0] if patterns else node.get("additionalProperties", False)


def _deref(schema: _Schema, node: _Schema | bool) -> _Schema:
    if isinstance(node, bool):  # whether more keys are allowed
        return {}
    while "$ref" in node:
        node = schema["$defs"].get(node["$ref"].rsplit("/", 1)[-1], {})
    options = [option for option in node.get("anyOf", []) if option.get("type") != "null"]
    return _deref(schema, options[0]) if options else node
