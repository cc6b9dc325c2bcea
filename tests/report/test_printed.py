"""The verb `table`: every table in every format, and against the published numbers."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
import shutil
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from shared import ROOT
from shared.printed import Cells, compile_latex
from typer.testing import CliRunner

from faithdiff import cli
from faithdiff.config import FolderSet, Profile, load_profile
from faithdiff.errors import UserError
from faithdiff.report.printed import TABLES, Format, print_table
from faithdiff.report.scores import COLUMNS
from faithdiff.score.costs import COST_COLUMNS
from faithdiff.study.layout import Layout

FORMATS = get_args(Format)
AWKWARD = r'50% & _x_ {a} #1 $2 ^ ~ \cmd [x] *y* <z> | "q" --all'
IMAGES = 8
TAGS = {"table", "caption", "thead", "tbody", "tr", "th", "td", "p", "ol", "li", "sup", "br"}
TAGS |= {"u", "strong", "em"}


@pytest.fixture
def profile() -> Profile:
    """A study on the paper's test sets, with one set of real-world images."""
    mini = load_profile(ROOT / "config" / "mini.yaml")
    folder = FolderSet(source="folder", path=Path("unread"))
    real = folder.model_copy(update={"lq_only": True})
    variants = {name: mini.variants[name] for name in ("faithdiff", "frozen", "separate")}
    variants["separate"] = variants["separate"].model_copy(update={"label": AWKWARD})
    sets = {"DIV2K-Val": folder, "LSDIR-Val": folder, "RealDeg": real}
    protocols = ROOT / "config" / "protocols.yaml"
    changes = {"protocols_file": protocols, "metrics": ["psnr", "musiq", "clipiqa+"]}
    report = {"main": ["bicubic", "faithdiff"], "ablation": list(variants), "bootstrap": 300}
    return mini.model_copy(
        update={
            "profile": "tiny",
            "variants": variants,
            "baselines": {"bicubic": mini.baselines["bicubic"]},
            "data": mini.data.model_copy(update={"test": sets}),
            "score": mini.score.model_copy(update=changes),
            "report": mini.report.model_copy(update={"protocol": "faithdiff-repo", **report}),
        }
    )


