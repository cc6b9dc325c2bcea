"""The result files of one revision, read and checked before anything is compared."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from faithdiff.audit.revision import SCORES, Revision
from faithdiff.errors import UserError
from faithdiff.report.cells import HELD_OUT, Column, timestep_columns
from faithdiff.report.costs import COLUMNS as COST_COLUMNS
from faithdiff.report.scores import read_scores
from faithdiff.score.protocols import load_protocols
from faithdiff.study.checksums import checksum_fits

PLACE = ["metric", "protocol", "dataset", "level"]
OWNER = ["method", "seed", *PLACE]
Columns = dict[tuple[str, str], Column]  # (metric, protocol) -> how it is printed


@dataclass(frozen=True)
class Results:
    """What a revision says of one profile.

    Attributes:
        scores: As :func:`faithdiff.report.scores.load_scores` returns them.
        manifest: What made them; empty where there is no manifest.
        lock: The profile's stage of ``dvc.lock``; empty where there is none.
        tables: Content of ``tables/*.cells.json`` by table name.
        stale: Whether the manifest describes another ``scores.csv``.
    """

    revision: Revision
    profile: str
    scores: pd.DataFrame
    manifest: dict[str, Any]
    lock: dict[str, Any]
    tables: dict[str, dict[str, Any]]
    stale: bool = False

    @property
    def title(self) -> str:
        """What the revision is, for a reader."""
        return self.revision.title


def load_results(revision: Revision, profile: str) -> Results:
    """Read the results of a profile at a revision.

    Raises:
        UserError: There are none, they are of another profile or schema, or a file is corrupted.
    """
    folder = f"results/{profile}"
    content = revision.read(f"{folder}/{SCORES}")
    if content is None:
        raise UserError(_absent(revision, profile))
    manifest = _manifest(revision, f"{folder}/manifest.json")
    known = manifest.get("results", {}).get(SCORES)
    return Results(
        revision,
        profile,
        _scores(content, revision.place(f"{folder}/{SCORES}"), profile),
        manifest,
        _stage(revision, profile),
        {
            name.removesuffix(".cells.json"): _table(revision, f"{folder}/tables/{name}")
            for name in revision.names(f"{folder}/tables")
            if name.endswith(".cells.json")
        },
        stale=known is not None and known != _sha256(content),
    )


def columns_of(results: list[Results], root: Path) -> Columns:
    """How each metric of the results is printed, and which direction is better.

    From the protocols of this checkout; a metric that they lack, from the tables of the results.
    """
    columns: Columns = {(c.metric, c.protocol): c for c in (HELD_OUT, *COST_COLUMNS)}
    for side in results:
        losses = timestep_columns(side.scores["metric"].unique()).values()
        columns |= {(column.metric, column.protocol): column for column in losses}
        for table in side.tables.values():
            for cell in table.get("cells", {}).values():
                key = cell["metric"], cell["protocol"]
                known = Column(*key, cell["metric"], "", 4, cell["higher_is_better"])
                columns.setdefault(key, known)
    for file in {_protocols_file(side, root) for side in results}:
        for name, protocol in load_protocols(file).items() if file.is_file() else ():
            for metric, d in protocol.metrics.items():
                columns[metric, name] = Column(
                    metric, name, d.label, d.unit, d.decimals, d.higher_is_better
                )
    return columns


def _protocols_file(results: Results, root: Path) -> Path:
    score = results.manifest.get("config", {}).get("score", {})
    return root / score.get("protocols_file", "config/protocols.yaml")


def _scores(content: bytes, name: str, profile: str) -> pd.DataFrame:
    scores = read_scores(io.BytesIO(content), name)
    if scores.empty:
        raise UserError(f"{name}: has no rows; the run behind it is not finished")
    if other := sorted(set(scores["profile"]) - {profile}):
        raise UserError(f"{name}: holds results of the profile {other[0]!r}, not {profile!r}")
    _check_images(scores, name)
    return scores


def _check_images(scores: pd.DataFrame, name: str) -> None:
    """Every method and seed must have a row for every image that any of them has."""
    wanted = scores.groupby(PLACE)["image"].nunique().rename("wanted").reset_index()
    rows = scores.groupby(OWNER).size().rename("rows").reset_index().merge(wanted, on=PLACE)
    for short in rows[rows["rows"] < rows["wanted"]].to_dict("records"):
        at = scores[(scores[PLACE] == [short[part] for part in PLACE]).all(axis=1)]
        own = at[(at["method"] == short["method"]) & (at["seed"] == short["seed"])]
        lost = sorted(set(at["image"]) - set(own["image"]))
        raise UserError(
            f"{name}: {short['method']}, seed {short['seed']}: no row for {len(lost)} of the "
            f"{short['wanted']} images of {short['dataset']}, level {short['level']}, under "
            f"{short['metric']}@{short['protocol']}, first {lost[0]!r}; finish the run, then "
            "collect again"
        )


def _absent(revision: Revision, profile: str) -> str:
    found = [
        name
        for name in revision.names("results")
        if revision.read(f"results/{name}/{SCORES}") is not None
    ]
    others = f"; it has results of {', '.join(found)}" if found else ""
    return f"{revision.title}: has no results/{profile}/{SCORES}{others}"


def _json(revision: Revision, path: str) -> dict[str, Any]:
    content = revision.read(path)
    if content is None:
        return {}
    try:
        data = json.loads(content)
    except ValueError as error:
        raise UserError(f"{revision.place(path)}: is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise UserError(f"{revision.place(path)}: is not a group of keys")
    return data


_SECTIONS = ("data", "checkpoints", "restorations", "results", "config", "packages")
_CELL = ("block", "method", "label", "metric", "protocol", "higher_is_better", "datasets", "levels")


def _manifest(revision: Revision, path: str) -> dict[str, Any]:
    content = _json(revision, path)
    nested = [content.get(name, {}) for name in _SECTIONS]
    entries = [e for section in nested[:3] if isinstance(section, dict) for e in section.values()]
    if not all(isinstance(part, dict) for part in (*nested, *entries)) or not checksum_fits(
        content
    ):
        raise UserError(
            f"{revision.place(path)}: is corrupted, or was edited; write it again with: faithdiff "
            "manifest, or get it back with: git checkout"
        )
    return content


def _table(revision: Revision, path: str) -> dict[str, Any]:
    content = _json(revision, path)
    cells, images = content.get("cells"), content.get("images")
    named = isinstance(cells, dict) and isinstance(images, dict)
    if not named or not all(map(_is_cell, (cells or {}).values())):
        raise UserError(
            f"{revision.place(path)}: is no table of cells (corrupted, or edited); write it again "
            "with: faithdiff tables"
        )
    return content


def _is_cell(cell: Any) -> bool:
    if not isinstance(cell, dict) or any(name not in cell for name in _CELL):
        return False
    lists = [cell[name] for name in ("datasets", "levels")]
    return all(isinstance(cell[n], str) for n in _CELL[:5]) and all(
        isinstance(names, list) and all(isinstance(name, str) for name in names) for names in lists
    )


def _stage(revision: Revision, profile: str) -> dict[str, Any]:
    content = revision.read("dvc.lock")
    if content is None:
        return {}
    try:
        # The C loader is ten times faster, and a lock file has thousands of lines.
        data = yaml.load(content, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        stage: dict[str, Any] = data["stages"].get(f"study@{profile}", {})
    except (yaml.YAMLError, KeyError, TypeError, AttributeError):
        raise UserError(f"{revision.place('dvc.lock')}: is not a lock file of DVC") from None
    return stage


def _sha256(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()
