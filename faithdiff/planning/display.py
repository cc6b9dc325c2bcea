"""A run of the study as a person reads it: live lines on a terminal, single lines elsewhere.

This takes the place of Snakemake's own handler in the logger, from the first job to the last. A
logger plugin would be started with every call, so that it would have to print dry runs and reports
as well; it is not found in an editable installation, and it is told the rules of a run, but not its
jobs. What is hidden here stands in Snakemake's log file. If anything fails here, Snakemake's
handler is put back.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from snakemake.logging import ColorizingTextHandler, DefaultFormatter, LogEvent, logger
from snakemake.shell import shell

from faithdiff.planning.running import RunningStudy, StudyJob, last_line, last_seconds, span
from faithdiff.study.layout import Layout

if TYPE_CHECKING:
    from snakemake.workflow import Workflow

# What the lines of the display say in fewer words.
HIDDEN = {
    LogEvent.JOB_INFO,
    LogEvent.SHELLCMD,
    LogEvent.JOB_STARTED,
    LogEvent.JOB_FINISHED,
    LogEvent.PROGRESS,
    LogEvent.RESOURCES_INFO,
}
# Under which name each event has the number of its job.
NUMBERS = {
    LogEvent.JOB_INFO: "jobid",
    LogEvent.JOB_FINISHED: "job_id",
    LogEvent.JOB_ERROR: "jobid",
}
SELECTING = "Select jobs to execute..."  # said before each job, without an event of its own
MINUTE = 60.0
PLAIN = "set -euo pipefail; "  # Snakemake's own start of each shell command
# Jobs write to their logs alone (`tee` does both): two at once would garble the live lines.
QUIET = PLAIN + "exec >/dev/null; "


def show_progress(workflow: Workflow, layout: Layout, on_gpus: bool = False) -> None:
    """Show the jobs of a run from now on; a failure costs the display and never the run.

    Args:
        on_gpus: Whether GPUs, and not cores, decide how many jobs run at once.
    """
    settings = workflow.output_settings
    handlers = [h for h in logger.handlers if isinstance(h, ColorizingTextHandler)]
    # Who asks for less, for everything or for another logger gets that; a queue has its own words.
    if settings.quiet or settings.verbose or not handlers or not workflow.local_exec:
        return
    try:
        study = running_study(workflow, layout, on_gpus)
        if study.jobs:
            StudyDisplay(handlers[0], study).open()
    except Exception as error:  # noqa: BLE001 - whatever it is, the study matters more
        logger.warning(f"Progress cannot be shown: {error!r}")


def running_study(workflow: Workflow, layout: Layout, on_gpus: bool) -> RunningStudy:
    """The jobs of a run that is about to start, with their seconds in the last one."""
    logs = Path("logs", layout.profile)
    # Not the rule that only asks for all others.
    wanted = {job: job.jobid for job in workflow.dag.needrun_jobs() if job.rule.shellcmd}
    jobs = {}
    for job, number in wanted.items():
        log = Path(job.log[0])
        timed = Path(job.benchmark).relative_to(logs / "benchmarks") if job.benchmark else None
        jobs[number] = StudyJob(
            name=log.relative_to(logs).with_suffix("").as_posix(),
            timed=timed.with_suffix("").as_posix() if timed else "",
            log=log,
            after=tuple(wanted[each] for each in workflow.dag.dependencies[job] if each in wanted),
            slots=job.resources.get("gpu", 0) if on_gpus else job.threads,
        )
    slots = workflow.global_resources["gpu"].value if on_gpus else workflow.cores
    return RunningStudy(jobs, last_seconds(layout), slots)


class StudyDisplay(logging.Handler):
    """Follows the events of a run, and passes on what a person must see besides.

    Args:
        plain: Snakemake's handler, which prints what is passed on.
    """

    def __init__(self, plain: ColorizingTextHandler, study: RunningStudy) -> None:
        super().__init__(plain.level)
        self._plain, self._study = plain, study
        self._stream = plain.stream
        # Never held while anything is printed: rich's thread holds a lock of its own when it asks
        # for the lines, and both would wait for ever.
        self._state = threading.Lock()
        self._over = threading.Event()
        self._said = threading.Event()  # a line since the last minute began
        self._live: Live | None = None
        self._error: Exception | None = None
        if self._stream.isatty() and os.environ.get("TERM", "dumb") != "dumb":
            console = Console(
                file=self._stream,
                no_color=plain.nocolor or None,
                soft_wrap=True,  # a command in an error can be copied
            )
            self._live = Live(
                console=console,
                get_renderable=self._lines,
                refresh_per_second=2,
                redirect_stdout=sys.stdout.isatty(),
            )

    def open(self) -> None:
        """Take the place of Snakemake's handler."""
        if self._live:
            self._live.start()  # first, so that Snakemake's handler stays where it fails
            # What is passed on appears above the live lines: rich prints for this stream now.
            self._plain.setStream(sys.stderr)
        else:
            threading.Thread(target=self._each_minute, daemon=True).start()
        # The log of a failed job follows its error: nothing of it was on the screen.
        self._plain.setFormatter(DefaultFormatter(show_failed_logs=True))
        shell.prefix(QUIET)
        logger.removeHandler(self._plain)
        logger.addHandler(self)

    def close(self) -> None:
        """Leave the last line, and the terminal as it was; Snakemake calls this at the end."""
        if not self._over.is_set():
            self._over.set()
            if self._live:
                self._plain.setStream(self._stream)
                self._live.stop()
            else:
                self._say(self._study.summary(over=True))
        super().close()

    def emit(self, record: logging.LogRecord) -> None:
        """Follow one event of the run; print it, unless the lines say so already."""
        if not self._over.is_set():
            try:
                if self._error:
                    raise self._error
                self._follow(record)
            except Exception as error:  # noqa: BLE001 - a display that fails must not stop a study
                self._give_up(error)
        if self._over.is_set() or not hidden(record):
            self._plain.handle(record)

    def _follow(self, record: logging.LogRecord) -> None:
        event = getattr(record, "event", None)
        number = getattr(record, NUMBERS.get(event, ""), None)
        if number not in self._study.jobs:  # no job, or the one that only asks for all others
            return
        name = self._study.jobs[number].name
        with self._state:
            if event == LogEvent.JOB_INFO:
                self._study.start(number)
                estimate = self._study.estimate(number)
                line = f"start {name}" + (f", about {span(estimate)}" if estimate else "")
            elif event == LogEvent.JOB_FINISHED:
                line = f"end {name}, {span(self._study.end(number))} · {self._study.summary()}"
            else:
                line = f"FAILED {name}, {span(self._study.fail(number))} · {self._study.summary()}"
        if not self._live:
            self._say(line)

    # --- On a terminal ----------------------------------------------------------------------

    def _lines(self) -> RenderableType:
        """One line for each running job and one for the study; rich asks for them."""
        try:
            with self._state:
                jobs = Table.grid(padding=(0, 2))
                jobs.add_column(no_wrap=True)
                jobs.add_column()
                jobs.add_column(no_wrap=True)
                jobs.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
                over = self._over.is_set()
                for number in [] if over else self._study.running:
                    job, estimate = self._study.jobs[number], self._study.estimate(number)
                    bar = ProgressBar(
                        estimate, self._study.elapsed(number), width=16, pulse=not estimate
                    )
                    said = Text(last_line(job.log), style="dim")
                    jobs.add_row(job.name, bar, self._study.time_of(number), said)
                summary = self._study.summary(over)
                return Group(jobs, Text(summary, "bold", no_wrap=True, overflow="ellipsis"))
        except Exception as error:  # noqa: BLE001 - here it would end rich's thread; `emit` says it
            self._error = error
            return ""

    # --- Elsewhere --------------------------------------------------------------------------

    def _each_minute(self) -> None:
        """Say from time to time that a long job goes on."""
        try:
            while not self._over.wait(MINUTE):
                if not self._said.is_set():
                    with self._state:
                        jobs = ", ".join(
                            f"{self._study.jobs[number].name} {self._study.time_of(number)}"
                            for number in self._study.running
                        )
                        line = f"{self._study.summary()}: {jobs}"
                    self._say(line)
                self._said.clear()
        except Exception as error:  # noqa: BLE001 - as above
            self._error = error

    def _say(self, line: str) -> None:
        self._said.set()
        self._stream.write(f"{datetime.now():%H:%M:%S} {line}\n")
        self._stream.flush()

    def _give_up(self, error: Exception) -> None:
        """Go on with Snakemake's lines and those of the jobs, and say so once."""
        self._over.set()
        shell.prefix(PLAIN)
        if self._live:
            self._plain.setStream(self._stream)
            self._live.stop()
        with suppress(OSError):  # perhaps it was this that failed: a full disk
            self._say(f"Progress is no longer shown: {error!r}. Snakemake's own lines follow.")


def hidden(record: logging.LogRecord) -> bool:
    """Whether the lines of the display take the place of this record."""
    return getattr(record, "event", None) in HIDDEN or record.getMessage() == SELECTING
