"""Reads the suite's YAML files so that a value means what it looks like.

PyYAML reads YAML 1.1: there `no` is false, `1e-3` a text, `010` eight, `1:30` ninety, a date no
text, and of two equal keys the last one counts. Here plain values follow the core schema of YAML
1.2, and what leaves a doubt is refused with its line.
"""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import JsonValue

from faithdiff.errors import ConfigError, UserError
from faithdiff.study.files import read_text, unreadable
from faithdiff.study.plain import Json

Location = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """Plain values as in YAML 1.2; equal keys and missing values are errors."""

    # Not inherited: these would be the rules of YAML 1.1.
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - as PyYAML declares it

    def construct_mapping(
        self, node: yaml.MappingNode, deep: bool = False
    ) -> dict[Hashable, JsonValue]:
        lines: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # refused by PyYAML itself
            name = (key.tag, key.value)
            if name in lines:
                raise _problem(
                    key, f"the key {key.value!r} is already in line {lines[name]}; remove one"
                )
            lines[name] = key.start_mark.line + 1
            if isinstance(value, yaml.ScalarNode) and not value.value and value.style is None:
                raise _problem(
                    key,
                    f"the key {key.value!r} has no value; give it one, or remove the line "
                    "(null, written out, removes what a file inherits)",
                )
        return super().construct_mapping(node, deep)

    def whole_number(self, node: yaml.ScalarNode) -> int:
        text = self.construct_scalar(node)
        try:
            return int(text, 0)
        except ValueError:
            raise _problem(
                node,
                f"{text} is octal to some readers and decimal to others; remove the leading zero, "
                "or put it into quotes if it is a text",
            ) from None


def _problem(node: yaml.Node, message: str) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, message, node.start_mark)


# The core schema; the first that fits counts, so whole numbers come before floats.
_PLAIN = {
    f"tag:yaml.org,2002:{tag}": re.compile(f"^(?:{pattern})$")
    for tag, pattern in {
        "null": "~|null|Null|NULL|",
        "bool": "true|True|TRUE|false|False|FALSE",
        "int": "[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+",
        "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "merge": "<<",
    }.items()
}
for _tag, _pattern in _PLAIN.items():
    _Loader.add_implicit_resolver(_tag, _pattern, None)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.whole_number)


def read_yaml(text: str, where: str) -> JsonValue:
    """Read YAML; equal keys, missing values and numbers with a leading zero are refused.

    Args:
        where: Opens the message: a file.

    Raises:
        ConfigError: Says what is wrong, with line and column.
    """
    try:
        content = copy.deepcopy(_parsed(text))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        kind = "" if isinstance(error, yaml.constructor.ConstructorError) else "is not valid YAML: "
        raise ConfigError(f"{where}: {kind}{_first_problem(error)}") from None
    return content


@functools.lru_cache(maxsize=64)
def _parsed(text: str) -> JsonValue:
    # A plan reads the same few files some thirty times.
    content: JsonValue = yaml.load(text, _Loader)
    return content


def plain_value(text: str, where: str) -> JsonValue:
    """What a text would be if it stood in a YAML file without quotes; an empty one stays a text.

    Raises:
        ConfigError: It is a number with a leading zero.
    """
    loader = _Loader("")
    tag = loader.resolve(yaml.ScalarNode, text, (True, False))
    try:
        return loader.construct_object(yaml.ScalarNode(tag, text)) if text else text
    except yaml.constructor.ConstructorError as error:
        raise ConfigError(f"{where}: {error.problem}") from None


class _Dumper(yaml.SafeDumper):
    """Writes for readers of YAML 1.1 and 1.2: what either takes for a number is quoted."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """Escape line breaks beyond ASCII: unescaped, a reader folds them into a space."""
        style = '"' if any(mark in data for mark in "\x85\u2028\u2029") else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style)


_Dumper.add_representer(str, _Dumper.represent_str)

for _tag, _pattern in _PLAIN.items():
    _Dumper.add_implicit_resolver(_tag, _pattern, None)


def dump_yaml(data: Json) -> str:
    """Write plain data as YAML, its keys in their own order."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _first_problem(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{error.problem}, line {mark.line + 1}, column {mark.column + 1}"
    return str(error)


@dataclass(frozen=True)
class Layer:
    """The content of one file, or of a command line, in a chain of those that extend others."""

    file: Path
    data: Any  # unchecked, as its author wrote it

    def holds(self, path: Location) -> bool:
        """Whether this layer itself says something about a path."""
        data = self.data
        for part in path:
            try:
                data = data[part]
            except (KeyError, IndexError, TypeError):
                return False
        return True


@dataclass(frozen=True)
class Layers:
    """A file and those that it extends, nearest first."""

    layers: tuple[Layer, ...]

    @classmethod
    def read(cls, file: Path) -> Layers:
        """Read a file and, by its key ``extends``, those that fill in what it leaves out.

        Raises:
            ConfigError: A file is missing or not valid, or they extend one another in a circle.
        """
        return cls(tuple(_read(file, ())))

    def below(self, nearer: Layer) -> Layers:
        """The same with a further layer, which counts before all others."""
        return Layers((nearer, *self.layers))

    @property
    def files(self) -> list[Path]:
        """The files, nearest first."""
        return [layer.file for layer in self.layers]

    def merged(self) -> JsonValue:
        """One content of all: null removes an inherited key, and stays where there is none."""
        data: JsonValue = functools.reduce(merge, (layer.data for layer in reversed(self.layers)))
        for number, layer in enumerate(self.layers[:-1]):
            for path in _nulls(layer.data):
                if not any(lower.holds(path) for lower in self.layers[number + 1 :]):
                    _put_null(data, path)
            for path in _empty_groups(layer.data):
                if isinstance(kept := _at(data, path), dict) and kept:
                    raise ConfigError(
                        f"{layer.file}: {'.'.join(map(str, path))}: {{}} changes nothing, as the "
                        f"keys that the file inherits stay; remove it, or give null to a key that "
                        f"is to go ({', '.join(map(str, kept))})"
                    )
        return data

    def origin(self, path: Location) -> Path:
        """Where a value comes from; what no layer has is missing in the nearest."""
        found = (layer.file for layer in self.layers if layer.holds(path))
        return next(found, self.layers[0].file)


