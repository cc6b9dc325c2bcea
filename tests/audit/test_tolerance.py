"""What is accepted of a loss: the four forms, and which changes go beyond."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faithdiff.audit.tolerance import Amount, Tolerance, parse_tolerance
from faithdiff.errors import UserError

numbers = st.decimals(0, 1000, places=3).map(str)
losses = st.floats(0, 100)


def change(loss: float, verdict: str = "worse", metric: str = "psnr", old: float = 20.0) -> object:
    return SimpleNamespace(
        verdict=verdict, gain=-loss, old=old, column=SimpleNamespace(metric=metric)
    )


@given(numbers, st.booleans(), st.sampled_from(["", "psnr=", "clipiqa+=", "st-lpips = "]))
def test_every_form_is_read(number: str, percent: bool, metric: str) -> None:
    found = parse_tolerance([f" {metric}{number}{'%' * percent} "])
    amount = Amount(float(number), percent)
    if metric:
        assert found == Tolerance(metrics={metric.strip("= "): amount})
    else:
        assert found == Tolerance(amount)


def test_the_last_of_several_counts_and_a_metric_before_the_default() -> None:
    found = parse_tolerance(["1", "psnr=0.1", "2", "psnr=0.3"])
    assert found == Tolerance(Amount(2.0, False), {"psnr": Amount(0.3, False)})
    assert found.exceeded(change(0.5))
    assert not found.exceeded(change(0.5, metric="ssim"))


@pytest.mark.parametrize("text", ["", "x", "-1", "1e3", "0.05dB", "psnr=", "=1", "1%%", "inf"])
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="is not a number, a percentage"):
        parse_tolerance([text])


@given(losses, losses, st.floats(-100, 100))
def test_more_is_accepted_of_a_larger_tolerance_and_a_percentage_is_of_the_old_mean(
    loss: float, accepted: float, old: float
) -> None:
    assert Tolerance(Amount(accepted, False)).exceeded(change(loss)) == (loss > accepted)
    relative = Tolerance(Amount(accepted, True)).exceeded(change(loss, old=old))
    assert relative == (loss > abs(old) * accepted / 100)


@given(losses)
def test_only_a_loss_that_is_significant_or_a_failure_goes_beyond(loss: float) -> None:
    nothing = Tolerance()
    for verdict in ("better", "identical", "changed, not significant", "not comparable"):
        assert not nothing.exceeded(change(loss, verdict))
    # No number is within a tolerance.
    assert Tolerance(Amount(1e9, False)).exceeded(change(loss, "newly failing"))
