"""Sections as text for a terminal, Markdown for a pull request, and one HTML page."""

from __future__ import annotations

import base64
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader

from faithdiff.audit.sections import AuditSection
from faithdiff.errors import UserError
from faithdiff.report.render import markdown_escape
from faithdiff.study.files import unwritable

COMMENT_LIMIT = 65_536  # characters of a comment on a pull request
_ROOM = 400  # characters kept for the statement that something was left out


Files = Mapping[str, Path]  # caption of a picture -> where it was written


def write_pictures(sections: list[AuditSection], folder: Path) -> Files:
    """Write the pictures of a report as PNG files, numbered in their order.

    Raises:
        UserError: The folder cannot be written.
    """
    pictures = [picture for section in sections for picture in section.pictures]
    files = {caption: folder / f"{i:02}.png" for i, (caption, _) in enumerate(pictures, 1)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for caption, content in pictures:
            files[caption].write_bytes(content)
    except OSError as error:
        raise UserError(str(unwritable(folder, error))) from None
    return files


def to_terminal(sections: list[AuditSection], files: Files | None = None) -> str:
    """Plain text with aligned columns."""
    return "\n".join(_plain(section, files or {}) for section in sections)


def _plain(section: AuditSection, files: Files) -> str:
    lines = [section.title, "=" * len(section.title), *map(_printable, section.lines)]
    if section.rows:
        table = [section.head, *(tuple(map(_printable, row)) for row in section.rows)]
        widths = [max(len(row[i]) for row in table) for i in range(len(section.head))]
        lines.append("")
        lines += [
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
            for row in table
        ]
    lines += [
        f"{files[caption]}: {_printable(caption)}"
        for caption, _ in section.pictures
        if caption in files
    ]
    return "\n".join(lines) + "\n"


def _printable(text: str) -> str:
    """Without control characters: a name from a file must not steer the terminal."""
    return "".join("?" if unicodedata.category(c) == "Cc" else c for c in text)


def to_markdown(
    sections: list[AuditSection], limit: int = COMMENT_LIMIT, files: Files | None = None
) -> str:
    """GitHub-flavoured Markdown of at most `limit` characters; says so where it is cut."""
    lines = [line for section in sections for line in _markdown(section, files or {})]
    text = "\n".join(lines) + "\n"
    if len(text) <= limit:
        return text
    # Cut at whole lines from the end, where the long table of single cells is: a forge refuses a
    # longer comment, and then nobody would see any of it.
    kept, room = [], limit - _ROOM
    for line in lines:
        room -= len(line) + 1
        if room < 0:
            break
        kept.append(line)
    left = sum(line.startswith("| ") for line in lines[len(kept) :])
    kept += ["", f"**Cut here**: {len(lines) - len(kept)} more lines ({left} of them of tables) do "
             f"not fit into the {limit:,} characters of a comment. The whole report: the same "
             "command with `--format html`, or `--only-changed` for less.", ""]  # fmt: skip
    return "\n".join(kept)


def _markdown(section: AuditSection, files: Files) -> Iterable[str]:
    yield f"### {markdown_escape(section.title)}"
    yield ""
    yield from (f"- {_literal(line)}" for line in section.lines)
    if section.rows:
        yield ""
        yield _pipes(section.head)
        yield "|" + " --- |" * len(section.head)
        yield from (_pipes(map(_literal, row)) for row in section.rows)
    for caption, _ in section.pictures:
        if caption in files:
            yield ""
            yield f"![{_literal(caption)}]({quote(files[caption].as_posix())})"
    yield ""


def _literal(text: str) -> str:
    """As it is: no markup, and no @name or #number that a forge would link or notify."""
    escaped = markdown_escape(_printable(text).replace("`", "'"))
    return escaped.replace("@", "@\N{ZERO WIDTH SPACE}").replace("#", "#\N{ZERO WIDTH SPACE}")


def _pipes(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def to_html(title: str, sections: list[AuditSection]) -> str:
    """One page that needs nothing beside it; every text is escaped, every picture inside."""
    folder = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=folder, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["base64"] = lambda content: base64.b64encode(content).decode()
    return environment.get_template("page.html.jinja").render(title=title, sections=sections)
