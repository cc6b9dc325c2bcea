"""The history as a figure: a panel per metric, intervals as bars, change points as lines."""

from __future__ import annotations

import io
import math

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from faithdiff.audit.history import History, Series
from faithdiff.audit.sections import metric_name
from faithdiff.report.style import GREY, PALETTE, RC, WIDTH, grid

_PANEL = 2.0  # inches


def history_figure(found: History) -> Figure:
    """Draw every series that has a value, methods by colour and marker."""
    drawn = [each for each in found.series if any(not math.isnan(p.mean) for p in each.points)]
    panels = list(dict.fromkeys((s.column, s.place) for s in drawn))
    methods = list(dict.fromkeys(s.method for s in drawn))
    several = len({s.column.protocol for s in drawn} - {"heldout"}) > 1
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(WIDTH, _PANEL * max(len(panels), 1) + 0.6), layout="constrained")
        # A panel for each metric: their units have nothing in common that an axis could share.
        axes = figure.subplots(max(len(panels), 1), 1, squeeze=False, sharex=True)[:, 0]
        for ax, (column, place) in zip(axes, panels, strict=False):
            ax.set_ylabel(f"{metric_name(column, several)}\n{place}")
            grid(ax)
            for each in drawn:
                if (each.column, each.place) == (column, place):
                    _draw(ax, each, found, methods.index(each.method))
        ticks = [commit.short for commit in found.commits]
        axes[-1].set_xticks(range(len(ticks)), ticks, rotation=30, ha="right")
        if methods:
            figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=5)
    return figure


def to_png(figure: Figure) -> bytes:
    """The figure as a picture; equal figures give equal bytes."""
    out = io.BytesIO()
    with matplotlib.rc_context(RC):
        figure.savefig(out, format="png", dpi=150, metadata={"Software": None})
    return out.getvalue()


def _draw(axes: Axes, series: Series, found: History, index: int) -> None:
    place = {commit.sha: i for i, commit in enumerate(found.commits)}
    colour, marker = PALETTE[index % len(PALETTE)]
    known = [point for point in series.points if not math.isnan(point.mean)]
    x = [place[point.commit.sha] for point in known]
    y = [point.mean for point in known]
    # An interval of a single image is NaN: no bar.
    bars = [[p.mean - p.low for p in known], [p.high - p.mean for p in known]]
    axes.errorbar(
        x, y, yerr=bars, color=colour, marker=marker, ms=3, capsize=2, elinewidth=0.6,
        label=series.method,
    )  # fmt: skip
    for point in series.points:
        if point.change_point:
            axes.axvline(place[point.commit.sha], color=GREY, linewidth=0.6, linestyle=":")
