"""A table as LaTeX: ``table*`` environments that need booktabs and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from faithdiff.report.cells import MINUS, Block, Row, Table, cell_text, difference_text, header

# "[" and "*" are braced because a \\ before them would take them as its argument.
FEW = 5  # columns that fit a page in the larger size
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$",
    "#": r"\#", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''",
    "`": r"\textasciigrave{}", "[": "{[}", "*": "{*}",
    MINUS: "$-$", "\N{UPWARDS ARROW}": r"$\uparrow$", "\N{DOWNWARDS ARROW}": r"$\downarrow$",
}  # fmt: skip


def to_latex(table: Table) -> str:
    """Print one ``table*`` environment per group of blocks; needs booktabs and nothing else."""
    groups = [list(blocks) for _, blocks in groupby(table.blocks, key=lambda block: block.group)]
    lines = [
        f"% Written from results/{table.profile}/{table.source}; do not edit.",
        r"% In the preamble: \usepackage{booktabs}",
    ]
    first = _label(table, groups[0][0])
    for i, blocks in enumerate(groups):
        caption = rf"As Table~\ref{{{first}}}." if i else latex_escape(table.caption)
        lines += _latex_group(table, blocks, caption)
    return "\n".join(lines) + "\n"


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
        rf"\begin{{tabular}}{{@{{}}l{'r' * len(table.columns)}@{{}}}}",
        r"\toprule",
        " & ".join(["Method", *(latex_escape(header(column)) for column in table.columns)])
        + r" \\",
    ]
    for block in blocks:
        lines.append(r"\midrule")
        if block.title:
            title = rf"\emph{{{latex_escape(block.title)}}}"
            lines.append(rf"\multicolumn{{{len(table.columns) + 1}}}{{@{{}}l}}{{{title}}} \\")
        for i, row in enumerate(block.rows):
            lines += [r"\addlinespace[2pt]"] if table.differences and i else []
            lines += _latex_row(row, table)
    lines += [r"\bottomrule", r"\end{tabular}"]
    used = sorted({c.footnote for block in blocks for row in block.rows for c in row.cells} - {0})
    notes = [rf"\textsuperscript{{{i}}} {latex_escape(table.footnotes[i - 1])}" for i in used]
    if notes:
        lines += [r"\par\medskip\raggedright\footnotesize", r"\\ ".join(notes)]
    return [*lines, r"\end{table*}"]


def _latex_row(row: Row, table: Table) -> Iterator[str]:
    """Print a row as one line, or as three with differences: intervals small, to fit a page."""
    label = latex_escape(row.label)
    lines = [[label if row.method else rf"\emph{{{label}}}"], [""], [""]]
    for cell, column in zip(row.cells, table.columns, strict=True):
        text = latex_escape(cell_text(cell, column))
        if cell.mark:
            text = rf"\textbf{{{text}}}" if cell.mark == "best" else rf"\underline{{{text}}}"
        if cell.footnote:
            text += rf"\textsuperscript{{{cell.footnote}}}"
        difference, interval = difference_text(cell, column) if table.differences else ("", "")
        lines[0].append(text)
        lines[1].append(latex_escape(difference))
        lines[2].append(rf"{{\tiny {latex_escape(interval)}}}" if interval else "")
    for line in lines[: 3 if any(lines[1]) else 1]:
        yield " & ".join(line) + r" \\"


def latex_escape(text: str) -> str:
    """Turn any text into LaTeX that prints it literally; what stands between backticks is code."""
    parts = text.replace("\n", " ").split("`")
    if len(parts) % 2 == 0:  # an unpaired backtick
        parts = [text]
    plain = ["".join(_LATEX.get(c, c) for c in part).replace("--", "-{}-") for part in parts]
    return "".join(rf"\texttt{{{part}}}" if i % 2 else part for i, part in enumerate(plain))
