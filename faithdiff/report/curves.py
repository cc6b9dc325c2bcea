"""Tables and figures of ``curves``: methods at several values of one setting.

A design at one budget, one start timestep or one learning rate is a point, and points that are
compared may lie on curves that cross. Each value of a curve is compared with the first method of
the curve at the same value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from matplotlib.transforms import Transform, offset_copy

from faithdiff.config import Curve, Profile
from faithdiff.config.checks import settings_of_sampler
from faithdiff.config.curves import OF_RESTORE
from faithdiff.config.methods import Setting
from faithdiff.report.cells import HELD_OUT, Block, Cell, Column, Table, header
from faithdiff.report.draft import Draft
from faithdiff.report.groups import budgeted
from faithdiff.report.measured import measured_columns
from faithdiff.report.style import GREY, NOTE, PALETTE, WIDTH, MethodStyle, grid
from faithdiff.report.tradeoff import PERCEPTUAL

Value = float | str
AXES = {  # what stands below a figure's abscissa
    "budget": "updates",
    "rates": "learning rates, times the profile's",
    "start_timestep": "start timestep",
    "guidance_scale": "guidance scale",
    "steps": "steps of the whole schedule",
    "restoration_guidance": "restoration guidance",
    "captions": "captions",
}


def own_value(profile: Profile, method: str, setting: Setting) -> Value | None:
    """The value of a setting at which a method itself stands on a curve; None if at none."""
    if setting == "budget" or setting == "rates":
        return profile.factor_of(method, setting)
    if setting in OF_RESTORE:
        return float(getattr(settings_of_sampler(profile, method), setting))
    return None


def points(profile: Profile, curve: Curve) -> dict[str, dict[Value, str]]:
    """The rows of a curve, by method and then by value, in order; methods themselves included."""
    found: dict[str, dict[Value, str]] = {}
    for method, rows in curve.rows.items():
        own = own_value(profile, method, curve.setting)
        at: dict[Value, str] = {} if own is None else {own: method}
        at |= {value: row for row, value in rows.items()}
        words = any(isinstance(value, str) for value in at)
        found[method] = at if words else dict(sorted(at.items()))
    return found


def curve_table(
    scores: pd.DataFrame, profile: Profile, name: str, wanted: Sequence[Column]
) -> Table:
    """Build the table of a curve: its rows value by value, over all test sets.

    Args:
        scores: As ``load_scores`` returns them.
        profile: Has the curve.
        name: Of the curve.
        wanted: The metrics, under one protocol.
    """
    curve = profile.curves[name]
    found = points(profile, curve)
    values = list(dict.fromkeys(value for at in found.values() for value in at))
    if not any(isinstance(value, str) for value in values):
        values.sort()
    methods = [at[value] for value in values for at in found.values() if value in at]
    first = found[curve.methods[0]]
    datasets, levels = tuple(profile.data.with_hq), tuple(profile.data.levels)
    blocks = [Block("All levels", "", datasets, levels)] if len(levels) > 1 else []
    blocks += [Block(f"Level {level}", "", datasets, (level,)) for level in levels]
    losses = [HELD_OUT] if curve.trains else []
    columns, unmeasured = measured_columns(scores, [*losses, *wanted], methods, datasets)
    draft = Draft(f"curve-{name}", scores, profile, columns, blocks, methods)
    draft.compare(
        {
            row: first[value]
            for at in found.values()
            for value, row in at.items()
            if value in first and row != first[value]
        }
    )
    label = profile.methods[curve.methods[0]].label
    caption = (
        f"Methods at several values of {curve.setting}. Means over the source pictures of "
        f"{' and '.join(datasets)}, whose crops and levels are averaged ({draft.counts()}), "
        f"protocol {wanted[0].protocol}."
    )
    if len(found) > 1:
        caption += (
            f" Beside each mean: paired difference to {label} at the same value, with its 95% "
            "interval. *: statistically significant, judged by "
            f"{draft.rule('differences of the table')}."
        )
    rows = budgeted(draft.finish(), profile)
    return replace(draft.table(caption, rows, differences=True), unmeasured=unmeasured)


def curve_styles(profile: Profile, curve: Curve) -> dict[str, MethodStyle]:
    """Styles of the methods of a curve: few enough for a colour of their own each."""
    label = {method: profile.methods[method].label for method in curve.methods}
    return {
        method: MethodStyle(label[method], *PALETTE[i % len(PALETTE)])
        for i, method in enumerate(curve.methods)
    }


def curve_figure(
    profile: Profile, table: Table, name: str, compute: Mapping[str, float | None]
) -> Figure | None:
    """Draw a curve.

    A training's setting: metrics against it, and differences to the first method. A sampler's:
    PSNR against a perceptual metric, a line per method.

    Args:
        profile: Has the curve.
        table: Its table.
        name: Of the curve.
        compute: Of a curve over budgets, operations of the last stage by row; metrics are drawn
            against them as well.

    Returns:
        The figure; None where nothing of it was measured.
    """
    curve = profile.curves[name]
    if curve.setting in (*OF_RESTORE, "restoration_guidance"):
        return _tradeoffs(profile, table, curve)
    return _metrics(profile, table, curve, compute)


def _metrics(
    profile: Profile, table: Table, curve: Curve, compute: Mapping[str, float | None]
) -> Figure | None:
    """Metrics against the setting, against operations, and differences to the first method."""
    rows = {row.method: row for row in table.blocks[0].rows}
    drawn = [c for c in _drawn(table) if any(row.cells[c].status == "ok" for row in rows.values())]
    if not drawn:
        return None
    down = 3 if compute else 2
    figure = Figure(figsize=(WIDTH, 2.05 * down), layout="constrained")
    panels = figure.subplots(down, len(drawn), squeeze=False)
    styles = curve_styles(profile, curve)
    for across, c in enumerate(drawn):
        panels[0][across].set_title(header(table.columns[c]))
        for number, (method, at) in enumerate(points(profile, curve).items()):
            cells = {value: rows[row].cells[c] for value, row in at.items()}
            x = {value: _abscissa(profile, curve, value, at[value]) for value in at}
            _line(panels[0][across], x, cells, styles[method])
            shift = 3 * (number - len(curve.methods) / 2)
            beside = offset_copy(panels[-1][across].transData, figure, shift, units="points")
            _differences(panels[-1][across], x, cells, styles[method], beside)
            if compute:
                spent = {v: flops / 1e12 for v in at if (flops := compute.get(at[v])) is not None}
                _line(panels[1][across], spent, cells, styles[method])
        for axes in panels[:, across]:
            grid(axes)
            if curve.trains:
                axes.set_xscale("log")
                axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
                axes.xaxis.set_minor_formatter(NullFormatter())
        panels[-1][across].axhline(0, color=GREY, linewidth=0.8)
    first = profile.methods[curve.methods[0]].label
    for axes in [*panels[0], *panels[-1]]:
        axes.set_xlabel(AXES[curve.setting])
    for axes in panels[1] if compute else ():
        axes.set_xlabel("TFLOP of the last stage")
    for line in panels[:-1]:
        line[0].set_ylabel("mean")
    panels[-1][0].set_ylabel(f"difference to {first}")
    _legend(figure, curve, styles)
    figure.supxlabel(
        "Means over source pictures, levels averaged. Bars: 95% interval of the paired difference "
        f"to {first} at the same value; filled: significant.",
        **NOTE,
    )
    return figure


def _tradeoffs(profile: Profile, table: Table, curve: Curve) -> Figure | None:
    """PSNR against a perceptual metric, a panel per level and a line per method."""
    names = [column.metric for column in table.columns]
    perceptual = [m for m in PERCEPTUAL if m in names]
    if "psnr" not in names or not perceptual:
        return None
    x, y = names.index("psnr"), names.index(perceptual[0])
    blocks = [block for block in table.blocks if len(block.levels) == 1]
    figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
    panels = figure.subplots(1, len(blocks), squeeze=False)[0]
    styles, found = curve_styles(profile, curve), points(profile, curve)
    for axes, block in zip(panels, blocks, strict=True):
        rows = {row.method: row for row in block.rows}
        for method, at in found.items():
            style = styles[method]
            ok = [
                (value, rows[name])
                for value, name in at.items()
                if all(rows[name].cells[c].status == "ok" for c in (x, y))
            ]
            axes.plot(
                [row.cells[x].mean for _, row in ok], [row.cells[y].mean for _, row in ok],
                color=style.colour, marker=style.marker, ms=3.5, linewidth=0.9,
            )  # fmt: skip
            for value, row in ok:
                place = (row.cells[x].mean, row.cells[y].mean)
                axes.annotate(
                    _text(value), place, xytext=(2, 2), textcoords="offset points", fontsize=4.5,
                    color=style.colour,
                )  # fmt: skip
        if not table.columns[y].higher_is_better:
            axes.invert_yaxis()
        axes.set_title(block.name)
        axes.set_xlabel(f"{table.columns[x].label} (dB), better to the right")
        axes.locator_params(nbins=5)
        axes.margins(0.1)
        grid(axes)
    panels[0].set_ylabel(f"{table.columns[y].label}, better upwards")
    _legend(figure, curve, styles)
    figure.supxlabel(f"Numbers next to the marks: {AXES[curve.setting]}.", **NOTE)
    return figure


def _drawn(table: Table) -> list[int]:
    """Columns that are drawn: the held-out loss, PSNR and the first perceptual metric."""
    names = [column.metric for column in table.columns]
    perceptual = next((m for m in PERCEPTUAL if m in names), None)
    return [names.index(m) for m in (HELD_OUT.metric, "psnr", perceptual) if m in names]


def _abscissa(profile: Profile, curve: Curve, value: Value, row: str) -> Value:
    """Where a point stands: a budget at its updates, another setting at its value."""
    updates = profile.updates_of(row) if curve.setting == "budget" else None
    return value if updates is None else float(updates)


def _line(
    axes: Axes, x: Mapping[Value, Value], cells: dict[Value, Cell], style: MethodStyle
) -> None:
    ok = [value for value in x if cells[value].status == "ok"]
    axes.plot(
        [x[value] for value in ok], [cells[value].mean for value in ok], color=style.colour,
        marker=style.marker, ms=3.5, linewidth=0.9,
    )  # fmt: skip


def _differences(
    axes: Axes,
    x: Mapping[Value, Value],
    cells: dict[Value, Cell],
    style: MethodStyle,
    beside: Transform,
) -> None:
    """Draw intervals; `beside` keeps those of several methods at one value apart."""
    axes.margins(x=0.12)
    for value, cell in cells.items():
        compared = cell.comparison
        if compared is None:
            continue
        axes.plot(
            [x[value]] * 2, [compared.low, compared.high], color=style.colour, linewidth=0.8,
            transform=beside,
        )  # fmt: skip
        face = style.colour if compared.significant else "white"
        axes.plot(
            x[value], compared.mean, style.marker, color=style.colour, mfc=face, ms=3.5,
            transform=beside,
        )  # fmt: skip
        axes.update_datalim(
            [(axes.convert_xunits(x[value]), y) for y in (compared.low, compared.high)]
        )


def _legend(figure: Figure, curve: Curve, styles: dict[str, MethodStyle]) -> None:
    handles = [
        Line2D([], [], color=s.colour, marker=s.marker, ms=4, linewidth=0.9, label=s.label)
        for s in (styles[method] for method in curve.methods)
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=4, fontsize=6.5)


def _text(value: Value) -> str:
    return value if isinstance(value, str) else f"{value:g}"
