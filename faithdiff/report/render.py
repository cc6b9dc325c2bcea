"""Printing a table: Markdown here, LaTeX and records (CSV, JSON) in the modules beside it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from faithdiff.report.cells import Row, Table, cell_text, difference_text, star_text, updates_text
from faithdiff.report.latex import to_latex
from faithdiff.report.records import to_cells, to_csv
from faithdiff.study.files import write_text_atomic


def write_table(table: Table, folder: Path) -> list[Path]:
    """Write the four files of a table and return their paths."""
    texts = {
        "md": to_markdown(table),
        "tex": to_latex(table),
        "csv": to_csv(table),
        "cells.json": to_cells(table),
    }
    paths = [folder / f"{table.name}.{suffix}" for suffix in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        write_text_atomic(text, path)
    return paths


def to_markdown(table: Table) -> str:
    """Print GitHub-flavoured Markdown: one pipe table per block."""
    parts = [f"<!-- written from results/{table.profile}/{table.source}; do not edit -->"]
    for block in table.blocks:
        heads = list(map(markdown_escape, table.heads))
        lines = [_pipes(heads), "|:--|" + "--:|" * (len(heads) - 1)]
        for title, rows in table.titled(block):
            if title:  # GitHub's tables have no rule within: a row that holds a heading alone
                lines.append(_pipes([f"*{markdown_escape(title)}*", *[""] * (len(heads) - 1)]))
            lines += [_pipes(_markdown_row(row, table)) for row in rows]
        parts.append(f"**{markdown_escape(block.name)}**\n\n" + "\n".join(lines))
    parts.append(markdown_escape(table.caption))
    parts += [markdown_escape(table.unmeasured)] if table.unmeasured else []
    parts += [
        f"<sup>{i}</sup> {markdown_escape(note)}" for i, note in enumerate(table.footnotes, 1)
    ]
    return "\n\n".join(parts) + "\n"


def _pipes(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def markdown_escape(text: str) -> str:
    """Literal text; what stands between backticks stays code."""
    parts = text.replace("\n", " ").split("`")
    if len(parts) % 2 == 0:  # an unpaired backtick
        parts = [r"\`".join(parts)]
    for i, part in enumerate(parts[::2]):
        parts[2 * i] = re.sub(r"([\\*_|<>\[\]&~$])", r"\\\1", part)
    return "`".join(parts)


def _markdown_row(row: Row, table: Table) -> Iterator[str]:
    label = markdown_escape(row.label)
    yield label if row.method else f"*{label}*"
    if table.has_updates:
        yield updates_text(row)
    for cell, column in zip(row.cells, table.columns, strict=True):
        text = cell_text(cell, column)
        if cell.mark:
            tag = "b" if cell.mark == "best" else "ins"
            text = f"**{text}**" if tag == "b" else f"<{tag}>{text}</{tag}>"
        text += markdown_escape(star_text(cell))
        if cell.footnote:
            text += f"<sup>{cell.footnote}</sup>"
        if table.differences and cell.comparison:
            text += "<br>" + markdown_escape(" ".join(difference_text(cell, column)))
        yield text
