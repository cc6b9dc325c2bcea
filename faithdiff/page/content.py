"""What the page says: tables, claims, provenance for its HTML; cells, scores for its scripts."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from faithdiff.audit.explain import explain_cell
from faithdiff.audit.explain_costs import is_cost
from faithdiff.audit.results import Columns, Results, columns_of
from faithdiff.report.cells import HELD_OUT, Column, header
from faithdiff.report.measured import counted

MARKS = {"best": "best", "second": "second", "tie": "one of two leaders, not separated"}
DIGITS, FEWER = 6, 4  # of an embedded value
MOST = 400_000  # bytes of per-image values
ORDER = ("main", "real", "ablation", "cost")


def page_content(results: Results, root: Path) -> dict[str, Any]:
    """Everything that the page prints without a script."""
    columns = columns_of([results], root)
    manifest = results.manifest
    scores = results.scores
    counts, unmeasured = counted(scores, _metrics(results, columns))
    return {
        "profile": results.profile,
        "made": f"{manifest.get('commit') or 'not known'}"
        f"{', with uncommitted changes' if manifest.get('dirty') else ''}",
        "counts": {
            "methods": scores["method"].nunique(),
            "images": len(scores[["dataset", "image"]].drop_duplicates()),
            "metrics": counts,
            "unmeasured": unmeasured,
        },
        "stale": results.stale,
        "tables": [
            _table(results, name, columns, root) for name in _names(results.tables)
        ],
        "claims": _claims(results),
        "provenance": _provenance(manifest),
        "packages": sorted(manifest.get("packages", {}).items()),
    }  # fmt: skip


def _metrics(results: Results, columns: Columns) -> list[Column]:
    """The metrics that were asked for, under the protocol of the tables, in the profile's order."""
    pairs = results.scores[["metric", "protocol"]].drop_duplicates()
    found = [columns[p] for p in pairs.itertuples(index=False, name=None) if p in columns]
    config = results.manifest.get("config", {})
    printed = config.get("report", {}).get("protocol")
    order = [*config.get("score", {}).get("metrics", []), HELD_OUT.metric]
    # The held-out loss at single timesteps is for its figure, not one of the study's metrics.
    mine = [
        c
        for c in found
        if (c.protocol in (printed, HELD_OUT.protocol) or printed is None)
        and (c.metric in order or not config)
    ]
    return sorted(mine, key=lambda c: order.index(c.metric) if c.metric in order else len(order))


def _names(tables: Iterable[str]) -> list[str]:
    return sorted(tables, key=lambda name: (ORDER.index(name) if name in ORDER else 99, name))


def _table(results: Results, name: str, columns: Columns, root: Path) -> dict[str, Any]:
    """A table as rows of cells, each with the key that explains it."""
    cells: dict[str, dict[str, Any]] = results.tables[name].get("cells", {})
    groups = results.tables[name].get("groups", {})
    shown = list(dict.fromkeys((c["metric"], c["protocol"]) for c in cells.values()))
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for key, cell in [*cells.items(), *_published(results, name, root)]:
        place = (cell["block"], cell["label"])
        row = rows.setdefault(
            place,
            {
                "block": cell["block"],
                "label": cell["label"],
                "group": groups.get(cell.get("group", ""), ""),
                "updates": cell.get("updates"),
                "cells": [None] * len(shown),
            },
        )
        metric = (cell["metric"], cell["protocol"])
        if metric in shown:
            row["cells"][shown.index(metric)] = _shown(f"{name}|{key}", cell)
    # What a method trains is in the explanations of its cells.
    notes = [n for n in results.tables[name].get("notes", []) if not n.startswith("trained: ")]
    return {
        "name": name,
        "caption": results.tables[name].get("caption", ""),
        "unmeasured": results.tables[name].get("unmeasured", ""),
        "notes": notes,
        "budgets": any(row["updates"] is not None for row in rows.values()),
        "columns": [header(columns[metric]) for metric in shown],
        "blocks": list(dict.fromkeys(row["block"] for row in rows.values())),
        "rows": _by_block(list(rows.values())),
    }


