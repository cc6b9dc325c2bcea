"""The table of costs: what each method trains, for how long, and what an image takes.

A pure function of ``cost.csv``, which `collect` writes. Means over seeds; no intervals, because
seconds and memory belong to one machine.
"""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from faithdiff.config import Profile
from faithdiff.errors import UserError
from faithdiff.report.cells import Block, Cell, Column, Row, Table
from faithdiff.score.costs import COST_COLUMNS

SCALES = {"trained_parameters": 1e-6, "total_parameters": 1e-6}
COLUMNS = tuple(
    Column(name, "cost", label, "", decimals, higher_is_better=False)
    for name, label, decimals in (
        ("trained_parameters", "trained, M", 2),
        ("total_parameters", "all, M", 2),
        ("pre_updates", "pre-stage updates", 0),
        ("updates", "updates", 0),
        ("pre_seconds", "pre-stage s", 0),
        ("seconds", "training s", 0),
        ("seconds_per_image", "s/image", 2),
        ("peak_memory_mb", "peak MB", 0),
    )
)
UNMEASURED = "not measured: the step was run by hand, or had nothing left to do"


def load_costs(path: Path) -> pd.DataFrame:
    """Read ``cost.csv``.

    Raises:
        UserError: It is missing or lacks a column.
    """
    try:
        frame = pd.read_csv(path, keep_default_na=False, na_values=[""])
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); `faithdiff collect` writes it"
        ) from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is not a CSV file: {error}") from None
    if missing := set(COST_COLUMNS) - set(frame):
        raise UserError(f"{path}: has no column {', '.join(sorted(missing))}; collect again")
    return frame


def cost_table(costs: pd.DataFrame, profile: Profile) -> Table:
    """Build the table: one row per method of the profile; footnotes say which parts it trains."""
    footnotes: list[str] = []
    rows = []
    for method in profile.methods:
        own = costs[costs["method"] == method]
        cells = tuple(_cell(own, column, footnotes) for column in COLUMNS)
        rows.append(Row(method, profile.methods[method].label, cells))
    caption = (
        "Trained and all parameters in millions; pre-stages are trained before the last stage and "
        "frozen in it (stage 1 of a variant: its alignment alone). Seconds of training as logged, "
        "seconds per image while restoring, and the highest resident memory of both jobs, on the "
        "machine of manifest.json, whose other work is in these seconds. Means over "
        f"{len(profile.seeds)} seed{'s'[: len(profile.seeds) - 1]}."
    )
    block = Block("Cost", "", tuple(profile.data.test), tuple(profile.data.levels), tuple(rows))
    return Table(
        "cost", profile.profile, caption, COLUMNS, (block,), tuple(footnotes), {}, source="cost.csv"
    )


def _cell(own: pd.DataFrame, column: Column, footnotes: list[str]) -> Cell:
    seeds = tuple(sorted(map(int, own["seed"])))
    mean = float(own[column.metric].mean() * SCALES.get(column.metric, 1)) if seeds else math.nan
    if math.isnan(mean):
        return Cell("unavailable", seeds=seeds, footnote=_note(UNMEASURED, footnotes))
    parts = own["parts"].dropna()
    if column.metric != "trained_parameters" or parts.empty:
        return Cell("ok", mean=mean, seeds=seeds)
    return Cell("ok", mean=mean, seeds=seeds, footnote=_note(_trained(parts.iloc[0]), footnotes))


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
