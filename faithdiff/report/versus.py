"""Published, ours and their difference side by side: ``faithdiff table --published``.

Rows stand in the paper's order. A difference is printed only where both numbers exist, which needs
the published data set, level and protocol; it is ours less the published one.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from faithdiff.errors import UserError
from faithdiff.report.cells import Block, Cell, Column, Table, cell_text, header, number
from faithdiff.report.latex import latex_escape
from faithdiff.report.published import published_for
from faithdiff.report.render import markdown_escape

PARTS = ("published", "ours", "difference")
ABSENT = "–"
Line = tuple[str, ...]


@dataclass(frozen=True)
class Grid:
    """Text in rows and columns; `heads` has three columns for each metric."""

    name: str
    profile: str
    caption: str
    heads: Line
    blocks: tuple[tuple[str, tuple[Line, ...]], ...]


def versus(table: Table, paper: Path, code: str = "") -> Grid:
    """Set a table of means, or the gains of an ablation, against what the paper prints.

    Args:
        table: Of means, or with differences to its first row.
        paper: Folder of the published numbers.
        code: Sentence on the code that made ours, for the caption.
    """
    ablation = table.differences
    rows = _gains(table, paper) if ablation else _means(table, paper)
    found = tuple((block.name, tuple(lines)) for block, lines in rows)
    what = (
        "Gains of the first row over the others, positive where it is better."
        if ablation
        else "Published rows in the paper's order, then ours alone."
    )
    if ablation and not all(_comparable(block, paper) for block in table.blocks):
        what += " Published gains are of other data where no difference stands beside them."
    known = any(line[1::3] != (ABSENT,) * len(table.columns) for _, ls in found for line in ls)
    note = "" if known else " The paper prints none of these: other data, levels or protocol."
    heads = tuple(f"{header(c)} {part}" for c in table.columns for part in PARTS)
    about = table.caption.partition(" Beside each mean")[0].partition(" Bold:")[0]
    return Grid(
        f"{table.name}-published",
        table.profile,
        f"{what} Difference: ours less the published one.{note} {about} {code}".strip(),
        ("Method", *heads),
        found,
    )


def _means(table: Table, paper: Path) -> Iterator[tuple[Block, list[Line]]]:
    for block in table.blocks:
        published = published_for(
            block.datasets[0], block.levels[0], table.columns[0].protocol, paper
        )
        ours = {row.label: row.cells for row in block.rows if row.method}
        labels = [*published, *(label for label in ours if label not in published)]
        yield (
            block,
            [
                _line(label, published.get(label, {}), ours.get(label), table.columns)
                for label in labels
            ],
        )


def _line(
    label: str, published: dict[str, float], cells: Sequence[Cell] | None, columns: Sequence[Column]
) -> Line:
    texts = [label]
    for i, column in enumerate(columns):
        theirs = published.get(column.metric)
        own = cells[i] if cells else None
        mean = own.mean if own and own.status == "ok" else None
        texts += [
            ABSENT if theirs is None else number(theirs, column),
            cell_text(own, column) or ABSENT if own else ABSENT,
            ABSENT if theirs is None or mean is None else number(mean - theirs, column, True),
        ]
    return tuple(texts)


def _gains(table: Table, paper: Path) -> Iterator[tuple[Block, list[Line]]]:
    known = _differences(paper)
    for block in table.blocks:
        first, comparable = block.rows[0].method, _comparable(block, paper)
        yield (
            block,
            [
                tuple(
                    text
                    for part in (
                        (row.label,),
                        *(
                            _gain(
                                known.get((first, row.method, column.metric)),
                                cell,
                                column,
                                comparable,
                            )
                            for cell, column in zip(row.cells, table.columns, strict=True)
                        ),
                    )
                    for text in part
                )
                for row in block.rows[1:]
            ],
        )


def _comparable(block: Block, paper: Path) -> bool:
    """Whether a block has the paper's test sets, over all levels: which one it was is unknown."""
    sets = {row["dataset"] for row in _rows(paper / "table1.csv")}
    return set(block.datasets) <= sets and len(block.levels) > 1


