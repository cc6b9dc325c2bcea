"""Who overtook whom, and which marks of the printed tables moved."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from faithdiff.audit.blocks import ALL, ComparedBlock
from faithdiff.audit.compare import column_of, significant
from faithdiff.audit.match import Selection
from faithdiff.audit.recorded import RecordedCell
from faithdiff.audit.resampling import resample
from faithdiff.audit.results import Columns, Results
from faithdiff.report.cells import Column
from faithdiff.report.statistics import Floats, holm


@dataclass(frozen=True)
class Overtaking:
    """A method that is ahead of another in NEW and was behind or level in OLD.

    Attributes:
        before: Mean lead of `winner` over `loser` in OLD, counted so that positive is better.
        lead: The same in NEW, with its interval `low`, `high` and corrected sign-flip p.
    """

    winner: str
    loser: str
    dataset: str
    level: str
    column: Column
    before: float
    lead: float
    low: float
    high: float
    p: float
    p_holm: float

    @property
    def more_than_noise(self) -> bool:
        """Whether the new lead is significant."""
        return significant(self.low, self.high, self.p_holm)

    @property
    def place(self) -> str:
        """Dataset and level, in words."""
        return "all sets and levels" if self.dataset == ALL else f"{self.dataset}, {self.level}"


@dataclass(frozen=True)
class MovedMark:
    """A cell of a printed table whose mark (best, second, tie or none) changed."""

    table: str
    block: str
    method: str
    metric: str
    old: str
    new: str


def overtakings(blocks: list[ComparedBlock], columns: Columns) -> list[Overtaking]:
    """All pairs of methods whose order flipped, clear ones first."""
    found = [each for block in blocks for each in _flipped(block, columns)]
    # Over the pairs that changed order and not over all pairs: the question is which of these are
    # more than noise.
    adjusted = holm([each.p for each in found])
    found = [replace(each, p_holm=p) for each, p in zip(found, adjusted, strict=True)]
    return sorted(found, key=lambda each: (not each.more_than_noise, each.dataset != ALL))


def _flipped(block: ComparedBlock, columns: Columns) -> Iterator[Overtaking]:
    metrics = sorted({name[1:] for name in block.cells})
    pairs: list[tuple[int, int, Column]] = []
    for metric, protocol in metrics:
        column = column_of(columns, metric, protocol)
        sign = 1 if column.higher_is_better else -1
        own = [i for i, name in enumerate(block.cells) if name[1:] == (metric, protocol)]
        for a, b in combinations(own, 2):
            before, after = (
                sign * (side[:, a].mean() - side[:, b].mean()) for side in (block.old, block.new)
            )
            # From level counts as overtaking: a tie that becomes a lead moves the bold of a table.
            if before <= 0 < after:
                pairs.append((a, b, column))
            elif after < 0 <= before:
                pairs.append((b, a, column))
    if not pairs:
        return
    # The lead of NEW is tested against a tie. That it differs from OLD's lead is another question,
    # and the cells answer it.
    before, lead = (_leads(side, pairs) for side in (block.old, block.new))
    test = resample(lead, "lead", *block.key)
    for i, (winner, loser, column) in enumerate(pairs):
        yield Overtaking(
            block.cells[winner][0],
            block.cells[loser][0],
            block.dataset,
            block.level,
            column,
            before=float(before[:, i].mean()),
            lead=float(lead[:, i].mean()),
            low=float(test.low[i]),
            high=float(test.high[i]),
            p=float(test.p[i]),
            p_holm=math.nan,  # known once the pairs of all blocks are
        )


def _leads(side: Floats, pairs: list[tuple[int, int, Column]]) -> Floats:
    """Lead of each pair's winner on each picture, positive is better: ``(pictures, pairs)``."""
    signs = np.array([1 if column.higher_is_better else -1 for *_, column in pairs])
    winners, losers = [a for a, *_ in pairs], [b for _, b, _ in pairs]
    return (side[:, winners] - side[:, losers]) * signs


def moved_marks(old: Results, new: Results, selection: Selection) -> list[MovedMark]:
    """Marks that differ between the tables that both revisions print."""
    found = []
    # As they were printed: marks are what readers remember of a table, with or without
    # significance.
    for table in old.tables.keys() & new.tables.keys():
        before, after = (side.tables[table].cells for side in (old, new))
        for key in sorted(before.keys() & after.keys()):
            was, cell = before[key].mark, after[key]
            if was != cell.mark and _selected(cell, selection):
                found.append(MovedMark(table, cell.block, cell.method, cell.metric, was, cell.mark))
    return sorted(found, key=lambda mark: (mark.table, mark.block, mark.metric, mark.method))


def _selected(cell: RecordedCell, selection: Selection) -> bool:
    return all(
        not names or name in names
        for name, names in (
            (cell.method, selection.methods),
            (cell.metric, selection.metrics),
            (cell.protocol, selection.protocols),
        )
    )
