"""Methods that are a command: what one call gets, what becomes of its outputs, how it resumes.

A call works in a folder of its own, named by the keys of all images of the test set. So outputs
that a killed call left behind are those of the same command on the same images, and are taken.
"""

from __future__ import annotations

import shutil
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from faithdiff.config import digest
from faithdiff.data.captions import write_captions
from faithdiff.data.images import read_image
from faithdiff.errors import RunError, UserError
from faithdiff.methods.external.process import Call, Ended, run
from faithdiff.methods.external.results import images_in, other_files, strangers, take
from faithdiff.methods.method import Item, Keep, Method, Place, SetToRestore
from faithdiff.study import seeds
from faithdiff.study.plain import Json
from faithdiff.study.progress import ProgressBar

PATIENCE = 3  # calls in a row without one image, after which a job per image gives up


class Task:
    """What one call gets: folders, seed, and the images."""

    def __init__(self, folder: Path, items: list[Item], seed: int, scale: int) -> None:
        self.folder = folder.absolute()
        self.items = items
        self.seed = seed % 2**31  # what numpy, torch and every script accept
        self.scale = scale

    @property
    def lq(self) -> Path:
        """Folder that holds the LQ images of this call, ``<name>.png``, and nothing else."""
        return self.folder / "lq"

    @property
    def out(self) -> Path:
        """Folder that receives the outputs."""
        return self.folder / "out"

    @property
    def captions(self) -> Path:
        """CSV with the columns name and caption."""
        return self.folder / "captions.csv"

    def write(self) -> None:
        """Lay out the folders, with an empty one for the outputs."""
        for folder in (self.lq, self.out):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        for item in self.items:
            shutil.copyfile(item.lq, self.lq / f"{item.name}.png")
        write_captions({item.name: item.caption for item in self.items}, self.captions)

    def clear(self) -> None:
        """Remove all but the log."""
        for folder in (self.lq, self.out):
            shutil.rmtree(folder, ignore_errors=True)


class CommandMethod(Method):
    """A method that is a command; its parts are said by :meth:`call` and :meth:`found`."""

    whole_sets = True
    prepared = True
    stops_without_needs = True

    name: str

    def __init__(self) -> None:
        self.calls: list[Ended] = []

    @abstractmethod
    def call(self, task: Task) -> Call:
        """The command line of one call."""

    def found(self, task: Task) -> dict[str, Path]:
        """The outputs of a call by the name of the image; images directly in ``task.out``."""
        return images_in(task.out, task.items)

    def keyed(self, place: Place, items: list[Item]) -> list[Item]:
        if self.per == "image":
            return items
        # One seed for a call, which is no image's own.
        together = [item.key for item in items] if self.per == "set" else []
        return [
            replace(item, key=digest(item.key, self.per, place.seed, together)) for item in items
        ]

    def record(self) -> dict[str, Json]:
        return {
            "calls": len(self.calls),
            "exit_codes": sorted({ended.code for ended in self.calls}),
            "memory_gib": max((ended.memory_gib for ended in self.calls), default=None),
            "gpu_gib": max((ended.gpu_gib for ended in self.calls), default=None),
        }

    def restore_set(self, wanted: SetToRestore) -> dict[str, str]:
        study, place, items = wanted.study, wanted.place, wanted.items
        missing, keep = wanted.missing, wanted.keep
        if problems := self.needs(study):
            raise UserError("\n".join(f"{self.name}: {problem}" for problem in problems))
        for item in items:
            read_image(item.lq)  # a corrupted LQ image stops here, by its name
        self.calls = []
        work = _work(place.work, items)
        scale = study.profile.data.scale
        if self.per == "image":
            return self.one_by_one(work, missing, scale, keep)
        seed = seeds.seed(
            study.profile.seed, "restore", place.dataset, place.level, "folder", place.seed
        )
        task = Task(work, missing, seed, scale)
        if self.per == "set":
            task.items = items
        else:
            task.items = self._left_behind(task, keep)
        return self._one_call(task, keep) if task.items else {}

    def _left_behind(self, task: Task, keep: Keep) -> list[Item]:
        """Take what a killed call had finished; the items that are still missing."""
        found = self.found(task) if task.out.is_dir() else {}
        failures = take(found, task.items, task.scale, keep, "")
        return [item for item in task.items if item.name in failures]

    def one_by_one(self, work: Path, missing: list[Item], scale: int, keep: Keep) -> dict[str, str]:
        """Restore images that each have a seed of their own, by a call for each."""
        failures: dict[str, str] = {}
        in_a_row = 0
        for item in ProgressBar(missing, desc=f"restore {self.name}", unit="image", mininterval=2):
            task = Task(work / item.name, [item], item.seed, scale)
            new = self._call(task, keep)
            failures |= new
            in_a_row = in_a_row + 1 if new else 0
            if len(failures) == in_a_row == min(PATIENCE, len(missing)):
                raise self._hopeless(task, new[item.name])
        return failures

    def _one_call(self, task: Task, keep: Keep) -> dict[str, str]:
        failures = self._call(task, keep)
        if len(failures) == len(task.items):
            raise self._hopeless(task, next(iter(failures.values())))
        return failures

    def _hopeless(self, task: Task, why: str) -> RunError:
        return RunError(
            f"{self.name}: no image came out: {why}; all that it printed is in "
            f"{task.folder / 'log.txt'}"
        )

    def _call(self, task: Task, keep: Keep) -> dict[str, str]:
        task.write()
        call = self.call(task)
        print(f"{self.name}: {len(task.items)} images, log in {call.log}", flush=True)
        ended = run(call)
        self.calls.append(ended)
        failures = self.take(task, keep, f"no image, {ended}{other_files(task.out)}")
        if ended.left_behind:
            print(f"{self.name}: processes that it had left running were ended", flush=True)
        if ended.code and not failures:
            print(f"{self.name}: all images are there, though: {ended}", flush=True)
        if not failures:
            task.clear()
        return failures

    def take(self, task: Task, keep: Keep, absent: str) -> dict[str, str]:
        """Keep the outputs of a call; say of every other image why it has none."""
        found = self.found(task)
        failures = take(found, task.items, task.scale, keep, absent)
        if extra := strangers(found, task.items):
            raise RunError(f"{self.name}: {extra}; outputs are named as their LQ image")
        return failures


def _work(folder: Path, items: Iterable[Item]) -> Path:
    """The folder of this command on these images; those of others are removed."""
    name = digest([item.key for item in items])
    for other in folder.iterdir() if folder.is_dir() else ():
        if other.name != name:
            shutil.rmtree(other)
    return folder / name
