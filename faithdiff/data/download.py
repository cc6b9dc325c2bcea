"""Brings one file from outside: resumed, verified, and never half there under its final name.

The bytes grow in ``<file>.part``; ``<file>.part.from`` says from which address and which version
of it they come, so that bytes of two sources are never joined.
"""

from __future__ import annotations

import errno
import json
import os
import time
import urllib.request
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any, Literal
from urllib.error import HTTPError, URLError

from tqdm import tqdm

from faithdiff.data.artifacts import Artifact, check, expected, record
from faithdiff.data.images import sha256_file
from faithdiff.errors import RunError
from faithdiff.study.files import write_text_atomic

Opener = Callable[[urllib.request.Request], Any]

_BLOCK = 1 << 20  # bytes
_BUSY = (429, 500, 502, 503, 504)  # answers of a server that may soon give another
_TRIES = 5
_LONGEST_WAIT = 120.0  # seconds; a server that asks for more is asked again by a later call
_WINDOW, _SLOWEST = 60.0, 100.0  # seconds, bytes per second: less for so long is a dead transfer
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
        with _answer(urllib.request.Request(address, headers=headers), opener) as response:
            _receive(artifact, address, response, part, had)
    except HTTPError as error:
        error.close()
        if error.code != 416:  # 416: nothing is left to send; the hash decides
            raise _AddressError(_said(error)) from None
    except (URLError, OSError, HTTPException, ValueError) as error:  # ValueError: a bad redirect
        reason = getattr(error, "reason", error)
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise RunError(f"{part}: the disk is full; free some space, then {_AGAIN}") from None
        if _size(part) > had:
            raise RunError(f"{artifact.name}: {address}: {reason}; {_AGAIN}") from None
        raise _AddressError(str(reason)) from None


def _answer(request: urllib.request.Request, opener: Opener) -> Any:
    """Open a request; a busy server is asked again after a while, or when it says."""
    for attempt in range(1, _TRIES + 1):
        try:
            return opener(request)
        except HTTPError as error:
            wait = _wait(error, 2.0 ** (attempt - 1))
            if error.code not in _BUSY or attempt == _TRIES or wait > _LONGEST_WAIT:
                raise
            error.close()
            tqdm.write(f"{request.full_url}: {_said(error)}; asking again in {wait:g} s")
            time.sleep(wait)
    raise AssertionError  # the last attempt returns or raises


def _wait(error: HTTPError, usual: float) -> float:
    """Seconds until the next attempt: as ``Retry-After`` says, in seconds or as a date."""
    text = error.headers.get("Retry-After") or ""
    if text.isdigit():
        return float(text)
    try:
        return max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except ValueError:
        return usual


def _said(error: HTTPError) -> str:
    text = f"answers {error}"
    if later := error.headers.get("Retry-After"):
        text += f" (Retry-After: {later})"
    return " ".join(text.split())


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
    sent = response.headers.get("Content-Range")
    if resumed and sent and not sent.startswith(f"bytes {had}-"):
        part.unlink(missing_ok=True)
        raise _AddressError(f"sends {sent!r} where bytes {had}- were asked for; {_AGAIN}")
    start = had if resumed else 0
    length = response.headers.get("Content-Length") or ""
    total = start + int(length) if length.isdigit() else None
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
        pace = _Pace()
        # read1: what has come, so that a kill costs nothing and a drip is seen.
        while block := response.read1(_BLOCK):
            out.write(block)
            out.flush()
            bar.update(len(block))
            if pace.too_slow(len(block)):
                raise RunError(
                    f"{artifact.name}: {address}: less than {_SLOWEST:g} bytes/s for {_WINDOW:g} "
                    f"s; {_AGAIN}"
                )
    got = _size(part)
    if total is not None and got < total:
        raise RunError(
            f"{artifact.name}: the transfer ended after {got} of {total} bytes; {_AGAIN}"
        )


class _Pace:
    """Notices a transfer that only drips."""

    def __init__(self) -> None:
        self._begun, self._got = time.monotonic(), 0

    def too_slow(self, got: int) -> bool:
        """Count bytes; True at the end of a window that brought too few."""
        self._got += got
        seconds = time.monotonic() - self._begun
        if seconds < _WINDOW:
            return False
        slow = self._got < _SLOWEST * seconds
        self._begun, self._got = time.monotonic(), 0
        return slow


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
