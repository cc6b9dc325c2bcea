"""Brings one file from outside: resumed, verified, and never half there under its final name.

The bytes grow in ``<file>.part``; ``<file>.part.from`` says from which address and which version
of it they come, so that bytes of two sources are never joined. Large files come by several
connections (:mod:`faithdiff.data.ranges`).
"""

from __future__ import annotations

import errno
import json
import os
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

from faithdiff.data import ranges
from faithdiff.data.artifacts import Artifact, check, expected, record
from faithdiff.data.hub import Hub
from faithdiff.data.images import sha256_file
from faithdiff.errors import RunError
from faithdiff.study.files import write_text_atomic
from faithdiff.study.progress import ProgressBar

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


class Progress:
    """One line for all that is fetched: bytes, rate, time left, and the file that is coming."""

    def __init__(self, total: float | None = None) -> None:
        """Begin with the bytes that are expected, if that is known."""
        self._bar = ProgressBar(total=total, unit="B", unit_scale=True)
        self._lock = threading.Lock()

    def file(self, name: str) -> None:
        """Name the file that is coming."""
        self._bar.set_description(name)

    def add(self, count: int) -> None:
        """Count bytes that came, or were here already."""
        with self._lock:
            self._bar.update(count)

    def close(self) -> None:
        """End the line."""
        self._bar.close()


