"""From an interval and a rule to a verdict, and from several verdicts to one.

A verdict is monotone: less certainty or less data never makes a *reproduced*.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from faithdiff.report.statistics import ALPHA

Verdict = Literal["reproduced", "not reproduced", "inconclusive", "not comparable", "not run"]
VERDICTS: tuple[Verdict, ...] = (
    "reproduced", "not reproduced", "inconclusive", "not comparable", "not run"
)  # fmt: skip
Window = tuple[float, float]


def judge(low: float, high: float, window: Window, p: float) -> Verdict:
    """Hold an interval against a window of acceptance.

    Args:
        low: Bounds of the interval, with `high`; NaN where nothing is known of the spread.
        window: What would reproduce the claim; a direction is open to infinity.
        p: Adjusted p of "no effect"; read for directions, whose window ends at zero.
    """
    if math.isnan(low) or math.isnan(high):
        return "inconclusive"
    chance = any(map(math.isinf, window)) and not p < ALPHA
    if chance:
        return "inconclusive"
    if window[0] < low and high < window[1]:
        return "reproduced"
    if high < window[0] or window[1] < low:
        return "not reproduced"
    return "inconclusive"


def combine(verdicts: Sequence[Verdict]) -> Verdict:
    """Sum up a claim that says several things: it is reproduced only where all of them are.

    One thing that is wrong decides; else one that was not run or not comparable keeps the claim
    from a verdict.
    """
    for worst in ("not reproduced", "not comparable", "not run", "inconclusive"):
        if worst in verdicts:
            return worst
    return "reproduced" if verdicts else "not run"
