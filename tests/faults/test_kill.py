"""kill -9 of the whole study at random moments of every rule; the next call goes on."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from datetime import datetime
from pathlib import Path

import pytest
from shared.whole import IMAGES, SCORES, copy_suite, run, start

SEEDS = [int(seed) for seed in os.environ.get("KILL_SEEDS", "0").split(",")]
EVENT = re.compile(
    r"^\[(.+)\]\n(?:(?:local)?rule (\w+):|Finished jobid: \d+ \(Rule: (\w+)\))$", re.MULTILINE
)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_a_study_killed_in_each_of_its_rules_ends_with_the_same_bytes(
    undisturbed: Path, tmp_path: Path, seed: int
) -> None:
    folder, moments = copy_suite(tmp_path / "killed"), random.Random(seed)
    rules, killed = durations(undisturbed), []
    kept: dict[Path, int] = {}
    for rule, seconds in rules.items():
        if killed_in(rule, moments.uniform(0, seconds), folder):
            killed.append(rule)
        for file in folder.glob(IMAGES):
            kept.setdefault(file, file.stat().st_mtime_ns)
    print("killed in", *killed)
    run(folder)
    assert "Nothing to be done" in run(folder)
    assert (folder / SCORES).read_bytes() == (undisturbed / SCORES).read_bytes()
    assert len(kept) > 10
    assert all(file.stat().st_mtime_ns == stamp for file, stamp in kept.items())
    assert len(rules) > 15 and len(killed) > len(rules) / 2


def durations(finished: Path) -> dict[str, float]:
    """Seconds from a rule's first start to its first end, in the order of these ends."""
    log = min((finished / ".snakemake/log").glob("*.log"))  # of its first run
    begun: dict[str, datetime] = {}
    seconds: dict[str, float] = {}
    for said, started, ended in EVENT.findall(log.read_text("utf-8")):
        at = datetime.strptime(said, "%a %b %d %H:%M:%S %Y")
        if started:
            begun.setdefault(started, at)
        else:
            seconds.setdefault(ended, (at - begun[ended]).total_seconds())
    return {rule: lasted for rule, lasted in seconds.items() if rule != "all"}


def killed_in(rule: str, after: float, folder: Path) -> bool:
    """Run the study up to this rule and kill it so many seconds after a job of the rule starts.

    False where the call ended first: the job was quicker, or an earlier call had made it all.
    """
    logs = folder / ".snakemake" / "log"  # names the rules of jobs, which the screen does not
    earlier, said = {*logs.glob("*.log")}, folder / "run.log"
    with said.open("w", encoding="utf-8") as file:
        process = start(folder, "--until", rule, stdout=file)
    while True:
        text = "".join(log.read_text("utf-8") for log in {*logs.glob("*.log")} - earlier)
        if rule in {started for _, started, _ in EVENT.findall(text)}:
            break
        if process.poll() is not None:
            assert process.returncode == 0, said.read_text("utf-8")[-3000:]
            return False
        time.sleep(0.05)
    time.sleep(after)
    os.killpg(process.pid, signal.SIGKILL)
    return process.wait() == -signal.SIGKILL