def _by_block(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    blocks = list(dict.fromkeys(row["block"] for row in rows))
    return sorted(rows, key=lambda row: blocks.index(row["block"]))


def _shown(key: str, cell: dict[str, Any]) -> dict[str, Any]:
    published = cell["status"] == "published"
    return {
        "key": "" if published else key,
        "text": f"{cell['printed']}{'*' if cell.get('against_separated') else ''}",
        "mark": cell.get("mark", ""),
        "said": f"{cell['printed']}, {MARKS[cell['mark']]}" if cell.get("mark") else "",
        "value": cell["mean"],
        "difference": _difference(cell),
    }


def _difference(cell: dict[str, Any]) -> str:
    """Paired difference to the table's reference, as the ablation prints it."""
    if cell.get("difference") is None or cell.get("mark"):
        return ""
    star = "*" if cell["separated"] else ""
    mean = str(cell["printed"]).partition(" ")[0]  # without its spread over trainings
    decimals = len(mean.partition(".")[2])
    return f"{cell['difference']:+.{decimals}f}{star}".replace("-", "\N{MINUS SIGN}")


def _published(results: Results, name: str, root: Path) -> list[tuple[str, dict[str, Any]]]:
    """Rows of published numbers, which the sidecar leaves out, from the table's CSV."""
    content = results.revision.read(f"results/{results.profile}/tables/{name}.csv")
    if content is None:
        return []
    lines = csv.DictReader(content.decode("utf-8").splitlines())
    return [
        ("", {**line, "mean": float(line["mean"]), "mark": "", "difference": None})
        for line in lines
        if line["status"] == "published"
    ]


def _claims(results: Results) -> dict[str, Any]:
    content = results.revision.read(f"results/{results.profile}/claims.json")
    return json.loads(content) if content is not None else {"claims": [], "verdicts": {}}


def _provenance(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    """Facts of the manifest as names and values."""
    if not manifest:
        return [("manifest.json", "missing: finish the run with snakemake --cores all")]
    facts = [
        ("code", f"{manifest.get('commit')}{' (dirty)' if manifest.get('dirty') else ''}"),
        ("seeds", json.dumps(manifest.get("seeds", {}))),
        ("prior", json.dumps(manifest.get("prior", {}))),
    ]
    for machine in manifest.get("machines", []):
        hardware = machine.get("hardware") or {}
        facts.append(("machine", ", ".join(f"{k}: {v}" for k, v in hardware.items())))
    facts += [(f"cost: {key}", str(value)) for key, value in manifest.get("total", {}).items()]
    facts += [
        (f"data {name}", f"{each.get('images')} images, index.csv sha256 {each.get('index.csv')}")
        for name, each in manifest.get("data", {}).items()
    ]
    facts += [
        (f"weights {name}", f"sha256 {each.get('weights')}, trained at {each.get('commit')}")
        for name, each in manifest.get("checkpoints", {}).items()
    ]
    return facts + [(name, f"sha256 {sha}") for name, sha in manifest.get("results", {}).items()]


def embedded(results: Results, root: Path) -> dict[str, Any]:
    """What a click explains: each cell, the facts behind it, and its per-image values."""
    facts: dict[tuple[str, str], int] = {}
    commands: dict[str, int] = {}
    cells: dict[str, dict[str, Any]] = {}
    columns = columns_of([results], root)
    for name, table in results.tables.items():
        for key, cell in table.get("cells", {}).items():
            found = explain_cell(results, name, cell, root)
            cells[f"{name}|{key}"] = {
                **{field: _json(value) for field, value in cell.items() if value not in (None, [])},
                "facts": [facts.setdefault(fact, len(facts)) for fact in found.facts],
                "commands": [commands.setdefault(text, len(commands)) for text in found.commands],
            }
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
        **_values(results, {(c["metric"], c["protocol"]) for c in cells.values()}),
    }


def _json(value: Any) -> Any:
    """A value as JSON takes it, in as many digits as the page shows."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def _values(results: Results, printed: set[tuple[str, str]]) -> dict[str, Any]:
    """Per-image values of the printed metrics: ``values[method|seed|metric|protocol]``.

    A list as long as `places`; null where there is no value. Of a large study, whose values would
    make the page heavy, fewer digits; what is beyond `MOST` bytes then is left to `explain`.
    """
    scores = results.scores
    asked = [pair in printed for pair in zip(scores["metric"], scores["protocol"], strict=True)]
    own = scores[asked]
    places = own[["dataset", "level", "image"]].drop_duplicates().sort_values(
        ["dataset", "level", "image"]
    )  # fmt: skip
    index = {place: i for i, place in enumerate(places.itertuples(index=False, name=None))}
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


def _aligned(rows: pd.DataFrame, index: dict[Any, int], digits: int) -> list[float | None]:
    line: list[float | None] = [None] * len(index)
    for row in rows.itertuples(index=False):
        if row.status == "ok":
            place = (row.dataset, row.level, row.image)
            line[index[place]] = float(f"{row.value:.{digits}g}")
    return line
