"""What each method cost, in one tidy table beside the scores: parameters, updates, seconds, memory.

Read from what the jobs left: ``run.json`` of checkpoints, manifests of restorations, and the
benchmark files of Snakemake, which a step run by hand does not write.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pandas as pd

from faithdiff.config import Profile, Variant
from faithdiff.errors import RunError
from faithdiff.study.checksums import read_checked
from faithdiff.study.layout import Layout

COST_COLUMNS = (
    "method", "seed", "parts", "trained_parameters", "total_parameters", "pre_updates",
    "pre_seconds", "updates", "seconds", "seconds_per_image", "peak_memory_mb",
)  # fmt: skip
COUNTS = ("trained_parameters", "total_parameters", "pre_updates", "updates")
TRAINING = ("pre_updates", "pre_seconds", "updates", "seconds")


def cost_table(profile: Profile, layout: Layout) -> pd.DataFrame:
    """One row per method and seed; empty fields where something was not measured.

    Raises:
        RunError: A checkpoint lacks its ``run.json``, or a restoration its manifest.
    """
    rows = [
        {"method": method, "seed": seed}
        | _training(profile, layout, method, seed)
        | _restoring(profile, layout, method, seed)
        for method in profile.methods
        for seed in profile.seeds
    ]
    whole = dict.fromkeys(COUNTS, "Int64")  # stay whole numbers where some fields are empty
    return pd.DataFrame(rows, columns=list(COST_COLUMNS)).astype(whole)


def _training(profile: Profile, layout: Layout, method: str, seed: int) -> dict[str, Any]:
    """Parameters, updates and seconds; the stage 1 that variants share counts for each of them."""
    method = profile.checkpoint_of(method)
    if method not in profile.trained:
        # What the authors of a published system spent is not known here, and is not nothing.
        spent = None if method in profile.published else 0
        counts = dict.fromkeys(("trained_parameters", "total_parameters", *TRAINING), spent)
        return {"parts": ""} | counts
    cost = _cost(layout.checkpoint(method, seed))
    config, parts = profile.methods[method], dict(cost["parts"])
    if isinstance(config, Variant) and config.pretrain and not config.weights:
        first = _cost(layout.stage1(config.recipe, seed))
        cost["pre_updates"] += first["updates"]
        cost["pre_seconds"] += first["seconds"]
        parts = {**first["parts"], **parts}
    return {
        "parts": "; ".join(f"{name} {count}" for name, count in parts.items()),
        "trained_parameters": sum(parts.values()),
        "total_parameters": cost["total"],
    } | {name: cost[name] for name in TRAINING}


def _restoring(profile: Profile, layout: Layout, method: str, seed: int) -> dict[str, Any]:
    """Seconds per image made in the last run, the highest memory of both jobs, parameters."""
    made, seconds = 0, 0.0
    counted: dict[str, Any] = {}
    for dataset, level in profile.data.places:
        manifest = _json(layout.restoration(method, seed, dataset, level) / "manifest.json")
        if manifest.get("made"):
            made += manifest["made"]
            seconds += manifest["seconds"]
        if "parameters" in manifest:  # of weights that no training here wrote
            counted = {"total_parameters": manifest["parameters"]}
    job = f"{method}-seed{seed}.tsv"
    folder = Path("logs", layout.profile, "benchmarks")
    rules = ("train_variant", "train_baseline", "restore")
    peaks = [peak for rule in rules if (peak := _peak(folder / rule / job)) is not None]
    return counted | {
        "seconds_per_image": round(seconds / made, 4) if made else None,
        "peak_memory_mb": max(peaks, default=None),
    }


def _cost(folder: Path) -> dict[str, Any]:
    cost: dict[str, Any] | None = _json(folder / "run.json").get("cost")
    if cost is None:
        raise RunError(f"{folder / 'run.json'}: holds no cost; train it again")
    return cost


def _json(file: Path) -> dict[str, Any]:
    try:
        return read_checked(file)
    except OSError as error:
        raise RunError(f"{file}: {error.strerror}; run: snakemake --cores all") from None


def _peak(file: Path) -> float | None:
    """MB of a benchmark file; None where there is none, or the job was over too soon."""
    if not file.is_file():
        return None
    with file.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    try:
        return float(rows[-1]["max_rss"])
    except (IndexError, KeyError, ValueError):
        return None
