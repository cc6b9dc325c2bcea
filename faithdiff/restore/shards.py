"""Shards of the images of a method and seed, for machines that work side by side.

A shard is a job of its own that leaves its images, or their values, in the cache and then a
record of what it did and where. The job that follows finds everything made and only collects it,
so a study is the same bytes however many shards there were.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, TypeVar

from faithdiff.errors import RunError, UserError
from faithdiff.study.files import write_text_atomic
from faithdiff.study.layout import Layout
from faithdiff.study.provenance import HardwareFacts, hardware, packages

T = TypeVar("T")


class Spent(TypedDict):
    """What a shard did in one place: images made, of which the others were found, and the time."""

    made: int
    seconds: float


class ShardRecord(TypedDict):
    """The record of a finished shard.

    Attributes:
        places: By ``<dataset>/<level>``, or ``all``.
    """

    places: dict[str, Spent]
    hardware: HardwareFacts
    packages: dict[str, str]


@dataclass(frozen=True)
class Shard:
    """Number `number` of `of` shards, from 1."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``K/N``.

        Raises:
            UserError: It is not that, or K is not one of 1..N.
        """
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        shard = cls(int(found[1]), int(found[2])) if found else None
        if shard is None or not 1 <= shard.number <= shard.of:
            raise UserError(f"--shard {text}: is not K/N with 1 <= K <= N, such as 2/7")
        return shard

    def select(self, items: Sequence[T]) -> list[T]:
        """The items of this shard: every n-th. All shards together have each item once."""
        # Interleaved, not in blocks: neighbours in a set are alike in size, so shards take as long.
        return list(items[self.number - 1 :: self.of])


def write_record(file: Path, places: dict[str, Spent]) -> None:
    """Record a finished shard."""
    # With the packages: shards of other machines must be the same bytes, and if not, here is why.
    record: ShardRecord = {"places": places, "hardware": hardware(), "packages": packages()}
    write_text_atomic(json.dumps(record, indent=1) + "\n", file)


def read_records(layout: Layout, job: str, method: str, seed: int, of: int) -> list[ShardRecord]:
    """Records of all shards of a job, in their order; none if there is one shard only.

    Raises:
        RunError: One is missing or corrupted.
    """
    if of == 1:  # the job itself restores; there is nothing to collect
        return []
    records: list[ShardRecord] = []
    for number in range(1, of + 1):
        file = layout.shard(job, method, seed, number, of)
        verb = "restore-sets" if job == "restore" else job
        try:
            records.append(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            raise RunError(
                f"{file}: is missing or corrupted; make it again with: faithdiff {verb} "
                f"--method {method} --seed {seed} --shard {number}/{of}"
            ) from None
    return records
