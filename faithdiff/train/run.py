"""Training jobs: run one, write what made it beside it, clear its resumable state."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError

from faithdiff.errors import RunError
from faithdiff.methods.method import Study
from faithdiff.study.checkpoints import RUN, file_hashes
from faithdiff.study.checksums import with_checksum
from faithdiff.study.files import write_text_atomic
from faithdiff.study.locks import claimed
from faithdiff.study.provenance import commit, hardware, packages
from faithdiff.study.records import Cost
from faithdiff.train import pause
from faithdiff.train.processes import launched_first

STOP = "stop"  # a file beside the states: asks for a pause
PICTURES = "validation"  # a folder beside the states, which outlives them
STARTED = time.monotonic()  # of this process, but for the imports before this one


def run_job(
    study: Study,
    name: str,
    seed: int,
    folder: Path,
    train: Callable[[Path, Path], Cost | None],
    time_limit: float | None = None,
) -> None:
    """Train into `folder`, which appears whole or not at all.

    Where a launcher started several processes, each calls this and only the first writes.

    Args:
        train: Called with the folder for weights and ``training.csv``, and with the folder for
            resumable states, which is kept when the job is killed and removed when it ends.
        time_limit: Minutes since this process began after which it must have stopped.

    Raises:
        Paused: The time limit is near, or SIGTERM came; the state is saved.
    """
    state = study.layout.work(f"{name}-seed{seed}")
    # The first of several processes holds the lock for all of them.
    lock = state.parent / f"{state.name}.lock"
    with claimed(lock, f"train {name}") if launched_first() else nullcontext():
        begun = time.perf_counter()
        try:
            with pause.watch(time_limit, STARTED, state / STOP):
                partial = state / "finished"
                if launched_first():
                    shutil.rmtree(partial, ignore_errors=True)
                    partial.mkdir(parents=True)
                cost = train(partial, state)
        except (OSError, SafetensorError) as error:
            raise RunError(f"{folder}: training stopped: {error}") from None
        seconds = time.perf_counter() - begun
        if not launched_first():
            return
        # The record last, then the whole folder under its name: whoever finds the folder finds
        # weights that were finished, with the hash of each file.
        _write_run(study, name, seed, partial, seconds, cost)
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        os.replace(partial, folder)
        if (state / PICTURES).is_dir():
            os.replace(state / PICTURES, folder / PICTURES)
        shutil.rmtree(state)
        print(f"{name}: trained in {seconds:.0f} s -> {folder}")


def _write_run(
    study: Study, name: str, seed: int, folder: Path, seconds: float, cost: Cost | None
) -> None:
    """``run.json``: the profile, machine and code that made a checkpoint, and its files' hashes."""
    run = {
        "method": name,
        "seed": seed,
        "profile": study.profile.model_dump(mode="json"),
        "seconds": round(seconds, 1),
        "cost": cost and asdict(cost),
        **commit(),
        "hardware": hardware(),
        "packages": packages(),
        "files": file_hashes(folder),
    }
    write_text_atomic(json.dumps(with_checksum(run), indent=1) + "\n", folder / RUN)
