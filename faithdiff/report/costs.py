"""The table of costs: what each method trains, for how long, and what an image takes.

A pure function of ``cost.csv``, which `collect` writes. Means over seeds; no intervals, because
seconds and memory belong to one machine.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

import pandas as pd

from faithdiff.config import Profile
from faithdiff.errors import UserError
from faithdiff.report.cells import Block, Cell, Column, Row, Table
from faithdiff.report.groups import group_of, in_groups
from faithdiff.report.measured import unmeasured
from faithdiff.score.costs import COST_COLUMNS
from faithdiff.study.files import check_table, unreadable

SCALES = {"trained_parameters": 1e-6, "total_parameters": 1e-6}
COLUMNS = tuple(
    Column(name, "cost", label, "", decimals, higher_is_better=False, arrow=False)
    for name, label, decimals in (
        ("trained_parameters", "trained, M", 2),
        ("total_parameters", "all, M", 2),
        ("pre_updates", "pre-stage updates", 0),
        ("updates", "updates", 0),
        ("pre_seconds", "pre-stage s", 0),
        ("seconds", "training s", 0),
        ("gpu_hours", "GPU-hours", 2),
        ("seconds_per_image", "s/image", 2),
        ("peak_memory_mb", "peak MB", 0),
    )
)
UNMEASURED = "not measured: the step was run by hand, or had nothing to do"
NOT_OURS = "not counted: a published system, trained by its authors"
NO_GPU = "the profile runs on CPUs"
MEASURED = ("seconds_per_image", "peak_memory_mb")  # of every method, while it restores
SOURCES = {"gpu_hours": ("pre_seconds", "seconds")}  # columns of cost.csv, where not its own name


def load_costs(path: Path) -> pd.DataFrame:
    """Read ``cost.csv``.

    Raises:
        UserError: It is missing, or as :func:`read_costs`.
    """
    try:
        with path.open("rb") as stream:
            return read_costs(stream, str(path))
    except OSError as error:
        raise UserError(unreadable(path, error, "`faithdiff collect` writes it")) from None


def read_costs(stream: IO[bytes], path: str) -> pd.DataFrame:
    """Read costs from anywhere; `path` is what messages call it.

    Raises:
        UserError: It is no CSV file or lacks a column.
    """
    content = stream.read()
    check_table(content, path)
    try:
        frame = pd.read_csv(io.BytesIO(content), keep_default_na=False, na_values=[""])
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is not a CSV file: {error}") from None
    if missing := set(COST_COLUMNS) - set(frame):
        raise UserError(f"{path}: has no column {', '.join(sorted(missing))}; collect again")
    return frame


def cost_table(costs: pd.DataFrame, profile: Profile) -> Table:
    """Build the table: one row per method of the profile; footnotes say which parts it trains."""
    footnotes: list[str] = []
    rows = []
    gpus = gpus_of(profile.device, profile.training.processes, profile.variants)
    own = costs[costs["method"].isin(list(profile.methods))]
    columns = [c for c in COLUMNS if cost_values(own, c.metric, gpus).notna().any()]
    lacking = {c.label: _why(c, gpus) for c in COLUMNS if c not in columns}
    for method in in_groups(profile, profile.methods):
        own = costs[costs["method"] == method]
        published = method in profile.published
        cells = tuple(_cell(own, column, published, gpus, footnotes) for column in columns)
        label = profile.methods[method].label
        rows.append(Row(method, label, cells, group_of(profile, method)))
    caption = (
        "Trained and all parameters in millions; pre-stages are trained before the last stage and "
        "frozen in it (stage 1 of a variant: its alignment alone). Seconds of training are as "
        "logged; GPU-hours are these seconds on every GPU of the training. Seconds per image are "
        "those of the restoration; memory is the highest resident memory of both jobs. "
        "manifest.json names the machine, whose other work is part of these seconds. Means over "
        f"{len(profile.seeds)} seed{'s'[: len(profile.seeds) - 1]}."
    )
    block = Block("Cost", "", tuple(profile.data.test), tuple(profile.data.levels), tuple(rows))
    return Table(
        "cost", profile.profile, caption, tuple(columns), (block,), tuple(footnotes), {},
        source="cost.csv", unmeasured=unmeasured(lacking),
    )  # fmt: skip


def gpus_of(device: str, processes: int, variants: Iterable[str]) -> Mapping[str, int] | None:
    """GPUs that train a method, 1 where it is not named; None on CPUs.

    Only variants of FaithDiff are trained by several processes, one on each GPU.
    """
    return dict.fromkeys(variants, processes) if device == "cuda" else None


def cost_values(own: pd.DataFrame, metric: str, gpus: Mapping[str, int] | None) -> pd.Series:
    """Values of a column of the table, one for each row of ``cost.csv``; NaN if not measured."""
    total = own[list(SOURCES.get(metric, [metric]))].astype(float).sum(axis=1, skipna=False)
    if metric != "gpu_hours":
        return total * SCALES.get(metric, 1)
    if gpus is None:
        return total * math.nan
    return total * [gpus.get(method, 1) for method in own["method"]] / 3600


def _cell(
    own: pd.DataFrame,
    column: Column,
    published: bool,
    gpus: Mapping[str, int] | None,
    footnotes: list[str],
) -> Cell:
    seeds = tuple(sorted(map(int, own["seed"])))
    mean = float(cost_values(own, column.metric, gpus).mean()) if seeds else math.nan
    if math.isnan(mean):
        why = NOT_OURS if published and column.metric not in MEASURED else UNMEASURED
        return Cell("unavailable", seeds=seeds, reasons=(why,), footnote=_note(why, footnotes))
    parts = own["parts"].dropna()
    if column.metric != "trained_parameters" or parts.empty:
        return Cell("ok", mean=mean, seeds=seeds)
    return Cell("ok", mean=mean, seeds=seeds, footnote=_note(_trained(parts.iloc[0]), footnotes))


def _why(column: Column, gpus: Mapping[str, int] | None) -> str:
    """Why no method has a value in a column."""
    no_gpu = column.metric == "gpu_hours" and gpus is None
    return NO_GPU if no_gpu else UNMEASURED.removeprefix("not measured: ")


def _trained(parts: str) -> str:
    """What is trained, in words: ``restoration 0.18 M, encoder 2.32 M``."""
    named = (part.rsplit(" ", 1) for part in parts.split("; "))
    return "trained: " + ", ".join(
        f"{name.replace('_', ' ')} {int(count) / 1e6:.2f} M" for name, count in named
    )


def _note(text: str, footnotes: list[str]) -> int:
    if text not in footnotes:
        footnotes.append(text)
    return footnotes.index(text) + 1
