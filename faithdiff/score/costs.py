"""What each method cost, in one tidy table beside the scores: parameters, updates, seconds, memory.

Read from what the jobs left: ``run.json`` of checkpoints, manifests of restorations, and the
benchmark files of Snakemake, which a step run by hand does not write.
"""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import pandas as pd

from faithdiff.config import Profile, Variant
from faithdiff.errors import RunError
from faithdiff.study.checkpoints import RUN
from faithdiff.study.layout import Layout
from faithdiff.study.records import Cost, RunRecord, Seconds
from faithdiff.study.restored import RestoredSet
from faithdiff.study.usage import job_cost


@dataclass(frozen=True)
class CostRow:
    """What a method cost at one seed; the fields are the columns of ``cost.csv``, in their order.

    None, an empty field, where something was not measured: a cost of zero is another statement.

    Attributes:
        parts: What was trained, ``<name> <parameters>; ...``.
        pre_updates: Of the stages before the last, the shared stage 1 included.
        seconds_per_image: Of the images that the last run made.
        peak_memory_mb: The highest of training and restoring.
    """

    method: str
    seed: int
    parts: str
    trained_parameters: int | None
    total_parameters: int | None
    pre_updates: int | None
    pre_seconds: Seconds | None
    updates: int | None
    seconds: Seconds | None
    seconds_per_image: float | None = None
    peak_memory_mb: float | None = None


COST_COLUMNS = tuple(field.name for field in fields(CostRow))
COUNTS = ("trained_parameters", "total_parameters", "pre_updates", "updates")


def cost_table(profile: Profile, layout: Layout) -> pd.DataFrame:
    """One row per method and seed; empty fields where something was not measured.

    Raises:
        RunError: A checkpoint lacks its ``run.json``, or a restoration its manifest.
    """
    rows = [
        asdict(_with_restoring(_training(profile, layout, method, seed), profile, layout))
        for method in profile.methods
        for seed in profile.seeds
    ]
    whole = dict.fromkeys(COUNTS, "Int64")  # stay whole numbers where some fields are empty
    return pd.DataFrame(rows, columns=list(COST_COLUMNS)).astype(whole)


def keep_peaks(costs: pd.DataFrame, before: Path) -> pd.DataFrame:
    """Keep the memory in an earlier file where the same jobs left no benchmark files here.

    As after a pull of checkpoints and restorations, which brings no logs. Jobs are the same where
    all else that was measured of them is, seconds included.
    """
    if not before.is_file():
        return costs
    earlier = {}
    with before.open(newline="", encoding="utf-8", errors="replace") as stream:
        for row in csv.DictReader(stream):
            peak = row.pop("peak_memory_mb", "")
            earlier[tuple(row.values())] = peak
    *others, _ = COST_COLUMNS
    text = io.StringIO(costs[others].to_csv(index=False))
    peaks = [
        earlier.get(tuple(row.values())) if row["seconds_per_image"] else None
        for row in csv.DictReader(text)
    ]
    kept = pd.to_numeric(pd.Series(peaks, index=costs.index), errors="coerce")
    own = pd.to_numeric(costs["peak_memory_mb"])
    return costs.assign(peak_memory_mb=own.where(own.notna(), kept))


def _training(profile: Profile, layout: Layout, method: str, seed: int) -> CostRow:
    """Parameters, updates and seconds; the stage 1 that variants share counts for each of them.

    Shared or not, a variant cannot be had without its stage 1, so its cost is the cost of both.
    """
    owner = profile.checkpoint_of(method)
    if owner not in profile.trained:
        # What the authors of a published system spent is not known here, and is not nothing.
        spent = None if owner in profile.published else 0
        return CostRow(method, seed, "", spent, spent, spent, spent, spent, spent)
    cost = _cost(layout.checkpoint(owner, seed))
    config = profile.methods[owner]
    if isinstance(config, Variant) and config.pretrain and not config.weights:
        first = _cost(layout.stage1(config.recipe, seed))
        cost = replace(
            cost,
            # A part that both stages train has as many parameters after the second.
            parts={**first.parts, **cost.parts},
            pre_updates=cost.pre_updates + first.updates,
            pre_seconds=cost.pre_seconds + first.seconds,
        )
    return CostRow(
        method,
        seed,
        parts="; ".join(f"{name} {count}" for name, count in cost.parts.items()),
        trained_parameters=sum(cost.parts.values()),
        total_parameters=cost.total,
        pre_updates=cost.pre_updates,
        pre_seconds=cost.pre_seconds,
        updates=cost.updates,
        seconds=cost.seconds,
    )


def _with_restoring(row: CostRow, profile: Profile, layout: Layout) -> CostRow:
    """Add seconds per image made in the last run, and the highest memory of both jobs."""
    made, seconds = 0, 0.0
    total = row.total_parameters
    for dataset, level in profile.data.places:
        restored = RestoredSet.require(
            layout.restoration(row.method, row.seed, dataset, level) / "manifest.json"
        )
        # Sets that the last run found finished took no time in it, and would halve the mean.
        if restored.made:
            made += restored.made
            seconds += restored.seconds
        if restored.parameters is not None:  # of weights that no training here wrote
            total = restored.parameters
    job = f"{row.method}-seed{row.seed}.tsv"
    folder = Path("logs", layout.profile, "benchmarks")
    # The peak of whichever needs more: it decides which machine can run the method at all.
    rules = ("train_variant", "train_baseline", "restore")
    peaks = [peak for rule in rules if (peak := _peak(folder / rule / job)) is not None]
    return replace(
        row,
        total_parameters=total,
        seconds_per_image=round(seconds / made, 4) if made else None,
        peak_memory_mb=max(peaks, default=None),
    )


def _cost(folder: Path) -> Cost:
    cost = RunRecord.require(folder / RUN).cost
    if cost is None:
        raise RunError(f"{folder / RUN}: holds no cost; train it again")
    return cost


def _peak(file: Path) -> float | None:
    """MB of a job; None where there is no benchmark file, or the job was over too soon."""
    return job_cost(file).peak_memory_mb if file.is_file() else None
