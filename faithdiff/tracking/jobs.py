"""Carries Snakemake's record of each finished job from one checkout to another.

Snakemake decides what is out of date from ``.snakemake/metadata`` (parameters, code digests and
input checksums of the job that wrote a file) and from file times. Git and DVC carry neither, so a
clone with all data would run everything again (snakemake #2977, dvc #8602). One file beside the
data does: restored, it reruns exactly what the code and the config of the clone make out of date.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path

from pydantic import JsonValue, TypeAdapter

from faithdiff.errors import CorruptedError, UserError
from faithdiff.study.files import write_text_atomic

METADATA = Path(".snakemake", "metadata")  # one JSON file per output, named by its path in base64
# What Snakemake wrote of a job, carried as it is but for `endtime`: its fields are Snakemake's own.
JobRecord = dict[str, JsonValue]
FOLDERS = ("data", "checkpoints", "restored", "results")
_SAVED = TypeAdapter(dict[str, JobRecord])
TIMESTAMP = ".snakemake_timestamp"  # stands for the time of a folder that is an output


def jobs_file(profile: str) -> Path:
    """Where the records of a profile lie, relative to the folder of the run."""
    return Path("logs", profile, "jobs.json")


def save_jobs(profile: str, root: Path) -> Path:
    """Write the records of all outputs of a profile that exist into one file.

    Raises:
        RunError: The file cannot be written.
        CorruptedError: A record is corrupted.
    """
    records = {name: record for name, output, record in _records(profile, root) if output.exists()}
    text = json.dumps(records, indent=1, sort_keys=True)
    write_text_atomic(text + "\n", root / jobs_file(profile))
    return root / jobs_file(profile)


def restore_jobs(profile: str, root: Path) -> int:
    """Give Snakemake the saved records, and each output the time at which its job ended.

    The outputs must be those that were saved: :func:`faithdiff.tracking.dvc.pull_study` checks it.

    Returns:
        Outputs whose record was restored; one that is missing has none, so its job runs.

    Raises:
        UserError: The saved records are missing or corrupted.
    """
    file = root / jobs_file(profile)
    try:
        records = _SAVED.validate_json(file.read_bytes())
        ends = {name: float(str(record["endtime"])) for name, record in records.items()}
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{file}: cannot be read ({error}); get it with: dvc pull") from None
    # Without this folder Snakemake takes the records for those of an old version, and migrates.
    (root / METADATA.parent / "incomplete").mkdir(parents=True, exist_ok=True)
    restored = 0
    for name, record in records.items():
        output = root / _output(Path(name))
        if output.exists():
            write_text_atomic(json.dumps(record), root / METADATA / name)
            _set_time(output, ends[name])
            restored += 1
    return restored


def _records(profile: str, root: Path) -> Iterator[tuple[str, Path, JobRecord]]:
    """File name below :data:`METADATA`, output and record, for the outputs of a profile."""
    folder = root / METADATA
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = file.relative_to(folder)
        output = _output(name)
        if output.parts[:2] in {(top, profile) for top in FOLDERS}:
            try:
                record: JobRecord = json.loads(file.read_text(encoding="utf-8"))
            except ValueError as error:
                raise CorruptedError(
                    f"{file}: Snakemake's record of {output} is corrupted ({error}); delete it, "
                    "then run snakemake again: the job runs again"
                ) from None
            yield name.as_posix(), root / output, record


def _output(name: Path) -> Path:
    # Names longer than a file system allows are cut into folders that begin with @.
    encoded = "".join(part.removeprefix("@") for part in name.parts)
    return Path(base64.urlsafe_b64decode(encoded).decode())


def _set_time(output: Path, seconds: float) -> None:
    if output.is_dir():
        output = output / TIMESTAMP
        output.touch()
    os.utime(output, (seconds, seconds))
