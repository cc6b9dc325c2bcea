"""Holds every file of a study against what was recorded of it, and removes what is corrupted.

Each step checks what it reads, so no corrupted file reaches a number. This looks at everything at
once, also at what no step reads again: restorations that are scored, results, DVC's cache.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec

from faithdiff.config import REAL
from faithdiff.data.artifacts import ARTIFACTS_FILE, Artifact, check_shipped, lacking, state
from faithdiff.data.datasets import SOURCES, changed_sources
from faithdiff.data.images import png_is_whole
from faithdiff.data.recorded import LOG, check_hq, check_lq, hq_hashes, lq_hashes
from faithdiff.errors import CheckpointError, CorruptedError, RunError, UserError
from faithdiff.methods.method import Study
from faithdiff.score.protocols import files_needed
from faithdiff.study.checkpoints import RUN, check_checkpoint
from faithdiff.study.checksums import (
    check_file,
    check_summed,
    corrupted,
    read_checked,
    sum_file,
)
from faithdiff.study.layout import Layout
from faithdiff.study.lockfile import LOCK, locked_stages, stage_name
from faithdiff.study.manifest import Manifest
from faithdiff.study.restored import RestoredSet
from faithdiff.tracking.dvc import check_object, object_folder

Arguments = ParamSpec("Arguments")


@dataclass(frozen=True)
class Finding:
    """Something corrupted: what to say, and what to remove so that the same run makes it again.

    Attributes:
        changed: It is a picture of the user's that is no longer what was prepared.
    """

    message: str
    remove: tuple[Path, ...] = ()
    changed: bool = False


@dataclass
class Report:
    """What was looked at, and what was found."""

    checked: int = 0
    findings: list[Finding] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)  # what could not be looked at, and why

    def check(
        self,
        remove: tuple[Path, ...],
        look: Callable[Arguments, object],
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> bool:
        """Look at a file; keep what is wrong with it. Returns whether it is whole."""
        self.checked += 1
        try:
            look(*arguments, **named)
        except (CorruptedError, CheckpointError, UserError) as error:
            self.findings.append(Finding(str(error), remove))
            return False
        return True


def verify(study: Study, root: Path = Path()) -> Report:
    """Check data, checkpoints, restorations, results, installed weights and DVC's cache.

    What a study does not have (yet) is no finding.

    Args:
        study: Its profile and layout; the current folder is that of the run.
        root: The same folder, for what DVC keeps.
    """
    report, layout = Report(), study.layout
    for folder in _folders(layout.dataset("train").parent):
        _dataset(folder, report)
        _sources(study, folder, report)
    _training(study, report)
    for folder in _folders(layout.cache.parent):
        _restorations(layout, folder, report)
    for file in sorted(layout.cache.glob("??/*.png")):
        report.check((file,), _check_png, file)
    _results(layout, report)
    _installed(study, report)
    _versions(study, root, report)
    return report


def repair(report: Report) -> list[Path]:
    """Remove what is corrupted and the records that call it finished; return what was removed.

    Nothing is made here: the next run makes what is missing, and nothing that is not.
    """
    gone = sorted({path for each in report.findings for path in each.remove if path.exists()})
    for path in gone:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return gone


def _folders(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    return sorted(p for p in parent.iterdir() if p.is_dir() and not p.name.startswith("."))


def _table(file: Path) -> tuple[Path, Path]:
    return file, sum_file(file)


# --- The study's own files ------------------------------------------------------------------------


def _dataset(folder: Path, report: Report) -> None:
    """Images and tables of ``data/<profile>/<dataset>``."""
    index = folder / "index.csv"
    if index.is_file() and report.check(_table(index), hq_hashes, folder):
        hashes = hq_hashes(folder)
        real = not (folder / "hq").is_dir()  # its images came degraded
        images, look = (folder / "lq" / REAL, check_lq) if real else (folder / "hq", check_hq)
        for name in hashes:
            file = images / f"{name}.png"
            report.check((file, *_table(index)), look, file, hashes)
    for level in _folders(folder / "lq"):
        captions, log = level / "captions.csv", level / LOG
        if captions.is_file():
            report.check(_table(captions), check_summed, captions)
        if log.is_file() and report.check(_table(log), lq_hashes, level):
            hashes = lq_hashes(level)
            for name in hashes:
                file = level / f"{name}.png"
                report.check((file, *_table(log)), check_lq, file, hashes)


def _sources(study: Study, folder: Path, report: Report) -> None:
    """The user's own files that a dataset was made from, where they are here."""
    config, record = study.profile.datasets.get(folder.name), folder / SOURCES
    if config is None or not record.is_file():
        return
    again = f"`snakemake --cores all --config profile={study.profile.profile}` prepares it again"
    # With its index: the record alone is no output that a run would miss.
    if report.check((record, *_table(folder / "index.csv")), read_checked, record):
        report.checked += len(read_checked(record)["files"])
        found = changed_sources(config, folder)
        report.findings += [Finding(f"{said}; {again}", changed=True) for said in found]


