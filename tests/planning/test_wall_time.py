"""Times on other numbers of cores, from the seconds of the last run."""

from __future__ import annotations

from pathlib import Path

import pytest
from shared import ROOT

from faithdiff.methods.method import Study
from faithdiff.planning.running import last_seconds
from faithdiff.planning.wall_time import cores_lines, timed_name, wall_seconds
from faithdiff.planning.workload import PlannedJob, jobs_of

CHAIN = [
    PlannedJob("train_variant", "frozen 0"),
    PlannedJob("restore_denoiser", "frozen 0", after=("train_variant frozen 0",)),
    PlannedJob("restore_baseline", "bicubic 0"),
]
SECONDS = {
    "train_variant/frozen-seed0": 40.0,
    "restore/frozen-seed0": 20.0,
    "restore/bicubic-seed0": 10.0,
}


@pytest.mark.parametrize(("cores", "seconds"), [(1, 70.0), (2, 60.0), (8, 60.0)])
def test_more_cores_help_until_the_critical_path(cores: int, seconds: float) -> None:
    assert wall_seconds(CHAIN, SECONDS, cores) == seconds


def test_a_job_that_was_never_timed_takes_no_time() -> None:
    assert wall_seconds([*CHAIN, PlannedJob("collect")], SECONDS, 1) == 70.0


def test_every_timed_job_of_the_committed_run_is_one_of_the_plan() -> None:
    study = Study.load(ROOT / "config/mini.yaml")
    assert {*last_seconds(study.layout)} <= {timed_name(job) for job in jobs_of(study)}


def test_the_section_is_in_the_plan_of_a_study_that_ran() -> None:
    study = Study.load(ROOT / "config/mini.yaml")
    text = "\n".join(cores_lines(study, jobs_of(study)))
    assert "## Time on cores" in text
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| ")]
    ratios = [float(row[4]) for row in rows[1:]]
    assert len(ratios) == 4 and all(1 <= ratio <= 1.15 for ratio in ratios)


def test_there_is_none_before_the_first_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study.load(ROOT / "config/mini.yaml")
    monkeypatch.chdir(tmp_path)
    assert list(cores_lines(study, jobs_of(study))) == []
