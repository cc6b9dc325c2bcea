"""Claims: what the shipped file says, when a verdict is given, and what may never be a pass."""

from __future__ import annotations

import csv
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from faithdiff.claims.command import write_claims
from faithdiff.claims.evaluate import Finding, Report, evaluate
from faithdiff.claims.power import (
    images_for_effect,
    images_for_width,
    smallest_effect,
)
from faithdiff.claims.render import to_json, to_markdown
from faithdiff.claims.schema import Claim, Claims, ValueTest, load_claims
from faithdiff.claims.verdict import VERDICTS, Verdict, combine, judge
from faithdiff.config import Profile, load_profile, parse
from faithdiff.errors import ConfigError
from faithdiff.layout import Layout
from faithdiff.report.scores import COLUMNS, load_scores

ROOT = Path(__file__).parent.parent
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
finite = st.floats(-1e6, 1e6, allow_nan=False)
verdicts = st.sampled_from(VERDICTS)


def claim(**changes: object) -> Claim:
    return parse({**CLAIM, **changes}, Claim, "test")


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
        place = ("mini", method, "", seed, "Photos", level, f"{image:03d}")
        value = (20 + image + better) if status == "ok" else math.nan
        rows.append((*place, "psnr", "ycbcr", value, status, "r", "h", "p"))
        rows.append((*place, "heldout_loss", "heldout", 1 - better, "ok", "", "", "p"))
    return pd.DataFrame(rows, columns=COLUMNS)


def only(report: Report) -> Finding:
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
        for c in load_claims(SHIPPED)
        if isinstance(c.test, ValueTest)
        for e in c.expect
    }
    assert claimed == printed


def test_every_known_difference_and_time_of_the_paper_is_claimed() -> None:
    claims = {c.id: c for c in load_claims(SHIPPED)}
    with (ROOT / "results/paper/differences.csv").open(newline="", encoding="utf-8") as stream:
        known = {
            r["metric"]: float(r["difference"]) for r in csv.DictReader(stream) if r["difference"]
        }
    assert {e.metric: e.value for e in claims["unleashed-over-frozen"].expect} == known
    with (ROOT / "results/paper/efficiency.csv").open(newline="", encoding="utf-8") as stream:
        first = next(csv.DictReader(stream))
    assert claims["seconds-1024"].expect[0].printed == first["seconds_low"]


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
    file.write_text(yaml.safe_dump({"claims": [CLAIM, CLAIM]}), encoding="utf-8")
    with pytest.raises(ConfigError, match="'claim' is there twice"):
        load_claims(file)
    assert Claims.model_validate({"claims": [CLAIM]}).claims[0].id == "claim"


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
    found = only(evaluate([asked], make_scores(gain), profile, {}))
    assert found.verdict == verdict
    assert found.measured[0].n == IMAGES and found.measured[0].value == pytest.approx(gain, abs=0.1)


def test_a_lower_metric_that_counts_down_is_a_gain(profile: Profile) -> None:
    asked = claim(expect=[{"metric": "heldout_loss", "rule": "better"}])
    found = only(evaluate([asked], make_scores(0.5), profile, {}))
    assert found.verdict == "reproduced" and found.measured[0].value > 0


@pytest.mark.parametrize(
    ("printed", "verdict"),
    [("1.0", "reproduced"), ("2.0", "not reproduced"), ("0.0", "not reproduced")],
)
def test_too_good_is_refused_as_too_bad_is(
    profile: Profile, printed: str, verdict: Verdict
) -> None:
    asked = claim(expect=[{"metric": "psnr", "printed": printed, "within": 0.3}])
    assert only(evaluate([asked], make_scores(1.0), profile, {})).verdict == verdict


def test_a_window_that_the_interval_straddles_is_open_and_says_how_many_images(
    profile: Profile,
) -> None:
    asked = claim(expect=[{"metric": "psnr", "printed": "1.0", "within": 0.1}])
    found = only(evaluate([asked], make_scores(1.0, noise=1.0), profile, {}))
    assert found.verdict == "inconclusive" and "images" in found.settle[0]


