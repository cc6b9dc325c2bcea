"""The figure of the training losses, from the ``training.csv`` that `collect` writes."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from faithdiff.config import Profile
from faithdiff.errors import UserError
from faithdiff.report.style import WIDTH, MethodStyle, grid, method_styles
from faithdiff.study.files import check_table
from faithdiff.study.layout import Layout


def training_figure(profile: Profile, layout: Layout) -> Figure | None:
    """Draw the training losses at the first seed, raw and smoothed; a panel per objective."""
    curves = _curves(profile, layout)
    if not curves:
        return None
    panels = {title: [c for c in curves if c[0] == title] for title, *_ in curves}
    # A legend as narrow as its panel: one entry below the other, each method once.
    longest = max(len({style.label for _, style, _ in drawn}) for drawn in panels.values())
    figure = Figure(figsize=(WIDTH, 2.5 + 0.13 * longest), layout="constrained")
    all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, drawn) in zip(all_axes, panels.items(), strict=True):
        axes.set_title(title)
        axes.set_xlabel("update")
        grid(axes)
        said = set[str]()
        for _, style, log in drawn:
            smooth = log["loss"].ewm(span=max(len(log) / 8, 2)).mean()
            axes.plot(log["step"], log["loss"], color=style.colour, alpha=0.22, linewidth=0.7)
            axes.plot(
                log["step"], smooth, color=style.colour, marker=style.marker, ms=3,
                markevery=(len(log) // 12, max(len(log) // 4, 1)),
                label="_" * (style.label in said) + style.label,
            )  # fmt: skip
            said.add(style.label)
        axes.legend(fontsize=6, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    all_axes[0].set_ylabel("training loss")
    return figure


def _curves(profile: Profile, layout: Layout) -> list[tuple[str, MethodStyle, pd.DataFrame]]:
    """Read (panel, style, log) of stage 1 per recipe and of stage 2 per variant and denoiser."""
    logs, styles = _logs(layout.results / "training.csv", profile.seeds[0]), method_styles(profile)
    found: list[tuple[str, MethodStyle, pd.DataFrame]] = []
    for recipe in profile.recipes:
        users = [name for name, v in profile.variants.items() if v.recipe == recipe and v.pretrain]
        for log in logs.get(f"stage1-{recipe}", []) if users else []:
            own = styles[users[0]]
            found.append(("Stage 1", MethodStyle(recipe, own.colour, own.marker), log))
    for name, variant in profile.variants.items():
        if name in profile.curve_rows:
            continue  # in the figure of its curve
        for phase, log in zip(variant.phases, logs.get(name, []), strict=False):
            title = f"Stage 2, {phase.objective.replace('-', ' ')}"
            found.append((title, styles[name], log))
    for name, baseline in profile.baselines.items():
        if name in profile.curve_rows:
            continue
        # The last stage of a denoiser is that of the variants; what comes before is its own.
        for log in logs.get(name, [])[-1:] if baseline.denoises else []:
            found.append(("Stage 2, denoising", styles[name], log))
    return found


def _logs(file: Path, seed: int) -> dict[str, list[pd.DataFrame]]:
    """Read the logs of one seed by method, one per phase in the order of training."""
    if not file.exists():
        return {}
    check_table(file.read_bytes(), str(file))
    rows = pd.read_csv(file)
    if missing := {"method", "seed", "phase", "step", "loss"} - set(rows):
        raise UserError(f"{file}: has no column {', '.join(sorted(missing))}; collect again")
    return {
        str(method): [phase for _, phase in own.groupby("phase", sort=False)]
        for method, own in rows[rows["seed"] == seed].groupby("method")
    }
