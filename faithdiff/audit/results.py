"""The result files of one revision, read and checked before anything is compared."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from faithdiff.audit.recorded import RecordedConfig, RecordedTable
from faithdiff.audit.revision import SCORES, WORKING_TREE, Revision
from faithdiff.errors import UserError
from faithdiff.report.cells import HELD_OUT, Column, timestep_columns
from faithdiff.report.costs import COLUMNS as COST_COLUMNS
from faithdiff.report.scores import check_profile, read_scores
from faithdiff.score.protocols import load_protocols
from faithdiff.score.rows import ALL
from faithdiff.study.checksums import checksum_fits
from faithdiff.study.files import left_by_git, not_the_root
from faithdiff.study.lockfile import LockedStage, locked_stages, stage_name
from faithdiff.study.manifest import Manifest

PLACE = ["metric", "protocol", "dataset", "level"]
OWNER = ["method", "seed", *PLACE]
PROTOCOLS = "config/protocols.yaml"  # where a manifest names none
Columns = dict[tuple[str, str], Column]  # (metric, protocol) -> how it is printed


@dataclass(frozen=True)
class Results:
    """What a revision says of one profile.

    Attributes:
        scores: As :func:`faithdiff.report.scores.load_scores` returns them.
        manifest: The whole of ``manifest.json``, which two revisions are compared by: every key of
            it, known here or not. Empty where there is none. `made` and `config` have its facts.
        lock: The profile's stage of ``dvc.lock``; empty where there is none.
        tables: Content of ``tables/*.cells.json`` by table name.
        stale: Whether the manifest describes another ``scores.csv``.
    """

    revision: Revision
    profile: str
    scores: pd.DataFrame
    manifest: dict[str, Any]
    lock: LockedStage
    tables: dict[str, RecordedTable]
    stale: bool = False

    @property
    def title(self) -> str:
        """What the revision is, for a reader."""
        return self.revision.title

    @cached_property
    def made(self) -> Manifest:
        """What made the results, by the manifest."""
        return Manifest.model_validate(self.manifest)

    @cached_property
    def config(self) -> RecordedConfig:
        """The profile that made them, by the manifest."""
        return RecordedConfig.model_validate(self.made.config)


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
    recorded = Manifest.model_validate(manifest).results.get(SCORES)
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
        stale=recorded is not None and recorded != hashlib.sha256(content).hexdigest(),
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
            for cell in table.cells.values():
                known = Column(*cell.column, cell.metric, "", 4, cell.higher_is_better)
                columns.setdefault(cell.column, known)
    # Of this checkout: which direction is better is knowledge about a metric, and not a result; an
    # old commit may have known it worse.
    files = {root / (side.config.score.protocols_file or PROTOCOLS) for side in results}
    for file in files:
        for name, protocol in load_protocols(file).items() if file.is_file() else ():
            for metric, d in protocol.metrics.items():
                columns[metric, name] = Column(
                    metric, name, d.label, d.unit, d.decimals, d.higher_is_better
                )
    return columns


def _scores(content: bytes, name: str, profile: str) -> pd.DataFrame:
    scores = read_scores(io.BytesIO(content), name)
    if scores.empty:
        raise UserError(f"{name}: has no rows; the run behind it is not finished")
    check_profile(scores, profile, name)
    scores = scores[scores["image"] != ALL].reset_index(drop=True)  # no measurement, a note
    _check_images(scores, name)
    return scores


def _check_images(scores: pd.DataFrame, name: str) -> None:
    """Every method and seed must have a row for every image that any of them has."""
    # A run that stopped half way has fewer rows for some methods. Their means would be of the
    # images that came first, and look like results.
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
    away = f"; {said}" if revision.name == WORKING_TREE and (said := not_the_root()) else ""
    return f"{revision.title}: has no results/{profile}/{SCORES}{others}{away}"


def _json(revision: Revision, path: str) -> dict[str, Any]:
    """A JSON object of a revision; empty where the revision has no such file.

    Raises:
        UserError: It is no JSON object.
    """
    content = revision.read(path)
    if content is None:
        return {}
    try:
        data = json.loads(content)
    except ValueError as error:
        said = left_by_git(content, path) or f"is not JSON: {error}"
        raise UserError(f"{revision.place(path)}: {said}") from None
    if not isinstance(data, dict):
        raise UserError(f"{revision.place(path)}: is not a group of keys")
    return data


def _manifest(revision: Revision, path: str) -> dict[str, Any]:
    content = _json(revision, path)
    try:
        RecordedConfig.model_validate(Manifest.model_validate(content).config)
        whole = checksum_fits(content)
    except ValidationError:
        whole = False
    if not whole:
        raise UserError(
            f"{revision.place(path)}: is corrupted, or was edited; write it again with: faithdiff "
            "manifest, or get it back with: git checkout"
        )
    return content


def _table(revision: Revision, path: str) -> RecordedTable:
    try:
        return RecordedTable.model_validate(_json(revision, path))
    except ValidationError:
        raise UserError(
            f"{revision.place(path)}: is no table of cells (corrupted, or edited); write it again "
            "with: faithdiff tables"
        ) from None


def _stage(revision: Revision, profile: str) -> LockedStage:
    content = revision.read("dvc.lock")
    if content is None:
        return {}
    try:
        return locked_stages(content).get(stage_name(profile), {})
    except ValueError as error:
        raise UserError(f"{revision.place('dvc.lock')}: {error}") from None
