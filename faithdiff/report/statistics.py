"""The statistics of every comparison: source pictures are the pairing unit.

Two methods are compared on the same pictures, so the unit is the difference on a picture. Where a
study has several trainings (seeds), what is said is of methods, and trainings count as a second
source of chance, crossed with pictures.

- Interval over pictures: of Student's t and the studentised bootstrap, the wider on each side. The
  bootstrap follows skewed differences, which t misses (coverage .90 at 10 pictures with exponential
  differences); t holds where half of the differences are zero, which the bootstrap misses (.89).
  tests/report/test_statistics.py checks the coverage of both together by simulation.
- Test over pictures: sign flips, all patterns up to 20 pictures, drawn ones beyond.
- Trainings: the analysis of variance of the crossed layout says whether they differ by more than
  pictures and noise explain; if so, their spread widens the interval with Student's t of trainings
  minus 1 degrees of freedom (the two distances added as squares). A bootstrap of three trainings
  would be too narrow, and a sign-flip test of three cannot reach p < .05.
- Holm over the tests of a table.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from faithdiff.study.seeds import numpy_rng

Floats = NDArray[np.float64]
CONFIDENCE = 0.95
ALPHA = 0.05
# All patterns of 20 pictures resolve p to 2e-6, far below what any correction here asks for.
EXACT = 20  # pictures up to which all 2**pictures sign patterns are counted
_CHUNK = 500  # resamples at a time: what bounds the memory at thousands of pictures
_KEPT = 2_000_000  # entries of resamples that are kept for the next cell on the same pictures


@dataclass(frozen=True)
class Draws:
    """Where random draws come from: how many, and what they are keyed by.

    The key is the place in the study and not the method, so that a further row or column changes no
    other number.
    """

    n: int
    master: int
    key: tuple[str | int, ...]

    def rng(self, purpose: str) -> np.random.Generator:
        """Return a generator for one purpose at this place."""
        return numpy_rng(self.master, purpose, *self.key)


@dataclass(frozen=True)
class Intervals:
    """Of each cell: the mean's interval over pictures and the two-sided p; ``(cells,)`` each."""

    low: Floats
    high: Floats
    p: Floats


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95% interval and its test against zero.

    Attributes:
        p: Two-sided; 1 for a single picture.
        pictures: How many there are; `trainings` likewise.
        picture_error: Standard error of the mean over pictures, given these trainings.
        training_error: What trainings add to it; 0 where they agree or there is only one.
    """

    mean: float
    low: float
    high: float
    p: float
    pictures: int
    trainings: int
    picture_error: float
    training_error: float

    def reach(self, tail: float) -> float:
        """Distance from the true mean that the estimate exceeds with this probability."""
        pictures = quantile(1 - tail, self.pictures) * self.picture_error
        if not self.training_error:
            return pictures
        return math.hypot(pictures, quantile(1 - tail, self.trainings) * self.training_error)


def estimate(values: Floats, draws: Draws) -> Estimate:
    """Estimate a mean over trainings and pictures.

    Args:
        values: ``(trainings, pictures)``: the difference of two methods there, or the values of one
            method for the interval of its own mean.
        draws: For the bootstrap and, beyond 20 pictures, the sign flips.

    Returns:
        Bounds and errors are NaN for a single picture, which says nothing about spread.
    """
    trainings, pictures = values.shape
    # Trainings are averaged before anything is tested: two trainings on one picture share that
    # picture, and as separate values they would count its difficulty twice.
    own = values.mean(axis=0)
    # Paired: pictures differ among each other far more than methods do on one picture, and only the
    # differences are free of that spread.
    over_pictures = intervals(own[:, None], draws)
    mean, p = float(own.mean()), float(over_pictures.p[0])
    low, high = float(over_pictures.low[0]), float(over_pictures.high[0])
    if pictures < 2:
        return Estimate(mean, low, high, p, pictures, trainings, math.nan, 0.0)
    error = float(own.std(ddof=1)) / math.sqrt(pictures)
    extra = training_error(values)
    if extra:
        reach = quantile(0.5 + CONFIDENCE / 2, trainings) * extra
        low, high = mean - math.hypot(mean - low, reach), mean + math.hypot(high - mean, reach)
    found = Estimate(mean, low, high, p, pictures, trainings, error, extra)
    # Sign flips take the trainings as given; with more of them the test must hold for others, too.
    return found if trainings < 2 else replace(found, p=max(p, _crossed_p(found)))


def training_error(values: Floats) -> float:
    """Compute what trainings add to the standard error of the mean of ``(trainings, pictures)``.

    Zero where the mean square of trainings is no larger than that of the interaction: then they
    differ by no more than chance. With two trainings this comparison says too little to rely on.
    """
    trainings, pictures = values.shape
    if trainings < 2:
        return 0.0
    rows, grand = values.mean(axis=1), values.mean()
    rest = values - rows[:, None] - values.mean(axis=0) + grand
    between = pictures * float(((rows - grand) ** 2).sum()) / (trainings - 1)
    within = float((rest**2).sum()) / ((trainings - 1) * max(pictures - 1, 1))
    # Where trainings differ by no more than the interaction, their mean square estimates the same
    # noise that the pictures already show: adding it would count that noise twice.
    if trainings > 2 and between <= within:
        return 0.0
    return math.sqrt(between / values.size)


def _crossed_p(found: Estimate) -> float:
    """Two-sided p at which the interval of the crossed layout would just touch zero."""
    if found.mean == 0:
        return 1.0
    if not found.picture_error and not found.training_error:
        return 0.0
    # By bisection: the sum of two t parts has no distribution function to invert. In logarithms,
    # because Holm multiplies p by the number of tests, which leaves tiny ones to be told apart.
    low, high = -60.0, math.log(0.5)  # of the logarithm of one tail
    for _ in range(60):
        middle = (low + high) / 2
        wide = found.reach(math.exp(middle)) > abs(found.mean)
        low, high = (middle, high) if wide else (low, middle)
    return 2 * math.exp(high)


def quantile(share: float, n: int) -> float:
    """Student's t for the mean of n."""
    from scipy import special  # here: a plan reads the claims, and takes no quantile of them

    return float(special.stdtrit(n - 1, share))


