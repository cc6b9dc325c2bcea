"""Starts one training in several processes through `accelerate launch`, and tells how it ended.

The command line calls this when `training.processes` is more than one; whoever needs more, such as
several machines, calls `accelerate launch` himself: `faithdiff` joins whatever started it.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

import torch.distributed as dist

from faithdiff.config import Training
from faithdiff.errors import Paused, RunError
from faithdiff.methods.method import Study
from faithdiff.train.run import STARTED, STOP

PAUSED = "paused"  # a file beside the states: the message of the pause
LAUNCHER = "accelerate.commands.launch"  # its `accelerate` script imports packages it needs not


def needed(study: Study) -> bool:
    """Whether the profile wants several processes and this is not one of them."""
    return study.profile.training.processes > 1 and not dist.is_torchelastic_launched()


def launch(
    study: Study, name: str, seed: int, arguments: list[str], time_limit: float | None
) -> None:
    """Run a verb of the command line in the processes of the profile.

    Args:
        arguments: The verb and its options, without config and time limit.

    Raises:
        Paused: The processes saved their state and stopped.
        RunError: One of them failed; names the folder with what each of them said.
    """
    state = study.layout.work(f"{name}-seed{seed}")
    logs, stop, paused = state / "logs", state / STOP, state / PAUSED
    logs.mkdir(parents=True, exist_ok=True)
    # Left behind by a call that was killed, they would stop this one at its first update.
    for file in (stop, paused):
        file.unlink(missing_ok=True)
    verb = [*arguments, "--config", str(study.file)]
    if time_limit is not None:
        left = time_limit - (time.monotonic() - STARTED) / 60
        verb += ["--time-limit", str(max(left, 0))]
    code = _run(_command(study.profile.training, study.profile.device, logs, verb), stop)
    stop.unlink(missing_ok=True)
    if code != 0:
        raise RunError(
            f"{name} in {study.profile.training.processes} processes: training failed (exit code "
            f"{code}); what each process said is in {logs}. The last state is kept: mend the "
            "cause and run the same command again"
        )
    if paused.is_file():
        raise Paused(paused.read_text(encoding="utf-8").strip(), paused)


def _command(training: Training, device: str, logs: Path, verb: list[str]) -> list[str]:
    # --multi_gpu also starts processes for CPUs; `faithdiff` takes its device from the profile.
    own = [] if "--config_file" in training.launcher else ["--multi_gpu", "--num_machines", "1"]
    own += ["--num_processes", str(training.processes), "--main_process_port", "0"]
    own += [] if "--config_file" in training.launcher else ["--mixed_precision", "no"]
    own += ["--dynamo_backend", "no"]
    own += ["--log_dir", str(logs), "--tee", "3"]  # what each says goes to a file, too
    worker = ["-m", "faithdiff.cli.worker", *verb]
    return [sys.executable, "-m", LAUNCHER, *own, *training.launcher, *worker]


def _run(command: list[str], stop: Path) -> int:
    """Run to the end; SIGTERM asks the processes to stop by a file, and waits for them.

    Sent on as a signal, it would make the launcher kill them half a minute later, which is too
    short for a large state.
    """

    def ask(_: int, __: FrameType | None) -> None:
        stop.touch()

    process = subprocess.Popen(command)
    before = signal.signal(signal.SIGTERM, ask)
    try:
        return process.wait()
    finally:
        signal.signal(signal.SIGTERM, before)
        if process.poll() is None:  # interrupted: the launcher ends its processes
            process.terminate()
            process.wait()
