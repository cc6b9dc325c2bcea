"""So that `python -m faithdiff.cli` is the command line, as accelerate starts it."""

from faithdiff.cli import main

main()
