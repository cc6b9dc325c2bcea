"""The statistics of every comparison: images are the pairing unit.

Two methods are compared on the same images, so what is resampled is the per-image difference:
a percentile bootstrap for the interval, sign flips for the test, Holm over the tests of a table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
CONFIDENCE = 0.95
ALPHA = 0.05


def paired_bootstrap(
    difference: Floats, n: int, rng: np.random.Generator, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Compute the percentile bootstrap interval of the mean.

    Args:
        difference: One value per image ``(images,)``: the difference of two methods there, or
            the values of one method for the interval of its own mean.
        n: Resamples.
        rng: Where the resamples come from.
        confidence: Share of intervals that should hold the true mean.

    Returns:
        Lower and upper bound; both NaN for a single image, which says nothing about spread.
    """
    if len(difference) < 2:
        return math.nan, math.nan
    result = stats.bootstrap(
        (difference,),
        np.mean,
        n_resamples=n,
        confidence_level=confidence,
        method="percentile",
        rng=rng,
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def sign_flip_test(difference: Floats, n: int, rng: np.random.Generator) -> float:
    """Compute the two-sided p of the hypothesis that the difference is symmetric about zero.

    Args:
        difference: One value per image ``(images,)``.
        n: Sign patterns drawn; all ``2**images`` are used instead where they are no more than n.
        rng: Where the patterns come from.
    """
    if len(difference) < 2:
        return 1.0  # either sign of one value is as extreme as the other
    result = stats.permutation_test(
        (difference,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=n,
        alternative="two-sided",
        rng=rng,
    )
    return float(result.pvalue)


def holm(pvalues: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment: p-values that may be held against alpha one by one."""
    p = np.asarray(pvalues, dtype=float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]
