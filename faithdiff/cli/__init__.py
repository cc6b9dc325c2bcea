"""The command line: one verb for each rule of the workflow, and a few for people."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from faithdiff.cli.app import app
from faithdiff.cli.external import baseline_check, baseline_prepare, method_check
from faithdiff.cli.models import bench_sampler, export, fetch, import_, prior_card, ship_prior
from faithdiff.cli.pictures import restore
from faithdiff.cli.results import (
    audit,
    claims,
    deviations,
    explain,
    figures,
    manifest,
    pull,
    report,
    table,
    tables,
    verify,
    version_study,
)
from faithdiff.cli.study import (
    bench,
    cache,
    caption,
    collect,
    degrade,
    doctor,
    heldout,
    plan,
    prepare,
    pretrain,
    restore_sets,
    score,
    train,
    train_prior,
)
from faithdiff.cli.terminal import write_on_any_terminal
from faithdiff.errors import FaithDiffError
from faithdiff.study.files import of_surroundings

__all__ = [
    "app",
    "audit",
    "baseline_check",
    "baseline_prepare",
    "bench",
    "bench_sampler",
    "cache",
    "caption",
    "claims",
    "collect",
    "degrade",
    "deviations",
    "doctor",
    "errors_as_messages",
    "explain",
    "export",
    "fetch",
    "figures",
    "heldout",
    "import_",
    "main",
    "manifest",
    "method_check",
    "plan",
    "prepare",
    "pretrain",
    "prior_card",
    "pull",
    "report",
    "restore",
    "restore_sets",
    "score",
    "ship_prior",
    "table",
    "tables",
    "train",
    "train_prior",
    "verify",
    "version_study",
]


def main() -> None:
    """Run the command line; a user's error exits with 2, a failed run with 1, a pause with 75."""
    with errors_as_messages():
        app()


@contextmanager
def errors_as_messages() -> Iterator[None]:
    """Print on any terminal, and end with a message instead of a traceback."""
    write_on_any_terminal(sys.stdout, sys.stderr)
    try:
        yield
    except FaithDiffError as error:
        stop(error)
    except OSError as error:
        if (found := of_surroundings(error)) is None:
            raise
        stop(found)


def stop(error: FaithDiffError) -> NoReturn:
    """Say what went wrong, without a traceback, and exit."""
    print(f"faithdiff: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
