"""A table as records: tidy CSV, and JSON whose cells name the rows behind them."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from typing import Any

from faithdiff.report.cells import HELD_OUT, Block, Cell, Column, Row, Table, cell_text


def to_csv(table: Table) -> str:
    """One line per cell, numbers in full precision."""
    out = io.StringIO()
    entries = [entry for _, entry in _entries(table)]
    # A table without columns has no entry, and its file the same head as any other's.
    empty = _entry(Block("", "", (), ()), Row("", "", ()), HELD_OUT, Cell("not run"))
    names = [name for name in empty if name not in ("images", "seeds", "reasons")]
    writer = csv.DictWriter(out, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for entry in entries:
        places = {name: ";".join(entry[name]) for name in ("datasets", "levels")}
        writer.writerow({**entry, **places})  # None is written as an empty field
    return out.getvalue()


def to_cells(table: Table) -> str:
    """JSON: ``cells`` maps ``<block>|<method>|<metric>`` to its statistics and to its rows.

    The rows behind a cell are those of ``scores.csv`` with the cell's method, metric, protocol,
    seeds, data sets and levels, for the images under ``images[<protocol>/<metric>]``.
    """
    cells = {key: entry for key, entry in _entries(table) if entry["status"] != "published"}
    head = {
        "table": table.name,
        "profile": table.profile,
        "scores": f"results/{table.profile}/{table.source}",
        "caption": table.caption,
        "unmeasured": table.unmeasured,
        "notes": list(table.footnotes),
        "groups": _titles(table),
    }
    parts = [f"{_json(name)}: {_json(value)}" for name, value in head.items()]
    parts += [
        f"{_json(name)}: {_lines(part)}"
        for name, part in (("images", table.images), ("cells", cells))
    ]
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _titles(table: Table) -> dict[str, str]:
    """What stands above the rows of each group; empty where the table has one group alone."""
    return {
        rows[0].group: title
        for block in table.blocks
        for title, rows in table.titled(block)
        if title
    }


def _lines(entries: dict[str, Any]) -> str:
    """One line per entry: a changed cell is one changed line."""
    return "{\n" + ",\n".join(f"  {_json(k)}: {_json(v)}" for k, v in entries.items()) + "\n}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _entries(table: Table) -> Iterator[tuple[str, dict[str, Any]]]:
    for block in table.blocks:
        for row in block.rows:
            for cell, column in zip(row.cells, table.columns, strict=True):
                key = "|".join((block.name, row.method or row.label, column.metric))
                yield key, _entry(block, row, column, cell)


def _entry(block: Block, row: Row, column: Column, cell: Cell) -> dict[str, Any]:
    compared, against = cell.comparison, cell.against
    return {
        "block": block.name,
        "datasets": list(block.datasets),
        "levels": list(block.levels),
        "method": row.method,
        "label": row.label,
        "group": row.group,
        "updates": row.updates,
        "metric": column.metric,
        "protocol": column.protocol,
        "higher_is_better": column.higher_is_better,
        "printed": cell_text(cell, column),
        "status": cell.status,
        "reasons": list(cell.reasons),
        "seeds": list(cell.seeds),
        "n": cell.usable,
        "pictures": cell.pictures,
        "expected": cell.expected,
        "mean": _finite(cell.mean),
        "low": _finite(cell.low),
        "high": _finite(cell.high),
        "mark": cell.mark,
        "compared_with": compared.other if compared else None,
        "difference": _finite(compared.mean) if compared else None,
        "difference_low": _finite(compared.low) if compared else None,
        "difference_high": _finite(compared.high) if compared else None,
        "p": _finite(compared.p) if compared else None,
        "p_holm": _finite(compared.p_holm) if compared else None,
        "separated": compared.separated if compared else None,
        "seed_sd": _finite(cell.seed_sd),
        "against": against.other if against else None,
        "against_difference": _finite(against.mean) if against else None,
        "against_low": _finite(against.low) if against else None,
        "against_high": _finite(against.high) if against else None,
        "against_p_holm": _finite(against.p_holm) if against else None,
        "against_separated": against.separated if against else None,
    }


def _finite(value: float) -> float | None:
    return None if math.isnan(value) else value
