"""Hashes of what jobs read from outside the study: pictures, captions, scripts, weights.

A plan asks for them each time, so they are remembered: a file whose size, times and inode are as
they were is not read again (the idea is that of git's index). A digest is of contents alone, so
that a copy with other times plans the same jobs.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from faithdiff.errors import RunError
from faithdiff.study.files import write_text_atomic
from faithdiff.study.provenance import file_digest

KEPT = Path(".snakemake", "hashes.json")  # absolute path -> what `_look` gives, and the hash
MISSING = "missing"
# A file this young may change once more within one tick of the clock, and look the same.
SETTLED = 2_000_000_000  # nanoseconds
TELL = 4  # GB that take long enough to be told

Look = list[int]
Kept = dict[str, list[int | str]]  # a look, then the hash, by absolute path


def contents(files: Iterable[Path]) -> dict[Path, str]:
    """sha256 of each file, or why there is none: a plan does not stop at what a job will report.

    What is hashed is remembered where Snakemake keeps its own records, if that can be written.
    """
    wanted = list(files)
    kept = _kept(KEPT.absolute())
    looks = {file: _look(file) for file in wanted}
    new = [file for file, look in looks.items() if look and not _known(kept, file, look)]
    gigabytes = sum(looks[file][0] for file in new) / 1e9
    if gigabytes > TELL:
        print(f"reading {gigabytes:.0f} GB that are new or changed, once", file=sys.stderr)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # hashing lets other threads run
        hashed = dict(zip(new, pool.map(_hash, new), strict=True))
    settled = [f for f in new if looks[f] == _look(f) and time.time_ns() - looks[f][2] > SETTLED]
    kept |= {str(file.absolute()): [*looks[file], hashed[file]] for file in settled}
    if settled and KEPT.parent.is_dir():
        with suppress(RunError):  # a study that cannot be written is only slower to plan
            write_text_atomic(json.dumps(kept), KEPT)
    return {
        file: hashed.get(file) or (str(kept[str(file.absolute())][-1]) if look else MISSING)
        for file, look in looks.items()
    }


def remember(file: Path, sha256: str) -> None:
    """Spare the next plan the reading of a file that was just hashed, as after a download.

    Only beside a Snakefile: elsewhere nothing plans.
    """
    look, kept = _look(file), _kept(KEPT.absolute())
    young = not look or time.time_ns() - look[2] <= SETTLED
    if (
        young
        or not Path("Snakefile").is_file()
        or kept.get(str(file.absolute())) == [*look, sha256]
    ):
        return
    kept[str(file.absolute())] = [*look, sha256]
    with suppress(RunError, OSError):
        KEPT.parent.mkdir(exist_ok=True)
        write_text_atomic(json.dumps(kept), KEPT)


def files_in(path: Path) -> list[Path]:
    """A file itself, or all files below a folder, also through links to other folders.

    Caches of Python and hidden files are left out.
    """
    if not path.is_dir():
        return [path]
    found, seen = list[Path](), {path.resolve(), *path.resolve().parents}
    for place, folders, files in os.walk(path, followlinks=True):
        # In order: of two links to one folder the first is followed, on every disk the same.
        inside = [Path(place, name) for name in sorted(folders)]
        inside = [f for f in inside if not f.name.startswith(".") and f.name != "__pycache__"]
        # Each folder once, and none around this one: a link may lead back.
        folders[:] = [f.name for f in inside if f.resolve() not in seen]
        seen |= {folder.resolve() for folder in inside}
        found += [Path(place, name) for name in files if not name.startswith(".")]
    return sorted(file for file in found if file.is_file())


@functools.cache
def _kept(file: Path) -> Kept:
    """What earlier plans hashed; nothing where the file is corrupted, as it is only a cache."""
    try:
        found = json.loads(file.read_bytes())
        return {name: [*map(int, look), str(sha)] for name, (*look, sha) in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _look(file: Path) -> Look:
    """Size, times and inode; empty where there is no such file.

    The time of change, too: whoever sets back the time of modification cannot set it.
    """
    try:
        stat = file.stat()
    except OSError:
        return []
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _known(kept: Kept, file: Path, look: Look) -> bool:
    return kept.get(str(file.absolute()), [])[:-1] == look


def _hash(file: Path) -> str:
    try:
        return file_digest(file)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
