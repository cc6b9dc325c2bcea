"""A small study with made-up scores, for tests of its tables and figures."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage
from shared import ROOT
from shared.scores import AWKWARD, make_scores

from faithdiff.config import Profile, load_profile
from faithdiff.data.images import write_png
from faithdiff.score.costs import COST_COLUMNS
from faithdiff.study.layout import Layout


@pytest.fixture
def profile() -> Profile:
    """Two methods and two variants, one of them with an awkward label; two metrics."""
    mini = load_profile(ROOT / "config" / "mini.yaml")
    variants = {name: mini.variants[name] for name in ("faithdiff", "frozen", "separate")}
    variants["frozen"] = variants["frozen"].model_copy(update={"label": AWKWARD})
    return mini.model_copy(
        update={
            "profile": "tiny",
            "seeds": [0],
            "variants": variants,
            "baselines": {"bicubic": mini.baselines["bicubic"]},
            "data": mini.data.model_copy(update={"levels": ["I", "II"]}),
            "score": mini.score.model_copy(
                update={
                    "protocols_file": ROOT / "config" / "protocols.yaml",
                    "metrics": ["psnr", "lpips"],
                }
            ),
            "report": mini.report.model_copy(
                update={
                    "protocol": "ycbcr",
                    "main": ["bicubic", "frozen", "faithdiff"],
                    "ablation": ["faithdiff", "frozen", "separate"],
                    "bootstrap": 800,
                    "panel_images": 2,
                }
            ),
        }
    )


@pytest.fixture
def made_up(profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """A run directory with scores, images and training logs."""
    monkeypatch.chdir(tmp_path)
    layout = Layout(profile.profile)
    shutil.copytree(ROOT / "results" / "paper", tmp_path / "results" / "paper")
    layout.results.mkdir(parents=True)
    make_scores(profile).to_csv(layout.results / "scores.csv", index=False)
    costs = pd.DataFrame({"method": list(profile.methods), "seed": 0}, columns=list(COST_COLUMNS))
    costs.fillna({"parts": ""}).to_csv(layout.results / "cost.csv", index=False)
    _make_images(profile, layout)
    logs = [_log("stage1-released", 1)]
    logs += [_log(name, len(variant.phases)) for name, variant in profile.variants.items()]
    pd.concat(logs).to_csv(layout.results / "training.csv", index=False)
    return layout


def _make_images(profile: Profile, layout: Layout) -> None:
    rng = np.random.default_rng(0)
    for dataset, place in itertools.product(profile.data.test, range(2)):
        hq = ndimage.gaussian_filter(rng.integers(0, 256, (48, 64, 3)).astype(float), (2, 2, 0))
        hq = np.clip((hq - 127) * 4 + 127, 0, 255).astype(np.uint8)
        name = f"{place:04d}.png"
        write_png(hq, layout.dataset(dataset) / "hq" / name)
        for level in profile.data.levels:
            write_png(hq[::4, ::4].copy(), layout.lq(dataset, level) / name)
            for method in profile.methods:
                write_png(hq, layout.restoration(method, 0, dataset, level) / name)
    for dataset in profile.data.test:
        index = pd.DataFrame({"name": [f"{place:04d}" for place in range(2)]})
        index.assign(caption="noise").to_csv(layout.dataset(dataset) / "index.csv", index=False)


def _log(method: str, phases: int) -> pd.DataFrame:
    steps = np.arange(0, 100, 10)
    columns = {"method": method, "seed": 0, "step": steps, "loss": 1 / (1 + steps)}
    return pd.concat([pd.DataFrame({**columns, "phase": f"phase {i}"}) for i in range(phases)])
