"""Metrics as the protocols define them, against their formulas and other libraries."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyiqa.default_model_configs import DEFAULT_CONFIGS
from shared.scoring import PROTOCOLS, noisy, pair, picture, prepared, score_one

from faithdiff.errors import ConfigError
from faithdiff.score.cache import ScoreCache
from faithdiff.score.metrics import prepare_all
from faithdiff.score.protocols import choose
from faithdiff.score.scorer import Pair, Scorer


def values(images: Pair, metrics: list[str]) -> dict[tuple[str, str], float]:
    outcome = Scorer(prepared(metrics), Path("nowhere")).score(images)
    assert {status for _, status in outcome.values()} == {"ok"}
    return {key: float(value) for key, (value, _) in outcome.items()}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # basicsr's own imports
def test_psnr_and_ssim_agree_with_basicsr(tmp_path: Path) -> None:
    from basicsr.metrics import calculate_psnr, calculate_ssim

    hq = picture(1, 96)
    restored = noisy(hq, 2)
    ours = values(pair(tmp_path, restored, hq), ["psnr", "ssim"])
    a, b = restored[..., ::-1], hq[..., ::-1]  # basicsr takes BGR
    rgb = calculate_psnr(a, b, crop_border=0)
    luma = calculate_psnr(a, b, crop_border=0, test_y_channel=True)
    assert ours["faithdiff-repo", "psnr"] == pytest.approx(rgb, abs=2e-4)
    assert ours["ycbcr", "psnr"] == pytest.approx(luma, abs=2e-4)
    # pyiqa rounds the luma to integers before SSIM, basicsr does not.
    similarity = calculate_ssim(a, b, crop_border=0, test_y_channel=True)
    assert ours["ycbcr", "ssim"] == pytest.approx(similarity, abs=2e-3)


def test_the_two_lumas_differ_by_their_range(tmp_path: Path) -> None:
    """PSNR on the Y of YIQ (0..255) is 20 log10(255 / 219) below that of YCbCr (16..235)."""
    definition = PROTOCOLS["ycbcr"].metrics["psnr"]
    yiq = definition.model_copy(update={"options": {"test_y_channel": True, "color_space": "yiq"}})
    metrics = prepare_all({("a", "psnr"): definition, ("b", "psnr"): yiq}, tmp_path, {})
    hq = picture(3)
    outcome = Scorer(metrics, tmp_path).score(pair(tmp_path, noisy(hq, 4), hq))
    difference = float(outcome["a", "psnr"][0]) - float(outcome["b", "psnr"][0])
    assert difference == pytest.approx(20 * math.log10(255 / 219), abs=1e-3)
    assert difference == pytest.approx(1.3219, abs=1e-3)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**31), st.integers(11, 40), st.integers(11, 40))
def test_psnr_is_the_formula(
    tmp_path_factory: pytest.TempPathFactory, seed: int, height: int, width: int
) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    ours = values(pair(tmp_path_factory.mktemp("pair"), a, b), ["psnr"])
    error = np.mean((a / 255 - b / 255) ** 2)
    assert ours["faithdiff-repo", "psnr"] == pytest.approx(-10 * np.log10(error), abs=1e-3)


def test_crop_border_takes_the_border_from_both_images(tmp_path: Path) -> None:
    definition = PROTOCOLS["ycbcr"].metrics["psnr"].model_copy(update={"crop_border": 4})
    hq = picture(5)
    restored = hq.copy()
    restored[:4] = 0  # only the border differs
    metrics = prepare_all({("ycbcr", "psnr"): definition}, tmp_path, {})
    outcome = Scorer(metrics, tmp_path).score(pair(tmp_path, restored, hq))
    assert float(outcome["ycbcr", "psnr"][0]) == pytest.approx(80)  # pyiqa's cap: equal images


def test_what_a_metric_cannot_do_at_a_size_is_said(tmp_path: Path) -> None:
    hq = picture(6, 128)
    outcome = Scorer(prepared(["ms_ssim", "gmsd"]), tmp_path).score(
        pair(tmp_path, noisy(hq, 7), hq)
    )
    assert outcome["ycbcr", "ms_ssim"] == (
        "",
        "unavailable: needs 161 px on the shorter side, the image has 128",
    )
    assert outcome["ycbcr", "gmsd"][1] == "ok"


def test_min_sizes_are_the_real_limits(tmp_path: Path) -> None:
    """At its smallest size a metric gives a value; one pixel below ms_ssim's, pyiqa raises."""
    for name in ("psnr", "ssim", "ms_ssim", "gmsd", "fsim"):
        definition = PROTOCOLS["ycbcr"].metrics[name]
        size = definition.min_size
        image = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
        outcome = score_one(definition, pair(tmp_path, noisy(image, 1), image))
        assert outcome[1] == "ok", name
    free = PROTOCOLS["ycbcr"].metrics["ms_ssim"].model_copy(update={"min_size": 1})
    image = np.random.default_rng(0).integers(0, 256, (160, 160, 3), dtype=np.uint8)
    value, status = score_one(free, pair(tmp_path, noisy(image, 1), image))
    assert value == ""
    assert status.startswith("failed: RuntimeError")


