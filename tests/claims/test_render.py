"""claims.json and claims.md, and the command that writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from shared import ROOT
from shared.claims import SHIPPED, claim, claims, make_scores

from faithdiff.claims.command import write_claims
from faithdiff.claims.evaluate import evaluate
from faithdiff.claims.render import to_json, to_markdown
from faithdiff.claims.schema import load_claims
from faithdiff.config import Profile, load_profile
from faithdiff.report.scores import load_scores
from faithdiff.study.layout import Layout
from faithdiff.study.manifest import Manifest


def test_the_page_escapes_and_counts(profile: Profile) -> None:
    report = evaluate(claims(claim(statement="a | b <script>")), make_scores(1.0), profile)
    page = to_markdown(report)
    assert r"a \| b \<script\>" in page and "<script>" not in page
    assert "1 reproduced" in page and "**reproduced**" in page
    assert json.loads(to_json(report))["verdicts"]["reproduced"] == 1


def numbers_of(value: Any, path: str = "") -> dict[str, Any]:
    """Every value of nested JSON by its path."""
    if not isinstance(value, dict | list):
        return {path: value}
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    found = [numbers_of(part, f"{path}/{key}") for key, part in parts]
    return {name: part for each in found for name, part in each.items()}


def test_the_committed_claims_are_those_of_the_committed_scores(
    profile: Profile, tmp_path: Path
) -> None:
    committed = ROOT / "results" / "mini"
    whole = load_profile(ROOT / "config" / "mini.yaml").report
    scores = load_scores(committed / "scores.csv")
    gpus = Manifest.read(committed / "manifest.json").gpus
    found = evaluate(
        load_claims(SHIPPED), scores, profile.model_copy(update={"report": whole}), gpus
    )
    # The last bits of a resampled bound hang on the processor; what is printed does not.
    kept = json.loads((committed / "claims.json").read_text(encoding="utf-8"))
    made, kept = numbers_of(json.loads(to_json(found))), numbers_of(kept)
    floats = {path for path, value in kept.items() if isinstance(value, float)}
    assert {path: v for path, v in made.items() if path not in floats} == {
        path: v for path, v in kept.items() if path not in floats
    }
    for path in floats:
        assert made[path] == pytest.approx(kept[path], rel=1e-9), path
    assert (committed / "claims.md").read_text(encoding="utf-8") == to_markdown(found)


def test_the_verb_writes_both_files(
    profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    layout = Layout("mini")
    layout.results.mkdir(parents=True)
    make_scores(1.0).to_csv(layout.results / "scores.csv", index=False)
    report, files = write_claims(profile, layout, SHIPPED)
    assert [file.name for file in files] == ["claims.json", "claims.md"]
    content = json.loads(files[0].read_text(encoding="utf-8"))
    assert (
        sum(content["verdicts"].values())
        == len(report.findings)
        == len(load_claims(SHIPPED).claims)
    )
    joint = next(c for c in content["claims"] if c["id"] == "joint-over-frozen")
    assert (joint["verdict"], joint["second"]) == ("not run", "supported by a surrogate")
    assert joint["measured"][-1]["role"] == "beside"
