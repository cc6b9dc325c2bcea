"""Brings one file from outside: resumed, verified, and never half there under its final name.

The bytes grow in ``<file>.part``; ``<file>.part.from`` says from which address and which version
of it they come, so that bytes of two sources are never joined.
"""

from __future__ import annotations

import errno
import json
import os
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any, Literal
from urllib.error import HTTPError, URLError

from tqdm import tqdm

from faithdiff.data.artifacts import Artifact, check, expected, record
from faithdiff.data.images import sha256_file
from faithdiff.errors import RunError
from faithdiff.files import write_text_atomic

Opener = Callable[[urllib.request.Request], Any]

_BLOCK = 1 << 20  # bytes
_AGAIN = "run the same command again to resume"
_PAGES = (".html", ".json", ".txt", ".csv", ".md")  # what may come as text/html


def _open(request: urllib.request.Request) -> Any:
    return urllib.request.urlopen(request, timeout=60)  # seconds without a byte


class _AddressError(Exception):
    """An address that does not give the file; another may."""


def fetch(artifact: Artifact, root: Path, opener: Opener = _open) -> Path:
    """Download one artifact, resuming ``<file>.part`` where there is one, and verify it.

    Args:
        artifact: What to fetch; its mirrors are tried where its address fails.
        root: The folder that its path is relative to.
        opener: Opens a request as :func:`urllib.request.urlopen` does.

    Returns:
        The file, whole and verified; its hash is recorded in ``recorded.json``.

    Raises:
        RunError: No address gives the file, the transfer ended early, or the disk is full; what
            had arrived is kept for the next try.
    """
    file = artifact.file(root)
    found, sha256 = check(artifact, root)
    if found != "ok":
        part = part_of(artifact, root)
        part.parent.mkdir(parents=True, exist_ok=True)
        sha256 = _from_any_address(artifact, root, part, opener)
        os.replace(part, file)
        _source_of(part).unlink(missing_ok=True)
    record(artifact, root, sha256)
    return file


def part_of(artifact: Artifact, root: Path) -> Path:
    """Where the bytes grow."""
    file = artifact.file(root)
    return file.with_name(file.name + ".part")


def _from_any_address(artifact: Artifact, root: Path, part: Path, opener: Opener) -> str:
    failed = []
    for address in artifact.addresses:
        try:
            _download(artifact, address, part, opener)
            return _verify(artifact, root, address, part)
        except _AddressError as error:
            failed.append(f"{address}: {error}")
    fails = "and its mirrors fail" if artifact.mirrors else "fails, and no mirror is known"
    raise RunError(
        f"{artifact.name}: its address {fails}:\n  "
        + "\n  ".join(failed)
        + f"\nWithout a network, {_AGAIN} when there is one. Else find the file, put it at "
        f"{artifact.file(root)}, or correct its address in config/artifacts.yaml"
    )


def _download(artifact: Artifact, address: str, part: Path, opener: Opener) -> None:
    had, etag = _resumable(part, address)
    headers = {"User-Agent": "faithdiff"}
    if had:
        headers["Range"] = f"bytes={had}-"
        if etag:
            headers["If-Range"] = etag  # a changed file is sent whole
    try:
        with opener(urllib.request.Request(address, headers=headers)) as response:
            _receive(artifact, address, response, part, had)
    except HTTPError as error:
        if error.code != 416:  # 416: nothing is left to send; the hash decides
            raise _AddressError(f"answers {error}") from None
    except (URLError, OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise RunError(f"{part}: the disk is full; free some space, then {_AGAIN}") from None
        if _size(part) > had:
            raise RunError(f"{artifact.name}: {address}: {reason}; {_AGAIN}") from None
        raise _AddressError(str(reason)) from None


def _resumable(part: Path, address: str) -> tuple[int, str]:
    """Bytes of this address that are here, and the version that they are of."""
    try:
        source = json.loads(_source_of(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0, ""
    return (_size(part), source.get("etag", "")) if source.get("address") == address else (0, "")


def _receive(artifact: Artifact, address: str, response: Any, part: Path, had: int) -> None:
    kind = response.headers.get("Content-Type", "")
    if kind.startswith("text/html") and artifact.path.suffix not in _PAGES:
        raise _AddressError("answers with a web page in place of the file")
    resumed = response.status == 206  # a server without ranges sends it all again
    start = had if resumed else 0
    length = response.headers.get("Content-Length")
    total = start + int(length) if length else None
    mode: Literal["ab", "wb"] = "ab" if resumed else "wb"
    if not resumed:
        part.unlink(missing_ok=True)  # before its source is renamed
        etag = response.headers.get("ETag", "")
        source = {"address": address, "etag": "" if etag.startswith("W/") else etag}
        write_text_atomic(json.dumps(source) + "\n", _source_of(part))
    with (
        part.open(mode) as out,
        tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=artifact.name) as bar,
    ):
        while block := response.read(_BLOCK):
            out.write(block)
            out.flush()  # a kill costs no more than the block in work
            bar.update(len(block))
    got = _size(part)
    if total is not None and got < total:
        raise RunError(
            f"{artifact.name}: the transfer ended after {got} of {total} bytes; {_AGAIN}"
        )


def _verify(artifact: Artifact, root: Path, address: str, part: Path) -> str:
    found, wanted = sha256_file(part), expected(artifact, root)
    if not found.startswith(wanted):
        part.unlink()  # resuming would only append to the wrong bytes
        _source_of(part).unlink(missing_ok=True)
        raise _AddressError(f"gave a file with sha256 {found}, expected {wanted}; deleted")
    return found


def _source_of(part: Path) -> Path:
    return part.with_name(part.name + ".from")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0
