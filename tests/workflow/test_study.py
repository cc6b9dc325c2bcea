"""The whole DAG at its smallest size: from nothing, again, after edits, and after a kill."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
from shared.whole import IMAGES, SCORES, copy_suite, run, start

from faithdiff.methods.method import Study

BASELINES = {
    *("bicubic", "realesrgan-x4plus", "realesrgan", "diffbir", "supir", "supir-own", "seesr"),
}


def planned(folder: Path) -> set[str]:
    """Rules that the next run would execute."""
    lines = run(folder, "--dry-run").splitlines()
    return {
        line.split()[1].rstrip(":") for line in lines if line.startswith(("rule ", "localrule "))
    }


@pytest.fixture(scope="module")
def finished(undisturbed: Path) -> Path:
    return undisturbed


def test_study_ends_with_scores_tables_figures_and_manifest(finished: Path) -> None:
    scores = pd.read_csv(finished / SCORES)
    ok = scores[scores["status"] == "ok"]
    assert set(ok["method"]) == {*BASELINES, "faithdiff", "separate", "features-8ch"}
    assert {"psnr", "heldout_loss"} <= set(ok["metric"])
    assert (scores.loc[scores["metric"] == "lpips", "status"].str.contains("fetch")).all()
    results = finished / "results" / "test"
    for table in ("main", "ablation", "cost"):
        for kind in ("md", "tex", "csv", "cells.json"):
            assert (results / "tables" / f"{table}.{kind}").stat().st_size > 100
    manifest = json.loads((results / "manifest.json").read_text(encoding="utf-8"))
    claims = json.loads((results / "claims.json").read_text(encoding="utf-8"))
    assert claims["verdicts"]["not comparable"] > 0 and (results / "claims.md").is_file()
    assert "<title>FaithDiff study: test" in (results / "report/index.html").read_text("utf-8")
    assert not any(name.startswith("report/") for name in manifest["results"])
    kinds = {file.suffix for file in (results / "figures").glob("[!.]*")}
    assert kinds == {".png", ".pdf"}
    assert manifest["config"]["profile"] == "test"


def test_snakemakes_own_report_builds(finished: Path) -> None:
    run(finished, "--report", "snakemake-report.html")
    text = (finished / "snakemake-report.html").read_text(encoding="utf-8")
    assert "train_variant" in text and len(text) > 100_000


def test_logs_hold_lines_and_no_drawings_of_bars(finished: Path) -> None:
    logs = [*finished.glob("logs/test/**/*.log"), *finished.glob(".snakemake/log/*.log")]
    assert len(logs) > 40
    assert [log for log in logs if b"\r" in log.read_bytes() or b"\x1b" in log.read_bytes()] == []


def test_second_run_does_nothing(finished: Path) -> None:
    assert "Nothing to be done" in run(finished)


def test_alignment_edit_reruns_what_depends_on_it_and_no_data(finished: Path) -> None:
    file = finished / "faithdiff" / "models" / "alignment.py"
    before = file.read_text(encoding="utf-8")
    file.write_text(before.replace("1.702", "1.703"), "utf-8")
    rules = planned(finished)
    file.write_text(before, "utf-8")
    assert {"pretrain_alignment", "train_variant", "restore_denoiser"} <= rules
    assert not rules & {"prepare_dataset", "degrade", "train_prior", "cache_latents"}
    assert "train_baseline" not in rules


def test_config_edit_reruns_only_what_reads_it(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished)
    file = finished / "config" / "test.yaml"
    before = file.read_text(encoding="utf-8")
    file.write_text(before.replace("steps: 4, start_timestep", "steps: 5, start_timestep"), "utf-8")
    said = run(finished, "--dry-run")
    file.write_text(before, "utf-8")
    again = set(re.findall(r"faithdiff restore-sets --method ([\w-]+)", said))
    study = Study.load(file)
    assert again == set(study.profile.on_prior)  # and not those without a sampler
    assert "faithdiff train" not in said and "faithdiff pretrain" not in said


@pytest.mark.parametrize(
    ("name", "old", "new", "rules"),
    [
        ("config/protocols.yaml", "crop_border: 0", "crop_border: 1", {"score", "tables"}),
        ("config/protocols.yaml", "decimals: 2", "decimals: 3", {"tables", "figures", "report"}),
        ("results/paper/table1.csv", "I", "II", {"tables", "figures"}),
    ],
)
def test_what_the_tables_read_makes_them_again(
    finished: Path, name: str, old: str, new: str, rules: set[str]
) -> None:
    file = finished / name
    before = file.read_text(encoding="utf-8")
    file.write_text(before.replace(old, new), "utf-8")
    found = planned(finished)
    file.write_text(before, "utf-8")
    assert rules <= found
    assert ("score" in found) == ("score" in rules)
    assert not any(rule.startswith(("train", "restore")) for rule in found)


def test_a_copy_that_lost_its_times_has_nothing_to_do(finished: Path, tmp_path: Path) -> None:
    """And code whose comments and docstrings are others, as in a copy of another commit."""
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy, copy_function=shutil.copyfile)
    file = copy / "faithdiff" / "models" / "alignment.py"
    before = file.read_text(encoding="utf-8")
    after = before.replace('"""The alignment', '# a note\n"""Here the alignment')
    assert after != before
    file.write_text(after, "utf-8")
    times = random.Random(0)
    for path in copy.rglob("*"):
        moment = 1.7e9 + times.randrange(10**7)
        os.utime(path, (moment, moment))
    assert planned(copy) == set()


