"""Brings listed photographs out of Debian packages, without root and without an installation.

``apt-get download`` gives a package, ``dpkg-deb`` its content; of that only the listed files are
kept, each once its hash fits. What is here is not fetched again, so a killed call is resumed by
the same call.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import IO

from faithdiff.data.photographs import PHOTOGRAPHS, Photograph, lacking
from faithdiff.errors import RunError, UserError
from faithdiff.study.files import write_bytes_atomic
from faithdiff.study.progress import ProgressBar


def fetch_photographs(
    photos: Iterable[Photograph],
    folder: Path = PHOTOGRAPHS,
    say: Callable[[str], None] = ProgressBar.write,
) -> None:
    """Bring what is lacking of the photographs into the folder.

    Args:
        photos: The list.
        folder: Receives them. A package that apt-get cannot give is taken from here, too, if a
            person put its ``.deb`` there.
        say: Receives a line for each package.

    Raises:
        UserError: apt-get or dpkg-deb is missing, apt-get does not know this version, or a
            package does not hold what is listed.
        RunError: apt-get did not reach its mirror, or a file cannot be written.
    """
    missing = sorted(lacking(photos, folder), key=lambda photo: (photo.package, photo.version))
    folder.mkdir(parents=True, exist_ok=True)
    for (package, version), group in groupby(missing, key=lambda p: (p.package, p.version)):
        wanted = list(group)
        say(f"{package} {version}: {len(wanted)} photographs into {folder}")
        with tempfile.TemporaryDirectory(prefix=".apt-", dir=folder) as place:
            deb = _placed(package, folder) or _download(wanted[0], Path(place), folder)
            _take(deb, wanted, folder)


def _placed(package: str, folder: Path) -> Path | None:
    return next(iter(sorted(folder.glob(f"{package}_*.deb"))), None)


def _download(photo: Photograph, place: Path, folder: Path) -> Path:
    """Let apt-get download the package of a photograph."""
    package, version = photo.package, photo.version
    # Paths as apt-get sees them: it starts in `place`, which it writes to.
    ran = _run(["apt-get", "download", f"{package}={version}"], photo, folder, cwd=place)
    if ran.returncode:
        said = (ran.stderr.strip().splitlines() or [f"exit status {ran.returncode}"])[-1]
        unknown = "was not found" in ran.stderr or "Unable to locate" in ran.stderr
        kind = UserError if unknown else RunError
        why = (
            "this system's Debian has another version, or its lists are old (`apt-get update` as "
            "root renews them)"
            if unknown
            else "run the same command again once its mirror is reachable"
        )
        raise kind(
            f"{package} {version} (for {photo.path}): apt-get does not bring it: {said}; {why}; "
            f"{_by_hand(photo, folder)}"
        )
    deb = _placed(package, place)
    if deb is None:
        raise RunError(f"{package} {version}: apt-get wrote no .deb; {_by_hand(photo, folder)}")
    return deb


def _run(
    command: list[str], photo: Photograph, folder: Path, cwd: Path
) -> subprocess.CompletedProcess[str]:
    language = {**os.environ, "LC_ALL": "C"}  # its messages are told apart
    try:
        return subprocess.run(command, cwd=cwd, env=language, capture_output=True, text=True)
    except FileNotFoundError:
        raise UserError(
            f"{photo.package} {photo.version} (for {photo.path}): there is no {command[0]} here, "
            f"as on systems other than Debian; {_by_hand(photo, folder)}"
        ) from None


def _by_hand(photo: Photograph, folder: Path) -> str:
    return (
        f"or get {photo.package}_{photo.version}'s .deb from Debian's snapshot archive, where old "
        f"versions stay, put it into {folder}, and run the same command again"
    )


def _take(deb: Path, wanted: list[Photograph], folder: Path) -> None:
    """Write the listed files of a package, each once its hash is right."""
    left = {photo.name: photo for photo in wanted}
    for path, content in _members(deb, {photo.path for photo in wanted}, wanted[0], folder):
        for photo in [each for each in left.values() if each.path == path]:
            data = content[slice(*photo.range)] if photo.range else content
            found = hashlib.sha256(data).hexdigest()
            if found != photo.sha256:
                raise UserError(
                    f"{deb.name}: {path} ({photo.name}): sha256 is {found[:12]}..., listed "
                    f"{photo.sha256[:12]}...: this is not {photo.package} {photo.version}; delete "
                    f"what you put there, {_by_hand(photo, folder)}"
                )
            write_bytes_atomic(data, photo.file(folder))
            del left[photo.name]
    for photo in left.values():
        raise UserError(
            f"{deb.name}: has no {photo.path} ({photo.name}): this is not {photo.package} "
            f"{photo.version}; delete what you put there, {_by_hand(photo, folder)}"
        )


def _members(
    deb: Path, paths: set[str], photo: Photograph, folder: Path
) -> Iterator[tuple[str, bytes]]:
    """The wanted files of a package, as a stream: nothing else of it is written to the disk."""
    try:
        process = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE)
    except FileNotFoundError:
        raise UserError(
            f"{photo.package} {photo.version} (for {photo.path}): there is no dpkg-deb here to "
            "unpack it: it comes with Debian, and as `dpkg` in other package managers"
        ) from None
    with process:
        stream: IO[bytes] | None = process.stdout
        assert stream is not None
        try:
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                for member in archive:
                    path = member.name.removeprefix("./")
                    if path in paths and (file := archive.extractfile(member)):
                        yield path, file.read()
        except tarfile.TarError as error:
            raise UserError(
                f"{deb}: is no whole Debian package ({error}); delete it, {_by_hand(photo, folder)}"
            ) from None
