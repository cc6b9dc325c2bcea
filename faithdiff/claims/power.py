"""What an inconclusive comparison could have shown.

A statement of the design, not of the gain that was seen: a sample size computed from an observed
gain near zero only restates its p-value. Power of the paired t-test, two-sided: a gain is seen with
probability 80% where it is at least ``(t(1 - alpha/2) + t(0.8)) * standard error``; where trainings
add to the error, each part has its own t. Sign flips agree with it closely from 10 pictures on.
"""

from __future__ import annotations

import math

from faithdiff.report.statistics import Estimate

POWER = 0.8


def smallest_effect(found: Estimate, alpha: float) -> float:
    """The smallest true gain that would be shown with 80% power; NaN for a single picture."""
    if found.pictures < 2:
        return math.nan
    return found.reach(alpha / 2) + found.reach(1 - POWER)
