"""Intervals and tests: how often they hold, what counts as one, and what they agree with."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from faithdiff.report.scores import COLUMNS, ScoreBook, difference
from faithdiff.report.statistics import (
    EXACT,
    Draws,
    Floats,
    estimate,
    holm,
    intervals,
    sign_flips,
    smallest_p,
    training_error,
)

DRAWS = Draws(2000, 0, ("test",))
STUDIES = 1000
Draw = Callable[[np.random.Generator, tuple[int, ...]], Floats]


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return rng.normal(0, 1, shape)


def exponential(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return rng.exponential(1, shape) - 1


def lognormal(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return rng.lognormal(0, 1, shape) - np.exp(0.5)


def half_zero(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return np.where(rng.random(shape) < 0.5, rng.normal(0, 1, shape), 0.0)


def too_few(held: int, wanted: float, studies: int = STUDIES) -> bool:
    """Whether a true coverage of `wanted` would give so few with a chance below 1 in 1,000."""
    return bool(stats.binom.cdf(held, studies, wanted) < 1e-3)


# --- over pictures ------------------------------------------------------------------------------


@pytest.mark.parametrize("pictures", [7, 10, 20, 100])
@pytest.mark.parametrize(
    ("draw", "coverage"),
    # Ten log-normal differences tell too little of their tail for any interval.
    [(normal, 0.95), (exponential, 0.94), (half_zero, 0.95), (lognormal, 0.90)],
)
def test_intervals_over_pictures_hold_the_true_mean(
    draw: Draw, coverage: float, pictures: int
) -> None:
    values = draw(np.random.default_rng(pictures), (pictures, STUDIES))
    found = intervals(values, DRAWS)
    held = int(((found.low <= 0) & (found.high >= 0)).sum())
    assert not too_few(held, coverage)
    if draw is normal:  # and it is not bought by width
        assert not too_few(STUDIES - held, 0.02)


def test_a_percentile_bootstrap_would_fail_this_check() -> None:
    rng = np.random.default_rng(10)
    values = exponential(rng, (10, STUDIES))
    means = np.stack([values[rng.integers(0, 10, 10)].mean(axis=0) for _ in range(2000)])
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    assert too_few(int(((low <= 0) & (high >= 0)).sum()), 0.94)


@given(st.integers(2, 12), st.integers(0, 999))
@settings(max_examples=30, deadline=None)
def test_the_sign_flip_test_counts_every_pattern(pictures: int, seed: int) -> None:
    values = np.round(np.random.default_rng(seed).normal(0.4, 1, pictures), 2)
    signs = np.array(list(itertools.product([-1, 1], repeat=pictures)))
    extreme = np.abs(signs @ values) >= abs(values.sum()) - 1e-9
    assert sign_flips(values[:, None], DRAWS)[0] == pytest.approx(extreme.mean(), abs=1e-12)


def test_twenty_pictures_are_counted_and_twenty_one_drawn() -> None:
    assert sign_flips(np.full((EXACT, 1), 1.0), DRAWS)[0] == 2 / 2**EXACT
    assert sign_flips(np.full((EXACT + 1, 1), 1.0), DRAWS)[0] == 1 / (DRAWS.n + 1)
    values = np.random.default_rng(3).normal(0.4, 1, (EXACT, 1))
    reference = stats.permutation_test(
        (values[:, 0],), np.mean, permutation_type="samples", vectorized=True, n_resamples=20_000,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    assert sign_flips(values, DRAWS)[0] == pytest.approx(reference.pvalue, abs=0.01)


def test_negated_values_mirror_the_interval_to_the_bit() -> None:
    for pictures in (7, 20, 33):
        values = exponential(np.random.default_rng(pictures), (pictures, 5))
        one, other = intervals(values, DRAWS), intervals(-values, DRAWS)
        assert (one.low == -other.high).all()
        assert (one.high == -other.low).all()
        assert (one.p == other.p).all()


def test_one_picture_says_nothing_and_equal_ones_are_certain() -> None:
    one = estimate(np.array([[3.0]]), DRAWS)
    assert np.isnan([one.low, one.high]).all()
    assert one.p == 1.0
    zero = estimate(np.zeros((1, 9)), DRAWS)
    assert (zero.low, zero.high, zero.p) == (0.0, 0.0, 1.0)


def test_a_key_decides_the_draws_and_nothing_else_does() -> None:
    values = exponential(np.random.default_rng(0), (12, 3))
    together, alone = intervals(values, DRAWS), intervals(values[:, :1], DRAWS)
    assert together.low[0] == pytest.approx(alone.low[0], rel=1e-12)
    elsewhere = intervals(values, Draws(DRAWS.n, 0, ("elsewhere",)))
    assert (elsewhere.high != together.high).all()  # where the differences are skewed to


# --- over trainings and pictures ----------------------------------------------------------------


def study(
    rng: np.random.Generator, trainings: int, pictures: int, spread: float, draw: Draw
) -> Floats:
    """One study whose true mean is zero: trainings, pictures and noise each add to it."""
    each = spread * rng.normal(0, 1, (trainings, 1))
    return each + draw(rng, (1, pictures)) + 0.5 * rng.normal(0, 1, (trainings, pictures))


@pytest.mark.parametrize("trainings", [2, 3, 5])
@pytest.mark.parametrize("spread", [0.0, 0.3, 1.0, 3.0])
@pytest.mark.parametrize("draw", [normal, exponential])
def test_intervals_speak_of_methods_where_there_are_trainings(
    trainings: int, spread: float, draw: Draw
) -> None:
    rng, studies = np.random.default_rng(trainings), 300
    draws = Draws(400, 0, ("test",))
    found = [estimate(study(rng, trainings, 10, spread, draw), draws) for _ in range(studies)]
    held = sum(each.low <= 0 <= each.high for each in found)
    assert not too_few(held, 0.94, studies)
    false = sum(each.p < 0.05 for each in found)
    assert not too_few(studies - false, 0.94, studies)


def test_an_interval_over_pictures_alone_would_fail_this_check() -> None:
    rng, studies = np.random.default_rng(3), 300
    found = [
        estimate(study(rng, 3, 10, 1.0, normal).mean(axis=0)[None], Draws(400, 0, ("test",)))
        for _ in range(studies)
    ]
    assert too_few(sum(each.low <= 0 <= each.high for each in found), 0.94, studies)


def test_trainings_that_agree_add_nothing_and_those_that_differ_do() -> None:
    pictures = np.random.default_rng(0).normal(1, 1, 12)
    same = np.tile(pictures, (3, 1))
    assert training_error(same) == pytest.approx(0, abs=1e-12)
    one, three = estimate(same[:1], DRAWS), estimate(same, DRAWS)
    assert (one.low, one.high) == pytest.approx((three.low, three.high))
    apart = same + np.array([[-2.0], [0.0], [2.0]])
    wide = estimate(apart, DRAWS)
    assert wide.low < 0 < one.low
    assert wide.p > 0.05 > one.p
    # Student's t of two degrees of freedom, as the spread of the trainings is all that matters.
    reach = stats.t.ppf(0.975, 2) * 2 / np.sqrt(3)
    assert wide.mean - wide.low == pytest.approx(np.hypot(one.mean - one.low, reach), rel=0.02)


def test_p_and_interval_agree_about_zero_where_trainings_decide() -> None:
    rng = np.random.default_rng(1)
    for gain in np.linspace(0.5, 6, 12):
        values = gain + np.array([[-1.0], [0.2], [0.8]]) + 0.01 * rng.normal(0, 1, (3, 15))
        found = estimate(values, DRAWS)
        assert (found.low > 0) == (found.p < 0.05)


# --- what counts as one -------------------------------------------------------------------------


def rows(levels: int, crops: int, seeds: int = 1, pictures: int = 5) -> pd.DataFrame:
    """Two methods 0.1 apart, give or take the picture; every crop and level repeats its picture."""
    found = []
    for method, seed, level, picture, crop in itertools.product(
        ("a", "b"), range(seeds), range(levels), range(pictures), range(crops)
    ):
        gain = (method == "a") * (0.1 + 0.3 * np.random.default_rng(picture).normal())
        place = ("tiny", method, "", seed, "Photos", f"L{level}", f"{picture}-{crop}", f"{picture}")
        found.append((*place, "psnr", "ycbcr", 20 + picture + gain, "ok", "r", "h", "p"))
    return pd.DataFrame(found, columns=COLUMNS)


@pytest.mark.parametrize(("levels", "crops"), [(3, 1), (1, 4), (3, 4)])
def test_levels_and_crops_of_a_picture_are_no_new_pictures(levels: int, crops: int) -> None:
    def gain(scores: pd.DataFrame, levels: int) -> Floats:
        places = ["Photos"], [f"L{level}" for level in range(levels)]
        samples = [ScoreBook(scores).sample(m, "psnr", "ycbcr", *places) for m in ("a", "b")]
        assert samples[0].pictures == 5
        return difference(*samples)

    few = estimate(gain(rows(1, 1), 1), DRAWS)
    many = estimate(gain(rows(levels, crops), levels), DRAWS)
    assert many.pictures == few.pictures == 5
    assert (many.low, many.high, many.p) == pytest.approx((few.low, few.high, few.p))
    # Counted as images, the same scores would claim more than they know.
    by_image = ScoreBook(rows(levels, crops), by="image")
    samples = [
        by_image.sample(m, "psnr", "ycbcr", ["Photos"], [f"L{i}" for i in range(levels)])
        for m in ("a", "b")
    ]
    assert samples[0].pictures == 5 * crops
    if crops > 1:
        assert estimate(difference(*samples), DRAWS).high < few.high


def test_seeds_are_paired_and_a_single_one_serves_all() -> None:
    scores = rows(1, 1, seeds=3)
    scores.loc[scores["method"] == "a", "value"] += scores["seed"]
    places = ["Photos"], ["L0"]
    a, b = (ScoreBook(scores).sample(m, "psnr", "ycbcr", *places) for m in ("a", "b"))
    assert difference(a, b).mean(axis=1) == pytest.approx(difference(a, b)[0].mean() + np.arange(3))
    fixed = scores[(scores["method"] == "a") | (scores["seed"] == 0)]
    alone = ScoreBook(fixed).sample("b", "psnr", "ycbcr", *places)
    assert alone.seeds == (0,)
    assert difference(a, alone) == pytest.approx(difference(a, b))
    others = scores[(scores["method"] == "a") | (scores["seed"] < 2)]
    two = ScoreBook(others).sample("b", "psnr", "ycbcr", *places)
    assert difference(a, two).shape == (1, 5)


# --- many tests ---------------------------------------------------------------------------------


def test_holm_on_a_textbook_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_no_correction_and_bonferroni(p: list[float]) -> None:
    adjusted = np.array(holm(p))
    assert (adjusted >= np.array(p) - 1e-15).all()
    assert (adjusted <= np.minimum(np.array(p) * len(p), 1) + 1e-15).all()
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(99, 999))
def test_no_p_is_smaller_than_the_smallest(pictures: int, n: int) -> None:
    """A gain that is the same in every picture has the smallest p that there can be."""
    draws = Draws(n, 0, ("test",))
    found = sign_flips(np.ones((pictures, 1)), draws)[0]
    assert found >= smallest_p(pictures, n) * (1 - 1e-12)
    if pictures <= EXACT:
        assert found == pytest.approx(smallest_p(pictures, n))
