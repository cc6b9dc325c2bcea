"""What was recorded of the images of a dataset when they were written, and whether it holds.

``index.csv`` has the hash of each HQ image, ``degradation.jsonl`` of each LQ image. Whoever reads
an image to train, restore or score holds it against these first.
"""

from __future__ import annotations

import json
from pathlib import Path

from faithdiff.data.datasets import read_index
from faithdiff.study.checksums import check_file, check_summed, corrupted

LOG = "degradation.jsonl"


def hq_hashes(folder: Path) -> dict[str, str]:
    """sha256 of the HQ images by name; empty where the index has none.

    Args:
        folder: Of the dataset.
    """
    index = read_index(folder)
    return {} if "sha256" not in index else dict(zip(index["name"], index["sha256"], strict=True))


def pictures(folder: Path) -> dict[str, str]:
    """The picture that each image was cut from, by the image's name; itself where none is named.

    Args:
        folder: Of the dataset.
    """
    index = read_index(folder)
    found = index["picture"] if "picture" in index else index["name"]
    return dict(zip(index["name"], found, strict=True))


def lq_hashes(folder: Path) -> dict[str, str]:
    """sha256 of the LQ images of a level by name; empty where nothing was logged.

    Args:
        folder: ``data/<profile>/<dataset>/lq/<level>``.

    Raises:
        CorruptedError: The log is not what ``faithdiff degrade`` wrote.
    """
    file = folder / LOG
    if not file.is_file():
        return {}
    check_summed(file)
    try:
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        return {str(line["name"]): str(line["lq_sha256"]) for line in lines}
    except (ValueError, KeyError, TypeError):
        raise corrupted(file, "is corrupted: is not made of JSON objects") from None


def check_hq(file: Path, hashes: dict[str, str]) -> None:
    """Hold ``<dataset>/hq/<name>.png`` against :func:`hq_hashes`.

    Raises:
        CorruptedError: It is missing or corrupted.
    """
    check_file(file, hashes.get(file.stem))


def check_lq(file: Path, hashes: dict[str, str]) -> None:
    """Hold ``<dataset>/lq/<level>/<name>.png`` against :func:`lq_hashes`.

    Raises:
        CorruptedError: It is missing or corrupted.
    """
    check_file(file, hashes.get(file.stem))
