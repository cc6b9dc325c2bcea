"""What the fault tests do to files, and how they look at a whole tree."""

from __future__ import annotations

import hashlib
import re
import shlex
from pathlib import Path

from typer.testing import CliRunner

from faithdiff import cli
from faithdiff.errors import FaithDiffError


def flip(file: Path, place: float, bit: int = 0) -> None:
    """Flip one bit; `place` is a share of the file. A link is broken first, as a copy would."""
    data = bytearray(file.read_bytes())
    data[min(int(place * len(data)), len(data) - 1)] ^= 1 << bit
    file.write_bytes(data)


def cut(file: Path, place: float) -> None:
    """Keep a share of the file, its last byte never."""
    data = file.read_bytes()
    file.write_bytes(data[: min(int(place * len(data)), len(data) - 1)])


def tree(root: Path, without: tuple[str, ...] = ()) -> dict[str, str]:
    """Hash of every file below a folder, by its path; folders named in `without` are left out."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not set(path.relative_to(root).parts) & set(without)
    }


def litter(root: Path) -> list[str]:
    """Names that only a write in progress has."""
    return [path.name for path in root.rglob("*") if re.search(r"\.(partial|tmp|part)$", path.name)]


def named_command(message: str) -> list[str]:
    """The command that a message gives as the way out."""
    found = re.search(r"(?:make it again|make it) with: faithdiff (.+)", message)
    assert found, message
    return shlex.split(found[1])


def call(*arguments: str) -> str:
    """Run a verb of the command line in this process; the message of its error, if it has one."""
    result = CliRunner().invoke(cli.app, list(arguments))
    if isinstance(result.exception, FaithDiffError):
        return str(result.exception)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return ""
