"""Claims: what the shipped file says, when a verdict is given, and what may never be a pass."""

from __future__ import annotations

import csv
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from shared import ROOT

from faithdiff.claims.command import write_claims
from faithdiff.claims.evaluate import ClaimsReport, JudgedClaim, evaluate
from faithdiff.claims.measure import Meter, contrasts
from faithdiff.claims.power import smallest_effect
from faithdiff.claims.render import to_json, to_markdown
from faithdiff.claims.schema import Claim, Claims, GainTest, Need, ValueTest, load_claims
from faithdiff.claims.verdict import (
    NO,
    VARIES,
    VERDICTS,
    YES,
    Verdict,
    agree,
    combine,
    judge_direction,
    judge_value,
    of_contrasts,
)
from faithdiff.config import Profile, load_profile, parse
from faithdiff.errors import ConfigError
from faithdiff.report.scores import COLUMNS, load_scores
from faithdiff.report.statistics import Draws, estimate
from faithdiff.study.layout import Layout
from faithdiff.study.manifest import Manifest

SHIPPED = ROOT / "config" / "claims.yaml"
IMAGES = 12
CLAIM = {
    "id": "claim",
    "kind": "mechanism",
    "statement": "Joint is better than frozen.",
    "source": {"document": "the paper", "table": "Table 6", "row": "frozen", "confidence": "low"},
    "protocol": "ycbcr",
    "test": {"kind": "gain", "method": "faithdiff", "over": ["frozen"]},
    "expect": [{"metric": "psnr", "rule": "better"}],
}
MATTERS = {
    "psnr": 0.03, "ssim": 0.005, "lpips": 0.01, "st-lpips": 0.01, "musiq": 0.5, "clipiqa+": 0.01,
    "piqe": 1.0, "heldout_loss": 0.004,
}  # fmt: skip
SURROGATES = {
    "lpips": ["st-lpips"],
    "musiq": ["piqe", "st-lpips"],
    "clipiqa+": ["piqe", "st-lpips"],
}
finite = st.floats(-1e6, 1e6, allow_nan=False)
verdicts = st.sampled_from(VERDICTS)
NEEDS: tuple[Need, ...] = ("all", "present", "agreement")


def claim(**changes: object) -> Claim:
    return parse({**CLAIM, **changes}, Claim, "test")


def claims(*asked: Claim) -> Claims:
    return Claims.model_validate(
        {"matters": MATTERS, "surrogates": SURROGATES, "claims": [c.model_dump() for c in asked]}
    )


@pytest.fixture(scope="module")
def profile() -> Profile:
    mini = load_profile(ROOT / "config" / "mini.yaml")
    score = mini.score.model_copy(update={"protocols_file": ROOT / "config" / "protocols.yaml"})
    report = mini.report.model_copy(update={"bootstrap": 500})
    return mini.model_copy(update={"score": score, "report": report})


def make_scores(
    gain: float, noise: float = 0.1, seeds: tuple[int, ...] = (0,), status: str = "ok"
) -> pd.DataFrame:
    """PSNR and held-out loss of two methods; faithdiff is better by `gain` in both."""
    rows = []
    for method, level, image, seed in itertools.product(
        ("faithdiff", "frozen"), ("I", "II", "III"), range(IMAGES), seeds
    ):
        drawn = np.random.default_rng([len(method), len(level), image, seed])
        better = gain * (method == "faithdiff") + noise * drawn.normal() + 0.01 * seed
        place = ("mini", method, "", seed, "Photos", level, f"{image:03d}", f"{image:03d}")
        value = (20 + image + better) if status == "ok" else math.nan
        rows.append((*place, "psnr", "ycbcr", value, status, "r", "h", "p"))
        rows.append((*place, "heldout_loss", "heldout", 1 - better, "ok", "", "", "p"))
    return pd.DataFrame(rows, columns=COLUMNS)


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


def only(report: ClaimsReport) -> JudgedClaim:
    (found,) = report.findings
    return found


# --- config/claims.yaml -------------------------------------------------------------------------


def test_the_shipped_claims_print_what_results_paper_holds() -> None:
    with (ROOT / "results/paper/table1.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    printed = {
        (r["dataset"], r["level"], r["method"], r["metric"]): (r["value"], r["protocol"])
        for r in rows
    }
    claimed = {
        (c.data.datasets[0], c.data.levels[0], c.test.method, e.metric): (e.printed, c.protocol)
        for c in load_claims(SHIPPED).claims
        if isinstance(c.test, ValueTest)
        for e in c.expect
    }
    assert claimed == printed


