"""Metric values of earlier runs, by the hashes of all that they depend on.

A CSV that only grows, a line per value as it is computed: a killed job loses at most the value in
work. Each line ends with its checksum; one that does not fit counts as not there. The file is no
output of the workflow; deleting it costs time, never a result.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from faithdiff.study.checksums import append_row, read_rows

Key = tuple[str, str, str]  # digest of the metric, sha256 of the restored and of the HQ image


class ScoreCache:
    """Values by key; kept in `file` where one is given.

    Args:
        others: Files of other jobs, which are read only.
    """

    def __init__(self, file: Path | None = None, others: Iterable[Path] = ()) -> None:
        self._file = file
        self._values: dict[Key, str] = {}
        for other in others:
            self._values.update(_read(other))
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._values.update(_read(file))

    def get(self, key: Key) -> str | None:
        """The value as it was put, or None."""
        return self._values.get(key)

    def put(self, key: Key, value: str) -> None:
        """Keep a value, on disk at once.

        Raises:
            RunError: It cannot be written.
        """
        self._values[key] = value
        # Written value by value and not at the end: a perceptual metric on a CPU takes seconds per
        # image, and a job that is killed after an hour must not start again.
        if self._file is not None:
            append_row((*key, value), self._file)


def _read(file: Path) -> dict[Key, str]:
    if not file.exists():
        return {}
    # A line of another length is of another version of the suite, and is computed again.
    return {(row[0], row[1], row[2]): row[3] for row in read_rows(file) if len(row) == 4}
