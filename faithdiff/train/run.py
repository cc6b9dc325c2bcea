"""Training jobs: run one, write what made it beside it, clear its resumable state."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from faithdiff.errors import RunError
from faithdiff.files import write_text_atomic
from faithdiff.methods import Study
from faithdiff.provenance import commit, hardware, packages
from faithdiff.train.cost import Cost

RUN = "run.json"


def run_job(
    study: Study, name: str, seed: int, folder: Path, train: Callable[[Path, Path], Cost | None]
) -> None:
    """Train into `folder`, which appears whole or not at all.

    Args:
        train: Called with the folder for weights and ``training.csv``, and with the folder for
            resumable states, which is kept when the job is killed and removed when it ends.
    """
    state = study.layout.work(f"{name}-seed{seed}")
    partial = state / "finished"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    begun = time.perf_counter()
    try:
        cost = train(partial, state)
    except OSError as error:
        raise RunError(f"{folder}: training stopped: {error}") from None
    seconds = time.perf_counter() - begun
    _write_run(study, name, seed, partial, seconds, cost)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    os.replace(partial, folder)
    shutil.rmtree(state)
    print(f"{name}: trained in {seconds:.0f} s -> {folder}")


def _write_run(
    study: Study, name: str, seed: int, folder: Path, seconds: float, cost: Cost | None
) -> None:
    """``run.json``: the profile, machine and code that made a checkpoint."""
    run = {
        "method": name,
        "seed": seed,
        "profile": study.profile.model_dump(mode="json"),
        "seconds": round(seconds, 1),
        "cost": cost and cost.plain(),
        **commit(),
        "hardware": hardware(),
        "packages": packages(),
    }
    write_text_atomic(json.dumps(run, indent=1) + "\n", folder / RUN)
