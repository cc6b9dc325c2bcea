"""A table as HTML: one ``table`` element for each block, escaped, to be put into any page."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from faithdiff.report.cells import Cell, Column, Row, Table, cell_text, difference_text, header


def to_html(table: Table) -> str:
    """Print the blocks with caption and notes; best is ``strong``, second is ``u``."""
    lines = [
        f"<!-- written from results/{escape(table.profile)}/{escape(table.source)}; do not edit -->"
    ]
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in _heads(table))
    for block in table.blocks:
        lines += ["<table>", f"<caption>{escape(block.name)}</caption>"]
        lines += [f"<thead><tr>{head}</tr></thead>", "<tbody>"]
        lines += ["".join(_row(row, table)) for row in block.rows]
        lines += ["</tbody>", "</table>"]
    lines.append(f"<p>{escape(table.caption)}</p>")
    if table.footnotes:
        lines += ["<ol>", *(f"<li>{escape(note)}</li>" for note in table.footnotes), "</ol>"]
    return "\n".join(lines) + "\n"


def _heads(table: Table) -> list[str]:
    return ["Method", *map(header, table.columns)]


def _row(row: Row, table: Table) -> Iterator[str]:
    label = escape(row.label)
    yield f'<tr><th scope="row">{label if row.method else f"<em>{label}</em>"}</th>'
    for cell, column in zip(row.cells, table.columns, strict=True):
        yield f"<td>{_cell(cell, column, table)}</td>"
    yield "</tr>"


def _cell(cell: Cell, column: Column, table: Table) -> str:
    text = escape(cell_text(cell, column))
    if cell.mark:
        tag = "strong" if cell.mark == "best" else "u"
        text = f"<{tag}>{text}</{tag}>"
    if cell.footnote:
        text += f"<sup>{cell.footnote}</sup>"
    if table.differences and cell.comparison:
        text += "<br>" + escape(" ".join(difference_text(cell, column)))
    return text
