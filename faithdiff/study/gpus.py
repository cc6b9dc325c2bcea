"""GPUs of this machine: jobs that run side by side lease different ones.

A lease is a lock on a file, held by the process of the job: the system takes it back when that
process ends, however it ends. All studies of a user on a machine share the locks. Snakemake's
resource `gpu` counts, so that no job waits here for long; the lease decides which card it is.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

from filelock import FileLock, Timeout

from faithdiff.errors import RunError

LEASED = "FAITHDIFF_LEASED"  # set for the processes that a job starts: its GPUs are theirs
VISIBLE = "CUDA_VISIBLE_DEVICES"
POLL = 1.0  # seconds
_held: list[FileLock] = []  # as long as the process lives


def visible() -> list[str]:
    """GPUs that this process may use: what ``CUDA_VISIBLE_DEVICES`` says, else all that there are.

    Returns:
        Names as ``CUDA_VISIBLE_DEVICES`` takes them; none on a machine without NVIDIA's driver.
    """
    given = os.environ.get(VISIBLE)
    if given is None:
        return _driver()
    return [name for name in map(str.strip, given.split(",")) if name not in ("", "-1")]


def lease(count: int) -> None:
    """Wait for GPUs that no other job has, and let this process and its children see them alone.

    Does nothing in a process whose GPUs are chosen already (a child of a job, or one that a
    launcher of several processes started), and where none can be seen: the job itself says what it
    lacks.

    Raises:
        RunError: This process can see fewer than `count`.
    """
    if count == 0 or LEASED in os.environ or "LOCAL_RANK" in os.environ:
        return
    found = visible()
    if not found:
        return
    if len(found) < count:
        raise RunError(f"{count} GPUs are needed, and {shown(found)}")
    folder = Path(tempfile.gettempdir(), f"faithdiff-gpus-{os.getuid()}")
    folder.mkdir(exist_ok=True)
    said = False
    while (taken := _take(found, count, folder)) is None:
        if not said:
            print(f"waiting for {count} of {len(found)} GPUs that no other job uses", flush=True)
            said = True
        time.sleep(POLL)
    os.environ[VISIBLE] = os.environ[LEASED] = ",".join(taken)


def shown(found: list[str]) -> str:
    """Say which GPUs can be seen, for a message."""
    where = VISIBLE if VISIBLE in os.environ else "nvidia-smi"
    return f"{where} shows {', '.join(found) or 'none'}"


def _take(found: list[str], count: int, folder: Path) -> list[str] | None:
    """Lock `count` GPUs; None, and nothing locked, where fewer are free."""
    cards = _driver()
    locks: dict[str, FileLock] = {}
    for name in found:
        # One lock for a card, whether it is named by its index or by its UUID.
        card = cards[int(name)] if name.isdigit() and int(name) < len(cards) else name
        lock = FileLock(folder / re.sub(r"[^\w-]", "_", card))
        try:
            lock.acquire(blocking=False)
        except Timeout:
            continue
        locks[name] = lock
        if len(locks) == count:
            _held.extend(locks.values())
            return list(locks)
    for lock in locks.values():
        lock.release()
    return None


def _driver() -> list[str]:
    """UUIDs of all cards in the driver's order; of a card that is cut up (MIG), of its parts."""
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=60
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    cards: list[list[str]] = []
    for kind, uuid in re.findall(r"UUID: ((?:GPU|MIG)-)([^)\s]+)", listed):
        if kind == "GPU-":
            cards.append([])
        cards[-1].append(kind + uuid)
    return [part for card in cards for part in (card[1:] or card)]
