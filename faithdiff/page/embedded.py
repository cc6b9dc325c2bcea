"""What the scripts of the page read: each cell with what made it, and its per-image values."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TypedDict

import pandas as pd
from pydantic import JsonValue

from faithdiff.audit.explain import explain_cell
from faithdiff.audit.explain_costs import is_cost
from faithdiff.audit.results import Results, columns_of

DIGITS, FEWER = 6, 4  # of an embedded value
MOST = 400_000  # bytes of per-image values
Place = tuple[str, str, str]  # dataset, level, image


class EmbeddedValues(TypedDict):
    """Per-image values of the printed metrics: ``values[method|seed|metric|protocol]``.

    A list as long as `places`, null where there is no value; `statuses` says why there is no list.
    """

    places: list[list[str]]
    values: dict[str, list[float | None]]
    statuses: dict[str, str]


class Embedded(EmbeddedValues):
    """What the scripts of the page read; facts and commands are numbered, as cells share them."""

    profile: str
    cells: dict[str, dict[str, JsonValue]]
    metrics: dict[str, str]
    facts: list[list[str]]
    commands: list[str]


def embedded(results: Results, root: Path) -> Embedded:
    """What a click explains: each cell, the facts behind it, and its per-image values."""
    facts: dict[tuple[str, str], int] = {}
    commands: dict[str, int] = {}
    cells: dict[str, dict[str, JsonValue]] = {}
    printed: set[tuple[str, str]] = set()
    columns = columns_of([results], root)
    for name, table in results.tables.items():
        for key, cell in table.cells.items():
            found = explain_cell(results, name, cell, root)
            kept = {k: _json(v) for k, v in cell.plain().items() if v not in (None, [])}
            cells[f"{name}|{key}"] = {
                **kept,
                "facts": [facts.setdefault(fact, len(facts)) for fact in found.facts],
                "commands": [commands.setdefault(text, len(commands)) for text in found.commands],
            }
            printed.add(cell.column)
            if is_cost(table):  # its rows are not images
                cells[f"{name}|{key}"]["by_seed"] = [
                    [int(seed), _json(float(value))]
                    for seed, value in found.rows[["seed", "value"]].itertuples(index=False)
                ]
    return {
        "profile": results.profile,
        "cells": cells,
        "metrics": {f"{metric}|{protocol}": c.label for (metric, protocol), c in columns.items()},
        "facts": [list(fact) for fact in facts],
        "commands": list(commands),
        **_values(results, printed),
    }


def _json(value: JsonValue) -> JsonValue:
    """A value as JSON takes it, in as many digits as the page shows."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def _values(results: Results, printed: set[tuple[str, str]]) -> EmbeddedValues:
    """Per-image values of the printed metrics.

    Of a large study, whose values would make the page heavy, fewer digits; what is beyond `MOST`
    bytes then is left to `explain`.
    """
    scores = results.scores
    asked = [pair in printed for pair in zip(scores["metric"], scores["protocol"], strict=True)]
    own = scores[asked]
    places = own[["dataset", "level", "image"]].drop_duplicates().sort_values(
        ["dataset", "level", "image"]
    )  # fmt: skip
    index: dict[Place, int] = {
        place: i for i, place in enumerate(places.itertuples(index=False, name=None))
    }
    values: dict[str, list[float | None]] = {}
    statuses: dict[str, str] = {}
    digits = DIGITS if len(own) * (DIGITS + 2) <= MOST else FEWER
    left = MOST
    for (method, seed, metric, protocol), rows in own.groupby(
        ["method", "seed", "metric", "protocol"], sort=True
    ):
        key = f"{method}|{seed}|{metric}|{protocol}"
        if (rows["status"] != "ok").all():
            statuses[key] = str(rows["status"].iloc[0])
            continue
        line = _aligned(rows, index, digits)
        left -= sum(len(repr(value)) + 1 for value in line)
        if left < 0:
            statuses[key] = "ok, and too many for this page"
            continue
        values[key] = line
    return {"places": [list(place) for place in index], "values": values, "statuses": statuses}


def _aligned(rows: pd.DataFrame, index: dict[Place, int], digits: int) -> list[float | None]:
    line: list[float | None] = [None] * len(index)
    fields = rows[["dataset", "level", "image", "status", "value"]]
    for dataset, level, image, status, value in fields.itertuples(index=False, name=None):
        if status == "ok":
            line[index[dataset, level, image]] = float(f"{value:.{digits}g}")
    return line