def test_every_known_difference_and_time_of_the_paper_is_claimed() -> None:
    by_id = {c.id: c for c in load_claims(SHIPPED).claims}
    with (ROOT / "results/paper/differences.csv").open(newline="", encoding="utf-8") as stream:
        known = {
            r["metric"]: float(r["difference"]) for r in csv.DictReader(stream) if r["difference"]
        }
    assert {e.metric: e.value for e in by_id["unleashed-over-frozen"].expect} == known
    with (ROOT / "results/paper/efficiency.csv").open(newline="", encoding="utf-8") as stream:
        first = next(csv.DictReader(stream))
    assert by_id["seconds-1024"].expect[0].printed == first["seconds_low"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"expect": [{"metric": "psnr"}]}, "printed with within, or rule"),
        ({"expect": [{"metric": "psnr", "printed": "24.3"}]}, "belong together"),
        ({"expect": [{"metric": "psnr", "printed": "24.3", "within": 0.01}]}, "finer than 24.3"),
        ({"expect": [{"metric": "psnr", "printed": "about 24", "within": 1}]}, "printed"),
        ({"expect": []}, "expect"),
        ({"beside": ["psnr"]}, "named twice"),
        ({"kind": "published"}, "datasets and levels"),
        ({"test": {"kind": "value", "method": "faithdiff"}}, "direction needs a gain"),
        ({"kind": "rumour"}, "is not one of 'published', 'mechanism'"),
        ({"weight": 1}, "unknown key"),
    ],
)
def test_a_claim_that_cannot_be_tested_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        claim(**changes)


def test_two_claims_of_one_id_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "claims.yaml"
    file.write_text(
        yaml.safe_dump({"matters": MATTERS, "claims": [CLAIM, CLAIM]}), encoding="utf-8"
    )
    with pytest.raises(ConfigError, match="'claim' occurs twice"):
        load_claims(file)
    assert Claims.model_validate({"matters": MATTERS, "claims": [CLAIM]}).claims[0].id == "claim"


# --- verdicts -----------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("printed", "verdict"),
    [("1.0", "reproduced"), ("2.0", "not reproduced"), ("0.0", "not reproduced")],
)
def test_too_good_is_refused_as_too_bad_is(
    profile: Profile, printed: str, verdict: Verdict
) -> None:
    asked = claim(expect=[{"metric": "psnr", "printed": printed, "within": 0.3}])
    assert only(evaluate(claims(asked), make_scores(1.0), profile)).verdict == verdict


def test_a_published_value_is_judged_by_its_mean_whatever_its_images(profile: Profile) -> None:
    scores = make_scores(1.0, noise=5.0)
    mean = scores.query("method == 'faithdiff' and metric == 'psnr'")["value"].mean()
    test = {"kind": "value", "method": "faithdiff"}
    # The images scatter by decibels: their bootstrap would call the very same mean inconclusive.
    for printed, verdict in (
        (f"{mean:.2f}", "reproduced"),
        (f"{mean + 0.51:.2f}", "not reproduced"),
        (f"{mean - 0.51:.2f}", "not reproduced"),
    ):
        asked = claim(test=test, expect=[{"metric": "psnr", "printed": printed, "within": 0.5}])
        found = only(evaluate(claims(asked), scores, profile))
        assert found.verdict == verdict
        assert math.isnan(found.measured[0].low)


def test_a_published_value_has_the_spread_of_its_seeds(profile: Profile) -> None:
    shift = {0: -0.4, 1: 0.0, 2: 0.4}
    scores = make_scores(1.0, noise=0.0, seeds=(0, 1, 2))
    scores["value"] += scores["seed"].map(shift)
    means = scores.query("method == 'faithdiff' and metric == 'psnr'").groupby("seed")["value"]
    centre = means.mean().mean()
    reach = 4.302653 * means.mean().std() / math.sqrt(3)
    test = {"kind": "value", "method": "faithdiff"}
    for within, away, verdict in (
        (reach + 0.1, 0.0, "reproduced"),
        (0.5, 0.0, "inconclusive"),
        (0.5, 0.51 + reach, "not reproduced"),
    ):
        printed = {"metric": "psnr", "printed": f"{centre + away:.2f}", "within": within}
        found = only(evaluate(claims(claim(test=test, expect=[printed])), scores, profile))
        assert found.verdict == verdict
        assert found.measured[0].high - found.measured[0].low == pytest.approx(2 * reach, rel=1e-4)
        assert bool(found.settle) == (verdict == "inconclusive")


