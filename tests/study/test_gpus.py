"""Jobs lease the GPUs of a machine: each its own, freed by a kill, within what a scheduler gave."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from shared import ROOT

from faithdiff.config import load_profile
from faithdiff.errors import RunError
from faithdiff.study import gpus

SMI = """#!/bin/sh
echo "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aaa)"
echo "GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-bbb)"
"""
CUT = """#!/bin/sh
echo "GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aaa)"
echo "  MIG 3g.20gb     Device  0: (UUID: MIG-111)"
echo "  MIG 3g.20gb     Device  1: (UUID: MIG-222)"
"""
HOLD = """
import sys, time
from faithdiff.study import gpus
gpus.lease(int(sys.argv[1]))
print(gpus.os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of two cards, as its driver lists them."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(SMI)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(gpus.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(gpus, "POLL", 0.05)
    monkeypatch.setattr(gpus, "_held", [])
    for variable in (gpus.VISIBLE, gpus.LEASED, "LOCAL_RANK"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return program


@contextmanager
def job(count: int) -> Iterator[subprocess.Popen[str]]:
    """A job that leases GPUs, says what it sees, and works until it is killed."""
    command = [sys.executable, "-c", HOLD, str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    """The next line that a job prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_two_jobs_have_a_card_each_and_a_third_waits_for_a_killed_one() -> None:
    with job(1) as first, job(1) as second:
        one, two = line(first), line(second)
        assert {one, two} == {"GPU-aaa", "GPU-bbb"}
        with job(1) as third:
            assert line(third) == "waiting for 1 of 2 GPUs that no other job uses"
            second.kill()
            assert line(third) == two


def test_a_training_on_both_waits_until_both_are_free() -> None:
    with job(1) as first:
        line(first)
        with job(2) as both:
            assert line(both) == "waiting for 2 of 2 GPUs that no other job uses"
            # What it found free it gave back: no two jobs wait for each other with a card each.
            with job(1) as second:
                line(second)
            first.kill()
            assert line(both) == "GPU-aaa,GPU-bbb"


def test_what_a_scheduler_gave_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(gpus.VISIBLE, "1")
    gpus.lease(1)
    assert os.environ[gpus.VISIBLE] == "1"
    monkeypatch.delenv(gpus.LEASED)
    # Another process that knows the same card by its UUID finds it taken.
    monkeypatch.setenv(gpus.VISIBLE, "GPU-bbb,GPU-aaa")
    gpus.lease(1)
    assert os.environ[gpus.VISIBLE] == "GPU-aaa"


def test_children_of_a_job_and_of_a_launcher_take_none(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus.lease(1)
    seen = os.environ[gpus.VISIBLE]
    gpus.lease(2)
    assert os.environ[gpus.VISIBLE] == seen
    monkeypatch.delenv(gpus.LEASED)
    monkeypatch.setenv("LOCAL_RANK", "1")
    gpus.lease(2)
    assert os.environ[gpus.VISIBLE] == seen


def test_too_few_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError, match="4 GPUs are needed, and nvidia-smi shows GPU-aaa, GPU-bbb"):
        gpus.lease(4)
    monkeypatch.setenv(gpus.VISIBLE, "3")
    with pytest.raises(RunError, match="2 GPUs are needed, and CUDA_VISIBLE_DEVICES shows 3"):
        gpus.lease(2)


def test_parts_of_a_card_are_leased_like_cards(node: Path) -> None:
    node.write_text(CUT)
    assert gpus.visible() == ["MIG-111", "MIG-222"]


def test_a_machine_without_a_driver_shows_none(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node.unlink()
    assert gpus.visible() == []
    gpus.lease(1)
    assert gpus.VISIBLE not in os.environ
    monkeypatch.setenv(gpus.VISIBLE, "")
    assert gpus.visible() == []


def test_interpolation_takes_no_gpu() -> None:
    lab = load_profile(ROOT / "config/lab.yaml")
    assert lab.device == "cuda"
    asked = {name: lab.gpus_to_restore(name) for name in lab.methods}
    assert [name for name, count in asked.items() if not count] == ["bicubic"]


def snakemake(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snakemake", "--nolock", "--cores", "8", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_a_training_on_more_gpus_than_there_are_is_refused_before_anything_starts(
    tmp_path: Path,
) -> None:
    training = "training={processes: 4, batch_size: 4, micro_batch: 1}"
    options = ["profile=test", "name=on-four", "device=cuda", training]
    # One job, since it is the study and not the job that is refused; nothing of it is there.
    target = ["--", "data/on-four/Photos/index.csv"]
    tried = snakemake("--config", *options, *target)
    assert tried.returncode == 1
    said = tried.stdout + tried.stderr
    assert "a job needs 4 GPUs (training.processes), and nvidia-smi shows GPU-aaa, GPU-bbb" in said
    assert not (ROOT / "data/on-four").exists()
    assert snakemake("--dry-run", "--config", *options, *target).returncode == 0
