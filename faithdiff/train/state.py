"""The resumable state of a training: all that an uninterrupted run would know at that update.

One file, which a rename replaces. The state of a single process lies in it whole. Of several
processes each writes a part (:mod:`faithdiff.train.parts`) into a folder of this update, and the
file, written last, names the folder: until then the state before is whole, and counts.
"""

from __future__ import annotations

import io
import os
import shutil
import time
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor, nn
from torch.optim.optimizer import StateDict
from torch.optim.swa_utils import AveragedModel

from faithdiff.errors import RunError
from faithdiff.study.files import write_bytes_atomic
from faithdiff.study.progress import ProgressBar
from faithdiff.train.engine import Engine
from faithdiff.train.log import LogRow, write_log
from faithdiff.train.processes import Processes, total_bytes
from faithdiff.train.sharding import fill

FORMAT = 3  # of the state; an older one starts afresh
MOMENTS = "optimiser."  # how the names of its tensors begin
SLOWEST_DISK = 100e6  # bytes/s, until a state has been written and timed


class Parts(TypedDict):
    """Where the tensors of several processes are: a folder beside the file, and its checksums."""

    folder: str
    sums: dict[str, str]  # sha256 by name of the file


class Saved(TypedDict):
    """What lies in the file; plain, since torch unpickles only what it knows to be harmless.

    Attributes:
        step: Updates that were done. The position in the data and the state of every random
            generator follow from it: both are keyed by the number of the update.
        scale: Of the loss in fp16.
        losses: Since the last row of `log`.
        tensors: Weights, averaged weights and moments by name; None where `parts` has them.
    """

    format: int
    identity: str
    step: int
    scale: StateDict
    log: list[LogRow]
    losses: list[float]
    tensors: dict[str, Tensor] | None
    parts: Parts | None


@dataclass(frozen=True)
class Contents:
    """What a state is made from, and loaded into; the lists in place, as others hold them too."""

    model: nn.Module
    average: AveragedModel | None
    engine: Engine
    log: list[LogRow]
    losses: list[float]

    def weights(self) -> dict[str, Tensor]:
        """The weights and their average; to write into these tensors is to load them."""
        found = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        if self.average is not None:
            averaged = self.average.state_dict()
            found |= {f"average.{name}": tensor for name, tensor in averaged.items()}
        return found

    def tensors(self) -> dict[str, Tensor]:
        """All tensors of the state that this process holds."""
        return self.weights() | _moments(self.engine.moments())

    def blank(self, saved: Iterable[str]) -> dict[str, Tensor]:
        """The same, with room for the moments that were saved."""
        names = {name.removeprefix(MOMENTS) for name in saved if name.startswith(MOMENTS)}
        return self.weights() | _moments(self.engine.blank_moments(names))


