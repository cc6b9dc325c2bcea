"""Cells without rows: every table, figure, page, claim and explanation says why, and none fails."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import matplotlib
import pandas as pd
import pytest
from shared import ROOT
from shared.scores import load_rows, make_scores, with_report

from faithdiff.audit.command import run_explain
from faithdiff.audit.explain import explain_cell, explanation_json, explanation_sections
from faithdiff.audit.results import Results, load_results
from faithdiff.audit.revision import WORKING_TREE, find_revision
from faithdiff.claims.command import write_claims
from faithdiff.config import Profile, load_profile
from faithdiff.page.build import _environment
from faithdiff.page.content import page_content
from faithdiff.page.embedded import embedded
from faithdiff.report.figures import ablation_figure
from faithdiff.report.heldout import heldout_figure
from faithdiff.report.printed import print_table
from faithdiff.report.style import RC, save
from faithdiff.report.tables import ablation_table, main_table, write_tables
from faithdiff.report.tradeoff import tradeoff_figure
from faithdiff.score.costs import COST_COLUMNS
from faithdiff.study.layout import Layout

Scores = Callable[[pd.DataFrame], pd.DataFrame]


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Profile:
    """Bicubic and three variants on two test sets at two levels, in a folder of their own."""
    for part in ("config", "results/paper"):
        shutil.copytree(ROOT / part, tmp_path / part)
    monkeypatch.chdir(tmp_path)
    mini = load_profile(Path("config/mini.yaml"))
    names = ("faithdiff", "frozen", "separate")
    score = mini.score.model_copy(update={"metrics": ["psnr", "st-lpips"]})
    profile = mini.model_copy(
        update={
            "profile": "tiny",
            "seeds": [0],
            "variants": {name: mini.variants[name] for name in names},
            "baselines": {"bicubic": mini.baselines["bicubic"]},
            "data": mini.data.model_copy(update={"levels": ["I", "II"]}),
            "score": score,
        }
    )
    return with_report(
        profile,
        protocol="ycbcr",
        main=["bicubic", "frozen", "faithdiff"],
        ablation=["faithdiff", "frozen", "separate"],
        bootstrap=60,
    )


def written(profile: Profile, scores: pd.DataFrame) -> Results:
    """The results on disk, read as the page and `explain` read them."""
    layout = Layout(profile.profile)
    layout.results.mkdir(parents=True)
    scores.to_csv(layout.results / "scores.csv", index=False)
    manifest = {"config": profile.model_dump(mode="json"), "data": {}}
    manifest["prior"] = {"folder": "prior/mini", "weights": "0"}
    (layout.results / "manifest.json").write_text(json.dumps(manifest))
    pd.DataFrame(columns=list(COST_COLUMNS)).to_csv(layout.results / "cost.csv", index=False)
    write_tables(profile, layout)
    write_claims(profile, layout, Path("config/claims.yaml"))
    return load_results(find_revision(WORKING_TREE, profile.profile, Path()), profile.profile)


def shown(profile: Profile, scores: pd.DataFrame) -> Results:
    """Draw, print and explain everything."""
    results = written(profile, scores)
    with matplotlib.rc_context(RC):
        for figure in (
            ablation_figure(profile, ablation_table(scores, profile)),
            heldout_figure(profile, scores),
            tradeoff_figure(profile, main_table(scores, profile)),
        ):
            if figure is not None:
                save(figure, Path("figure"))
    # Each format once, and each table with and without published rows: all pairs take seconds.
    forms = (("latex", False), ("markdown", True), ("csv", False), ("html", True))
    for name in ("main", "ablation", "cost"):
        for form, published in forms:
            print_table(name, profile, Layout("tiny"), form, published)  # type: ignore[arg-type]
    for name, table in results.tables.items():
        for cell in table.cells.values():
            found = explain_cell(results, name, cell, Path())
            assert explanation_sections(found)
            assert explanation_json(found)
    explorer = {"images": {}, "labels": {}, "missing": []}
    data = {**embedded(results, Path()), "explorer": explorer, "movers": []}
    page = _environment().get_template("index.html.jinja")
    audit = {"title": "", "reason": "none", "sections": (), "movers": []}
    assert page.render(**vars(page_content(results, Path())), figures=[], audit=audit, data=data)
    return results


def of(name: str, **columns: str) -> Scores:
    """Scores without the rows of these values."""

    def left(scores: pd.DataFrame) -> pd.DataFrame:
        gone = pd.Series(True, index=scores.index)
        for column, value in columns.items():
            gone &= scores[column] == value
        return scores[~gone].reset_index(drop=True)

    left.__name__ = name
    return left


KINDS: list[tuple[str, dict[str, object], Scores]] = [
    ("all there", {}, of("all", method="")),
    ("a method without rows", {}, of("method", method="frozen")),
    ("a reference without rows", {}, of("reference", method="faithdiff")),
    ("a metric without rows", {}, of("metric", metric="st-lpips")),
    ("no metric but one", {}, of("metric", metric="psnr")),
    ("no held-out loss", {}, of("loss", metric="heldout_loss")),
    ("a level without rows", {}, of("level", level="I")),
    ("a test set without rows", {}, of("set", dataset="Scenes")),
    ("a method without a metric", {}, of("cell", method="frozen", metric="psnr")),
    ("a method without a level", {}, of("place", method="frozen", level="II")),
    ("one picture", {}, lambda scores: scores[scores["image"] == "0000"].reset_index(drop=True)),
    (
        "an ablation of what does not denoise",
        {"ablation": ["faithdiff", "bicubic"]},
        of("", method=""),
    ),
    ("an ablation against it", {"ablation": ["bicubic", "faithdiff"]}, of("", method="")),
    ("an ablation of it alone", {"ablation": ["bicubic"]}, of("", method="")),
    ("one row", {"ablation": ["faithdiff"], "main": ["faithdiff"]}, of("", method="")),
]


@pytest.mark.parametrize(("kind", "report", "less"), KINDS, ids=[kind for kind, *_ in KINDS])
def test_what_has_no_rows_fails_nowhere(
    tiny: Profile, kind: str, report: dict[str, object], less: Scores
) -> None:
    profile = with_report(tiny, **report)
    shown(profile, less(make_scores(profile)))


def test_a_study_without_any_denoiser(tiny: Profile) -> None:
    profile = tiny.model_copy(update={"variants": {}})
    profile = with_report(profile, main=["bicubic"], ablation=["bicubic"])
    shown(profile, make_scores(profile))


def test_nothing_was_measured_at_all(tiny: Profile) -> None:
    scores = make_scores(tiny).assign(
        status="unavailable: needs x; run: faithdiff fetch", value=None
    )
    results = shown(tiny, scores.assign(value=float("nan")))
    assert results.tables["ablation"].cells == {}
    assert "faithdiff fetch" in results.tables["ablation"].unmeasured


def test_images_that_equal_their_hq_are_told_from_measurements(tiny: Profile) -> None:
    """Their PSNR is infinite, and the library's 80 dB would weigh in a mean like a measurement."""
    scores = load_rows(make_scores(tiny))
    assert "80 dB" not in main_table(scores, tiny).caption
    first = sorted(set(scores["image"]))[0]
    equal = (scores["method"] == "frozen") & (scores["image"] == first)
    scores.loc[equal & (scores["metric"] == "psnr"), "value"] = 80.0
    places = len(scores.loc[equal, ["dataset", "level"]].drop_duplicates())
    label = tiny.methods["frozen"].label
    for table in (main_table(scores, tiny), ablation_table(scores, tiny)):
        assert f"its code gives 80 dB there ({places} of {label})" in table.caption


def test_it_says_not_run(tiny: Profile) -> None:
    profile = with_report(tiny, ablation=["faithdiff", "frozen", "bicubic"])
    scores = make_scores(profile)
    timed = scores[scores["metric"] == "heldout_loss"].assign(metric="heldout_loss@500")
    scores = pd.concat([scores, timed], ignore_index=True)
    results = shown(profile, scores)
    label = tiny.baselines["bicubic"].label
    said = run_explain("ablation", [label, "held-out loss"], "tiny", ".", Path(), "terminal")
    assert "printed as not run, status not run" in said
    cell = results.tables["ablation"].cells["All levels|bicubic|heldout_loss"]
    assert cell.printed == "not run"
    with matplotlib.rc_context(RC):
        drawn = [
            heldout_figure(profile, scores),
            ablation_figure(profile, ablation_table(scores, profile)),
        ]
    for figure in drawn:
        assert figure is not None
        texts = [text.get_text().strip() for axes in figure.axes for text in axes.texts]
        assert texts == ["not run"]
