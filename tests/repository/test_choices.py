"""The learning rates and the sampler of `mini` are what its committed searches chose."""

from __future__ import annotations

import io

import pandas as pd
import pytest
from shared import CONFIG
from shared.committed import committed

from faithdiff.config import Profile, load_profile
from faithdiff.config.curves import row_name
from faithdiff.report.scores import read_scores

DESIGNS = ("faithdiff", "diffbir", "supir", "seesr")


def chosen(profile: Profile, setting: str, method: str, own: float) -> float:
    """The rule: the lowest ST-LPIPS of which PSNR is at most 0.50 dB below that of bicubic.

    `own` is the value of the row that has the method's own name.
    """
    path = f"results/{profile.profile}/scores.csv"
    scores = read_scores(io.BytesIO(committed(path).encode()), path)
    means: pd.DataFrame = scores.pivot_table("value", "method", "metric").round({"psnr": 2})
    (curve,) = (curve for curve in profile.curves.values() if curve.setting == setting)
    rows = {row_name(method, setting, value): float(value) for value in curve.values}
    tried = means.loc[[method, *rows]]
    good = tried[tried.psnr >= round(means.psnr["bicubic"] - 0.5, 2)]
    return {method: own, **rows}[str(good["st-lpips"].idxmin())]


def rate(profile: Profile, method: str) -> float:
    if method == "faithdiff":
        return profile.training.learning_rates.unet
    value = profile.settings_of(method)["learning_rate"]
    assert isinstance(value, float)
    return value


@pytest.mark.parametrize("method", DESIGNS)
def test_learning_rates_are_those_of_the_search(method: str) -> None:
    mini, search = (load_profile(CONFIG / f"{name}.yaml") for name in ("mini", "mini-rates"))
    factor = chosen(search, "rates", method, own=1)
    assert rate(mini, method) == pytest.approx(factor * rate(search, method))


@pytest.mark.parametrize(
    ("setting", "methods"),
    [
        ("start_timestep", DESIGNS),
        # SeeSR would take guidance 8 and 40 steps; all designs share one sampler.
        ("guidance_scale", DESIGNS[:3]),
        ("steps", DESIGNS[:3]),
    ],
)
def test_the_sampler_is_that_of_the_search(setting: str, methods: tuple[str, ...]) -> None:
    mini, search = (load_profile(CONFIG / f"{name}.yaml") for name in ("mini", "mini-sampler"))
    own = getattr(search.restore, setting)
    choices = {method: chosen(search, setting, method, own) for method in methods}
    assert choices == dict.fromkeys(methods, getattr(mini.restore, setting))
