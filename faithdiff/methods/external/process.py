"""Runs a command to its end and says how that was: exit code, seconds, memory, last words."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from faithdiff.errors import UserError
from faithdiff.methods.external.results import one_line

_POLL = 0.05  # seconds
_LOOK = 2.0
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Call:
    """A command, where it runs, and what it finds in its environment."""

    arguments: Sequence[str]
    folder: Path
    variables: Mapping[str, str]
    log: Path  # receives all that it prints


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int  # negative: killed by this signal
    seconds: float
    memory_gib: float  # largest resident size of the process or of one that it waited for
    gpu_gib: float  # largest use seen on any GPU, other processes included; 0 without nvidia-smi
    last_line: str

    def __str__(self) -> str:
        how = f"killed by signal {-self.code}" if self.code < 0 else f"exit code {self.code}"
        return one_line(f"{how}: {self.last_line}") if self.last_line else how


def run(call: Call, meanwhile: Callable[[], None] | None = None) -> Ended:
    """Run a command; whatever ends this process early ends the command and its children, too.

    Args:
        call: The command.
        meanwhile: Called every few seconds while it runs.

    Raises:
        UserError: There is no such program.
    """
    call.log.parent.mkdir(parents=True, exist_ok=True)
    begun, gpu = time.monotonic(), 0.0
    with call.log.open("w", encoding="utf-8") as log:
        try:
            process = subprocess.Popen(
                list(call.arguments),
                cwd=call.folder,
                env=dict(call.variables),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        except OSError as error:
            raise UserError(
                f"{call.arguments[0]}: cannot be started in {call.folder}: {error.strerror}"
            ) from None
        try:
            asked = begun
            # Not Popen.wait: only wait4 tells the memory of this child alone.
            while not (waited := os.wait4(process.pid, os.WNOHANG))[0]:
                if time.monotonic() - asked > _LOOK:
                    asked, gpu = time.monotonic(), max(gpu, _gpu_gib())
                    if meanwhile is not None:
                        meanwhile()
                time.sleep(_POLL)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    _, status, usage = waited
    process.returncode = os.waitstatus_to_exitcode(status)
    return Ended(
        process.returncode,
        round(time.monotonic() - begun, 3),
        round(usage.ru_maxrss / 2**20, 3),
        round(gpu, 3),
        _last_line(call.log),
    )


def _die_with_parent() -> None:
    """Ask Linux to kill this child with the suite: an orphan would write into the next run.

    Elsewhere nothing happens, and a killed suite leaves its command running.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _gpu_gib() -> float:
    """Memory in use on the fullest GPU."""
    return max(gpu_memory("memory.used"), default=0.0)


def gpu_memory(field: str) -> list[float]:
    """GiB of each GPU by a field of nvidia-smi; empty where there is none."""
    if shutil.which("nvidia-smi") is None:
        return []
    asked = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=30)
        return [float(line) / 1024 for line in done.stdout.split()]
    except (OSError, ValueError, subprocess.SubprocessError):
        return []
