"""Records of a revision: old ones are read, and corrupted ones are named."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest
from shared import ROOT

from faithdiff.audit.recorded import RecordedCell, RecordedConfig
from faithdiff.audit.results import load_results
from faithdiff.audit.revision import WORKING_TREE, find_revision
from faithdiff.errors import UserError
from faithdiff.report.records import CellRecord

CELL = {
    "block": "all", "datasets": ["A"], "levels": ["I"], "method": "frozen", "label": "Frozen",
    "metric": "psnr", "protocol": "ycbcr", "higher_is_better": True,
}  # fmt: skip


def test_a_cell_of_another_version_is_given_back_as_it_was_read() -> None:
    """An old cell lacks fields, a newer one has more: its explanation shows what the file has."""
    content = {**CELL, "reasons": [], "mean": 25.5, "of_the_future": {"x": [1.5, None]}}
    cell = RecordedCell.model_validate(content)
    assert cell.plain() == content
    assert list(cell.plain()) == list(content)
    assert (cell.n, cell.against_significant, cell.column) == (0, None, ("psnr", "ycbcr"))


def test_a_cell_is_read_by_the_fields_that_are_written() -> None:
    assert list(RecordedCell.model_fields) == [field.name for field in fields(CellRecord)]


@pytest.mark.parametrize("name", ["mini", "mini-seeds"])
def test_shipped_tables_keep_every_field_in_its_order(name: str) -> None:
    for file in sorted((ROOT / "results" / name / "tables").glob("*.cells.json")):
        for content in json.loads(file.read_text("utf-8"))["cells"].values():
            plain = RecordedCell.model_validate(content).plain()
            assert json.dumps(plain) == json.dumps(content), file


def test_which_methods_sample_from_the_prior() -> None:
    config = RecordedConfig.model_validate(
        {
            "variants": {"faithdiff": {"label": "FaithDiff", "recipe": "released"}},
            "baselines": {
                "bicubic": {"trained": False},
                "diffbir": {"trained": True, "denoises": True},
                "late": {"checkpoint_of": "faithdiff"},
            },
        }
    )
    methods = [*config.variants, *config.baselines]
    assert [name for name in methods if config.samples_from_prior(name)] == [
        "faithdiff", "diffbir", "late"
    ]  # fmt: skip
    assert config.labels == {
        "bicubic": "bicubic", "diffbir": "diffbir", "late": "late", "faithdiff": "FaithDiff"
    }  # fmt: skip
    assert [config.checkpoint_of(name) for name in ("late", "diffbir", "unknown")] == [
        "faithdiff", "diffbir", "unknown"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("manifest.json", {"config": {"variants": ["faithdiff"]}}, "faithdiff manifest"),
        ("manifest.json", {"data": {"Photos": "gone"}}, "faithdiff manifest"),
        ("tables/main.cells.json", {"images": {}, "cells": {"a": {}}}, "faithdiff tables"),
        ("tables/main.cells.json", {"cells": {}}, "faithdiff tables"),
        (
            "tables/main.cells.json",
            {"images": {}, "cells": {"a": {**CELL, "levels": "I"}}},
            "faithdiff tables",
        ),
    ],
)
def test_a_record_that_is_none_is_named_with_what_writes_it(
    tmp_path: Path, file: str, content: dict[str, object], said: str
) -> None:
    results = tmp_path / "results" / "mini"
    (results / "tables").mkdir(parents=True)
    (results / "scores.csv").write_bytes((ROOT / "results/mini/scores.csv").read_bytes())
    (results / file).write_text(json.dumps(content), "utf-8")
    with pytest.raises(UserError, match=rf"{file}.*{said}"):
        load_results(find_revision(WORKING_TREE, "mini", tmp_path), "mini")