def fetch(
    artifact: Artifact,
    root: Path,
    opener: Opener = _open,
    hub: Hub | None = None,
    progress: Progress | None = None,
) -> Path:
    """Download one artifact, resuming ``<file>.part`` where there is one, and verify it.

    Args:
        artifact: What to fetch; its mirrors are tried where its address fails.
        root: The folder that its path is relative to.
        opener: Opens a request as :func:`urllib.request.urlopen` does.
        hub: How the Hugging Face hub is reached; None: as it is for everyone.
        progress: The line that shows it; None: one of its own.

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
        way = _Way(artifact, part, opener, hub or Hub(), progress or Progress())
        way.progress.file(artifact.name)
        try:
            sha256 = _from_any_address(artifact, root, way)
        finally:
            if progress is None:
                way.progress.close()
        os.replace(part, file)
        _source_of(part).unlink(missing_ok=True)
    record(artifact, root, sha256)
    return file


def part_of(artifact: Artifact, root: Path) -> Path:
    """Where the bytes grow."""
    file = artifact.file(root)
    return file.with_name(file.name + ".part")


def here(part: Path) -> int:
    """Bytes of an unfinished download that are on the disk."""
    return _size(part) + ranges.waiting(part)


@dataclass(frozen=True)
class _Way:
    """One file on its way: to where, how it is asked for, who watches."""

    artifact: Artifact
    part: Path
    opener: Opener
    hub: Hub
    progress: Progress

    def request(self, address: str, **headers: str) -> urllib.request.Request:
        request = urllib.request.Request(address, headers={"User-Agent": "faithdiff", **headers})
        # A redirect leads to another host, which the token is not for.
        for name, value in self.hub.authorisation(address).items():
            request.add_unredirected_header(name, value)
        return request


def _from_any_address(artifact: Artifact, root: Path, way: _Way) -> str:
    failed = []
    for listed in artifact.addresses:
        address = way.hub.address(listed)
        try:
            _download(way, address)
            return _verify(artifact, root, address, way.part)
        except _AddressError as error:
            failed.append(f"{address}: {error}")
    fails = "and its mirrors fail" if artifact.mirrors else "fails, and no mirror is known"
    raise RunError(
        f"{artifact.name}: its address {fails}:\n  "
        + "\n  ".join(failed)
        + f"\nWithout a network, {_AGAIN} when there is one. Else find the file, put it at "
        f"{artifact.file(root)}, or correct its address in config/artifacts.yaml"
        + (f". By hand: {artifact.how}" if artifact.how else "")
    )


def _download(way: _Way, address: str) -> None:
    part = way.part
    had, etag = _resumable(part, address)
    headers = {"Range": f"bytes={had}-"} if had else {}
    if had and etag:
        headers["If-Range"] = etag  # a changed file is sent whole
    try:
        with _answer(way.request(address, **headers), way.opener) as response:
            _receive(way, address, response, had)
    except HTTPError as error:
        error.close()
        if error.code != 416:  # 416: nothing is left to send; the hash decides
            raise _AddressError(_said(error) + way.hub.hint(address, error.code)) from None
    except (URLError, OSError, HTTPException, ValueError) as error:  # ValueError: a bad redirect
        reason = getattr(error, "reason", error)
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise RunError(f"{part}: the disk is full; free some space, then {_AGAIN}") from None
        if _size(part) > had:
            raise RunError(f"{way.artifact.name}: {address}: {reason}; {_AGAIN}") from None
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
            ProgressBar.write(f"{request.full_url}: {_said(error)}; asking again in {wait:g} s")
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


def _receive(way: _Way, address: str, response: Any, had: int) -> None:
    artifact, part = way.artifact, way.part
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
    etag = response.headers.get("ETag", "")
    etag = "" if etag.startswith("W/") else etag
    if not resumed:
        part.unlink(missing_ok=True)  # before its source is renamed
        ranges.discard(part)
        write_text_atomic(json.dumps({"address": address, "etag": etag}) + "\n", _source_of(part))
    way.progress.add(start + ranges.waiting(part))
    parts = resumed or response.headers.get("Accept-Ranges") == "bytes"
    if parts and etag and total is not None and total - start > 2 * ranges.SEGMENT:

        def ask(begin: int, end: int) -> Any:
            return _range(way, address, etag, begin, end)

        def copy(answer: Any, file: Path, count: int, stop: threading.Event) -> None:
            _copy(way, address, answer, file, count, stop)

        ranges.Ranges(part, total, ask, copy).receive(response)
    else:
        _copy(way, address, response, part)
    got = _size(part)
    if total is not None and got < total:
        raise RunError(
            f"{artifact.name}: the transfer ended after {got} of {total} bytes; {_AGAIN}"
        )


def _range(way: _Way, address: str, etag: str, begin: int, end: int) -> Any:
    """Open a range of one version of a file; it says so if it is not that."""
    wanted = f"bytes={begin}-{end - 1}"
    try:
        answer = _answer(way.request(address, Range=wanted, **{"If-Range": etag}), way.opener)
    except HTTPError as error:
        error.close()
        raise RunError(f"{way.artifact.name}: {address}: {_said(error)}; {_AGAIN}") from None
    sent = answer.headers.get("Content-Range") or ""
    if answer.status != 206 or not sent.startswith(f"bytes {begin}-{end - 1}/"):
        answer.close()
        raise RunError(
            f"{way.artifact.name}: {address}: sends {sent or 'the whole file'!r} where {wanted} "
            f"was asked for; did it change? {_AGAIN}"
        )
    return answer


def _copy(
    way: _Way,
    address: str,
    response: Any,
    file: Path,
    count: int | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Append what comes to a file: all of it, or so many bytes."""
    with file.open("ab") as out:
        pace = _Pace()
        # read1: what has come, so that a kill costs nothing and a drip is seen.
        while block := response.read1(_BLOCK if count is None else min(_BLOCK, count)):
            out.write(block)
            out.flush()
            way.progress.add(len(block))
            count = None if count is None else count - len(block)
            if stop is not None and stop.is_set():
                return
            if pace.too_slow(len(block)):
                raise RunError(
                    f"{way.artifact.name}: {address}: less than {_SLOWEST:g} bytes/s for "
                    f"{_WINDOW:g} s; {_AGAIN}"
                )
        if count:
            raise RunError(f"{way.artifact.name}: {address}: the transfer ended early; {_AGAIN}")


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
