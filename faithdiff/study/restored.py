"""The record of a restored test set: its ``manifest.json``, which is written last."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from faithdiff.study.plain import JsonObject
from faithdiff.study.records import Hardware, Record, Seconds


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


class RestoredShard(Record):
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
    settings: JsonObject = Field(default_factory=dict)
    weights: str | None = None
    images: dict[str, RestoredImage] = Field(default_factory=dict)
    made: int = 0
    seconds: Seconds = 0
    parameters: int | None = None
    hardware: Hardware | None = None
    shards: list[RestoredShard] = Field(default_factory=list)

    @property
    def machines(self) -> list[Hardware | None]:
        """The machines that made it; None where nobody wrote it down."""
        return [shard.hardware for shard in self.shards] or [self.hardware]
