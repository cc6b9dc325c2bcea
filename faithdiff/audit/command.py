"""What the verbs `audit` and `explain` do: gather, print, write."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from faithdiff.audit.explain import explain, explanation_json, explanation_sections
from faithdiff.audit.history import History, history, history_sections
from faithdiff.audit.printing import to_html, to_markdown, to_terminal, write_pictures
from faithdiff.audit.records import history_json, to_json
from faithdiff.audit.report import NO_REGRESSION, Request, audit
from faithdiff.audit.sections import AuditSection, sections
from faithdiff.errors import RunError, UserError
from faithdiff.study.files import unreadable, write_text_atomic

Format = Literal["terminal", "markdown", "json", "html"]
_HEAD = 1000  # bytes of a file, of which the following are the first
# How a report begins: as text, Markdown, a page, JSON.
_OWN = re.compile(
    rb"(?:Audit|History of [^\n]*)\n=|### (?:Audit|History of )"
    rb"|<!doctype html>.*<title>(?:Audit|History) of "
    rb'|\{\s*"profile": "[^"]*",\s*"(?:old|commits)": [\{\[]',
    re.DOTALL,
)


def run_audit(
    request: Request,
    root: Path,
    form: Format,
    only_changed: bool = False,
    pictures: Path | None = None,
) -> tuple[str, int]:
    """Audit two revisions: the report, and the exit code that sums it up."""
    # Crops are looked for only where a form can show them: DVC's cache takes a second to open.
    found = audit(request, root, with_crops=form == "html" or pictures is not None)
    title = f"Audit of {found.profile}: {found.old.title} → {found.new.title}"
    text = _print(
        form, title, sections(found, only_changed), lambda: to_json(found, only_changed), pictures
    )
    return text, found.exit_code


def run_history(
    request: Request,
    count: int,
    root: Path,
    form: Format,
    only_changed: bool = False,
    pictures: Path | None = None,
) -> tuple[str, int]:
    """Follow metrics over the last commits that changed the results."""
    found = history(request, count, root)
    parts = history_sections(found, only_changed)
    if form == "html" or pictures is not None:
        parts = [_with_plot(parts[0], found)]
    title = f"History of {found.profile}"
    return _print(form, title, parts, lambda: history_json(found), pictures), NO_REGRESSION


def run_explain(
    table: str, words: list[str], profile: str, revision: str, root: Path, form: Format
) -> str:
    """Explain a cell of a printed table."""
    found = explain(table, words, profile, revision, root)
    parts = explanation_sections(found)
    return _print(form, parts[0].title, parts, lambda: explanation_json(found), None)


def check_output(output: Path | None) -> None:
    """Refuse to write over a file that is not empty and no report of this command, in any form.

    Raises:
        UserError: There is such a file; it stays as it is.
    """
    if output is None or not output.is_file():
        return
    try:
        with output.open("rb") as stream:
            head = stream.read(_HEAD)
    except OSError as error:
        raise UserError(unreadable(output, error, "give another --output")) from None
    if head and not _OWN.match(head):
        raise UserError(
            f"{output}: is there already, and is no report that `faithdiff audit` wrote; give "
            "another --output, or remove it"
        )


def deliver(text: str, output: Path | None, say: Callable[[str], object]) -> None:
    """Print a report, or write it to a file.

    Raises:
        UserError: It cannot be written. Not a failed run: 1 would be taken for a regression.
    """
    if output is None:
        say(text)
        return
    try:
        write_text_atomic(text, output)
    except RunError as error:
        raise UserError(str(error)) from None


def _with_plot(section: AuditSection, found: History) -> AuditSection:
    from faithdiff.audit.history_plot import history_figure, to_png

    return replace(
        section, pictures=[("Dotted lines: change points.", to_png(history_figure(found)))]
    )


def _print(
    form: Format,
    title: str,
    parts: list[AuditSection],
    as_json: Callable[[], str],
    pictures: Path | None,
) -> str:
    if form == "json":
        return as_json()
    # JSON has no pictures; the page has them inside, whether or not they are written beside it as
    # well.
    files = write_pictures(parts, pictures) if pictures is not None else {}
    if form == "html":
        return to_html(title, parts)
    return to_markdown(parts, files=files) if form == "markdown" else to_terminal(parts, files)
