"""What changed between two revisions, cell by cell, and whether it is more than noise."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd

from faithdiff.audit.blocks import ALL, ComparedBlock, blocks, overall_values, picture_values
from faithdiff.audit.resampling import resample
from faithdiff.audit.results import Columns
from faithdiff.errors import UserError
from faithdiff.report.cells import Column
from faithdiff.report.statistics import ALPHA, holm

Verdict = Literal[
    "worse", "newly failing", "better", "newly working", "changed but not significant",
    "not comparable",
    "added", "removed", "identical", "no value",
]  # fmt: skip
# In the order in which they are read: what asks for something to be done comes first.
VERDICTS: tuple[Verdict, ...] = (
    "worse", "newly failing", "better", "newly working", "changed but not significant",
    "not comparable",
    "added", "removed", "identical", "no value",
)  # fmt: skip
NOT_SIGNIFICANT: Verdict = "changed but not significant"
UNCHANGED = ("identical", "no value")


@dataclass(frozen=True)
class Change:
    """A cell at two revisions.

    Attributes:
        column: The metric: which direction is better, and how it is printed.
        verdict: `no value` has none on either side.
        old: Mean over the pictures, NaN where there is none; `new` likewise.
        low: Bounds of the 95 % interval of the mean difference new - old; `high` likewise.
        p_holm: Sign-flip p, corrected over the cells of the same table whose values changed.
        n: Source pictures.
        note: Why it is not comparable, or has no value.
    """

    method: str
    dataset: str
    level: str
    column: Column
    verdict: Verdict
    old: float = math.nan
    new: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    p_holm: float = math.nan
    n: int = 0
    note: str = ""

    @property
    def difference(self) -> float:
        """New minus old."""
        return self.new - self.old

    @property
    def gain(self) -> float:
        """The difference, counted so that positive is better."""
        return self.difference if self.column.higher_is_better else -self.difference

    @property
    def place(self) -> str:
        """Dataset and level, in words."""
        return "all sets and levels" if self.dataset == ALL else f"{self.dataset}, {self.level}"


@dataclass(frozen=True)
class CellChanges:
    """All cells: those over everything, which see the most, and those of each place."""

    overall: list[Change]
    places: list[Change]
    blocks: list[ComparedBlock]

    @property
    def changes(self) -> list[Change]:
        """Every cell."""
        return [*self.overall, *self.places]


def compare(rows: pd.DataFrame, cells: pd.DataFrame, columns: Columns) -> CellChanges:
    """Compare every cell that can be compared.

    Args:
        rows: From :func:`faithdiff.audit.match.match_rows`.
        cells: From :func:`faithdiff.audit.match.describe_cells`.
        columns: How each metric is printed.

    Raises:
        UserError: It is not known which direction of a metric is better.
    """
    values = picture_values(rows, cells)
    # Two families of tests, each corrected in itself. Over all sets and levels there are few cells
    # with the most pictures: this is where a change is found. Together with the hundreds of single
    # places they would have to survive a correction that ten pictures cannot.
    everywhere, single = blocks(overall_values(values, cells)), blocks(values)
    without = list(_without_numbers(cells, columns))
    return CellChanges(
        _judged([change for block in everywhere for change in _changes(block, columns)]),
        _judged([change for block in single for change in _changes(block, columns)] + without),
        everywhere + single,
    )


def column_of(columns: Columns, metric: str, protocol: str) -> Column:
    """The column of a metric under a protocol.

    Raises:
        UserError: Neither the protocols nor the tables know it.
    """
    if (metric, protocol) not in columns:
        raise UserError(
            f"{metric}@{protocol}: neither config/protocols.yaml nor a table of the two revisions "
            "says whether higher is better; define it there"
        )
    return columns[metric, protocol]


def significant(low: float, high: float, p: float) -> bool:
    """Whether interval and test agree that a difference is not chance."""
    # The interval is of one cell and corrected for nothing; the test is corrected over all cells. A
    # verdict needs both, so that none says "better" beside an interval that holds 0.
    return (low > 0 or high < 0) and p < ALPHA


def _changes(block: ComparedBlock, columns: Columns) -> Iterator[Change]:
    # Of the paired difference, picture by picture: pictures differ by far more than two revisions
    # do, and two unpaired intervals would overlap at any change that matters.
    difference = block.new - block.old
    found = resample(difference, *block.key)
    old, new = block.old.mean(axis=0), block.new.mean(axis=0)
    for i, (method, metric, protocol) in enumerate(block.cells):
        yield Change(
            method,
            block.dataset,
            block.level,
            column_of(columns, metric, protocol),
            # Identical by every picture and not by the mean: equal means of moved pictures are a
            # change.
            NOT_SIGNIFICANT if difference[:, i].any() else "identical",
            old=float(old[i]),
            new=float(new[i]),
            low=float(found.low[i]),
            high=float(found.high[i]),
            p=float(found.p[i]),
            n=len(block.pictures),
        )


def _without_numbers(cells: pd.DataFrame, columns: Columns) -> Iterator[Change]:
    # They are said, and not left out: a cell that vanishes from a report is read as one that is
    # well.
    for key, verdict, note in cells[cells["verdict"] != ""].itertuples(name=None):
        method, dataset, level, metric, protocol = key
        column = column_of(columns, metric, protocol)
        yield Change(method, dataset, level, column, verdict, note=note)


def _judged(changes: list[Change]) -> list[Change]:
    """Give every change its corrected p and its verdict; identical cells test nothing."""
    # Holm's step-down, which holds for tests that hang together, as cells on the same pictures do.
    # It controls the chance of a single false alarm, because an audit fails on a single cell.
    # Identical cells cannot be false alarms and are no tests: a small change is not drowned by what
    # it left alone.
    tested = [i for i, change in enumerate(changes) if change.verdict == NOT_SIGNIFICANT]
    judged = list(changes)
    for i, p in zip(tested, holm([changes[i].p for i in tested]), strict=True):
        change = replace(changes[i], p_holm=p)
        if significant(change.low, change.high, p):
            change = replace(change, verdict="better" if change.gain > 0 else "worse")
        judged[i] = change
    # One order, whatever the order of the rows: by method, place and metric.
    return sorted(
        judged, key=lambda c: (c.method, c.dataset, c.level, c.column.metric, c.column.protocol)
    )
