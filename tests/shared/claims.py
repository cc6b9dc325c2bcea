"""Made-up claims and scores with a known gain, for tests of verdicts."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd

from faithdiff.claims.evaluate import ClaimsReport, JudgedClaim
from faithdiff.claims.schema import Claim, Claims
from faithdiff.config import parse
from faithdiff.report.scores import COLUMNS
from shared import ROOT

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


def claim(**changes: object) -> Claim:
    return parse({**CLAIM, **changes}, Claim, "test")


def claims(*asked: Claim) -> Claims:
    return Claims.model_validate(
        {"matters": MATTERS, "surrogates": SURROGATES, "claims": [c.model_dump() for c in asked]}
    )


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


def only(report: ClaimsReport) -> JudgedClaim:
    (found,) = report.findings
    return found
