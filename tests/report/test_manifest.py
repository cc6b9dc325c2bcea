"""The manifest: what made the results, from what lies on disk after a run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from shared import CONFIG

from faithdiff.errors import RunError
from faithdiff.methods.method import Study
from faithdiff.report.manifest import write_manifest

LAPTOP = {"processor": "one", "cores": 2, "gpus": []}
SERVER = {"processor": "other", "cores": 64, "gpus": ["a card"]}
BENCHMARK = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"


def write(file: Path, content: str | dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    file.write_text(text, encoding="utf-8")


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A finished study of two methods, in files of a few bytes."""
    monkeypatch.chdir(tmp_path)
    write(
        tmp_path / "own.yaml",
        f"""
extends: {CONFIG / "test.yaml"}
profile: own
seeds: [0, 1]
data: {{levels: [I, II], train_level: train, test: {{Scenes: null}}}}
variants:
  {{frozen: null, separate: null, features-8ch: null, concat: null, no-pretrain: null,
    spatial-attention: null}}
baselines:
  {{realesrgan-x4plus: null, realesrgan: null, diffbir: null, supir: null,
    supir-own: null, seesr: null}}
report: {{main: [bicubic, faithdiff], ablation: [faithdiff]}}
""",
    )
    study = Study.load(Path("own.yaml"))
    layout = study.layout
    for dataset, levels in {"train": ["train"], "Photos": ["I", "II"], "prior": []}.items():
        write(layout.dataset(dataset) / "index.csv", f"name,caption\na,{dataset}\nb,\n")
        for level in levels:
            write(layout.lq(dataset, level) / "degradation.jsonl", f"{dataset} {level}\n")
    write(layout.trained_prior / "unet" / "model.safetensors", "prior")
    for seed in (0, 1):
        for folder in (layout.stage1("released", seed), layout.checkpoint("faithdiff", seed)):
            write(folder / "model.safetensors", folder.as_posix())
            run = {"seconds": 1.5, "commit": "c0ffee", "dirty": False, "hardware": LAPTOP}
            write(folder / "run.json", run)
        for method in ("bicubic", "faithdiff"):
            for level in ("I", "II"):
                images = {n: {"sha256": f"{method}{seed}{level}{n}"} for n in ("a", "b")}
                folder = layout.restoration(method, seed, "Photos", level)
                hardware = LAPTOP if method == "bicubic" else SERVER
                write(folder / "manifest.json", {"images": images, "hardware": hardware})
    write(layout.results / "scores.csv", "method,value\n")
    write(layout.results / "tables" / "main.md", "| a table |\n")
    benchmarks = Path("logs", "own", "benchmarks")
    costs = "12.5\t0:00:12\t900.25\t1\t1\t1\t0\t0\t99.0\t11.75\n"
    write(benchmarks / "restore" / "faithdiff-seed0.tsv", BENCHMARK + costs)
    write(
        benchmarks / "collect" / "study.tsv",
        BENCHMARK + "0.5\t0:00:00\tNA\tNA\tNA\tNA\tNA\tNA\tNA\t-\n",
    )
    return study


def manifest(study: Study) -> dict[str, Any]:
    write_manifest(study)
    return json.loads((study.layout.results / "manifest.json").read_text(encoding="utf-8"))


def test_it_holds_config_seeds_code_and_packages(study: Study) -> None:
    made = manifest(study)
    assert type(study.profile).model_validate(made["config"]) == study.profile
    assert made["seeds"] == {"master": study.profile.seed, "repetitions": [0, 1]}
    assert {"commit", "dirty"} <= set(made)
    assert made["packages"]["pydantic"]


def test_machines_are_those_that_did_the_work_each_once(study: Study) -> None:
    laptop, server = manifest(study)["machines"]
    assert (laptop["hardware"], server["hardware"]) == (LAPTOP, SERVER)
    assert {"stage1-released/seed0", "faithdiff/seed1", "bicubic/seed0/Photos/I"} <= set(
        laptop["made"]
    )
    assert set(server["made"]) == {
        f"faithdiff/seed{s}/Photos/{lv}" for s in (0, 1) for lv in ("I", "II")
    }


