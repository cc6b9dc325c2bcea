"""The learning rates and the sampler of `mini` are what its committed searches chose."""

from __future__ import annotations

import io
import json

import pandas as pd
import pytest
from shared import CONFIG
from shared.committed import committed

from faithdiff.config import Profile, load_profile
from faithdiff.config.curves import row_name
from faithdiff.report.scores import read_scores

DESIGNS = ("faithdiff", "diffbir", "supir", "seesr")


def searched(name: str) -> Profile:
    """The profile of a search as it was when the committed results were made."""
    manifest = json.loads(committed(f"results/{name}/manifest.json"))
    return Profile.model_validate(manifest["config"])


def chosen(search: Profile, setting: str, method: str, own: float) -> float:
    """The rule: the lowest ST-LPIPS of which PSNR is at most 0.50 dB below that of bicubic.

    `own` is the value of the row that has the method's own name.
    """
    path = f"results/{search.profile}/scores.csv"
    scores = read_scores(io.BytesIO(committed(path).encode()), path)
    scores = scores[scores["metric"].isin(["psnr", "st-lpips"])]
    assert (scores["status"] == "ok").all() and scores["protocol"].nunique() == 1
    means: pd.DataFrame = scores.pivot_table("value", "method", "metric").round({"psnr": 2})
    (curve,) = (curve for curve in search.curves.values() if curve.setting == setting)
    rows = {row_name(method, setting, value): float(value) for value in curve.values}
    tried = means.loc[[method, *rows]]
    good = tried[tried.psnr >= round(means.psnr["bicubic"] - 0.5, 2)]
    return {method: own, **rows}[str(good["st-lpips"].idxmin())]


def rates(profile: Profile, method: str) -> dict[str, float]:
    """The learning rates of a method's last stage."""
    if method == "faithdiff":
        return profile.training.learning_rates.model_dump()
    value = profile.settings_of(method)["learning_rate"]
    assert isinstance(value, float)
    return {"all": value}


@pytest.mark.parametrize("method", DESIGNS)
def test_learning_rates_are_those_of_the_search(method: str) -> None:
    mini, search = load_profile(CONFIG / "mini.yaml"), searched("mini-rates")
    factor = chosen(search, "rates", method, own=1)
    expected = {part: factor * rate for part, rate in rates(search, method).items()}
    assert rates(mini, method) == pytest.approx(expected)


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
    mini, search = load_profile(CONFIG / "mini.yaml"), searched("mini-sampler")
    own = getattr(search.restore, setting)
    choices = {method: chosen(search, setting, method, own) for method in methods}
    assert choices == dict.fromkeys(methods, getattr(mini.restore, setting))


@pytest.mark.parametrize("method", DESIGNS)
def test_the_sampler_was_searched_at_the_rates_of_the_study(method: str) -> None:
    mini = load_profile(CONFIG / "mini.yaml")
    assert rates(searched("mini-sampler"), method) == rates(mini, method)
