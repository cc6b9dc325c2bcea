"""Small files: written in one step, read from other programs; and why one is refused."""

from __future__ import annotations

import codecs
import errno
import os
import re
import shlex
from contextlib import suppress
from pathlib import Path

from faithdiff.errors import RunError, UserError

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# The end of a line for whoever writes CSV: a text that holds one of these characters gets quotes.
# With the plain "\n" Python leaves a carriage return bare, and readers take it for an end of line.
CSV_END = "\r\0\n"


def read_text(file: Path) -> str:
    """Read a text file that a person made, with or without a byte order mark.

    Raises:
        OSError: It cannot be read.
        UserError: It is neither UTF-8 nor marked UTF-16, or as :func:`left_by_git` says.
    """
    data = file.read_bytes()
    if said := left_by_git(data, printable(file)):
        raise UserError(f"{printable(file)}: {said}")
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
        f'(in Excel "CSV UTF-8"), or: iconv -f {_guess(data)} -t UTF-8 {shlex.quote(file.name)} > '
        f"{shlex.quote(f'new-{file.name}')}"
    )


def _guess(data: bytes) -> str:
    """The likeliest encoding of what is not UTF-8: wide characters of ASCII have bytes of 0."""
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "UTF-32"
    even, odd = data[::2].count(0), data[1::2].count(0)
    if 4 * max(even, odd) > len(data):
        return "UTF-16LE" if odd > even else "UTF-16BE"
    return "WINDOWS-1252"


def unix_lines(table: str) -> str:
    """Text of a CSV that was written with :data:`CSV_END`, with lines that end as everywhere."""
    return table.replace(CSV_END, "\n")


def printable(text: str | Path) -> str:
    """Write a name so that any terminal shows it on one line; a name may hold any bytes."""
    shown = str(text).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return re.sub(r"[\x00-\x1f\x7f]", lambda found: repr(found[0])[1:-1], shown)


_ELSEWHERE = "copy the study to a folder that can be written, or name one where an option takes it"
# What a person does about a file system that refuses: no fault of the suite or of its input.
_REMEDIES = {
    **dict.fromkeys(
        (errno.ENOSPC, errno.EDQUOT), "free some space, then run the same command again"
    ),
    errno.EROFS: f"it is mounted read-only: {_ELSEWHERE}",
    **dict.fromkeys((errno.EACCES, errno.EPERM), f"you lack the permission: {_ELSEWHERE}"),
    **dict.fromkeys(
        (errno.ENOTDIR, errno.EEXIST), "a file has the name of a folder: rename or remove it"
    ),
    errno.ENAMETOOLONG: "give it a shorter name",
}
# A disk that fails, or a network mount that is gone. Not every system has all of these.
_GONE = {
    getattr(errno, name)
    for name in (
        *("EIO", "ESTALE", "ENOTCONN", "ETIMEDOUT", "EHOSTDOWN", "EHOSTUNREACH", "ENXIO"),
        *("ENODEV", "EREMOTEIO"),
    )
    if hasattr(errno, name)
}
_REMEDIES |= dict.fromkeys(
    _GONE,
    "its disk or network mount does not answer: see that it is there, then run the same command "
    "again",
)
# What may be the fault of a name that a person gave is told by whoever reads it.
_SURROUNDINGS = _REMEDIES.keys() - {errno.ENOTDIR, errno.EEXIST}
_POINTER = b"version https://git-lfs"  # how such a file begins
# Not the "=======" between the two sides: a text may underline a title so.
_MERGE = re.compile(rb"^(?:<{7}|>{7}) [^\r\n]+", re.MULTILINE)
_NO_TEMPORARY = "No usable temporary directory"  # as `tempfile` says it


def unwritable(path: Path, error: OSError) -> RunError:
    """The error for a file that cannot be written: what is in the way, and the way out."""
    said = f"{path}: cannot be written: {error.strerror or error}"
    remedy = _REMEDIES.get(error.errno or 0)
    return RunError(f"{said}; {remedy}" if remedy else said)