def _gain(published: str | None, cell: Cell, column: Column, comparable: bool) -> Line:
    """The comparison of a variant with the first row, turned round."""
    sign = -1 if column.higher_is_better else 1
    ours = sign * cell.comparison.mean if cell.comparison else None
    theirs = float(published) if published not in (None, "") else None
    both = comparable and ours is not None and theirs is not None
    return (
        number(theirs, column, True) if theirs is not None else _word(published),
        cell_text(cell, column) or ABSENT if ours is None else number(ours, column, True),
        number((ours or 0.0) - (theirs or 0.0), column, True) if both else ABSENT,
    )


def _word(published: str | None) -> str:
    """What is known where there is no number: a direction, or nothing."""
    return ABSENT if published is None else "better"


def _differences(paper: Path) -> dict[tuple[str, str, str], str]:
    rows = _rows(paper / "differences.csv")
    return {(row["variant"], row["reference"], row["metric"]): row["difference"] for row in rows}


def _rows(file: Path) -> list[dict[str, str]]:
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); restore it from git") from None


def grid_markdown(grid: Grid) -> str:
    """GitHub-flavoured Markdown."""
    parts = [f"<!-- written from results/{grid.profile}/scores.csv; do not edit -->"]
    for name, lines in grid.blocks:
        pipes = [" | ".join(map(markdown_escape, line)) for line in (grid.heads, *lines)]
        rule = "|:--|" + "--:|" * (len(grid.heads) - 1)
        parts.append(f"**{markdown_escape(name)}**\n\n| {pipes[0]} |\n{rule}\n" + "\n".join(
            f"| {line} |" for line in pipes[1:]))  # fmt: skip
    return "\n\n".join([*parts, markdown_escape(grid.caption)]) + "\n"


def grid_csv(grid: Grid) -> str:
    """Texts as printed, one line for each row of a block."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("block", *grid.heads))
    writer.writerows((name, *line) for name, lines in grid.blocks for line in lines)
    return out.getvalue()


def grid_html(grid: Grid) -> str:
    """A ``table`` element for each block."""
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in grid.heads)
    parts = []
    for name, lines in grid.blocks:
        rows = "\n".join(
            f'<tr><th scope="row">{escape(line[0])}</th>'
            + "".join(f"<td>{escape(text)}</td>" for text in line[1:])
            + "</tr>"
            for line in lines
        )
        parts.append(
            f"<table>\n<caption>{escape(name)}</caption>\n<thead><tr>{head}</tr></thead>\n"
            f"<tbody>\n{rows}\n</tbody>\n</table>"
        )
    return "\n".join([*parts, f"<p>{escape(grid.caption)}</p>"]) + "\n"


def grid_latex(grid: Grid) -> str:
    """A ``table*`` for each metric, so that three columns each fit a page; needs booktabs."""
    lines = [
        f"% Written from results/{grid.profile}/scores.csv; do not edit.",
        r"% In the preamble: \usepackage{booktabs}",
        r"\begin{table*}[t]",
        r"\centering",
        rf"\caption{{{latex_escape(grid.caption)}}}",
        rf"\label{{tab:{grid.name}}}",
        r"\par\smallskip",
    ]
    for first in range(1, len(grid.heads), 3):
        metric = grid.heads[first].removesuffix(f" {PARTS[0]}")
        lines += [
            r"\begin{minipage}[t]{0.48\linewidth}\centering\scriptsize",
            rf"\begin{{tabular}}{{@{{}}lrrr@{{}}}}\toprule {latex_escape(metric)} & "
            + " & ".join(PARTS)
            + r" \\",
        ]
        for name, rows in grid.blocks:
            title = rf"\multicolumn{{4}}{{@{{}}l}}{{\emph{{{latex_escape(name)}}}}} \\"
            lines += [r"\midrule", title]
            lines += [
                " & ".join(map(_latex_text, (row[0], *row[first : first + 3]))) + r" \\"
                for row in rows
            ]
        lines += [r"\bottomrule\end{tabular}\par\smallskip", r"\end{minipage}\hfill"]
    return "\n".join([*lines, r"\end{table*}"]) + "\n"


def _latex_text(text: str) -> str:
    return "--" if text == ABSENT else latex_escape(text)
