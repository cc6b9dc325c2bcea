"""The table of deviations: complete, with a reason each, and in step with the docs."""

from __future__ import annotations

from pathlib import Path

import pytest
from shared import ROOT

from faithdiff.config import load_profile
from faithdiff.errors import ConfigError
from faithdiff.report.deviations import deviation_table

MINI, PAPER = Path("config/mini.yaml"), Path("config/paper.yaml")


def own(folder: Path, text: str) -> Path:
    file = folder / "own.yaml"
    file.write_text(f"extends: {ROOT / MINI}\nprofile: own\n{text}", encoding="utf-8")
    return file


def test_the_page_in_the_docs_is_the_present_one() -> None:
    page = (ROOT / "docs" / "deviations.md").read_text(encoding="utf-8")
    assert page == deviation_table(MINI, PAPER), "run: faithdiff deviations > docs/deviations.md"


@pytest.mark.parametrize("name", ["mini", "lab"])
def test_profiles_that_train_explain_themselves(name: str) -> None:
    file = Path("config", f"{name}.yaml")
    rows = [row for row in deviation_table(file, PAPER).splitlines() if row.startswith("| `")]
    assert len(rows) == len(load_profile(file).deviations) > 0


def test_the_published_settings_have_nothing_to_explain() -> None:
    assert deviation_table(PAPER, PAPER).splitlines()[-1] == "|---|---|---|---|"


def test_a_row_has_both_values_and_the_reason(tmp_path: Path) -> None:
    file = own(tmp_path, "training: {loss: l1}\ndeviations: {training.loss: null}\n")
    page = deviation_table(file, PAPER)
    reason = load_profile(MINI).deviations["training.crop"]
    assert f"| `training.crop` | 512 | 64 | {reason} |" in page
    assert "training.loss`" not in page


def test_what_lacks_a_reason_and_what_has_one_too_many_is_listed(tmp_path: Path) -> None:
    text = """
training: {loss: l1, text_dropout: 0.1, optimiser: {betas: [0.5, 0.9]}}
restore: {start_point: noise}
deviations: {report.protocol: not compared, restore.start_point: because}
"""
    file = own(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        deviation_table(file, PAPER)
    wrong = [line.split(": ")[1].split(" ")[0] for line in str(caught.value).splitlines()]
    assert wrong == [
        "training.optimiser.betas",
        "training.text_dropout",
        "deviations.training.loss",
        "deviations.report.protocol",
    ]
    assert all(line.startswith(f"{file}: ") for line in str(caught.value).splitlines())


def test_settings_that_change_no_result_need_no_reason(tmp_path: Path) -> None:
    text = """
training: {log_every: 1, checkpoint_every: 7, heldout: {images: 1}}
restore: {batch_size: 2}
"""
    rows = [deviation_table(file, PAPER).splitlines()[9:] for file in (own(tmp_path, text), MINI)]
    assert rows[0] == rows[1]


def test_a_bar_in_a_reason_does_not_break_the_table(tmp_path: Path) -> None:
    page = deviation_table(own(tmp_path, "deviations: {training.crop: a | b}\n"), PAPER)
    row = next(line for line in page.splitlines() if "`training.crop`" in line)
    assert row.count("|") == 5


def test_figures_that_reasons_name_are_shown_once(tmp_path: Path) -> None:
    figure = "results/x/figures/a.png"
    why = f"{{training.crop: see {figure}, training.batch_size: {figure}}}"
    page = deviation_table(own(tmp_path, f"deviations: {why}\n"), PAPER)
    assert page.count(f"\n![{figure}](../{figure})\n") == 1
