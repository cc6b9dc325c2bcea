"""Checksums of what was written, so that a file that changed on disk stops a run and is named.

Images are hashed by the tables beside them (``index.csv``, ``degradation.jsonl``, manifests).
These tables have a hash of their own: in ``<file>.sha256`` beside them, as ``sha256sum --check``
reads it, or, for JSON, under the key ``checksum``. A file without a hash is taken as it is: one
that a person wrote, or an older version of the suite.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from faithdiff.errors import CorruptedError
from faithdiff.study.files import left_by_git, lfs_pointer, unwritable, write_text_atomic
from faithdiff.study.provenance import file_digest
from faithdiff.study.remake import command_for

CHECKSUM = "checksum"
OLDER = "sealed"  # the same key in results of before 2026-12


def check_file(file: Path, wanted: str | None) -> None:
    """Compare a file with the sha256 that was recorded of it; None or empty: nothing was.

    Raises:
        CorruptedError: It is missing, or is not what was recorded.
    """
    if not wanted:
        return
    if not file.is_file():
        raise corrupted(file, "is missing")
    if (found := file_digest(file)) != wanted:
        raise corrupted(file, f"is corrupted: sha256 {found[:12]}..., recorded {wanted[:12]}...")


def corrupted(file: Path, what: str) -> CorruptedError:
    """The error for a file that is not what it was; it names the command that makes it again."""
    said = lfs_pointer(file) or f"{what}; make it again with: {command_for(file)}"
    return CorruptedError(f"{file}: {said}")


# --- Tables with their hash beside them -----------------------------------------------------------


def sum_file(file: Path) -> Path:
    """Where the hash of a table lies."""
    return file.with_name(f"{file.name}.sha256")


def write_summed(text: str, file: Path) -> None:
    """Write a table, then its hash beside it.

    Raises:
        RunError: The disk is full or the folder cannot be written; no partial file stays behind.
    """
    # Never an old hash beside a new table: killed in between, the table has none.
    try:
        sum_file(file).unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(file, error) from None
    write_text_atomic(text, file)
    digest = hashlib.sha256(text.encode()).hexdigest()
    write_text_atomic(f"{digest}  {file.name}\n", sum_file(file))


def check_summed(file: Path) -> None:
    """Compare a table with the hash beside it, if there is one.

    Raises:
        CorruptedError: They differ; either may be the corrupted one, and both are written again.
    """
    beside = sum_file(file)
    if beside.is_file() and file.is_file():
        words = beside.read_bytes().split()
        # An empty one says nothing of the table, and so nothing good.
        check_file(file, words[0].decode("ascii", "replace") if words else "nothing")


# --- JSON that holds its own hash -----------------------------------------------------------------


def with_checksum(content: Mapping[str, object]) -> dict[str, object]:
    """The content with a hash over it under ``checksum``, in the place of an older one."""
    rest = _content(content)
    return {**rest, CHECKSUM: _checksum(rest)}


def read_checked(file: Path) -> dict[str, Any]:
    """Read a JSON file and check it against its own checksum, if it has one.

    Raises:
        OSError: It cannot be read.
        CorruptedError: It is no JSON object, or does not fit its checksum.
    """
    data = file.read_bytes()
    try:
        content: dict[str, Any] = json.loads(data)
    except ValueError as error:
        if said := left_by_git(data, str(file)):
            raise CorruptedError(f"{file}: {said}") from None
        raise corrupted(file, f"is corrupted ({error})") from None
    if not isinstance(content, dict):
        raise corrupted(file, "is corrupted: not a group of keys")
    if not checksum_fits(content):
        raise corrupted(file, "is corrupted: its content does not fit its checksum")
    return content


def checksum_fits(content: Mapping[str, object]) -> bool:
    """Whether the content fits its checksum; True where it has none."""
    recorded = content.get(CHECKSUM, content.get(OLDER))
    return recorded is None or recorded == _checksum(_content(content))


def _content(content: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in content.items() if key not in (CHECKSUM, OLDER)}


def _checksum(content: Mapping[str, object]) -> str:
    # Through JSON and back: a tuple reads as a list, a number as a key as text.
    plain = json.loads(json.dumps(content))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


# --- Tables that only grow, each line with its own checksum ---------------------------------------


def append_row(fields: Sequence[str], file: Path) -> None:
    """Add a line of CSV that ends with a checksum of its fields, and sync it to disk.

    Raises:
        RunError: The disk is full, or the file cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8", newline="") as out:
            csv.writer(out, lineterminator="\n").writerow((*fields, _line_sum(fields)))
            out.flush()
            os.fsync(out.fileno())
    except OSError as error:
        raise unwritable(file, error) from None


def read_rows(file: Path) -> Iterator[list[str]]:
    """The lines of :func:`append_row` that are whole; a corrupted one counts as not there.

    A last line that a killed job left torn is cut off, so that the next one begins a line.
    """
    data = file.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if whole != data:
        file.write_bytes(whole)
    rows = csv.reader(io.StringIO(whole.decode("utf-8", "replace"), newline=""))
    try:
        for row in rows:
            if row and _line_sum(row[:-1]) == row[-1]:
                yield row[:-1]
    except csv.Error:  # a quote out of place swallowed the rest
        return


def _line_sum(fields: Sequence[str]) -> str:
    return f"{zlib.crc32(chr(31).join(fields).encode()):08x}"
