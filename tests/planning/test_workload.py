"""Jobs of a study: as many as the workflow has, what they ask of a queue, and their schedule."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from shared import ROOT
from snakemake.cli import parse_config

from faithdiff import cli
from faithdiff.config import Baseline, OwnCommand, OwnOutputs
from faithdiff.errors import ConfigError, UserError
from faithdiff.methods.method import Study
from faithdiff.planning.overrides import asked_for
from faithdiff.planning.resources import COMMON, OTHER, RESOURCES, Sizes
from faithdiff.planning.workload import (
    PlannedJob,
    counts,
    critical_path,
    external_method,
    jobs_of,
    needs_preparation,
    wall_hours,
)
from faithdiff.study.rules import BY_NAME


@functools.cache
def dry_run(profile: str, *arguments: str, workflow_profile: str = "profiles/default") -> str:
    """What `snakemake -n` prints of a study from nothing."""
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--forceall", "--nolock"]
    command += ["--workflow-profile", workflow_profile]
    done = subprocess.run(
        [*command, "--config", f"profile={profile}", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def graph(*arguments: str) -> tuple[Counter[str], Counter[tuple[str, str]]]:
    """Jobs by rule, and edges by the rules at their ends, as Snakemake draws its jobs."""
    command = [sys.executable, "-m", "snakemake", "--dag", "dot", "--nolock", "--config"]
    done = subprocess.run(
        [*command, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    nodes = dict(re.findall(r'^\s*(\d+)\[label = "(\w+)', done.stdout, re.MULTILINE))
    edges = re.findall(r"^\s*(\d+) -> (\d+)$", done.stdout, re.MULTILINE)
    between = Counter((nodes[a], nodes[b]) for a, b in edges if nodes[b] != "all")
    return Counter(rule for rule in nodes.values() if rule != "all"), between


@pytest.mark.parametrize(
    "arguments",
    [
        # Shards, and images that a training draws on its way: neither is in a shipped profile.
        ("profile=test", "shards=2", "training={validation_every: 2}"),
        ("profile=paper",),
        ("profile=released",),
    ],
    ids="-".join,
)
def test_jobs_are_those_of_the_workflow(arguments: tuple[str, ...]) -> None:
    study = asked_for(parse_config(arguments), []).study
    jobs = jobs_of(study)
    rule_of = {job.key: job.rule for job in jobs}
    assert len(rule_of) == len(jobs)
    found, edges = graph(*arguments)
    assert counts(jobs) == found
    assert Counter((rule_of[key], job.rule) for job in jobs for key in job.after) == edges


def test_jobs_stand_after_those_that_they_wait_for() -> None:
    jobs = jobs_of(Study.load(Path("config/paper.yaml")))
    seen: set[str] = set()
    for job in jobs:
        assert set(job.after) <= seen, job
        seen.add(job.key)
    by_key = {job.key: job for job in jobs}
    assert set(by_key["train_variant faithdiff 0"].after) == {
        "cache_latents",
        "pretrain_alignment released 0",
    }
    assert by_key["train_variant faithdiff 0"].gpus == 2
    assert by_key["train_variant no-pretrain 0"].after == ("cache_latents",)
    assert "train_baseline supir 0" in by_key["restore_denoiser supir 0"].after


def test_a_queue_is_asked_for_gpus_memory_and_time_that_grow() -> None:
    said = dry_run("paper", "time_limit=1400", workflow_profile="profiles/slurm")
    asked = resources_of(said, "train_variant")
    assert {"gpu=2", "mem_mb=128000", "runtime=1410"} <= asked  # no longer than the time limit
    said = dry_run("test", "--set-resources", "score:gpu=1", workflow_profile="profiles/slurm")
    size = Sizes(Path("config/test.yaml")).of("train_variant")
    assert {"gpu=0", f"mem_mb={size.mem_mb}", f"runtime={size.runtime}"} <= resources_of(
        said, "train_variant"
    )
    assert "gpu=1" in resources_of(said, "score")


def test_a_queue_is_asked_for_the_size_that_the_table_names() -> None:
    said = dry_run("paper", "time_limit=1400", workflow_profile="profiles/slurm")
    sizes = Sizes(Path("config/paper.yaml"))
    found = re.findall(r"^rule (\w+):$.*?\bmem_mb=(\d+)", said, re.MULTILINE | re.DOTALL)
    asked = {(rule, megabytes) for rule, megabytes in found if rule != "all"}
    jobs = jobs_of(Study.load(Path("config/paper.yaml")))
    plan = {(job.rule, str(sizes.of(job.size or job.rule).mem_mb)) for job in jobs}
    assert asked == plan


def test_a_time_limit_is_no_part_of_a_command() -> None:
    def commands(said: str) -> list[str]:
        return sorted(re.findall(r"^Shell command: .*$", said, re.MULTILINE))

    limited = dry_run("paper", "time_limit=1400", workflow_profile="profiles/slurm")
    assert commands(limited) == commands(dry_run("paper")) != []


def test_a_time_limit_reaches_a_training(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAITHDIFF_TIME_LIMIT", "never")
    with pytest.raises(SystemExit):
        cli.app(["train", "--method", "faithdiff"])
    said = capsys.readouterr().err
    assert "FAITHDIFF_TIME_LIMIT" in said and "valid number" in said


def test_a_dry_run_says_what_is_not_there() -> None:
    lines = dry_run("paper").splitlines()
    assert not [line for line in lines if "MISSING: " in line and "config/paper.yaml" not in line]
    for field in ("prior.path", "data.test.RealDeg.path", "data.train.parts.DIV8K.path"):
        said = [line for line in lines if f"MISSING: config/paper.yaml: {field}: " in line]
        assert len(said) == 1 and "faithdiff fetch --profile paper" in said[0]


def test_on_one_machine_a_training_asks_for_a_gpu_for_each_process() -> None:
    # Which cards they are is tests/study/test_gpus.py.
    assert "gpu=2" in resources_of(dry_run("paper"), "train_variant")


def resources_of(said: str, rule: str) -> set[str]:
    """Resources of the first job of a rule in what a dry run printed."""
    match = re.search(rf"^rule {rule}:$.*?^    resources: (.*?)$", said, re.MULTILINE | re.DOTALL)
    assert match is not None, said[-3000:]
    return set(match[1].split(", "))


# --- config/resources.yaml ----------------------------------------------------------------------


def test_sizes_name_rules_and_profiles_that_exist() -> None:
    sections = yaml.safe_load(RESOURCES.read_text(encoding="utf-8"))
    assert OTHER in sections[COMMON]
    for name, rules in sections.items():
        assert Path("config", f"{name}.yaml").is_file()
        assert set(rules) <= {*BY_NAME, OTHER}


def test_a_profile_takes_the_sizes_of_what_it_extends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "mini.yaml").write_text("profile: mini\n")
    (folder / "paper.yaml").write_text("extends: mini.yaml\nprofile: paper\n")
    (folder / "mine.yaml").write_text("extends: paper.yaml\nprofile: mine\n")
    (folder / "resources.yaml").write_text(
        "mini: {other: {mem_mb: 1, runtime: 2}, score: {mem_mb: 3, runtime: 4}}\n"
        "paper: {score: {mem_mb: 5, runtime: 6}, degrade: {mem_mb: 7, runtime: 8}}\n"
        "mine: {degrade: {mem_mb: 9, runtime: 10}}\n"
    )
    monkeypatch.chdir(tmp_path)
    mine, mini = Sizes(Path("config/mine.yaml")), Sizes(Path("config/mini.yaml"))
    assert [mine.of(rule).mem_mb for rule in ("degrade", "score", "tables")] == [9, 5, 1]
    assert [mini.of(rule).runtime for rule in ("degrade", "score", "tables")] == [2, 4, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mini: {score: {mem_mb: 5}}", r"mini\.score\.runtime: is missing"),
        ("mini: {score: {mem_mb: 0, runtime: 1}}", r"mini\.score\.mem_mb: .* not 0"),
        ("mini: {score: {mem_mb: 5, runtime: 1, gpus: 1}}", r"mini\.score\.gpus: unknown key"),
    ],
)
def test_a_wrong_size_is_named(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / RESOURCES).write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=rf"config/resources\.yaml: {message}"):
        Sizes(Path("config/mini.yaml"))


# --- the schedule -------------------------------------------------------------------------------


def test_schedule_by_hand() -> None:
    jobs = [
        PlannedJob("a", gpus=1),
        PlannedJob("b", gpus=1),
        PlannedJob("c", gpus=2, after=("a",)),
        PlannedJob("d", after=("b", "c")),
    ]
    hours = {"a": 2.0, "b": 3.0, "c": 4.0, "d": 1.0}
    assert wall_hours(jobs, lambda job: hours[job.rule], 2) == 3 + 4 + 1
    assert wall_hours(jobs, lambda job: hours[job.rule], 3) == critical_path(
        jobs, lambda job: hours[job.rule]
    )
    with pytest.raises(UserError, match="--gpus 1: c needs 2 GPUs"):
        wall_hours(jobs, lambda job: hours[job.rule], 1)


@st.composite
def studies(draw: st.DrawFn) -> list[PlannedJob]:
    jobs: list[PlannedJob] = []
    for index in range(draw(st.integers(1, 12))):
        before = [job.key for job in jobs]
        after = draw(st.sets(st.sampled_from(before))) if before else set()
        gpus = draw(st.integers(0, 3))
        jobs.append(PlannedJob("job", str(index), tuple(sorted(after)), gpus))
    return jobs


@given(studies(), st.integers(3, 8), st.randoms(use_true_random=False))
def test_no_schedule_beats_its_bounds(jobs: list[PlannedJob], gpus: int, random: st.Random) -> None:
    hours = {job.key: random.randint(0, 20) for job in jobs}

    def takes(job: PlannedJob) -> float:
        return hours[job.key]

    wall = wall_hours(jobs, takes, gpus)
    work = sum(job.gpus * takes(job) for job in jobs)
    assert max(critical_path(jobs, takes), work / gpus) <= wall <= sum(hours.values())
    assert wall_hours(jobs, takes, 1000) == critical_path(jobs, takes)


# --- what prepares itself -----------------------------------------------------------------------


def test_methods_from_elsewhere_are_found() -> None:
    released = Study.load(Path("config/released.yaml"))
    assert [n for n in released.profile.methods if needs_preparation(released, n)] == [
        "diffbir",
        "seesr",
    ]
    assert external_method(released, "faithdiff") is external_method(released, "bicubic") is None
    assert external_method(released, "realesrgan") is not None  # in process: nothing to prepare
    packaged = Study.load(Path("config/mini.yaml"))
    assert external_method(packaged, "realesrgan-x4plus") is not None


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        (OwnOutputs(label="mine", outputs="somewhere/{dataset}/{level}"), False),
        (OwnCommand(label="mine", command="restore {lq} {out}"), True),
        (Baseline(label="mine", implementation="baselines.bicubic:Bicubic"), False),
    ],
)
def test_only_commands_are_prepared(
    own: Baseline | OwnOutputs | OwnCommand, expected: bool
) -> None:
    study = Study.load(Path("config/test.yaml"))
    profile = study.profile.model_copy(update={"baselines": {"mine": own}})
    assert needs_preparation(Study(profile, study.file, study.layout), "mine") == expected