@given(finite, finite, st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1))
def test_a_wider_interval_never_makes_a_verdict(
    low: float, width: float, more_below: float, more_above: float, p: float
) -> None:
    for window in ((0.0, math.inf), (-math.inf, 0.0), (-10.0, 10.0)):
        narrow = judge(low, low + abs(width), window, p)
        wide = judge(low - more_below, low + abs(width) + more_above, window, p)
        assert wide in (narrow, "inconclusive")


@given(finite, st.floats(0, 1e6), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_p_never_makes_a_verdict(low: float, width: float, p: float, q: float) -> None:
    small, large = sorted((p, q))
    window = (0.0, math.inf)
    assert judge(low, low + width, window, large) in (
        judge(low, low + width, window, small),
        "inconclusive",
    )


def test_one_image_gives_no_verdict() -> None:
    assert judge(math.nan, math.nan, (0.0, math.inf), 0.0) == "inconclusive"


@given(st.lists(verdicts), verdicts)
def test_a_claim_is_reproduced_only_where_all_of_it_is(found: list[Verdict], more: Verdict) -> None:
    assert combine([]) == "not run"
    assert (combine(found) == "reproduced") == (bool(found) and set(found) == {"reproduced"})
    if more != "reproduced":
        assert combine([*found, more]) != "reproduced"
    assert combine(found) == combine(found[::-1])


@settings(max_examples=5, deadline=None)
@given(order=st.permutations(range(2 * 2 * 3 * IMAGES)))
def test_verdicts_do_not_depend_on_the_order_of_rows(profile: Profile, order: list[int]) -> None:
    scores = make_scores(0.05)
    asked = [claim(beside=["gmsd"], expect=[{"metric": "psnr", "rule": "better"}])]
    shuffled = scores.iloc[order].reset_index(drop=True)
    one, other = (to_json(evaluate(asked, each, profile, {})) for each in (scores, shuffled))
    assert one == other


def test_more_claims_only_make_a_verdict_harder(profile: Profile) -> None:
    asked = claim()
    many = [asked, *(claim(id=f"other-{i}") for i in range(30))]
    scores = make_scores(0.06)
    alone, among = (evaluate(each, scores, profile, {}).findings[0] for each in ([asked], many))
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
    found = only(evaluate([claim(**changes)], scores, profile, {}))
    assert found.verdict == "not run"
    assert said in " ".join(found.because)


def test_one_metric_that_was_not_run_keeps_the_claim_from_a_pass(profile: Profile) -> None:
    both = [{"metric": "psnr", "rule": "better"}, {"metric": "musiq", "rule": "better"}]
    found = only(evaluate([claim(expect=both)], make_scores(1.0), profile, {}))
    assert [m.verdict for m in found.measured] == ["reproduced", "not run"]
    assert found.verdict == "not run"


def test_a_stand_in_decides_by_name_and_only_where_nothing_else_can(profile: Profile) -> None:
    asked = claim(
        expect=[{"metric": "musiq", "rule": "better"}],
        stand_in=[{"metric": "heldout_loss", "rule": "better"}],
    )
    found = only(evaluate([asked], make_scores(0.5), profile, {}))
    assert found.verdict == "reproduced" and "held-out loss, which stands in" in found.because[0]
    measured = claim(stand_in=[{"metric": "heldout_loss", "rule": "worse"}])
    assert only(evaluate([measured], make_scores(0.5), profile, {})).verdict == "reproduced"


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
    found = only(evaluate([asked], make_scores(1.0), profile, {}))
    assert found.verdict == "not comparable" and said in found.because[0] and not found.measured


def test_a_controlled_baseline_is_not_the_published_system(profile: Profile) -> None:
    asked = claim(
        kind="published",
        data={"datasets": ["Photos"], "levels": ["I"]},
        test={"kind": "gain", "method": "FaithDiff", "over": ["Real-ESRGAN"]},
    )
    found = only(evaluate([asked], make_scores(1.0), profile, {}))
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
    manifest = {"machines": [{"hardware": {"gpus": gpus}}]}
    assert only(evaluate([asked], make_scores(1.0), profile, manifest)).verdict == verdict


def test_a_trend_is_the_gain_beyond_the_other_levels(profile: Profile) -> None:
    scores = make_scores(0.0)
    more = (scores["method"] == "faithdiff") & (scores["level"] == "III")
    scores.loc[more, "value"] += 1.0
    test = {"kind": "trend", "method": "faithdiff", "over": "frozen", "at": "III"}
    asked = [
        claim(test={**test, "beyond": ["I", "II"]}),
        claim(id="b", test={**test, "beyond": ["III"]}),
    ]
    found = evaluate(asked, scores, profile, {}).findings
    assert [each.verdict for each in found] == ["reproduced", "inconclusive"]
    assert [m.value for m in found[0].measured] == pytest.approx([1.0, 1.0], abs=0.15)


# --- power --------------------------------------------------------------------------------------


def test_the_power_calculation_holds_in_simulation() -> None:
    rng = np.random.default_rng(5)
    n = images_for_effect(rng.normal(0, 1, 400), 0.5, 0.05)
    assert n is not None and 30 <= n <= 36  # textbook: 34 for a standardised effect of 0.5
    samples = rng.normal(0.5, 1, (4000, n))
    t = samples.mean(1) / samples.std(1, ddof=1) * math.sqrt(n)
    assert (np.abs(t) > 2.03).mean() == pytest.approx(0.8, abs=0.06)


@settings(deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=3, max_size=30), st.floats(0.05, 3))
def test_power_is_consistent(values: list[float], effect: float) -> None:
    drawn = np.array(values)
    if drawn.std() < 1e-3:
        return
    n = len(drawn)
    seen = smallest_effect(drawn, 0.05)
    enough = images_for_effect(drawn, effect, 0.05)
    assert (enough is not None and enough <= n) == (seen <= effect)
    fewer = images_for_effect(drawn, 2 * effect, 0.05)
    assert enough is None or (fewer is not None and fewer <= enough)
    narrow, wide = (images_for_width(drawn, w, 0.05) for w in (effect, 2 * effect))
    assert narrow is None or (wide is not None and wide <= narrow)


