"""What a table is made of: cells that know their mean, interval, status and comparison.

Plain data; :mod:`faithdiff.report.tables` fills it and :mod:`faithdiff.report.render` prints it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

from faithdiff.report.scores import Status
from faithdiff.report.statistics import ALPHA

MINUS = "\N{MINUS SIGN}"
Mark = Literal["", "best", "second", "tie"]
TITLES = {  # of the groups of rows, by key
    "published": "Published: trained by its authors on their own data",
    "controlled": "Controlled: trained here, on the same data",
    "own": "The user's own",
    "quoted": "Quoted from the paper",
}


@dataclass(frozen=True)
class Column:
    """A metric under the protocol that defines it."""

    metric: str
    protocol: str
    label: str
    unit: str
    decimals: int
    higher_is_better: bool
    arrow: bool = True  # whether its heading says so


HELD_OUT = Column("heldout_loss", "heldout", "held-out loss", "", 4, higher_is_better=False)


def timestep_columns(metrics: Iterable[str]) -> dict[int, Column]:
    """The held-out loss at single timesteps, of which ``scores.csv`` has rows as well.

    Args:
        metrics: Names; others are passed over.

    Returns:
        A column for each timestep, ascending.
    """
    prefix = f"{HELD_OUT.metric}@"
    found = sorted({int(m.removeprefix(prefix)) for m in metrics if m.startswith(prefix)})
    label = HELD_OUT.label
    return {t: replace(HELD_OUT, metric=f"{prefix}{t}", label=f"{label}, t = {t}") for t in found}


@dataclass(frozen=True)
class Comparison:
    """Mean difference (this cell minus `other`) over the pictures, with its interval and test."""

    other: str
    mean: float
    low: float
    high: float
    p: float
    p_holm: float = math.nan
    pictures: int = 0
    trainings: int = 0

    @property
    def significant(self) -> bool:
        """Whether interval and test agree that the difference is not chance."""
        return (self.low > 0 or self.high < 0) and self.p_holm < ALPHA


@dataclass(frozen=True)
class Cell:
    """One number of a table, or why there is none.

    Attributes:
        mean: Mean over pictures with its interval `low`, `high`; NaN unless `status` is ok or
            published.
        usable: Images all of whose rows are ok, out of `expected`.
        pictures: Source pictures of these images: the n of mean, interval and comparisons.
        seeds: Seeds averaged per picture.
        seed_sd: Standard deviation of the mean over trainings; NaN for a single one.
        footnote: Number of the table's footnote that gives the reason, from 1; 0 for none.
        comparison: With the runner-up (main, at the best) or with the first row (ablation).
        against: With ``report.reference`` (main), corrected over all such comparisons of the table.
    """

    status: Status | Literal["published"]
    mean: float = math.nan
    low: float = math.nan
    high: float = math.nan
    usable: int = 0
    expected: int = 0
    seeds: tuple[int, ...] = ()
    reasons: tuple[str, ...] = ()
    footnote: int = 0
    mark: Mark = ""
    comparison: Comparison | None = None
    against: Comparison | None = None
    pictures: int = 0
    seed_sd: float = math.nan


@dataclass(frozen=True)
class Row:
    """A method; `method` is empty for a quoted row, which has no rows in the scores.

    Attributes:
        group: Key of `TITLES`; empty where it is in none.
        updates: Of its training; None where it is not trained here, or the table has no budgets.
    """

    method: str
    label: str
    cells: tuple[Cell, ...]
    group: str = ""
    updates: int | None = None


@dataclass(frozen=True)
class Block:
    """Rows over the same images: `group` is what is printed as one tabular of its own."""

    group: str
    title: str
    datasets: tuple[str, ...]
    levels: tuple[str, ...]
    rows: tuple[Row, ...] = ()

    @property
    def name(self) -> str:
        """Group and title in one."""
        return ", ".join(part for part in (self.group, self.title) if part)

    @property
    def parts(self) -> Iterator[tuple[str, list[Row]]]:
        """Neighbouring rows of one group, with its key."""
        for group, rows in groupby(self.rows, key=lambda row: row.group):
            yield group, list(rows)


@dataclass(frozen=True)
class Table:
    """A table ready to be printed.

    Attributes:
        images: Names behind the cells: ``{protocol/metric: {dataset/level: [image, ...]}}``.
        differences: Print each cell's comparison beside its mean.
        source: The file in ``results/<profile>`` that the table is a function of.
        unmeasured: Which metrics have no column because nothing of them was measured, and how
            to get them; empty where nothing is missing.
    """

    name: str
    profile: str
    caption: str
    columns: tuple[Column, ...]
    blocks: tuple[Block, ...]
    footnotes: tuple[str, ...]
    images: dict[str, dict[str, list[str]]]
    differences: bool = False
    source: str = "scores.csv"
    unmeasured: str = ""

    @property
    def grouped(self) -> bool:
        """Whether its rows are of several groups, so that rules between them say something."""
        groups = {row.group for block in self.blocks for row in block.rows}
        return len(groups - {""}) > 1

    @property
    def heads(self) -> tuple[str, ...]:
        """What stands above the columns, that of the method first."""
        updates = ("updates",) if self.has_updates else ()
        return ("Method", *updates, *map(header, self.columns))

    @property
    def has_updates(self) -> bool:
        """Whether the budget of each row is known, and printed beside its label."""
        return any(row.updates is not None for block in self.blocks for row in block.rows)

    def titled(self, block: Block) -> Iterator[tuple[str, list[Row]]]:
        """Neighbouring rows of one group, with the line that stands above them, if any."""
        for group, rows in block.parts:
            yield TITLES.get(group, "") if self.grouped else "", rows


def updates_text(row: Row) -> str:
    """Write the updates of a row's training."""
    return "" if row.updates is None else f"{row.updates:,}"


def number(value: float, column: Column, signed: bool = False) -> str:
    """Write a value in the decimals of its column, with a true minus sign."""
    if math.isnan(value):
        return "?"
    return f"{value:{'+' if signed else ''}.{column.decimals}f}".replace("-", MINUS)


def cell_text(cell: Cell, column: Column) -> str:
    """Write the mean with its spread over trainings, or in a word why there is none."""
    if cell.status in ("ok", "published"):
        return " ".join(filter(None, (number(cell.mean, column), spread_text(cell, column))))
    if cell.status in ("failed", "incomplete"):
        verb = "failed" if cell.status == "failed" else "missing"
        return f"{verb} {cell.expected - cell.usable}/{cell.expected}"
    return "n/a" if cell.status == "unavailable" else "not run" if cell.footnote else ""


def spread_text(cell: Cell, column: Column) -> str:
    """Write the standard deviation over trainings; empty for a single one."""
    return "" if math.isnan(cell.seed_sd) else f"± {number(cell.seed_sd, column)}"


def star_text(cell: Cell) -> str:
    """A star where the difference to the reference of the table is significant."""
    return "*" if cell.against is not None and cell.against.significant else ""


def difference_text(cell: Cell, column: Column) -> tuple[str, str]:
    """Write the difference to the reference and its interval; empty where there is none."""
    compared = cell.comparison
    if compared is None:
        return "", ""
    star = "*" if compared.significant else ""
    low, high = number(compared.low, column), number(compared.high, column)
    return number(compared.mean, column, True) + star, f"[{low}, {high}]"


def header(column: Column) -> str:
    """Write the label with the arrow that says which way is better."""
    if not column.arrow:
        return column.label
    return f"{column.label} {'↑' if column.higher_is_better else '↓'}"
