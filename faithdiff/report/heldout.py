"""The figure of the held-out loss over the timesteps: where on the way a variant is better.

The loss at a timestep that the sampler never visits says nothing about its images; those that it
visits are shaded, and the others are drawn beside them.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from faithdiff.config import Profile
from faithdiff.report.cells import Block, Column, Row, timestep_columns, updates_text
from faithdiff.report.draft import Draft
from faithdiff.report.groups import budgeted
from faithdiff.report.style import GREY, NOTE, WIDTH, MethodStyle, grid, in_lines, method_styles

ACROSS = 3  # panels beside each other


def heldout_figure(profile: Profile, scores: pd.DataFrame) -> Figure | None:
    """Draw each row of the ablation against the first one, timestep by timestep.

    Returns:
        The figure; None where ``scores.csv`` has no row ``heldout_loss@<t>`` of the first one, or
        of no other.
    """
    columns = timestep_columns(scores["metric"].unique())
    timesteps = list(columns)
    rows = _compared(profile, scores, list(columns.values())) if columns else ()
    if not any(cell.comparison for row in rows for cell in row.cells):
        return None
    first, *others = rows
    # What was measured beside them was asked for by `curve`.
    visited = [t for t in timesteps if t not in profile.training.heldout.curve]
    down = -(-len(others) // ACROSS)
    figure = Figure(figsize=(WIDTH, 1.45 * down + 0.45), layout="constrained")
    panels = figure.subplots(down, ACROSS, squeeze=False, sharex=True).ravel()
    styles = method_styles(profile)
    for axes, row in zip(panels, others, strict=False):
        _shade(axes, visited)
        _curve(axes, timesteps, row, styles[row.method])
        axes.set_title(_title(row, first), fontsize=7)
    for axes in panels[len(others) :]:
        axes.remove()
    figure.supylabel(f"held-out loss minus that of {first.label}", fontsize=7)
    figure.supxlabel(
        "Timestep; lines mark those that the common sampler visits. Band: 95% interval of the "
        f"paired difference to {first.label}; filled: significant; below zero is better.",
        **NOTE,
    )
    return figure


def _compared(profile: Profile, scores: pd.DataFrame, columns: Sequence[Column]) -> Sequence[Row]:
    """The rows of the ablation over all levels, one cell for each timestep."""
    block = Block("All levels", "", tuple(profile.data.with_hq), tuple(profile.data.levels))
    draft = Draft("heldout", scores, profile, columns, [block], profile.report.ablation)
    draft.compare_with_first()
    return budgeted(draft.finish(), profile)[0].rows


def _shade(axes: Axes, visited: Sequence[int]) -> None:
    axes.axhline(0, color=GREY, linewidth=0.8)
    if visited:
        axes.axvspan(min(visited), max(visited), color=GREY, alpha=0.13, linewidth=0)
    for number in visited:
        axes.axvline(number, color=GREY, linewidth=0.4, alpha=0.6)
    grid(axes)


def _curve(axes: Axes, timesteps: Sequence[int], row: Row, style: MethodStyle) -> None:
    """Draw the paired differences of one row with their intervals."""
    found = [
        (t, cell.comparison)
        for t, cell in zip(timesteps, row.cells, strict=True)
        if cell.comparison is not None
    ]
    if not found:
        axes.text(0.5, 0.5, "not run", ha="center", color=GREY, transform=axes.transAxes)
        return
    at = [t for t, _ in found]
    axes.fill_between(
        at, [c.low for _, c in found], [c.high for _, c in found], color=style.colour,
        alpha=0.25, linewidth=0,
    )  # fmt: skip
    axes.plot(at, [c.mean for _, c in found], color=style.colour, linewidth=0.9)
    for t, compared in found:
        face = style.colour if compared.significant else "white"
        axes.plot(t, compared.mean, style.marker, color=style.colour, mfc=face, ms=3.5, mew=0.8)
    axes.locator_params(axis="y", nbins=4)


def _title(row: Row, first: Row) -> str:
    """The label, and the two budgets where they differ."""
    if row.updates is None or row.updates == first.updates:
        return in_lines(row.label)
    budgets = f"{updates_text(row)} updates ({first.label}: {updates_text(first)})"
    return f"{in_lines(row.label)}\n{budgets}"
