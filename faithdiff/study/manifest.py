"""The record of a finished study: its ``manifest.json``."""

from __future__ import annotations

from pydantic import Field, JsonValue

from faithdiff.study.plain import JsonObject
from faithdiff.study.records import Hardware, Record, Seconds


class MasterSeeds(Record):
    """The seed of all draws, and the repetitions."""

    master: int
    repetitions: list[int]


class MachineWork(Record):
    """A machine, and the names of the checkpoints and restored sets that it made."""

    hardware: Hardware | None = None
    made: list[str] = Field(default_factory=list)


class TotalCost(Record):
    """Sums over jobs, which run side by side: `seconds` is not the time that one waits."""

    jobs: int
    seconds: Seconds
    cpu_seconds: Seconds
    start_up_seconds: Seconds | None = None
    peak_memory_mb: float | None


class JobCost(Record):
    """What one job used (:mod:`faithdiff.study.usage`); None for what was not measured."""

    seconds: float | None = None
    cpu_seconds: float | None = None
    start_up_seconds: float | None = None
    peak_memory_mb: float | None = None


class DataHashes(Record):
    """A dataset: hash of its index, number of images, hash of each level's degradation log."""

    index: str | None = Field(None, alias="index.csv")
    images: int | None = None
    degradation: dict[str, str] = Field(default_factory=dict, alias="degradation.jsonl")


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
    machines: list[MachineWork] = Field(default_factory=list)
    total: TotalCost | None = None
    data: dict[str, DataHashes] = Field(default_factory=dict)
    prior: PriorHashes | None = None
    checkpoints: dict[str, CheckpointHashes] = Field(default_factory=dict)
    published: dict[str, JsonValue] = Field(default_factory=dict)
    restorations: dict[str, RestoredHashes] = Field(default_factory=dict)
    results: dict[str, str] = Field(default_factory=dict)
    jobs: dict[str, JobCost] = Field(default_factory=dict)
    config: JsonObject = Field(default_factory=dict)
    packages: dict[str, str] = Field(default_factory=dict)

    @property
    def gpus(self) -> list[str]:
        """Names of the GPUs of all machines."""
        return [
            gpu for machine in self.machines if machine.hardware for gpu in machine.hardware.gpus
        ]
