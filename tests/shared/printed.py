"""Reads the tables of an HTML page, and compiles those in LaTeX."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path


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


def compile_latex(bodies: Sequence[str], folder: Path) -> str:
    """Compile tables as a two-column paper has them; returns what the second run said."""
    text = (
        "\\documentclass[twocolumn]{article}\\usepackage[margin=1in]{geometry}"
        "\\usepackage{booktabs}\\begin{document}\n"
        + "\n\\clearpage\n".join(bodies)
        + "\\end{document}\n"
    )
    (folder / "t.tex").write_text(text, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    for _ in range(2):  # references need the second
        run = subprocess.run(command, cwd=folder, capture_output=True, check=False)
        assert run.returncode == 0, run.stdout.decode(errors="replace")[-2000:]
    return run.stdout.decode(errors="replace")
