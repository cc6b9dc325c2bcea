"""An audit: everything that is said about two revisions, and what it amounts to."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from faithdiff.audit.compare import (
    UNCHANGED,
    VERDICTS,
    CellChanges,
    Change,
    Verdict,
    compare,
)
from faithdiff.audit.crops import Crop, crops_of
from faithdiff.audit.git import Git
from faithdiff.audit.match import (
    Selection,
    data_differences,
    describe_cells,
    match_rows,
    renamed_notes,
    resolve,
    seed_notes,
)
from faithdiff.audit.movers import Mover, most_moved
from faithdiff.audit.ranks import MovedMark, Overtaking, moved_marks, overtakings
from faithdiff.audit.resampling import RESAMPLES
from faithdiff.audit.results import Columns, Results, columns_of, load_results
from faithdiff.audit.revision import WORKING_TREE, find_revision, last_change
from faithdiff.audit.tolerance import Tolerance
from faithdiff.audit.why import Why, explain_change
from faithdiff.report.statistics import ALPHA, smallest_p

EVERY_PROTOCOL = "all"
# A user's error is 2 as well: whoever calls this in CI learns from either that nothing was judged,
# which must not look like 0.
NO_REGRESSION, REGRESSION, CANNOT_COMPARE = 0, 1, 2


@dataclass(frozen=True)
class Audit:
    """The comparison of two revisions of one profile."""

    profile: str
    old: Results
    new: Results
    selection: Selection
    tolerance: Tolerance
    comparison: CellChanges
    ranks: list[Overtaking]
    marks: list[MovedMark]
    movers: list[Mover]
    crops: list[Crop]
    without_crop: list[str]
    why: Why
    notes: list[str]

    @property
    def regressions(self) -> list[Change]:
        """Cells that got worse by more than is tolerated, or fail now."""
        return [each for each in self.comparison.changes if self.tolerance.exceeded(each)]

    @property
    def exit_code(self) -> int:
        """0 without a regression, 1 with one, 2 where no cell could be compared."""
        compared = [c for c in self.comparison.changes if c.verdict != "not comparable"]
        # Added and removed cells met nothing. A change that removes all cells must not pass as
        # clean.
        met = [c for c in compared if c.verdict not in ("added", "removed")]
        if not met:
            return CANNOT_COMPARE
        return REGRESSION if self.regressions else NO_REGRESSION

    @property
    def conclusion(self) -> str:
        """The result in one sentence."""
        if self.exit_code == CANNOT_COMPARE:
            return "Cannot compare: no cell has comparable numbers on both sides."
        if found := self.regressions:
            return f"{count(len(found), 'cell')} regressed beyond the tolerance."
        found_so = Counter(change.verdict for change in self.comparison.changes)
        parts = [
            f"{count(found_so[verdict], 'cell')} {verdict}"
            f"{' within the tolerance' if verdict == 'worse' else ''}"
            for verdict in VERDICTS
            if found_so[verdict] and verdict not in UNCHANGED
        ]
        return f"No regression: {', '.join(parts) or 'nothing changed'}."

    def counts(self, changes: Iterable[Change]) -> dict[Verdict, int]:
        """How many cells have each verdict, the verdicts that occur."""
        counted = Counter(change.verdict for change in changes)
        return {verdict: counted[verdict] for verdict in VERDICTS if counted[verdict]}

    def power(self, changes: list[Change]) -> str:
        """A warning where so many cells changed that no single one could be significant."""
        tested = [change for change in changes if not math.isnan(change.p_holm)]
        if not tested:
            return ""
        # Sign flips of n pictures give no p below 2 / 2^n. Multiplied by the number of tests it may
        # be above 0.05, whatever happened: then "not significant" says nothing, and the reader must
        # know.
        smallest = min(smallest_p(change.n, RESAMPLES) for change in tested) * len(tested)
        if smallest < ALPHA:
            return ""
        n = max(change.n for change in tested)
        return (
            f"With {n} pictures the smallest p after Holm's correction over {len(tested)} changed "
            f"cells is {min(smallest, 1):.2f}: none of them can be significant. Ask about fewer "
            "(--method, --metric), or read the cells over all sets and levels."
        )


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line."""

    old: str = ""
    new: str = ""
    profile: str = "mini"
    methods: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()
    tolerance: Tolerance = field(default_factory=Tolerance)


