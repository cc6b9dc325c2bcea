"""Claims about published numbers, orders and seconds."""

from __future__ import annotations

import math

import pytest
from shared import ROOT
from shared.claims import IMAGES, claim, claims, make_scores, only

from faithdiff.claims.evaluate import evaluate
from faithdiff.claims.measure import Meter, contrasts
from faithdiff.claims.verdict import Verdict
from faithdiff.config import Profile, load_profile


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


def test_a_published_mean_is_of_images_and_not_of_pictures(profile: Profile) -> None:
    scores = make_scores(0.0)
    scores["picture"] = scores["image"].where(scores["image"] > "005", "one")
    test = {"kind": "value", "method": "faithdiff"}
    mean = scores.query("method == 'faithdiff' and metric == 'psnr'")["value"].mean()
    asked = claim(test=test, expect=[{"metric": "psnr", "printed": f"{mean:.2f}", "within": 0.01}])
    found = only(evaluate(claims(asked), scores, profile))
    assert found.verdict == "reproduced" and found.measured[0].n == IMAGES


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
