"""What an inconclusive comparison could have shown, and how much data would settle it.

The paired t-test's power, two-sided: an effect is seen with probability 80% where it is at least
``(t(1 - alpha/2) + t(0.8)) * sd / sqrt(n)``. The tests of the suite are sign flips, which agree
with it closely at these numbers of images.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import special

from faithdiff.report.statistics import Floats

POWER = 0.8
MOST = 10_000_000  # more than this is no advice


def smallest_effect(difference: Floats, alpha: float) -> float:
    """The smallest true mean that this many images would show with 80% power; NaN for one."""
    n = len(difference)
    return _factor(n, alpha) * _spread(difference) if n > 1 else math.nan


def images_for_effect(difference: Floats, effect: float, alpha: float) -> int | None:
    """Images that would show an effect of this size; None where it would take ten million."""
    sd = _spread(difference)
    return _smallest(lambda n: _factor(n, alpha) * sd <= abs(effect))


def images_for_width(difference: Floats, half_width: float, alpha: float) -> int | None:
    """Images that would make the interval no wider than ``2 * half_width``."""
    sd = _spread(difference)
    return _smallest(lambda n: _quantile(1 - alpha / 2, n) * sd / math.sqrt(n) <= half_width)


def _spread(difference: Floats) -> float:
    return float(np.std(difference, ddof=1)) if len(difference) > 1 else math.inf


def _factor(n: int, alpha: float) -> float:
    return (_quantile(1 - alpha / 2, n) + _quantile(POWER, n)) / math.sqrt(n)


def _quantile(share: float, n: int) -> float:
    return float(special.stdtrit(n - 1, share))


def _smallest(enough: Callable[[int], bool]) -> int | None:
    """The smallest n from 2 on; `enough` is monotone, so a bisection finds it."""
    high = 2
    while not enough(high):
        high *= 2
        if high > MOST:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
