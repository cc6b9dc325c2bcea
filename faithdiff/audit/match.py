"""Rows of two revisions, matched; and which cells of a table can be compared at all.

Rows are matched by method, variant, seed, dataset, level, image, metric and protocol. A cell
whose images, data, degradation or protocol differ is not compared: its two means answer
different questions.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from faithdiff.audit.results import Results
from faithdiff.errors import UserError
from faithdiff.report.scores import KEY, PICTURE
from faithdiff.study.manifest import Manifest

CELL = ["method", "dataset", "level", "metric", "protocol"]
VALUES = ["variant", "value", "status", "restored_sha256", "hq_sha256", "protocol_sha256"]
DIGESTS = {
    "protocol_sha256": "protocol (its definition, weights or library version)",
    "hq_sha256": "HQ images",
    "variant": "variant",
}


@dataclass(frozen=True)
class Selection:
    """What to compare; an empty tuple stands for all of them."""

    methods: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()

    def apply(self, scores: pd.DataFrame) -> pd.DataFrame:
        """The rows of the selection."""
        kept = pd.Series(True, index=scores.index)
        for column, names in (
            ("method", self.methods),
            ("metric", self.metrics),
            ("protocol", self.protocols),
        ):
            if names:
                kept &= scores[column].isin(names)
        return scores[kept]


def match_rows(old: Results, new: Results, selection: Selection) -> pd.DataFrame:
    """Pair the rows of two revisions: a line per row that either of them has.

    Columns besides the key: those of ``VALUES`` with the suffixes ``_old`` and ``_new``, and
    `side`: both, left_only or right_only; `picture` is NEW's where it has the row, as older commits
    do not say what an image was cut from.

    Raises:
        UserError: Neither revision has a row of the selection.
    """
    # By name, never by order: an image that is missing on one side would shift all after it.
    sides = [selection.apply(side.scores)[[*KEY, *VALUES, PICTURE]] for side in (old, new)]
    if not any(len(side) for side in sides):
        raise UserError(_nothing(old, new, selection))
    for column in KEY:
        if column == "seed":
            continue
        # The same categories on both sides, or pandas falls back to text in the merge.
        names = sorted({str(name) for side in sides for name in side[column].unique()})
        kind = pd.CategoricalDtype(names, ordered=True)
        sides = [side.astype({column: kind}) for side in sides]
    # Before the merge: of three trainings against one, two would lack a partner in every cell, and
    # no cell of the method could be compared.
    left, right = (_common_seeds(*pair) for pair in (sides, sides[::-1]))
    rows = left.merge(right, how="outer", on=KEY, suffixes=("_old", "_new"), indicator="side")
    rows[PICTURE] = rows[f"{PICTURE}_new"].fillna(rows[f"{PICTURE}_old"])
    return rows.sort_values(KEY, ignore_index=True)


def seed_notes(old: Results, new: Results, selection: Selection) -> list[str]:
    """Say which methods are compared over fewer seeds than a revision has."""
    seeds = [
        selection.apply(side.scores).groupby("method")["seed"].agg(set).to_dict()
        for side in (old, new)
    ]
    notes = []
    for method in sorted(map(str, set(seeds[0]) & set(seeds[1]))):
        before, after = seeds[0][method], seeds[1][method]
        if before != after and before & after:
            texts = [", ".join(map(str, sorted(s))) for s in (before, after, before & after)]
            notes.append(
                f"{method}: seeds {texts[0]} in OLD, {texts[1]} in NEW; compared over {texts[2]}"
            )
    return notes


def renamed_notes(old: Results, new: Results, selection: Selection) -> list[str]:
    """Say which methods, datasets and levels seem to have another name only: equal images.

    They are not paired: whether the new name is the old thing is for a person to say.
    """
    sides = [selection.apply(side.scores) for side in (old, new)]
    notes = []
    for column in ("method", "dataset", "level"):
        names = [set(side[column]) for side in sides]
        gone, come = (
            _images(sides[0], column, names[0] - names[1]),
            _images(sides[1], column, names[1] - names[0]),
        )
        notes += [
            f"{column} {before} of OLD and {after} of NEW have the same images: renamed? Names are "
            "compared, so its cells count as removed and added"
            for before, images in gone.items()
            for after, others in come.items()
            if images == others
        ]
    return notes


def _images(scores: pd.DataFrame, column: str, names: set[str]) -> dict[str, set[str]]:
    """Hashes of the restored images of these methods, sets or levels, by name."""
    rows = scores[scores[column].isin(names) & (scores["restored_sha256"] != "")]
    return {str(name): set(own) for name, own in rows.groupby(column)["restored_sha256"]}


def _common_seeds(own: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Drop a method's seeds that the other revision lacks, unless they have none in common."""
    place = ["method", "seed"]
    known = pd.MultiIndex.from_frame(other[place].drop_duplicates())
    shared = pd.MultiIndex.from_frame(own[place]).isin(known)
    # With no seed in common all rows stay, and the cell is said to be not comparable; dropped, the
    # method would seem to be gone.
    some = set(own.loc[shared, "method"])
    return own[shared | ~own["method"].isin(some)]


