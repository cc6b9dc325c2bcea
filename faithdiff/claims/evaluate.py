"""Claims against scores: what was measured, the verdict, and what would settle an open one."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from faithdiff.claims.measure import Contrast, Measured, Meter, contrasts
from faithdiff.claims.power import smallest_effect
from faithdiff.claims.schema import Claim, Claims, Expect, GainTest, Need, SecondsTest
from faithdiff.claims.verdict import (
    VARIES,
    YES,
    Verdict,
    agree,
    by_surrogate,
    combine,
    judge_direction,
    judge_order,
    judge_value,
    of_contrasts,
)
from faithdiff.config import Profile
from faithdiff.report.cells import number
from faithdiff.report.measured import counted
from faithdiff.report.statistics import ALPHA, holm
from faithdiff.report.tables import metric_columns


@dataclass(frozen=True)
class Outcome:
    """One contrast of a claim with its verdict."""

    contrast: Contrast
    verdict: Verdict


@dataclass(frozen=True)
class JudgedClaim:
    """A claim with its verdict.

    Attributes:
        because: The verdict in words, with every reason why something was not measured.
        settle: What would settle an inconclusive one; empty for the others.
        measured: Metrics that decide first, then the second verdict's, then those shown beside.
        outcomes: The verdict of each contrast.
        second: The verdict of the surrogates that the claim names besides; None where none was
            measured. It never enters `verdict`.
    """

    claim: Claim
    verdict: Verdict
    because: tuple[str, ...]
    settle: tuple[str, ...] = ()
    measured: tuple[Measured, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    second: Verdict | None = None


@dataclass(frozen=True)
class ClaimsReport:
    """All claims of a profile.

    Attributes:
        tests: Number of p-values that Holm's rule shares.
        unmeasured: Which metrics were not measured, and the command that brings them.
    """

    profile: str
    findings: tuple[JudgedClaim, ...]
    tests: int
    unmeasured: str = ""


def evaluate(
    claims: Claims, scores: pd.DataFrame, profile: Profile, gpus: Collection[str] = ()
) -> ClaimsReport:
    """Judge every claim.

    Args:
        claims: As :func:`faithdiff.claims.schema.load_claims` returns them.
        scores: As :func:`faithdiff.report.scores.load_scores` returns them; in any order.
        profile: Whose scores these are.
        gpus: Those that the images were restored on, by name.
    """
    meter = Meter(scores, profile)
    # All are measured before any is judged: Holm's correction needs the p-values of the page.
    found = [_measure(claim, claims, meter, gpus) for claim in claims.claims]
    tests = sum(m.tested for each in found for m in each.measured)
    # One family for the page: whoever reads 30 verdicts looks for the few that stand out, and at p
    # < .05 each, one or two would by chance.
    corrected = _corrected([m for each in found for m in each.measured])
    judged = [
        _judge(replace(each, measured=tuple(next(corrected) for _ in each.measured)), claims, tests)
        for each in found
    ]
    _, unmeasured = counted(scores, metric_columns(profile))
    return ClaimsReport(profile.profile, tuple(judged), tests, unmeasured)


def _measure(claim: Claim, claims: Claims, meter: Meter, gpus: Collection[str]) -> JudgedClaim:
    if reason := _incomparable(claim, meter.profile, gpus):
        return JudgedClaim(claim, "not comparable", (reason,))
    if isinstance(claim.test, SecondsTest):
        # Never taken from the log of a run: seconds need a warm machine with nothing else on it.
        return JudgedClaim(claim, "not run", (f"measured by: {claim.test.measure}",))
    made = contrasts(claim, meter)
    deciding = [m for contrast in made for m in _deciding(claim, claims, contrast, meter)]
    extra = [("second", each) for each in claim.second]
    extra += [("beside", Expect(metric=metric, rule="better")) for metric in claim.beside]
    others = [
        meter.measure(claim, contrast, expect, role, claims.matters_of(claim, expect.metric))  # type: ignore[arg-type]
        for role, expect in extra
        for contrast in made
    ]
    # What decided is not shown again as an aside, which would look like further evidence.
    decided = {(m.contrast.text, m.column.metric) for m in deciding if m.measured}
    shown = [
        m
        for m in others
        if m.measured and (m.role == "second" or (m.contrast.text, m.column.metric) not in decided)
    ]
    return JudgedClaim(claim, "not run", (), (), (*deciding, *shown))


def _deciding(claim: Claim, claims: Claims, contrast: Contrast, meter: Meter) -> list[Measured]:
    """What decides a contrast: each expected metric, or its surrogates where it has no value."""
    found: list[Measured] = []
    surrogates: dict[str, Measured] = {}
    for expect in claim.expect:
        matters = claims.matters_of(claim, expect.metric)
        own = meter.measure(claim, contrast, expect, "decides", matters)
        found.append(own)
        # A surrogate has its direction in common with the metric and not its scale, so it can stand
        # in for a direction but never for a printed number.
        if own.measured or contrast.missing or not expect.rule:
            continue
        for name in claims.surrogates_of(claim, expect.metric):
            if known := surrogates.get(name):
                both = (*known.speaks_for, expect.metric)
                surrogates[name] = replace(known, speaks_for=both)
                continue
            asked = Expect(metric=name, rule=expect.rule)
            other = meter.measure(
                claim, contrast, asked, "surrogate", claims.matters_of(claim, name)
            )
            if other.measured:
                surrogates[name] = replace(other, speaks_for=(expect.metric,))
    return [*found, *surrogates.values()]


def _corrected(measured: Sequence[Measured]) -> Iterator[Measured]:
    """Correct p over all tests of the page; and that of each training as if there were no other."""
    family = [i for i, m in enumerate(measured) if m.tested]
    adjusted = dict(
        zip(family, holm([each.p for i in family if (each := measured[i].found)]), strict=True)
    )
    singly: dict[tuple[int, int], float] = {}
    # Each training as if it were the only one, with a correction of its own: that is the verdict a
    # study with one seed would have printed, and it tells luck from effect.
    for seed in sorted({seed for i in family for seed in measured[i].singly}):
        own = [i for i in family if seed in measured[i].singly]
        values = holm([measured[i].singly[seed].p for i in own])
        singly |= {(i, seed): p for i, p in zip(own, values, strict=True)}
    for i, m in enumerate(measured):
        alone = {
            seed: replace(each, p=singly.get((i, seed), math.nan))
            for seed, each in m.singly.items()
        }
        yield replace(m, p_holm=adjusted.get(i, math.nan), singly=alone)


def _incomparable(claim: Claim, profile: Profile, gpus: Collection[str]) -> str:
    """Why a published number cannot be held against this profile; empty if it can."""
    if claim.kind != "published":
        return ""
    # Other images, another degradation or another definition of the metric: the difference to a
    # printed number would measure those, and no tolerance can make up for it.
    if absent := [name for name in claim.data.datasets if name not in profile.data.test]:
        return (
            f"other data: the profile {profile.profile} has {', '.join(profile.data.test)}, the "
            f"claim is of {', '.join(absent)}"
        )
    if absent := [name for name in claim.data.levels if name not in profile.data.levels]:
        return f"other degradation: the profile has no level {', '.join(absent)}"
    if claim.protocol not in profile.score.protocols:
        return f"other protocol: the profile has no scores under {claim.protocol}"
    wanted = claim.test.hardware if isinstance(claim.test, SecondsTest) else ""
    if wanted and not any(wanted in gpu for gpu in gpus):
        said = ", ".join(sorted(set(gpus))) or "no GPU"
        return f"other hardware: one {wanted} there, {said} here"
    return ""


def _judge(found: JudgedClaim, claims: Claims, tests: int) -> JudgedClaim:
    if not found.measured:
        return found
    claim = found.claim
    measured = tuple(_decided(m, claims.surrogate_metrics) for m in found.measured)
    made = list(dict.fromkeys(m.contrast.text for m in measured))
    outcomes = [
        Outcome(own[0].contrast, _of_contrast(claim, own))
        for own in ([m for m in measured if m.contrast.text == text] for text in made)
    ]
    # What a missing contrast means depends on the claim: see `Need` in the schema.
    need: Need = claim.test.need if isinstance(claim.test, GainTest) else "all"
    absent = [bool(each.contrast.missing) for each in outcomes]
    verdict = of_contrasts([each.verdict for each in outcomes], absent, need)
    # What could have been shown is computed at the strictest step of Holm: the promise then holds
    # wherever in the order the claim stands.
    alpha = ALPHA / max(tests, 1)
    settle: list[str] = []
    if verdict in ("inconclusive", VARIES):
        open_ones = [
            m
            for m in measured
            if m.verdict in ("inconclusive", VARIES) and m.role in ("decides", "surrogate")
        ]
        settle = [line for m in open_ones for line in _settle(m, alpha)]
    return replace(
        found,
        verdict=verdict,
        because=tuple(_because(claim, measured, outcomes, need)),
        settle=tuple(dict.fromkeys(settle)),
        measured=measured,
        outcomes=tuple(outcomes),
        second=_second(measured, outcomes, need),
    )


def _second(
    measured: Sequence[Measured], outcomes: Sequence[Outcome], need: Need
) -> Verdict | None:
    """The verdict of the surrogates named besides; None where none was measured."""
    found = [m for m in measured if m.role == "second"]
    if not found:
        return None
    texts = [outcome.contrast.text for outcome in outcomes]
    verdicts = [combine([m.verdict for m in found if m.contrast.text == text]) for text in texts]
    absent = [bool(outcome.contrast.missing) for outcome in outcomes]
    return of_contrasts(verdicts, absent, need)


def _of_contrast(claim: Claim, own: Sequence[Measured]) -> Verdict:
    """Each expected metric by itself or by its surrogates, then all of them together."""
    verdicts: list[Verdict] = []
    for expect in claim.expect:
        speaking = [m for m in own if expect.metric in m.speaks_for]
        surrogates = [m.verdict for m in speaking if m.role == "surrogate"]
        itself = [m.verdict for m in speaking if m.role == "decides"]
        verdicts.append(agree(surrogates) if surrogates else combine(itself))
    return combine(verdicts)


def _decided(m: Measured, surrogates: set[str]) -> Measured:
    if not m.measured:
        return m
    # Shown for context; a metric that was not named beforehand must not become a verdict.
    if m.role == "beside":
        return replace(m, verdict="inconclusive", window=(math.nan, math.nan))
    if m.found is None and m.rule:
        return replace(m, verdict=judge_order(m.value, m.low, m.high, m.rule))
    if m.found is None:
        return replace(m, verdict=judge_value(m.value, m.low, m.high, m.window))
    verdict = judge_direction(m.value, m.low, m.high, m.p_holm, m.rule, m.matters)
    # A single training that would have said yes is named: it is the trap of one-seed studies.
    if verdict == "inconclusive" and any(
        judge_direction(e.mean, e.low, e.high, e.p, m.rule, m.matters) in YES
        for e in m.singly.values()
    ):
        verdict = VARIES
    return replace(m, verdict=by_surrogate(verdict) if m.column.metric in surrogates else verdict)


def _because(
    claim: Claim, measured: Sequence[Measured], outcomes: Sequence[Outcome], need: str
) -> Iterator[str]:
    """The verdict in words: what decided, what was missing, and what stands against it."""
    surrogates = [m for m in measured if m.role == "surrogate"]
    reasons = dict.fromkeys(m.reason for m in measured if m.reason)
    if surrogates:
        names = " and ".join(dict.fromkeys(m.column.label for m in surrogates))
        lost = {name for m in surrogates for name in m.speaks_for}
        labels = [m.column.label for m in measured if set(m.speaks_for) & lost and not m.measured]
        of = ", ".join(dict.fromkeys(labels))
        yield f"decided by {names} instead of {of}: they can support a claim, but not reproduce it"
        # The page says once which metrics the surrogates replace (`unmeasured`).
        reasons = {reason: None for reason in reasons if " unavailable: " not in reason}
    yield from reasons
    for outcome in outcomes if len(outcomes) > 1 else ():
        yield f"{outcome.contrast.text}: {outcome.verdict}"
    if need == "agreement" and len({outcome.verdict for outcome in outcomes}) > 1:
        yield "these are readings of one question: it stays open until all have run and agree"
    if need == "present" and any(outcome.contrast.missing for outcome in outcomes):
        yield "decided by the comparisons that this profile has"
    if any(m.measured and m.found is None and not m.per_seed for m in measured):
        yield (
            "decided only by the means on a fixed test set; the effect of another degradation, "
            "sampler seed or training is unknown with 1 seed"
        )
    for m in measured:
        if m.verdict == VARIES:
            held = [
                str(seed)
                for seed, e in m.singly.items()
                if judge_direction(e.mean, e.low, e.high, e.p, m.rule, m.matters) in YES
            ]
            yield (
                f"{m.column.label}, {m.contrast.text}: holds in the training of seed "
                f"{', '.join(held)} alone, not over {len(m.singly)} trainings"
            )
        elif m.verdict == "no effect that matters":
            yield (
                f"{m.column.label}, {m.contrast.text}: the whole interval is within "
                f"±{number(m.matters, m.column)}, the smallest gain that matters"
            )
        elif m.verdict == "inconclusive" and m.tested and _too_small(m):
            yield (
                f"{m.column.label}, {m.contrast.text}: the sign is clear, but the estimate is less "
                f"than {number(m.matters, m.column)}, the smallest gain that matters, and the "
                "interval extends beyond it"
            )


def _too_small(m: Measured) -> bool:
    return (m.low > 0 or m.high < 0) and m.p_holm < ALPHA and abs(m.value) < m.matters


def _settle(m: Measured, alpha: float) -> list[str]:
    """What this metric could have shown, and what keeps it open."""
    name = f"{m.column.label}, {m.contrast.text}"
    if m.found is None:
        half = number((m.high - m.low) / 2, m.column)
        return [
            f"{name}: the interval over {len(m.per_seed)} seeds is {half} wide on each side and "
            "contains both answers"
        ]
    n, k = m.n, max(len(m.per_seed), 1)
    smallest = number(smallest_effect(m.found, alpha), m.column)
    many = f"{n} pictures{f' and {k} trainings' if k > 1 else ''}"
    lines = [
        f"{name}: {many} can show a gain of {smallest} (80% power, alpha {alpha:.2g}); one of "
        f"{number(m.matters, m.column)} would matter"
    ]
    if k > 1:
        spread = number(float(np.std(m.per_seed, ddof=1)), m.column)
        lines.append(f"{name}: the SD between {k} trainings is {spread}")
    else:
        lines.append(
            "1 training each: the difference between trainings is unknown (`seeds` in the profile)"
        )
    return lines
