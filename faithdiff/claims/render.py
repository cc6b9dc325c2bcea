"""Claims as ``claims.json`` for programs and ``claims.md`` for people."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator

from faithdiff.claims.evaluate import ClaimsReport, JudgedClaim
from faithdiff.claims.measure import Contrast, Measured
from faithdiff.claims.record import ClaimRecord, ClaimsRecord, ContrastRecord, MeasuredRecord
from faithdiff.claims.schema import Kind
from faithdiff.claims.verdict import VERDICTS, Verdict
from faithdiff.report.cells import number
from faithdiff.report.render import markdown_escape
from faithdiff.report.statistics import ALPHA, CONFIDENCE

TITLES: dict[Kind, str] = {
    "published": "Published numbers and orders",
    "mechanism": "Mechanisms, in the controlled study",
    "finding": "Our own finding",
}
HEAD = (
    "Claim",
    "Published",
    "Ours (95% interval)",
    "n",
    "Verdict",
    "Reason, and what would decide it",
)


def to_json(report: ClaimsReport) -> str:
    """Everything, numbers in full precision."""
    record = ClaimsRecord(
        profile=report.profile,
        scores=f"results/{report.profile}/scores.csv",
        confidence=CONFIDENCE,
        alpha=ALPHA,
        tests=report.tests,
        unmeasured=report.unmeasured,
        verdicts=counts(report),
        claims=[_claim(each) for each in report.findings],
    )
    # By json and not by pydantic, which would write NaN as null where a number was forgotten.
    return json.dumps(record.model_dump(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def counts(report: ClaimsReport) -> dict[Verdict, int]:
    """How many claims have each verdict."""
    found = Counter(each.verdict for each in report.findings)
    return {verdict: found[verdict] for verdict in VERDICTS}


def _claim(found: JudgedClaim) -> ClaimRecord:
    claim = found.claim
    return ClaimRecord(
        id=claim.id,
        kind=claim.kind,
        statement=claim.statement,
        source=claim.source.model_dump(mode="json"),
        protocol=claim.protocol,
        data=claim.data.model_dump(mode="json"),
        expect=[
            {**each.model_dump(mode="json"), "precision": each.precision if each.printed else None}
            for each in claim.expect
        ],
        verdict=found.verdict,
        because=found.because,
        settle=found.settle,
        second=found.second,
        contrasts=[
            ContrastRecord(
                contrast=each.contrast.text,
                verdict=each.verdict,
                updates=dict(each.contrast.updates),
            )
            for each in found.outcomes
        ],
        measured=[_measured(m) for m in found.measured],
    )


def _measured(m: Measured) -> MeasuredRecord:
    return MeasuredRecord(
        contrast=m.contrast.text,
        metric=m.column.metric,
        protocol=m.column.protocol,
        label=m.column.label,
        role=m.role,
        speaks_for=m.speaks_for,
        printed=m.printed or None,
        window=(_finite(m.window[0]), _finite(m.window[1])),
        matters=_finite(m.matters),
        budgets=updates_text(m.contrast),
        n=m.n,
        seeds=m.seeds,
        value=_finite(m.value),
        low=_finite(m.low),
        high=_finite(m.high),
        p=m.found.p if m.found and m.contrast.paired else None,
        p_holm=_finite(m.p_holm),
        per_seed=m.per_seed,
        reason=m.reason,
        text=ours_text(m),
        verdict=m.verdict if m.role != "beside" else None,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def ours_text(m: Measured) -> str:
    """Write a value as printed, with its interval; a gain with its sign."""
    if not m.measured:
        return "not measured"
    value = number(m.value, m.column, signed=m.contrast.paired)
    if math.isnan(m.low):
        return value
    return f"{value} [{number(m.low, m.column)}, {number(m.high, m.column)}]"


def updates_text(contrast: Contrast) -> str:
    """Write the budgets that stand behind a difference; empty where nothing was trained."""
    known = [f"{name} {count:,}" for name, count in contrast.updates.items() if count is not None]
    return f"updates: {', '.join(known)}" if contrast.paired and known else ""


def to_markdown(report: ClaimsReport) -> str:
    """One table for each kind of claim."""
    summary = ", ".join(f"{count} {verdict}" for verdict, count in counts(report).items())
    parts = [
        f"<!-- written from results/{report.profile}/scores.csv and config/claims.yaml "
        "by `faithdiff claims`; do not edit -->",
        f"# Claims, tested on `{report.profile}`",
        f"{len(report.findings)} claims: {summary}. A claim that was not run has not passed.",
        "A gain is positive if the method is better, for every metric. n counts "
        "source pictures; their levels and crops are averaged. A direction needs an interval "
        f"without 0, a test that survives Holm's correction over the {report.tests} tests of this "
        "page, and a gain that matters. With one seed a verdict is about these trainings only; "
        "with several it is about methods. docs/claims.md explains the verdicts.",
        *([markdown_escape(report.unmeasured)] if report.unmeasured else []),
    ]
    for kind, title in TITLES.items():
        found = [each for each in report.findings if each.claim.kind == kind]
        if found:
            parts += [f"## {title}", "\n".join(_table(found))]
    return "\n\n".join(parts) + "\n"


def _table(findings: list[JudgedClaim]) -> Iterator[str]:
    yield "| " + " | ".join(HEAD) + " |"
    yield "|:--|:--|:--|--:|:--|:--|"
    for found in findings:
        yield "| " + " | ".join(_row(found)) + " |"


def _row(found: JudgedClaim) -> tuple[str, ...]:
    claim = found.claim
    where = f"{claim.source.document}, {claim.source.table}: {claim.source.row}"
    shown = [m for m in found.measured if m.measured]
    sizes = sorted({m.n for m in shown})
    why = [*found.because, *found.settle]
    return (
        f"{markdown_escape(claim.statement)}<br>"
        f"<sub>`{claim.id}`; {markdown_escape(where)}; {claim.source.confidence} confidence</sub>",
        "<br>".join(map(markdown_escape, published_text(found))),
        "<br>".join(map(markdown_escape, _measured_lines(shown))) or "–",
        ", ".join(map(str, sizes)) or "–",
        f"**{found.verdict}**" + (f"<br>{second_text(found)}" if found.second else ""),
        "<br>".join(map(markdown_escape, why)) or "–",
    )


def published_text(found: JudgedClaim) -> list[str]:
    """What the claim expects, a line for each metric."""
    return [
        f"{each.metric} {each.printed} (± {each.within:g} accepted)"
        if each.printed
        else f"{each.metric} {each.rule}"
        for each in found.claim.expect
    ]


def second_text(found: JudgedClaim) -> str:
    """Write the second verdict with the surrogates that it rests on."""
    labels = dict.fromkeys(m.column.label for m in found.measured if m.role == "second")
    return f"by {', '.join(labels)}: {found.second}"


def _measured_lines(shown: list[Measured]) -> Iterator[str]:
    """A line per contrast, with its budgets, and one per metric under it."""
    for contrast in dict.fromkeys(m.contrast.text for m in shown):
        own = [m for m in shown if m.contrast.text == contrast]
        yield " · ".join(filter(None, (contrast, updates_text(own[0].contrast))))
        for m in own:
            role = f" ({m.role})" if m.role != "decides" else ""
            p = "" if math.isnan(m.p_holm) else f", p {m.p_holm:.2g}"
            yield f"– {m.column.label} {ours_text(m)}{p}{role}"