def describe_cells(rows: pd.DataFrame, data: dict[tuple[str, str], list[str]]) -> pd.DataFrame:
    """What each cell is before its numbers are looked at.

    Args:
        rows: From :func:`match_rows`.
        data: From :func:`data_differences`.

    Returns:
        A line per cell, indexed by ``CELL``, with its `verdict` (empty where the numbers decide)
        and the `note` that says why it has no comparison.
    """
    # Counted over all cells at once: a study has hundreds of them, and thousands of rows each.
    both = rows["side"] == "both"
    flags = pd.DataFrame(
        {
            "old": rows["side"] != "right_only",
            "new": rows["side"] != "left_only",
            "both": both,
            "ok_old": rows["status_old"] == "ok",
            "ok_new": rows["status_new"] == "ok",
            **{
                name: both & (rows[f"{name}_old"] != rows[f"{name}_new"]) for name in DIGESTS
            },
        }
    )  # fmt: skip
    counts = flags.groupby([rows[name] for name in CELL], observed=True, sort=True).sum()
    reasons = _reasons(rows)
    found = [
        _cell(line, data.get((key[1], key[2]), []), reasons.get(key, ""))
        for key, line in zip(counts.index, counts.to_dict("records"), strict=True)
    ]
    return pd.DataFrame(found, index=counts.index, columns=["verdict", "note"])


def _cell(n: Mapping[Hashable, int], data: list[str], reason: str) -> tuple[str, str]:
    if n["old"] == 0:
        return "added", ""
    if n["new"] == 0:
        return "removed", ""
    # Of every row, not of most: a mean over the images that still work is better by the hard ones
    # that failed.
    working = n["ok_old"] == n["old"], n["ok_new"] == n["new"]
    if working != (True, True):
        verdicts = {
            (True, False): "newly failing",
            (False, True): "newly working",
            (False, False): "no value",
        }
        return verdicts[working], reason
    # "Not comparable" is about the question, not about the numbers: two means that answer different
    # questions have a difference, and it would be taken for a result.
    if n["both"] == 0:
        return "not comparable", "no image and seed in common"
    if n["both"] < max(n["old"], n["new"]):
        return "not comparable", f"images: {n['both']} in common of {n['old']} and {n['new']}"
    # The same names are not enough: another crop, degradation or version of a metric under an old
    # name is the change that is hardest to see in a table.
    differ = [f"{what}" for name, what in DIGESTS.items() if n[name]] + data
    return ("not comparable", "; ".join(differ)) if differ else ("", "")


def _reasons(rows: pd.DataFrame) -> dict[tuple[str, ...], str]:
    """Why a cell has no value, from the first row that says so; NEW before OLD."""
    found: dict[tuple[str, ...], str] = {}
    for side in ("status_new", "status_old"):
        # One reason for a cell: its images mostly fail alike, and scores.csv has all of them.
        bad = rows[rows[side].notna() & (rows[side] != "ok")].drop_duplicates(CELL)
        for line in bad[[*CELL, side]].itertuples(index=False, name=None):
            found.setdefault(line[:-1], line[-1])
    return found


def data_differences(old: Manifest, new: Manifest) -> dict[tuple[str, str], list[str]]:
    """What differs in the inputs of each (dataset, level), by the two manifests."""
    # What only one side recorded is not called different: older manifests lack parts of it.
    found: dict[tuple[str, str], list[str]] = {}
    for dataset in old.data.keys() & new.data.keys():
        before, after = old.data[dataset], new.data[dataset]
        for level in before.degradation.keys() & after.degradation.keys():
            names = [f"data ({dataset}/index.csv)"] if before.index != after.index else []
            if before.degradation[level] != after.degradation[level]:
                names.append(f"degradation ({dataset}/lq/{level}/degradation.jsonl)")
            if names:
                found[dataset, level] = names
    return found


def _nothing(old: Results, new: Results, selection: Selection) -> str:
    parts = []
    for option, column, names in (
        ("--method", "method", selection.methods),
        ("--metric", "metric", selection.metrics),
        ("--protocol", "protocol", selection.protocols),
    ):
        there = sorted(set(old.scores[column]) | set(new.scores[column]))
        if names:
            parts.append(f"{option} {', '.join(names)} (there are: {', '.join(there)})")
    return f"neither revision has a row of this selection: {'; '.join(parts)}"


def resolve(
    wanted: Iterable[str], known: dict[str, str], option: str
) -> tuple[str, ...]:  # fmt: skip
    """Turn names or labels, in any case, into names.

    Args:
        wanted: As typed.
        known: ``name -> label``.
        option: How the message calls what was typed.

    Raises:
        UserError: One is not known.
    """
    spelt = {label.casefold(): name for name, label in known.items()}
    spelt |= {name.casefold(): name for name in known}
    found = []
    for text in wanted:
        if text.casefold() not in spelt:
            raise UserError(f"{option}: {text!r} is not one of {', '.join(known)}")
        found.append(spelt[text.casefold()])
    return tuple(found)
