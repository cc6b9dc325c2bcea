"""The figure of perception against distortion: what each method pays in PSNR, and what it gets.

One panel per test set. A method is one colour and one marker at every level; a thin line joins its
levels, and the marker empties as they get worse.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import groupby

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from faithdiff.config import Profile
from faithdiff.report.cells import Block, Row, Table
from faithdiff.report.style import GREY, NOTE, WIDTH, MethodStyle, grid, method_styles

PERCEPTUAL = ("lpips", "st-lpips", "clipiqa+", "musiq")  # the first one that was measured is drawn


def tradeoff_figure(profile: Profile, table: Table) -> Figure | None:
    """Draw PSNR against a perceptual metric; better is up and to the right.

    Args:
        profile: Gives labels, colours and levels.
        table: The main table.

    Returns:
        The figure; None where PSNR or every perceptual metric is missing.
    """
    names = [column.metric for column in table.columns]
    measured = [m for m in PERCEPTUAL if m in names and _any_ok(table, names.index(m))]
    if "psnr" not in names or not measured:
        return None
    x, y = names.index("psnr"), names.index(measured[0])
    sets = [list(blocks) for _, blocks in groupby(table.blocks, key=lambda block: block.group)]
    figure = Figure(figsize=(min(WIDTH, 3.7 * len(sets) + 0.4), 3.7), layout="constrained")
    styles = method_styles(profile)
    panels = figure.subplots(1, len(sets), squeeze=False)[0]
    for axes, blocks in zip(panels, sets, strict=True):
        _panel(axes, blocks, (x, y), styles)
        _say(axes, table, blocks, (x, y))
    drawn = [row.method for row in table.blocks[0].rows if row.method]
    figure.supxlabel(_note(table, (x, y)), **NOTE)
    figure.legend(
        handles=_method_handles(drawn, styles),
        loc="outside upper center",
        fontsize=6.5,
        ncols=4 if len(drawn) <= 8 else 3,
    )
    levels = _level_handles(profile.data.levels)
    panels[-1].legend(handles=levels, loc="lower right", fontsize=6.5, frameon=True, framealpha=0.9)
    return figure


def _note(table: Table, at: tuple[int, int]) -> str:
    cells = [row.cells[c] for block in table.blocks for row in block.rows for c in at]
    several = any(len(cell.seeds) > 1 for cell in cells)
    surrogate = table.columns[at[1]].metric == "st-lpips"
    return (
        "Means over the test set."
        + " Bars: standard deviation over trainings." * several
        + " ST-LPIPS is a surrogate for LPIPS." * surrogate
    )


def _any_ok(table: Table, c: int) -> bool:
    return any(row.cells[c].status == "ok" for block in table.blocks for row in block.rows)


def _panel(
    axes: Axes, blocks: Sequence[Block], at: tuple[int, int], styles: Mapping[str, MethodStyle]
) -> None:
    """Draw the methods of a test set, each with a mark for every level."""
    x, y = at
    rows: dict[str, list[tuple[int, Row]]] = {}
    for level, block in enumerate(blocks):
        for row in block.rows:
            if row.method and all(row.cells[c].status == "ok" for c in at):
                rows.setdefault(row.method, []).append((level, row))
    for method, found in rows.items():
        style = styles[method]
        means = [[row.cells[c].mean for _, row in found] for c in at]
        axes.plot(*means, color=style.colour, linewidth=0.7, alpha=0.5, zorder=2)
        for level, row in found:
            a, b = row.cells[x], row.cells[y]
            spreads = [cell.seed_sd for cell in (a, b)]
            axes.errorbar(
                a.mean, b.mean, xerr=spreads[0], yerr=spreads[1], fmt=style.marker, ms=5.5,
                color=style.colour, mfc=_face(style.colour, level, len(blocks)), mew=0.9,
                elinewidth=0.8, zorder=3,
            )  # fmt: skip
    grid(axes)
    axes.margins(0.09)


def _face(colour: str, level: int, levels: int) -> tuple[float, ...]:
    """Colour inside a marker: full at the first level, white at the last."""
    share = level / max(levels - 1, 1)
    return tuple(part + (1 - part) * share for part in to_rgb(colour))


def _say(axes: Axes, table: Table, blocks: Sequence[Block], at: tuple[int, int]) -> None:
    """Write title and labels, and turn the axes so that better is up and to the right."""
    x, y = (table.columns[c] for c in at)
    name = blocks[0].group
    if not y.higher_is_better:
        axes.invert_yaxis()
    axes.set_title(name)
    axes.set_xlabel(f"{x.label} ({x.unit}), better to the right")
    axes.set_ylabel(f"{y.label}, better upwards")
    axes.locator_params(nbins=6)
    absent = [
        f"{row.label}, {block.title}"
        for block in blocks
        for row in block.rows
        if row.method and any(row.cells[c].status != "ok" for c in at)
    ]
    if absent:
        lack = textwrap.fill(f"no result: {'; '.join(absent)}", 60)
        axes.set_title(f"{name}\n{lack}", fontsize=6.5)


def _method_handles(methods: Sequence[str], styles: Mapping[str, MethodStyle]) -> list[Line2D]:
    return [
        Line2D([], [], color=style.colour, marker=style.marker, ls="", ms=5.5, label=style.label)
        for style in (styles[method] for method in methods)
    ]


def _level_handles(levels: Sequence[str]) -> list[Line2D]:
    return [
        Line2D(
            [], [], color=GREY, marker="o", ls="", ms=5.5, label=f"Level {level}",
            mfc=_face(GREY, i, len(levels)),
        )
        for i, level in enumerate(levels)
    ]  # fmt: skip
