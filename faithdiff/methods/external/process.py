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
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from faithdiff.errors import UserError
from faithdiff.methods.external.results import one_line

_POLL = 0.05  # seconds
_LOOK = 2.0
_SILENT = 600.0  # seconds without a word, after which a command may well hang
# Seconds that children may outlive a command: those that Python starts for itself end after it.
_GRACE = 2.0
# How programs fail that ask for an answer, or for a terminal.
_ASKS = ("EOFError", "EOF when reading", "not a tty", "Inappropriate ioctl", "/dev/tty")
_TAIL = 1 << 16  # bytes of a log that are searched for its last line: it may have gigabytes
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Call:
    """A command, where it runs, and what it finds in its environment."""

    arguments: Sequence[str]
    folder: Path
    variables: Mapping[str, str]
    log: Path  # receives all that it prints
    minutes: float | None = None  # after which it is ended; None: never


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int  # negative: killed by this signal
    seconds: float
    memory_gib: float  # largest resident size of the process or of one that it waited for
    gpu_gib: float  # largest use seen on any GPU, other processes included; 0 without nvidia-smi
    last_line: str
    minutes: float | None = None  # the limit that it ran into, if it did
    left_behind: bool = False  # whether processes that it started outlived it, and were ended

    def __str__(self) -> str:
        how = f"killed by signal {-self.code}" if self.code < 0 else f"exit code {self.code}"
        if self.minutes is not None:
            how = f"ended after its limit of {self.minutes:g} minutes"
        said = f"{how}: {self.last_line}" if self.last_line else how
        asks = any(word in self.last_line for word in _ASKS)
        return one_line(f"it can ask nothing, as it has no terminal: {said}" if asks else said)


def run(call: Call, meanwhile: Callable[[], None] | None = None) -> Ended:
    """Run a command; whatever ends this process early ends the command and its children, too.

    It has no terminal, and nothing to read. Children that outlive it are ended: they would go on
    writing among results that were taken, and keep a GPU.

    Args:
        call: The command.
        meanwhile: Called every few seconds while it runs.

    Raises:
        UserError: There is no such program.
    """
    call.log.parent.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
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
                f"{call.arguments[0]}: cannot be started in {call.folder}: {error.strerror}; it is "
                "the first word of `command`, a program or the path of one"
            ) from None
        try:
            gpu, in_time = _watch(process.pid, call, meanwhile)
            # Not Popen.wait: only wait4 tells the memory of this child alone.
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    process.returncode = os.waitstatus_to_exitcode(status)
    return Ended(
        process.returncode,
        round(time.monotonic() - begun, 3),
        round(usage.ru_maxrss / 2**20, 3),
        round(gpu, 3),
        _last_line(call.log),
        None if in_time else call.minutes,
        _end_children(process.pid),
    )


def _watch(pid: int, call: Call, meanwhile: Callable[[], None] | None) -> tuple[float, bool]:
    """Wait until a command ends, or end it after its limit; GiB on the GPU, and whether in time."""
    begun = asked = heard = time.monotonic()
    gpu, size, in_time = 0.0, 0, True
    # Not reaped yet: until then no other process can get its number.
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        now = time.monotonic()
        if now - asked > _LOOK:
            asked, gpu = now, max(gpu, _gpu_gib())
            if meanwhile is not None:
                meanwhile()
            if (written := call.log.stat().st_size) != size:
                heard, size = now, written
        if in_time and call.minutes is not None and now - begun > 60 * call.minutes:
            os.killpg(pid, signal.SIGKILL)
            in_time = False
        elif call.minutes is None and now - heard > _SILENT:
            print(
                f"{call.arguments[0]}: has printed nothing for {_SILENT / 60:g} minutes; if it "
                f"hangs, stop it (Ctrl-C) and give it a limit (`minutes`); its log is {call.log}",
                flush=True,
            )
            heard = now
        time.sleep(_POLL)
    return gpu, in_time


def _end_children(group: int) -> bool:
    """End what is left of a process group, and say whether anything was."""
    last = time.monotonic() + _GRACE
    while _is_alive(group):
        if time.monotonic() > last:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
            return True
        time.sleep(_POLL)
    return False


def _is_alive(group: int) -> bool:
    """Whether a process group has a process that has not ended."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS says so of those that have ended; others are not ours to end
        return False
    # Where nobody reaps orphans, as in many containers, a group is there for as long as its dead.
    states = [_state_in(stat, group) for stat in Path("/proc").glob("[0-9]*/stat")]
    return not states or any(state not in ("", "Z", "X") for state in states)


def _state_in(stat: Path, group: int) -> str:
    """The state of a process of Linux that is in a group; empty for others."""
    try:
        state, _, its_group = stat.read_text(errors="replace").rpartition(")")[2].split()[:3]
    except (OSError, ValueError):  # it is gone
        return ""
    return state if int(its_group) == group else ""


def _die_with_parent() -> None:
    """Ask Linux to kill this child with the suite: an orphan would write into the next run.

    Elsewhere nothing happens, and a killed suite leaves its command running.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _last_line(log: Path) -> str:
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - _TAIL))
        tail = stream.read().decode("utf-8", "replace")
    lines = tail.replace("\r", "\n").splitlines()
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
