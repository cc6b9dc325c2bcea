"""Real-world test sets, which have no HQ images: from a folder to the table, by the commands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from shared import ROOT

from faithdiff import cli
from faithdiff.config import load_profile
from faithdiff.data.images import read_image, write_png
from faithdiff.errors import ConfigError, UserError
from faithdiff.report.tables import load_scores, main_table, real_table
from faithdiff.restore.run import captions_of
from faithdiff.study.layout import Layout

PROFILE = Path("config/real.yaml")
VARIANTS = yaml.safe_load((ROOT / "config/mini.yaml").read_text())["variants"]

SCORE = {
    "protocols_file": "config/own.yaml",
    "protocols": ["own"],
    "metrics": ["psnr", "piqe"],
}


def write_profile(captions: str = "file", **changes: object) -> None:
    """Bicubic alone; one set with HQ at x4, one without at x2; psnr and piqe, without weights."""
    data = {
        "extends": "test.yaml",
        "profile": "real",
        "data": {
            "levels": ["I", "II"],
            "test": {
                "Photos": {"source": "photos", "count": 2, "size": 96},
                "Scenes": None,
                "Real": {
                    "source": "folder",
                    "path": "raw/Real",
                    "recursive": True,
                    "lq_only": True,
                    "scale": 2,
                    "captions": captions,
                },
            },
        },
        "variants": dict.fromkeys(VARIANTS),
        "baselines": dict.fromkeys(
            ("realesrgan-x4plus", "realesrgan", "diffbir", "supir", "supir-own", "seesr")
        ),
        "score": SCORE,
        "report": {"protocol": "own", "main": ["bicubic"], "ablation": ["bicubic"]},
        **changes,
    }
    PROFILE.write_text(yaml.safe_dump(data))


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with config, two real images of different sizes, and the profile above."""
    for part in ("config", "results/paper"):
        shutil.copytree(ROOT / part, tmp_path / part)
    monkeypatch.chdir(tmp_path)
    shipped = yaml.safe_load(Path("config/protocols.yaml").read_text())["protocols"]
    metrics = shipped["faithdiff-repo"]["metrics"]
    own = {"description": "", "metrics": {"psnr": metrics["psnr"], "piqe": metrics["piqe"]}}
    Path("config/own.yaml").write_text(yaml.safe_dump({"protocols": {"own": own}}))
    rng = np.random.default_rng(0)
    for name, shape in {"old": (48, 64, 3), "new": (50, 40, 3)}.items():
        write_png(rng.integers(0, 256, shape).astype(np.uint8), Path(f"raw/Real/LQ/{name}.png"))
        Path(f"raw/Real/LQ/{name}.txt").write_text(f"The {name} one.")
    write_profile()
    return tmp_path


def run_to_scores() -> None:
    for dataset in ("Photos", "Real"):
        cli.prepare(dataset, PROFILE)
    cli.degrade("Photos", ["I", "II"], PROFILE)
    cli.degrade("Real", ["real"], PROFILE)
    cli.restore_sets("bicubic", 0, PROFILE)
    cli.score("bicubic", 0, PROFILE)
    cli.collect(PROFILE)


