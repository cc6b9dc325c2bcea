"""Each promise of docs/determinism.md that one machine can keep or break."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from shared import ROOT

from faithdiff import cli
from faithdiff.config import load_profile
from faithdiff.data.images import read_image
from faithdiff.methods.method import Study
from faithdiff.models.repeatable import compute_repeatably

PROFILE = Path("config/test.yaml")


def made_by_a_process(study: Study, **environment: str) -> dict[str, bytes]:
    """Train a variant, restore and score in processes of their own; the bytes of what they made."""
    for verb in ("train", "restore-sets", "score"):
        command = [sys.executable, "-m", "faithdiff.cli", verb, "--method", "faithdiff"]
        subprocess.run(
            [*command, "--config", str(PROFILE)],
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            check=True,
            capture_output=True,
        )
    folders = (study.layout.checkpoint("faithdiff", 0), study.layout.restored("faithdiff", 0))
    files = [f for folder in folders for f in folder.rglob("*") if f.is_file()]
    kept = {".png", ".safetensors", ".csv"}  # the JSON files beside them hold seconds
    found = {str(f): f.read_bytes() for f in files if f.suffix in kept and f.stem != "training"}
    for folder in (*folders, study.layout.cache):
        subprocess.run(["rm", "-r", str(folder)], check=True)
    return found


@pytest.mark.slow
def test_threads_locale_and_global_state_change_no_byte(study: Study) -> None:
    wanted = made_by_a_process(study, OMP_NUM_THREADS="1", PYTHONHASHSEED="1")
    assert len(wanted) > 6
    other = {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    odd = {"PYTHONHASHSEED": "2", "LC_ALL": "C", "TZ": "Asia/Kathmandu"}
    assert made_by_a_process(study, **other, **odd) == wanted
    # All in one process, whose global generators are anywhere.
    for verb in (cli.train, cli.restore_sets, cli.score):
        torch.rand(7)
        np.random.rand(3)
        verb("faithdiff", config=PROFILE)
    for name, content in wanted.items():
        assert Path(name).read_bytes() == content, name


@pytest.mark.slow
def test_a_processor_without_vectors_comes_near(study: Study) -> None:
    """Stands in for another CPU: the kernels of torch and oneDNN for the oldest one."""
    place = study.layout.restoration("faithdiff", 0, "Photos", "II")
    images = []
    for environment in ({}, {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}):
        command = [sys.executable, "-m", "faithdiff.cli", "restore-sets", "--method", "faithdiff"]
        subprocess.run(
            [*command, "--config", str(PROFILE)],
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            check=True,
            capture_output=True,
        )
        images.append(np.stack([read_image(f) for f in sorted(place.glob("*.png"))]).astype(int))
        subprocess.run(["rm", "-r", str(study.layout.cache), str(place)], check=True)
    assert np.abs(images[0] - images[1]).max() <= 1  # of 255


def test_gpu_kernels_are_switched_by_the_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda on, **_: asked.append(on))
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    profile = load_profile(ROOT / "config" / "lab.yaml")
    compute_repeatably(profile.model_copy(update={"deterministic": False}))
    assert asked == []
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")  # the user's own is kept
    compute_repeatably(profile)
    assert asked == [True]
    assert not torch.backends.cudnn.benchmark
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
