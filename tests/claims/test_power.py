"""What an open claim could have shown."""

from __future__ import annotations

import math

import numpy as np
import pytest
from shared.claims import claim, claims, make_scores, only

from faithdiff.claims.evaluate import evaluate
from faithdiff.claims.power import smallest_effect
from faithdiff.config import Profile
from faithdiff.report.statistics import Draws, estimate


@pytest.mark.parametrize(("trainings", "tolerance"), [(1, 0.06), (3, 0.12)])
def test_the_smallest_effect_would_be_shown_four_times_in_five(
    trainings: int, tolerance: float
) -> None:
    rng, n, spread = np.random.default_rng(5), 12, 0.4

    def noise() -> np.ndarray:
        parts = rng.normal(0, 1, (1, n)) + 0.3 * rng.normal(0, 1, (trainings, n))
        return parts + spread * rng.normal(0, 1, (trainings, 1)) * (trainings > 1)

    draws = Draws(200, 0, ("power",))
    sizes = [smallest_effect(estimate(noise(), draws), 0.05) for _ in range(200)]
    shown = [estimate(noise() + np.median(sizes), draws).p < 0.05 for _ in range(600)]
    assert np.mean(shown) == pytest.approx(0.8, abs=tolerance)


def test_the_smallest_effect_does_not_depend_on_the_one_that_was_seen() -> None:
    values = np.random.default_rng(1).normal(0, 1, (1, 15))
    draws = Draws(200, 0, ("power",))
    one, other = (smallest_effect(estimate(values + gain, draws), 0.01) for gain in (0.0, 3.0))
    assert one == pytest.approx(other)
    assert math.isnan(smallest_effect(estimate(values[:, :1], draws), 0.01))


def test_an_open_claim_says_what_it_could_have_shown(profile: Profile) -> None:
    scores = make_scores(0.01, noise=0.3)
    found = only(evaluate(claims(claim()), scores, profile))
    assert found.verdict == "inconclusive"
    assert "12 pictures can show a gain of" in found.settle[0]
    assert "images" not in " ".join(found.settle)  # no sample size from a gain near zero
    assert "1 training each" in found.settle[1]
    more = make_scores(0.01, noise=0.3, seeds=(0, 1, 2))
    several_seeds = only(evaluate(claims(claim()), more, profile))
    assert several_seeds.measured[0].seeds == (0, 1, 2)
    assert "12 pictures and 3 trainings can show" in several_seeds.settle[0]
    assert "the SD between 3 trainings is" in several_seeds.settle[1]
