"""Every command of README, docs/ and ``--help`` runs as it is written, on a study of seconds.

The profile `mini` is that of the tests there, and the official files are small random ones. What
cannot run is listed with the reason, so that a new command has to be in one place or the other.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from shared import ROOT
from shared.documented import in_blocks
from shared.official_model import official_state, save_base_model
from shared.whole import copy_suite

from faithdiff.config.yaml_file import Layers, dump_yaml, merge
from faithdiff.data.images import write_png

_NETWORK = "needs the network: tests/data and tests/workflow/test_released.py run it on loopback"
_OFFICIAL = "needs official code and weights: tests/methods/test_official_baselines.py"
_SUITE = "is of the suite itself: CI runs it"
_GPU = "needs a GPU, or files of a gigabyte"
NOT_RUN = {
    "make reproduce": _SUITE,
    "make test": _SUITE,
    "make test-slow": _SUITE,
    "make test ARGS='tests/config/test_config.py'": _SUITE,
    "make .venv": _SUITE,
    "make lint": _SUITE,
    "make bench": "takes minutes: tests/planning measures with it",
    "make bench-peers": "tests/planning/test_peers.py rehearses it",
    "make gpu-check": "tests/planning/test_gpu_check.py",
    "make gpu-check SMALL=1": "the same",
    "faithdiff doctor --config config/released.yaml": "tests/planning/test_doctor.py",
    "faithdiff bench --config config/mini.yaml": "the same",
    "faithdiff fetch --profile released": _NETWORK,
    "faithdiff fetch --profile paper": _NETWORK,
    "faithdiff fetch --weights lpips": _NETWORK,
    "faithdiff fetch --weights lpips --weights musiq --weights clipiqa+": _NETWORK,
    "faithdiff fetch --baseline diffbir --config config/released.yaml": _NETWORK,
    "faithdiff baseline prepare diffbir --config config/released.yaml": _OFFICIAL,
    "faithdiff baseline check diffbir --config config/released.yaml": _OFFICIAL,
    "faithdiff baseline check seesr --config config/released.yaml": _OFFICIAL,
    "snakemake --cores all --config profile=released": _NETWORK,
    "faithdiff caption --dataset RealDeg --level real --config config/released.yaml": _NETWORK,
    "snakemake --cores all --config profile=lab": _GPU,
    'snakemake --cores all --config profile=lab name=lab-short "training={stage2_steps: 200, '
    'checkpoint_every: 50}"': _GPU,
    "faithdiff bench-sampler --base config/sdxl --side 1024 --side 2048 --device cuda "
    "--precision fp16 --tile 128 --compile": _GPU,
    "faithdiff export --checkpoint checkpoints/paper/faithdiff/seed0 --out FaithDiff.bin": (
        "needs a training of `paper`: tests/workflow/test_paper.py"
    ),
    "snakemake --workflow-profile profiles/slurm --config profile=paper": (
        "needs a queue: tests/workflow/test_cluster.py"
    ),
    "snakemake --cores all --config seeds=[0,1,2]": "three times the study that runs here",
    "snakemake --cores all --configfile my-settings.yaml": "tests/planning/test_overrides.py",
    "snakemake --cores all --config profile=mine": "tests/methods/test_add_a_method.py",
    "faithdiff method check mymethod --config config/mine.yaml": "the same",
    "faithdiff method check mymethod": "the same",
    "faithdiff doctor --config config/paper.yaml": (
        "says what is missing, and much is: tests/planning/test_doctor.py"
    ),
    "faithdiff pull --remote shared": "needs a DVC remote: tests/tracking",
    "dvc metrics diff HEAD~1": "needs DVC's files of the suite: tests/tracking",
    "dvc params diff HEAD~1": "the same",
    "faithdiff version-study": "the same",
    "git bisect start --no-checkout main v1.0 -- results/mini": "searches a history of results",
    "git bisect run sh -c '": "the same; the first line of a script",
    "git bisect log": "the same",
    "git bisect reset": "the same",
    "faithdiff audit v1.0 BISECT_HEAD --profile mini --metric PSNR": "the same",
    "faithdiff deviations": "is of the real `mini`: tests/report/test_deviations.py",
    "faithdiff prior-card --picture docs/prior.png": "takes minutes, on the prior that ships",
}
FIRST = ("snakemake --cores all", "faithdiff manifest", "faithdiff report")
# The study is repaired and its prior shipped when all else has run.
LAST = ("faithdiff ship-prior", "faithdiff verify --repair")
WORSE = 1  # exit code of an audit that finds something worse


def test_nothing_is_left_out_that_is_not_there() -> None:
    assert set(NOT_RUN) <= {each.line for each in in_blocks()}


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout whose `mini` takes seconds, with pictures, weights and a history."""
    folder = copy_suite(tmp_path_factory.mktemp("suite"))
    for part in ("prior", "docs"):
        shutil.copytree(ROOT / part, folder / part)
    tiny = merge(Layers.read(ROOT / "config/test.yaml").merged(), {"profile": "mini"})
    mini = Layers.read(ROOT / "config/mini.yaml").merged()
    tiny["score"]["metrics"].append("ssim")
    tiny["variants"]["frozen"] = mini["variants"]["frozen"]
    (folder / "config/mini.yaml").write_text(dump_yaml(tiny))
    rng = np.random.default_rng(0)
    for name in ("photo", "holiday", "scans/one"):
        write_png(rng.integers(0, 256, (24, 32, 3), np.uint8), folder / f"{name}.png")
    for name in ("photo", "holiday"):
        (folder / f"{name}.png").rename(folder / f"{name}.jpg")
    save_base_model(folder / "weights/RealVisXL_V4.0")
    torch.save(official_state(), folder / "weights/FaithDiff.bin")
    return folder


