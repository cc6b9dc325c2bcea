"""``manifest.json``: what exactly made the results of a study.

Hashes of everything between the photographs and the figures, the code and packages, the machines
that did the work, and what each job cost. Two results with equal hashes came from equal inputs;
where they differ, the first differing section says where to look.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from faithdiff.config import digest
from faithdiff.errors import RunError
from faithdiff.methods.method import Study
from faithdiff.study.checkpoints import check_checkpoint
from faithdiff.study.checksums import check_summed, read_checked, with_checksum
from faithdiff.study.files import write_text_atomic
from faithdiff.study.layout import Layout
from faithdiff.study.provenance import commit, file_digest, folder_digest, packages

MANIFEST = "manifest.json"
COSTS = {"seconds": "s", "cpu_seconds": "cpu_time", "peak_memory_mb": "max_rss"}


def write_manifest(study: Study) -> None:
    """Write ``results/<profile>/manifest.json`` of a finished study.

    Raises:
        RunError: A part of the study is missing or corrupted; names the file.
    """
    checkpoints = dict(_checkpoints(study))
    restorations = dict(_restorations(study))
    jobs = _jobs(study.layout)
    manifest = {
        "profile": study.profile.profile,
        **commit(),
        "seeds": {"master": study.profile.seed, "repetitions": study.profile.seeds},
        "machines": _machines(checkpoints | restorations),
        "total": _total(jobs),
        "data": _data(study),
        "prior": _prior(study),
        "checkpoints": {name: _checkpoint(run) for name, run in checkpoints.items()},
        "published": _published(study, restorations),
        "restorations": {name: _images(made) for name, made in restorations.items()},
        "results": _results(study.layout),
        "jobs": jobs,
        "config": study.profile.model_dump(mode="json"),
        "packages": packages(),
    }
    text = json.dumps(with_checksum(manifest), indent=1, ensure_ascii=False, allow_nan=False)
    write_text_atomic(text + "\n", study.layout.results / MANIFEST)


def _data(study: Study) -> dict[str, Any]:
    """Hashes of every data set's index, and of its degradation log at each level."""
    data = study.profile.data
    levels = {name: data.levels_of(name) for name in data.test}
    if study.profile.learns:
        levels = {"train": [data.train_level], **levels}
    if study.profile.prior.source == "train":
        levels["prior"] = []
    return {
        dataset: {
            "index.csv": _sha256(index := study.layout.dataset(dataset) / "index.csv"),
            "images": _rows(index),
            "degradation.jsonl": {
                level: _sha256(study.layout.lq(dataset, level) / "degradation.jsonl")
                for level in names
            },
        }
        for dataset, names in levels.items()
    }


def _prior(study: Study) -> dict[str, str]:
    folder = study.prior_folder
    if not folder.is_dir():
        raise RunError(f"{folder}: the prior is missing; run: snakemake --cores all")
    return {"folder": folder.as_posix(), "weights": folder_digest(folder)}


def _checkpoints(study: Study) -> Iterator[tuple[str, dict[str, Any]]]:
    """``run.json`` of every checkpoint, with the digest of its weights, by ``name/seed``."""
    for seed in study.profile.seeds:
        folders = {
            f"stage1-{recipe}": study.layout.stage1(recipe, seed)
            for recipe in study.profile.pretrained
        }
        folders |= {name: study.layout.checkpoint(name, seed) for name in study.profile.trained}
        for name, folder in folders.items():
            check_checkpoint(folder)
            yield (
                f"{name}/seed{seed}",
                _read(folder / "run.json") | {"weights": folder_digest(folder)},
            )


def _checkpoint(run: dict[str, Any]) -> dict[str, Any]:
    # The commit again: a checkpoint that nothing invalidated may come from an earlier one.
    return {key: run.get(key) for key in ("weights", "commit", "dirty", "seconds")}


