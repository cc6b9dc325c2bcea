"""The contract of a method, as checks that run on any of them: built-in, official, the user's own.

A few small pictures are restored as a study restores them, in a folder that is thrown away unless
a point is broken: twice, in another order, alone, after an interruption, and with one of them
corrupted. (The idea is benchopt's: one test-suite for every solver.)
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from faithdiff.config import FolderSet
from faithdiff.data.images import read_result, write_png
from faithdiff.errors import FaithDiffError, RunError, UserError
from faithdiff.methods.method import Method, Study
from faithdiff.methods.registry import find_method
from faithdiff.restore.run import restore_job
from faithdiff.study import seeds
from faithdiff.study.files import write_text_atomic
from faithdiff.study.layout import Layout
from faithdiff.study.restored import RestoredSet

SET, LEVEL = "Contract", "contract"
MINUTES = 20.0  # of a call that has no limit of its own: a check is waited for
NAMES = ("first", "two words", "with.dots", "wide")  # the last is of another shape
Outcome = Literal["kept", "broken", "not checked"]


@dataclass(frozen=True)
class ContractFinding:
    """One point of the contract, and what came of it."""

    point: str
    outcome: Outcome
    note: str = ""


@dataclass(frozen=True)
class _Scratch(Layout):
    """Data and restorations below `root`; checkpoints and prior are the study's own."""

    root: Path = Path()

    def dataset(self, dataset: str) -> Path:
        return self.root / dataset

    @property
    def cache(self) -> Path:
        return self.root / ".store"

    def restored(self, method: str, seed: int) -> Path:
        return self.root / "restored" / method / f"seed{seed}"

    def outside(self, method: str, seed: int, dataset: str, level: str) -> Path:
        return self.root / ".work" / method / dataset / level

    def lock(self, job: str, method: str, seed: int) -> Path:
        return self.root / ".work" / f"{job}-{method}.lock"


def check_method(study: Study, name: str, seed: int = 0, size: int = 24) -> list[ContractFinding]:
    """Run every check on a method of the profile.

    Args:
        study: The study that it belongs to.
        name: Its name.
        seed: Repetition whose weights are loaded.
        size: Side of the test images, LQ pixels.

    Raises:
        FaithDiffError: It cannot run at all: not trained, not prepared, weights missing.
    """
    method = find_method(study, name)
    folder = Path(tempfile.mkdtemp(prefix="faithdiff-contract-"))
    findings: list[ContractFinding] = []
    try:
        if method.given:
            findings = _given(study, method, name, seed, folder)
        elif problems := method.needs(study):
            raise UserError("\n".join(f"{name}: {problem}" for problem in problems))
        else:
            method.minutes = method.minutes or MINUTES
            findings = list(_Trial(study, method, name, seed, size, folder).findings())
    finally:
        # Of a command that breaks it, its author needs the log that was named, and the images.
        if method.given or kept(findings):
            shutil.rmtree(folder)
    return findings


def kept(findings: list[ContractFinding]) -> bool:
    """Whether no point is broken."""
    return all(finding.outcome != "broken" for finding in findings)


def table(name: str, findings: list[ContractFinding]) -> str:
    """The findings as lines."""
    width = max(len(finding.point) for finding in findings)
    lines = [
        f"  {finding.point:{width}}  {finding.outcome}" + (f": {finding.note}" * bool(finding.note))
        for finding in findings
    ]
    verdict = "keeps the contract" if kept(findings) else "BREAKS the contract"
    return "\n".join([*lines, f"{name}: {verdict}", ""])


