"""The table of costs: collected from what jobs leave, printed as a table."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from shared import CONFIG
from torch import nn

from faithdiff.errors import RunError, UserError
from faithdiff.methods.method import Study
from faithdiff.report.costs import cost_table as cost_report
from faithdiff.report.costs import load_costs
from faithdiff.report.render import to_markdown
from faithdiff.score.costs import COST_COLUMNS, cost_table, keep_peaks
from faithdiff.study.files import write_text_atomic
from faithdiff.train.spent import measure

BENCHMARK = "s\th:m:s\tmax_rss\n"


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """What jobs leave: one method without training, one that others trained, two variants."""
    monkeypatch.chdir(tmp_path)
    keep = {"bicubic", "realesrgan-x4plus", "faithdiff", "no-pretrain"}
    mini = Study.load(CONFIG / "mini.yaml")
    drop = "".join(f"  {n}: null\n" for n in mini.profile.baselines if n not in keep)
    gone = "".join(f"  {n}: null\n" for n in mini.profile.variants if n not in keep)
    write_text_atomic(
        f"extends: {CONFIG / 'mini.yaml'}\nprofile: own\nseeds: [0, 1]\n"
        "data: {test: {Scenes: null}, levels: [I, II]}\n"
        f"baselines:\n{drop}variants:\n{gone}"
        "report: {main: [bicubic, faithdiff], ablation: [faithdiff]}\n",
        Path("own.yaml"),
    )
    study = Study.load(Path("own.yaml"))
    layout = study.layout
    for seed in (0, 1):
        stage1 = cost(parts={"alignment": 1_000_000}, updates=20, seconds=2.0 + seed)
        write(layout.stage1("released", seed) / "run.json", {"cost": stage1})
        for name in ("faithdiff", "no-pretrain"):
            record = cost(
                parts={"alignment": 1_000_000, "unet": 4_500_000}, updates=140, seconds=30
            )
            write(layout.checkpoint(name, seed) / "run.json", {"cost": record})
        for name in study.profile.methods:
            for level, made in (("I", 10), ("II", 0)):
                folder = layout.restoration(name, seed, "Photos", level)
                manifest = {"made": made, "seconds": 5.0 if made else 0.1}
                if name == "realesrgan-x4plus":
                    manifest["parameters"] = 16_697_987
                write(folder / "manifest.json", manifest)
    benchmarks = Path("logs", "own", "benchmarks")
    for job, peak in (("train_variant", "800.5"), ("restore", "650")):
        file = benchmarks / job / "faithdiff-seed0.tsv"
        write_text_atomic(f"{BENCHMARK}12.5\t0:00:12\t{peak}\n", file)
    write_text_atomic(f"{BENCHMARK}0.5\t0:00:00\tNA\n", benchmarks / "restore/bicubic-seed0.tsv")
    return study


def cost(**values: Any) -> dict[str, Any]:
    return {"parts": {}, "total": 8_000_000, "pre_updates": 0, "pre_seconds": 0.0, **values}


def write(file: Path, content: dict[str, Any]) -> None:
    write_text_atomic(json.dumps(content), file)


def collected(study: Study) -> pd.DataFrame:
    return cost_table(study.profile, study.layout).set_index(["method", "seed"])


def test_stage_1_counts_as_the_pre_stage_of_the_variants_that_use_it(study: Study) -> None:
    table = collected(study)
    assert table.loc[("faithdiff", 1), "pre_updates"] == 20
    assert table.loc[("faithdiff", 1), "pre_seconds"] == 3.0
    assert table.loc[("no-pretrain", 1), "pre_updates"] == 0
    assert set(table["updates"].dropna()) == {0, 140}
    assert table.loc[("faithdiff", 0), "parts"] == "alignment 1000000; unet 4500000"
    assert table.loc[("faithdiff", 0), "trained_parameters"] == 5_500_000
    assert table.loc[("bicubic", 0), "total_parameters"] == 0


def test_what_others_trained_is_counted_in_parameters_alone(study: Study) -> None:
    table = collected(study).loc[("realesrgan-x4plus", 0)]
    assert table["total_parameters"] == 16_697_987 and table["seconds_per_image"] == 0.5
    spent = ["trained_parameters", "pre_updates", "pre_seconds", "updates", "seconds"]
    assert table[spent].isna().all()
    file = study.layout.results / "cost.csv"
    file.parent.mkdir(parents=True)
    cost_table(study.profile, study.layout).to_csv(file, index=False)
    assert "\nfaithdiff,0,alignment 1000000; unet 4500000,5500000," in file.read_text("utf-8")
    text = to_markdown(cost_report(load_costs(file), study.profile))
    row = next(line for line in text.splitlines() if line.startswith("| Real-ESRGAN (published) |"))
    (note,) = {cell for i, cell in enumerate(re_cells(row)) if i in (1, 3, 4, 5, 6)}
    assert re_cells(row)[2] == "16.70" and re_cells(row)[7] == "0.50"
    number = note.removeprefix("n/a<sup>").removesuffix("</sup>")
    assert f"<sup>{number}</sup> not counted: a published system" in text


def test_only_images_that_were_made_count(study: Study) -> None:
    assert (collected(study)["seconds_per_image"] == 0.5).all()
    for file in study.layout.restored("faithdiff", 0).rglob("manifest.json"):
        write(file, {"made": 0, "seconds": 0.2})
    assert collected(study)["seconds_per_image"].isna().sum() == 1


def test_memory_is_the_highest_of_both_jobs_or_unknown(study: Study) -> None:
    peaks = collected(study)["peak_memory_mb"]
    assert peaks["faithdiff", 0] == 800.5
    assert peaks.isna().sum() == len(peaks) - 1


def test_memory_of_the_same_jobs_is_kept_where_their_logs_are_not(study: Study) -> None:
    file = study.layout.results / "cost.csv"
    file.parent.mkdir(parents=True)
    whole = cost_table(study.profile, study.layout)
    whole.to_csv(file, index=False)
    shutil.rmtree("logs")
    lost = cost_table(study.profile, study.layout)
    assert lost["peak_memory_mb"].isna().all()
    pd.testing.assert_frame_equal(keep_peaks(lost, file), whole, check_dtype=False)
    # Restored again, elsewhere: no longer the same job.
    again = lost.assign(seconds_per_image=0.75)
    assert keep_peaks(again, file)["peak_memory_mb"].isna().all()
    assert keep_peaks(lost, file.with_name("none.csv")) is lost


def test_a_checkpoint_without_its_cost_is_named(study: Study) -> None:
    write(study.layout.checkpoint("faithdiff", 1) / "run.json", {"seconds": 1})
    with pytest.raises(RunError, match=r"faithdiff/seed1/run\.json: holds no cost"):
        collected(study)


def test_the_table_prints_means_over_seeds_and_what_is_trained(study: Study) -> None:
    file = study.layout.results / "cost.csv"
    file.parent.mkdir(parents=True)
    cost_table(study.profile, study.layout).to_csv(file, index=False)
    text = to_markdown(cost_report(load_costs(file), study.profile))
    assert text.startswith("<!-- written from results/own/cost.csv; do not edit -->")
    row = next(line for line in text.splitlines() if line.startswith("| FaithDiff |"))
    assert re_cells(row)[1:7] == ["5.50<sup>3</sup>", "8.00", "20", "140", "2", "30"]
    assert "<sup>3</sup> trained: alignment 1.00 M, unet 4.50 M" in text
    assert "Means over 2 seeds." in text and "not measured" in text


def re_cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_a_cost_file_that_is_missing_or_cut_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="`faithdiff collect` writes it"):
        load_costs(tmp_path / "cost.csv")
    pd.DataFrame(columns=list(COST_COLUMNS)[:-1]).to_csv(tmp_path / "cost.csv", index=False)
    with pytest.raises(UserError, match="has no column peak_memory_mb"):
        load_costs(tmp_path / "cost.csv")


def test_updates_and_seconds_are_those_of_the_last_row_of_each_phase() -> None:
    log = [
        {"phase": phase, "step": step, "seconds": seconds}
        for phase, step, seconds in (("pre", 9, 1.0), ("pre", 14, 1.5), ("last", 139, 30.0))
    ]
    linear = nn.Linear(3, 2)
    found = measure({"linear": linear}, [linear, nn.Linear(1, 1)], log, pre=["pre"])
    assert found.parts == {"linear": 8} and found.total == 10
    assert (found.pre_updates, found.pre_seconds) == (15, 1.5)
    assert (found.updates, found.seconds) == (140, 30.0)