def test_data_is_named_by_its_hashes(study: Study) -> None:
    made = manifest(study)
    index = study.layout.dataset("Photos") / "index.csv"
    assert made["data"]["Photos"]["index.csv"] == hashlib.sha256(index.read_bytes()).hexdigest()
    assert made["data"]["Photos"]["images"] == 2
    assert {name: set(d["degradation.jsonl"]) for name, d in made["data"].items()} == {
        "train": {"train"},
        "Photos": {"I", "II"},
        "prior": set(),
    }


@pytest.mark.parametrize(
    ("file", "section"),
    [
        ("data/own/Photos/index.csv", "data"),
        ("data/own/Photos/lq/II/degradation.jsonl", "data"),
        ("checkpoints/own/prior/unet/model.safetensors", "prior"),
        ("checkpoints/own/faithdiff/seed1/model.safetensors", "checkpoints"),
        ("results/own/scores.csv", "results"),
        ("results/own/tables/main.md", "results"),
    ],
)
def test_a_change_shows_in_its_section_alone(study: Study, file: str, section: str) -> None:
    before = manifest(study)
    Path(file).write_text(Path(file).read_text() + "x,x\n", encoding="utf-8")
    after = manifest(study)
    assert [key for key in before if before[key] != after[key]] == [section, "checksum"]


def test_an_image_restored_otherwise_shows(study: Study) -> None:
    before = manifest(study)
    file = study.layout.restoration("faithdiff", 1, "Photos", "II") / "manifest.json"
    content = json.loads(file.read_text())
    content["images"]["b"]["sha256"] = "another"
    write(file, content)
    after = manifest(study)["restorations"]
    changed = [key for key in after if after[key] != before["restorations"][key]]
    assert changed == ["faithdiff/seed1/Photos/II"]


def test_costs_of_jobs_and_their_total(study: Study) -> None:
    made = manifest(study)
    assert made["jobs"] == {
        "collect/study": {"seconds": 0.5, "cpu_seconds": None, "peak_memory_mb": None},
        "restore/faithdiff-seed0": {
            "seconds": 12.5,
            "cpu_seconds": 11.75,
            "peak_memory_mb": 900.25,
        },
    }
    assert made["total"] == {
        "jobs": 2,
        "seconds": 13.0,
        "cpu_seconds": 11.75,
        "start_up_seconds": None,
        "peak_memory_mb": 900.25,
    }


def test_twice_gives_the_same_bytes_and_leaves_no_partial_file(study: Study) -> None:
    manifest(study)
    file = study.layout.results / "manifest.json"
    first = file.read_bytes()
    manifest(study)
    assert file.read_bytes() == first
    names = {path.name for path in study.layout.results.iterdir()}
    assert names == {"manifest.json", "scores.csv", "tables"}
    assert "manifest.json" not in json.loads(first)["results"]


@pytest.mark.parametrize(
    ("file", "verb"),
    [
        ("data/own/train/lq/train/degradation.jsonl", "degrade"),
        ("data/own/Photos/index.csv", "prepare"),
        ("checkpoints/own/stage1-released/seed1/run.json", "pretrain"),
        ("restored/own/bicubic/seed0/Photos/I/manifest.json", "restore-sets"),
        ("results/own/scores.csv", "collect"),
    ],
)
def test_an_unfinished_study_has_no_manifest(study: Study, file: str, verb: str) -> None:
    Path(file).unlink()
    again = f"^{file}: .*run: faithdiff {verb} --config config/own.yaml"
    with pytest.raises(RunError, match=again):
        write_manifest(study)
    assert not (study.layout.results / "manifest.json").exists()


def test_a_corrupted_record_is_named(study: Study) -> None:
    write(Path("checkpoints/own/faithdiff/seed0/run.json"), '{"seconds":')
    with pytest.raises(RunError, match=r"faithdiff/seed0/run\.json: is corrupted"):
        write_manifest(study)
