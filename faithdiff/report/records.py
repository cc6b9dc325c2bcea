"""A table as records: tidy CSV, and JSON whose cells name the rows behind them."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields

from faithdiff.report.cells import Block, Cell, Column, Row, Table, cell_text
from faithdiff.study.plain import Json


@dataclass(frozen=True)
class CellRecord:
    """One cell of a table with its statistics; the fields are the keys of its entry, in order.

    None where there is no number: JSON has no NaN.

    Attributes:
        printed: As the table shows it.
        n: Images that are usable, of `expected`; pictures are what they were cut from.
        mark: best, second or tie, where the table marks them.
        significant: Whether interval and test agree that the difference is not chance.
        against: The reference of the main table, to which every cell of it is compared.
    """

    block: str
    datasets: tuple[str, ...]
    levels: tuple[str, ...]
    method: str
    label: str
    group: str
    updates: int | None
    metric: str
    protocol: str
    higher_is_better: bool
    printed: str
    status: str
    reasons: tuple[str, ...]
    seeds: tuple[int, ...]
    n: int
    pictures: int
    expected: int
    mean: float | None
    low: float | None
    high: float | None
    mark: str
    compared_with: str | None
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    p: float | None
    p_holm: float | None
    significant: bool | None
    seed_sd: float | None
    against: str | None
    against_difference: float | None
    against_low: float | None
    against_high: float | None
    against_p_holm: float | None
    against_significant: bool | None

    @classmethod
    def of(cls, block: Block, row: Row, column: Column, cell: Cell) -> CellRecord:
        """The record of a cell, from where it stands and what it holds."""
        compared, against = cell.comparison, cell.against
        return cls(
            block=block.name,
            datasets=block.datasets,
            levels=block.levels,
            method=row.method,
            label=row.label,
            group=row.group,
            updates=row.updates,
            metric=column.metric,
            protocol=column.protocol,
            higher_is_better=column.higher_is_better,
            printed=cell_text(cell, column),
            status=cell.status,
            reasons=cell.reasons,
            seeds=cell.seeds,
            n=cell.usable,
            pictures=cell.pictures,
            expected=cell.expected,
            mean=_finite(cell.mean),
            low=_finite(cell.low),
            high=_finite(cell.high),
            mark=cell.mark,
            compared_with=compared.other if compared else None,
            difference=_finite(compared.mean) if compared else None,
            difference_low=_finite(compared.low) if compared else None,
            difference_high=_finite(compared.high) if compared else None,
            p=_finite(compared.p) if compared else None,
            p_holm=_finite(compared.p_holm) if compared else None,
            significant=compared.significant if compared else None,
            seed_sd=_finite(cell.seed_sd),
            against=against.other if against else None,
            against_difference=_finite(against.mean) if against else None,
            against_low=_finite(against.low) if against else None,
            against_high=_finite(against.high) if against else None,
            against_p_holm=_finite(against.p_holm) if against else None,
            against_significant=against.significant if against else None,
        )


def to_csv(table: Table) -> str:
    """One line per cell, numbers in full precision."""
    out = io.StringIO()
    # Lists of images, seeds and reasons are in the JSON; a line of CSV has one value a column.
    names = [field.name for field in fields(CellRecord) if field.name not in ("seeds", "reasons")]
    writer = csv.DictWriter(out, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for _, entry in _entries(table):
        places = {"datasets": ";".join(entry.datasets), "levels": ";".join(entry.levels)}
        writer.writerow({**asdict(entry), **places})  # None is written as an empty field
    return out.getvalue()


def to_cells(table: Table) -> str:
    """JSON: ``cells`` maps ``<block>|<method>|<metric>`` to its statistics and to its rows.

    The rows behind a cell are those of ``scores.csv`` with the cell's method, metric, protocol,
    seeds, datasets and levels, for the images under ``images[<protocol>/<metric>]``.
    """
    cells = {key: asdict(each) for key, each in _entries(table) if each.status != "published"}
    head: dict[str, Json] = {
        "table": table.name,
        "profile": table.profile,
        "scores": f"results/{table.profile}/{table.source}",
        "caption": table.caption,
        "unmeasured": table.unmeasured,
        "notes": list(table.footnotes),
        "groups": _titles(table),
    }
    parts = [f"{_json(name)}: {_json(value)}" for name, value in head.items()]
    parts += [f"{_json('images')}: {_lines(table.images)}", f"{_json('cells')}: {_lines(cells)}"]
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _titles(table: Table) -> dict[str, str]:
    """What stands above the rows of each group; empty where the table has one group alone."""
    return {
        rows[0].group: title
        for block in table.blocks
        for title, rows in table.titled(block)
        if title
    }


def _lines(entries: Mapping[str, Json]) -> str:
    """One line per entry: a changed cell is one changed line."""
    return "{\n" + ",\n".join(f"  {_json(k)}: {_json(v)}" for k, v in entries.items()) + "\n}"


def _json(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _entries(table: Table) -> Iterator[tuple[str, CellRecord]]:
    for block in table.blocks:
        for row in block.rows:
            for cell, column in zip(row.cells, table.columns, strict=True):
                key = "|".join((block.name, row.method or row.label, column.metric))
                yield key, CellRecord.of(block, row, column, cell)


def _finite(value: float) -> float | None:
    return None if math.isnan(value) else value
