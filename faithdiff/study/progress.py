"""Progress of long work: a bar where a person watches, single lines where a file is written."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from tqdm import tqdm

SECONDS = 60  # at least, between two lines of a log file

if TYPE_CHECKING:  # tqdm's stubs are generic, its class is not: a subclass would lose the types
    ProgressBar = tqdm
else:

    class ProgressBar(tqdm):
        """tqdm's bar on a terminal; elsewhere a line at the start, each minute, and at the end.

        A bar returns to the start of its line and draws itself again. A log file would keep every
        drawing, and two jobs that print at once would overwrite each other's lines.
        """

        _said = -math.inf

        def display(self, msg: str | None = None, pos: int | None = None) -> bool:
            """Draw the bar, or print a line if it is time for one; whether anything was printed."""
            if self.fp.closed:  # a bar that was left open outlives its file
                return False
            if self.fp.isatty():
                return super().display(msg, pos)
            closing = self.disable  # set before the last line, which tqdm ends itself
            now = time.monotonic()
            if msg == "" or (not closing and now - self._said < SECONDS):
                return False
            self._said = now
            self.fp.write((msg or str(self)) + ("" if closing else "\n"))
            return True
