"""What is left of a study that runs: of each job, in job-seconds of all, and when the study ends.

A job is taken to last as long as in the last run, else as long as the others of its rule, both by
the pace of this run: a machine with half the speed takes twice the seconds. Where nothing was run
before, nothing is said until the first job of a rule has ended.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from graphlib import TopologicalSorter
from math import isfinite
from pathlib import Path
from statistics import fmean

from faithdiff.planning.workload import PlannedJob, wall_hours
from faithdiff.report.manifest import MANIFEST, job_costs
from faithdiff.study.layout import Layout
from faithdiff.study.manifest import JobCost, Manifest

UNKNOWN = "–"
DAMPING = 60  # seconds at the pace of the last run: the first short jobs do not decide the pace
KEPT = 20  # seconds for which the computed end of the study holds, if nothing happens


@dataclass(frozen=True)
class StudyJob:
    """One job of a run.

    Attributes:
        name: What a person calls it: its log below ``logs/<profile>``, without the suffix.
        timed: ``rule/name`` by which benchmarks and manifests know it; empty if nothing times it.
        log: Where its output goes.
        after: Numbers of the jobs of this run that it waits for.
        slots: Cores that it takes; GPUs, in a study on GPUs.
    """

    name: str
    timed: str = ""
    log: Path | None = None
    after: tuple[int, ...] = ()
    slots: int = 1


def last_seconds(layout: Layout) -> dict[str, float]:
    """Seconds of each job of the last run here, else of the committed results, by ``rule/name``."""
    costs: dict[str, JobCost] = {}
    # One after the other: a first run that was killed has timed jobs and written no manifest. Files
    # that cannot be read are named by the jobs that need them; an estimate is not worth a message.
    with suppress(Exception):
        costs |= Manifest.read(layout.results / MANIFEST).jobs
    with suppress(Exception):
        costs |= job_costs(layout)
    return {
        name: cost.seconds
        for name, cost in costs.items()
        if cost.seconds and isfinite(cost.seconds)
    }


class RunningStudy:
    """The state of a run, told by its events: which jobs run, and what is left.

    Args:
        jobs: All jobs of the run, by their numbers.
        seconds: What jobs took before, by ``rule/name``.
        slots: Cores, or GPUs, that the run has.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        jobs: Mapping[int, StudyJob],
        seconds: Mapping[str, float],
        slots: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        # A job after those that it waits for: one pass then finds what a failure leaves undone.
        order = TopologicalSorter({number: job.after for number, job in jobs.items()})
        self.jobs = {number: jobs[number] for number in order.static_order()}
        self.running: dict[int, float] = {}  # when each began
        self.failed: set[int] = set()
        self._ended: set[int] = set()
        self._slots = slots
        self._clock = clock
        self._begun = clock()
        self._seconds = dict(seconds)
        self._means = _means(seconds)
        self._spent = self._expected = 0.0
        self._end: tuple[float, float | None] = (0.0, None)

    # --- Events -----------------------------------------------------------------------------

    def start(self, number: int) -> None:
        """A job begins, perhaps again after it failed."""
        self.running[number] = self._clock()
        self.failed.discard(number)
        self._end = (0.0, None)

    def end(self, number: int) -> float:
        """A job has done its work; returns its seconds."""
        job, took = self.jobs[number], self.elapsed(number)
        known = self._seconds.get(job.timed)
        if known is not None:
            self._spent, self._expected = self._spent + took, self._expected + known
        elif job.timed:
            # At the pace of the last run, as all others here.
            self._seconds[job.timed] = took / self._pace
            self._means = _means(self._seconds)
        self.running.pop(number, None)
        self._ended.add(number)
        self._end = (0.0, None)
        return took

    def fail(self, number: int) -> float:
        """A job has failed; returns its seconds."""
        took = self.elapsed(number)
        self.running.pop(number, None)
        self.failed.add(number)
        self._end = (0.0, None)
        return took

    # --- Estimates --------------------------------------------------------------------------

    def elapsed(self, number: int) -> float:
        """Seconds since a running job began."""
        now = self._clock()
        return max(now - self.running.get(number, now), 0.0)

    def estimate(self, number: int) -> float | None:
        """Seconds that a job should take in all; None if no job of its rule was ever timed."""
        timed = self.jobs[number].timed
        seconds = self._seconds.get(timed, self._means.get(timed.partition("/")[0]))
        return None if seconds is None else seconds * self._pace

    @property
    def _pace(self) -> float:
        return (self._spent + DAMPING) / (self._expected + DAMPING)

    def _left(self, number: int) -> float | None:
        estimate = self.estimate(number)
        return None if estimate is None else max(estimate - self.elapsed(number), 0.0)

    def _open(self) -> list[int]:
        """Jobs that are not done and can be: none behind a failed one."""
        closed = set(self.failed)
        for number, job in self.jobs.items():
            if not closed.isdisjoint(job.after):
                closed.add(number)
        return [number for number in self.jobs if number not in closed | self._ended]

    def _ends_at(self, left: Mapping[int, float | None]) -> float | None:
        """When the last of these jobs ends, if each starts once it can; seconds since the epoch."""
        if all(seconds is None for seconds in left.values()):
            return None
        now = self._clock()
        if now - self._end[0] >= KEPT:
            jobs = [
                PlannedJob(
                    str(number),
                    after=tuple(str(each) for each in self.jobs[number].after if each in left),
                    gpus=min(self.jobs[number].slots, self._slots),
                )
                for number in left
            ]
            wait = wall_hours(jobs, lambda job: left[int(job.key)] or 0.0, self._slots)
            self._end = (now, now + wait)
        return self._end[1]

    # --- What a person reads ----------------------------------------------------------------

    def summary(self, over: bool = False) -> str:
        """One line: jobs done, running, failed; job-seconds left; when the study ends.

        Args:
            over: Whether the run has ended, perhaps before its last job.
        """
        parts = [f"{len(self._ended)} of {len(self.jobs)} jobs done"]
        if self.running and not over:
            parts.append(f"{len(self.running)} running")
        if self.failed:
            parts.append(f"{len(self.failed)} failed")
        left = {number: self._left(number) for number in self._open()}
        if lost := len(self.jobs) - len(self._ended) - len(self.failed) - len(left):
            parts.append(f"{lost} cannot run")
        if over and left:
            parts.append(f"{len(left)} not finished")
        if over or not left:
            return " · ".join([*parts, f"took {span(self._clock() - self._begun)}"])
        known = [seconds for seconds in left.values() if seconds is not None]
        timed = sum(bool(self.jobs[number].timed) for number in left)
        work = f"{sum(known):,.0f}" if known else UNKNOWN
        parts.append(f"{work} job-seconds left")
        if timed > len(known) and known:
            parts[-1] += f" and {timed - len(known)} jobs never timed"
        end = self._ends_at(left)
        about = "after" if timed - len(known) > len(left) / 10 else "about"
        parts.append(f"ends {UNKNOWN if end is None else f'{about} {self._time(end)}'}")
        return " · ".join(parts)

    def time_of(self, number: int) -> str:
        """How long a job has run, and how long it should take."""
        estimate = self.estimate(number)
        whole = UNKNOWN if estimate is None else span(estimate)
        return f"{span(self.elapsed(number))} of {whole}"

    def _time(self, at: float) -> str:
        end, now = datetime.fromtimestamp(at), datetime.fromtimestamp(self._clock())
        return f"{end:%H:%M}" if end.date() == now.date() else f"{end:%a %d %b %H:%M}"


def span(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def last_line(file: Path | None) -> str:
    """The last line that a job wrote into its log; empty where there is none yet."""
    if file is None:
        return ""
    try:
        with file.open("rb") as stream:
            stream.seek(max(file.stat().st_size - 4096, 0))
            text = stream.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    lines = [line for line in text.splitlines() if line.strip()]
    return "".join(filter(str.isprintable, lines[-1])).strip() if lines else ""


def _means(seconds: Mapping[str, float]) -> dict[str, float]:
    """Mean seconds of the jobs of each rule."""
    rules: dict[str, list[float]] = defaultdict(list)
    for name, each in seconds.items():
        rules[name.partition("/")[0]].append(each)
    return {rule: fmean(each) for rule, each in rules.items()}