def intervals(values: Floats, draws: Draws) -> Intervals:
    """Compute intervals and sign-flip tests of many cells on the same pictures at once.

    Args:
        values: ``(pictures, cells)``, rows in an order that depends on the pictures alone.
        draws: One set of resamples serves every cell.
    """
    pictures, cells = values.shape
    if pictures < 2:
        nothing = np.full(cells, np.nan)
        return Intervals(nothing, nothing, np.ones(cells))
    mean = values.mean(axis=0)
    error = values.std(axis=0, ddof=1) / math.sqrt(pictures)
    reach = quantile(0.5 + CONFIDENCE / 2, pictures)
    # Studentised and not percentile: with 10 pictures a percentile interval is too narrow, since
    # the spread of a resample is smaller than that of what it is drawn from.
    t = np.concatenate(list(_studentised(values - mean, draws)))
    tail = (1 - CONFIDENCE) / 2
    # By way of the negative, so that negated values mirror the interval to the bit.
    below = np.maximum(-np.quantile(-t, tail, axis=0), reach)
    above = np.maximum(-np.quantile(t, tail, axis=0), reach)
    # Plus zero turns -0.0 into 0.0.
    return Intervals(
        mean - below * error + 0.0, mean + above * error + 0.0, sign_flips(values, draws)
    )


