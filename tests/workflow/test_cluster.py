"""The study through a real Slurm of one machine: `tests/workflow/one_machine.py`, and its parts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import one_machine
import pytest
import yaml
from shared import ROOT

SCRIPT = ROOT / "tests/workflow/one_machine.py"


@pytest.fixture
def possible() -> None:
    """Skip, and say so where nobody can miss it, if no Slurm can be started here."""
    reason = one_machine.missing()
    if reason is not None:
        print(f"\nNOT RUN: the study on Slurm: {reason}", file=sys.__stderr__)
        pytest.skip(f"NOT RUN: the study on Slurm: {reason}")


@pytest.mark.slow
def test_study_through_sbatch_equals_a_local_one(possible: None, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path / "slurm"], text=True, capture_output=True
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the same scores.csv, byte for byte" in done.stdout


@pytest.mark.slow
def test_slurm_comes_up_and_goes_down(possible: None, tmp_path: Path) -> None:
    with one_machine.slurm(tmp_path / "slurm") as cluster:
        answer = tmp_path / "answer"
        script = f"--wrap=echo $OMP_NUM_THREADS > {answer}; sleep 600"
        cluster.ask(
            "sbatch",
            "--output=/dev/null",
            "--gpus=1",
            "--mem=100",
            "-t",
            "5",
            "--comment=one",
            script,
        )
        one_machine.wait(cluster, lambda: answer.is_file() and answer.read_text() != "")
        (job,) = cluster.jobs()
        assert (job.state, job.memory, job.limit) == ("RUNNING", "100M", "00:05:00")
        assert job.gpus == "gres:gpu:1"
    for name in ("slurmctld", "slurmd", "munged"):
        left = subprocess.run(["pgrep", "-f", f"{name}.*{tmp_path}"], capture_output=True)
        assert left.returncode == 1, left.stdout
    with pytest.raises(RuntimeError):
        cluster.jobs()


def test_an_absent_slurm_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_machine.shutil, "which", lambda name: None)
    said = one_machine.missing()
    assert said is not None
    assert "slurmctld" in said and one_machine.INSTALL in said


def test_slurm_profile_stands_in_for_the_default_one() -> None:
    """Snakemake reads one workflow profile: what the default one decides, this one must decide."""
    default, slurm = (
        yaml.safe_load((ROOT / "profiles" / name / "config.yaml").read_text(encoding="utf-8"))
        for name in ("default", "slurm")
    )
    own = {key: value for key, value in default.items() if key != "resources"}
    assert {key: slurm.get(key) for key in own} == own
    assert slurm["executor"] == "slurm" and slurm["slurm-status-command"] == "squeue"
    assert slurm["retries"] > 0
    assert "resources" not in slurm, "the one GPU of a machine is not a cluster's"


def test_example_of_partitions_is_one_that_the_executor_reads() -> None:
    from snakemake_executor_plugin_slurm.partitions import read_partition_file

    found = read_partition_file(ROOT / "profiles/slurm/partitions.example.yaml")
    assert [(p.name, p.limits.max_gpu) for p in found] == [("cpu", 0), ("gpu", 8)]


def test_kubernetes_manifest_starts_the_study() -> None:
    text = (ROOT / "profiles/kubernetes/study.yaml").read_text(encoding="utf-8")
    claim, job = yaml.safe_load_all(text)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    (volume, _) = job["spec"]["template"]["spec"]["volumes"]
    gpus = container["resources"]["limits"]["nvidia.com/gpu"]
    assert f"--resources gpu={gpus} " in container["args"][0]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
