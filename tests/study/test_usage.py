"""A job measures itself; what Snakemake saw of it is added where it saw more."""

import json
import os
import sys
from pathlib import Path

import pytest

from faithdiff.errors import CorruptedError
from faithdiff.study.usage import JobUsage, job_cost, measured, usage_file
from faithdiff.study.warm import LOG

SEEN = "s\th:m:s\tmax_rss\tcpu_time\n12.5\t0:00:12\t{rss}\t3.0\n"


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    file = tmp_path / "logs" / "mini" / "benchmarks" / "score" / "frozen-seed0.tsv"
    file.parent.mkdir(parents=True)
    file.write_text(SEEN.format(rss="100.0"))
    return file


def test_a_job_measures_itself_beside_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, benchmark: Path
) -> None:
    log = tmp_path / "logs" / "mini" / "score" / "frozen-seed0.log"
    monkeypatch.setenv(LOG, str(log))
    with measured(os.getpid()):
        import wave  # noqa: F401  (an import, inside)
    found = JobUsage.read(log.with_suffix(".json"))
    assert usage_file(benchmark) == log.with_suffix(".json")
    assert 0 < found.start_up_seconds <= found.seconds
    assert found.cpu_seconds > 0
    assert found.peak_memory_mb > 10


def test_a_failed_job_is_measured_too_and_imports_are_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LOG, str(tmp_path / "a.log"))
    before = __import__
    with pytest.raises(SystemExit), measured(os.getpid()):
        sys.exit(1)
    assert __import__ is before
    assert (tmp_path / "a.json").is_file()


def test_without_a_log_nothing_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LOG, raising=False)
    monkeypatch.chdir(tmp_path)
    with measured(os.getpid()):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("rss", "peak"), [("100.0", 400.0), ("900.0", 900.0), ("-", 400.0)])
def test_the_larger_memory_counts(benchmark: Path, rss: str, peak: float) -> None:
    benchmark.write_text(SEEN.format(rss=rss))
    own = usage_file(benchmark)
    own.parent.mkdir(parents=True)
    used = {"seconds": 12, "cpu_seconds": 11, "start_up_seconds": 0.4, "peak_memory_mb": 400}
    own.write_text(json.dumps(used))
    cost = job_cost(benchmark)
    assert cost.peak_memory_mb == peak
    assert (cost.seconds, cost.cpu_seconds, cost.start_up_seconds) == (12.5, 11, 0.4)


def test_a_job_that_did_not_measure_itself_has_what_snakemake_saw(benchmark: Path) -> None:
    cost = job_cost(benchmark)
    assert (cost.seconds, cost.cpu_seconds, cost.peak_memory_mb) == (12.5, 3.0, 100.0)
    assert cost.start_up_seconds is None


def test_a_cut_measurement_is_named(benchmark: Path) -> None:
    own = usage_file(benchmark)
    own.parent.mkdir(parents=True)
    own.write_text('{"seconds": 1')
    with pytest.raises(CorruptedError, match=own.name):
        job_cost(benchmark)