def test_a_published_order_is_that_of_the_means(profile: Profile) -> None:
    labels = {"faithdiff": "FaithDiff", "frozen": "Frozen"}
    variants = {
        name: profile.variants[name].model_copy(update={"label": label})
        for name, label in labels.items()
    }
    named = profile.model_copy(update={"variants": variants})
    asked = claim(
        kind="published",
        data={"datasets": ["Photos"], "levels": ["I"]},
        test={"kind": "gain", "method": "FaithDiff", "over": ["Frozen"]},
    )
    # The paper's leads are smaller than what would matter, and smaller than images scatter.
    for gain, verdict in ((0.02, "reproduced"), (-0.02, "not reproduced"), (0.0, "inconclusive")):
        found = evaluate(claims(asked), make_scores(gain, noise=0.0), named)
        assert (only(found).verdict, found.tests) == (verdict, 0)
        assert "only by the means" in only(found).because[0]
    several_seeds = make_scores(0.02, noise=0.0, seeds=(0, 1, 2))
    moved = several_seeds["method"] == "faithdiff"
    several_seeds.loc[moved, "value"] += several_seeds.loc[moved, "seed"].map({0: -1, 1: 0, 2: 1})
    assert only(evaluate(claims(asked), several_seeds, named)).verdict == "inconclusive"


def test_the_window_takes_in_what_rounding_hides() -> None:
    assert judge_value(24.795, math.nan, math.nan, (23.785, 24.795)) == "reproduced"
    assert judge_value(24.796, math.nan, math.nan, (23.785, 24.795)) == "not reproduced"


def test_a_published_mean_is_of_images_and_not_of_pictures(profile: Profile) -> None:
    scores = make_scores(0.0)
    scores["picture"] = scores["image"].where(scores["image"] > "005", "one")
    test = {"kind": "value", "method": "faithdiff"}
    mean = scores.query("method == 'faithdiff' and metric == 'psnr'")["value"].mean()
    asked = claim(test=test, expect=[{"metric": "psnr", "printed": f"{mean:.2f}", "within": 0.01}])
    found = only(evaluate(claims(asked), scores, profile))
    assert found.verdict == "reproduced" and found.measured[0].n == IMAGES


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


# --- what was not measured ----------------------------------------------------------------------


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


def test_a_direction_needs_to_say_what_matters() -> None:
    silent = {**CLAIM, "expect": [{"metric": "niqe", "rule": "better"}]}
    with pytest.raises(ConfigError, match="claim: say in `matters` which gain in niqe matters"):
        parse({"matters": {"psnr": 0.1}, "claims": [silent]}, Claims, "test")
    own = {**CLAIM, "matters": {"psnr": 0.2}}
    found = Claims.model_validate({"matters": {"psnr": 0.1}, "claims": [own]})
    assert found.matters_of(found.claims[0], "psnr") == 0.2


def test_every_shipped_mechanism_has_a_surrogate_path_and_names_methods_of_some_profile() -> None:
    shipped = load_claims(SHIPPED)
    for each in shipped.claims:
        for expect in each.expect:
            if each.kind != "published" and expect.metric != "psnr":
                assert shipped.surrogates_of(each, expect.metric)
            if each.kind == "published":
                assert not shipped.surrogates_of(each, expect.metric)
    tests = {c.id: c.test for c in shipped.claims}
    price = tests["psnr-is-the-price"]
    assert isinstance(price, GainTest)
    assert set(price.over) == {"diffbir", "supir", "seesr", "realesrgan"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": {"datasets": ["DIV2K-Val"], "levels": ["I"]}}, "other data"),
        ({"data": {"datasets": ["Photos"], "levels": ["IV"]}}, "other degradation"),
        ({"protocol": "matlab"}, "other protocol"),
    ],
)
def test_other_data_levels_and_protocols_are_not_comparable(
    profile: Profile, changes: dict[str, object], said: str
) -> None:
    place = {"data": {"datasets": ["Photos"], "levels": ["I"]}}
    asked = claim(**{"kind": "published", **place, **changes})
    found = only(evaluate(claims(asked), make_scores(1.0), profile))
    assert found.verdict == "not comparable" and said in found.because[0] and not found.measured


