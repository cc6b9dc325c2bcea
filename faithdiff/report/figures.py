"""The figures of numbers, and :func:`write_figures`, which draws every figure of a profile.

Like the tables, they are pure functions of small files: ``scores.csv``, ``training.csv``, and the
images on disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from faithdiff.config import Profile
from faithdiff.methods.method import Study
from faithdiff.report.cells import Cell, Column, Row, Table, cell_text, header, updates_text
from faithdiff.report.curves import curve_figure, curve_table, points
from faithdiff.report.heldout import heldout_figure
from faithdiff.report.panels import levels_figure, panel_level, panels_figure
from faithdiff.report.scores import load_scores
from faithdiff.report.style import (
    GREY,
    NOTE,
    RC,
    WIDTH,
    MethodStyle,
    grid,
    in_lines,
    method_styles,
    save,
)
from faithdiff.report.tables import ablation_table, main_table, metric_columns
from faithdiff.report.tradeoff import tradeoff_figure
from faithdiff.report.training import training_figure


def write_figures(study: Study) -> list[Path]:
    """Write ``results/<profile>/figures/*.{png,pdf}``.

    Returns:
        The files. ``training`` is missing where nothing was trained, ``perception-distortion``
        where no perceptual metric was measured, ``ablation`` where it has a single row,
        ``heldout`` where no loss was measured timestep by timestep.

    Raises:
        UserError: The scores, an index or an image is missing or corrupted.
    """
    layout = study.layout
    scores = load_scores(layout.results / "scores.csv", layout.profile)
    with matplotlib.rc_context(RC):
        return [
            path
            for name, figure in _figures(study, scores)
            if figure is not None
            for path in save(figure, layout.results / "figures" / name)
        ]


def _figures(study: Study, scores: pd.DataFrame) -> Iterator[tuple[str, Figure | None]]:
    profile, layout = study.profile, study.layout
    if profile.report.panel_images:
        yield "levels", levels_figure(profile, layout)
        for dataset in profile.data.test:
            level = panel_level(profile, dataset)
            figure = panels_figure(profile, layout, scores, dataset, level)
            yield f"panels-{dataset}-{level}", figure
    yield "ablation", ablation_figure(profile, ablation_table(scores, profile))
    yield "heldout", heldout_figure(profile, scores)
    yield "training", training_figure(profile, layout)
    table = main_table(scores, profile)
    yield "perception-distortion", tradeoff_figure(profile, table)
    for name in profile.curves:
        table = curve_table(scores, profile, name, metric_columns(profile))
        yield f"curve-{name}", curve_figure(profile, table, name, _compute(study, name))


def _compute(study: Study, name: str) -> dict[str, float | None]:
    """Operations of each row of a curve over budgets; of other curves, nothing."""
    curve = study.profile.curves[name]
    if curve.setting != "budget":
        return {}
    from faithdiff.train.cost import last_stage

    rows = [row for at in points(study.profile, curve).values() for row in at.values()]
    return {row: last_stage(study, row) for row in rows}


def ablation_figure(profile: Profile, table: Table) -> Figure | None:
    """Draw the paired differences to the first row, over all levels, with their 95% intervals."""
    reference, *rows = table.blocks[0].rows
    drawn = [c for c in range(len(table.columns)) if any(row.cells[c].comparison for row in rows)]
    if not drawn:
        return None
    down = -(-len(drawn) // 4)
    across = -(-len(drawn) // down)
    height = (0.2 * len(rows) + 0.75) * down + 0.3
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(down, across, sharey=True, squeeze=False).ravel()
    styles = method_styles(profile)
    for area, c in zip(axes, drawn, strict=False):
        cells = [row.cells[c] for row in rows]
        _differences(area, table.columns[c], cells, [styles[row.method] for row in rows])
    if len({row.updates for row in table.blocks[0].rows}) > 1:
        axes[0].set_yticks(range(len(rows)), [_with_budget(row) for row in rows])
    for area in axes[len(drawn) :]:
        area.remove()
    left_out = [table.columns[c].label for c in range(len(table.columns)) if c not in drawn]
    note = (
        f"Difference to {reference.label}, 95% interval; filled: significant; green side: better."
        + (f" Nothing to compare: {', '.join(left_out)}." if left_out else "")
    )
    figure.supxlabel(note, **NOTE)
    return figure


def _with_budget(row: Row) -> str:
    label = in_lines(row.label)
    return f"{label}, {updates_text(row)} updates" if row.updates else label


def _differences(
    axes: Axes, column: Column, cells: Sequence[Cell], styles: Sequence[MethodStyle]
) -> None:
    axes.set_title(header(column))
    axes.set_yticks(range(len(cells)), [style.label for style in styles])
    axes.set_ylim(len(cells) - 0.5, -0.5)
    axes.axvline(0, color=GREY, linewidth=0.8)
    grid(axes)
    for y, (cell, style) in enumerate(zip(cells, styles, strict=True)):
        compared = cell.comparison
        if compared is None:
            # With a value of its own, it is the reference that has none.
            why = "not compared" if cell.status == "ok" else cell_text(cell, column)
            axes.text(0, y, f" {why}", va="center", fontsize=6, color=GREY)
            continue
        axes.plot([compared.low, compared.high], [y, y], color=style.colour)
        face = style.colour if compared.significant else "white"
        axes.plot(compared.mean, y, style.marker, color=style.colour, mfc=face, ms=4.5)
    low, high = axes.get_xlim()
    better = (0, high) if column.higher_is_better else (low, 0)
    axes.axvspan(*better, color="#009E73", alpha=0.08, linewidth=0)
    axes.set_xlim(low, high)
    axes.locator_params(axis="x", nbins=3)
    axes.tick_params(axis="y", length=0)
