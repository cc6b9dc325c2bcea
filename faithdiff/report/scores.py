"""Reading ``scores.csv``, the only source of the numbers in tables, figures and verdicts.

A :class:`ScoreBook` answers one question: the values of one method on one metric, picture by
picture, or why there are none. It never averages over fewer images than the other methods have.
A picture is what images were cut from; its crops and its levels are averaged, because they are no
independent evidence.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import IO, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from faithdiff.errors import UserError
from faithdiff.score.rows import COLUMNS as COLUMNS_OF_JOB
from faithdiff.study.files import check_table, unreadable

KEY = ["method", "seed", "dataset", "level", "image", "metric", "protocol"]
PICTURE = "picture"
COLUMNS = ["profile", *COLUMNS_OF_JOB]  # as `collect` puts the tables of the jobs together

Status = Literal["ok", "unavailable", "failed", "incomplete", "not run"]


def load_scores(path: Path, profile: str | None = None) -> pd.DataFrame:
    """Read and check a score file; rows come back in the order of their keys.

    Args:
        profile: Whose scores they must be; None: anyone's.

    Raises:
        UserError: The file is missing, is of another profile, or as :func:`read_scores`.
    """
    try:
        with path.open("rb") as stream:
            scores = read_scores(stream, str(path))
    except OSError as error:
        raise UserError(unreadable(path, error, "`faithdiff collect` writes it")) from None
    if profile is not None:
        check_profile(scores, profile, str(path))
    return scores


def check_profile(scores: pd.DataFrame, profile: str, path: str) -> None:
    """Refuse a folder of results that was copied: its numbers are those of other settings.

    Raises:
        UserError: Names both profiles.
    """
    if other := sorted(set(scores["profile"]) - {profile}):
        raise UserError(
            f"{path}: holds results of the profile {other[0]!r}, not {profile!r}; a folder belongs "
            "to the profile of its name"
        )


def read_scores(stream: IO[bytes], path: str) -> pd.DataFrame:
    """Read and check scores from anywhere; `path` is what messages call it.

    Raises:
        UserError: It lacks a column, has a row twice, or holds a value that contradicts its
            status.
    """
    content = stream.read()
    check_table(content, path)
    try:
        frame = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is not a CSV file: {error}") from None
    if not isinstance(frame.index, pd.RangeIndex):  # pandas takes what stands before for an index
        raise UserError(f"{path}: its rows have more fields than its head; score and collect again")
    if PICTURE not in frame and "image" in frame:  # as older commits have it
        frame.insert(list(frame).index("image") + 1, PICTURE, frame["image"])
    if missing := [name for name in COLUMNS if name not in frame]:
        raise UserError(f"{path}: has no column {', '.join(missing)}; score and collect again")
    frame["seed"] = _numbers(frame, "seed", path).astype(int)
    frame["value"] = _numbers(frame, "value", path, where=frame["status"] == "ok")
    _check_rows(frame, path)
    # One order, whatever the file's: sums of floats depend on it in their last bits.
    return frame.sort_values(KEY, ignore_index=True)


def _numbers(
    frame: pd.DataFrame, column: str, path: str, where: pd.Series | None = None
) -> pd.Series:
    """Return the column as finite floats, NaN outside of `where`."""
    numbers = pd.to_numeric(frame[column], errors="coerce").astype(float)
    wanted = pd.Series(True, index=frame.index) if where is None else where
    bad = frame.index[wanted & ~np.isfinite(numbers)]
    if len(bad):
        value = str(frame.loc[bad[0], column])
        raise UserError(f"{path}, line {bad[0] + 2}: {column} is {value!r}, not a finite number")
    return numbers.where(wanted)


def _check_rows(frame: pd.DataFrame, path: str) -> None:
    known = frame["status"].str.match(r"ok$|unavailable: .|failed: .")
    if not known.all():
        line = int(known.index[~known][0])
        raise UserError(
            f"{path}, line {line + 2}: status is {frame.loc[line, 'status']!r}, not ok, "
            "`unavailable: <why>` or `failed: <why>`"
        )
    nameless = frame.index[frame[PICTURE] == ""]
    if len(nameless):
        raise UserError(f"{path}, line {nameless[0] + 2}: picture is empty")
    # A row that is there twice would weigh its picture twice in every mean, and no mean shows it.
    twice = frame.duplicated(KEY)
    if twice.any():
        line = int(frame.index[twice][0])
        row = ", ".join(f"{name} {frame.loc[line, name]!s}" for name in KEY)
        raise UserError(f"{path}, line {line + 2}: this row occurs twice: {row}")


@dataclass(frozen=True)
class Sample:
    """The values of one method on one metric, or why it has none.

    Attributes:
        values: A row per (dataset, picture), averaged over its images and levels, and a column per
            seed; empty unless ok.
        expected: Images that the metric should have been measured on.
        usable: Images all of whose rows are there and ok.
        reasons: What the rows of this status say, each once.
        seeds: The seeds behind the values.
    """

    status: Status
    values: pd.DataFrame
    expected: int
    usable: int
    reasons: tuple[str, ...]
    seeds: tuple[int, ...]

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The values as ``(trainings, pictures)``."""
        return self.values.to_numpy(dtype=float).T

    @property
    def array(self) -> NDArray[np.float64]:
        """The values as ``(pictures,)``, averaged over seeds."""
        return self.matrix.mean(axis=0)

    @property
    def pictures(self) -> int:
        """Number of source pictures: the n of every comparison."""
        return len(self.values)