def not_the_root() -> str:
    """Say that the current folder is not the root of the suite; empty if it is."""
    if Path("config").is_dir():
        return ""
    return (
        f"{Path.cwd()} is not the root of the suite, as it has no folder config/: go there first "
        "(cd; of snakemake: --directory)"
    )


def unreadable(path: Path, error: OSError, advice: str = "") -> str:
    """Say that a file of the study cannot be read, and what to do.

    Args:
        advice: What makes the file. In a folder that is no root of a study, that is said first.
    """
    if not path.is_absolute() and (first := not_the_root()):
        advice = f"{first}; there, {advice}" if advice else first
    said = f"{path}: cannot be read ({error.strerror})"
    return f"{said}; {advice}" if advice else said


def gone(error: OSError, file: Path) -> RunError | None:
    """The error for a file whose disk or mount does not answer; None for other errors.

    Nothing is wrong with such a file: it must not be skipped, or made again.
    """
    if error.errno is None or error.errno not in _GONE:
        return None
    return RunError(f"{file}: {error.strerror}; {_REMEDIES[error.errno]}")


def of_surroundings(error: OSError) -> RunError | None:
    """An error that nobody expected, in such words, if the machine is what has to be changed.

    Of reading or of writing: the error does not tell.
    """
    if str(error.strerror).startswith(_NO_TEMPORARY):
        return RunError(
            "no folder for temporary files can be written: name one with the variable TMPDIR"
        )
    if error.errno is None or error.errno not in _SURROUNDINGS:
        return None
    return RunError(f"{error.filename or Path.cwd()}: {error.strerror}; {_REMEDIES[error.errno]}")


def write_text_atomic(text: str, path: Path) -> None:
    """Write UTF-8 text under its final name in one step; raises as :func:`write_bytes_atomic`."""
    write_bytes_atomic(text.encode("utf-8"), path)


def write_bytes_atomic(content: bytes, path: Path) -> None:
    """Write a file under its final name in one step.

    Raises:
        RunError: The disk is full or the folder cannot be written; no partial file stays behind.
    """
    # Cut, or a name that is as long as the file system allows could not be written.
    partial = path.with_name(f".{path.name[:40]}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):  # a read-only file system refuses even what is not there
            partial.unlink(missing_ok=True)
        raise unwritable(path, error) from None


def lfs_pointer(file: Path) -> str:
    """What to do about a file that is a pointer of Git LFS; empty if it is none, or not there."""
    try:
        with file.open("rb") as stream:
            return _pointer(stream.read(len(_POINTER)))
    except OSError:
        return ""


def left_by_git(content: bytes, file: str) -> str:
    """What to do about a file that git left as a pointer, or in the middle of a merge; or empty.

    Every reader of a text file asks this first: a table that holds the rows of two branches may
    well be read as a table.
    """
    if said := _pointer(content):
        return said
    if not (found := _MERGE.search(content)):
        return ""
    line = content.count(10, 0, found.start()) + 1
    mark = found[0].decode("utf-8", "replace")[:40]
    return (
        f"holds both sides of a merge that nobody finished (line {line}: {mark}); keep one side "
        f"with: git checkout --ours {shlex.quote(file)} (or --theirs), or edit it; results are "
        "then made again by snakemake"
    )


def check_table(content: bytes, file: str) -> None:
    """Refuse a table of results that is no longer as the suite wrote it.

    Raises:
        UserError: Git left it so, or a spreadsheet saved it in its own way.
    """
    if said := left_by_git(content, file):
        raise UserError(f"{file}: {said}")
    head = content.partition(b"\n")[0]
    # As a spreadsheet saves a table where numbers have decimal commas. Not read even so: the digits
    # that it cut off are lost, and with them the equality of results.
    if head.startswith(_UTF_16) or (b"," not in head and (b";" in head or b"\t" in head)):
        raise UserError(
            f"{file}: was saved by another program, such as a spreadsheet, with other separators "
            "or in another encoding; it may have lost digits, too: write it again with: faithdiff "
            "collect"
        )


def _pointer(content: bytes) -> str:
    said = "is a pointer of Git LFS and not the file itself; in the clone that it came from, run: "
    return f"{said}git lfs install && git lfs pull" if content.startswith(_POINTER) else ""
