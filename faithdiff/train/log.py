"""The log of a training, ``training.csv``: what a row of it says, and what writes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict


class LogRow(TypedDict):
    """A row of the log; plain, as it is kept in the resumable state, too."""

    phase: str
    step: int
    loss: float  # mean since the row before
    learning_rate: float
    seconds: float  # since the first update of the phase


def write_log(log: Sequence[LogRow], file: Path) -> None:
    """Write ``training.csv``."""
    import pandas as pd  # here: the loop itself must run where only torch and diffusers are

    pd.DataFrame(list(log)).to_csv(file, index=False, lineterminator="\n")
