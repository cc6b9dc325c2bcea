"""One of the processes of a training that :mod:`faithdiff.train.launch` started.

The launcher takes every exit code but 0 for a failure of all. A pause is none: it is written down
for the command that waits, which exits with the code for it.
"""

from __future__ import annotations

from faithdiff.cli import app, errors_as_messages
from faithdiff.errors import Paused
from faithdiff.study.files import write_text_atomic
from faithdiff.train.launch import PAUSED
from faithdiff.train.processes import launched_first


def main() -> None:
    """Run a verb of the command line in this process."""
    with errors_as_messages():
        try:
            app()
        except Paused as pause:
            if launched_first():
                write_text_atomic(f"{pause}\n", pause.state.parent / PAUSED)


if __name__ == "__main__":
    main()
