"""Refuses training folders that hold one picture at several sizes.

Archives for super-resolution come with their LR versions in folders beside the HR ones (Flickr2K,
DIV2K, LSDIR). Read together, a model would be trained to restore towards small copies. Only files
whose names belong together are opened, so 100,000 pictures cost little more than their list.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

from faithdiff.errors import UserError
from faithdiff.study.files import printable

# What names of one picture differ by: 0001.png, 0001x4.png, 0001_LR.png.
_VERSION = re.compile(r"[-_. ]*(x[1-9]|[1-9]x|hr|lr|hq|lq|gt)$", re.IGNORECASE)
SIDE = 16  # of the small grey versions that are compared
ALIKE = 0.95  # their correlation from which two files show one picture
ROUNDING = 2  # pixels of the smaller image: LR sides are rounded, or cut to a multiple before


def check_one_size(folder: Path, files: Iterable[Path]) -> None:
    """Refuse pictures that appear at several sizes.

    Args:
        folder: Named in the error.
        files: The images that are chosen from it.

    Raises:
        UserError: Names the first pair, and the way out.
    """
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(_VERSION.sub("", file.stem).casefold(), []).append(file)
    for group in groups.values():
        for large, small in _pairs(group):
            if _alike(large, small):
                both = " and ".join(
                    "{} ({} x {} px)".format(printable(file.relative_to(folder)), *_size(file))
                    for file in (large, small)
                )
                raise UserError(
                    f"{folder}: {both} are one picture at two sizes, and small copies are no HQ "
                    "images to train on; let `path` name the folder that holds the HQ images "
                    "alone, or move the copies away"
                )


def _pairs(group: list[Path]) -> Iterator[tuple[Path, Path]]:
    """Files of different size and equal shape, the larger one first."""
    sizes = {file: _size(file) for file in group} if len(group) > 1 else {}
    for pair in combinations(sizes, 2):
        small, large = sorted(pair, key=lambda file: sizes[file])
        (w, h), (width, height) = sizes[small], sizes[large]
        if (w, h) != (width, height) and w and abs(height * w / width - h) <= ROUNDING:
            yield large, small


def _size(file: Path) -> tuple[int, int]:
    """Width and height by the head of a file; (0, 0) of one that the reader will refuse."""
    try:
        with Image.open(file) as picture:
            return picture.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return (0, 0)


def _alike(one: Path, other: Path) -> bool:
    small = [_grey(one), _grey(other)]
    if any(values.std() < 1 for values in small):  # a plain area correlates with nothing
        return bool(abs(small[0] - small[1]).max() < 2)
    return bool(np.corrcoef(small[0].ravel(), small[1].ravel())[0, 1] > ALIKE)


def _grey(file: Path) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    with Image.open(file) as picture:
        picture.draft("L", (4 * SIDE, 4 * SIDE))  # a JPEG is decoded small
        return np.asarray(picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), float)
