"""What is left of a run: from its events, the seconds of the last run, and a clock."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from faithdiff.planning.running import (
    RunningStudy,
    StudyJob,
    last_line,
    last_seconds,
    span,
)
from faithdiff.study.checksums import with_checksum
from faithdiff.study.layout import Layout

NOON = datetime(2026, 3, 2, 12, 0).timestamp()
# Two trainings side by side, each before the scoring of its method, and a table of all.
JOBS = {
    5: StudyJob("tables", "tables/study", after=(3, 4)),
    1: StudyJob("train/a", "train/a"),
    2: StudyJob("train/b", "train/b"),
    3: StudyJob("score/a", "score/a", after=(1,)),
    4: StudyJob("score/b", "score/b", after=(2,)),
}
SECONDS = {"train/a": 600.0, "train/b": 1200.0, "score/a": 60.0, "score/b": 60.0, "tables/x": 60.0}


class Clock:
    """A clock that a test sets."""

    now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_run_that_begins_knows_its_work_and_its_end(clock: Clock) -> None:
    study = RunningStudy(JOBS, SECONDS, 2, clock)
    # The longer training, then its scores, then the tables; the other two are done meanwhile.
    assert study.summary() == "0 of 5 jobs done · 1,980 job-seconds left · ends about 12:22"
    assert RunningStudy(JOBS, SECONDS, 1, clock).summary().endswith("ends about 12:33")


def test_a_run_is_followed_to_its_end(clock: Clock) -> None:
    study = RunningStudy(JOBS, SECONDS, 2, clock)
    study.start(1)
    study.start(2)
    clock.now += 300
    assert study.time_of(1) == "5 min of 10 min"
    assert "2 running · 1,380 job-seconds left · ends about 12:22" in study.summary()
    for number in (1, 2, 3, 4, 5):
        clock.now += 60
        assert study.end(number) >= 0
    assert study.summary() == "5 of 5 jobs done · took 10 min"


def test_a_run_that_is_stopped_says_what_is_not_finished(clock: Clock) -> None:
    study = RunningStudy(JOBS, SECONDS, 2, clock)
    study.start(1)
    clock.now += 30
    assert study.summary(over=True) == "0 of 5 jobs done · 5 not finished · took 30 s"


def test_an_end_on_another_day_has_its_date(clock: Clock) -> None:
    study = RunningStudy({1: StudyJob("train/a", "train/a")}, {"train/a": 86400.0}, 1, clock)
    assert study.summary().endswith("ends about Tue 03 Mar 12:00")


def test_a_job_that_never_ran_takes_the_mean_of_its_rule(clock: Clock) -> None:
    study = RunningStudy({1: StudyJob("train/c", "train/c")}, SECONDS, 1, clock)
    assert study.estimate(1) == 900


def test_where_nothing_was_run_before_nothing_is_said_until_a_job_has_ended(clock: Clock) -> None:
    study = RunningStudy(JOBS, {}, 2, clock)
    assert study.summary() == "0 of 5 jobs done · – job-seconds left · ends –"
    study.start(1)
    clock.now += 100
    assert study.time_of(1) == "2 min of –"
    study.end(1)
    assert study.estimate(2) == pytest.approx(100)
    assert "100 job-seconds left and 3 jobs never timed · ends after 12:03" in study.summary()


def test_a_slower_machine_takes_longer(clock: Clock) -> None:
    study = RunningStudy(JOBS, SECONDS, 1, clock)
    study.start(1)
    clock.now += 1200
    study.end(1)
    assert study.estimate(2) == pytest.approx(1200 * 1260 / 660)


def test_a_job_that_takes_longer_than_thought_ends_now(clock: Clock) -> None:
    study = RunningStudy({1: StudyJob("train/a", "train/a")}, SECONDS, 1, clock)
    study.start(1)
    clock.now += 3600
    assert study.summary().endswith("0 job-seconds left · ends about 13:00")


def test_what_waits_for_a_failed_job_is_not_waited_for(clock: Clock) -> None:
    study = RunningStudy(JOBS, SECONDS, 2, clock)
    study.start(1)
    study.fail(1)
    assert "1 failed · 2 cannot run · 1,260 job-seconds left" in study.summary()
    study.start(1)  # a retry
    assert "failed" not in study.summary()


def test_a_job_larger_than_the_machine_is_planned_all_the_same(clock: Clock) -> None:
    study = RunningStudy({1: StudyJob("train/a", "train/a", slots=8)}, SECONDS, 2, clock)
    assert study.summary().endswith("ends about 12:10")


def test_a_large_study_is_summed_up_at_once() -> None:
    jobs = {
        n: StudyJob(f"train/{n}", f"train/{n}", after=(n - 1,) if n % 9 else ())
        for n in range(1000)
    }
    study = RunningStudy(jobs, {"train/0": 5.0}, 8)
    begun = time.perf_counter()
    assert "5,000 job-seconds left" in study.summary()
    assert time.perf_counter() - begun < 2


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results/mini").mkdir(parents=True)
    return tmp_path


def test_the_last_run_here_comes_before_the_committed_results(folder: Path) -> None:
    manifest = folder / "results/mini/manifest.json"
    assert last_seconds(Layout("mini")) == {}
    jobs = {"train/a": {"seconds": 9.0}, "train/b": {"seconds": 8.0}, "score/a": {"seconds": None}}
    manifest.write_text(json.dumps(with_checksum({"profile": "mini", "jobs": jobs})), "utf-8")
    benchmark = folder / "logs/mini/benchmarks/train/a.tsv"
    benchmark.parent.mkdir(parents=True)
    benchmark.write_text("s\tcpu_time\tmax_rss\n4.5\t4\t100\n", "utf-8")
    assert last_seconds(Layout("mini")) == {"train/a": 4.5, "train/b": 8.0}
    assert last_seconds(Layout("lab")) == {}
    manifest.write_text("{", "utf-8")
    assert last_seconds(Layout("mini")) == {"train/a": 4.5}
    benchmark.write_bytes(b"s\tcpu\n\xff")
    assert last_seconds(Layout("mini")) == {}


def test_the_last_line_of_a_log_is_one_that_a_terminal_can_show(folder: Path) -> None:
    log = folder / "a.log"
    assert last_line(log) == last_line(None) == ""
    log.write_bytes(b"first\n 1%\r\x1b[1m 2% \xff\n\n")
    assert last_line(log) == "[1m 2% \N{REPLACEMENT CHARACTER}"
    log.write_text("x" * 9000 + "\nlast\n", "utf-8")
    assert last_line(log) == "last"


def test_spans_are_as_long_as_a_person_says_them() -> None:
    assert [span(s) for s in (0.4, 99, 101, 5000, 7200)] == [
        "0 s",
        "99 s",
        "2 min",
        "83 min",
        "2.0 h",
    ]
