"""Figures made of images: what the degradation levels look like, and what each method makes.

Each image is shown whole, with a box, and the box enlarged without smoothing. The box is fixed
before any result is there, so that no one chooses a flattering crop: the focus of a photograph that
ships with the suite, and elsewhere the place where the HQ image has most fine detail.
"""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from faithdiff.config import PhotoSet, Profile
from faithdiff.data.datasets import read_index
from faithdiff.data.images import read_image, read_result
from faithdiff.data.photos import PHOTOS
from faithdiff.errors import ImageError
from faithdiff.report.groups import in_groups
from faithdiff.report.style import GREY, VERMILLION, WIDTH
from faithdiff.report.tables import metric_columns
from faithdiff.study.layout import Layout

Pixels = NDArray[np.uint8]
Box = tuple[int, int, int]  # top, left, side in pixels

BOX_SHARE = 4  # the box is this many times smaller than the shorter side
PANELS_WIDTH = 6.3  # inches; what keeps the files of a profile below 4 MB
PRINTED = ("psnr", "st-lpips")  # under the panels
LEVEL_IMAGES = 2  # per test set in the figure of the levels


def levels_figure(profile: Profile, layout: Layout) -> Figure:
    """Draw HQ and the LQ of every level, for the first images of each test set.

    Raises:
        UserError: An index or an image is missing.
    """
    shown = [
        (dataset, name)
        for dataset in profile.data.with_hq
        for name in read_index(layout.dataset(dataset))["name"][:LEVEL_IMAGES]
    ]
    rows = ["HQ", *profile.data.levels]
    side = WIDTH / (2 * len(shown) + 0.35)
    figure = Figure(figsize=(WIDTH, side * len(rows) + 0.25), layout=_close())
    axes = figure.subplots(len(rows), 2 * len(shown), squeeze=False)
    for i, (dataset, name) in enumerate(shown):
        hq = read_image(layout.dataset(dataset) / "hq" / f"{name}.png")
        box = box_of(profile, dataset, name, hq)
        axes[0, 2 * i].set_title(f"{dataset}: {name}", loc="left", fontsize=6.5)
        for r, row in enumerate(rows):
            image = hq if row == "HQ" else _lq(layout, dataset, row, name, hq)
            _show(axes[r, 2 * i], image, box)
            _zoom(axes[r, 2 * i + 1], image, box)
    for r, row in enumerate(rows):
        axes[r, 0].set_ylabel(row if row == "HQ" else f"Level {row}", fontsize=7)
    return figure


def panels_figure(
    profile: Profile, layout: Layout, scores: pd.DataFrame, dataset: str, level: str
) -> Figure:
    """Draw LQ, each method of the main table, and HQ, for the first images of a test set.

    Real-world images have no HQ column; the box is where their LQ image has most detail. A second
    sampler of the same weights is left to the table.

    Raises:
        UserError: An index or an image is missing or has another size than its HQ image.
    """
    names = list(read_index(layout.dataset(dataset))["name"][: profile.report.panel_images])
    real = profile.data.is_real(dataset)
    methods = [name for name in profile.report.main if profile.checkpoint_of(name) == name]
    columns = ["LQ", *in_groups(profile, methods), *([] if real else ["HQ"])]
    scale = profile.data.scale_of(dataset)
    hqs = [
        _enlarged(read_image(layout.lq(dataset, level) / f"{name}.png"), scale)
        if real
        else read_image(layout.dataset(dataset) / "hq" / f"{name}.png")
        for name in names
    ]
    side = min(PANELS_WIDTH / len(columns), 1.0)
    heights = [ratio for hq in hqs for ratio in (hq.shape[0] / hq.shape[1], 1.0)]
    size = (side * len(columns), side * sum(heights) + 0.2 * len(names) + 0.4)
    figure = Figure(figsize=size, layout=_close())
    axes = figure.subplots(
        len(heights), len(columns), squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    values = _values(scores, profile, dataset, level)
    for i, (name, hq) in enumerate(zip(names, hqs, strict=True)):
        box = box_of(profile, dataset, name, hq)
        for c, column in enumerate(columns):
            whole, zoomed = axes[2 * i, c], axes[2 * i + 1, c]
            text = "" if real or column in ("LQ", "HQ") else _caption(values, column, name)
            # As large as a narrow column lets "0.000 ST-LPIPS" be.
            zoomed.set_xlabel(text, fontsize=min(6.0, 8.6 * side), labelpad=2)
            image = _image(profile, layout, scores, (dataset, level, name), column, hq)
            if isinstance(image, str):
                _absent(whole, image)
                _absent(zoomed, image)
            else:
                _show(whole, image, box)
                _zoom(zoomed, image, box)
    for c, column in enumerate(columns):
        label = column if column in ("LQ", "HQ") else profile.methods[column].label
        axes[0, c].set_title(textwrap.fill(label, 13), fontsize=6.0)
    title = f"{dataset}, real-world" if real else f"{dataset}, Level {level}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=8)
    return figure


def _close() -> ConstrainedLayoutEngine:
    return ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.01, wspace=0.01, hspace=0.01)


