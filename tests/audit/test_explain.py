"""Everything behind a number of a table."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from shared.audited import COST, IMAGES, LAPTOP, World

from faithdiff.audit.explain import explain, explanation_json, explanation_sections
from faithdiff.audit.printing import to_terminal
from faithdiff.errors import UserError


def test_explain_shows_rows_statistics_and_what_made_them(world: World) -> None:
    found = explain("main", ["FaithDiff", "PSNR", "II", "Photos"], "tiny", "sharper", world.root)
    assert len(found.rows) == IMAGES
    assert found.rows["value"].mean() == pytest.approx(found.cell.mean)
    facts = dict(found.facts)
    manifest = json.loads(world.git("show", "sharper:results/tiny/manifest.json"))
    assert facts["code commit"] == manifest["commit"]
    assert manifest["checkpoints"]["faithdiff/seed0"]["weights"] in facts["weights faithdiff/seed0"]
    assert manifest["data"]["Photos"]["degradation.jsonl"]["II"] in facts["degradation Photos, II"]
    assert manifest["data"]["Photos"]["index.csv"] in facts["data Photos"]
    assert "psnr ycbcr" in facts["protocol"]
    assert '"color_space": "ycbcr"' in facts["defined as"]
    assert "faithdiff restore-sets --method faithdiff --seed 0" in found.commands[1]


def test_explain_takes_the_words_in_any_order(world: World) -> None:
    words = [["II", "Photos"], ["photos", "ii"], ["Photos, Level II"]]
    cells = [
        explain("main", ["faithdiff", "psnr", *w], "tiny", ".", world.root).cell for w in words
    ]
    assert cells[0] == cells[1] == cells[2]
    overall = explain("ablation", ["separate optimisation", "psnr"], "tiny", ".", world.root)
    assert overall.cell.block == "All levels"
    assert len(overall.rows) == 4 * IMAGES


def test_explain_reads_tables_that_still_say_separated(world: World, tmp_path: Path) -> None:
    old = tmp_path / "tiny"
    shutil.copytree(world.root / "results/tiny", old)
    sidecar = old / "tables/ablation.cells.json"
    text = sidecar.read_text("utf-8")
    assert '"significant"' in text
    sidecar.write_text(text.replace("significant", "separated"), "utf-8")
    words = ["separate optimisation", "psnr", "All levels"]
    known = explain("ablation", words, "tiny", str(old), world.root).cell
    assert known == explain("ablation", words, "tiny", ".", world.root).cell


@pytest.mark.parametrize(
    ("table", "words", "said"),
    [
        ("mian", ["FaithDiff", "PSNR"], "has: ablation, cost, main"),
        ("main", ["FaithDiff"], "name a method and a metric"),
        ("main", ["SwinIR", "PSNR"], "'SwinIR' is not one of"),
        ("main", ["FaithDiff", "PSNR"], "name one of these blocks: Photos, Level I"),
        ("main", ["FaithDiff", "PSNR", "IV"], "IV: name one of these blocks"),
    ],
)
def test_explain_says_which_cells_there_are(
    world: World, table: str, words: list[str], said: str
) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        explain(table, words, "tiny", ".", world.root)


def test_explain_of_a_cost_shows_its_lines_jobs_and_machine(other: World) -> None:
    found = explain("cost", ["FaithDiff", "training s"], "tiny", ".", other.root)
    (row,) = found.rows.to_dict("records")
    assert row["value"] == row["seconds"] == found.cell.mean == COST["seconds"]
    facts = dict(found.facts)
    manifest = json.loads((other.root / "results/tiny/manifest.json").read_text("utf-8"))
    assert facts["cost.csv"] == f"sha256 {manifest['results']['cost.csv']}"
    assert LAPTOP["processor"] in facts["machine of faithdiff/seed0"]
    assert "faithdiff train --method faithdiff" in found.commands[1]
    text = to_terminal(explanation_sections(found), {})
    assert "Rows of cost.csv (1)" in text and "images" not in text
    assert json.loads(explanation_json(found))["rows"][0]["value"] == COST["seconds"]
    with pytest.raises(UserError, match=r"GPU-hours \(the profile runs on CPUs\)"):
        explain("cost", ["FaithDiff", "GPU-hours"], "tiny", ".", other.root)
    other.edit("results/tiny/cost.csv", f",{COST['seconds']},", ",77.5,")
    with pytest.raises(UserError, match=r"cost\.csv 77\.5"):
        explain("cost", ["FaithDiff", "training s"], "tiny", ".", other.root)
    (other.root / "results/tiny/cost.csv").unlink()
    with pytest.raises(UserError, match=r"cost\.csv: is missing; .*collect"):
        explain("cost", ["FaithDiff", "training s"], "tiny", ".", other.root)


def test_explain_notices_a_table_of_other_scores(other: World) -> None:
    scores = other.scores()
    chosen = (scores["method"] == "faithdiff") & (scores["metric"] == "psnr")
    scores.loc[chosen, "value"] = (scores.loc[chosen, "value"].astype(float) + 1).map(repr)
    scores.to_csv(other.root / "results/tiny/scores.csv", index=False)
    with pytest.raises(UserError, match="render it again with: faithdiff tables"):
        explain("main", ["FaithDiff", "PSNR", "II", "Photos"], "tiny", ".", other.root)
