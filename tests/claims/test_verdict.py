"""From a measurement to a verdict, and from several verdicts to one."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faithdiff.claims.schema import Need
from faithdiff.claims.verdict import (
    NO,
    VERDICTS,
    YES,
    Verdict,
    agree,
    combine,
    judge_direction,
    judge_value,
    of_contrasts,
)

verdicts = st.sampled_from(VERDICTS)
finite = st.floats(-1e6, 1e6, allow_nan=False)
NEEDS: tuple[Need, ...] = ("all", "present", "agreement")


def test_the_window_takes_in_what_rounding_hides() -> None:
    assert judge_value(24.795, math.nan, math.nan, (23.785, 24.795)) == "reproduced"
    assert judge_value(24.796, math.nan, math.nan, (23.785, 24.795)) == "not reproduced"


@given(finite, finite, st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1), st.floats(0.1, 100))
def test_a_wider_interval_never_makes_a_verdict(
    low: float, width: float, below: float, above: float, p: float, matters: float
) -> None:
    high = low + abs(width)
    value = (low + high) / 2
    for rule in ("better", "worse"):
        narrow = judge_direction(value, low, high, p, rule, matters)
        wide = judge_direction(value, low - below, high + above, p, rule, matters)
        assert wide in (narrow, "inconclusive")
    one = judge_value(value, low, high, (-10.0, 10.0))
    assert judge_value(value, low - below, high + above, (-10.0, 10.0)) in (one, "inconclusive")


@given(finite, st.floats(0, 1e6), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_p_never_makes_a_verdict(low: float, width: float, p: float, q: float) -> None:
    small, large = sorted((p, q))
    place = (low + width / 2, low, low + width)
    assert judge_direction(*place, large, "better", 0.1) in (
        judge_direction(*place, small, "better", 0.1),
        "inconclusive",
    )


def test_one_picture_gives_no_verdict() -> None:
    assert judge_direction(9.0, math.nan, math.nan, 0.0, "better", 0.1) == "inconclusive"


@pytest.mark.parametrize(
    ("value", "low", "high", "verdict"),
    [
        (0.5, 0.2, 0.8, "reproduced"),
        (-0.5, -0.8, -0.2, "not reproduced"),
        (0.02, -0.05, 0.09, "no effect that matters"),
        (0.05, 0.02, 0.08, "no effect that matters"),  # real, and too small
        (0.05, 0.02, 0.12, "inconclusive"),  # real, and perhaps large enough
        (0.15, 0.05, 0.25, "reproduced"),  # large enough by its estimate
        (0.5, -0.1, 1.1, "inconclusive"),
    ],
)
def test_an_effect_has_to_matter(value: float, low: float, high: float, verdict: Verdict) -> None:
    assert judge_direction(value, low, high, 0.01, "better", 0.1) == verdict


@given(st.lists(verdicts), verdicts)
def test_a_claim_is_reproduced_only_where_all_of_it_is(found: list[Verdict], more: Verdict) -> None:
    assert combine([]) == "not run"
    assert (combine(found) == "reproduced") == (bool(found) and set(found) == {"reproduced"})
    assert (combine(found) in YES) == (bool(found) and set(found) <= set(YES))
    if more not in YES:
        assert combine([*found, more]) not in YES
    assert combine(found) == combine(found[::-1])
    assert agree(found) == agree(found[::-1])
    if set(found) & set(YES) and set(found) & set(NO):
        assert agree(found) == "mixed"


@given(st.lists(st.tuples(verdicts, st.booleans()), min_size=1, max_size=4))
def test_contrasts_that_were_not_run_are_no_pass(found: list[tuple[Verdict, bool]]) -> None:
    absent = [missing for _, missing in found]
    asked: list[Verdict] = ["not run" if missing else verdict for verdict, missing in found]
    every, present, agreed = (of_contrasts(asked, absent, need) for need in NEEDS)
    assert (every in YES) == (set(asked) <= set(YES))
    there = [verdict for verdict, missing in zip(asked, absent, strict=True) if not missing]
    assert (present in YES) == (bool(there) and set(there) <= set(YES))
    if agreed in YES:
        assert set(asked) == {agreed}
    if "not run" in there:  # a reading that was not measured keeps the question open
        assert agreed == "not run"
