"""Per-image values as matrices: cells that are measured on the same images stand side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from faithdiff.audit.match import CELL
from faithdiff.report.statistics import Floats

ALL = "all"  # data set and level of a cell over every test set and level
Name = tuple[str, str, str]  # method, metric, protocol


@dataclass(frozen=True)
class Block:
    """Cells of one place on the same images; `old` and `new` are ``(images, cells)``."""

    dataset: str
    level: str
    images: list[str]
    cells: list[Name]
    old: Floats
    new: Floats

    @property
    def key(self) -> tuple[str, ...]:
        """What the resampling is keyed by: the place and how many images it has."""
        return self.dataset, self.level, str(len(self.images))


def image_values(rows: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Values of the comparable cells, averaged over seeds.

    Args:
        rows: From :func:`faithdiff.audit.match.match_rows`.
        cells: From :func:`faithdiff.audit.match.describe_cells`.

    Returns:
        Columns old and new, indexed by ``CELL`` and image, sorted.
    """
    chosen = cells.index[cells["verdict"] == ""]
    kept = rows[pd.MultiIndex.from_frame(rows[CELL]).isin(chosen)]
    names = [kept[name].astype(str) for name in [*CELL, "image"]]
    pair = kept[["value_old", "value_new"]].set_axis(["old", "new"], axis=1)
    return pair.groupby(names, sort=True).mean()


def overall_values(values: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """The same over all sets and levels: each image is averaged over the levels.

    Left out: a method and metric with a single place, or with a place that cannot be compared.
    """
    owner = ["method", "metric", "protocol"]
    ready = (cells["verdict"] == "").groupby(level=owner)
    whole = ready.all() & (ready.size() > 1)
    flat = values.reset_index()
    flat = flat[pd.MultiIndex.from_frame(flat[owner]).isin(whole.index[whole])]
    flat = flat.assign(image=flat["dataset"] + "/" + flat["image"], dataset=ALL, level=ALL)
    return flat.groupby([*CELL, "image"], sort=True)[["old", "new"]].mean()


def blocks(values: pd.DataFrame) -> list[Block]:
    """Split values by place and by the images that they are measured on."""
    found = []
    for (dataset, level), place in values.groupby(level=["dataset", "level"], sort=True):
        flat = place.droplevel(["dataset", "level"])
        old, new = (flat[side].unstack(["method", "metric", "protocol"]) for side in ("old", "new"))
        there = old.notna().to_numpy()
        columns: list[Any] = old.columns.to_list()
        patterns: dict[bytes, list[int]] = {}
        for i in range(there.shape[1]):
            patterns.setdefault(there[:, i].tobytes(), []).append(i)
        for chosen in patterns.values():
            kept = there[:, chosen[0]]
            names: list[Name] = [columns[i] for i in chosen]
            images = list(old.index[kept])
            sides = (frame.to_numpy()[kept][:, chosen] for frame in (old, new))
            found.append(Block(str(dataset), str(level), images, names, *sides))
    return found
