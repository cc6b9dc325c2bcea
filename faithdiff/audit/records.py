"""An audit as JSON, in full precision."""

from __future__ import annotations

import json
from dataclasses import asdict

from pydantic import ConfigDict, JsonValue, TypeAdapter

from faithdiff.audit.compare import UNCHANGED, Change
from faithdiff.audit.history import History
from faithdiff.audit.ranks import Overtaking
from faithdiff.audit.report import Audit
from faithdiff.audit.results import Results

_CONTENT = TypeAdapter(dict[str, object], config=ConfigDict(ser_json_inf_nan="null"))


def to_json(audit: Audit, only_changed: bool = False) -> str:
    """Everything that the other formats say; NaN and infinity become null."""
    changes = audit.comparison.changes
    if only_changed:
        changes = [c for c in changes if c.verdict not in UNCHANGED]
    regressed = {id(change) for change in audit.regressions}
    content: dict[str, object] = {
        "profile": audit.profile,
        "old": _side(audit.old),
        "new": _side(audit.new),
        "exit_code": audit.exit_code,
        "conclusion": audit.conclusion,
        "notes": audit.notes,
        "counts": audit.counts(audit.comparison.changes),
        "cells": [_change(change, id(change) in regressed) for change in changes],
        "overtakings": [_overtaking(each) for each in audit.ranks],
        "marks": audit.marks,
        "images": [
            asdict(mover) | {"column": _metric(mover.column.metric, mover.column.protocol)}
            for mover in audit.movers
        ],
        "why": {
            "statement": audit.why.statement,
            "entry": audit.why.entry,
            "unknown": audit.why.unknown,
            "commits": audit.why.commits,
            "differences": [
                {
                    **asdict(each),
                    "methods": sorted(each.methods) if each.methods is not None else None,
                    "can_explain": audit.why.touches(each),
                }
                for each in audit.why.differences
            ],
        },
    }
    return json_text(content)


def history_json(found: History) -> str:
    """A history, a record per cell and commit."""
    points = [
        {
            "method": series.method,
            "place": series.place,
            "metric": series.column.metric,
            "protocol": series.column.protocol,
            "commit": point.commit.sha,
            "date": point.commit.date,
            "mean": point.mean,
            "low": point.low,
            "high": point.high,
            "n": point.n,
            "verdict": point.verdict,
            "note": point.note,
            "change_point": point.change_point,
        }
        for series in found.series
        for point in series.points
    ]
    content: dict[str, object] = {
        "profile": found.profile,
        "commits": found.commits,
        "unreadable": found.unreadable,
        "points": points,
    }
    return json_text(content)


def json_text(content: dict[str, object]) -> str:
    """Records and plain values as JSON; null where it has no number."""
    # In full precision, unlike the other forms: who reads JSON computes with it. JSON has no NaN,
    # and Python's own writer would put one there that no other program reads.
    plain = _CONTENT.dump_python(content, mode="json")
    return json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _side(results: Results) -> dict[str, JsonValue]:
    commit = results.revision.commit
    return {
        "name": results.revision.name,
        "title": results.title,
        "commit": commit.sha if commit else None,
        "made_at": results.made.commit,
    }


def _metric(metric: str, protocol: str) -> str:
    return f"{metric}@{protocol}"


def _change(change: Change, regressed: bool) -> dict[str, JsonValue]:
    return {
        "method": change.method,
        "dataset": change.dataset,
        "level": change.level,
        "metric": change.column.metric,
        "protocol": change.column.protocol,
        "higher_is_better": change.column.higher_is_better,
        "verdict": change.verdict,
        "regressed": regressed,
        "old": change.old,
        "new": change.new,
        "difference": change.difference,
        "low": change.low,
        "high": change.high,
        "p": change.p,
        "p_holm": change.p_holm,
        "n": change.n,
        "note": change.note,
    }


def _overtaking(each: Overtaking) -> dict[str, JsonValue]:
    column = each.column
    return asdict(each) | {
        "column": _metric(column.metric, column.protocol),
        "more_than_noise": each.more_than_noise,
    }
