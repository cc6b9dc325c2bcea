"""What the verb `table` prints: one table in one format, as the paper groups and orders it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd

from faithdiff.config import Profile
from faithdiff.errors import UserError
from faithdiff.report.cells import Table
from faithdiff.report.costs import cost_table, load_costs
from faithdiff.report.curves import curve_table
from faithdiff.report.html import to_html
from faithdiff.report.latex import to_latex
from faithdiff.report.published import PAPER
from faithdiff.report.records import to_cells, to_csv
from faithdiff.report.render import to_markdown
from faithdiff.report.scores import load_scores
from faithdiff.report.tables import ablation_table, main_table, metric_columns, real_table
from faithdiff.report.versus import (
    Grid,
    grid_csv,
    grid_html,
    grid_latex,
    grid_markdown,
    versus,
)
from faithdiff.study.layout import Layout
from faithdiff.study.manifest import Manifest

Format = Literal["latex", "markdown", "csv", "html"]
_SCORED: Mapping[str, Callable[[pd.DataFrame, Profile, str], Table]] = {
    "main": main_table,
    "realworld": real_table,
    "ablation": ablation_table,
}
TABLES = (*_SCORED, "cost")
_PRINTERS: Mapping[Format, tuple[Callable[[Table], str], Callable[[Grid], str]]] = {
    "latex": (to_latex, grid_latex),
    "markdown": (to_markdown, grid_markdown),
    "csv": (to_csv, grid_csv),
    "html": (to_html, grid_html),
}


@dataclass(frozen=True)
class Printed:
    """A table in one format, and its sidecar: JSON that maps its cells to their rows."""

    text: str
    cells: str


def print_table(
    name: str,
    profile: Profile,
    layout: Layout,
    form: Format,
    published: bool = False,
    protocol: str = "",
) -> Printed:
    """Render a table from ``scores.csv``, or from ``cost.csv``.

    Args:
        name: `main`, `realworld`, `ablation`, `cost`, or ``curve-<name>``.
        profile: Whose table.
        layout: Where its results lie.
        form: How it is printed.
        published: Three columns for each metric: published, ours, difference.
        protocol: Of the metrics; that of the profile where empty.

    Raises:
        UserError: There is no such table, or the scores cannot be read.
    """
    table = _table(name, profile, layout, protocol)
    whole, beside = _PRINTERS[form]
    if published:
        text = beside(versus(table, PAPER, _commit(layout)))
    else:
        text = whole(replace(table, caption=f"{table.caption} {_commit(layout)}"))
    return Printed(text, to_cells(table))


def _table(name: str, profile: Profile, layout: Layout, protocol: str) -> Table:
    curves = {f"curve-{curve}": curve for curve in profile.curves}
    if name not in (*TABLES, *curves):
        raise UserError(f"table {name!r}: is not one of {', '.join((*TABLES, *curves))}")
    if name == "cost":
        if protocol:
            raise UserError("--protocol: the table cost has no metrics; leave it out")
        return cost_table(load_costs(layout.results / "cost.csv"), profile)
    if name == "realworld" and not profile.data.real:
        raise UserError(f"table realworld: profile {profile.profile} has no set with lq_only")
    scores = load_scores(layout.results / "scores.csv", layout.profile)
    if name in curves:
        return curve_table(scores, profile, curves[name], metric_columns(profile, protocol))
    return _SCORED[name](scores, profile, protocol)


def _commit(layout: Layout) -> str:
    """Which code made the scores, as far as the manifest says."""
    file = layout.results / "manifest.json"
    try:
        manifest = Manifest.read(file)
    except FileNotFoundError:
        return "Code: commit not known."
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error}); make it again") from None
    dirty = " with uncommitted changes" if manifest.dirty else ""
    return f"Code: commit {str(manifest.commit)[:9]}{dirty}."
