"""The numbers that the paper prints, as far as they were found, from ``results/paper/*.csv``."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from faithdiff.errors import UserError
from faithdiff.study.files import unreadable

PAPER = Path("results", "paper")


def published_for(
    dataset: str, level: str, protocol: str, paper: Path = PAPER
) -> dict[str, dict[str, float]]:
    """Look up the published values of one block of the main table: ``{method: {metric: value}}``.

    Empty unless dataset, level and protocol carry the very names of the published rows: a
    number of other images or of another metric definition is not comparable.

    Raises:
        UserError: The file of published numbers is missing or lacks a column.
    """
    file = paper / "table1.csv"
    try:
        rows = pd.read_csv(file, keep_default_na=False)
        fits = (
            (rows["dataset"] == dataset) & (rows["level"] == level) & (rows["protocol"] == protocol)
        )
        values: dict[str, dict[str, float]] = {}
        for _, row in rows[fits].iterrows():
            values.setdefault(row["method"], {})[row["metric"]] = float(row["value"])
    except OSError as error:
        raise UserError(unreadable(file, error, "restore it from git")) from None
    except (KeyError, ValueError) as error:
        raise UserError(f"{file}: is corrupted ({error}); restore it from git") from None
    return values