def _studentised(centred: Floats, draws: Draws) -> Iterator[Floats]:
    """Means of resamples in their own standard errors, ``(resamples, cells)``, in chunks.

    A resample without spread, such as ten times the same picture, says nothing and counts as zero.
    """
    pictures = len(centred)
    # Means and variances of all resamples are two matrix products with the shares; a gather of the
    # resampled values would take as many times the memory as there are cells.
    squares = centred**2
    least = 1e-14 * squares.mean(axis=0)
    for share in _shares(pictures, draws):
        means = share @ centred
        variance = share @ squares - means**2
        sound = variance > least
        errors = np.sqrt(np.where(sound, variance, 1.0) / (pictures - 1))
        yield np.where(sound, means / errors, 0.0)


def _shares(pictures: int, draws: Draws) -> Iterator[Floats]:
    """Share of each picture in each resample: ``(resamples, pictures)``, a chunk at a time."""
    if pictures * draws.n <= _KEPT:
        return iter(_kept(pictures, draws))
    return _drawn(pictures, draws)


@functools.lru_cache(maxsize=8)
def _kept(pictures: int, draws: Draws) -> tuple[Floats, ...]:
    return tuple(_drawn(pictures, draws))


def _drawn(pictures: int, draws: Draws) -> Iterator[Floats]:
    rng = draws.rng("bootstrap")
    for start in range(0, draws.n, _CHUNK):
        size = min(_CHUNK, draws.n - start)
        # Pictures drawn with replacement, counted in all resamples of the chunk at once.
        drawn = rng.integers(0, pictures, (size, pictures)) + np.arange(size)[:, None] * pictures
        counts = np.bincount(drawn.ravel(), minlength=size * pictures).reshape(size, pictures)
        yield np.asarray(counts / pictures, dtype=float)


def sign_flips(values: Floats, draws: Draws) -> Floats:
    """Compute the two-sided p of the hypothesis that differences are symmetric about zero.

    Args:
        values: ``(pictures, cells)``.
        draws: For the sign patterns beyond 20 pictures; up to there all of them are counted.
    """
    pictures = len(values)
    if pictures < 2:
        return np.ones(values.shape[1])  # either sign of one value is as extreme as the other
    # Equal up to rounding counts as equal: the observed pattern is one of those counted.
    bound = np.abs(values.sum(axis=0)) - 1e-12 * np.abs(values).sum(axis=0)
    if pictures <= EXACT:
        return np.array([_all_signs(*each) for each in zip(values.T, bound, strict=True)])
    # Sign flips and not a rank test: a flip keeps the size of each difference, and a rank test
    # would judge another quantity than the mean that the table prints.
    hits = np.zeros(values.shape[1])
    rng = draws.rng("sign-flip")
    for start in range(0, draws.n, _CHUNK):
        heads = rng.integers(0, 2, (min(_CHUNK, draws.n - start), pictures))
        hits += (np.abs((heads * 2.0 - 1.0) @ values) >= bound).sum(axis=0)
    # The observed pattern counts as one of the drawn: else p could be 0, which no number of random
    # patterns can show.
    return np.asarray((hits + 1) / (draws.n + 1), dtype=float)


def smallest_p(pictures: int, n: int) -> float:
    """Return the smallest p that sign flips of so many pictures reach with n drawn patterns."""
    return 2.0 ** (1 - pictures) if pictures <= EXACT else 1 / (n + 1)


def _all_signs(values: Floats, bound: float) -> float:
    """Share of the ``2**pictures`` signed sums that are at least `bound` away from zero.

    The sums of the first half of the pictures meet the sorted sums of the second half, which counts
    a million patterns by a thousand searches.
    """
    if bound <= 0:
        return 1.0
    half = len(values) // 2
    first, second = _signed_sums(values[:half]), np.sort(_signed_sums(values[half:]))
    above = len(second) - np.searchsorted(second, bound - first, side="left")
    return 2 * float(above.sum()) / 2 ** len(values)  # below -bound there are as many


def _signed_sums(values: Floats) -> Floats:
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums - value, sums + value])
    return sums


def holm(pvalues: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment: p-values that may be held against alpha one by one."""
    p = np.asarray(pvalues, dtype=float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]
