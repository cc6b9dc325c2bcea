"""The lines of a run, on a terminal and elsewhere; a display that fails leaves the run alone."""

from __future__ import annotations

import io
import logging
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from shared import ROOT
from snakemake.logging import ColorizingTextHandler, DefaultFormatter, LogEvent, logger
from snakemake.shell import shell

from faithdiff.planning import display
from faithdiff.planning.display import PLAIN, QUIET, StudyDisplay, show_progress
from faithdiff.planning.running import RunningStudy, StudyJob
from faithdiff.study.layout import Layout

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Run:
    """A run of two jobs whose events a test sends."""

    def __init__(self, stream: io.StringIO, folder: Path) -> None:
        self.stream = stream
        self.plain = ColorizingTextHandler(stream=stream, formatter=DefaultFormatter())
        self.log = folder / "a.log"
        jobs = {
            1: StudyJob("train/a", "train/a", self.log),
            2: StudyJob("score/a", "score/a", after=(1,)),
        }
        self.study = RunningStudy(jobs, {"train/a": 50.0, "score/a": 10.0}, 2)
        logger.addHandler(self.plain)
        self.shown = StudyDisplay(self.plain, self.study)
        self.shown.open()

    def says(self, message: str | None, level: int = logging.INFO, **extra: object) -> None:
        logger.log(level, message, extra=extra)

    def starts(self, number: int) -> None:
        about = {"jobid": number, "rule_msg": "train", "reason": "missing output"}
        self.says("Rule: train", event=LogEvent.JOB_INFO, **about)
        self.says("Shell command: faithdiff train", event=LogEvent.SHELLCMD)

    def fails(self, number: int) -> None:
        details = dict.fromkeys(("rule_msg", "input", "output", "conda_env", "shellcmd"))
        details |= {"rule_name": "train", "jobid": number, "log": [str(self.log)], "aux": {}}
        self.says("Error", logging.ERROR, event=LogEvent.JOB_ERROR, indent=False, **details)

    @property
    def lines(self) -> list[str]:
        return [re.sub(r"^\d\d:\d\d:\d\d ", "", x) for x in self.stream.getvalue().splitlines()]


@pytest.fixture
def run(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Run]:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "level", logging.INFO)
    monkeypatch.setattr(shell, "_process_prefix", None)
    started = Run(getattr(request, "param", io.StringIO)(), tmp_path)
    yield started
    started.shown.close()


def test_elsewhere_each_job_has_a_line_at_its_start_and_its_end(run: Run) -> None:
    run.says("Select jobs to execute...")
    run.starts(1)
    run.says("Finished jobid: 1", event=LogEvent.JOB_FINISHED, job_id=1)
    run.says(None, event=LogEvent.PROGRESS, done=1, total=3)
    run.says("Touching output file x.")
    run.starts(9)  # the rule `all`, which does nothing
    run.shown.close()
    start, end, other, last = run.lines
    assert start == "start train/a, about 50 s"
    assert re.fullmatch(r"end train/a, 0 s · 1 of 2 jobs done · . job-seconds left · ends .*", end)
    assert other == "Touching output file x." and last.startswith("1 of 2 jobs done")
    assert "\r" not in run.stream.getvalue() and "\x1b" not in run.stream.getvalue()


def test_elsewhere_a_long_job_has_a_line_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(display, "MINUTE", 0.05)
    run: Run = request.getfixturevalue("run")
    run.starts(1)
    time.sleep(0.3)
    assert 2 <= sum(line.endswith("train/a 0 s of 50 s") for line in run.lines) <= 6


def test_the_log_of_a_failed_job_is_printed_in_full(run: Run) -> None:
    run.log.write_text("step 1\nout of memory\n", "utf-8")
    run.starts(1)
    run.fails(1)
    said = "\n".join(run.lines)
    assert "FAILED train/a" in said and f"log: {run.log}" in said
    assert "step 1\nout of memory" in said and "1 failed · 1 cannot run" in said


def test_jobs_are_silent_while_their_progress_is_shown(run: Run) -> None:
    assert shell._process_prefix == QUIET
    assert QUIET.startswith(PLAIN)


