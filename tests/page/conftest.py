"""A report page, made once in a run of the tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from shared import ROOT
from shared.report_page import EVIL, MINI, put_pictures, quick, rename
from shared.whole import made_once

from faithdiff.methods.method import Study
from faithdiff.page.build import report_folder, write_page
from faithdiff.report.tables import write_tables


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the committed results, with small pictures of its own and awkward names."""
    return made_once(tmp_path_factory, "page", make_page) / "results/mini/report/index.html"


def make_page(root: Path) -> None:
    shutil.copytree(ROOT / "config", root / "config")
    shutil.copytree(ROOT / "results" / "mini", root / "results" / "mini")
    shutil.rmtree(root / "results/mini/report", ignore_errors=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        shutil.copytree(ROOT / "results" / "paper", root / "results" / "paper")
        write_tables(quick(Study.load(MINI).profile), Study.load(MINI).layout)
    put_pictures(root)
    rename(root / "results/mini/tables/main.cells.json", "Bicubic", EVIL)
    claims = root / "results/mini/claims.json"
    claims.write_text(claims.read_text("utf-8").replace("Training the ", f"{EVIL} the ", 1).replace(
        "onerror='", "onerror=\\u0027"), encoding="utf-8")  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        study = Study.load(MINI)
        made = write_page(study, Path())
    assert made == report_folder(study.layout) / "index.html"