def _training(study: Study, report: Report) -> None:
    """Latents, checkpoints, and the prior if it ships."""
    cache = study.layout.train_cache
    if cache.is_file():
        from faithdiff.train.cache import check_cache, sums_file

        report.check((cache, sums_file(cache)), check_cache, cache)
    for run in sorted(study.layout.checkpoints.rglob(RUN)):
        if study.layout.work("") not in run.parents:
            report.check((run.parent,), check_checkpoint, run.parent)
    if study.profile.prior.source != "train" and ARTIFACTS_FILE.is_file():
        report.check((), check_shipped, study.profile.prior.path)


def _restorations(layout: Layout, method: Path, report: Report) -> None:
    """Images, manifests and scores of ``restored/<profile>/<method>``."""
    for table in sorted(method.glob("seed*/*.csv")):
        report.check(_table(table), check_summed, table)
    for manifest in sorted(method.glob("seed*/*/*/manifest.json")):
        if report.check((manifest,), RestoredSet.read, manifest):
            for name, image in RestoredSet.read(manifest).images.items():
                file = manifest.parent / f"{name}.png"
                # With a link to it among the finished images, both are the same file.
                remove = (file, layout.cached(image.key), manifest)
                report.check(remove, check_file, file, image.sha256)


def _check_png(file: Path) -> None:
    if not png_is_whole(file):
        raise corrupted(file, "is corrupted")


def _results(layout: Layout, report: Report) -> None:
    """Files of ``results/<profile>`` by their manifest."""
    manifest = layout.results / "manifest.json"
    if manifest.is_file() and report.check((manifest,), Manifest.read, manifest):
        for name, wanted in Manifest.read(manifest).results.items():
            # Snakemake knows the folder of figures as one output.
            top = layout.results / "figures" if name.startswith("figures/") else None
            file = layout.results / name
            report.check((top or file,), check_file, file, wanted)


# --- What packages bring --------------------------------------------------------------------------


def _installed(study: Study, report: Report) -> None:
    """Weights inside installed packages: the lock has them, so a missing one is a finding."""
    if not ARTIFACTS_FILE.is_file():
        return
    files = [artifact for artifact in files_needed(study.profile) if artifact.package]
    for package in dict.fromkeys(artifact.package for artifact in files):
        of_it = [artifact for artifact in files if artifact.package == package]
        report.check((), _check_package, of_it, study.profile.score.weights)


def _check_package(files: list[Artifact], root: Path) -> None:
    if problem := lacking([(artifact, state(artifact, root)) for artifact in files], ""):
        raise CheckpointError(f"{', '.join(artifact.name for artifact in files)}: {problem}")


# --- What DVC keeps -------------------------------------------------------------------------------


def _versions(study: Study, root: Path, report: Report) -> None:
    """Objects of DVC's cache that ``dvc.lock`` names for the profile: DVC trusts them unread."""
    if not (root / LOCK).is_file():
        return
    try:
        objects = object_folder(root)
    except RunError as error:  # in a copy without .git, DVC opens nothing; the rest was checked
        report.skipped.append(f"DVC's cache: not checked: {error}")
        return
    if objects is None:
        return
    if not report.check((), _locked, root / LOCK, study.profile.profile):
        return
    for oid in _named(_locked(root / LOCK, study.profile.profile), objects):
        file = objects / oid[:2] / oid[2:]
        if file.is_file():  # one that is not here is fetched by `faithdiff pull`
            report.check((file,), check_object, file, oid)


def _locked(lock: Path, profile: str) -> list[str]:
    """Hashes of the profile's outputs in ``dvc.lock``.

    Raises:
        CorruptedError: It is not a lock file of DVC.
    """
    try:
        stage = locked_stages(lock.read_bytes()).get(stage_name(profile), {})
    except ValueError as error:
        raise CorruptedError(f"{lock}: {error}") from None
    return [output["md5"] for output in stage.get("outs", [])]


def _named(oids: list[str], objects: Path) -> Iterator[str]:
    """The hashes, and those of the files in the folders among them."""
    for oid in oids:
        yield oid
        listing = objects / oid[:2] / oid[2:]
        if oid.endswith(".dir") and listing.is_file():
            try:
                yield from [str(entry["md5"]) for entry in json.loads(listing.read_bytes())]
            except (ValueError, KeyError, TypeError):
                continue  # its own hash says that it is corrupted
