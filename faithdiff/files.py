"""Writes small files so that no reader ever meets half of one."""

from __future__ import annotations

import os
from pathlib import Path

from faithdiff.errors import RunError


def write_text_atomic(text: str, path: Path) -> None:
    """Write UTF-8 text under its final name in one step; raises as :func:`write_bytes_atomic`."""
    write_bytes_atomic(text.encode("utf-8"), path)


def write_bytes_atomic(content: bytes, path: Path) -> None:
    """Write a file under its final name in one step.

    Raises:
        RunError: The disk is full or the folder cannot be written; no partial file stays behind.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except OSError as error:
        if path.parent.is_dir():
            partial.unlink(missing_ok=True)
        raise RunError(f"{path}: cannot be written: {error.strerror}") from None