class _Trial:
    """A method with small test images of its own; each restoration has a fresh store."""

    def __init__(
        self, study: Study, method: Method, name: str, seed: int, size: int, root: Path
    ) -> None:
        self.study, self.method, self.name, self.seed = study, method, name, seed
        self.root, self.scale = root, study.profile.data.scale
        self.images = {
            image: _picture(study.profile.seed, image, size, size * (2 if image == "wide" else 1))
            for image in NAMES
        }
        self.runs = 0

    def findings(self) -> Iterator[ContractFinding]:
        """Every point; those after a failed restoration are left out."""
        # The first run is what all others are held against; where it fails there is nothing to say.
        first = self._fresh(NAMES)
        try:
            results, failures = self._restore(first)
        except RunError as error:
            yield ContractFinding("names", "broken", str(error))
            return
        yield _finding("names", self._names(results), _reasons(failures))
        if failures:
            return
        yield _finding("shape", all(self._fits(name, image) for name, image in results.items()))
        yield self._range()
        # In a fresh store each time, or the method would not be asked at all.
        again, _ = self._restore(self._fresh(NAMES))
        yield _finding("determinism", same(results, again), "a second run gave other pixels")
        turned, _ = self._restore(self._fresh(NAMES[::-1]))
        yield self._alone("independence of order", same(results, turned))
        alone, _ = self._restore(self._fresh(NAMES[1:2]))
        yield self._alone("independence of the others", same(alone, results, NAMES[1:2]))
        yield self._resumes(first, results)
        yield self._refuses()

    def _fresh(self, names: tuple[str, ...]) -> Study:
        """The study with nothing but these test images, in a folder of its own."""
        self.runs += 1
        layout = _Scratch(self.study.profile.profile, self.root / f"run{self.runs}")
        config = FolderSet(source="folder", path=layout.dataset(SET))
        data = self.study.profile.data.model_copy(update={"test": {SET: config}, "levels": [LEVEL]})
        # Written as `faithdiff degrade` and `prepare` would have left them: the job under test is
        # the study's own.
        for name in names:
            write_png(self.images[name], layout.lq(SET, LEVEL) / f"{name}.png")
        rows = "".join(f"{name},a picture\n" for name in names)
        write_text_atomic(f"name,caption\n{rows}", layout.dataset(SET) / "index.csv")
        profile = self.study.profile.model_copy(update={"data": data})
        return replace(self.study, profile=profile, layout=layout)

    def _restore(self, study: Study) -> tuple[dict[str, NDArray[np.uint8]], dict[str, str]]:
        return _restored(study, self.method, self.name, self.seed, SET, LEVEL)

    def _names(self, results: dict[str, NDArray[np.uint8]]) -> bool:
        return set(results) == set(NAMES)

    def _fits(self, name: str, image: NDArray[np.uint8]) -> bool:
        height, width = self.images[name].shape[:2]
        return image.shape == (self.scale * height, self.scale * width, 3)

    def _range(self) -> ContractFinding:
        """Before 8 bits hide it: values of the tensor itself."""
        if self.method.whole_sets:
            return ContractFinding("range", "not checked", "its outputs are files of 8 bits")
        study = self._fresh(NAMES)
        restorer = self.method.load(study, study.layout.checkpoint(self.name, self.seed))
        lq = torch.from_numpy(self.images["first"].copy()).permute(2, 0, 1)[None].float() / 255
        given = lq.clone()  # a method that writes into its input would change what is scored
        out = restorer.restore(lq, ["a picture"], [1])
        if not torch.equal(lq, given):
            return ContractFinding("range", "broken", "the LQ tensor was changed in place")
        good = out.dtype == torch.float32 and bool(torch.isfinite(out).all())
        good = good and float(out.min()) >= 0 and float(out.max()) <= 1
        return _finding("range", good, f"{out.dtype} in [{out.min():.3g}, {out.max():.3g}]")

    def _alone(self, point: str, good: bool) -> ContractFinding:
        if self.method.per == "set":
            note = "`per: set` says that results of a set may depend on one another"
            return ContractFinding(point, "not checked", note)
        way = "; `per: image` gives each a call of its own" if self.method.per == "folder" else ""
        return _finding(point, good, f"an image depends on those beside it{way}")

    def _resumes(self, study: Study, results: dict[str, NDArray[np.uint8]]) -> ContractFinding:
        """The second half of the finished images is lost: these alone are made again, and alike.

        By name and not by the key of the cache: what is lost must not hang on a hash.
        """
        images = _manifest(study, self.name, self.seed, SET, LEVEL).images
        kept = [images[name].key for name in sorted(images) if images[name].key]
        # Half, so that both ways are tried: images that are found, and images that are made again.
        finished = [study.layout.cached(key) for key in kept]
        missing = finished[len(finished) // 2 :]
        for file in missing:
            file.unlink(missing_ok=True)
        lost = len(missing)
        again, _ = self._restore(study)
        made = _manifest(study, self.name, self.seed, SET, LEVEL).made
        whole = self.method.per == "set"
        note = f"{made} images were made again where {lost} were lost, or with other pixels"
        return _finding("resume", same(results, again) and (whole or made == lost), note)

    def _refuses(self) -> ContractFinding:
        """A corrupted LQ image stops the job with its name, and leaves no manifest."""
        study = self._fresh(NAMES)
        bad = study.layout.lq(SET, LEVEL) / "first.png"
        bad.write_bytes(bad.read_bytes()[:60])  # a sound header: only decoding finds it out
        folder = study.layout.restoration(self.name, self.seed, SET, LEVEL)
        try:
            self._restore(study)
        except FaithDiffError as error:
            good = bad.name in str(error) and not (folder / "manifest.json").exists()
            return _finding("refusal of a corrupted image", good, f"said: {error}")
        except Exception as error:  # noqa: BLE001 - any other error is the finding
            return ContractFinding("refusal of a corrupted image", "broken", repr(error))
        return ContractFinding(
            "refusal of a corrupted image", "broken", "it was restored as if whole"
        )


def same(
    one: dict[str, NDArray[np.uint8]],
    two: dict[str, NDArray[np.uint8]],
    names: tuple[str, ...] = NAMES,
) -> bool:
    """Whether both have these images, pixel by pixel."""
    return all(
        name in one and name in two and np.array_equal(one[name], two[name]) for name in names
    )


def _given(study: Study, method: Method, name: str, seed: int, root: Path) -> list[ContractFinding]:
    """Of given outputs: that every image of the study's own test sets is there and fits."""
    layout = _GivenTo(study.profile.profile, root)
    own = replace(study, layout=layout)
    failures: dict[str, str] = {}
    count = 0
    try:
        for dataset, level in study.profile.data.places:
            results, failed = _restored(own, method, name, seed, dataset, level)
            failures |= {f"{dataset}/{level}/{image}": why for image, why in failed.items()}
            count += len(results)
    except UserError as error:
        return [ContractFinding("names, shape, readable", "broken", str(error))]
    findings = [_finding("names, shape, readable", not failures, _reasons(failures))]
    note = "the method that made these files is not here"
    return [*findings, ContractFinding("determinism, order, resume", "not checked", note)]


class _GivenTo(_Scratch):
    """Restorations below `root`; datasets are the study's own."""

    def dataset(self, dataset: str) -> Path:
        return Layout(self.profile).dataset(dataset)


def _restored(
    study: Study, method: Method, name: str, seed: int, dataset: str, level: str
) -> tuple[dict[str, NDArray[np.uint8]], dict[str, str]]:
    """Restore as a study does; the images by name, and why others are missing."""
    folder = study.layout.restoration(name, seed, dataset, level)
    if not (folder / "manifest.json").is_file() or dataset == SET:
        restore_job(study, method, name, seed)
    images = _manifest(study, name, seed, dataset, level).images
    failures = {image: entry.failed for image, entry in images.items() if entry.failed}
    return {file.stem: read_result(file) for file in folder.glob("*.png")}, failures


def _manifest(study: Study, name: str, seed: int, dataset: str, level: str) -> RestoredSet:
    return RestoredSet.require(
        study.layout.restoration(name, seed, dataset, level) / "manifest.json"
    )


def _finding(point: str, good: bool, note: str = "") -> ContractFinding:
    return ContractFinding(point, "kept") if good else ContractFinding(point, "broken", note)


def _reasons(failures: dict[str, str]) -> str:
    return "; ".join(f"{name}: {why}" for name, why in sorted(failures.items()))


def _picture(master: int, name: str, height: int, width: int) -> NDArray[np.uint8]:
    """A smooth random picture ``(height, width, 3)``, with a little texture."""
    rng = seeds.numpy_rng(master, "contract", name)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), float)
    noisy = smooth + rng.normal(0, 6, (height, width, 3))
    return np.asarray(noisy.clip(0, 255).round(), np.uint8)
