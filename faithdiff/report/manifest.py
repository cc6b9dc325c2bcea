"""``manifest.json``: what exactly made the results of a study.

Hashes of everything between the photographs and the figures, the code and packages, the machines
that did the work, and what each job cost. Two results with equal hashes came from equal inputs;
where they differ, the first differing section says where to look.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pydantic import JsonValue

from faithdiff.config import digest
from faithdiff.errors import RunError
from faithdiff.methods.method import Study
from faithdiff.study.checkpoints import RUN, check_checkpoint
from faithdiff.study.checksums import check_summed, with_checksum
from faithdiff.study.files import write_text_atomic
from faithdiff.study.layout import Layout
from faithdiff.study.manifest import (
    CheckpointHashes,
    DataHashes,
    JobCost,
    MachineWork,
    Manifest,
    MasterSeeds,
    PriorHashes,
    RestoredHashes,
    TotalCost,
)
from faithdiff.study.provenance import commit, file_digest, folder_digest, packages
from faithdiff.study.records import Hardware, RunRecord
from faithdiff.study.remake import command_for
from faithdiff.study.restored import RestoredSet
from faithdiff.study.usage import job_cost

MANIFEST = "manifest.json"


def write_manifest(study: Study) -> None:
    """Write ``results/<profile>/manifest.json`` of a finished study.

    Raises:
        RunError: A part of the study is missing or corrupted; names the file.
    """
    checkpoints = dict(_checkpoints(study))
    restorations = dict(_restorations(study))
    made_by: dict[str, list[Hardware | None]] = {
        name: [run.hardware] for name, (run, _) in checkpoints.items()
    }
    made_by |= {name: made.machines for name, made in restorations.items()}
    jobs = job_costs(study.layout)
    manifest = Manifest(
        profile=study.profile.profile,
        **commit(),
        seeds=MasterSeeds(master=study.profile.seed, repetitions=study.profile.seeds),
        machines=_machines(made_by),
        total=_total(jobs.values()),
        data=_data(study),
        prior=_prior(study),
        checkpoints={
            name: CheckpointHashes(
                weights=weights,
                # The commit again: a checkpoint that nothing invalidated may come from an earlier.
                commit=run.commit,
                dirty=run.dirty,
                seconds=run.seconds,
            )
            for name, (run, weights) in checkpoints.items()
        },
        published=_published(study, restorations),
        restorations={name: _images(made) for name, made in restorations.items()},
        results=_results(study.layout),
        jobs=jobs,
        config=study.profile.model_dump(mode="json"),
        packages=packages(),
    )
    content = with_checksum(manifest.plain())
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    write_text_atomic(text + "\n", study.layout.results / MANIFEST)


def _data(study: Study) -> dict[str, DataHashes]:
    """Hashes of every dataset's index, and of its degradation log at each level."""
    data = study.profile.data
    levels = {name: data.levels_of(name) for name in data.test}
    if study.profile.learns:
        levels = {"train": [data.train_level], **levels}
    if study.profile.prior.source == "train":
        levels["prior"] = []
    return {
        dataset: DataHashes(
            index=_sha256(index := study.layout.dataset(dataset) / "index.csv"),
            images=_rows(index),
            degradation={
                level: _sha256(study.layout.lq(dataset, level) / "degradation.jsonl")
                for level in names
            },
        )
        for dataset, names in levels.items()
    }


def _prior(study: Study) -> PriorHashes:
    folder = study.prior_folder
    if not folder.is_dir():
        raise RunError(f"{folder}: the prior is missing; run: snakemake --cores all")
    return PriorHashes(folder=folder.as_posix(), weights=folder_digest(folder))


