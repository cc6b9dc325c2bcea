"""Published systems whose models stay loaded: one process for all images, each with its own seed.

The process is ``driver.py``, in the authors' environment. It gives what a process for each image
would give, and a finished image is never made twice.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import ClassVar

from baselines.official import driver
from baselines.official.definition import KeptCommon
from baselines.official.runner import Official
from faithdiff.errors import RunError
from faithdiff.methods.external.command import PATIENCE, Task
from faithdiff.methods.external.process import Call, run
from faithdiff.methods.external.results import one_line
from faithdiff.methods.method import Item, Keep
from faithdiff.study.files import write_text_atomic
from faithdiff.study.progress import ProgressBar


class OfficialKept(Official):
    """A published system whose script loads its models in functions that can be called once."""

    #: Of the script: what loads models; the attribute of its result that holds the arguments.
    loaders: ClassVar[dict[str, str]]

    chosen: KeptCommon

    def one_by_one(self, work: Path, missing: list[Item], scale: int, keep: Keep) -> dict[str, str]:
        if not self.chosen.keep_loaded:
            return super().one_by_one(work, missing, scale, keep)
        # What a killed run had finished is taken; what it had failed on is tried again.
        failures: dict[str, str] = {}
        waiting = self._outcomes(work, missing, scale, keep, failures)
        left = [item for item in missing if item in waiting or item.name in failures]
        failures, wanted, rounds = {}, len(left), 0
        title = f"restore {self.name}"
        bar = ProgressBar(total=wanted, desc=title, unit="image", mininterval=2)

        def collect() -> None:
            nonlocal left
            before = len(left)
            left = self._outcomes(work, left, scale, keep, failures)
            bar.update(before - len(left))

        while left:
            rounds += 1
            call = self._call_of_all(work, left, scale, rounds)
            ended = run(call, collect)
            self.calls.append(ended)
            collect()
            if ended.code == driver.DIFFERS:
                bar.close()
                print(f"{self.name}: goes on with a process for each image: {ended.last_line}")
                return failures | super().one_by_one(work, left, scale, keep)
            if left:  # the process died at the first of them
                failures[left[0].name] = f"no image, {ended}"
                left = left[1:]
                bar.update(1)
            made = wanted - len(left) - len(failures)
            if not made and (not left or rounds == PATIENCE):
                raise RunError(
                    f"{self.name}: no image came out: {next(iter(failures.values()))}; all that it "
                    f"printed is in {call.log}"
                )
        bar.close()
        return failures

    def _call_of_all(self, work: Path, items: list[Item], scale: int, number: int) -> Call:
        images = []
        for item in items:
            folder = _folder(work, item).absolute()
            shutil.rmtree(folder, ignore_errors=True)
            task = Task(folder / "making", [item], item.seed, scale)
            task.write()
            images.append({"folder": str(folder), "arguments": self.arguments(task)})
        job = {"entry": self.definition.entry, "loaders": self.loaders, "images": images}
        file = (work / "job.json").absolute()
        write_text_atomic(json.dumps(job, indent=1) + "\n", file)
        log = work.absolute() / f"log-{number}.txt"
        print(f"{self.name}: {len(items)} images in one process, log in {log}", flush=True)
        return self.python(str(Path(driver.__file__).absolute()), str(file), log=log)

    def _outcomes(
        self, work: Path, items: list[Item], scale: int, keep: Keep, failures: dict[str, str]
    ) -> list[Item]:
        """Keep the results that are there, and note the failures; the images with neither."""
        waiting = []
        for item in items:
            folder = _folder(work, item)
            done, failed = folder / "done", folder / "failed.txt"
            if done.is_dir():
                said = one_line((done / "said.txt").read_text(encoding="utf-8"))
                task = Task(done, [item], item.seed, scale)
                problems = self.take(task, keep, f"no image: {said}")
                failures |= problems
                if not problems:
                    shutil.rmtree(folder)
            elif failed.is_file():
                failures[item.name] = one_line(f"no image: {failed.read_text(encoding='utf-8')}")
            else:
                waiting.append(item)
        return waiting


def _folder(work: Path, item: Item) -> Path:
    """Where an image is made: `making` while it is, `done` once it is, or ``failed.txt``."""
    return work / "images" / item.name