def test_an_open_claim_says_what_it_could_have_shown_and_what_would_settle_it(
    profile: Profile,
) -> None:
    found = only(evaluate([claim()], make_scores(0.01), profile, {}))
    assert "12 images can show a gain of" in found.settle[0]
    assert "1 training each" in found.settle[1]
    several = only(evaluate([claim()], make_scores(0.01, seeds=(0, 1, 2)), profile, {}))
    assert several.measured[0].seeds == (0, 1, 2)
    assert "between 3 trainings it varies by" in several.settle[1]


# --- output -------------------------------------------------------------------------------------


def test_the_page_escapes_and_counts(profile: Profile) -> None:
    report = evaluate([claim(statement="a | b <script>")], make_scores(1.0), profile, {})
    page = to_markdown(report)
    assert r"a \| b \<script\>" in page and "<script>" not in page
    assert "1 reproduced" in page and "**reproduced**" in page
    assert json.loads(to_json(report))["verdicts"]["reproduced"] == 1


def test_the_committed_claims_are_those_of_the_committed_scores(
    profile: Profile, tmp_path: Path
) -> None:
    committed = ROOT / "results" / "mini"
    whole = load_profile(ROOT / "config" / "mini.yaml").report
    manifest = json.loads((committed / "manifest.json").read_text(encoding="utf-8"))
    scores = load_scores(committed / "scores.csv")
    found = evaluate(
        load_claims(SHIPPED), scores, profile.model_copy(update={"report": whole}), manifest
    )
    assert (committed / "claims.json").read_text(encoding="utf-8") == to_json(found)
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
    assert sum(content["verdicts"].values()) == len(report.findings) == len(load_claims(SHIPPED))
    joint = next(c for c in content["claims"] if c["id"] == "joint-over-frozen")
    assert joint["verdict"] == "reproduced" and joint["measured"][-1]["role"] == "beside"