def test_a_controlled_baseline_is_not_the_published_system(profile: Profile) -> None:
    asked = claim(
        kind="published",
        data={"datasets": ["Photos"], "levels": ["I"]},
        test={"kind": "gain", "method": "FaithDiff", "over": ["Real-ESRGAN"]},
    )
    found = only(evaluate(claims(asked), make_scores(1.0), profile))
    assert found.verdict == "not run" and "labelled 'Real-ESRGAN'" in found.because[0]


@pytest.mark.parametrize(
    ("gpus", "verdict"), [([], "not comparable"), (["NVIDIA A800-SXM4-80GB"], "not run")]
)
def test_seconds_are_compared_on_the_same_hardware_alone(
    profile: Profile, gpus: list[str], verdict: Verdict
) -> None:
    asked = claim(
        kind="published",
        data={"datasets": ["Photos"], "levels": ["I"]},
        test={"kind": "seconds", "method": "FaithDiff", "hardware": "A800", "measure": "bench"},
        expect=[{"metric": "seconds", "printed": "2.55", "within": 0.25}],
    )
    assert only(evaluate(claims(asked), make_scores(1.0), profile, gpus)).verdict == verdict


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


# --- power --------------------------------------------------------------------------------------


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


# --- output -------------------------------------------------------------------------------------


def test_the_page_escapes_and_counts(profile: Profile) -> None:
    report = evaluate(claims(claim(statement="a | b <script>")), make_scores(1.0), profile)
    page = to_markdown(report)
    assert r"a \| b \<script\>" in page and "<script>" not in page
    assert "1 reproduced" in page and "**reproduced**" in page
    assert json.loads(to_json(report))["verdicts"]["reproduced"] == 1


def numbers_of(value: Any, path: str = "") -> dict[str, Any]:
    """Every value of nested JSON by its path."""
    if not isinstance(value, dict | list):
        return {path: value}
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    found = [numbers_of(part, f"{path}/{key}") for key, part in parts]
    return {name: part for each in found for name, part in each.items()}


def test_the_committed_claims_are_those_of_the_committed_scores(
    profile: Profile, tmp_path: Path
) -> None:
    committed = ROOT / "results" / "mini"
    whole = load_profile(ROOT / "config" / "mini.yaml").report
    scores = load_scores(committed / "scores.csv")
    gpus = Manifest.read(committed / "manifest.json").gpus
    found = evaluate(
        load_claims(SHIPPED), scores, profile.model_copy(update={"report": whole}), gpus
    )
    # The last bits of a resampled bound hang on the processor; what is printed does not.
    kept = json.loads((committed / "claims.json").read_text(encoding="utf-8"))
    made, kept = numbers_of(json.loads(to_json(found))), numbers_of(kept)
    floats = {path for path, value in kept.items() if isinstance(value, float)}
    assert {path: v for path, v in made.items() if path not in floats} == {
        path: v for path, v in kept.items() if path not in floats
    }
    for path in floats:
        assert made[path] == pytest.approx(kept[path], rel=1e-9), path
    assert (committed / "claims.md").read_text(encoding="utf-8") == to_markdown(found)


def test_the_verb_writes_both_files(
    profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    layout = Layout("mini")
    layout.results.mkdir(parents=True)
    make_scores(1.0).to_csv(layout.results / "scores.csv", index=False)
    report, files = write_claims(profile, layout, SHIPPED)
    assert [file.name for file in files] == ["claims.json", "claims.md"]
    content = json.loads(files[0].read_text(encoding="utf-8"))
    assert (
        sum(content["verdicts"].values())
        == len(report.findings)
        == len(load_claims(SHIPPED).claims)
    )
    joint = next(c for c in content["claims"] if c["id"] == "joint-over-frozen")
    assert (joint["verdict"], joint["second"]) == ("not run", "supported by a surrogate")
    assert joint["measured"][-1]["role"] == "beside"


def test_published_systems_take_no_part_in_claims_on_controlled_designs() -> None:
    released = load_profile(ROOT / "config" / "released.yaml")
    score = released.score.model_copy(update={"protocols_file": ROOT / "config" / "protocols.yaml"})
    released = released.model_copy(update={"score": score})
    meter = Meter(make_scores(0.1), released)
    for name in ("diffbir", "seesr", "realesrgan", "faithdiff"):
        assert meter.method(name, "mechanism") is None
        assert meter.method(name, "finding") == name  # what is said of the study itself may
    made = contrasts(claim(test={"kind": "gain", "method": "bicubic", "over": ["diffbir"]}), meter)
    assert "'diffbir' is a published system" in made[0].missing
