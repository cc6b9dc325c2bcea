"""When a training must stop before its end: a time limit, SIGTERM, or a file that asks for it.

Queues that take machines back give a job a time and then a signal. The training loop asks
:func:`reason` after each update, saves its state and raises :class:`faithdiff.errors.Paused`; the
next call goes on as if nothing had happened. What is watched is the process, as signals are: there
is one watch at a time.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType


@dataclass
class _Watch:
    deadline: float | None = None  # of time.monotonic()
    file: Path | None = None
    terminated: bool = False


_current = _Watch()


@contextlib.contextmanager
def watch(minutes: float | None, since: float, file: Path | None = None) -> Iterator[None]:
    """Watch for a time limit, SIGTERM and a file while the block runs.

    Args:
        minutes: The time limit; None for none.
        since: The ``time.monotonic()`` at which the limit began to run.
        file: Asks for a pause as soon as it exists.
    """
    global _current
    before = _current
    _current = _Watch(None if minutes is None else since + 60 * minutes, file)
    # Python lets only the main thread set handlers; elsewhere the limit alone is watched.
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGTERM, _terminated) if in_main else None
    try:
        yield
    finally:
        _current = before
        if in_main:
            signal.signal(signal.SIGTERM, handler)


def _terminated(_: int, __: FrameType | None) -> None:
    _current.terminated = True


def reason(reserve: float) -> str | None:
    """Why to stop now, in words; None to go on.

    Args:
        reserve: Seconds that the next update and saving will take.
    """
    # A flag that the loop reads, not an exception out of the handler: that would strike in the
    # middle of an update, or of a file that is being written.
    if _current.terminated:
        return "SIGTERM"
    if _current.file is not None and _current.file.exists():
        return "asked to stop"
    if _current.deadline is not None and time.monotonic() + reserve >= _current.deadline:
        return "time limit"
    return None
