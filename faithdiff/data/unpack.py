"""Unpacks an archive into a folder of its own: whole or not at all, and nothing outside of it.

Only plain files and folders are accepted. A path that leaves the folder, a link, a device file or
a content larger than stated refuses the whole archive. A marker in the folder records what was
unpacked, so that a second run does nothing.
"""

from __future__ import annotations

import errno
import gzip
import json
import lzma
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypedDict

from faithdiff.errors import RunError, UserError
from faithdiff.study.files import write_text_atomic
from faithdiff.study.progress import ProgressBar

MARKER = ".unpacked.json"  # in the folder: the archive's hash, and how much came out of it
_MAX_FILES = 1_000_000
_BLOCK = 1 << 20  # bytes
# What the standard library raises for a corrupted file, by format.
_CORRUPTED = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError),
    *(EOFError, ValueError, NotImplementedError, struct.error),
)


def unpack(archive: Path, folder: Path, sha256: str, limit_mb: float) -> None:
    """Unpack a zip or tar archive; does nothing if this very archive was unpacked there before.

    Args:
        archive: Its kind is told from its content.
        folder: Appears when it is complete; an older unpacking in its place is removed.
        sha256: Of the archive, for the marker.
        limit_mb: Refuse a content larger than this, in units of 10^6 bytes.

    Raises:
        UserError: The archive holds something that is refused; nothing of it is kept.
        RunError: It is corrupted, or the disk is full.
    """
    if marker(folder).get("sha256") == sha256:
        return
    partial = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        count, size = _extract(archive, partial, limit_mb)
        facts = {"archive": archive.name, "sha256": sha256, "files": count, "bytes": size}
        write_text_atomic(json.dumps(facts, indent=1) + "\n", partial / MARKER)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(partial, folder)
    except _CORRUPTED as error:
        raise _corrupted(archive, error) from None
    except OSError as error:
        if error.errno == errno.EINVAL:  # the directory of a zip sends the reader before its start
            raise _corrupted(archive, error) from None
        raise RunError(f"{folder}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _corrupted(archive: Path, error: BaseException) -> RunError:
    return RunError(f"{archive}: is corrupted ({error}); delete it and fetch it again")


class Unpacked(TypedDict, total=False):
    """What came out of an archive; empty where nothing did."""

    archive: str
    sha256: str
    files: int
    bytes: int


def marker(folder: Path) -> Unpacked:
    """What was unpacked into a folder; empty where nothing was, or a person filled it."""
    try:
        facts: Unpacked = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts


@dataclass(frozen=True)
class _Member:
    name: str
    refused: str  # what it is, if it is neither a plain file nor a folder
    is_folder: bool
    size: int  # as the archive states it
    content: Callable[[], IO[bytes]]  # opens it


def _extract(archive: Path, target: Path, limit_mb: float) -> tuple[int, int]:
    count, total = 0, 0
    with _opened(archive) as (members, bar):
        for member in members:
            where = _checked(archive, member)
            bar.update()
            if member.is_folder:
                (target / where).mkdir(parents=True, exist_ok=True)
                continue
            count, total = count + 1, total + member.size
            # Before a byte of it is written, by the stated size; _copy holds it to that.
            if total > limit_mb * 1e6 or count > _MAX_FILES:
                raise UserError(
                    f"{archive}: unpacks to more than {limit_mb:g} MB or {_MAX_FILES} files, the "
                    "limit stated in config/artifacts.yaml (`unpacked_mb`); nothing was kept"
                )
            (target / where).parent.mkdir(parents=True, exist_ok=True)
            _copy(archive, member, target / where)
    if count == 0:
        raise UserError(f"{archive}: holds no file")
    return count, total


def _checked(archive: Path, member: _Member) -> PurePosixPath:
    """The path of a member, if it may be unpacked at all."""
    path = PurePosixPath(member.name)
    odd = any(sign in member.name for sign in ("\\", "\0", ":"))
    if path.is_absolute() or ".." in path.parts or odd:
        raise UserError(
            f"{archive}: {member.name!r} would be written outside of its folder; refused as a "
            "whole, nothing was kept"
        )
    if member.refused:
        raise UserError(
            f"{archive}: {member.name!r} is {member.refused}, and only plain files are unpacked; "
            "refused as a whole, nothing was kept"
        )
    return path


def _copy(archive: Path, member: _Member, target: Path) -> None:
    left = member.size
    try:
        with member.content() as source, target.open("xb") as out:
            while block := source.read(_BLOCK):
                left -= len(block)
                if left < 0:
                    raise UserError(f"{archive}: {member.name!r} is larger than it states; refused")
                out.write(block)
    except FileExistsError:
        raise UserError(f"{archive}: {member.name!r} comes twice; refused") from None
    if left:
        raise RunError(f"{archive}: {member.name!r} ends early; delete it and fetch it again")


@contextmanager
def _opened(archive: Path) -> Iterator[tuple[Iterator[_Member], ProgressBar[Any]]]:
    """The members of an archive, and a bar that counts them."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            listed = file.infolist()
            with ProgressBar(total=len(listed), desc=f"unpack {archive.name}", unit="file") as bar:
                yield (_of_zip(file, info) for info in listed), bar
        return
    try:
        tar = tarfile.open(archive, "r:*")  # noqa: SIM115 - closed below
    except tarfile.ReadError:
        raise RunError(
            f"{archive}: is neither a zip nor a tar archive, or is cut off; delete it and fetch "
            "it again"
        ) from None
    with tar, ProgressBar(desc=f"unpack {archive.name}", unit="file") as bar:
        yield _members_of_tar(tar), bar


def _of_zip(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    # With a wrong length in its directory, an entry would swallow those that follow.
    if b"PK\1\2" in info.comment + info.extra + info.orig_filename.encode("latin-1", "ignore"):
        raise zipfile.BadZipFile("its directory is broken")
    kind = stat.S_IFMT(info.external_attr >> 16)
    refused = ""
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        refused = "a link" if kind == stat.S_IFLNK else "a special file"
    elif info.flag_bits & 1:
        refused = "encrypted"
    return _Member(info.filename, refused, info.is_dir(), info.file_size, lambda: file.open(info))


def _members_of_tar(tar: tarfile.TarFile) -> Iterator[_Member]:
    """The members, and then a look at the end: tarfile takes a broken header for it."""
    for info in tar:
        yield _of_tar(tar, info)
    stream: Any = tar.fileobj
    if isinstance(stream, gzip.GzipFile):
        while stream.read(_BLOCK):  # to the checksum at its end
            pass
        return
    stream.seek(tar.offset)
    end = stream.read(tarfile.BLOCKSIZE)
    if end != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it breaks off, or goes on with something else")


def _of_tar(tar: tarfile.TarFile, info: tarfile.TarInfo) -> _Member:
    refused = ""
    if not (info.isreg() or info.isdir()):
        refused = "a link" if info.issym() or info.islnk() else "a special file"
    return _Member(info.name, refused, info.isdir(), info.size, lambda: _plain(tar, info))


def _plain(tar: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    content = tar.extractfile(info)
    assert content is not None  # only plain files come here
    return content