def _checkpoints(study: Study) -> Iterator[tuple[str, tuple[RunRecord, str]]]:
    """``run.json`` of every checkpoint, and the digest of its weights, by ``name/seed``."""
    for seed in study.profile.seeds:
        folders = {
            f"stage1-{recipe}": study.layout.stage1(recipe, seed)
            for recipe in study.profile.pretrained
        }
        folders |= {name: study.layout.checkpoint(name, seed) for name in study.profile.trained}
        for name, folder in folders.items():
            check_checkpoint(folder)
            yield f"{name}/seed{seed}", (RunRecord.require(folder / RUN), folder_digest(folder))


def _restorations(study: Study) -> Iterator[tuple[str, RestoredSet]]:
    """Manifests of all restored sets, by ``method/seed/dataset/level``."""
    for method in study.profile.methods:
        for seed in study.profile.seeds:
            for dataset, level in study.profile.data.places:
                folder = study.layout.restoration(method, seed, dataset, level)
                made = RestoredSet.require(folder / MANIFEST)
                yield f"{method}/seed{seed}/{dataset}/{level}", made


def _published(study: Study, restorations: Mapping[str, RestoredSet]) -> dict[str, JsonValue]:
    """Hashes of the weights of published systems, which no checkpoint of the study holds."""
    return {
        method: made.settings.get("weights")
        for name, made in restorations.items()
        if (method := name.partition("/")[0]) in study.profile.published
    }


def _images(made: RestoredSet) -> RestoredHashes:
    hashes = {name: image.sha256 or image.failed for name, image in made.images.items()}
    return RestoredHashes(images=len(hashes), digest=digest(hashes))


def _machines(made_by: Mapping[str, list[Hardware | None]]) -> list[MachineWork]:
    """The distinct machines of checkpoints and restorations, with what each of them made."""
    found: dict[str, MachineWork] = {}
    for name, machines in made_by.items():
        for hardware in machines:
            # By content: two machines of one kind made the same thing, as far as anyone can tell.
            machine = found.setdefault(digest(hardware), MachineWork(hardware=hardware, made=[]))
            if name not in machine.made:
                machine.made.append(name)
    return list(found.values())


def _results(layout: Layout) -> dict[str, str]:
    """sha256 of scores, claims, tables and figures; not of the page, which shows this manifest."""
    files = (file for file in layout.results.rglob("*") if file.is_file())
    names = {file.relative_to(layout.results).as_posix(): file for file in files}
    if "scores.csv" not in names:
        file = layout.results / "scores.csv"
        raise RunError(f"{file}: is missing; run: {command_for(file)}")
    kept = sorted(
        name
        for name in names
        if name != MANIFEST and not name.startswith("report/") and "/." not in f"/{name}"
    )
    return {name: file_digest(names[name]) for name in kept}


def job_costs(layout: Layout) -> dict[str, JobCost]:
    """Cost of each job that Snakemake ran here, by ``rule/name``; none where it ran none."""
    folder = Path("logs", layout.profile, "benchmarks")
    return {
        file.relative_to(folder).with_suffix("").as_posix(): job_cost(file)
        for file in sorted(folder.rglob("*.tsv"))
    }


def _total(jobs: Iterable[JobCost]) -> TotalCost:
    costs = list(jobs)
    known = [c.start_up_seconds for c in costs if c.start_up_seconds is not None]
    peaks = [cost.peak_memory_mb for cost in costs if cost.peak_memory_mb is not None]
    return TotalCost(
        jobs=len(costs),
        seconds=round(sum(c.seconds for c in costs if c.seconds is not None), 2),
        cpu_seconds=round(sum(c.cpu_seconds for c in costs if c.cpu_seconds is not None), 2),
        start_up_seconds=round(sum(known), 2) if known else None,
        peak_memory_mb=max(peaks, default=None),
    )


def _rows(index: Path) -> int:
    with index.open(newline="", encoding="utf-8") as stream:
        return sum(1 for _ in csv.DictReader(stream))


def _sha256(file: Path) -> str:
    try:
        check_summed(file)
        return file_digest(file)
    except OSError as error:
        raise RunError(f"{file}: {error.strerror}; run: {command_for(file)}") from None