def box_of(profile: Profile, dataset: str, name: str, hq: Pixels) -> Box:
    """Where an image is enlarged: at its focus, or where it has most detail."""
    bundled = isinstance(profile.data.test[dataset], PhotoSet)
    focus = next((photo.focus for photo in PHOTOS if photo.name == name), None)
    if not bundled or focus is None:
        return detailed_box(hq)
    height, width = hq.shape[:2]
    left, top, share = focus
    return round(top * height), round(left * width), max(round(share * min(height, width)), 1)


def detailed_box(hq: Pixels) -> Box:
    """Find the square with most detail, inside the image.

    The root of the gradient is summed, so that many small edges count more than a strong one.

    Args:
        hq: ``(H, W, 3)`` uint8.
    """
    side = max(min(hq.shape[:2]) // BOX_SHARE, 1)
    grey = hq.mean(axis=2)
    detail = np.sqrt(ndimage.gaussian_gradient_magnitude(grey, sigma=1.0))
    # Rounded, so that the winner does not hang on the last bits of a sum.
    total = np.round(ndimage.uniform_filter(detail, side, mode="constant"), 3)
    half, (height, width) = side // 2, grey.shape
    inner = total[half : height - side + half + 1, half : width - side + half + 1]
    top, left = np.unravel_index(int(inner.argmax()), inner.shape)
    return int(top), int(left), side


def _lq(layout: Layout, dataset: str, level: str, name: str, hq: Pixels) -> Pixels:
    """Read the LQ image at the size of the HQ image, pixels enlarged as they are."""
    small = read_image(layout.lq(dataset, level) / f"{name}.png")
    size = (hq.shape[1], hq.shape[0])
    return np.asarray(Image.fromarray(small).resize(size, Image.Resampling.NEAREST))


def _enlarged(lq: Pixels, scale: int) -> Pixels:
    """Pixels enlarged as they are."""
    return lq.repeat(scale, axis=0).repeat(scale, axis=1)


def _image(
    profile: Profile,
    layout: Layout,
    scores: pd.DataFrame,
    where: tuple[str, str, str],
    column: str,
    hq: Pixels,
) -> Pixels | str:
    """Read the image of one column; a word where the scores say that there is none."""
    dataset, level, name = where
    if column == "HQ":
        return hq
    if column == "LQ":
        return _lq(layout, dataset, level, name, hq)
    rows = scores[scores["method"] == column]
    seed = int(rows["seed"].min()) if len(rows) else profile.seeds[0]
    file = layout.restoration(column, seed, dataset, level) / f"{name}.png"
    place = dict(zip(("dataset", "level", "image", "seed"), (*where, seed), strict=True))
    own = rows[(rows[list(place)] == pd.Series(place)).all(axis=1)]
    if not file.exists() and own["status"].str.startswith("failed").any():
        return "failed"
    if not file.exists() and own.empty:
        return "not run"
    image = read_result(file)
    if image.shape != hq.shape:
        found, wanted = image.shape[1::-1], hq.shape[1::-1]
        raise ImageError(f"{file}: is {found[0]} x {found[1]}, not {wanted[0]} x {wanted[1]} px")
    return image


Values = dict[tuple[str, str], list[str]]  # (method, image) -> one line for each metric


def _values(scores: pd.DataFrame, profile: Profile, dataset: str, level: str) -> Values:
    """Write PSNR and ST-LPIPS by method and image, at each method's first seed, where ok."""
    where = {"dataset": dataset, "level": level, "protocol": profile.report.protocol}
    rows = scores[(scores[list(where)] == pd.Series(where)).all(axis=1)]
    rows = rows[(rows["status"] == "ok") & rows["metric"].isin(PRINTED)]
    rows = rows[rows["seed"] == rows["method"].map(scores.groupby("method")["seed"].min())]
    columns = {c.metric: c for c in metric_columns(profile) if c.metric in PRINTED}
    values: Values = {}
    for metric, column in columns.items():
        own = rows[rows["metric"] == metric]
        for method, image, value in zip(own["method"], own["image"], own["value"], strict=True):
            text = f"{value:.{min(column.decimals, 3)}f} {column.unit or column.label}"
            values.setdefault((method, image), []).append(text)
    return values


def _caption(values: Values, method: str, name: str) -> str:
    return "\n".join(values.get((method, name), ["n/a"]))


def _show(axes: Axes, image: Pixels, box: Box) -> None:
    _bare(axes)
    axes.imshow(image)
    top, left, side = box
    edge = Rectangle((left - 0.5, top - 0.5), side, side, fill=False, ec=VERMILLION, lw=0.9)
    axes.add_patch(edge)


def _zoom(axes: Axes, image: Pixels, box: Box) -> None:
    top, left, side = box
    _bare(axes, colour=VERMILLION)
    axes.imshow(image[top : top + side, left : left + side], interpolation="none")


def _absent(axes: Axes, why: str) -> None:
    _bare(axes, colour=GREY)
    axes.set_box_aspect(1)
    axes.text(0.5, 0.5, why, ha="center", va="center", color=GREY, transform=axes.transAxes)


def _bare(axes: Axes, colour: str | None = None) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(colour is not None)
        if colour:
            spine.set_edgecolor(colour)
            spine.set_linewidth(0.9)


def panel_level(profile: Profile, dataset: str) -> str:
    """Choose the one level that is shown, the middle one: `results/` is in git and stays small."""
    levels = profile.data.levels_of(dataset)
    return levels[len(levels) // 2]
