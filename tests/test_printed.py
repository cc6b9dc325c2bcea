"""The verb `table`: every table in every format, and against the published numbers."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest

from faithdiff.config import FolderSet, Profile, load_profile
from faithdiff.errors import UserError
from faithdiff.layout import Layout
from faithdiff.report.printed import TABLES, Format, print_table
from faithdiff.report.scores import COLUMNS

ROOT = Path(__file__).parent.parent
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
            place = ("tiny", method, "", 0, dataset, level, f"{image}", metric, "faithdiff-repo")
            rows.append((*place, value, "ok", "r", "h", "p"))
        if method in profile.variants and level != "real":
            place = ("tiny", method, "", 0, dataset, level, f"{image}", "heldout_loss", "heldout")
            rows.append((*place, 0.5, "ok", "", "", "p"))
    return pd.DataFrame(rows, columns=COLUMNS)


class Cells(HTMLParser):
    """Texts of the cells of all tables, by row; and all tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: object) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", TABLES)
def test_every_table_in_every_format(
    profile: Profile, layout: Layout, name: str, form: Format, published: bool
) -> None:
    text = print_table(name, profile, layout, form, published)
    assert (text.endswith("\n") and "FaithDiff" in text) or name == "ablation"
    if form != "csv":
        assert "faithdiff-repo" in text and "n = " in text and "commit 012345678" in text
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
    text = print_table("main", profile, layout, "csv", published=True)
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
    text = print_table("ablation", profile, layout, "csv", published=True)
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
    text = print_table("ablation", moved, layout, "csv", published=True)
    row = next(r for r in csv.DictReader(io.StringIO(text)) if r["Method"] == frozen)
    assert (row["MUSIQ ↑ published"], row["MUSIQ ↑ difference"]) == ("+2.10", "–")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="NO pdflatex: LaTeX is NOT compiled")
def test_a_document_with_every_table_compiles(
    profile: Profile, layout: Layout, tmp_path: Path
) -> None:
    bodies = [
        print_table(name, profile, layout, "latex", published)
        for name, published in itertools.product(TABLES, (False, True))
    ]
    text = (
        "\\documentclass[twocolumn]{article}\\usepackage{booktabs}\\begin{document}\n"
        + "\n\\clearpage\n".join(bodies)
        + "\\end{document}\n"
    )
    (tmp_path / "t.tex").write_text(text, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert run.returncode == 0, run.stdout.decode(errors="replace")[-2000:]


@pytest.mark.parametrize(
    ("name", "said"), [("cost", "does not measure costs"), ("best", "one of main, realworld")]
)
def test_tables_that_are_not_there(profile: Profile, layout: Layout, name: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        print_table(name, profile, layout, "markdown")


def test_a_profile_without_real_images_has_no_such_table(profile: Profile, layout: Layout) -> None:
    sets = {"DIV2K-Val": profile.data.test["DIV2K-Val"]}
    without = profile.model_copy(update={"data": profile.data.model_copy(update={"test": sets})})
    with pytest.raises(UserError, match="lq_only"):
        print_table("realworld", without, layout, "latex")
