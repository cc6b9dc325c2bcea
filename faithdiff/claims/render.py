"""Claims as ``claims.json`` for programs and ``claims.md`` for people."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

from faithdiff.claims.evaluate import Finding, Report
from faithdiff.claims.measure import Measured
from faithdiff.claims.schema import Kind
from faithdiff.claims.verdict import VERDICTS
from faithdiff.report.cells import number
from faithdiff.report.render import markdown_escape
from faithdiff.report.statistics import ALPHA, CONFIDENCE

TITLES: dict[Kind, str] = {
    "published": "Published numbers and orders",
    "mechanism": "Mechanisms, on the controlled study",
    "finding": "Our own finding",
}
HEAD = (
    "Claim",
    "Published",
    "Ours (95% interval)",
    "n",
    "Verdict",
    "Why, and what would settle it",
)


def to_json(report: Report) -> str:
    """Everything, numbers in full precision."""
    content = {
        "profile": report.profile,
        "scores": f"results/{report.profile}/scores.csv",
        "confidence": CONFIDENCE,
        "alpha": ALPHA,
        "tests": report.tests,
        "verdicts": counts(report),
        "claims": [_entry(each) for each in report.findings],
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def counts(report: Report) -> dict[str, int]:
    """How many claims have each verdict."""
    found = Counter(each.verdict for each in report.findings)
    return {verdict: found[verdict] for verdict in VERDICTS}


def _entry(found: Finding) -> dict[str, Any]:
    claim = found.claim
    return {
        "id": claim.id,
        "kind": claim.kind,
        "statement": claim.statement,
        "source": claim.source.model_dump(),
        "protocol": claim.protocol,
        "data": claim.data.model_dump(),
        "expect": [
            {**each.model_dump(), "precision": each.precision if each.printed else None}
            for each in claim.expect
        ],
        "verdict": found.verdict,
        "because": list(found.because),
        "settle": list(found.settle),
        "measured": [_numbers(m) for m in found.measured],
    }


def _numbers(m: Measured) -> dict[str, Any]:
    return {
        "contrast": m.contrast.text,
        "metric": m.column.metric,
        "protocol": m.column.protocol,
        "label": m.column.label,
        "role": m.role,
        "printed": m.printed or None,
        "window": [None if not math.isfinite(bound) else bound for bound in m.window],
        "n": m.n,
        "seeds": list(m.seeds),
        "value": _finite(m.value),
        "low": _finite(m.low),
        "high": _finite(m.high),
        "p": _finite(m.p),
        "p_holm": _finite(m.p_holm),
        "reason": m.reason,
        "text": ours_text(m),
        "verdict": m.verdict if m.role != "beside" else None,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def ours_text(m: Measured) -> str:
    """Write a value as printed, with its interval; a gain with its sign."""
    if not m.values:
        return "not measured"
    value = number(m.value, m.column, signed=m.contrast.paired)
    return f"{value} [{number(m.low, m.column)}, {number(m.high, m.column)}]"


def to_markdown(report: Report) -> str:
    """One table for each kind of claim."""
    summary = ", ".join(f"{count} {verdict}" for verdict, count in counts(report).items())
    parts = [
        f"<!-- written from results/{report.profile}/scores.csv and config/claims.yaml "
        "by `faithdiff claims`; do not edit -->",
        f"# Claims, tested on `{report.profile}`",
        f"{len(report.findings)} claims: {summary}. What was not run is no pass.",
        "A gain is positive where the method is better, whichever way its metric counts. Intervals "
        "are paired bootstraps over images; a direction also needs its sign-flip test, corrected "
        f"by Holm over the {report.tests} tests of this page. They say nothing of other trainings "
        "unless there are several seeds.",
    ]
    for kind, title in TITLES.items():
        found = [each for each in report.findings if each.claim.kind == kind]
        if found:
            parts += [f"## {title}", "\n".join(_table(found))]
    return "\n\n".join(parts) + "\n"


def _table(findings: list[Finding]) -> Iterator[str]:
    yield "| " + " | ".join(HEAD) + " |"
    yield "|:--|:--|:--|--:|:--|:--|"
    for found in findings:
        yield "| " + " | ".join(_row(found)) + " |"


def _row(found: Finding) -> tuple[str, ...]:
    claim = found.claim
    where = f"{claim.source.document}, {claim.source.table}: {claim.source.row}"
    shown = [m for m in found.measured if m.values]
    sizes = sorted({m.n for m in shown})
    why = [*found.because, *found.settle]
    return (
        f"{markdown_escape(claim.statement)}<br>"
        f"<sub>`{claim.id}`; {markdown_escape(where)}; {claim.source.confidence} confidence</sub>",
        "<br>".join(map(markdown_escape, published_text(found))),
        "<br>".join(markdown_escape(_measured_text(m)) for m in shown) or "–",
        ", ".join(map(str, sizes)) or "–",
        f"**{found.verdict}**",
        "<br>".join(map(markdown_escape, why)) or "–",
    )


def published_text(found: Finding) -> list[str]:
    """What the claim expects, a line for each metric."""
    return [
        f"{each.metric} {each.printed} (± {each.within:g} accepted)"
        if each.printed
        else f"{each.metric} {each.rule}"
        for each in found.claim.expect
    ]


def _measured_text(m: Measured) -> str:
    beside = " (beside)" if m.role == "beside" else ""
    p = "" if math.isnan(m.p_holm) else f", p {m.p_holm:.2g}"
    return f"{m.contrast.text}: {m.column.label} {ours_text(m)}{p}{beside}"
