"""Published, ours and their difference side by side: ``faithdiff table --published``.

Rows stand in the paper's order. A difference is printed only where both numbers exist, which needs
the published dataset, level and protocol; it is ours less the published one.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import product
from pathlib import Path

from faithdiff.errors import UserError
from faithdiff.report.cells import Block, Cell, Column, Table, cell_text, header, number
from faithdiff.report.latex import latex_escape, latex_head
from faithdiff.report.published import published_for
from faithdiff.report.render import markdown_escape
from faithdiff.study.files import unreadable

PARTS = ("published", "ours", "difference")
ABSENT = "–"
ROWS = 44  # lines of a table that fit a page
SECONDS = "seconds_per_image"
Line = tuple[str, ...]
GridBlock = tuple[str, tuple[Line, ...]]  # its title and its rows


@dataclass(frozen=True)
class Grid:
    """Text in rows and columns; `heads` has three columns for each metric."""

    name: str
    profile: str
    source: str
    caption: str
    heads: Line
    blocks: tuple[GridBlock, ...]


def versus(table: Table, paper: Path, code: str = "") -> Grid:
    """Set a table of means, or the gains of an ablation, against what the paper prints.

    Args:
        table: Of means, or with differences to its first row.
        paper: Folder of the published numbers.
        code: Sentence on the code that made ours, for the caption.
    """
    ablation = table.differences
    if table.source == "cost.csv":
        return _costs(table, paper, code)
    rows = _gains(table, paper) if ablation else _means(table, paper)
    found = tuple((block.name, tuple(lines)) for block, lines in rows)
    what = (
        "Gains of the first row over the others, positive if it is better."
        if ablation
        else "Published rows in the paper's order, then those that are only ours."
    )
    if ablation and not all(_comparable(block, paper) for block in table.blocks):
        what += " Published gains without a difference are from other data."
    known = any(line[1::3] != (ABSENT,) * len(table.columns) for _, ls in found for line in ls)
    note = (
        "" if known else " The paper prints none of these numbers: other data, levels or protocol."
    )
    about = table.caption.partition(" Beside each mean")[0].partition(" Bold:")[0]
    return Grid(
        f"{table.name}-published",
        table.profile,
        table.source,
        f"{what} Difference: ours minus the published number.{note} "
        f"{' '.join(filter(None, (about, table.unmeasured, code)))}",
        _heads(table),
        found,
    )


def _heads(table: Table) -> Line:
    return ("Method", *(f"{header(c)} {part}" for c in table.columns for part in PARTS))


def _costs(table: Table, paper: Path, code: str) -> Grid:
    """Published are seconds alone, of one GPU and 1024 x 1024 pixels: no difference is printed."""
    known = _rows(paper / "efficiency.csv")
    seconds = {row["method"]: _span(row) for row in known}
    said = " ".join(f"{row['method']}: {row['hardware']}, {row['conditions']}." for row in known)
    blocks = []
    for block in table.blocks:
        ours = {row.label: row.cells for row in block.rows}
        lines = [
            (
                label,
                *(
                    text
                    for i, column in enumerate(table.columns)
                    for text in (
                        seconds.get(label, ABSENT) if column.metric == SECONDS else ABSENT,
                        cell_text(ours[label][i], column) or ABSENT if label in ours else ABSENT,
                        ABSENT,
                    )
                ),
            )
            for label in [*ours, *(name for name in seconds if name not in ours)]
        ]
        blocks.append((block.name, tuple(lines)))
    return Grid(
        f"{table.name}-published",
        table.profile,
        table.source,
        f"The paper prints only seconds ({said.removesuffix('.')}), so there is no difference: "
        f"other hardware and sizes. {table.caption} {code}".strip(),
        _heads(table),
        tuple(blocks),
    )


def _span(row: dict[str, str]) -> str:
    """Seconds as published, or from the lowest to the highest."""
    low, high = row["seconds_low"], row["seconds_high"]
    return low if low == high else f"{low} to {high}"


def _means(table: Table, paper: Path) -> Iterator[tuple[Block, list[Line]]]:
    for block in table.blocks:
        protocol = table.columns[0].protocol if table.columns else ""  # nothing was measured
        published = published_for(block.datasets[0], block.levels[0], protocol, paper)
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
        raise UserError(unreadable(file, error, "restore it from git")) from None


def grid_markdown(grid: Grid) -> str:
    """GitHub-flavoured Markdown."""
    parts = [f"<!-- written from results/{grid.profile}/{grid.source}; do not edit -->"]
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
    """Print ``table*`` environments of two metrics and as many blocks as fit a page."""
    labels = [line[0] for _, rows in grid.blocks for line in rows]
    lines = latex_head(f"{grid.profile}/{grid.source}", grid.caption, *labels)
    label = f"tab:{grid.name}"
    pairs = [range(first, len(grid.heads), 3)[:2] for first in range(1, len(grid.heads), 6)]
    for i, (blocks, metrics) in enumerate(product(_pages(grid.blocks), pairs)):
        caption = rf"As Table~\ref{{{label}}}." if i else latex_escape(grid.caption)
        lines += [
            r"\begin{table*}[t]",
            r"\centering",
            rf"\caption{{{caption}}}",
            rf"\label{{{label}{f'-{i}' if i else ''}}}",
            r"\par\smallskip",
        ]
        for first in metrics:
            lines += _latex_metric(grid.heads, blocks, first)
        lines.append(r"\end{table*}")
    return "\n".join(lines) + "\n"


def _pages(blocks: Sequence[GridBlock]) -> Iterator[list[GridBlock]]:
    """Blocks together, as long as they have no more than `ROWS` lines."""
    page: list[GridBlock] = []
    for block in blocks:
        if page and sum(len(rows) + 1 for _, rows in [*page, block]) > ROWS:
            yield page
            page = []
        page.append(block)
    yield page


def _latex_metric(heads: Line, blocks: Sequence[GridBlock], first: int) -> Line:
    """One metric on half a page: its three columns."""
    name = latex_escape(heads[first].removesuffix(f" {PARTS[0]}"))
    lines = [
        r"\begin{minipage}[t]{0.485\linewidth}\centering\scriptsize\setlength{\tabcolsep}{3pt}",
        r"\begin{tabular}[t]{@{}p{0.44\linewidth}rrr@{}}\toprule",
        rf"{name} & {' & '.join(PARTS)} \\",
    ]
    for block, rows in blocks:
        title = rf"\multicolumn{{4}}{{@{{}}l}}{{\emph{{{latex_escape(block)}}}}} \\"
        lines += [r"\midrule", title]
        for row in rows:
            texts = map(_latex_text, row[first : first + 3])
            lines.append(rf"\raggedright {latex_escape(row[0])} & {' & '.join(texts)} \\")
    return (*lines, r"\bottomrule\end{tabular}", r"\end{minipage}\hfill")


def _latex_text(text: str) -> str:
    return "--" if text == ABSENT else latex_escape(text)
