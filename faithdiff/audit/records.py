"""An audit as JSON, in full precision."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

from faithdiff.audit.compare import UNCHANGED, Change
from faithdiff.audit.history import History
from faithdiff.audit.ranks import Overtaking
from faithdiff.audit.report import Audit
from faithdiff.audit.results import Results


def to_json(audit: Audit, only_changed: bool = False) -> str:
    """Everything that the other formats say; NaN and infinity become null."""
    changes = audit.comparison.changes
    if only_changed:
        changes = [c for c in changes if c.verdict not in UNCHANGED]
    regressed = {id(change) for change in audit.regressions}
    content = {
        "profile": audit.profile,
        "old": _side(audit.old),
        "new": _side(audit.new),
        "exit_code": audit.exit_code,
        "conclusion": audit.conclusion,
        "notes": audit.notes,
        "counts": audit.counts(audit.comparison.changes),
        "cells": [_change(change, id(change) in regressed) for change in changes],
        "overtakings": [_overtaking(each) for each in audit.ranks],
        "marks": [asdict(mark) for mark in audit.marks],
        "images": [
            asdict(mover) | {"column": _metric(mover.column.metric, mover.column.protocol)}
            for mover in audit.movers
        ],
        "why": {
            "statement": audit.why.statement,
            "entry": audit.why.entry,
            "unknown": audit.why.unknown,
            "commits": [asdict(commit) for commit in audit.why.commits],
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
    return json.dumps(finite(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


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
    content = {
        "profile": found.profile,
        "commits": [asdict(commit) for commit in found.commits],
        "unreadable": found.unreadable,
        "points": points,
    }
    return json.dumps(finite(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def finite(value: Any) -> Any:
    """The value with null where JSON has no number."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(part) for key, part in value.items()}
    return [finite(part) for part in value] if isinstance(value, list | tuple) else value


def _side(results: Results) -> dict[str, Any]:
    commit = results.revision.commit
    return {
        "name": results.revision.name,
        "title": results.title,
        "commit": commit.sha if commit else None,
        "made_at": results.manifest.get("commit"),
    }


def _metric(metric: str, protocol: str) -> str:
    return f"{metric}@{protocol}"


def _change(change: Change, regressed: bool) -> dict[str, Any]:
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


def _overtaking(each: Overtaking) -> dict[str, Any]:
    column = each.column
    return asdict(each) | {
        "column": _metric(column.metric, column.protocol),
        "more_than_noise": each.more_than_noise,
    }
