"""The images that moved most, and crops of both versions where the files can be had."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from faithdiff.audit.compare import column_of
from faithdiff.audit.results import Columns
from faithdiff.report.cells import Column
from faithdiff.report.scores import KEY

MOST = 8  # as many as people look at; no test is made of them


@dataclass(frozen=True)
class Mover:
    """An image whose value changed much.

    Attributes:
        score: The change in standard deviations of the metric over all images of OLD: what makes
            metrics of different units comparable.
        sha256: Of the restored image in OLD and in NEW; empty where the value is not of an image.
    """

    method: str
    seed: int
    dataset: str
    level: str
    image: str
    column: Column
    old: float
    new: float
    score: float
    sha256: tuple[str, str]

    @property
    def path(self) -> str:
        """The restored image below ``restored/<profile>/``."""
        return f"{self.method}/seed{self.seed}/{self.dataset}/{self.level}/{self.image}.png"


def most_moved(
    rows: pd.DataFrame, cells: pd.DataFrame, columns: Columns, count: int = MOST
) -> list[Mover]:
    """The images that moved most, each once, by its metric that moved most.

    Args:
        rows: From :func:`faithdiff.audit.match.match_rows`.
        cells: From :func:`faithdiff.audit.match.describe_cells`; the comparable ones are used.
        columns: How each metric is printed.
        count: Images at most.
    """
    cell = [name for name in KEY if name not in ("seed", "image")]
    comparable = pd.MultiIndex.from_frame(cells[cells["verdict"] == ""].reset_index()[cell])
    kept = rows[pd.MultiIndex.from_frame(rows[cell]).isin(comparable)]
    # Comparable cells alone: images of other data "moved" by what they are.
    kept = kept[kept["value_old"] != kept["value_new"]]
    spread = rows.groupby(["metric", "protocol"], observed=True)["value_old"].std()
    # A spread of zero, or of one image, compares with nothing.
    owner = pd.MultiIndex.from_frame(kept[["metric", "protocol"]])
    scale = spread.where(spread > 0).reindex(owner).to_numpy()
    score = ((kept["value_new"] - kept["value_old"]).abs() / scale).fillna(0.0)
    ranked = kept.assign(score=score).sort_values(["score", *KEY], ascending=[False] + [True] * 7)
    # Once, by the metric that moved most: otherwise one odd image fills the list.
    image = ["method", "seed", "dataset", "level", "image"]
    chosen = ranked.drop_duplicates(image).head(count)
    return [
        Mover(
            line["method"],
            int(line["seed"]),
            line["dataset"],
            line["level"],
            line["image"],
            column_of(columns, line["metric"], line["protocol"]),
            float(line["value_old"]),
            float(line["value_new"]),
            float(line["score"]),
            (line["restored_sha256_old"], line["restored_sha256_new"]),
        )
        for line in chosen.to_dict("records")
    ]
