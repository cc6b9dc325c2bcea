"""Collects the scores of all jobs into one table, the only source of numbers of a study."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from faithdiff.config import REAL, Profile
from faithdiff.errors import RunError
from faithdiff.methods.absent import Absent
from faithdiff.score.costs import cost_table, keep_peaks
from faithdiff.score.protocols import definitions_of
from faithdiff.score.rows import ALL, ScoreRow, read_rows_of_job
from faithdiff.study.checkpoints import check_checkpoint
from faithdiff.study.files import CSV_END, unix_lines, write_text_atomic
from faithdiff.study.layout import Layout

KEY = ["method", "seed", "dataset", "level", "image", "metric", "protocol"]


def collect(profile: Profile, layout: Layout) -> None:
    """Write ``scores.csv``, ``summary.json``, ``training.csv`` and ``cost.csv`` of a study.

    Raises:
        RunError: A row occurs twice, or a job's table is missing or has other columns.
    """
    tables = [read_rows_of_job(file) for file in score_files(profile, layout)]
    if absent := unavailable_rows(profile, Absent.read(layout.results)):
        tables.append(pd.DataFrame([asdict(row) for row in absent]).astype(str))
    table = pd.concat(tables, ignore_index=True)
    # A double row would weigh one picture twice in every mean, and no table would show it.
    if table.duplicated(KEY).any():
        twice = table[table.duplicated(KEY)].iloc[0][KEY].to_dict()
        raise RunError(f"{layout.results / 'scores.csv'}: a row would occur twice: {twice}")
    table.insert(0, "profile", profile.profile)
    # One order whatever the number of jobs: the file is committed, and its difference between two
    # commits must show changed values, not moved lines.
    table = table.sort_values(KEY, key=lambda column: _order(column, profile), kind="stable")
    scores = unix_lines(table.to_csv(index=False, lineterminator=CSV_END))
    write_text_atomic(scores, layout.results / "scores.csv")
    summary = json.dumps(summarise(table), indent=1)
    write_text_atomic(summary + "\n", layout.results / "summary.json")
    _training(profile, layout)
    file = layout.results / "cost.csv"
    costs = keep_peaks(cost_table(profile, layout), file)
    write_text_atomic(costs.to_csv(index=False, lineterminator="\n"), file)


def unavailable_rows(profile: Profile, absent: Absent) -> list[ScoreRow]:
    """A row for each value that could not be: of sets and baselines that the study goes on without.

    They stand for all images of a set at a level, which nobody has counted.
    """
    places = [(name, level, "") for name, level in profile.data.places]
    gone = [
        (name, level, each.why) for name, each in absent.datasets.items() for level in each.levels
    ]
    wanted = [(method, place) for method in profile.methods for place in gone]
    wanted += [(method, place) for method in absent.baselines for place in [*places, *gone]]
    return [
        ScoreRow(
            method=method,
            variant=method if method in profile.variants else "",
            seed=seed,
            dataset=dataset,
            level=level,
            image=ALL,
            picture=ALL,
            metric=metric,
            protocol=protocol,
            value="",
            status=f"unavailable: {absent.baselines.get(method) or why}",
            restored_sha256="",
            hq_sha256="",
            protocol_sha256="",
        )
        for method, (dataset, level, why) in wanted
        for seed in profile.seeds
        for (protocol, metric), definition in definitions_of(profile).items()
        if level != REAL or not definition.needs_reference
    ]


def score_files(profile: Profile, layout: Layout) -> list[Path]:
    """The tables of all jobs: pixel and perceptual scores, and held-out losses."""
    files = []
    for method in profile.methods:
        for seed in profile.seeds:
            folder = layout.restored(method, seed)
            files.append(folder / "scores.csv")
            # Others do not predict noise of the study's prior, so there is no loss to hold out.
            if method in profile.compared:
                files.append(folder / "heldout.csv")
    return files


# Means by method, dataset, level and ``metric@protocol``.
Summary = dict[str, dict[str, dict[str, dict[str, float]]]]


def summarise(table: pd.DataFrame) -> Summary:
    """Means of each method, dataset and level; only where every image has a value.

    A mean over the images that did not fail would compare methods on different images.
    """
    summary: Summary = {}
    keys = ["method", "dataset", "level", "metric", "protocol"]
    for key, rows in table.groupby(keys, sort=False):
        method, dataset, level, metric, protocol = map(str, key)
        if (rows["status"] == "ok").all():
            mean = round(float(rows["value"].astype(float).mean()), 6)
            place = summary.setdefault(method, {}).setdefault(dataset, {}).setdefault(level, {})
            place[f"{metric}@{protocol}"] = mean
    return summary


def _order(column: pd.Series, profile: Profile) -> pd.Series:
    """Methods, sets and levels in the order of the profile; the rest by name."""
    orders = {
        "method": list(profile.methods),
        "dataset": list(profile.data.test),
        "level": [*profile.data.levels, REAL],
    }
    if column.name == "seed":
        return column.astype(int)
    order = orders.get(str(column.name))
    return column.map({name: rank for rank, name in enumerate(order)}) if order else column


def _training(profile: Profile, layout: Layout) -> None:
    """Training curves of every trained method in one tidy table."""
    columns = ["method", "seed", "phase", "step", "loss", "learning_rate"]
    empty = pd.DataFrame(columns=columns)  # a study may train nothing
    curves = pd.concat([empty, *_curves(profile, layout)], ignore_index=True)
    text = curves[columns].to_csv(index=False, lineterminator="\n")
    write_text_atomic(text, layout.results / "training.csv")


def _curves(profile: Profile, layout: Layout) -> Iterator[pd.DataFrame]:
    for seed in profile.seeds:
        folders = {f"stage1-{recipe}": layout.stage1(recipe, seed) for recipe in profile.recipes}
        folders |= {method: layout.checkpoint(method, seed) for method in profile.methods}
        for name, folder in folders.items():
            if (folder / "training.csv").is_file():
                check_checkpoint(folder, only="training.csv")
                yield pd.read_csv(folder / "training.csv").assign(method=name, seed=seed)