def test_a_display_that_fails_says_so_once_and_the_run_goes_on(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no such number")

    monkeypatch.setattr(run.study, "start", broken)
    for _ in range(2):
        run.starts(1)
    said = run.stream.getvalue()
    assert said.count("Progress is no longer shown: RuntimeError('no such number')") == 1
    assert said.count("faithdiff train") == 2
    assert shell._process_prefix == PLAIN


@pytest.mark.parametrize("run", [Terminal], indirect=True)
def test_on_a_terminal_each_running_job_has_a_line_and_the_study_one(run: Run) -> None:
    run.log.write_text("train: 45% 9/20\n", "utf-8")
    run.starts(1)
    run.says("Touching output file x.")
    assert run.shown._live is not None
    run.shown._live.refresh()
    said = ESCAPES.sub("", run.stream.getvalue())
    assert re.search(r"train/a +[━╸╺ ]+ +\d s of 50 s +train: 45% 9/20", said)
    assert "0 of 2 jobs done · 1 running" in said
    assert "Touching output file x." in said and "faithdiff train" not in said
    run.shown.close()
    assert run.stream.getvalue().rstrip().endswith("\x1b[?25h")  # the cursor is back
    last = ESCAPES.sub("", run.stream.getvalue()).splitlines()[-1]
    assert last.strip() == "0 of 2 jobs done · 2 not finished · took 0 s"


@pytest.mark.parametrize("run", [Terminal], indirect=True)
def test_on_a_narrow_terminal_a_line_stays_a_line(run: Run) -> None:
    run.log.write_text("a long line " * 20, "utf-8")
    run.starts(1)
    live = run.shown._live
    assert live is not None
    live.console.width = 40
    run.stream.truncate(run.stream.seek(0))
    run.says("a command that is not cut " * 4)  # printed above: live lines are drawn with it
    live.refresh()
    lines = re.split(r"[\r\n]+", ESCAPES.sub("", run.stream.getvalue()))
    assert "a command that is not cut " * 4 in lines
    drawn = [line for line in lines if "train/a" in line or "jobs done" in line]
    assert len(drawn) >= 2 and max(map(len, drawn)) <= 40


def test_a_full_disk_under_the_output_ends_no_study(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: str) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(logging, "raiseExceptions", False)
    monkeypatch.setattr(run.stream, "write", full)
    run.starts(1)
    run.says("Finished jobid: 1", event=LogEvent.JOB_FINISHED, job_id=1)


@pytest.mark.parametrize("run", [Terminal], indirect=True)
def test_on_a_terminal_a_display_that_fails_leaves_it_clean(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run.study, "summary", lambda *_: 1 / 0)
    assert run.shown._live is not None
    run.shown._live.refresh()  # in a thread of rich: the next event finds out
    run.starts(1)
    said = run.stream.getvalue()
    assert said.count("Progress is no longer shown: ZeroDivisionError") == 1
    assert "\x1b[?25h" in said and "faithdiff train" in said


@pytest.mark.parametrize(
    "setting", [{"quiet": {"rules"}}, {"verbose": True}, {"local_exec": False}, {"logger": True}]
)
def test_who_asks_for_other_lines_gets_them(
    setting: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = logging.NullHandler() if "logger" in setting else ColorizingTextHandler()
    monkeypatch.setattr(logger, "handlers", [plain])
    settings = SimpleNamespace(quiet=setting.get("quiet"), verbose=setting.get("verbose", False))
    local = setting.get("local_exec", True)
    show_progress(SimpleNamespace(output_settings=settings, local_exec=local), Layout("test"))
    assert logger.handlers == [plain]


def test_a_run_that_cannot_be_read_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain = ColorizingTextHandler(stream=io.StringIO())
    monkeypatch.setattr(logger, "handlers", [plain])
    settings = SimpleNamespace(quiet=None, verbose=False)
    show_progress(SimpleNamespace(output_settings=settings, local_exec=True), Layout("test"))
    assert logger.handlers == [plain]
    assert "Progress cannot be shown" in plain.stream.getvalue()


class Job(SimpleNamespace):
    """A job as Snakemake has it."""

    __hash__ = object.__hash__


@pytest.mark.parametrize(("on_gpus", "slots"), [(False, [1, 4, 1]), (True, [0, 2, 0])])
def test_the_jobs_of_a_run_are_read_from_snakemake(on_gpus: bool, slots: list[int]) -> None:
    def job(number: int, threads: int, gpu: int, name: str, shellcmd: str | None = "x") -> Job:
        return Job(
            jobid=number,
            rule=SimpleNamespace(shellcmd=shellcmd),
            log=[f"logs/none/{name}.log"],
            benchmark=f"logs/none/benchmarks/{name}.tsv" if number < 3 else None,
            threads=threads,
            resources={"gpu": gpu},
        )

    data, training = job(1, 1, 0, "degrade/train"), job(2, 4, 2, "train/a.b-seed0")
    stamp, everything = job(3, 1, 0, "version"), job(0, 1, 0, "all", None)
    dag = SimpleNamespace(
        needrun_jobs=lambda: [everything, stamp, training, data],
        dependencies={
            data: {},
            training: {data: set()},
            stamp: {training: set()},
            everything: {stamp: set()},
        },
    )
    resources = {"gpu": SimpleNamespace(value=2)}
    workflow = SimpleNamespace(dag=dag, cores=8, global_resources=resources)
    study = display.running_study(workflow, Layout("none"), on_gpus)
    assert [job.name for job in study.jobs.values()] == [
        "degrade/train",
        "train/a.b-seed0",
        "version",
    ]
    assert [job.timed for job in study.jobs.values()] == ["degrade/train", "train/a.b-seed0", ""]
    assert [job.after for job in study.jobs.values()] == [(), (1,), (2,)]
    assert [job.slots for job in study.jobs.values()] == slots


# Two jobs at once that print, as ours do: into the log and on.
SNAKEFILE = """
from pathlib import Path
from faithdiff.planning.display import show_progress
from faithdiff.study.layout import Layout

onstart:
    show_progress(workflow, Layout("small"))

rule all:
    input: expand("{name}.txt", name=["a", "b"])

rule write:
    output: "{name}.txt"
    log: "logs/small/write/{name}.log"
    benchmark: "logs/small/benchmarks/write/{name}.tsv"
    shell:
        "for i in 1 2 3 4; do echo noise $i of {wildcards.name}; sleep 0.5; done"
        " 2>&1 | tee {log}; END"
"""


def on_a_terminal(folder: Path, end: str, interrupt: str = "") -> tuple[int, str]:
    """Run a small workflow under a pseudo-terminal; its exit code and what the terminal got.

    Args:
        end: The last command of its jobs.
        interrupt: The text after which Ctrl-C is pressed.
    """
    (folder / "Snakefile").write_text(SNAKEFILE.replace("END", end), "utf-8")
    master, slave = os.openpty()
    environment = {**os.environ, "TERM": "xterm", "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--keep-going"]
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdin=slave, stdout=slave, stderr=slave,
        start_new_session=True,
        # A shell starts what runs in the background with Ctrl-C ignored, these tests perhaps, too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    os.close(slave)
    said, deadline = b"", time.monotonic() + 120
    while time.monotonic() < deadline:
        if select.select([master], [], [], 0.2)[0]:
            try:
                said += os.read(master, 65536)
            except OSError:  # the other end is closed
                break
        if interrupt and interrupt.encode() in said:
            os.killpg(process.pid, signal.SIGINT)
            interrupt = ""
    os.close(master)
    return process.wait(timeout=10), said.decode()


@pytest.mark.slow
def test_two_jobs_at_once_share_a_terminal(tmp_path: Path) -> None:
    code, said = on_a_terminal(tmp_path, "touch {output}")
    text = ESCAPES.sub("", said).replace("\r", "\n")
    assert code == 0, text
    assert "2 of 2 jobs done" in text.rstrip().splitlines()[-1] and "\x1b[?25h" in said
    # What a job prints is seen in its line alone, and is whole in its log.
    seen = [line for line in text.splitlines() if "noise" in line]
    assert seen and all(re.match(r"write/[ab] .*s of .*noise \d of [ab] *$", line) for line in seen)
    assert (tmp_path / "logs/small/write/a.log").read_text().splitlines() == [
        f"noise {number} of a" for number in range(1, 5)
    ]
    for log in [*tmp_path.rglob("*.log")]:
        assert b"\r" not in log.read_bytes(), log


@pytest.mark.slow
def test_a_failed_job_is_told_in_full_on_a_terminal(tmp_path: Path) -> None:
    code, said = on_a_terminal(tmp_path, "test {wildcards.name} = b && touch {output}")
    text = ESCAPES.sub("", said)
    assert code == 1
    assert "log: logs/small/write/a.log (check log file(s) for error details)" in text
    assert "noise 1 of a\r\nnoise 2 of a\r\nnoise 3 of a\r\nnoise 4 of a\r\n" in text
    assert "1 of 2 jobs done · 1 failed · took" in text.rstrip().splitlines()[-1]


@pytest.mark.slow
def test_ctrl_c_leaves_the_terminal_clean(tmp_path: Path) -> None:
    # Jobs that are still at it, however late the key is pressed on a busy machine.
    code, said = on_a_terminal(tmp_path, "sleep 60; touch {output}", interrupt="2 running")
    assert code != 0
    assert said.rfind("\x1b[?25h") > said.rfind("\x1b[?25l") > 0
    assert "0 of 2 jobs done" in ESCAPES.sub("", said).rstrip().splitlines()[-1]
