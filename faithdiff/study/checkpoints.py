"""A checkpoint is what its ``run.json`` says: the hash of each file when training ended."""

from __future__ import annotations

from pathlib import Path

from faithdiff.study.checksums import check_file
from faithdiff.study.provenance import file_digest
from faithdiff.study.records import RunRecord

RUN = "run.json"


def file_hashes(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder, by its path from there."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != RUN)
    return {file.relative_to(folder).as_posix(): file_digest(file) for file in files}


def check_checkpoint(folder: Path, only: str = "") -> None:
    """Hold the files of a checkpoint against its ``run.json``, if that knows their hashes.

    Args:
        folder: That ``faithdiff train``, ``pretrain`` or ``train-prior`` wrote.
        only: One of its files, where no other is about to be read.

    Raises:
        CorruptedError: A file is missing or corrupted; names it and the command that makes it.
    """
    file = folder / RUN
    if not file.is_file():
        return
    for name, wanted in RunRecord.read(file).files.items():
        if only in ("", name):
            check_file(folder / name, wanted)
