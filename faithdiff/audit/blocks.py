"""Per-picture values as matrices: cells measured on the same pictures stand side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import pandas as pd

from faithdiff.audit.match import CELL
from faithdiff.report.scores import PICTURE
from faithdiff.report.statistics import Floats

ALL = "all"  # dataset and level of a cell over every test set and level
Name = tuple[str, str, str]  # method, metric, protocol


@dataclass(frozen=True)
class ComparedBlock:
    """Cells of one place on the same pictures; `old` and `new` are ``(pictures, cells)``."""

    dataset: str
    level: str
    pictures: list[str]
    cells: list[Name]
    old: Floats
    new: Floats

    @property
    def key(self) -> tuple[str, ...]:
        """What the resampling is keyed by: the place and how many pictures it has."""
        return self.dataset, self.level, str(len(self.pictures))


def picture_values(rows: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Values of the comparable cells, averaged over seeds and the images of a picture.

    Args:
        rows: From :func:`faithdiff.audit.match.match_rows`.
        cells: From :func:`faithdiff.audit.match.describe_cells`.

    Returns:
        Columns old and new, indexed by ``CELL`` and picture, sorted.
    """
    chosen = cells.index[cells["verdict"] == ""]
    # Trainings are averaged first: what is compared are revisions of a method, and the same
    # trainings are on both sides.
    kept = rows[pd.MultiIndex.from_frame(rows[CELL]).isin(chosen)]
    names = [kept[name].astype(str) for name in [*CELL, PICTURE]]
    # The picture is the unit of chance: crops of one picture, and trainings of one method, are not
    # independent, and counted one by one they would make any difference significant.
    pair = kept[["value_old", "value_new"]].set_axis(["old", "new"], axis=1)
    return pair.groupby(names, sort=True).mean()


def overall_values(values: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """The same over all sets and levels: each picture is averaged over the levels.

    Left out: a method and metric with a single place, or with a place that cannot be compared.
    """
    owner = ["method", "metric", "protocol"]
    ready = (cells["verdict"] == "").groupby(level=owner)
    # All places or none: a mean over those that can be compared today would change its meaning with
    # each of them. A single place has its own cell already.
    whole = ready.all() & (ready.size() > 1)
    flat = values.reset_index()
    flat = flat[pd.MultiIndex.from_frame(flat[owner]).isin(whole.index[whole])]
    # A picture at three levels is one picture: its levels stay together when pictures are
    # resampled.
    flat = flat.assign(picture=flat["dataset"] + "/" + flat[PICTURE], dataset=ALL, level=ALL)
    return flat.groupby([*CELL, PICTURE], sort=True)[["old", "new"]].mean()


def blocks(values: pd.DataFrame) -> list[ComparedBlock]:
    """Split values by place and by the pictures that they are measured on."""
    found = []
    for (dataset, level), place in values.groupby(level=["dataset", "level"], sort=True):
        flat = place.droplevel(["dataset", "level"])
        old, new = (flat[side].unstack(["method", "metric", "protocol"]) for side in ("old", "new"))
        there = old.notna().to_numpy()
        columns = cast("list[Name]", old.columns.to_list())
        # Cells on the same pictures share one set of resamples, which is what takes the time, and
        # their intervals move together. A metric that lacks a picture has a block of its own.
        patterns: dict[bytes, list[int]] = {}
        for i in range(there.shape[1]):
            patterns.setdefault(there[:, i].tobytes(), []).append(i)
        for chosen in patterns.values():
            kept = there[:, chosen[0]]
            names = [columns[i] for i in chosen]
            pictures = list(old.index[kept])
            sides = (frame.to_numpy()[kept][:, chosen] for frame in (old, new))
            found.append(ComparedBlock(str(dataset), str(level), pictures, names, *sides))
    return found
