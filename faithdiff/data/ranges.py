"""Several connections for one large file: its ranges arrive together and are joined in order.

``<file>.part`` holds the bytes from the start without a gap, as with one connection, so that a
later call resumes it; ranges beyond lie in ``<file>.part.<first byte>`` until it is their turn.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SEGMENT = 64 << 20  # bytes
CONNECTIONS = 4


@dataclass(frozen=True)
class Ranges:
    """The ranges of one version of a file.

    Attributes:
        part: Where the bytes from the start lie.
        total: Bytes of the whole file.
        ask: Opens the range from its first to before its second argument; raises where the answer
            is not this range of this version.
        copy: Copies up to so many bytes (third argument) from an answer to the end of a file, while
            the event is not set.
    """

    part: Path
    total: int
    ask: Callable[[int, int], Any]
    copy: Callable[[Any, Path, int, threading.Event], None]
    stop: threading.Event = field(default_factory=threading.Event)

    def receive(self, first: Any) -> None:
        """Receive what is missing of the part, the answer `first` being what follows it."""
        start = self.part.stat().st_size if self.part.exists() else 0
        second = (start // SEGMENT + 1) * SEGMENT
        begins = range(second, self.total, SEGMENT)
        with ThreadPoolExecutor(CONNECTIONS - 1) as pool:
            later = [pool.submit(self._segment, begin) for begin in begins]
            try:
                self.copy(first, self.part, second - start, self.stop)
                first.close()
                for begin, arrived in zip(begins, later, strict=True):
                    arrived.result()
                    self._append(begin)
            finally:
                self.stop.set()
                pool.shutdown(cancel_futures=True)
        discard(self.part)

    def _segment(self, begin: int) -> None:
        file, end = _file(self.part, begin), min(begin + SEGMENT, self.total)
        had = file.stat().st_size if file.exists() else 0
        if begin + had < end:
            with self.ask(begin + had, end) as answer:
                self.copy(answer, file, end - begin - had, self.stop)

    def _append(self, begin: int) -> None:
        file = _file(self.part, begin)
        with self.part.open("ab") as out, file.open("rb") as segment:
            shutil.copyfileobj(segment, out, 1 << 20)
        file.unlink()


def discard(part: Path) -> None:
    """Delete ranges that lie beside a part."""
    for file in _beside(part):
        file.unlink(missing_ok=True)


def waiting(part: Path) -> int:
    """Bytes in ranges beside a part."""
    return sum(file.stat().st_size for file in _beside(part))


def _beside(part: Path) -> list[Path]:
    if not part.parent.is_dir():
        return []
    files = part.parent.iterdir()
    return [f for f in files if f.stem == part.name and f.suffix[1:].isdigit()]


def _file(part: Path, begin: int) -> Path:
    return part.with_name(f"{part.name}.{begin}")
