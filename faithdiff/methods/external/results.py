"""Takes what a method left in a folder: each image is a result, or there is a reason why not.

Nothing is repaired: an image of another size is not resized, a missing one not replaced.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from faithdiff.data.images import read_image
from faithdiff.errors import ImageError
from faithdiff.methods.method import Item, Keep


def take(
    found: Mapping[str, Path], items: Iterable[Item], scale: int, keep: Keep, absent: str
) -> dict[str, str]:
    """Keep the results among `found`; say of every other item why it has none.

    Args:
        found: Files by the name of the image.
        items: The images that were asked for.
        scale: Side of a result / side of its LQ image.
        keep: Called with each result.
        absent: The reason where there is no file.
    """
    failures = {}
    for item in items:
        outcome = inspect(found.get(item.name), item, scale, absent)
        if isinstance(outcome, str):
            failures[item.name] = outcome
        else:
            keep(item, outcome)
    return failures


def inspect(file: Path | None, item: Item, scale: int, absent: str) -> NDArray[np.uint8] | str:
    """Read one result, or say in a line what is wrong with it."""
    if file is None:
        return absent
    try:
        image = read_image(file)
    except ImageError as error:
        return one_line(str(error).replace(f"{file}: ", "", 1))
    height, width = (scale * side for side in read_image(item.lq).shape[:2])
    if image.shape[:2] != (height, width):
        return f"size {image.shape[1]}x{image.shape[0]}, not {width}x{height}"
    return image


def one_line(text: str, length: int = 160) -> str:
    """Shorten a message until it fits a row of a table."""
    return " ".join(text.split())[:length]
