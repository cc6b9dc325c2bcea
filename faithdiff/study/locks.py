"""Keeps two processes from working on the same files, and forgets those that were killed.

Both locks belong to the process: the system takes them back when it dies, however it dies.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from filelock import FileLock, Timeout

from faithdiff.study.files import unwritable


@contextmanager
def claimed(file: Path, work: str) -> Iterator[None]:
    """Hold a lock while a job works; wait for another process that holds it, and say so.

    Such a process may be the orphan of a workflow that was killed. What it finishes is found
    finished afterwards.

    Args:
        file: The lock; it stays behind empty and means nothing then.
        work: What is waited for, for the message.
    """
    lock = FileLock(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:
        print(f"{work}: another process is at it ({file} is locked); waiting for it", flush=True)
        lock.acquire()
    except OSError as error:
        raise unwritable(file, error) from None
    try:
        yield
    finally:
        lock.release()


def forget_killed_runs(folder: Path) -> TextIO | None:
    """Remove the locks that a killed Snakemake left in ``.snakemake``, if no other is alive.

    Returns:
        An open file whose lock says that this process is alive: to be kept as long as it runs.
        None where the file system knows no such locks; ``snakemake --unlock`` remains then.

    Raises:
        RunError: The folder cannot be written, and so Snakemake cannot even plan here.
    """
    try:
        folder.mkdir(exist_ok=True)
        alive = (folder / "alive").open("w")
    except OSError as error:
        raise unwritable(folder.absolute(), error) from None
    try:
        fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pass  # another one runs: its locks are its own
    except OSError:
        alive.close()
        return None
    else:
        for lock in (folder / "locks").glob("*.lock"):
            lock.unlink()
    fcntl.flock(alive, fcntl.LOCK_SH)
    return alive
