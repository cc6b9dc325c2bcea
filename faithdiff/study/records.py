"""What jobs write down of themselves: each record's fields, with one reader for all of them.

``run.json`` beside a checkpoint, the ``manifest.json`` of a restored test set, and the
``manifest.json`` of a study. A field that an older version did not write has its default, and one
that a newer version added is passed over: results that were committed years ago stay readable.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from faithdiff.errors import RunError
from faithdiff.study.checksums import corrupted, read_checked

JsonObject = dict[str, JsonValue]
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
            raise RunError(f"{file}: {error.strerror}; run: snakemake --cores all") from None

    def plain(self) -> JsonObject:
        """The record as JSON takes it; without the fields that its file did not have."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class Hardware(Record):
    """A machine that did work."""

    processor: str = ""
    cores: int | None = None
    memory_gib: float | None = None
    gpus: list[str] = []
    system: str = ""
    python: str = ""
    torch: str = ""


# --- ``run.json`` of a checkpoint -----------------------------------------------------------------


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
    profile: JsonObject = {}
    seconds: Seconds | None = None
    cost: Cost | None = None
    commit: str | None = None
    dirty: bool | None = None
    hardware: Hardware | None = None
    packages: dict[str, str] = {}
    files: dict[str, str] = {}


# --- ``manifest.json`` of a restored test set -----------------------------------------------------


class RestoredImage(Record):
    """One image of a restored test set: its hash, or why there is none."""

    sha256: str = ""
    failed: str = ""
    lq_sha256: str = ""
    seed: int | None = None
    key: str = ""

    @model_validator(mode="after")
    def _hash_or_reason(self) -> Self:
        if not self.sha256 and not self.failed:
            raise ValueError("has neither sha256 nor failed")
        return self


class RestoredShare(Record):
    """The machine of one of several jobs that shared the images."""

    hardware: Hardware | None = None


class RestoredSet(Record):
    """What restored one test set at one level, and its images by name.

    Attributes:
        made: Images that the last run made anew, in `seconds`; it found the others made.
        parameters: Of weights that no training here wrote.
        shards: One for each job, where several shared the images.
    """

    method: str = ""
    settings: JsonObject = {}
    weights: str | None = None
    images: dict[str, RestoredImage] = {}
    made: int = 0
    seconds: Seconds = 0
    parameters: int | None = None
    hardware: Hardware | None = None
    shards: list[RestoredShare] = []

    @property
    def machines(self) -> list[Hardware | None]:
        """The machines that made it; None where nobody wrote it down."""
        return [share.hardware for share in self.shards] or [self.hardware]


# --- ``manifest.json`` of a study -----------------------------------------------------------------


class MasterSeeds(Record):
    """The seed of all draws, and the repetitions."""

    master: int
    repetitions: list[int]


class Machine(Record):
    """A machine, and the names of the checkpoints and restored sets that it made."""

    hardware: Hardware | None = None
    made: list[str] = []


class TotalCost(Record):
    """Sums over jobs, which run side by side: `seconds` is not the time that one waits."""

    jobs: int
    seconds: Seconds
    cpu_seconds: Seconds
    peak_memory_mb: float | None


class JobCost(Record):
    """What Snakemake measured of one job; None for what it could not see."""

    seconds: float | None = None
    cpu_seconds: float | None = None
    peak_memory_mb: float | None = None


class DataHashes(Record):
    """A data set: hash of its index, number of images, hash of each level's degradation log."""

    index: str | None = Field(None, alias="index.csv")
    images: int | None = None
    degradation: dict[str, str] = Field({}, alias="degradation.jsonl")


class PriorHashes(Record):
    """The prior: where it lies, and the digest of its weights."""

    folder: str = ""
    weights: str = ""


class CheckpointHashes(Record):
    """A checkpoint: digest of its weights, and the commit that trained it, maybe an earlier one."""

    weights: str | None = None
    commit: str | None = None
    dirty: bool | None = None
    seconds: Seconds | None = None


class RestoredHashes(Record):
    """A restored test set: number of images, and one digest over all of their hashes."""

    images: int
    digest: str


class Manifest(Record):
    """What exactly made the results of a study; :mod:`faithdiff.report.manifest` writes it.

    Attributes:
        checkpoints: By ``name/seed``.
        published: Hashes of the weights of published systems, by method.
        restorations: By ``method/seed/dataset/level``.
        results: sha256 by the path below ``results/<profile>``.
        jobs: By ``rule/name``.
        config: The profile. Not the class of today's: keys come and go over the years.
    """

    profile: str = ""
    commit: str | None = None
    dirty: bool | None = None
    seeds: MasterSeeds | None = None
    machines: list[Machine] = []
    total: TotalCost | None = None
    data: dict[str, DataHashes] = {}
    prior: PriorHashes | None = None
    checkpoints: dict[str, CheckpointHashes] = {}
    published: dict[str, JsonValue] = {}
    restorations: dict[str, RestoredHashes] = {}
    results: dict[str, str] = {}
    jobs: dict[str, JobCost] = {}
    config: JsonObject = {}
    packages: dict[str, str] = {}

    @property
    def gpus(self) -> list[str]:
        """Names of the GPUs of all machines."""
        return [
            gpu for machine in self.machines if machine.hardware for gpu in machine.hardware.gpus
        ]
