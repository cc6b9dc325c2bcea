"""The resumable state of a training: all that an uninterrupted run would know at that update."""

from __future__ import annotations

import os
import shutil
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from faithdiff.errors import RunError
from faithdiff.study.progress import ProgressBar
from faithdiff.train.engine import Engine, EngineState
from faithdiff.train.log import LogRow, write_log
from faithdiff.train.processes import total_bytes

if TYPE_CHECKING:
    from faithdiff.train.loop import Job

FORMAT = 2  # of the state; an older one starts afresh
SLOWEST_DISK = 100e6  # bytes/s, until a state has been written and timed


class Saved(TypedDict):
    """What lies in the file; plain, since torch unpickles only what it knows to be harmless.

    Attributes:
        step: Updates that were done. The position in the data and the state of every random
            generator follow from it: both are keyed by the number of the update.
        average: Of the averaged weights; None where the job keeps none.
        losses: Since the last row of `log`.
    """

    format: int
    identity: str
    step: int
    model: dict[str, Tensor]
    engine: EngineState
    average: dict[str, Tensor] | None
    log: list[LogRow]
    losses: list[float]


class State:
    """Saves and resumes one job; only the first process writes."""

    def __init__(self, job: Job, engine: Engine, average: AveragedModel | None) -> None:
        self._job = job
        self._engine = engine
        self._average = average
        trained = [p for group in job.groups for p in group.parameters]
        kept = total_bytes(job.model.state_dict().values()) * (2 if average is not None else 1)
        #: What saving takes: an upper estimate, then the longest that it took, and half more.
        self.seconds = (kept + 2 * total_bytes(trained)) / SLOWEST_DISK

    def save(self, step: int) -> None:
        """Write the state after `step` updates.

        Raises:
            RunError: It cannot be written; the state before it stays.
        """
        begun = time.perf_counter()
        # By all processes, although one writes: with a sharded optimiser each holds a part.
        self._engine.gather()
        if self._job.processes.first and self._job.state is not None:
            self._write(step)
        self._job.processes.wait()
        self.seconds = 1.5 * (time.perf_counter() - begun)

    def _write(self, step: int) -> None:
        job, average = self._job, self._average
        assert job.state is not None
        state: Saved = {
            "format": FORMAT,
            "identity": job.identity,
            "step": step,
            "model": job.model.state_dict(),
            "engine": self._engine.state_dict(),
            "average": average.state_dict() if average is not None else None,
            "log": job.log,
            "losses": job.losses,
        }
        job.state.parent.mkdir(parents=True, exist_ok=True)
        partial = job.state.with_suffix(".partial")
        try:
            # A rename is whole or not at all. A job that is killed while it writes, as queues do at
            # their limit, finds the state before this one.
            torch.save(state, partial)
            os.replace(partial, job.state)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            # Before the half file is gone: torch says of a full disk only that a position is odd.
            free = shutil.disk_usage(job.state.parent).free / 1e6
            partial.unlink(missing_ok=True)
            raise RunError(
                f"{job.state}: the training state cannot be written, {free:.1f} MB are free there: "
                f"{error}; free some space, then run the same command again: it goes on from the "
                "last state"
            ) from None

    def resume(self) -> int:
        """Load the state and return its updates; one of another identity or corrupted counts 0."""
        file = self._job.state
        if file is None or not file.is_file():
            return 0
        try:
            # A flipped bit in a weight raises nothing, and trains on; hence the sums, before the
            # load.
            _check_sums(file)
            # Mapped, so that the processes of one machine read one copy of it.
            state: Saved = torch.load(file, weights_only=True, map_location="cpu", mmap=True)
        except Exception as error:  # noqa: BLE001 - a corrupted file raises what it likes
            ProgressBar.write(
                f"{file}: corrupted, starting afresh ({type(error).__name__}: {error})"
            )
            return 0
        # Afresh and not refused: settings of a study change on purpose, and its old states are no
        # loss.
        if (state.get("format"), state["identity"]) != (FORMAT, self._job.identity):
            ProgressBar.write(f"{file}: belongs to other settings, starting afresh")
            return 0
        self._load(state)
        return int(state["step"])

    def show_log(self) -> None:
        """Write the log so far beside the state, for whoever watches (`dvc plots show`)."""
        job = self._job
        if job.processes.first and job.state is not None:
            try:
                job.state.parent.mkdir(parents=True, exist_ok=True)
                write_log(job.log, job.state.with_suffix(".csv"))
            except OSError as error:
                raise RunError(f"{job.state}: its log cannot be written: {error}") from None

    def _load(self, state: Saved) -> None:
        job = self._job
        job.model.load_state_dict(state["model"])
        self._engine.load_state_dict(state["engine"])
        if self._average is not None and state["average"] is not None:
            self._average.load_state_dict(state["average"])
        # In place: the clock and whoever built the job hold the same lists.
        job.log[:] = state["log"]
        job.losses[:] = state["losses"]


def _check_sums(file: Path) -> None:
    """Hold every tensor of a state against the checksum that torch wrote and does not read."""
    with zipfile.ZipFile(file) as archive:
        if bad := archive.testzip():
            raise zipfile.BadZipFile(f"wrong checksum of {bad}")
