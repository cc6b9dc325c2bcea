"""Lists of photographs in Debian packages that do not exist."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

from faithdiff.data.photographs import Photograph


def photograph(name: str, **changes: str) -> Photograph:
    whole = Photograph(
        name=name,
        package="stamps",
        version="1.0-1",
        path=f"usr/share/{name}.png",
        span="",
        sha256="0" * 64,
        kind="photograph",
        part="training",
        licence="CC0-1.0",
        author="A. Photographer",
        origin="",
        caption=f"a picture of {name}",
    )
    return dataclasses.replace(whole, **changes)  # type: ignore[arg-type]


def write_list(file: Path, photos: list[Photograph]) -> Path:
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [field.name for field in dataclasses.fields(Photograph)])
        writer.writeheader()
        writer.writerows(map(dataclasses.asdict, photos))
    return file
