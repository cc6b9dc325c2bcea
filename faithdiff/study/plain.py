"""Plain values: what JSON and YAML hold, and so what a file of ours is before its check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from pydantic import JsonValue

JsonObject = dict[str, JsonValue]

# What may be written as JSON. Unlike JsonValue it takes any mapping or sequence of plain values,
# such as a dict[str, int]: who writes only reads it. A field of a pydantic model takes JsonValue:
# pydantic cannot resolve a recursive alias from another module.
Json: TypeAlias = "Mapping[str, Json] | Sequence[Json] | str | int | float | bool | None"
