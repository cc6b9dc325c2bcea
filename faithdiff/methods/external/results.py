"""Takes what a method left in a folder: each image is a result, or there is a reason why not.

Nothing is repaired: an image of another size is not resized, a missing one not replaced.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from faithdiff.data.captions import closest
from faithdiff.data.images import read_image, read_result
from faithdiff.data.listing import SUBFOLDER, scan
from faithdiff.errors import ImageError
from faithdiff.methods.method import Item, Keep


def images_in(folder: Path, items: Sequence[Item]) -> dict[str, Path]:
    """Image files of a folder by name; none where the folder is empty or missing.

    A name in other code points (macOS) than that of its item is the same name.
    """
    found = scan(folder) if folder.is_dir() else None
    if not found or not found.images:
        return {}
    spelt = {unicodedata.normalize("NFC", item.name): item.name for item in items}
    images = found.by_name().items()
    return {spelt.get(unicodedata.normalize("NFC", name), name): file for name, file in images}


def strangers(found: Mapping[str, Path], items: Sequence[Item]) -> str:
    """Say which files belong to no item, and how their names differ; empty where none is."""
    names = {item.name for item in items}
    extra = sorted(found.keys() - names)
    if not extra:
        return ""
    said = f"{found[extra[0]]} belongs to no LQ image ({len(extra)} such)"
    # Many programs mark their results, all in one way.
    ends = {_affix(name, names) for name in extra}
    if len(ends) == 1 and (affix := ends.pop()):
        return f"{said}: each name has {affix!r} more than that of an LQ image"
    return f"{said}{closest(extra[0], names)}"


def _affix(name: str, names: Iterable[str]) -> str:
    """What a name has before or after the longest of the names that is its beginning or end."""
    within = [each for each in names if name.startswith(each) or name.endswith(each)]
    longest = max(within, key=len, default=name)
    start = name.startswith(longest)
    return name.removeprefix(longest) if start else name.removesuffix(longest)


def other_files(folder: Path) -> str:
    """What a folder holds that is no image in its place, for the middle of a message."""
    if not folder.is_dir():
        return ""
    listing = scan(folder)
    for path, why in listing.skipped:
        name = os.path.relpath(path, folder)
        if why == SUBFOLDER and (inside := scan(path, recursive=True).images):
            first = os.path.relpath(inside[0], folder)
            return f"; but {first} ({len(inside)} such): results belong directly into the folder"
        if why != SUBFOLDER:
            return f"; but {name} ({why})"
    return ""


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
    failures, plain = {}, list[Path]()
    for item in items:
        outcome = inspect(file := found.get(item.name), item, scale, absent)
        if isinstance(outcome, str):
            failures[item.name] = outcome
            continue
        keep(item, outcome)
        # A NaN becomes black where a program writes it into a picture. Nobody can tell it from a
        # black result, so that it is scored, too.
        if file and np.ptp(outcome, axis=(0, 1)).max() == 0 < np.ptp(read_image(item.lq)):
            plain.append(file)
    if plain:
        more = f" (and {len(plain) - 1} more)" if len(plain) > 1 else ""
        print(
            f"warning: {plain[0]}{more}: has one colour throughout, and its LQ image has not; if "
            "the method computed NaN (often so in fp16), it is to be mended there",
            file=sys.stderr,
            flush=True,
        )
    return failures


def inspect(file: Path | None, item: Item, scale: int, absent: str) -> NDArray[np.uint8] | str:
    """Read one result, or say in a line what is wrong with it."""
    if file is None:
        return absent
    try:
        image = read_result(file)
    except ImageError as error:
        return one_line(str(error).replace(f"{file}: ", "", 1))
    height, width = (scale * side for side in read_image(item.lq).shape[:2])
    if image.shape[:2] != (height, width):
        return f"size {image.shape[1]}x{image.shape[0]}, not {width}x{height}"
    return image


def one_line(text: str, length: int = 160) -> str:
    """Shorten a message until it fits a row of a table."""
    return " ".join(text.split())[:length]
