"""What was measured, and what nobody could measure here: no column of a table is empty.

Each `unavailable` row of ``scores.csv`` says what it lacks and, after "run: ", which command brings
it; one sentence joins them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import pandas as pd

from faithdiff.report.cells import Column

FETCH = "faithdiff fetch"
AGAIN = "snakemake --cores all"


def measured_columns(
    scores: pd.DataFrame,
    columns: Sequence[Column],
    methods: Iterable[str],
    datasets: Iterable[str],
    quoted: Collection[str] = (),
) -> tuple[list[Column], str]:
    """Leave out the columns that are unavailable in every row.

    Args:
        scores: As ``load_scores`` returns them.
        columns: Of a table.
        methods: Its rows.
        datasets: Test sets of its blocks.
        quoted: Metrics that stay in any case, because published numbers fill their column.

    Returns:
        The columns that stay, and the sentence on the others; empty where there are none.
    """
    own = scores[scores["method"].isin(list(methods)) & scores["dataset"].isin(list(datasets))]
    reasons: dict[str, str] = {}
    for column in columns:
        rows = own[(own["metric"] == column.metric) & (own["protocol"] == column.protocol)]
        if column.metric in quoted:
            continue
        if len(rows) and rows["status"].str.startswith("unavailable: ").all():
            reasons[column.label] = str(rows["status"].iloc[0]).removeprefix("unavailable: ")
    return [c for c in columns if c.label not in reasons], unmeasured(reasons)


def unmeasured(reasons: Mapping[str, str]) -> str:
    """Say which metrics were not measured, and the command that brings them.

    Args:
        reasons: Why, by the label of the metric: as ``scores.csv`` has it after "unavailable: ".
    """
    parts: dict[str, list[str]] = {}  # what is said in brackets -> metrics
    options: dict[str, str] = {}  # of one `faithdiff fetch` for all metrics
    # A metric may lack files of several sources, each with its own command.
    lacks = [(label, part) for label, why in reasons.items() for part in why.split("; needs ")]
    for label, reason in lacks:
        what, _, command = reason.partition("; run: ")
        if command.startswith(FETCH):
            options[command.removeprefix(FETCH).strip()] = ""
            said = FETCH
        else:
            said = f"`{command}`, then `{AGAIN}`" if command else what
        parts.setdefault(said, []).append(label)
    whole = f"`{' '.join((FETCH, *options))}`, then `{AGAIN}`"
    lines = [
        f"{', '.join(labels)} ({whole if how == FETCH else how})" for how, labels in parts.items()
    ]
    return f"Not measured: {'; '.join(lines)}." if lines else ""


def counted(scores: pd.DataFrame, columns: Sequence[Column]) -> tuple[list[str], str]:
    """Count the values of each metric, ``PSNR 960 of 960``; and say what has none, as above."""
    counts, reasons = [], dict[str, str]()
    for column in columns:
        own = (scores["metric"] == column.metric) & (scores["protocol"] == column.protocol)
        statuses = scores.loc[own, "status"]
        if len(statuses) and statuses.str.startswith("unavailable: ").all():
            reasons[column.label] = str(statuses.iloc[0]).removeprefix("unavailable: ")
        elif len(statuses):
            counts.append(f"{column.label} {(statuses == 'ok').sum():,} of {len(statuses):,}")
    return counts, unmeasured(reasons)
