"""What a job used, as it measures it itself, and how much of that was start-up.

Beside Snakemake's benchmark file, which looks from outside now and then: its CPU seconds are those
of the last look, and of a job that was forked (:mod:`faithdiff.study.warm`) it sees nothing.
"""

from __future__ import annotations

import builtins
import csv
import json
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import psutil

from faithdiff.study.checksums import with_checksum
from faithdiff.study.files import write_text_atomic
from faithdiff.study.manifest import JobCost
from faithdiff.study.records import Record
from faithdiff.study.warm import LOG

# What a manifest says of a job, and the columns of Snakemake's file.
COLUMNS = {"seconds": "s", "cpu_seconds": "cpu_time", "peak_memory_mb": "max_rss"}
WHOSE = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


class JobUsage(Record):
    """What one job used.

    Attributes:
        seconds: From the start of its command to its end.
        cpu_seconds: Of its process and of those that it started and waited for.
        start_up_seconds: Of the seconds, those before its work began, and those in imports.
        peak_memory_mb: Of its process, or of the largest that it started if that is more.
    """

    seconds: float
    cpu_seconds: float
    start_up_seconds: float
    peak_memory_mb: float


def usage_file(benchmark: Path) -> Path:
    """Where a job leaves its own measurement, by Snakemake's file of it: beside the job's log."""
    rule = benchmark.parent
    return rule.parents[1] / rule.name / f"{benchmark.stem}.json"


def job_cost(benchmark: Path) -> JobCost:
    """What a job used, from Snakemake's benchmark file and from the job's own measurement.

    None for what neither could see.
    """
    with benchmark.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    row = rows[-1] if rows else {}
    seen = {name: _number(row.get(column)) for name, column in COLUMNS.items()}
    try:
        own = JobUsage.read(usage_file(benchmark))
    except OSError:  # made before jobs measured themselves
        return JobCost(**seen)
    return JobCost(
        seconds=seen["seconds"],
        cpu_seconds=own.cpu_seconds,
        start_up_seconds=own.start_up_seconds,
        # Snakemake adds up the processes of a training, and misses a job that was forked.
        peak_memory_mb=max(own.peak_memory_mb, seen["peak_memory_mb"] or 0),
    )


def _number(text: str | None) -> float | None:
    try:
        return round(float(text or ""), 2)
    except ValueError:  # "NA" or "-": the job was over before it was looked at
        return None


@contextmanager
def measured(command: int) -> Iterator[None]:
    """Measure the job that runs in here, if the workflow asks for it.

    Args:
        command: Process id of the command, which a forked job is not.
    """
    if LOG not in os.environ:
        yield
        return
    file = Path(os.environ[LOG]).with_suffix(".json")
    file.unlink(missing_ok=True)  # of an earlier run
    born = psutil.Process(command).create_time()
    begun = time.time()
    with _imports_timed() as imports:
        try:
            yield
        finally:
            used = [
                resource.getrusage(whose)
                for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
            ]
            found = JobUsage(
                seconds=round(time.time() - born, 2),
                cpu_seconds=round(sum(each.ru_utime + each.ru_stime for each in used), 2),
                start_up_seconds=round(max(begun - born, 0) + sum(imports), 2),
                peak_memory_mb=round(max(each.ru_maxrss for each in used) / 1024, 2),
            )
            file.parent.mkdir(parents=True, exist_ok=True)
            write_text_atomic(json.dumps(with_checksum(found.plain()), indent=1) + "\n", file)


@contextmanager
def _imports_timed() -> Iterator[list[float]]:
    """The seconds of each outermost import statement, those inside functions included."""
    seconds: list[float] = []
    plain, depth = builtins.__import__, 0

    def timed(*arguments: object, **named: object) -> ModuleType:
        nonlocal depth
        begun, depth = time.perf_counter(), depth + 1
        try:
            return plain(*arguments, **named)  # type: ignore[arg-type]
        finally:
            depth -= 1
            if depth == 0:
                seconds.append(time.perf_counter() - begun)

    builtins.__import__ = timed
    try:
        yield seconds
    finally:
        builtins.__import__ = plain