def difference(sample: Sample, other: Sample) -> NDArray[np.float64]:
    """Return ``sample - other`` as ``(trainings, pictures)``, seed by seed.

    A single training of one of the two is subtracted from each of the other's. Different seeds
    cannot be paired: then the means over seeds are, as one training.

    Raises:
        ValueError: The two are of other pictures.
    """
    if not sample.values.index.equals(other.values.index):
        raise ValueError("the two methods have other pictures")
    # Seed by seed: two methods of one seed have seen the same batches and start from the same
    # noise, and the difference is free of what that seed made easy or hard for both. A method that
    # is not trained has one column, which numpy repeats for each seed.
    if sample.seeds == other.seeds or 1 in (len(sample.seeds), len(other.seeds)):
        return np.asarray(sample.matrix - other.matrix, dtype=float)
    return np.asarray(sample.array - other.array, dtype=float)[None]


class ScoreBook:
    """Samples of a score file by (method, metric, protocol, datasets, levels)."""

    def __init__(self, scores: pd.DataFrame, by: Literal["picture", "image"] = "picture") -> None:
        """Args are the rows, and what counts as one: `image` as a published mean counts them."""
        # Resampling by picture is what makes the intervals honest: crops of one photograph are easy
        # or hard together, and counted one by one they would make any interval too narrow.
        if PICTURE not in scores or by == "image":
            scores = scores.assign(picture=scores["image"])
        cell = ["method", "metric", "protocol", "dataset", "level"]
        self._frames = dict(iter(scores.groupby(cell, sort=True)))
        images = scores.groupby(cell[1:], sort=True)["image"]
        self._images = {key: sorted(set(names)) for key, names in images}
        seeds = scores.groupby(cell[:3], sort=True)["seed"]
        self._seeds = {key: tuple(sorted(set(values))) for key, values in seeds}

    def images(self, metric: str, protocol: str, dataset: str, level: str) -> list[str]:
        """Return the names of the images that any method has a row for, sorted."""
        return self._images.get((metric, protocol, dataset, level), [])

    def sample(
        self,
        method: str,
        metric: str,
        protocol: str,
        datasets: Sequence[str],
        levels: Sequence[str],
    ) -> Sample:
        """Return the values of one method over all images of the given sets and levels."""
        places = list(product(datasets, levels))
        frames = [self._frames.get((method, metric, protocol, *place)) for place in places]
        found = [frame for frame in frames if frame is not None]
        seeds = self._seeds.get((method, metric, protocol), ())
        # Asked of every image that any method has, so that a method whose hard images failed is
        # `incomplete` and does not get a mean over the easy ones.
        wanted = [
            (dataset, level, image, seed)
            for dataset, level in places
            for image in self.images(metric, protocol, dataset, level)
            for seed in seeds or (0,)
        ]
        images = {(dataset, image) for dataset, _, image, _ in wanted}
        if not found:
            return Sample("not run", pd.DataFrame(), len(images), 0, (), seeds)
        rows = pd.concat(found)
        # Keys are unique and none is unexpected, so equal counts mean that no row is missing.
        if len(rows) < len(wanted) or (rows["status"] != "ok").any():
            return _spoilt(rows, set(wanted), images, seeds)
        # Levels are averaged within a picture as well: three degradations of one picture are no
        # three pictures, and the level is a factor of the design, not a sample of anything.
        own = rows.groupby(["dataset", PICTURE, "seed"], sort=True)["value"].mean()
        return Sample("ok", own.unstack("seed"), len(images), len(images), (), seeds)


def _spoilt(
    rows: pd.DataFrame,
    wanted: set[tuple[str, str, str, int]],
    images: set[tuple[str, str]],
    seeds: tuple[int, ...],
) -> Sample:
    bad = rows[rows["status"] != "ok"]
    place = rows[["dataset", "level", "image", "seed"]].itertuples(index=False, name=None)
    absent = wanted - set(place)
    lost = {(dataset, image) for dataset, _, image, _ in absent}
    lost |= set(bad[["dataset", "image"]].itertuples(index=False, name=None))
    status = _status(set(bad["status"].str.split(":").str[0]), bool(absent))
    why = bad.loc[bad["status"].str.startswith(status), "status"]
    reasons = tuple(why.str.split(": ", n=1).str[1].unique())
    return Sample(status, pd.DataFrame(), len(images), len(images - lost), reasons, seeds)


def _status(found: set[str], absent: bool) -> Status:
    if "failed" in found:
        return "failed"
    return "incomplete" if absent else "unavailable"
