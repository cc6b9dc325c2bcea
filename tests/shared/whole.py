"""A checkout of the suite in a folder of its own, and runs of its whole workflow there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import pytest
from filelock import FileLock

from shared import ROOT

PARTS = ("Snakefile", "workflow", "profiles", "config", "faithdiff", "baselines", "results/paper")
SCORES = Path("results/test/scores.csv")
IMAGES = "restored/test/.store/*/*.png"


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that `make` fills once in a run of pytest, by the worker that first asks for it."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # of all workers
    folder, done = base / name, base / f"{name}.done"
    with FileLock(base / f"{name}.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            done.touch()
    return folder


def copy_suite(folder: Path, parts: Sequence[str] = PARTS) -> Path:
    """A checkout without git: the run's own code and none of another run's data."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in parts:
        source, target = ROOT / part, folder / part
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, target, ignore=ignored, dirs_exist_ok=True)
        else:
            shutil.copy(source, target)
    return folder


def start(
    folder: Path, *arguments: str, profile: str = "test", stdout: int | IO[str] = subprocess.PIPE
) -> subprocess.Popen[str]:
    """Start snakemake in a session of its own, with the package of the copy."""
    scripts = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--config", f"profile={profile}"]
    return subprocess.Popen(
        [*command, *arguments],
        cwd=folder,
        env=environment,
        text=True,
        stdout=stdout,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def run(folder: Path, *arguments: str, profile: str = "test") -> str:
    """Run snakemake to its end and return what it printed."""
    process = start(folder, *arguments, profile=profile)
    output, _ = process.communicate(timeout=1200)
    assert process.returncode == 0, output[-4000:]
    return output
