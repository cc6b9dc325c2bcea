"""The learning rates and the sampler of `mini` are what its committed searches chose."""

from __future__ import annotations

import io
import json
from typing import Any

import pandas as pd
import pytest
from shared import CONFIG
from shared.committed import committed

from faithdiff.config import load_profile
from faithdiff.config.curves import row_name
from faithdiff.report.scores import read_scores

DESIGNS = ("faithdiff", "diffbir", "supir", "seesr")


def searched(name: str) -> dict[str, Any]:
    """The settings of a search when its committed results were made.

    Plain ones: a key that the profile has got since then does not make them unreadable.
    """
    config: dict[str, Any] = json.loads(committed(f"results/{name}/manifest.json"))["config"]
    return config


def mini() -> dict[str, Any]:
    return load_profile(CONFIG / "mini.yaml").model_dump(mode="json")


def chosen(search: dict[str, Any], setting: str, method: str, own: float) -> float:
    """The rule: lowest ST-LPIPS of which PSNR, to two decimals, is at most 0.50 dB below bicubic's.

    `own` is the value of the row that has the method's own name.
    """
    path = f"results/{search['profile']}/scores.csv"
    scores = read_scores(io.BytesIO(committed(path).encode()), path)
    scores = scores[scores["metric"].isin(["psnr", "st-lpips"])]
    assert (scores["status"] == "ok").all() and scores["protocol"].nunique() == 1
    means: pd.DataFrame = scores.pivot_table("value", "method", "metric").round({"psnr": 2})
    (curve,) = (curve for curve in search["curves"].values() if curve["setting"] == setting)
    rows = {row_name(method, setting, value): float(value) for value in curve["values"]}
    tried = means.loc[[method, *rows]]
    good = tried[tried.psnr >= round(means.psnr["bicubic"] - 0.5, 2)]
    return {method: own, **rows}[str(good["st-lpips"].idxmin())]


def rates(config: dict[str, Any], method: str) -> dict[str, float]:
    """The learning rates of a method's last stage."""
    if method == "faithdiff":
        of_groups: dict[str, float] = config["training"]["learning_rates"]
        return of_groups
    return {"all": config["baselines"][method]["settings"]["learning_rate"]}


@pytest.mark.parametrize("method", DESIGNS)
def test_learning_rates_are_those_of_the_search(method: str) -> None:
    search = searched("mini-rates")
    factor = chosen(search, "rates", method, own=1)
    expected = {part: factor * rate for part, rate in rates(search, method).items()}
    assert rates(mini(), method) == pytest.approx(expected)


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
    search = searched("mini-sampler")
    own = search["restore"][setting]
    choices = {method: chosen(search, setting, method, own) for method in methods}
    assert choices == dict.fromkeys(methods, mini()["restore"][setting])


@pytest.mark.parametrize("method", DESIGNS)
def test_the_sampler_was_searched_at_the_rates_of_the_study(method: str) -> None:
    assert rates(searched("mini-sampler"), method) == rates(mini(), method)
