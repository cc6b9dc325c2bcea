"""A row of scores: one value of one image, or why there is none; and the tables of such rows.

Every job of a study leaves a table of these rows, and ``collect`` puts them together, so columns
are added here and nowhere else.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pandas as pd

from faithdiff.errors import RunError
from faithdiff.study.checksums import check_summed, write_summed
from faithdiff.study.files import CSV_END, unix_lines


@dataclass(frozen=True)
class ScoreRow:
    """One value of one image; the fields are the columns, in their order.

    Attributes:
        variant: The method again where it is a variant of FaithDiff, else empty.
        picture: What the image was cut from: statistics count pictures, not their crops.
        value: As text, so that every digit of the float survives; empty unless `status` is ok.
        status: ``ok``, ``unavailable: <why>`` or ``failed: <why>``: never a made-up number.
        restored_sha256: Empty where there is no restored image, or the value is of none.
        hq_sha256: Empty where there is no HQ image.
        protocol_sha256: Digest of the computation: equal digests give equal values.
    """

    method: str
    variant: str
    seed: int
    dataset: str
    level: str
    image: str
    picture: str
    metric: str
    protocol: str
    value: str
    status: str
    restored_sha256: str
    hq_sha256: str
    protocol_sha256: str


# In place of an image's name, in rows of sets and methods that a study went on without.
ALL = "*"
COLUMNS = tuple(field.name for field in fields(ScoreRow))


def write_rows(rows: Iterable[ScoreRow], file: Path) -> None:
    """Write rows in their order, in one step: a killed job leaves the old file or the new one."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator=CSV_END)
    writer.writeheader()
    writer.writerows(map(asdict, rows))
    write_summed(unix_lines(text.getvalue()), file)


def read_rows_of_job(file: Path) -> pd.DataFrame:
    """Read what :func:`write_rows` wrote, every field as its text.

    Raises:
        RunError: It is missing or has other columns.
        CorruptedError: It is not what was written.
    """
    if not file.is_file():
        raise RunError(f"{file}: is missing; make it with: faithdiff score")
    check_summed(file)
    # As text: a number that went through a float could come out with other digits.
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    if tuple(table.columns) != COLUMNS:
        raise RunError(f"{file}: has the columns {list(table.columns)}, not {list(COLUMNS)}")
    return table
