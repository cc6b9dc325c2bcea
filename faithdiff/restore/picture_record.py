"""The record beside a person's restored pictures: which call made which, so that none is lost.

A result is kept where the same picture and settings made it; it is written over only where it is
this command's own, as it was, and of the same checkpoint and settings.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TypeAlias, TypedDict

from faithdiff.data.images import read_result, sha256_file
from faithdiff.errors import ImageError, UserError
from faithdiff.study.files import write_text_atomic

RECORD = "restored.json"  # beside the results: the key of each, so that none is made twice


class Result(TypedDict, total=False):
    """A result in the record.

    Attributes:
        key: Of the picture, its caption, what was chosen and the code.
        sha256: Of the file.
        choice: Of the weights and of what was chosen.
        made_by: The options that were typed.
    """

    key: str
    sha256: str
    choice: str
    made_by: str


Record: TypeAlias = dict[str, Result]  # by the name of the file


def read_record(output: Path) -> Record:
    """Read the record of a folder; empty where there is none, or where it was cut.

    Raises:
        UserError: Another program wrote it.
    """
    file = output / RECORD
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # without a record every picture is restored
    if isinstance(record, dict) and all(isinstance(entry, dict) for entry in record.values()):
        return record
    raise UserError(
        f"{file}: is not what `faithdiff restore` writes beside its results; give another "
        "--output, or move it. Nothing was restored"
    )


def write_record(file: Path, made: Result, record: Record, output: Path) -> None:
    """Add a file that was just written, and save the record.

    Args:
        made: What made it; its hash is added.
    """
    record[file.relative_to(output).as_posix()] = {**made, "sha256": sha256_file(file)}
    write_text_atomic(json.dumps(record, indent=1) + "\n", output / RECORD)


def is_done(file: Path, key: str, record: Record, output: Path) -> bool:
    """Whether a file is there as it was written, and of this picture and these settings."""
    entry = _entry(file, record, output)
    return _is_whole(file, entry) and entry.get("key") == key


def is_result(file: Path, output: Path, done: Record) -> bool:
    """Whether a file is what an earlier call wrote into the output folder."""
    if file.name not in done or file.parent.resolve() != output.resolve():
        return False
    return _is_whole(file, done[file.name])


def check_ours(targets: list[Path], done: Record, output: Path) -> None:
    """Refuse to write over files that are not in the folder's record, or were changed since."""
    ours = {output / name: entry.get("sha256") for name, entry in done.items()}
    for file in targets:
        if file in ours and _is_picture(file) and sha256_file(file) != ours[file]:
            raise UserError(
                f"{file}: was changed since `faithdiff restore` wrote it; give another --output, "
                "or move or remove it. Nothing was restored"
            )
    # A link that leads nowhere is somebody's, too.
    others = [file for file in targets if os.path.lexists(file) and file not in ours]
    # A record that is there and cannot be read was written beside our own results.
    if others and (done or not (output / RECORD).exists()):
        more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
        raise UserError(
            f"{others[0]}{more}: is there already, and {output / RECORD} does not say that "
            "`faithdiff restore` wrote it; give another --output, or move it. Nothing was restored"
        )


def check_choice(targets: list[Path], done: Record, output: Path, now: Result) -> None:
    """Refuse to replace whole results that another checkpoint or other settings made."""
    others = [
        (file, entry)
        for file in targets
        if _is_whole(file, entry := _entry(file, done, output))
        and entry.get("choice") != now["choice"]
    ]
    if not others:
        return
    file, entry = others[0]
    before = entry.get("made_by", "settings that were not recorded")
    more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
    # The options do not tell them apart where the checkpoint of a path is another one now.
    then = ", whose weights or settings were others then" if before == now["made_by"] else ""
    raise UserError(
        f"{file}{more}: was made by {before}{then}; this call has {now['made_by']}. Give another "
        "--output, or --overwrite to replace it. Nothing was restored"
    )


def _entry(file: Path, record: Record, output: Path) -> Result:
    return record.get(file.relative_to(output).as_posix(), {})


def _is_whole(file: Path, entry: Result) -> bool:
    return file.is_file() and sha256_file(file) == entry.get("sha256")


def _is_picture(file: Path) -> bool:
    """Whether a file can be read: what cannot is corrupted, not edited, and is made again."""
    try:
        read_result(file)
    except ImageError:
        return False
    return True
