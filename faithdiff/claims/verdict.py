"""From a measurement and a rule to a verdict, and from several verdicts to one.

A verdict is monotone: less certainty or less data never makes a *reproduced*.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

from faithdiff.claims.schema import Need
from faithdiff.report.statistics import ALPHA

Verdict = Literal[
    "reproduced", "not reproduced", "supported by a surrogate", "not supported by a surrogate",
    "mixed", "no effect that matters", "inconclusive", "inconclusive: varies between trainings",
    "not comparable", "not run",
]  # fmt: skip
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
VARIES: Verdict = "inconclusive: varies between trainings"
YES: tuple[Verdict, ...] = ("reproduced", "supported by a surrogate")
NO: tuple[Verdict, ...] = ("not reproduced", "not supported by a surrogate")
# Of several things that a claim says, the first of these that one of them got decides.
_WORST: tuple[Verdict, ...] = (
    "not reproduced", "not supported by a surrogate", "not comparable", "not run", "mixed", VARIES,
    "inconclusive", "no effect that matters", "supported by a surrogate", "reproduced",
)  # fmt: skip
Window = tuple[float, float]


def judge_direction(
    value: float, low: float, high: float, p: float, rule: str, matters: float
) -> Verdict:
    """Judge a gain.

    Args:
        value: Its estimate, with the bounds `low` and `high` of its interval; those are NaN where
            nothing is known of the spread.
        p: Adjusted p of "no effect".
        rule: What the claim says: better or worse.
        matters: The smallest gain of interest.
    """
    if math.isnan(low) or math.isnan(high):
        return "inconclusive"
    # An equivalence test by interval: absence of an effect is a finding only where the whole
    # interval is too small to matter. A large p alone would reward a study for few pictures.
    if -matters < low and high < matters:
        return "no effect that matters"
    significant = (low > 0 or high < 0) and p < ALPHA
    # An estimate too small to matter stays open however clear its sign: were its interval
    # narrower, the answer might be "no effect that matters".
    if not significant or abs(value) < matters:
        return "inconclusive"
    return "reproduced" if (value > 0) == (rule == "better") else "not reproduced"


def judge_order(value: float, low: float, high: float, rule: str) -> Verdict:
    """Judge which of two means is better on a fixed test set; arguments as for a value.

    However small the lead is: some that the paper prints are smaller than what would matter.
    """
    if math.isnan(low) or math.isnan(high):
        low = high = value
    if low <= 0 <= high:
        return "inconclusive"
    return "reproduced" if (low > 0) == (rule == "better") else "not reproduced"


def judge_value(value: float, low: float, high: float, window: Window) -> Verdict:
    """Judge a mean on a fixed test set, which repetitions alone can change.

    Args:
        value: The mean over all images, with the bounds of its interval over repetitions; those
            are NaN for a single one, and then the mean alone is held against the window.
        window: What would reproduce the printed value.
    """
    if math.isnan(low) or math.isnan(high):
        low = high = value
    # A value at the very end of the window is inside, whatever its last bit.
    room = 1e-9 * max(1.0, *map(abs, window))
    if window[0] - room <= low and high <= window[1] + room:
        return "reproduced"
    if high < window[0] or window[1] < low:
        return "not reproduced"
    return "inconclusive"


def by_surrogate(verdict: Verdict) -> Verdict:
    """Weaken the verdict of a metric that speaks for another."""
    if verdict == "reproduced":
        return "supported by a surrogate"
    return "not supported by a surrogate" if verdict == "not reproduced" else verdict


def agree(surrogates: Sequence[Verdict]) -> Verdict:
    """Sum up the surrogates of one metric: two that contradict each other are never hidden."""
    found = set(surrogates)
    other = found & {*NO, "no effect that matters"}
    return "mixed" if found & set(YES) and other else combine(surrogates)


def combine(verdicts: Sequence[Verdict]) -> Verdict:
    """Sum up a claim that says several things: it is reproduced only where all of them are.

    One thing that is wrong decides; else one that was not run or not comparable keeps the claim
    from a verdict.
    """
    found = set(verdicts)
    worst: Verdict = next((verdict for verdict in _WORST if verdict in found), "not run")
    if worst == "no effect that matters" and found & set(YES):
        return "mixed"  # one half holds, the other has no effect: neither word is true of the whole
    return worst


def of_contrasts(verdicts: Sequence[Verdict], absent: Sequence[bool], need: Need) -> Verdict:
    """Sum up the contrasts of a claim.

    Args:
        verdicts: One per contrast.
        absent: Whether the profile lacks the methods of that contrast.
        need: See :data:`faithdiff.claims.schema.Need`.
    """
    present = [v for v, missing in zip(verdicts, absent, strict=True) if not missing]
    if need == "all":
        return combine(verdicts)
    if need == "present" or not present:
        return combine(present)
    if "not run" in present:
        return "not run"  # a reading that is there and was not measured keeps the question open
    whole = len(present) == len(verdicts) and len(set(present)) == 1
    return combine(present) if whole else "inconclusive"