def test_a_real_world_set_goes_through_all_steps(study: Path) -> None:
    run_to_scores()
    restored = Path("restored/real/bicubic/seed0/Real/real")
    assert read_image(restored / "LQ-old.png").shape == (96, 128, 3)  # x2
    assert read_image(restored / "LQ-new.png").shape == (100, 80, 3)
    photo = next(Path("restored/real/bicubic/seed0/Photos/I").glob("*.png"))
    assert read_image(photo).shape == (96, 96, 3)  # x4
    text = Path("data/real/Real/lq/real/degradation.jsonl").read_text()
    log = [json.loads(line) for line in text.splitlines()]
    assert [line["name"] for line in log] == ["LQ-new", "LQ-old"]
    assert {line["parameters"] for line in log} == {None}

    scores = pd.read_csv("results/real/scores.csv", keep_default_na=False)
    real = scores[scores["dataset"] == "Real"]
    assert set(real["metric"]) == {"piqe"}  # no row, not even a status, for PSNR
    assert set(real["level"]) == {"real"}
    assert set(real["status"]) == {"ok"}
    assert set(real["hq_sha256"]) == {""}
    assert set(scores.loc[scores["dataset"] == "Photos", "metric"]) == {"psnr", "piqe"}

    cli.tables(PROFILE)
    tables = sorted(file.name for file in Path("results/real/tables").glob("*.md"))
    assert tables == ["ablation.md", "cost.md", "main.md", "real.md"]
    text = Path("results/real/tables/real.md").read_text()
    assert "PIQE" in text and "Real" in text
    assert "PSNR" not in text and "Photos" not in text
    main = Path("results/real/tables/main.md").read_text()
    assert "PSNR" in main and "| Real" not in main

    cli.figures(PROFILE)
    assert Path("results/real/figures/panels-Real-real.png").is_file()
    assert Path("results/real/figures/panels-Photos-II.png").is_file()


def test_the_table_holds_the_means_of_its_images(study: Path) -> None:
    run_to_scores()
    profile = load_profile(PROFILE)
    scores = load_scores(Path("results/real/scores.csv"))
    table = real_table(scores, profile, paper=Path("results/paper"))
    (block,) = table.blocks
    (cell,) = block.rows[0].cells
    values = scores.loc[scores["dataset"] == "Real", "value"]
    assert cell.mean == pytest.approx(values.mean())
    assert cell.expected == cell.usable == 2
    names = [block.datasets for block in main_table(scores, profile).blocks]
    assert names == [("Photos",), ("Photos",)]


def test_a_second_restoration_makes_nothing(study: Path) -> None:
    run_to_scores()
    before = Path("restored/real/bicubic/seed0/Real/real/manifest.json").read_text()
    cli.restore_sets("bicubic", 0, PROFILE)
    after = Path("restored/real/bicubic/seed0/Real/real/manifest.json").read_text()
    assert json.loads(before)["made"] == 2
    assert json.loads(after)["made"] == 0
    assert json.loads(before)["images"] == json.loads(after)["images"]


def test_mistakes_are_told(study: Path) -> None:
    with pytest.raises(UserError, match="'I' is not one of real"):
        cli.degrade("Real", ["I"], PROFILE)
    with pytest.raises(UserError, match="no test set has `captions: llava`"):
        cli.caption("Real", ["real"], PROFILE)
    run_to_scores()
    write_profile(score={**SCORE, "metrics": ["psnr"]})
    profile = load_profile(PROFILE)
    with pytest.raises(UserError, match="all need an HQ image, and Real has none"):
        real_table(load_scores(Path("results/real/scores.csv")), profile)
    write_profile(captions="blip")
    with pytest.raises(ConfigError, match=r"Real\.captions: 'blip' is not one of 'none', 'file'"):
        load_profile(PROFILE)


def test_captions_of_a_file_and_of_a_model_reach_the_restorer(study: Path) -> None:
    from faithdiff.methods.method import Study

    for dataset in ("Photos", "Real"):
        cli.prepare(dataset, PROFILE)
    read = Study.load(PROFILE)
    assert captions_of(read, "Real", "real") == {"LQ-new": "The new one.", "LQ-old": "The old one."}
    write_profile(captions="llava")
    cli.prepare("Real", PROFILE)
    asking = Study.load(PROFILE)
    with pytest.raises(UserError, match=r"captions\.csv: is missing; .* faithdiff caption"):
        captions_of(asking, "Real", "real")
    file = Layout("real").captions("Real", "real")
    file.write_text("name,caption\nLQ-new,a\nLQ-old,b\n")
    assert captions_of(asking, "Real", "real") == {"LQ-new": "a", "LQ-old": "b"}
    file.write_text("name,caption\nLQ-new,a\n")
    with pytest.raises(UserError, match=r"'LQ-old' is in it or in index\.csv, not in both"):
        captions_of(asking, "Real", "real")