def audit(request: Request, root: Path, with_crops: bool = False) -> Audit:
    """Compare two revisions of a profile.

    Args:
        request: What to compare.
        root: Root of the suite.
        with_crops: Look for both versions of the images that moved most, and cut them.

    Raises:
        UserError: One of them has no results, or results that cannot be read.
    """
    found = [
        find_revision(request.old, request.profile, root)
        if request.old
        else last_change(request.profile, root),
        find_revision(request.new or WORKING_TREE, request.profile, root),
    ]
    old, new = (load_results(revision, request.profile) for revision in found)
    notes = [] if request.old else _default_notes(old, new)
    columns = columns_of([old, new], root)
    selection = select(request, [old, new], columns)
    rows = match_rows(old, new, selection)
    cells = describe_cells(rows, data_differences(old.made, new.made))
    comparison = compare(rows, cells, columns)
    movers = most_moved(rows, cells, columns)
    crops, without = crops_of(movers, old, new, root) if with_crops else ([], [])
    return Audit(
        request.profile,
        old,
        new,
        selection,
        _of_known_metrics(request.tolerance, metric_labels([old, new], columns)),
        comparison,
        overtakings(comparison.blocks, columns),
        moved_marks(old, new, selection),
        movers,
        crops,
        without,
        explain_change(old, new, rows, Git(root)),
        notes + _notes(old, new, selection),
    )


def select(request: Request, sides: list[Results], columns: Columns) -> Selection:
    """Turn names and labels into a selection; by default the protocols of the tables.

    Raises:
        UserError: A name is not known.
    """
    methods, known = _present(sides, "method"), _present(sides, "protocol")
    # All protocols would test each change several times over and correct for it: those of the
    # tables are what a reader has seen.
    protocols = request.protocols or printed_protocols(sides)
    if EVERY_PROTOCOL in protocols:
        protocols = ()
    return Selection(
        resolve(request.methods, method_labels(sides, methods), "--method"),
        resolve(request.metrics, metric_labels(sides, columns), "--metric"),
        resolve(protocols, {name: name for name in known}, "--protocol"),
    )


def metric_labels(sides: list[Results], columns: Columns) -> dict[str, str]:
    """Labels of the metrics that either side has, by name."""
    # By the labels of this checkout: what a person types comes from a table that was printed
    # lately.
    labels = {metric: metric for metric in _present(sides, "metric")}
    return labels | {c.metric: c.label for c in columns.values() if c.metric in labels}


def _present(sides: list[Results], column: str) -> list[str]:
    return sorted({value for side in sides for value in side.scores[column].unique()})


def _of_known_metrics(tolerance: Tolerance, labels: dict[str, str]) -> Tolerance:
    """The tolerance by the names of metrics; a misspelt one would be passed over in silence."""
    names = resolve(tolerance.metrics, labels, "--tolerance")
    amounts = tolerance.metrics.values()
    return replace(tolerance, metrics=dict(zip(names, amounts, strict=True)))


def method_labels(sides: list[Results], names: Iterable[str]) -> dict[str, str]:
    """Labels of methods by name, as the manifests have them."""
    known: dict[str, str] = {}
    for side in sides:
        known |= side.config.labels
    return {name: known.get(name, name) for name in names}


def printed_protocols(sides: list[Results]) -> tuple[str, ...]:
    """Protocols of the printed tables; all where no table says."""
    tables = [table for side in sides for table in side.tables.values()]
    printed = {cell.protocol for table in tables for cell in table.cells.values()}
    there = {name for side in sides for name in side.scores["protocol"].unique()}
    return tuple(sorted(printed & there)) or (EVERY_PROTOCOL,)


def changed_only(changes: list[Change]) -> list[Change]:
    """Without the cells whose values did not change."""
    return [change for change in changes if change.verdict not in UNCHANGED]


def count(number: int, noun: str) -> str:
    """A number and its noun."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _default_notes(old: Results, new: Results) -> list[str]:
    """What was chosen where nothing was named."""
    notes = ["By default the last commit that changed the results is OLD."]
    # Just committed: the last commit that changed the results is the working tree itself.
    if old.scores.equals(new.scores):
        notes.append(
            f"NEW has the same scores. What that commit changed: faithdiff audit "
            f"{old.revision.name}~1 {old.revision.name}"
        )
    return notes


def _notes(old: Results, new: Results, selection: Selection) -> list[str]:
    notes = [*renamed_notes(old, new, selection), *seed_notes(old, new, selection)]
    for name, side in (("OLD", old), ("NEW", new)):
        if not side.manifest:
            notes.append(f"{name} has no manifest.json: data and degradation were not compared.")
        elif side.stale:
            notes.append(
                f"{name}: manifest.json describes another scores.csv; finish the run with: "
                "snakemake --cores all"
            )
    return notes
