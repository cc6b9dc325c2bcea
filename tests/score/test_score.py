"""Score jobs: rows, resuming, weights that arrive later, and what is refused."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from shared import CONFIG
from shared.scoring import ARTIFACTS, BOTH, noisy, picture, prepared, put_clip

from faithdiff.config import Profile, load_profile
from faithdiff.data.artifacts import Artifact
from faithdiff.data.fetch import fetch_all
from faithdiff.data.images import sha256_file, write_png
from faithdiff.errors import RunError, UserError
from faithdiff.score.cache import ScoreCache
from faithdiff.score.protocols import weights_state
from faithdiff.score.rows import COLUMNS
from faithdiff.score.run import ScoredSet, score_folder, score_job, write_scores
from faithdiff.score.scorer import Scorer
from faithdiff.study.layout import Layout

PLACE = ScoredSet("faithdiff", "faithdiff", 0, "Photos", "II")


def folders(root: Path, count: int) -> tuple[dict[str, Path], dict[str, Path]]:
    hq, restored = {}, {}
    for index in range(count):
        name = f"image-{index}"
        hq[name], restored[name] = root / "hq" / f"{name}.png", root / "restored" / f"{name}.png"
        write_png(picture(index), hq[name])
        write_png(noisy(picture(index), index), restored[name])
    return hq, restored


def test_neither_order_nor_company_changes_a_row(tmp_path: Path) -> None:
    hq, restored = folders(tmp_path, 4)
    metrics = prepared(["psnr", "ssim"])
    write_scores(score_folder(hq, restored, Scorer(metrics, tmp_path), PLACE), tmp_path / "a.csv")
    names = list(hq)
    random.Random(3).shuffle(names)
    alone = [
        row
        for name in names
        for row in score_folder(
            {name: hq[name]}, {name: restored[name]}, Scorer(metrics, tmp_path), PLACE
        )
    ]
    write_scores(alone, tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    rows = read(tmp_path / "a.csv")
    assert list(rows[0]) == list(COLUMNS)
    assert len(rows) == 4 * 2 * 2


def test_unmatched_names_are_refused(tmp_path: Path) -> None:
    hq, restored = folders(tmp_path, 2)
    del restored["image-1"]
    with pytest.raises(UserError, match="no restored image for 'image-1'"):
        score_folder(hq, restored, Scorer(prepared(["psnr"]), tmp_path), PLACE)


def test_a_torn_cache_line_costs_one_value(tmp_path: Path) -> None:
    hq, restored = folders(tmp_path, 3)
    file = tmp_path / "cache.csv"
    metrics = {("ycbcr", "psnr"): prepared(["psnr"])["ycbcr", "psnr"]}
    first = score_folder(hq, restored, Scorer(metrics, tmp_path, cache=ScoreCache(file)), PLACE)
    file.write_bytes(file.read_bytes()[:-5])  # killed while writing the last value
    scorer = Scorer(metrics, tmp_path, cache=ScoreCache(file))
    assert score_folder(hq, restored, scorer, PLACE) == first
    assert scorer.computed == 1
    assert len(ScoreCache(file)._values) == 3


def read(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Profile, Layout]:
    """A profile with one test set at two levels, restored by `faithdiff`; tmp_path is the cwd."""
    monkeypatch.chdir(tmp_path)
    Path("profile.yaml").write_text(
        yaml.safe_dump(
            {
                "extends": str(CONFIG / "mini.yaml"),
                "data": {
                    "levels": ["I", "II"],
                    "test": {"Set": {"source": "scenes", "count": 2, "size": 64}},
                },
                "score": {
                    "protocols_file": str(CONFIG / "protocols.yaml"),
                    "protocols": BOTH,
                    "metrics": ["psnr", "clipiqa+"],
                    "weights": "weights",
                },
            }
        )
    )
    profile = load_profile(Path("profile.yaml"))
    # Only Set: the test sets of mini.yaml are inherited with it.
    test = {"Set": profile.data.test["Set"]}
    profile = profile.model_copy(update={"data": profile.data.model_copy(update={"test": test})})
    layout = Layout(profile.profile)
    hq, _ = folders(layout.dataset("Set"), 2)
    lines = ["name,sha256", *(f"{name},{sha256_file(file)}" for name, file in hq.items())]
    (layout.dataset("Set") / "index.csv").write_text("\n".join(lines) + "\n")
    for level in ("I", "II"):
        folder = layout.restoration("faithdiff", 0, "Set", level)
        for index, name in enumerate(hq):
            write_png(noisy(picture(index), len(level)), folder / f"{name}.png")
        images = {name: {"sha256": sha256_file(folder / f"{name}.png")} for name in hq}
        (folder / "manifest.json").write_text(json.dumps({"images": images}))
    return profile, layout


def write_artifacts(artifacts: Mapping[str, Artifact]) -> Path:
    file = Path("artifacts.yaml")
    entries = [item.model_dump(mode="json") for item in artifacts.values()]
    file.write_text(yaml.safe_dump({"artifacts": entries}))
    return file


def test_when_weights_arrive_only_their_column_is_computed(
    study: tuple[Profile, Layout],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    profile, layout = study
    scores = layout.restored("faithdiff", 0) / "scores.csv"
    shipped = CONFIG / "artifacts.yaml"
    assert set(weights_state(profile, shipped).values()) == {"missing"}
    score_job(profile, layout, "faithdiff", 0, artifacts_file=shipped)
    assert "8 of 16 values ok, 8 computed now" in capsys.readouterr().out
    before = read(scores)
    assert {row["value"] for row in before if row["metric"] == "clipiqa+"} == {""}

    artifacts = put_clip(profile.score.weights, monkeypatch)
    listed = write_artifacts(artifacts)
    found = weights_state(profile, listed)
    assert len(found) == 4
    needed = [artifacts[name] for name in found]
    assert found == {item.name: item.sha256 for item in needed}  # of what is there, by its content
    fetch_all(needed, profile.score.weights, say=lambda _: None)  # verifies, records, no network
    assert weights_state(profile, listed) == {item.name: item.sha256 for item in needed}

    score_job(profile, layout, "faithdiff", 0, artifacts_file=listed)
    assert "16 of 16 values ok, 8 computed now" in capsys.readouterr().out
    after = read(scores)
    assert [row for row in after if row["metric"] == "psnr"] == [
        row for row in before if row["metric"] == "psnr"
    ]
    data = scores.read_bytes()
    score_job(profile, layout, "faithdiff", 0, artifacts_file=listed)
    assert "0 computed now" in capsys.readouterr().out
    assert scores.read_bytes() == data


def test_a_job_goes_on_without_the_package_and_fills_the_column_when_it_is_there(
    study: tuple[Profile, Layout],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    profile, layout = study
    score = profile.score.model_copy(update={"metrics": ["psnr", "st-lpips"]})
    profile = profile.model_copy(update={"score": score})
    shipped = CONFIG / "artifacts.yaml"
    scores = layout.restored("faithdiff", 0) / "scores.csv"
    with monkeypatch.context() as patch:
        patch.setattr("faithdiff.data.artifacts.Package.installed", None)
        assert weights_state(profile, shipped) == {"st-lpips-alex": "missing"}
        score_job(profile, layout, "faithdiff", 0, artifacts_file=shipped)
    assert "8 of 16 values ok, 8 computed now" in capsys.readouterr().out
    (status,) = {row["status"] for row in read(scores) if row["metric"] == "st-lpips"}
    assert status.endswith("; run: pip install --no-deps stlpips-pytorch==0.0.2")

    listed = ARTIFACTS["st-lpips-alex"].sha256
    assert weights_state(profile, shipped) == {"st-lpips-alex": listed}  # snakemake's reason to run
    score_job(profile, layout, "faithdiff", 0, artifacts_file=shipped)
    # Both protocols have the same definition, so four values of the eight are computed.
    assert "16 of 16 values ok, 4 computed now" in capsys.readouterr().out


def test_rows_are_sorted_complete_and_exact(study: tuple[Profile, Layout]) -> None:
    profile, layout = study
    score_job(profile, layout, "faithdiff", 0, artifacts_file=CONFIG / "artifacts.yaml")
    rows = read(layout.restored("faithdiff", 0) / "scores.csv")
    keys = [(r["dataset"], r["level"], r["image"], r["protocol"], r["metric"]) for r in rows]
    assert keys == sorted(keys)
    assert len(set(keys)) == 2 * 2 * 2 * 2
    assert {row["variant"] for row in rows} == {"faithdiff"}
    for row in rows:
        assert (row["status"] == "ok") == (row["value"] != "")
        assert row["value"] == "" or repr(float(row["value"])) == row["value"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "is missing"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "is not a manifest"),
        (lambda folder: (folder / "image-0.png").unlink(), "'image-0' is only in one"),
        (lambda folder: write_png(picture(9), folder / "more.png"), "'more' is only in one"),
        (lambda folder: write_png(picture(9), folder / "image-1.png"), "image-1: .*sha256"),
    ],
)
def test_a_manifest_that_does_not_match_is_refused(
    study: tuple[Profile, Layout], change: Any, message: str
) -> None:
    profile, layout = study
    change(layout.restoration("faithdiff", 0, "Set", "II"))
    with pytest.raises(RunError, match=rf"II/manifest.json: .*{message}"):
        score_job(profile, layout, "faithdiff", 0, artifacts_file=CONFIG / "artifacts.yaml")
    assert not (layout.restored("faithdiff", 0) / "scores.csv").exists()


def test_a_restoration_of_another_data_set_is_refused(study: tuple[Profile, Layout]) -> None:
    profile, layout = study
    (layout.dataset("Set") / "index.csv").write_text("name\nimage-0\nimage-1\nimage-2\n")
    with pytest.raises(RunError, match=r"lists 2 images, there are 3 images in .*index.csv"):
        score_job(profile, layout, "faithdiff", 0, artifacts_file=CONFIG / "artifacts.yaml")


def test_rows_name_the_picture_that_an_image_was_cut_from(study: tuple[Profile, Layout]) -> None:
    profile, layout = study
    (layout.dataset("Set") / "index.csv").write_text("name,picture\nimage-0,a.png\nimage-1,a.png\n")
    score_job(profile, layout, "faithdiff", 0, artifacts_file=CONFIG / "artifacts.yaml")
    rows = pd.read_csv(layout.restored("faithdiff", 0) / "scores.csv")
    assert set(rows["picture"]) == {"a.png"} and set(rows["image"]) == {"image-0", "image-1"}
