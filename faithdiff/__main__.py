"""The command ``faithdiff``, also as ``python -m faithdiff``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from faithdiff.study import warm


def main() -> None:
    """Run the command line, in this process or as a fork of the warm one of a workflow."""
    # Before the command line is imported, which takes longer than all of this.
    if (code := warm.ask()) is not None:
        sys.exit(code)
    if sys.argv[1:2] != [warm.VERB]:
        _run(os.getpid())
        return
    child = warm.serve(Path(sys.argv[2]))
    child.do(lambda: _run(child.command))


def _run(command: int) -> None:
    from faithdiff.study.usage import measured

    with measured(command):
        from faithdiff.cli import main as run

        run()


if __name__ == "__main__":
    main()
