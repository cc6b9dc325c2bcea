"""Claims against scores: what was measured, the verdict, and what would settle an open one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from faithdiff.claims.measure import Contrast, Measured, Meter, contrasts
from faithdiff.claims.power import images_for_effect, images_for_width, smallest_effect
from faithdiff.claims.schema import Claim, Expect, SecondsTest
from faithdiff.claims.verdict import Verdict, combine, judge
from faithdiff.config import Profile
from faithdiff.report.cells import number
from faithdiff.report.statistics import ALPHA, holm


@dataclass(frozen=True)
class Finding:
    """A claim with its verdict.

    Attributes:
        because: The verdict in words, with every reason why something was not measured.
        settle: What would settle an inconclusive one; empty for the others.
        measured: Metrics that decide first, then those shown beside them.
    """

    claim: Claim
    verdict: Verdict
    because: tuple[str, ...]
    settle: tuple[str, ...] = ()
    measured: tuple[Measured, ...] = ()


@dataclass(frozen=True)
class Report:
    """All claims of a profile; `tests` is the number of p-values that Holm's rule shares."""

    profile: str
    findings: tuple[Finding, ...]
    tests: int


def evaluate(
    claims: Sequence[Claim], scores: pd.DataFrame, profile: Profile, manifest: dict[str, Any]
) -> Report:
    """Judge every claim.

    Args:
        claims: As :func:`faithdiff.claims.schema.load_claims` returns them.
        scores: As :func:`faithdiff.report.scores.load_scores` returns them; in any order.
        profile: Whose scores these are.
        manifest: ``manifest.json``, for the hardware; may be empty.
    """
    meter = Meter(scores, profile)
    found = [_measure(claim, meter, manifest) for claim in claims]
    family = [m for each in found for m in each.measured if m.directed and m.role != "beside"]
    adjusted = holm([m.p for m in family])
    p_holm = {id(m): p for m, p in zip(family, adjusted, strict=True)}
    judged = [_judge(each, p_holm, len(family)) for each in found]
    return Report(profile.profile, tuple(judged), len(family))


def _measure(claim: Claim, meter: Meter, manifest: dict[str, Any]) -> Finding:
    if reason := _incomparable(claim, meter.profile, manifest):
        return Finding(claim, "not comparable", (reason,))
    if isinstance(claim.test, SecondsTest):
        return Finding(claim, "not run", (f"measured by: {claim.test.measure}",))
    made = contrasts(claim, meter)
    if isinstance(made, str):
        return Finding(claim, "not run", (made,))
    deciding = _all(claim, made, claim.expect, meter, stands_in=False)
    because = _unmeasured(deciding)
    if because and claim.stand_in and not any(m.values for m in deciding):
        deciding = _all(claim, made, claim.stand_in, meter, stands_in=True)
        because += _unmeasured(deciding)
        names = ", ".join(meter.column(e.metric, claim.protocol).label for e in claim.stand_in)
        because = [f"decided on {names}, which stands in for the metrics of the claim", *because]
    beside = [
        meter.measure(claim, contrast, Expect(metric=metric, rule="better"), "beside")
        for contrast in made
        for metric in claim.beside
    ]
    shown = [m for m in beside if m.values]
    return Finding(claim, "not run", tuple(because), (), (*deciding, *shown))


def _all(
    claim: Claim,
    made: list[Contrast],
    expected: Sequence[Expect],
    meter: Meter,
    stands_in: bool,
) -> list[Measured]:
    role = "stands in" if stands_in else "decides"
    return [meter.measure(claim, c, expect, role) for c in made for expect in expected]  # type: ignore[arg-type]


def _unmeasured(measured: Sequence[Measured]) -> list[str]:
    return list(dict.fromkeys(m.reason for m in measured if m.reason))


def _incomparable(claim: Claim, profile: Profile, manifest: dict[str, Any]) -> str:
    """Why a published number cannot be held against this profile; empty if it can."""
    if claim.kind != "published":
        return ""
    if absent := [name for name in claim.data.datasets if name not in profile.data.test]:
        return (
            f"other data: the profile {profile.profile} has {', '.join(profile.data.test)}, the "
            f"claim is of {', '.join(absent)}"
        )
    if absent := [name for name in claim.data.levels if name not in profile.data.levels]:
        return f"other degradation: the profile has no level {', '.join(absent)}"
    if claim.protocol not in profile.score.protocols:
        return f"other protocol: the profile has no scores under {claim.protocol}"
    if isinstance(claim.test, SecondsTest):
        gpus = [gpu for each in manifest.get("machines", []) for gpu in _gpus(each)]
        if not any(claim.test.hardware in gpu for gpu in gpus):
            said = ", ".join(sorted(set(gpus))) or "no GPU"
            return f"other hardware: one {claim.test.hardware} there, {said} here"
    return ""


def _gpus(machine: dict[str, Any]) -> list[str]:
    return [str(gpu) for gpu in (machine.get("hardware") or {}).get("gpus", [])]


def _judge(found: Finding, p_holm: dict[int, float], tests: int) -> Finding:
    if not found.measured:
        return found
    alpha = ALPHA / max(tests, 1)
    measured = tuple(_decided(m, p_holm) for m in found.measured)
    deciding = [m for m in measured if m.role != "beside"]
    verdict = combine([m.verdict for m in deciding])
    settle: list[str] = []
    if verdict == "inconclusive":
        settle = [s for m in deciding if m.verdict == "inconclusive" for s in _settle(m, alpha)]
    return replace(found, verdict=verdict, settle=tuple(settle), measured=measured)


def _decided(m: Measured, p_holm: dict[int, float]) -> Measured:
    if not m.values:
        return m
    if m.role == "beside":
        return replace(m, verdict="inconclusive", window=(math.nan, math.nan))
    p = p_holm.get(id(m), math.nan)
    return replace(m, p_holm=p, verdict=judge(m.low, m.high, m.window, p))


def _settle(m: Measured, alpha: float) -> list[str]:
    """What this metric could have shown, and how much data would show what it did see."""
    values, column = np.array(m.values), m.column
    name = f"{column.label}, {m.contrast.text}"
    if m.directed:
        smallest = smallest_effect(values, alpha)
        needed = images_for_effect(values, m.value, alpha)
        text = (
            f"{name}: {m.n} images can show a gain of {number(smallest, column)} "
            f"(80% power, alpha {alpha:.2g}); {number(m.value, column, True)} was seen, "
            f"which needs {_images(needed)}"
        )
    else:
        room = min(abs(m.value - m.window[0]), abs(m.value - m.window[1]))
        needed = images_for_width(values, room, ALPHA)
        text = (
            f"{name}: the interval of {m.n} images is {number((m.high - m.low) / 2, column)} "
            f"wide to each side, the window ends {number(room, column)} away: {_images(needed)}"
        )
    return [text, *_seeds(m, alpha)]


def _images(needed: int | None) -> str:
    return "more images than is sensible" if needed is None else f"about {needed} images"


def _seeds(m: Measured, alpha: float) -> list[str]:
    """Trainings are a second source of chance, which images say nothing of."""
    if not m.contrast.paired:
        return []
    if len(m.per_seed) < 2:
        return ["1 training each: how much trainings differ is unknown (`seeds` in the profile)"]
    needed = images_for_effect(np.array(m.per_seed), m.value, alpha)
    count = "more trainings than is sensible" if needed is None else f"about {needed} trainings"
    spread = number(float(np.std(m.per_seed, ddof=1)), m.column)
    return [f"between {len(m.per_seed)} trainings it varies by {spread} (SD): {count}"]