def call(suite: Path, line: str) -> subprocess.CompletedProcess[str]:
    scripts = Path(sys.executable).parent
    path = f"{scripts}{os.pathsep}{os.environ['PATH']}"
    about = {"PATH": path, "PYTHONPATH": str(suite), "OMP_NUM_THREADS": "1"}
    names = {
        f"GIT_{who}_{what}": "x@y" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    words = shlex.split(line)
    if words[0] == "faithdiff":
        words = [sys.executable, "-m", "faithdiff.cli", *words[1:]]
    return subprocess.run(
        words,
        cwd=suite,
        env={**os.environ, **about, **names},
        capture_output=True,
        text=True,
        check=False,
        timeout=3000,
    )


def commit(suite: Path, *tags: str) -> None:
    lines = ["git add -f results config", f"git commit --quiet --allow-empty -m {tags[0]}"]
    for line in [*lines, *(f"git update-ref refs/tags/{tag} HEAD" for tag in tags)]:
        done = call(suite, line)
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_every_command_runs_as_it_is_written(suite: Path) -> None:
    lines = [each.line for each in in_blocks() if each.line not in NOT_RUN]
    rest = [line for line in lines if not line.startswith((*FIRST, *LAST))]
    last = [line for line in lines if line.startswith(LAST)]
    assert call(suite, "git init --quiet --initial-branch main").returncode == 0
    commit(suite, "empty")
    failed = []
    for line in [*FIRST, *rest, *last]:
        if "--out " in line:  # two examples write to the same folder
            shutil.rmtree(suite / line.rpartition("--out ")[2], ignore_errors=True)
        done = call(suite, line)
        allowed = (0, WORSE) if line.startswith("faithdiff audit") else (0,)
        if done.returncode not in allowed:
            failed.append(f"{line}: {done.returncode}: {(done.stdout + done.stderr)[-400:]}")
        if line == FIRST[-1]:
            assert not failed, failed
            for tags in (("v1.0", "before"), ("one",), ("two",), ("after",)):
                commit(suite, *tags)
            call(suite, "git update-ref refs/remotes/origin/main HEAD~1")
    assert not failed, "\n".join(failed)
