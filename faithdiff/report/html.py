"""A table as HTML: one ``table`` element for each block, escaped, to be put into any page."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from faithdiff.report.cells import (
    Cell,
    Column,
    Row,
    Table,
    cell_text,
    difference_text,
    star_text,
    updates_text,
)


def to_html(table: Table) -> str:
    """Print the blocks with caption and notes; best is ``strong``, second is ``u``."""
    lines = [
        f"<!-- written from results/{escape(table.profile)}/{escape(table.source)}; do not edit -->"
    ]
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.heads)
    for block in table.blocks:
        lines += ["<table>", f"<caption>{escape(block.name)}</caption>"]
        lines.append(f"<thead><tr>{head}</tr></thead>")
        for title, rows in table.titled(block):
            lines.append("<tbody>")
            if title:
                span = f'colspan="{len(table.heads)}" scope="rowgroup"'
                lines.append(f"<tr><th {span}><em>{escape(title)}</em></th></tr>")
            lines += [*("".join(_row(row, table)) for row in rows), "</tbody>"]
        lines.append("</table>")
    lines += [f"<p>{escape(text)}</p>" for text in (table.caption, table.unmeasured) if text]
    if table.footnotes:
        lines += ["<ol>", *(f"<li>{escape(note)}</li>" for note in table.footnotes), "</ol>"]
    return "\n".join(lines) + "\n"


def _row(row: Row, table: Table) -> Iterator[str]:
    label = escape(row.label)
    yield f'<tr><th scope="row">{label if row.method else f"<em>{label}</em>"}</th>'
    if table.has_updates:
        yield f"<td>{updates_text(row)}</td>"
    for cell, column in zip(row.cells, table.columns, strict=True):
        yield f"<td>{_cell(cell, column, table)}</td>"
    yield "</tr>"


def _cell(cell: Cell, column: Column, table: Table) -> str:
    text = escape(cell_text(cell, column))
    if cell.mark:
        tag = "strong" if cell.mark == "best" else "u"
        text = f"<{tag}>{text}</{tag}>"
    text += star_text(cell)
    if cell.footnote:
        text += f"<sup>{cell.footnote}</sup>"
    if table.differences and cell.comparison:
        text += "<br>" + escape(" ".join(difference_text(cell, column)))
    return text
