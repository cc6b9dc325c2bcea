"""Made-up scores of a small study, as `scores.csv` holds them."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pandas as pd

from faithdiff.config import Profile
from faithdiff.report.scores import COLUMNS, KEY

IMAGES = 12


AWKWARD = r'50% & _x_ {a} #1 $2 ^ ~ \cmd [x] *y* <z> | "q" --all'


def with_report(profile: Profile, **changes: object) -> Profile:
    return profile.model_copy(update={"report": profile.report.model_copy(update=changes)})


Value = Callable[[str, str, int], float]  # method, metric, image


def _plain(method: str, metric: str, image: int) -> float:
    """FaithDiff clearly best in PSNR; LPIPS all but tied."""
    noise = np.random.default_rng(sum(map(ord, f"{method}{metric}{image}"))).normal()
    if metric == "psnr":
        return 20 + image * 0.3 + 2.0 * (method == "faithdiff") + 0.1 * noise
    return 0.15 + 0.001 * image + 0.004 * noise


def make_scores(
    profile: Profile, value: Value = _plain, seeds: tuple[int, ...] = (0,)
) -> pd.DataFrame:
    rows = []
    places = list(itertools.product(profile.data.test, profile.data.levels, range(IMAGES)))
    for method, (dataset, level, image) in itertools.product(profile.methods, places):
        metrics = [(name, "ycbcr") for name in profile.score.metrics]
        if method in profile.variants and image < IMAGES // 2:
            metrics.append(("heldout_loss", "heldout"))
        for (metric, protocol), seed in itertools.product(metrics, seeds):
            number = value(method, metric, image) + 0.01 * seed
            row = ("tiny", method, "", seed, dataset, level, f"{image:04d}")
            rows.append((*row, f"{image:04d}", metric, protocol, number, "ok", "r", "h", "p"))
    return load_rows(pd.DataFrame(rows, columns=COLUMNS))


def load_rows(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.sort_values(KEY, ignore_index=True)