def _read(file: Path, above: tuple[Path, ...]) -> Iterator[Layer]:
    if file.resolve() in [other.resolve() for other in above]:
        raise ConfigError(" extends ".join(str(other) for other in (*above, file)) + ": a circle")
    named = f"{file} (extended by {above[-1]})" if above else str(file)
    try:
        text = read_text(file)
    except OSError as error:
        # A profile by its name, as `snakemake --config profile=` takes it.
        meant = Path("config", f"{file.stem}.yaml")
        known = meant.is_file() and not above and file != meant
        advice = f"did you mean {meant}?" if known else ""
        raise ConfigError(unreadable(Path(named), error, advice)) from None
    except UserError as error:  # its encoding
        raise ConfigError(str(error)) from None
    data = read_yaml(text, named)
    if data is None:
        raise ConfigError(f"{named}: is empty; a profile names another with `extends: mini.yaml`")
    if not (isinstance(data, dict) and "extends" in data):
        yield Layer(file, data)
        return
    named_base = data.pop("extends")
    if not isinstance(named_base, str):
        raise ConfigError(
            f"{named}: extends: must name one file beside this one, not {named_base!r}"
        )
    base = file.parent / named_base
    if not base.is_file():
        # Written from the root of the suite, or without its ending.
        for other in (f"{base.name}.yaml", base.name):
            if other != named_base and base.name and (file.parent / other).is_file():
                raise ConfigError(f"{named}: extends: did you mean {other}? (beside this file)")
    yield Layer(file, data)
    yield from _read(base, (*above, file))


def merge(base: Any, over: Any, keep_nulls: bool = False) -> Any:
    """Lay one content over another; a dataset of another source is replaced, not mixed.

    Args:
        keep_nulls: What null removes may be in a third content, over which this one is laid next.
    """
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    if over.get("source") in ("scenes", "photos", "folder", "mixture"):
        return over
    laid = {key: merge(base.get(key), value, keep_nulls) for key, value in over.items()}
    merged = {**base, **laid}
    return {key: value for key, value in merged.items() if keep_nulls or value is not None}


def _nulls(data: JsonValue, path: Location = ()) -> Iterator[Location]:
    if data is None and path:
        yield path
    elif isinstance(data, dict):
        for key, value in data.items():
            yield from _nulls(value, (*path, key))


def _empty_groups(data: JsonValue, path: Location = ()) -> Iterator[Location]:
    if isinstance(data, dict) and path and not data:
        yield path
    elif isinstance(data, dict):
        for key, value in data.items():
            yield from _empty_groups(value, (*path, key))


def _at(data: JsonValue, path: Location) -> JsonValue:
    for part in path:
        data = data.get(part) if isinstance(data, dict) and isinstance(part, str) else None
    return data


def _put_null(data: JsonValue, path: Location) -> None:
    *parents, last = path
    for part in parents:
        below = data.get(part) if isinstance(data, dict) and isinstance(part, str) else None
        if not isinstance(below, dict):
            return
        data = below
    if isinstance(data, dict) and isinstance(last, str):
        data.setdefault(last, None)


def misread(given: object, kept: object, path: Location = ()) -> Iterator[tuple[Location, str]]:
    """Where a schema made a number of a truth value or of a text, as pydantic would: true is 1."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for key in given:
            if key in kept:
                yield from misread(given[key], kept[key], (*path, key))
    elif isinstance(given, list | tuple) and isinstance(kept, list | tuple):
        for number, (one, other) in enumerate(zip(given, kept, strict=False)):
            yield from misread(one, other, (*path, number))
    elif isinstance(kept, int | float) and not isinstance(kept, bool):
        if isinstance(given, bool):
            yield path, f"must be a number, not {str(given).lower()}"
        elif isinstance(given, str):
            yield path, f"must be a number, not the text {given!r}; write it without quotes"


def check_own_name(file: Path, name: str) -> None:
    """Refuse a profile whose results would be written over those of another one.

    Args:
        file: The profile.
        name: Its key ``profile``, possibly inherited, by which all of its folders are called.

    Raises:
        ConfigError: The name is that of a file that it extends, or of ``config/<name>.yaml``.
    """
    others = Layers.read(file).files[1:]
    # config/<name>.yaml of another checkout has its name by right.
    if (file.absolute().parent.name, file.stem) != ("config", name):
        others = [*others, Path("config", f"{name}.yaml")]
    for other in others:
        if other.stem == name and other.is_file() and not other.samefile(file):
            raise ConfigError(
                f"{file}: profile: {name!r} is the name of {other}, whose checkpoints and results "
                f"it would write over; give it a name of its own, such as profile: {file.stem}"
            )
