"""A metric over the last commits that changed the results, with the commits where it moved."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from faithdiff.audit.blocks import ALL
from faithdiff.audit.compare import NOT_SIGNIFICANT, UNCHANGED, CellChanges, Change, compare
from faithdiff.audit.git import Commit, Git
from faithdiff.audit.match import Selection, data_differences, describe_cells, match_rows
from faithdiff.audit.report import Request, select
from faithdiff.audit.resampling import resample
from faithdiff.audit.results import Columns, Results, columns_of, load_results
from faithdiff.audit.revision import SCORES, CommitRevision
from faithdiff.audit.sections import AuditSection, fine, metric_name
from faithdiff.errors import UserError
from faithdiff.report.cells import Column, number

Key = tuple[str, str, str, str]  # method, place in words, metric, protocol


@dataclass(frozen=True)
class Point:
    """A cell at one commit, and how it differs from the commit before.

    Attributes:
        mean: With the 95 % interval `low`, `high` over the pictures; NaN without a value.
        verdict: Of the change from the point before; empty at the first.
        note: Why the two cannot be compared.
    """

    commit: Commit
    mean: float
    low: float
    high: float
    n: int
    verdict: str = ""
    note: str = ""

    @property
    def change_point(self) -> bool:
        """Whether the value moved here by more than noise, or is no longer comparable."""
        # "Not comparable" counts: from there on the line is of something else.
        return self.verdict not in ("", NOT_SIGNIFICANT, *UNCHANGED)


@dataclass(frozen=True)
class Series:
    """One cell over the commits, oldest first."""

    method: str
    place: str
    column: Column
    points: list[Point]


@dataclass(frozen=True)
class History:
    """Series of the cells that were asked for; commits whose results cannot be read are named."""

    profile: str
    commits: list[Commit]
    series: list[Series]
    unreadable: list[str]


def history(request: Request, count: int, root: Path) -> History:
    """Follow metrics over the last `count` commits that changed the scores of a profile.

    Raises:
        UserError: No commit has results that can be read.
    """
    git = Git(root)
    path = f"results/{request.profile}/{SCORES}"
    until = request.new or "HEAD"
    if git.find(until) is None:
        raise UserError(f"{until!r} is not a commit, tag or branch of this repository")
    # Commits that changed the scores: between two of them there is nothing to see.
    commits = git.log(f"-{count}", until, paths=[path])[::-1]
    sides, unreadable = _load(commits, git, request.profile)
    if not sides:
        reasons = "; ".join(unreadable) or f"{path}: no commit up to {until} has it"
        raise UserError(reasons)
    results = list(sides.values())
    columns = columns_of(results, root)
    selection = select(request, results, columns)
    series = _series(sides, columns, selection)
    return History(request.profile, [c for c in commits if c.sha in sides], series, unreadable)


def _load(commits: list[Commit], git: Git, profile: str) -> tuple[dict[str, Results], list[str]]:
    sides, unreadable = {}, []
    # A commit that cannot be read is named and passed over: an old schema must not end a history.
    for commit in commits:
        try:
            sides[commit.sha] = load_results(CommitRevision(commit.short, commit, git), profile)
        except UserError as error:
            unreadable.append(f"{commit.short}: {error}")
    return sides, unreadable


def _series(sides: dict[str, Results], columns: Columns, selection: Selection) -> list[Series]:
    found: dict[Key, Series] = {}
    # Neighbours are compared, not each with the first: a change is then dated by the commit that
    # made it, at the price that many small ones may pass below the noise.
    before: Results | None = None
    for side in sides.values():
        # Against itself, for its own means and intervals; against the one before, for the verdict.
        own = _compared(side, side, columns, selection)
        moved = _compared(before, side, columns, selection) if before is not None else None
        verdicts = {_key(change): change for change in _cells(moved)} if moved else {}
        intervals = dict(_intervals(own))
        commit = side.revision.commit
        assert commit is not None
        for change in _cells(own):
            key = _key(change)
            series = found.setdefault(key, Series(change.method, change.place, change.column, []))
            last = verdicts.get(key)
            low, high = intervals.get(key, (math.nan, math.nan))
            verdict, note = (last.verdict, last.note) if last else ("", "")
            series.points.append(Point(commit, change.new, low, high, change.n, verdict, note))
        before = side
    return list(found.values())


def _compared(old: Results, new: Results, columns: Columns, selection: Selection) -> CellChanges:
    rows = match_rows(old, new, selection)
    return compare(rows, describe_cells(rows, data_differences(old.made, new.made)), columns)


def _cells(comparison: CellChanges) -> list[Change]:
    """The cells over everything, and those of single places where there is nothing over them."""
    overall = {(c.method, c.column.metric, c.column.protocol) for c in comparison.overall}
    alone = [
        c for c in comparison.places
        if (c.method, c.column.metric, c.column.protocol) not in overall
    ]  # fmt: skip
    return [*comparison.overall, *alone]


def _key(change: Change) -> Key:
    return change.method, change.place, change.column.metric, change.column.protocol


def _intervals(comparison: CellChanges) -> Iterator[tuple[Key, tuple[float, float]]]:
    """Bootstrap intervals of the means of NEW."""
    for block in comparison.blocks:
        found = resample(block.new, "mean", *block.key)
        place = "all sets and levels" if block.dataset == ALL else f"{block.dataset}, {block.level}"
        for i, (method, metric, protocol) in enumerate(block.cells):
            yield (method, place, metric, protocol), (float(found.low[i]), float(found.high[i]))


def history_sections(found: History, only_changed: bool = False) -> list[AuditSection]:
    """The history as a table: a line per cell and commit."""
    several = len({each.column.protocol for each in found.series} - {"heldout"}) > 1
    kept = [s for s in found.series if not only_changed or any(p.change_point for p in s.points)]
    rows = [row for each in kept for row in _rows(each, several)]
    marked = [p for each in found.series for p in each.points if p.change_point]
    commits = {str(point.commit): None for point in marked}
    lines = [
        f"{len(found.commits)} commits changed results/{found.profile}/{SCORES}: "
        + ("; ".join(map(str, found.commits)) or "none"),
        f"Change points: {'; '.join(commits) or 'none'}.",
        *(f"Left out: {reason}" for reason in found.unreadable),
    ]
    head = ("method", "set, level", "metric", "commit", "date", "mean", "95% interval", "n",
            "against the commit before")  # fmt: skip
    return [AuditSection(f"History of {found.profile}", lines, head if rows else (), rows)]


def _rows(series: Series, several: bool) -> Iterator[tuple[str, ...]]:
    name, column = metric_name(series.column, several), series.column
    for point in series.points:
        known = not math.isnan(point.mean)
        bounds = (number(bound, fine(column)) for bound in (point.low, point.high))
        yield (
            series.method,
            series.place,
            name,
            f"{point.commit.short}{' *' if point.change_point else ''}",
            point.commit.date,
            number(point.mean, fine(column)) if known else "no value",
            f"[{', '.join(bounds)}]" if known else "",
            str(point.n) if known else "",
            f"{point.verdict}{f': {point.note}' if point.note else ''}",
        )