def _moments(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{MOMENTS}{name}": tensor for name, tensor in found.items()}


class State:
    """Saves and resumes one training; all of its processes call this alike."""

    def __init__(
        self, file: Path | None, identity: str, contents: Contents, processes: Processes
    ) -> None:
        self._file = file
        self._identity = identity
        self._contents = contents
        self._processes = processes
        weights, trained = contents.weights().values(), contents.engine.parameters
        #: What saving takes: an upper estimate, then the longest that it took, and half more.
        self.seconds = (total_bytes(weights) + 2 * total_bytes(trained)) / SLOWEST_DISK

    def save(self, step: int) -> None:
        """Write the state after `step` updates.

        Raises:
            RunError: It cannot be written; the state before it stays.
        """
        file = self._file
        if file is None:
            return
        begun = time.perf_counter()
        partial, folder = file.with_suffix(".partial"), _folder(file, step)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            if self._processes.count == 1:
                # A rename is whole or not at all. A job that is killed while it writes, as queues
                # do at their limit, finds the state before this one.
                torch.save(self._saved(step, self._contents.tensors(), None), partial)
                os.replace(partial, file)
            else:
                self._write_parts(file, folder, step)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            # Before the half file is gone: torch says of a full disk only that a position is odd.
            free = shutil.disk_usage(file.parent).free / 1e6
            partial.unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            raise RunError(
                f"{file}: the training state cannot be written, {free:.1f} MB are free there: "
                f"{error}; free some space, then run the same command again: it goes on from the "
                "last state"
            ) from None
        if self._processes.first:
            _clear(file, keep=folder)
        self._processes.wait()
        self.seconds = 1.5 * (time.perf_counter() - begun)

    def _write_parts(self, file: Path, folder: Path, step: int) -> None:
        from faithdiff.train.parts import write_parts  # a single process has no use for it

        sums = write_parts(self._contents.tensors(), folder, self._processes)
        if self._processes.first:
            pointer = io.BytesIO()
            torch.save(self._saved(step, None, {"folder": folder.name, "sums": sums}), pointer)
            write_bytes_atomic(pointer.getvalue(), file)

    def _saved(self, step: int, tensors: dict[str, Tensor] | None, parts: Parts | None) -> Saved:
        return {
            "format": FORMAT,
            "identity": self._identity,
            "step": step,
            "scale": self._contents.engine.scale(),
            "log": self._contents.log,
            "losses": self._contents.losses,
            "tensors": tensors,
            "parts": parts,
        }

    def resume(self) -> int:
        """Load the state and return its updates; one of another identity or corrupted counts 0.

        Raises:
            CorruptedError: A part of it is missing or corrupted.
        """
        # What the first process finds counts for all: on a shared disk they might see two states.
        saved = self._processes.all_say(self._find() if self._processes.first else None)[0]
        if saved is None or self._file is None:
            return 0
        contents = self._contents
        if saved["parts"] is None:
            # Mapped, so that the processes of one machine read one copy of it.
            whole: Saved = torch.load(self._file, weights_only=True, map_location="cpu", mmap=True)
            tensors = whole["tensors"] or {}
            for name, tensor in contents.blank(tensors).items():
                fill(tensor, tensors[name])
        else:
            self._read_parts(self._file, saved["parts"])
        contents.engine.set_scale(saved["scale"])
        contents.log[:] = saved["log"]
        contents.losses[:] = saved["losses"]
        return saved["step"]

    def _find(self) -> Saved | None:
        """What is saved, without its tensors; None where a training starts afresh."""
        file = self._file
        if file is None or not file.is_file():
            return None
        try:
            # A flipped bit in a weight raises nothing, and trains on; hence the sums, before the
            # load.
            _check_sums(file)
            state: Saved = torch.load(file, weights_only=True, map_location="cpu", mmap=True)
        except Exception as error:  # noqa: BLE001 - a corrupted file raises what it likes
            ProgressBar.write(
                f"{file}: corrupted, starting afresh ({type(error).__name__}: {error})"
            )
            return None
        # Afresh and not refused: settings of a study change on purpose, and its old states are no
        # loss.
        if (state.get("format"), state["identity"]) != (FORMAT, self._identity):
            ProgressBar.write(f"{file}: belongs to other settings, starting afresh")
            return None
        parts = state["parts"]
        _clear(file, keep=file.with_name(parts["folder"]) if parts else None)
        return {**state, "tensors": None}

    def _read_parts(self, file: Path, parts: Parts) -> None:
        from faithdiff.train.parts import check_parts, names_in, read_parts

        folder = file.with_name(parts["folder"])
        # Refused, where a single corrupted file starts afresh: a training that needs several GPUs
        # has cost days, and whether they are lost is for a person to say.
        check_parts(
            parts["sums"],
            folder,
            f"the training state {file} cannot be resumed without this part: put it back from a "
            "copy, or delete the state to train from the start; then run the same command again",
            self._processes,
        )
        read_parts(self._contents.blank(names_in(folder)), folder)

    def show_log(self) -> None:
        """Write the log so far beside the state, for whoever watches (`dvc plots show`)."""
        file = self._file
        if self._processes.first and file is not None:
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                write_log(self._contents.log, file.with_suffix(".csv"))
            except OSError as error:
                raise RunError(f"{file}: its log cannot be written: {error}") from None


def _folder(file: Path, step: int) -> Path:
    """Where the parts of a state are."""
    return file.with_name(f"{file.stem}.{step:06d}.parts")


def _clear(file: Path, keep: Path | None) -> None:
    """Remove parts of older states, and of those that were never finished."""
    for folder in file.parent.glob(f"{file.stem}.*.parts"):
        if folder != keep:
            shutil.rmtree(folder, ignore_errors=True)


def _check_sums(file: Path) -> None:
    """Hold every tensor of a state against the checksum that torch wrote and does not read."""
    with zipfile.ZipFile(file) as archive:
        if bad := archive.testzip():
            raise zipfile.BadZipFile(f"wrong checksum of {bad}")
