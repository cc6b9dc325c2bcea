"""Writes small files so that no reader ever meets half of one; reads text from other programs."""

from __future__ import annotations

import codecs
import os
import re
from pathlib import Path

from faithdiff.errors import RunError, UserError

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_text(file: Path) -> str:
    """Read a text file that a person made, with or without a byte order mark.

    Raises:
        OSError: It cannot be read.
        UserError: It is neither UTF-8 nor marked UTF-16.
    """
    data = file.read_bytes()
    encoding = "utf-16" if data.startswith(_UTF_16) else "utf-8-sig"
    try:
        text = data.decode(encoding)
        wrong = text.find("\0")
        if wrong < 0:
            return text
        what, before = "a NUL byte", text[:wrong].encode()
    except UnicodeDecodeError as error:
        what, before = f"byte {data[error.start]:#04x}", data[: error.start]
    place = f"{what} in line {before.count(10) + 1}"
    raise UserError(
        f"{printable(file)}: is not UTF-8 ({place}); save it as UTF-8 in the program that wrote it "
        f'(in Excel "CSV UTF-8"), or: iconv -f WINDOWS-1252 -t UTF-8 {file.name} > new-{file.name}'
    )


def printable(text: str | Path) -> str:
    """Write a name so that any terminal shows it on one line; a name may hold any bytes."""
    shown = str(text).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return re.sub(r"[\x00-\x1f\x7f]", lambda found: repr(found[0])[1:-1], shown)


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
