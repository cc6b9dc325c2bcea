"""Tables for LaTeX, and labels in every format."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from shared import ROOT
from shared.scores import AWKWARD, make_scores

from faithdiff.config import Profile
from faithdiff.report.html import to_html
from faithdiff.report.latex import latex_escape, latex_head, to_latex
from faithdiff.report.render import to_markdown
from faithdiff.report.style import RC, save
from faithdiff.report.tables import ablation_table, main_table

PAPER = ROOT / "results" / "paper"


def test_special_characters_are_escaped_in_latex(profile: Profile) -> None:
    text = latex_escape(AWKWARD)
    assert not re.search(r"(?<!\\)[%&#_]|--|[<>|\"]", text)
    assert text.count(r"\$") == 1
    for table in (main_table(make_scores(profile), profile, paper=PAPER),):
        assert text in to_latex(table)
    assert latex_escape("run `a_b --c` now") == r"run \texttt{a\_b -{}-c} now"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="NO pdflatex: LaTeX is NOT compiled")
def test_latex_compiles_with_booktabs_alone(profile: Profile, tmp_path: Path) -> None:
    scores = make_scores(profile)
    lost = scores.query("method == 'separate' or (method == 'bicubic' and level == 'II')").index
    scores.loc[lost, ["status", "value"]] = [f"failed: {AWKWARD} `{AWKWARD}`", np.nan]
    body = to_latex(main_table(scores, profile, paper=PAPER))
    body += to_latex(ablation_table(scores, profile))
    compile_article(rf"\usepackage{{booktabs}}\begin{{document}}{body}", tmp_path)


def compile_article(content: str, folder: Path) -> None:
    document = rf"\documentclass{{article}}{content}\end{{document}}"
    (folder / "t.tex").write_text(document, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    run = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    assert run.returncode == 0, run.stdout.decode(errors="replace")[-2000:]


LABEL = "A & B < 50 %, $x_{1$ ~é~ α ≤ 2 → 字"  # as people write them


def test_a_label_is_text_in_every_format(profile: Profile, tmp_path: Path) -> None:
    variants = dict(profile.variants)
    variants["frozen"] = variants["frozen"].model_copy(update={"label": LABEL})
    profile = profile.model_copy(update={"variants": variants})
    table = main_table(make_scores(profile), profile, paper=PAPER)
    assert r"| A \& B \< 50 %, \$x\_{1\$ \~é\~ α ≤ 2 → 字 |" in to_markdown(table)
    assert '<th scope="row">A &amp; B &lt; 50 %, $x_{1$ ~é~ α ≤ 2 → 字</th>' in to_html(table)
    latex = to_latex(table)
    assert r"A \& B \textless{} 50 \%, \$x\_\{1\$" in latex and r"$\alpha$ $\leq$ 2" in latex
    assert latex.splitlines()[2] == "% pdflatex has no 字: lualatex and a font that has them."
    with matplotlib.rc_context(RC):
        figure = Figure()
        figure.text(0, 0, LABEL.replace("字", ""))
        save(figure, tmp_path / "label")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="NO pdflatex: LaTeX is NOT compiled")
def test_pdflatex_prints_what_is_not_said_to_be_beyond_it(tmp_path: Path) -> None:
    text = latex_escape("ünï ß ő – “q” ‘s’ … € † • × → ≤ ≥ ≈ ≠ ∞ µ α λ ω − ± ° ² ½ ÷")
    assert not [line for line in latex_head("x", text) if "pdflatex has no" in line]
    compile_article(rf"\begin{{document}}{text} \textbf{{{text}}}", tmp_path)