def _restorations(study: Study) -> Iterator[tuple[str, dict[str, Any]]]:
    """Manifests of all restored sets, by ``method/seed/dataset/level``."""
    for method in study.profile.methods:
        for seed in study.profile.seeds:
            for dataset, level in study.profile.data.places:
                folder = study.layout.restoration(method, seed, dataset, level)
                yield f"{method}/seed{seed}/{dataset}/{level}", _read(folder / MANIFEST)


def _published(study: Study, restorations: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Hashes of the weights of published systems, which no checkpoint of the study holds."""
    return {
        method: made.get("settings", {}).get("weights")
        for name, made in restorations.items()
        if (method := name.partition("/")[0]) in study.profile.published
    }


def _images(made: dict[str, Any]) -> dict[str, Any]:
    hashes = {
        name: image.get("sha256", image.get("failed")) for name, image in made["images"].items()
    }
    return {"images": len(hashes), "digest": digest(hashes)}


def _machines(work: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The distinct machines of checkpoints and restorations, with what each of them made."""
    machines: dict[str, dict[str, Any]] = {}
    for name, record in work.items():
        # Where several machines shared the images, each of them made the set.
        for hardware in [made.get("hardware") for made in record.get("shards", [record])]:
            machine = machines.setdefault(digest(hardware), {"hardware": hardware, "made": []})
            if name not in machine["made"]:
                machine["made"].append(name)
    return list(machines.values())


def _results(layout: Layout) -> dict[str, str]:
    """sha256 of scores, claims, tables and figures; not of the page, which shows this manifest."""
    files = (file for file in layout.results.rglob("*") if file.is_file())
    names = {file.relative_to(layout.results).as_posix(): file for file in files}
    if "scores.csv" not in names:
        raise RunError(f"{layout.results / 'scores.csv'}: is missing; run: snakemake --cores all")
    kept = sorted(
        name
        for name in names
        if name != MANIFEST and not name.startswith("report/") and "/." not in f"/{name}"
    )
    return {name: file_digest(names[name]) for name in kept}


def _jobs(layout: Layout) -> dict[str, dict[str, float | None]]:
    """Cost of each job that Snakemake ran here, by ``rule/name``; none where it ran none."""
    folder = Path("logs", layout.profile, "benchmarks")
    return {
        file.relative_to(folder).with_suffix("").as_posix(): _cost(file)
        for file in sorted(folder.rglob("*.tsv"))
    }


def _cost(file: Path) -> dict[str, float | None]:
    """Seconds, CPU seconds and MB of a benchmark file; None for what Snakemake could not see."""
    with file.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    row = rows[-1] if rows else {}
    return {name: _number(row.get(column)) for name, column in COSTS.items()}


def _number(text: str | None) -> float | None:
    try:
        return round(float(text or ""), 2)
    except ValueError:  # "NA" or "-": the job was over before it was looked at
        return None


def _total(jobs: dict[str, dict[str, float | None]]) -> dict[str, Any]:
    """Sums over jobs, which run side by side, so `seconds` is not the time that one waits."""
    known = {
        name: [cost for job in jobs.values() if (cost := job[name]) is not None] for name in COSTS
    }
    return {
        "jobs": len(jobs),
        "seconds": round(sum(known["seconds"]), 2),
        "cpu_seconds": round(sum(known["cpu_seconds"]), 2),
        "peak_memory_mb": max(known["peak_memory_mb"], default=None),
    }


def _read(file: Path) -> dict[str, Any]:
    try:
        return read_checked(file)
    except OSError as error:
        raise RunError(f"{file}: {error.strerror}; run: snakemake --cores all") from None


def _rows(index: Path) -> int:
    with index.open(newline="", encoding="utf-8") as stream:
        return sum(1 for _ in csv.DictReader(stream))


def _sha256(file: Path) -> str:
    try:
        check_summed(file)
        return file_digest(file)
    except OSError as error:
        raise RunError(f"{file}: {error.strerror}; run: snakemake --cores all") from None