@pytest.fixture
def layout(profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "results" / "paper", tmp_path / "results" / "paper")
    layout = Layout("tiny")
    layout.results.mkdir()
    make_scores(profile).to_csv(layout.results / "scores.csv", index=False)
    make_costs(profile).to_csv(layout.results / "cost.csv", index=False)
    manifest = {"commit": "0123456789abcdef", "dirty": False}
    (layout.results / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return layout


def make_scores(profile: Profile) -> pd.DataFrame:
    rows = []
    for method, (dataset, level), image in itertools.product(
        profile.methods, profile.data.places, range(IMAGES)
    ):
        rng = np.random.default_rng([len(method), len(dataset), len(level), image])
        for metric in profile.score.metrics:
            if metric == "psnr" and level == "real":
                continue
            value = 20 + image + 2 * (method == "faithdiff") + 0.01 * rng.normal()
            place = ("tiny", method, "", 0, dataset, level, f"{image}", f"{image}", metric)
            rows.append((*place, "faithdiff-repo", value, "ok", "r", "h", "p"))
        if method in profile.variants and level != "real":
            place = ("tiny", method, "", 0, dataset, level, f"{image}", f"{image}", "heldout_loss")
            rows.append((*place, "heldout", 0.5, "ok", "", "", "p"))
    return pd.DataFrame(rows, columns=COLUMNS)


def make_costs(profile: Profile) -> pd.DataFrame:
    """An hour and three minutes of training each; one peak of memory was not measured."""
    rows = [
        (m, 0, "lq encoder 1000000; unet 4500000", 5_500_000, 8e6, 20, 180, 140, 3600, 0.5, peak)
        for m, peak in zip(
            profile.methods, (None, *[800.5] * (len(profile.methods) - 1)), strict=True
        )
    ]
    return pd.DataFrame(rows, columns=list(COST_COLUMNS))


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", TABLES)
def test_every_table_in_every_format(
    profile: Profile, layout: Layout, name: str, form: Format, published: bool
) -> None:
    printed = print_table(name, profile, layout, form, published)
    text = printed.text
    assert (text.endswith("\n") and "FaithDiff" in text) or name == "ablation"
    if form != "csv":
        assert "commit 012345678" in text
        assert name == "cost" or ("faithdiff-repo" in text and "n = " in text)
    cells = json.loads(printed.cells)["cells"]
    assert cells and all(cell["printed"] for cell in cells.values())
    if form == "html":
        found = Cells(text)
        assert found.tags <= TAGS
        assert not re.search(r"<z>", text)
        if name == "ablation":
            assert any(row[0] == AWKWARD for row in found.rows)
    if form == "csv":
        rows = list(csv.reader(io.StringIO(text)))
        assert len({len(row) for row in rows}) == 1 and len(rows) > 2


def test_published_ours_and_difference(profile: Profile, layout: Layout) -> None:
    text = print_table("main", profile, layout, "csv", published=True).text
    rows = {(row["block"], row["Method"]): row for row in csv.DictReader(io.StringIO(text))}
    own = rows["DIV2K-Val, Level I", "FaithDiff"]
    assert own["PSNR ↑ published"] == "24.29"
    ours = float(own["PSNR ↑ ours"])
    assert float(own["PSNR ↑ difference"].replace("−", "-")) == pytest.approx(
        ours - 24.29, abs=0.011
    )
    assert rows["DIV2K-Val, Level I", "SeeSR"]["PSNR ↑ ours"] == "–"
    assert rows["DIV2K-Val, Level I", "Bicubic"]["PSNR ↑ published"] == "–"
    assert rows["DIV2K-Val, Level II", "FaithDiff"]["PSNR ↑ difference"] == "–"
    first = [method for block, method in rows if block == "DIV2K-Val, Level I"]
    assert first == ["Real-ESRGAN", "DiffBIR", "SUPIR", "SeeSR", "FaithDiff", "Bicubic"]


def test_published_gains_have_a_difference_on_the_papers_sets_alone(
    profile: Profile, layout: Layout
) -> None:
    text = print_table("ablation", profile, layout, "csv", published=True).text
    rows = {(row["block"], row["Method"]): row for row in csv.DictReader(io.StringIO(text))}
    frozen = profile.variants["frozen"].label
    over_all = rows["All levels", frozen]
    assert over_all["MUSIQ ↑ published"] == "+2.10"
    gain = float(over_all["MUSIQ ↑ ours"])
    assert gain == pytest.approx(2, abs=0.05)
    found = float(over_all["MUSIQ ↑ difference"].replace("−", "-"))
    assert found == pytest.approx(gain - 2.1, abs=0.011)
    assert rows["Level I", frozen]["MUSIQ ↑ difference"] == "–"
    assert rows["All levels", AWKWARD]["MUSIQ ↑ published"] == "better"
    other = profile.data.test["DIV2K-Val"]
    elsewhere = profile.data.model_copy(update={"test": {"Photos": other}})
    scores = pd.read_csv(layout.results / "scores.csv", dtype=str, keep_default_na=False)
    scores = scores[scores["dataset"] == "DIV2K-Val"].replace({"dataset": {"DIV2K-Val": "Photos"}})
    scores.to_csv(layout.results / "scores.csv", index=False)
    moved = profile.model_copy(update={"data": elsewhere})
    text = print_table("ablation", moved, layout, "csv", published=True).text
    row = next(r for r in csv.DictReader(io.StringIO(text)) if r["Method"] == frozen)
    assert (row["MUSIQ ↑ published"], row["MUSIQ ↑ difference"]) == ("+2.10", "–")


@pytest.mark.skipif(
    shutil.which("pdflatex") is None,
    reason="NOT RUN: LaTeX is not compiled; install Debian's texlive-latex-base",
)
@pytest.mark.parametrize("label", [AWKWARD, "separate optimisation"])
def test_a_document_with_every_table_compiles(
    profile: Profile, layout: Layout, tmp_path: Path, label: str
) -> None:
    profile.variants["separate"] = profile.variants["separate"].model_copy(update={"label": label})
    bodies = [
        print_table(name, profile, layout, "latex", published).text
        for name, published in itertools.product(TABLES, (False, True))
    ]
    log = compile_latex(bodies, tmp_path)
    assert "undefined references" not in log and "Float too large" not in log
    wide = re.findall(r"Overfull \\hbox \((.*?)pt too wide\)", log)
    assert label == AWKWARD or not wide, log


def test_the_seconds_of_the_paper_stand_beside_ours_without_a_difference(
    profile: Profile, layout: Layout
) -> None:
    text = print_table("cost", profile, layout, "csv", published=True).text
    rows = {row["Method"]: row for row in csv.DictReader(io.StringIO(text))}
    own = rows["FaithDiff"]
    assert (own["s/image published"], own["s/image ours"]) == ("2.55", "0.50")
    assert own["s/image difference"] == own["trained, M published"] == "–"
    assert rows["other diffusion methods"]["s/image published"] == "7 to 11"
    assert "one A800" in print_table("cost", profile, layout, "markdown", published=True).text


def test_gpu_hours_are_of_every_gpu_of_the_training(profile: Profile, layout: Layout) -> None:
    def gpu_hours(profile: Profile) -> str | None:
        lines = print_table("cost", profile, layout, "csv").text
        found = {(r["method"], r["metric"]): r for r in csv.DictReader(io.StringIO(lines))}
        return found.get(("faithdiff", "gpu_hours"), {}).get("printed")

    assert gpu_hours(profile) is None  # no column that is empty in every row
    said = "Not measured: GPU-hours (the profile runs on CPUs)."
    assert said in print_table("cost", profile, layout, "markdown").text
    four = profile.training.model_copy(update={"processes": 4})
    assert gpu_hours(profile.model_copy(update={"device": "cuda", "training": four})) == "4.20"


def test_tables_that_are_not_there(profile: Profile, layout: Layout) -> None:
    with pytest.raises(UserError, match="one of main, realworld"):
        print_table("best", profile, layout, "markdown")
    with pytest.raises(UserError, match="no metrics"):
        print_table("cost", profile, layout, "markdown", protocol="ycbcr")
    (layout.results / "cost.csv").unlink()
    with pytest.raises(UserError, match=r"cost\.csv: cannot be read .* collect"):
        print_table("cost", profile, layout, "markdown")


def test_a_profile_without_real_images_has_no_such_table(profile: Profile, layout: Layout) -> None:
    sets = {"DIV2K-Val": profile.data.test["DIV2K-Val"]}
    without = profile.model_copy(update={"data": profile.data.model_copy(update={"test": sets})})
    with pytest.raises(UserError, match="lq_only"):
        print_table("realworld", without, layout, "latex")


def test_a_written_table_has_its_sidecar_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "main.tex"
    found = CliRunner().invoke(
        cli.app, ["table", "main", "--format", "latex", "--output", str(file)]
    )
    assert found.exit_code == 0, found.output
    cells = json.loads((tmp_path / "main.cells.json").read_text(encoding="utf-8"))
    shipped = json.loads((ROOT / "results/mini/tables/main.cells.json").read_text("utf-8"))
    measured = {key for key, cell in shipped["cells"].items() if cell["status"] != "unavailable"}
    assert cells["cells"].keys() >= measured
    assert file.read_text(encoding="utf-8").count("toprule") == len(
        {cell["datasets"][0] for cell in cells["cells"].values()}
    )


def test_a_table_is_not_written_over_a_file_that_is_no_table(tmp_path: Path) -> None:
    thesis = tmp_path / "thesis.tex"
    thesis.write_text("years of work", encoding="utf-8")
    with pytest.raises(UserError, match=r"thesis\.tex: is there already, .* another --output"):
        cli.table("main", "latex", output=thesis)
    assert thesis.read_text(encoding="utf-8") == "years of work"
    for _ in range(2):  # what it wrote itself is written again
        cli.table("main", "latex", output=tmp_path / "main.tex")
