"""Writes ``results/<profile>/report/``: the page, its style and scripts, and small pictures.

The folder is made under another name and takes its own in one step, so that a reader never meets
half of it. Every text from data goes through Jinja's escaping or `textContent`; the numbers reach
the scripts as JSON in which no character can end the element that holds it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from faithdiff.audit.results import load_results
from faithdiff.audit.revision import WORKING_TREE, find_revision
from faithdiff.methods.method import Study
from faithdiff.page.audited import audited
from faithdiff.page.content import page_content
from faithdiff.page.embedded import embedded
from faithdiff.page.parts import HERE, PAGE, STATIC
from faithdiff.page.pictures import Album, explorer, figures
from faithdiff.study.files import unwritable
from faithdiff.study.layout import Layout


def write_page(study: Study, root: Path) -> Path:
    """Write the report page of a finished study and return its path.

    Raises:
        UserError: The results cannot be read, or their tables are of other scores.
        RunError: The folder cannot be written.
    """
    profile, folder = study.profile, report_folder(study.layout)
    results = load_results(find_revision(WORKING_TREE, profile.profile, root), profile.profile)
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        album = Album(partial)
        shown = figures(root / study.layout.results / "figures", album)
        audit = audited(profile.profile, root)
        data = {
            **embedded(results, root),
            "explorer": explorer(study, results.scores, root, album),
            "movers": audit.movers,
        }
        text = _environment().get_template("index.html.jinja").render(
            **vars(page_content(results, root)), figures=shown, audit=audit, data=data
        )  # fmt: skip
        (partial / PAGE).write_text(text, encoding="utf-8")
        for name in STATIC:
            shutil.copyfile(HERE / name, partial / name)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    except OSError as error:
        raise unwritable(folder, error) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder / PAGE


def report_folder(layout: Layout) -> Path:
    """Where the page of a profile lies."""
    return layout.results / "report"


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["pieces"] = _pieces
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment


def _pieces(text: str) -> list[str]:
    """Split a sentence at its backticks: every second piece is code."""
    parts = text.split("`")
    return parts if len(parts) % 2 else [text]  # an unpaired backtick is itself
