"""kill -9 of the whole study at random moments of every rule; the next call goes on."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from pathlib import Path

import pandas as pd
import pytest
from whole import IMAGES, SCORES, copy_suite, run, start

SEEDS = [int(seed) for seed in os.environ.get("KILL_SEEDS", "0").split(",")]
BENCHMARKS = Path("logs/test/benchmarks")
STARTED = re.compile(r"^rule (\w+):$", re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_a_study_killed_in_each_of_its_rules_ends_with_the_same_bytes(
    undisturbed: Path, tmp_path: Path, seed: int
) -> None:
    folder, left = copy_suite(tmp_path / "killed"), durations(undisturbed)
    moments = random.Random(seed)
    kept: dict[Path, int] = {}
    while left:
        rule = kill_in_one_of(left, folder, moments)
        del left[rule]
        for file in folder.glob(IMAGES):
            kept.setdefault(file, file.stat().st_mtime_ns)
    run(folder)
    assert "Nothing to be done" in run(folder)
    assert (folder / SCORES).read_bytes() == (undisturbed / SCORES).read_bytes()
    assert len(kept) > 10
    assert all(file.stat().st_mtime_ns == stamp for file, stamp in kept.items())


def durations(finished: Path) -> dict[str, float]:
    """Seconds of the shortest job of each rule that takes its time."""
    folders = (folder for folder in (finished / BENCHMARKS).iterdir() if folder.is_dir())
    return {
        folder.name: min(pd.read_csv(file, sep="\t")["s"].item() for file in folder.glob("*.tsv"))
        for folder in folders
    }


def kill_in_one_of(rules: dict[str, float], folder: Path, moments: random.Random) -> str:
    """Run the study until a job of one of these rules starts, and kill it on that job's way."""
    log = folder / "run.log"
    with log.open("w", encoding="utf-8") as file:
        process = start(folder, stdout=file)
    while not (started := [r for r in STARTED.findall(log.read_text("utf-8")) if r in rules]):
        assert process.poll() is None, log.read_text("utf-8")[-3000:]
        time.sleep(0.05)
    time.sleep(moments.uniform(0, rules[started[0]]))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return started[0]