def test_images_of_a_method_are_shared_out(finished: Path) -> None:
    file = finished / "config" / "test.yaml"
    before = file.read_text(encoding="utf-8")
    file.write_text(f"{before}shards: 2\n", "utf-8")
    said = run(finished, "--dry-run", "--forcerun", "restore_denoiser")
    file.write_text(before, "utf-8")
    assert "restore-sets --method faithdiff --seed 0 --shard 2/2" in said
    assert "score --method faithdiff --seed 0 --shard 1/2" in said


def test_clone_with_committed_results_still_runs_the_study(finished: Path, tmp_path: Path) -> None:
    folder = copy_suite(tmp_path / "clone")
    shutil.copytree(finished / "results" / "test", folder / "results" / "test")
    (folder / ".snakemake").mkdir()  # its baselines need not be imported to be checked again
    shutil.copy(finished / ".snakemake" / "checked.json", folder / ".snakemake")
    rules = planned(folder)
    assert {"prepare_dataset", "degrade", "train_variant", "restore_denoiser", "collect"} <= rules


def test_misspelt_profile_stops_before_anything_runs(finished: Path) -> None:
    file = finished / "config" / "test.yaml"
    before = file.read_text(encoding="utf-8")
    file.write_text(before.replace("start_timestep", "start_timstep"), "utf-8")
    process = start(finished, "--dry-run")
    output, _ = process.communicate(timeout=120)
    file.write_text(before, "utf-8")
    assert process.returncode != 0
    assert "restore.start_timstep" in output
    assert "did you mean 'start_timestep'" in output


def kill(folder: Path, pattern: str) -> None:
    """Start the study, and kill all its processes when a file appears; its locks stay behind."""
    process = start(folder)
    wait_for(folder, pattern, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert any((folder / ".snakemake" / "locks").iterdir())


TRAINING = "checkpoints/test/.work/faithdiff-seed0/*.pt"


@pytest.mark.slow
def test_killed_training_and_restoration_end_with_the_same_bytes(
    finished: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "killed"
    shutil.copytree(finished, folder)
    shutil.rmtree(folder / "checkpoints/test/faithdiff")
    shutil.rmtree(folder / "restored/test/faithdiff")
    shutil.rmtree(folder / "restored/test/.store")
    for pattern in (TRAINING, IMAGES):
        kill(folder, pattern)
    kept = {file: file.stat().st_mtime_ns for file in folder.glob(IMAGES)}
    run(folder)
    assert (folder / SCORES).read_bytes() == (finished / SCORES).read_bytes()
    assert kept
    assert all(file.stat().st_mtime_ns == stamp for file, stamp in kept.items())


@pytest.mark.slow
def test_a_run_in_shards_that_is_killed_ends_with_the_same_bytes(
    finished: Path, tmp_path: Path
) -> None:
    folder = copy_suite(tmp_path / "shards")
    with (folder / "config" / "test.yaml").open("a", encoding="utf-8") as file:
        file.write("shards: 2\n")
    for pattern in (TRAINING, IMAGES):
        kill(folder, pattern)
    run(folder)
    assert (folder / SCORES).read_bytes() == (finished / SCORES).read_bytes()
    assert len(list(folder.glob("restored/test/.work/faithdiff-seed0/*-of-2.json"))) == 4


def wait_for(folder: Path, pattern: str, process: subprocess.Popen[str]) -> None:
    """Wait until a file appears: the job that writes it is half way."""
    deadline = time.monotonic() + 600
    while not any(folder.glob(pattern)):
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, f"nothing matched {pattern}"
        time.sleep(0.05)
