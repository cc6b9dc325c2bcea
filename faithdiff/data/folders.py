"""Images of a person's folder as a dataset: chosen by scores, resized, cut into crops.

Everything is drawn by seeds keyed by dataset and name, so that neither the order of the files nor
the number of workers changes a byte.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from faithdiff.config import Crops, FolderSet, MixtureSet, Quality
from faithdiff.data.captions import Captions, closest, file_captions, strays
from faithdiff.data.images import read_picture
from faithdiff.data.listing import Notes, scan
from faithdiff.errors import UserError
from faithdiff.study import seeds
from faithdiff.study.files import printable, read_text

STRAY = "no caption of an image (they are captions.csv, <image>.txt or <image>.json)"
Pixels = NDArray[np.uint8]
Box = tuple[int, int]  # top, left
_DECIMAL = re.compile(r"[-+]?\d+([.,]\d*)?([eE][-+]?\d+)?|score", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """One image file of a folder, and what is to be made of it."""

    name: str
    file: Path
    caption: str
    config: FolderSet


@dataclass(frozen=True)
class CutImage:
    """An image that was made from a file: all of it or a crop."""

    name: str
    pixels: Pixels
    place: str  # where it is from, in words
    changes: tuple[str, ...]  # of the file's values, as they were read


def sources(config: FolderSet | MixtureSet, notes: Notes | None = None) -> list[Source]:
    """The images of a folder, or of those of a mixture, sorted by name.

    Args:
        notes: Receives what was skipped.

    Raises:
        UserError: A folder is missing or empty, an image has no score, or names clash.
    """
    notes = notes or Notes()
    if isinstance(config, FolderSet):
        return _of_folder(config, "", notes)
    return [
        source
        for name, part in config.parts.items()
        if isinstance(part, FolderSet)
        for source in _of_folder(part, f"{name}-", notes)
    ]


def read_files(config: FolderSet | MixtureSet) -> dict[str, Path]:
    """Every file that decides the images of a set, by part and path below its folder.

    All files of the folder count, and not those that are images or captions today: which these are
    is decided when they are read. None where the folder is not there (yet).
    """
    if isinstance(config, MixtureSet):
        folders = {n: part for n, part in config.parts.items() if isinstance(part, FolderSet)}
        parts = {name: read_files(part) for name, part in folders.items()}
        return {f"{part}/{n}": file for part, files in parts.items() for n, file in files.items()}
    below = config.path.rglob("*") if config.recursive else config.path.glob("*")
    found = {
        printable(file.relative_to(config.path)): file
        for file in sorted(below)
        if file.is_file() and not file.name.startswith(".")
    }
    if config.quality is not None:
        found[f"quality {config.quality.scores.name}"] = config.quality.scores
    return found


def cut(source: Source, dataset: str, master_seed: int) -> Iterator[CutImage]:
    """Read an image and make what its config says.

    Nothing comes of an image that is smaller than a crop.
    """
    config, key = source.config, (dataset, source.name)
    read = read_picture(source.file)
    image, about = read.pixels, "".join(f"; {change}" for change in read.changes)
    if config.resize is not None:
        low, high = config.resize
        side = int(seeds.numpy_rng(master_seed, "resize", *key).integers(low, high + 1))
        image = _resized(image, side)
    if config.crops is None:
        yield CutImage(source.name, image, f"{source.file.name}{about}", read.changes)
        return
    rng, size = seeds.numpy_rng(master_seed, "crop", *key), config.crops.size
    for number, (top, left) in enumerate(_places(config.crops, image.shape[:2], rng)):
        pixels = np.ascontiguousarray(image[top : top + size, left : left + size])
        place = f"{source.file.name}, {size} px from {left},{top}{about}"
        yield CutImage(f"{source.name}-{number}", pixels, place, read.changes)


def crops_in(config: Crops, shape: tuple[int, int]) -> int:
    """How many crops come of an image of this height and width."""
    return len(_places(config, shape, np.random.default_rng(0)))


def _of_folder(config: FolderSet, prefix: str, notes: Notes) -> list[Source]:
    listing = scan(config.path, config.recursive)
    everything = listing.by_name()
    _check_utf8(everything.values())
    files = _good(everything, config.quality) if config.quality else everything
    chosen = sorted(files)[: config.limit]
    captions = file_captions(config.path, everything) if config.captions == "file" else Captions()
    read = {*captions.files, *([config.quality.scores] if config.quality else [])}
    skipped = [(path, why) for path, why in listing.skipped if path not in read]
    if config.captions == "file":
        stray = set(strays(config.path, read, [path for path, _ in skipped]))
        skipped = [(path, STRAY if path in stray else why) for path, why in skipped]
    notes.skip(replace(listing, skipped=skipped))
    for name in chosen if captions.files else []:
        if name not in captions.by_name:
            notes.add("without a caption", files[name].name)
    return [
        Source(prefix + name, files[name], captions.by_name.get(name, ""), config)
        for name in chosen
    ]


def _check_utf8(files: Iterable[Path]) -> None:
    """An index names the images in UTF-8, which not every file name is."""
    for file in files:
        # What is no UTF-8 in a name reaches Python as lone surrogates.
        if any("\ud800" <= character <= "\udfff" for character in str(file)):
            raise UserError(f"{printable(file)}: its name is not UTF-8; rename it")


def _good(files: Mapping[str, Path], quality: Quality) -> dict[str, Path]:
    scores = _scores(quality.scores)
    if lost := [file for file in files.values() if file.name not in scores]:
        raise UserError(
            f"{quality.scores}: has no score for {lost[0].name} (and {len(lost) - 1} more)"
            f"{closest(lost[0].name, scores)}; score them, or remove `quality`"
        )
    good = {name: file for name, file in files.items() if scores[file.name] > quality.above}
    if not good:
        raise UserError(f"{quality.scores}: no image scores above {quality.above:g}")
    return good


def _scores(file: Path) -> dict[str, float]:
    """Scores by file name; a published list may describe more images than a folder holds."""
    try:
        rows = [(name, float(number)) for name, number in _fields(read_text(file))]
    except OSError:
        raise UserError(
            f"{file}: is missing, and without scores no image can be chosen; for FFHQ: "
            "faithdiff fetch --profile paper (artifact ffhq-scores)"
        ) from None
    except (ValueError, csv.Error) as error:
        raise UserError(f"{file}: is not made of lines `name,score`: {error}") from None
    scores = dict(rows)
    for name, score in rows:
        if scores[name] != score or math.isnan(score):
            raise UserError(f"{file}: {name!r} has {score:g} and {scores[name]:g}; give one number")
    return scores


def _fields(text: str) -> list[list[str]]:
    """Name and number of each line.

    Also as a spreadsheet saves them where numbers have decimal commas: ``name;0,5``. All lines must
    be of that form, as a name may hold a semicolon.
    """
    rows = [row[:2] for row in csv.reader(io.StringIO(text, newline="")) if row]
    for mark in ";\t":
        saved = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=mark) if row]
        if saved and all(len(row) == 2 and _DECIMAL.fullmatch(row[1].strip()) for row in saved):
            rows = [[name, number.replace(",", ".")] for name, number in saved]
    if rows and [field.strip().lower() for field in rows[0]] == ["name", "score"]:
        del rows[0]
    return rows


def _resized(image: Pixels, side: int) -> Pixels:
    """Bicubic, to this shorter side."""
    height, width = image.shape[:2]
    factor = side / min(height, width)
    size = (max(round(width * factor), side), max(round(height * factor), side))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def _places(crops: Crops, shape: tuple[int, ...], rng: np.random.Generator) -> list[Box]:
    room = [side - crops.size for side in shape]
    if min(room) < 0:
        return []
    if crops.count is not None:
        drawn = [rng.integers(0, space + 1, crops.count) for space in room]
        return [(int(top), int(left)) for top, left in zip(*drawn, strict=True)]
    assert crops.stride is not None
    tops, lefts = ([*range(0, space, crops.stride), space] for space in room)
    return [(top, left) for top in tops for left in lefts]
