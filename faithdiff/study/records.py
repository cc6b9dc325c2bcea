"""What jobs write down of themselves: one reader for all records, and the record of a training.

A field that an older version did not write has its default, and one that a newer version added is
passed over: results that were committed years ago stay readable. Each record has a module of its
own (:mod:`restored`, :mod:`manifest`), so that a field that is new in one reruns no job that only
knows another.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from faithdiff.errors import RunError
from faithdiff.study.checksums import corrupted, read_checked
from faithdiff.study.plain import JsonObject
from faithdiff.study.remake import command_for

# As JSON has them: the sum of no seconds is the whole number 0, and is written as it was read.
Seconds = int | float


class Record(BaseModel):
    """A JSON object that one job writes and others read."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read a record and check it against its checksum.

        Raises:
            OSError: The file cannot be read.
            CorruptedError: It is not what was written; names the field and the command to run.
        """
        content = read_checked(file)
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            raise corrupted(file, f"is corrupted: {field}: {first['msg']}") from None

    @classmethod
    def require(cls, file: Path) -> Self:
        """Read a record that a finished study has.

        Raises:
            RunError: It is missing or corrupted; says what makes it.
        """
        try:
            return cls.read(file)
        except OSError as error:
            raise RunError(f"{file}: {error.strerror}; run: {command_for(file)}") from None

    def plain(self) -> JsonObject:
        """The record as JSON takes it; without the fields that its file did not have."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class Hardware(Record):
    """A machine that did work."""

    processor: str = ""
    cores: int | None = None
    memory_gib: float | None = None
    gpus: list[str] = Field(default_factory=list)
    system: str = ""
    python: str = ""
    torch: str = ""


@dataclass(frozen=True)
class Cost:
    """What a training cost.

    Attributes:
        parts: Parameters of each part that was trained, pre-stages included.
        total: Parameters of all networks that restoring needs.
        pre_updates: Updates before the last stage: parts that are trained and then frozen.
        pre_seconds: Their seconds.
        updates: Of the last stage.
        seconds: Of the last stage.
    """

    parts: dict[str, int]
    total: int
    pre_updates: int
    pre_seconds: Seconds
    updates: int
    seconds: Seconds


class RunRecord(Record):
    """``run.json``: the profile, machine and code that made a checkpoint, and its files' hashes."""

    method: str = ""
    seed: int = 0
    profile: JsonObject = Field(default_factory=dict)
    seconds: Seconds | None = None
    cost: Cost | None = None
    commit: str | None = None
    dirty: bool | None = None
    hardware: Hardware | None = None
    packages: dict[str, str] = Field(default_factory=dict)
    files: dict[str, str] = Field(default_factory=dict)
