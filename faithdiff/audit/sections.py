"""An audit as sections of sentences, a table and pictures: what every format prints alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from textwrap import shorten

from faithdiff.audit.compare import VERDICTS, Change
from faithdiff.audit.ranks import Overtaking
from faithdiff.audit.report import Audit, changed_only, count
from faithdiff.audit.why import Why
from faithdiff.report.cells import Column, header, number

EXACT = 1e-4  # a smaller p is printed as less than this


@dataclass(frozen=True)
class AuditSection:
    """A part of a report.

    Attributes:
        lines: Sentences above the table.
        head: Names of the table's columns; empty where there is no table.
        rows: As many fields each as `head`.
        pictures: PNG files with their captions.
    """

    title: str
    lines: Sequence[str] = ()
    head: tuple[str, ...] = ()
    rows: Sequence[tuple[str, ...]] = ()
    pictures: Sequence[tuple[str, bytes]] = ()


def sections(audit: Audit, only_changed: bool = False) -> list[AuditSection]:
    """The report, most important first; the long table of cells is the last.

    Args:
        only_changed: Leave out the cells whose values did not change.
    """
    # The held-out loss has a protocol of its own, which is no second one for the other metrics.
    several = len({c.column.protocol for c in audit.comparison.places} - {"heldout"}) > 1
    overall = audit.comparison.overall
    parts = [
        _summary(audit),
        _cells("Over all sets and levels", audit, overall, several, only_changed),
        _why(audit.why),
        _ranks(audit, several),
        _marks(audit),
        _movers(audit, several),
        _cells("By set and level", audit, audit.comparison.places, several, only_changed),
    ]
    return [part for part in parts if part.lines or part.rows or part.pictures]


def metric_name(column: Column, several: bool) -> str:
    """Label with its arrow, and the protocol where there are several."""
    return f"{header(column)} @{column.protocol}" if several else header(column)


def fine(column: Column) -> Column:
    """The column with two more decimals, for differences."""
    return replace(column, decimals=column.decimals + 2)


def p_text(p: float) -> str:
    """A p-value for people."""
    # Never 0: a test by resamples cannot say so.
    return "" if math.isnan(p) else f"< {EXACT}" if p < EXACT else f"{p:.4f}"


def _summary(audit: Audit) -> AuditSection:
    chosen = audit.selection
    asked = [
        f"{name}: {', '.join(names)}"
        for name, names in (
            ("methods", chosen.methods),
            ("metrics", chosen.metrics),
            ("protocols", chosen.protocols),
        )
        if names
    ]
    lines = [
        f"OLD: {audit.old.title}",
        f"NEW: {audit.new.title}",
        f"Profile {audit.profile}{'; ' if asked else ''}{'; '.join(asked)}",
        audit.conclusion,
        *audit.notes,
    ]
    return AuditSection("Audit", lines)


def _cells(
    title: str, audit: Audit, changes: list[Change], several: bool, only_changed: bool
) -> AuditSection:
    if not changes:
        return AuditSection(title)
    # The line of counts is of all cells, also where only the changed ones are listed: it says what
    # was looked at.
    shown = changed_only(changes) if only_changed else changes
    ranked = sorted(shown, key=lambda change: VERDICTS.index(change.verdict))
    regressed = {id(change) for change in audit.regressions}
    counts = ", ".join(f"{n} {verdict}" for verdict, n in audit.counts(changes).items())
    lines = [f"{count(len(changes), 'cell')}: {counts}."]
    if warning := audit.power(changes):
        lines.append(warning)
    head = (
        "verdict", "method", "set, level", "metric", "old", "new", "difference", "95% interval",
        "p (Holm)", "n",
    )  # fmt: skip
    rows = [_cell(change, several, id(change) in regressed) for change in ranked]
    return AuditSection(title, lines, head if rows else (), rows)


def _cell(change: Change, several: bool, regressed: bool) -> tuple[str, ...]:
    verdict: str = change.verdict
    if verdict == "worse" and not regressed:
        verdict = "worse (tolerated)"
    name = metric_name(change.column, several)
    head = (verdict, change.method, change.place, name)
    if math.isnan(change.old) and math.isnan(change.new):
        return (*head, "", "", change.note, "", "", "")
    column, more = change.column, fine(change.column)
    interval = f"[{number(change.low, more)}, {number(change.high, more)}]"
    identical = change.verdict == "identical"
    return (
        *head,
        number(change.old, column),
        number(change.new, column),
        "0" if identical else number(change.difference, more, signed=True),
        "" if identical else interval,
        p_text(change.p_holm),
        str(change.n),
    )


def _why(why: Why) -> AuditSection:
    head = ("kind", "what", "old", "new", "explains", "remark")
    rows = [
        (
            each.kind,
            each.what,
            _short(each.old),
            _short(each.new),
            "can" if why.touches(each) else "cannot",
            shorten(each.remark, 100, placeholder=" …")
            or ("" if why.touches(each) else "affects no method that changed"),
        )
        for each in why.differences
    ]
    commits = [f"touched this code: {commit}" for commit in why.commits]
    lines = [why.statement, *why.entry, *commits]
    return AuditSection("Why", list(dict.fromkeys(lines)), head if rows else (), rows)


def _short(value: str) -> str:
    """A hash by its first digits, as people compare them."""
    is_hash = len(value) >= 40 and all(c in "0123456789abcdef" for c in value)
    return value[:12] if is_hash else value


def _ranks(audit: Audit, several: bool) -> AuditSection:
    clear = [each for each in audit.ranks if each.more_than_noise]
    if not audit.ranks:
        return AuditSection("Ranks")
    line = (
        f"{count(len(audit.ranks), 'pair')} of methods changed order, "
        f"{len(clear)} of them by more than noise (the new lead is statistically significant)."
    )
    head = ("overtook", "set, level", "metric", "lead before", "lead now", "95% interval",
            "p (Holm)", "more than noise")  # fmt: skip
    rows = [_overtaking(each, several) for each in audit.ranks]
    return AuditSection("Ranks", [line], head, rows)


def _overtaking(each: Overtaking, several: bool) -> tuple[str, ...]:
    column = fine(each.column)
    return (
        f"{each.winner} overtook {each.loser}",
        each.place,
        metric_name(each.column, several),
        number(each.before, column, signed=True),
        number(each.lead, column, signed=True),
        f"[{number(each.low, column)}, {number(each.high, column)}]",
        p_text(each.p_holm),
        "yes" if each.more_than_noise else "no",
    )


def _marks(audit: Audit) -> AuditSection:
    names = {"best": "bold", "second": "underlined", "tie": "underlined (tie)", "": "plain"}
    bold = [mark for mark in audit.marks if "best" in (mark.old, mark.new)]
    rows = [
        (
            mark.table,
            mark.block,
            mark.method,
            mark.metric,
            names.get(mark.old, mark.old),
            names.get(mark.new, mark.new),
        )
        for mark in sorted(audit.marks, key=lambda mark: mark not in bold)
    ]
    lines = [f"{count(len(rows), 'mark')} moved in the printed tables, {len(bold)} of them bold."]
    head = ("table", "block", "method", "metric", "was", "is")
    return (
        AuditSection("Bold that moved", lines, head, rows)
        if rows
        else AuditSection("Bold that moved")
    )


def _movers(audit: Audit, several: bool) -> AuditSection:
    rows = [
        (
            f"{mover.dataset}, {mover.level}: {mover.image}",
            mover.method,
            str(mover.seed),
            metric_name(mover.column, several),
            number(mover.old, mover.column),
            number(mover.new, mover.column),
            number(mover.new - mover.old, fine(mover.column), signed=True),
            f"{mover.score:.2f}",
        )
        for mover in audit.movers
    ]
    head = ("image", "method", "seed", "metric", "old", "new", "difference", "in SDs")
    pictures = [
        (
            f"{crop.mover.path}: OLD left, NEW right; {crop.side} px at row {crop.top}, "
            f"column {crop.left}",
            crop.png,
        )
        for crop in audit.crops
    ]
    title = "Images that moved most"
    return (
        AuditSection(title, _crop_lines(audit), head, rows, pictures)
        if rows
        else AuditSection(title)
    )


def _crop_lines(audit: Audit) -> list[str]:
    if not audit.crops and not audit.without_crop:
        return ["Crops of both versions: --pictures FOLDER, or --format html."]
    if audit.without_crop:
        more = len(audit.without_crop) - 1
        rest = f" (and {more} more)" if more else ""
        return [f"No crop of {audit.without_crop[0]}{rest}."]
    return []