def test_a_wrong_size_and_a_nan_are_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = Scorer(prepared(["psnr"]), tmp_path).score(
        pair(tmp_path, picture(1, 40), picture(1, 48))
    )
    assert outcome["ycbcr", "psnr"] == ("", "failed: size 40x40 != 48x48")
    monkeypatch.setattr("faithdiff.score.scorer.load", lambda *_: lambda *_: math.nan)
    cache = ScoreCache(tmp_path / "cache.csv")
    scorer = Scorer(prepared(["psnr"]), tmp_path, cache=cache)
    outcome = scorer.score(pair(tmp_path, picture(1), picture(2)))
    assert outcome["ycbcr", "psnr"] == ("", "failed: value is nan")
    assert not (tmp_path / "cache.csv").exists()  # only ok values are kept


@pytest.mark.parametrize("metric", ["piqe", "niqe"])
def test_an_image_of_one_colour_fails_where_a_metric_has_no_value_for_it(
    tmp_path: Path, metric: str
) -> None:
    """Never a NaN among the values, and the reason is that of the image, not of the library."""
    flat = np.zeros((192, 192, 3), np.uint8)
    outcome = Scorer(prepared([metric, "psnr", "ssim"]), tmp_path).score(
        pair(tmp_path, flat, picture(2, 192))
    )
    value, status = outcome["ycbcr", metric]
    assert value == ""
    assert status.startswith("failed: ")
    assert status.endswith("; all pixels of the restored image are equal")
    assert {outcome["ycbcr", name].status for name in ("psnr", "ssim")} == {"ok"}


def test_definitions_agree_with_pyiqa() -> None:
    for protocol in PROTOCOLS.values():
        for definition in protocol.metrics.values():
            if definition.library != "pyiqa":
                continue
            known = DEFAULT_CONFIGS[definition.network]
            assert definition.needs_reference == (known["metric_mode"] == "FR")
            assert definition.higher_is_better != known.get("lower_better", False)


def test_shared_definitions_are_computed_once_and_digests_tell_the_rest(tmp_path: Path) -> None:
    metrics = prepared(["psnr", "gmsd"])
    assert metrics["ycbcr", "gmsd"].digest == metrics["faithdiff-repo", "gmsd"].digest
    assert metrics["ycbcr", "psnr"].digest != metrics["faithdiff-repo", "psnr"].digest
    scorer = Scorer(metrics, tmp_path)
    scorer.score(pair(tmp_path, picture(1), picture(2)))
    assert scorer.computed == 3


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="'rgb' is not one of"):
        choose(PROTOCOLS, ["rgb"], ["psnr"])
    with pytest.raises(ConfigError, match="protocol ycbcr has no 'lpipps'"):
        choose(PROTOCOLS, ["ycbcr"], ["lpipps"])
    definition = PROTOCOLS["ycbcr"].metrics["psnr"].model_copy(update={"network": "psnr2"})
    with pytest.raises(ConfigError, match="no metric 'psnr2'"):
        prepare_all({("ycbcr", "psnr"): definition}, Path("nowhere"), {})
