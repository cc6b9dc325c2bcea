"""Claims: what the shipped file says, when a verdict is given, and what may never be a pass."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared.claims import IMAGES, claim, claims, make_scores, only

from faithdiff.claims.evaluate import evaluate
from faithdiff.claims.render import to_json, to_markdown
from faithdiff.claims.verdict import VARIES, Verdict
from faithdiff.config import Profile


def with_metrics(
    scores: pd.DataFrame, protocol: str = "ycbcr", **gains: dict[str, float] | float
) -> pd.DataFrame:
    """Add metrics of which faithdiff is better by so much, or than each method by so much."""
    psnr = scores[scores["metric"] == "psnr"]
    parts = [scores]
    for name, gain in gains.items():
        metric = name.replace("st_lpips", "st-lpips").replace("clipiqa", "clipiqa+")
        sign = -1 if metric in ("lpips", "st-lpips", "piqe") else 1
        of = gain if isinstance(gain, dict) else dict.fromkeys(psnr["method"], gain)
        size = max(map(abs, of.values())) or 1.0
        behind = np.where(psnr["method"] == "faithdiff", 0, psnr["method"].map(of).fillna(0))
        noise = [
            np.random.default_rng([len(m), int(i), len(lv), s, len(metric)]).normal()
            for m, i, lv, s in zip(
                psnr["method"], psnr["image"], psnr["level"], psnr["seed"], strict=True
            )
        ]
        value = 5 - sign * (behind + 0.05 * size * np.array(noise))
        parts.append(psnr.assign(metric=metric, value=value, protocol=protocol))
    return pd.concat(parts, ignore_index=True)


def several(*methods: str, psnr: dict[str, float], seeds: tuple[int, ...] = (0,)) -> pd.DataFrame:
    """PSNR of faithdiff and of others, which it leads by so much."""
    base = make_scores(0.0, seeds=seeds).query("method == 'faithdiff'")
    parts = [base]
    for method in methods:
        own = base.query("metric == 'psnr'").copy()
        noise = [np.random.default_rng([len(method), int(i)]).normal() for i in own["image"]]
        parts.append(
            own.assign(method=method, value=own["value"] - psnr[method] + 0.02 * np.array(noise))
        )
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize(
    ("gain", "rule", "verdict"),
    [
        (1.0, "better", "reproduced"),
        (1.0, "worse", "not reproduced"),
        (-1.0, "better", "not reproduced"),
        (-1.0, "worse", "reproduced"),
        (0.0, "better", "inconclusive"),
    ],
)
def test_directions(profile: Profile, gain: float, rule: str, verdict: Verdict) -> None:
    asked = claim(expect=[{"metric": "psnr", "rule": rule}])
    found = only(evaluate(claims(asked), make_scores(gain), profile))
    assert found.verdict == verdict
    assert found.measured[0].n == IMAGES and found.measured[0].value == pytest.approx(gain, abs=0.1)


def test_a_lower_metric_that_counts_down_is_a_gain(profile: Profile) -> None:
    asked = claim(expect=[{"metric": "heldout_loss", "rule": "better"}])
    found = only(evaluate(claims(asked), make_scores(0.5), profile))
    assert found.verdict == "supported by a surrogate" and found.measured[0].value > 0


@settings(max_examples=5, deadline=None)
@given(order=st.permutations(range(2 * 2 * 3 * IMAGES)))
def test_verdicts_do_not_depend_on_the_order_of_rows(profile: Profile, order: list[int]) -> None:
    scores = make_scores(0.05)
    asked = [claim(beside=["gmsd"], expect=[{"metric": "psnr", "rule": "better"}])]
    shuffled = scores.iloc[order].reset_index(drop=True)
    one, other = (to_json(evaluate(claims(*asked), each, profile)) for each in (scores, shuffled))
    assert one == other


def test_more_claims_only_make_a_verdict_harder(profile: Profile) -> None:
    asked = claim()
    many = [asked, *(claim(id=f"other-{i}") for i in range(30))]
    scores = make_scores(0.06)
    alone, among = (
        evaluate(claims(*each), scores, profile).findings[0] for each in ([asked], many)
    )
    assert among.measured[0].p_holm >= alone.measured[0].p_holm
    assert among.verdict in (alone.verdict, "inconclusive")


@pytest.mark.parametrize(
    ("scores", "changes", "said"),
    [
        (make_scores(1, status="unavailable: run: faithdiff fetch"), {}, "faithdiff fetch"),
        (make_scores(1, status="failed: disk"), {}, "failed for 12 of 12 images"),
        (make_scores(1).query("method == 'faithdiff'"), {}, "no rows"),
        (make_scores(1).iloc[3:], {}, "missing for"),
        (make_scores(1), {"expect": [{"metric": "musiq", "rule": "better"}]}, "no rows of musiq"),
        (
            make_scores(1),
            {"test": {"kind": "gain", "method": "faithdiff", "over": ["pasd"]}},
            "no method named 'pasd'",
        ),
    ],
)
def test_what_was_not_run_is_no_pass(
    profile: Profile, scores: pd.DataFrame, changes: dict[str, object], said: str
) -> None:
    found = only(evaluate(claims(claim(**changes)), scores, profile))
    assert found.verdict == "not run"
    assert said in " ".join(found.because)


def test_one_metric_that_was_not_run_keeps_the_claim_from_a_pass(profile: Profile) -> None:
    both = [{"metric": "psnr", "rule": "better"}, {"metric": "musiq", "rule": "better"}]
    found = only(evaluate(claims(claim(expect=both)), make_scores(1.0), profile))
    assert [m.verdict for m in found.measured] == ["reproduced", "not run"]
    assert found.verdict == "not run"


PERCEPTUAL = [{"metric": "musiq", "rule": "better"}, {"metric": "clipiqa+", "rule": "better"}]


def test_a_metric_of_the_paper_decides_where_it_was_measured(profile: Profile) -> None:
    scores = with_metrics(make_scores(0.0), musiq=2.0, clipiqa=0.1, piqe=-9.0, st_lpips=-0.5)
    found = only(evaluate(claims(claim(expect=PERCEPTUAL)), scores, profile))
    assert found.verdict == "reproduced"
    assert {m.column.metric for m in found.measured} == {"musiq", "clipiqa+"}


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ({"piqe": 5.0, "st_lpips": 0.2}, "supported by a surrogate"),
        ({"piqe": -5.0, "st_lpips": -0.2}, "not supported by a surrogate"),
        ({"piqe": 5.0, "st_lpips": -0.2}, "mixed"),
        ({"piqe": 5.0, "st_lpips": 0.0}, "mixed"),
        ({"piqe": 0.0, "st_lpips": 0.0}, "no effect that matters"),
        ({"st_lpips": 0.2}, "supported by a surrogate"),
        ({"musiq": 2.0, "piqe": 5.0}, "supported by a surrogate"),
        ({"musiq": -2.0, "piqe": 5.0}, "not reproduced"),
    ],
)
def test_surrogates_support_and_never_reproduce(
    profile: Profile, gains: dict[str, float], verdict: Verdict
) -> None:
    scores = with_metrics(make_scores(0.0, noise=0.01), **gains)
    if not any(gains.values()):  # no noise on a gain of nothing
        scores.loc[scores["metric"].isin(["piqe", "st-lpips"]), "value"] = 5.0
    if gains.get("st_lpips") == 0.0:
        scores.loc[scores["metric"] == "st-lpips", "value"] = 5.0
    found = only(evaluate(claims(claim(expect=PERCEPTUAL)), scores, profile))
    assert found.verdict == verdict
    shown = {m.column.metric for m in found.measured if m.measured}
    assert shown == {name.replace("_", "-") for name in gains}  # never one behind the other
    assert any("can support a claim, but not reproduce it" in line for line in found.because)
    assert any("no rows of clipiqa+" in line for line in found.because)


def test_the_held_out_loss_has_a_verdict_of_its_own_and_no_other(profile: Profile) -> None:
    second = [{"metric": "heldout_loss", "rule": "better"}]
    asked = claim(expect=PERCEPTUAL, second=second)
    alone = only(evaluate(claims(asked), make_scores(0.5), profile))
    assert (alone.verdict, alone.second) == ("not run", "supported by a surrogate")
    against = with_metrics(make_scores(0.5), musiq=-2.0, clipiqa=-0.1)
    found = evaluate(claims(asked), against, profile)
    assert (only(found).verdict, only(found).second) == (
        "not reproduced",
        "supported by a surrogate",
    )
    assert "by held-out loss: supported by a surrogate" in to_markdown(found)
    assert json.loads(to_json(found))["claims"][0]["second"] == "supported by a surrogate"


def test_the_price_has_two_halves_against_each_rival(profile: Profile) -> None:
    rivals = ["diffbir", "seesr"]
    test = {"kind": "gain", "method": "faithdiff", "over": rivals}
    asked = claim(test=test, expect=[{"metric": "psnr", "rule": "worse"}, PERCEPTUAL[0]])
    paid = several(*rivals, psnr={"diffbir": -0.5, "seesr": -0.5})
    for gains, verdict, each in (
        ({"musiq": 2.0}, "reproduced", ["reproduced"] * 2),
        ({"musiq": {"diffbir": 2.0, "seesr": -2.0}}, "not reproduced",
         ["reproduced", "not reproduced"]),
        ({"piqe": 5.0, "st_lpips": 0.2}, "supported by a surrogate",
         ["supported by a surrogate"] * 2),
    ):  # fmt: skip
        found = only(evaluate(claims(asked), with_metrics(paid, **gains), profile))
        assert found.verdict == verdict
        assert [outcome.verdict for outcome in found.outcomes] == each
    free = several(*rivals, psnr={"diffbir": -0.5, "seesr": 0.5})
    found = only(evaluate(claims(asked), with_metrics(free, musiq=2.0), profile))
    assert found.verdict == "not reproduced"


@pytest.mark.parametrize(
    ("need", "gains", "verdict"),
    [
        ("all", {"frozen": 1.0}, "not run"),
        ("all", {"frozen": -1.0}, "not reproduced"),
        ("present", {"frozen": 1.0}, "reproduced"),
        ("agreement", {"frozen": 1.0}, "inconclusive"),
        ("agreement", {"frozen": 1.0, "concat": 1.0}, "inconclusive"),
        ("agreement", {"frozen": 1.0, "concat": -1.0, "separate": 1.0}, "inconclusive"),
        ("agreement", {"frozen": 1.0, "concat": 1.0, "separate": 1.0}, "reproduced"),
    ],
)
def test_a_method_that_the_profile_lacks_hides_no_other(
    profile: Profile, need: str, gains: dict[str, float], verdict: Verdict
) -> None:
    over = ["frozen", "concat", "separate"]
    kept = {name: v for name, v in profile.variants.items() if name in ("faithdiff", *gains)}
    lacking = profile.model_copy(update={"variants": kept})
    test = {"kind": "gain", "method": "faithdiff", "over": over, "need": need}
    scores = several(*gains, psnr=gains)
    found = only(evaluate(claims(claim(test=test)), scores, lacking))
    assert found.verdict == verdict
    assert [o.verdict for o in found.outcomes] == [
        "not run" if name not in gains else "reproduced" if gains[name] > 0 else "not reproduced"
        for name in over
    ]
    assert {m.contrast.text for m in found.measured if m.measured} == {
        f"FaithDiff over {profile.methods[name].label}" for name in gains
    }
    absent = " ".join(found.because)
    assert all((f"no method named '{name}'" in absent) == (name not in gains) for name in over)


def test_what_holds_in_one_training_alone_varies(profile: Profile) -> None:
    scores = make_scores(0.0, noise=0.02, seeds=(0, 1, 2))
    moved = (scores["method"] == "faithdiff") & (scores["metric"] == "psnr")
    scores.loc[moved, "value"] += scores.loc[moved, "seed"].map({0: 0.8, 1: 0.0, 2: -0.5})
    found = only(evaluate(claims(claim()), scores, profile))
    assert found.verdict == VARIES
    assert any("seed 0 alone, not over 3 trainings" in line for line in found.because)
    one = only(evaluate(claims(claim()), scores.query("seed == 0"), profile))
    assert one.verdict == "reproduced"
    settled = only(evaluate(claims(claim()), make_scores(1.0, seeds=(0, 1, 2)), profile))
    assert settled.verdict == "reproduced"


def test_budgets_stand_beside_each_difference(profile: Profile) -> None:
    test = {"kind": "gain", "method": "faithdiff", "over": ["bicubic", "separate"]}
    scores = several("bicubic", "separate", psnr={"bicubic": 1.0, "separate": 1.0})
    report = evaluate(claims(claim(test=test)), scores, profile)
    own, apart = profile.updates_of("faithdiff"), profile.updates_of("separate")
    page = to_markdown(report)
    assert f"FaithDiff over separate optimisation · updates: FaithDiff {own}, " in page
    assert f"separate optimisation {apart}" in page
    assert f"FaithDiff over Bicubic · updates: FaithDiff {own}<br>" in page
    entry = json.loads(to_json(report))["claims"][0]["contrasts"][1]
    assert entry["updates"] == {"FaithDiff": own, "separate optimisation": apart}


def test_a_trend_is_the_gain_beyond_the_other_levels(profile: Profile) -> None:
    scores = make_scores(0.0)
    more = (scores["method"] == "faithdiff") & (scores["level"] == "III")
    scores.loc[more, "value"] += 1.0
    test = {"kind": "trend", "method": "faithdiff", "over": "frozen", "at": "III"}
    asked = [
        claim(test={**test, "beyond": ["I", "II"]}),
        claim(id="b", test={**test, "beyond": ["III"]}),
    ]
    found = evaluate(claims(*asked), scores, profile).findings
    assert [each.verdict for each in found] == ["reproduced", "no effect that matters"]
    assert [m.value for m in found[0].measured] == pytest.approx([1.0, 1.0], abs=0.15)
