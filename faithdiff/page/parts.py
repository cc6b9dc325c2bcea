"""The files beside the code that make the page: its template, its style and its scripts."""

from __future__ import annotations

from pathlib import Path

from faithdiff.config import digest
from faithdiff.study.provenance import file_digest

HERE = Path(__file__).parent
STATIC = ("page.css", "page.js", "explorer.js")
PAGE = "index.html"


def page_digest() -> str:
    """Hash of the template, the style and the scripts, which no import leads to."""
    files = [HERE / f"{PAGE}.jinja", *(HERE / name for name in STATIC)]
    return digest([file_digest(file) for file in files])
