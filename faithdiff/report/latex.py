"""A table as LaTeX: ``table*`` environments that need booktabs and nothing else."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import groupby

from faithdiff.report.cells import (
    MINUS,
    Block,
    Cell,
    Column,
    Row,
    Table,
    cell_text,
    difference_text,
    spread_text,
    star_text,
    updates_text,
)

# "[" and "*" are braced because a \\ before them would take them as its argument.
FEW = 5  # columns that fit a page in the larger size
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$",
    "#": r"\#", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''",
    "`": r"\textasciigrave{}", "[": "{[}", "*": "{*}",
    MINUS: "$-$", "±": r"$\pm$",
    "\N{UPWARDS ARROW}": r"$\uparrow$", "\N{DOWNWARDS ARROW}": r"$\downarrow$",
    "\N{MULTIPLICATION SIGN}": r"$\times$", "\N{RIGHTWARDS ARROW}": r"$\rightarrow$",
    "\N{LESS-THAN OR EQUAL TO}": r"$\leq$", "\N{GREATER-THAN OR EQUAL TO}": r"$\geq$",
    "\N{ALMOST EQUAL TO}": r"$\approx$", "\N{NOT EQUAL TO}": r"$\neq$",
    "\N{INFINITY}": r"$\infty$", "\N{MICRO SIGN}": r"$\mu$",
}  # fmt: skip
_GREEK = ("alpha beta gamma delta epsilon zeta eta theta iota kappa mu nu xi pi rho sigma tau "
          "upsilon phi chi psi omega")  # fmt: skip
_LATEX |= {
    unicodedata.lookup(f"GREEK SMALL LETTER {name.replace('lambda', 'lamda')}"): rf"$\{name}$"
    for name in [*_GREEK.split(), "lambda"]
}
# Latin letters with accents, and the dashes, quotes and dots of Western languages.
_PDFLATEX = re.compile(r"[^\u0000-\u017f\u2013\u2014\u2018-\u201e\u2020-\u2022\u2026\u20ac]")


def to_latex(table: Table) -> str:
    """Print one ``table*`` environment per group of blocks; needs booktabs and nothing else."""
    groups = [list(blocks) for _, blocks in groupby(table.blocks, key=lambda block: block.group)]
    labels = [row.label for block in table.blocks for row in block.rows]
    lines = latex_head(f"{table.profile}/{table.source}", table.caption, *labels)
    first = _label(table, groups[0][0])
    for i, blocks in enumerate(groups):
        caption = rf"As Table~\ref{{{first}}}." if i else latex_escape(table.caption)
        lines += _latex_group(table, blocks, caption)
    return "\n".join(lines) + "\n"


def latex_head(table: str, *texts: str) -> list[str]:
    """Comments above a table: the file that it is made from, and what it takes to print it."""
    lines = [
        f"% Written from results/{table}; do not edit.",
        r"% In the preamble: \usepackage{booktabs}",
    ]
    if beyond := sorted(set(_PDFLATEX.findall(latex_escape(" ".join(texts))))):
        lines.append(f"% pdflatex has no {' '.join(beyond)}: lualatex and a font that has them.")
    return lines


def _label(table: Table, block: Block) -> str:
    slug = "".join(c if c.isascii() and c.isalnum() else "-" for c in block.group.lower())
    return f"tab:{table.name}-{slug}"


def _latex_group(table: Table, blocks: list[Block], caption: str) -> list[str]:
    lines = [
        r"\begin{table*}[t]",  # the width of the page where the paper has two columns
        r"\centering",
        rf"\caption{{{latex_escape(blocks[0].group)}. {caption}}}",
        rf"\label{{{_label(table, blocks[0])}}}",
        r"\par\smallskip",
        r"\scriptsize" if len(table.columns) > FEW else r"\footnotesize",
        r"\setlength{\tabcolsep}{3pt}",
        rf"\begin{{tabular}}{{@{{}}l{'r' * (len(table.heads) - 1)}@{{}}}}",
        r"\toprule",
        " & ".join(map(latex_escape, table.heads)) + r" \\",
    ]
    for block in blocks:
        # Rules stand within a block too, where it has groups: its own is the heavier one.
        lines.append(r"\midrule[\heavyrulewidth]" if table.grouped else r"\midrule")
        lines += _line_across(block.title, table, r"\textsc") if block.title else []
        for title, rows in table.titled(block):
            lines += [r"\midrule", *_line_across(title, table, r"\emph")] if title else []
            for i, row in enumerate(rows):
                lines += [r"\addlinespace[2pt]"] if table.differences and i else []
                lines += _latex_row(row, table)
    lines += [r"\bottomrule", r"\end{tabular}"]
    used = sorted({c.footnote for block in blocks for row in block.rows for c in row.cells} - {0})
    first = blocks[0] is table.blocks[0]
    notes = [latex_escape(table.unmeasured)] if table.unmeasured and first else []
    notes += [rf"\textsuperscript{{{i}}} {latex_escape(table.footnotes[i - 1])}" for i in used]
    if notes:
        lines += [r"\par\medskip\raggedright\footnotesize", r"\\ ".join(notes)]
    return [*lines, r"\end{table*}"]


def _line_across(text: str, table: Table, style: str) -> list[str]:
    """A line of the table that holds a title alone."""
    shown = rf"{style}{{{latex_escape(text)}}}"
    return [rf"\multicolumn{{{len(table.heads)}}}{{@{{}}l}}{{{shown}}} \\"]


def _latex_row(row: Row, table: Table) -> Iterator[str]:
    """Print a row: its means, then what is small below them to fit a page.

    That is the spread over trainings; with differences, the difference and its interval.
    """
    label = latex_escape(row.label)
    means = [label if row.method else rf"\emph{{{label}}}"]
    means += [updates_text(row)] if table.has_updates else []
    blank = [""] * len(means)
    spreads, differences, intervals = [*blank], [*blank], [*blank]
    for cell, column in zip(row.cells, table.columns, strict=True):
        difference, interval = difference_text(cell, column) if table.differences else ("", "")
        means.append(_mean(cell, column))
        spreads.append(_tiny(spread_text(cell, column)))
        differences.append(latex_escape(difference))
        intervals.append(_tiny(interval))
    for line in (means, spreads, differences, intervals):
        if line is means or any(line):
            yield " & ".join(line) + r" \\"


def _mean(cell: Cell, column: Column) -> str:
    text = latex_escape(cell_text(cell, column).removesuffix(spread_text(cell, column)).strip())
    if cell.mark:
        text = rf"\textbf{{{text}}}" if cell.mark == "best" else rf"\underline{{{text}}}"
    text += latex_escape(star_text(cell))
    return text + (rf"\textsuperscript{{{cell.footnote}}}" if cell.footnote else "")


def _tiny(text: str) -> str:
    return rf"{{\tiny {latex_escape(text)}}}" if text else ""


def latex_escape(text: str) -> str:
    """Turn any text into LaTeX that prints it literally; what stands between backticks is code."""
    parts = text.replace("\n", " ").split("`")
    if len(parts) % 2 == 0:  # an unpaired backtick
        parts = [text]
    plain = ["".join(_LATEX.get(c, c) for c in part).replace("--", "-{}-") for part in parts]
    return "".join(rf"\texttt{{{part}}}" if i % 2 else part for i, part in enumerate(plain))
