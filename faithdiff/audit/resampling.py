"""Bootstrap intervals and sign-flip tests of many cells on the same images at once.

The same statistics as :mod:`faithdiff.report.statistics`, as matrix products: one set of resamples
serves every cell that is measured on the same images, which makes thousands of cells a matter of
a second.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from faithdiff.report.statistics import CONFIDENCE, Floats
from faithdiff.seeds import numpy_rng

RESAMPLES = 10_000
# No profile's seed: two revisions may differ in theirs, and swapping them must only flip signs.
MASTER = 0
_CHUNK = 500  # resamples at a time: what bounds the memory at thousands of images


@dataclass(frozen=True)
class Resampled:
    """Of each cell: bounds of the mean's interval and two-sided p; ``(cells,)`` each."""

    low: Floats
    high: Floats
    p: Floats


def resample(values: Floats, *key: str, n: int = RESAMPLES) -> Resampled:
    """Bootstrap the means of cells and test them against zero by flipping signs.

    Args:
        values: ``(images, cells)``, a difference per image; rows in an order that depends on the
            images alone.
        key: What the images are: the place in the study that the draws are keyed by.
        n: Resamples, and sign patterns (all ``2**images`` where they are no more than that).
    """
    images, cells = values.shape
    if images < 2:
        nothing = np.full(cells, np.nan)
        return Resampled(nothing, nothing, np.ones(cells))
    means = np.concatenate([weights @ values for weights in _weights(images, n, key)])
    tail = (1 - CONFIDENCE) / 2
    # By way of the negative, so that swapping old and new mirrors the interval to the bit; plus
    # zero, which turns -0.0 into 0.0.
    low, high = np.quantile(means, tail, axis=0), -np.quantile(-means, tail, axis=0)
    return Resampled(low + 0.0, high + 0.0, _sign_flip(values, n, key))


def _weights(images: int, n: int, key: tuple[str, ...]) -> Iterator[Floats]:
    """Share of each image in each resample: ``(resamples, images)``, a chunk at a time."""
    rng = numpy_rng(MASTER, "audit-bootstrap", *key)
    for start in range(0, n, _CHUNK):
        size = min(_CHUNK, n - start)
        # Images drawn with replacement, counted in all resamples of the chunk at once.
        drawn = rng.integers(0, images, (size, images)) + np.arange(size)[:, None] * images
        counts = np.bincount(drawn.ravel(), minlength=size * images).reshape(size, images)
        yield np.asarray(counts / images, dtype=float)


def _sign_flip(values: Floats, n: int, key: tuple[str, ...]) -> Floats:
    images = len(values)
    observed = np.abs(values.sum(axis=0))
    # Equal up to rounding counts as equal: the observed pattern is one of those drawn.
    bound = observed * (1 - 1e-12)
    everything = 2**images <= n
    hits = np.zeros(values.shape[1])
    total = 0
    for signs in _all_signs(images) if everything else _drawn_signs(images, n, key):
        hits += (np.abs(signs @ values) >= bound).sum(axis=0)
        total += len(signs)
    return hits / total if everything else (hits + 1) / (total + 1)


def _all_signs(images: int) -> Iterator[Floats]:
    patterns = np.arange(2**images)[:, None] >> np.arange(images)
    yield np.asarray((patterns & 1) * 2.0 - 1.0, dtype=float)


def _drawn_signs(images: int, n: int, key: tuple[str, ...]) -> Iterator[Floats]:
    rng = numpy_rng(MASTER, "audit-sign-flip", *key)
    for start in range(0, n, _CHUNK):
        heads = rng.integers(0, 2, (min(_CHUNK, n - start), images))
        yield np.asarray(heads * 2.0 - 1.0, dtype=float)
