"""One of the processes of a training that :mod:`faithdiff.train.launch` started.

The launcher takes every exit code but 0 for a failure of all. A pause is none: it is written down
for the command that waits, which exits with the code for it.
"""

from __future__ import annotations

import sys

from faithdiff.cli import app, stop
from faithdiff.cli.terminal import write_on_any_terminal
from faithdiff.errors import FaithDiffError, Paused
from faithdiff.study.files import of_surroundings, write_text_atomic
from faithdiff.train.launch import PAUSED
from faithdiff.train.processes import launched_first


def main() -> None:
    """Run a verb of the command line in this process."""
    write_on_any_terminal(sys.stdout, sys.stderr)
    try:
        app()
    except Paused as pause:
        if launched_first():
            write_text_atomic(f"{pause}\n", pause.state.parent / PAUSED)
    except FaithDiffError as error:
        stop(error)
    except OSError as error:
        if (found := of_surroundings(error)) is None:
            raise
        stop(found)


if __name__ == "__main__":
    main()
