"""Images of a person's folder as a data set: chosen by scores, resized, cut into crops.

Everything is drawn by seeds keyed by data set and name, so that neither the order of the files nor
the number of workers changes a byte.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from faithdiff import seeds
from faithdiff.config import Crops, FolderSet, MixtureSet, Quality
from faithdiff.data.captions import file_captions
from faithdiff.data.images import SUFFIXES, list_images, read_image
from faithdiff.errors import UserError

Pixels = NDArray[np.uint8]
Box = tuple[int, int]  # top, left


@dataclass(frozen=True)
class Source:
    """One image file of a folder, and what is to be made of it."""

    name: str
    file: Path
    caption: str
    config: FolderSet


def sources(config: FolderSet | MixtureSet) -> list[Source]:
    """The images of a set, sorted by name.

    Raises:
        UserError: A folder is missing or empty, an image has no score, or names clash.
    """
    if isinstance(config, FolderSet):
        return _of_folder(config, "")
    return [
        source for name, part in config.parts.items() for source in _of_folder(part, f"{name}-")
    ]


def read_files(config: FolderSet | MixtureSet) -> dict[str, Path]:
    """Every file that decides the images of a set, by part and path below its folder.

    All files of the folder count, and not those that are images or captions today: which these are
    is decided when they are read. None where the folder is not there (yet).
    """
    if isinstance(config, MixtureSet):
        parts = {name: read_files(part) for name, part in config.parts.items()}
        return {f"{part}/{n}": file for part, files in parts.items() for n, file in files.items()}
    below = config.path.rglob("*") if config.recursive else config.path.glob("*")
    found = {
        _shown(file.relative_to(config.path)): file
        for file in sorted(below)
        if file.is_file() and not file.name.startswith(".")
    }
    if config.quality is not None:
        found[f"quality {config.quality.scores.name}"] = config.quality.scores
    return found


def cut(source: Source, dataset: str, master_seed: int) -> Iterator[tuple[str, Pixels, str]]:
    """Read an image and make what its config says: ``(name, pixels, where it is from)``.

    Nothing comes of an image that is smaller than a crop.
    """
    config, key = source.config, (dataset, source.name)
    image = read_image(source.file)
    if config.resize is not None:
        low, high = config.resize
        side = int(seeds.numpy_rng(master_seed, "resize", *key).integers(low, high + 1))
        image = _resized(image, side)
    if config.crops is None:
        yield source.name, image, source.file.name
        return
    rng, size = seeds.numpy_rng(master_seed, "crop", *key), config.crops.size
    for number, (top, left) in enumerate(_places(config.crops, image.shape[:2], rng)):
        part = np.ascontiguousarray(image[top : top + size, left : left + size])
        yield f"{source.name}-{number}", part, f"{source.file.name}, {size} px from {left},{top}"


def _of_folder(config: FolderSet, prefix: str) -> list[Source]:
    files = _files(config)
    _check_utf8(files.values())
    if config.quality is not None:
        files = _good(files, config.quality)
    chosen = sorted(files)[: config.limit]
    captions = file_captions(config.path, files) if config.captions == "file" else {}
    return [Source(prefix + name, files[name], captions.get(name, ""), config) for name in chosen]


def _check_utf8(files: Iterable[Path]) -> None:
    """An index names the images in UTF-8, which not every file name is."""
    for file in files:
        # What is no UTF-8 in a name reaches Python as lone surrogates.
        if any("\ud800" <= character <= "\udfff" for character in str(file)):
            raise UserError(f"{_shown(file)}: its name is not UTF-8; rename it")


def _shown(file: Path) -> str:
    return os.fsencode(file).decode("utf-8", "backslashreplace")


def _files(config: FolderSet) -> dict[str, Path]:
    if not config.recursive:
        return {file.stem: file for file in list_images(config.path)}
    if not config.path.is_dir():
        raise UserError(f"{config.path}: no such folder; `faithdiff fetch` fills it, or you do")
    folders = {f.parent for f in config.path.rglob("*") if f.suffix.lower() in SUFFIXES}
    found: dict[str, Path] = {}
    for folder in sorted(folders):
        for file in list_images(folder):
            name = "-".join((*folder.relative_to(config.path).parts, file.stem))
            if name in found:
                raise UserError(f"{found[name]} and {file} would both be named {name}; rename one")
            found[name] = file
    if not found:
        raise UserError(f"{config.path}: holds no image, nor does any folder in it")
    return found


def _good(files: Mapping[str, Path], quality: Quality) -> dict[str, Path]:
    scores = _scores(quality.scores)
    if lost := [file for file in files.values() if file.name not in scores]:
        raise UserError(
            f"{quality.scores}: has no score for {lost[0].name} (and {len(lost) - 1} more); score "
            "them, or remove `quality`"
        )
    good = {name: file for name, file in files.items() if scores[file.name] > quality.above}
    if not good:
        raise UserError(f"{quality.scores}: no image scores above {quality.above:g}")
    return good


def _scores(file: Path) -> dict[str, float]:
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            return {row[0]: float(row[1]) for row in csv.reader(lines) if row}
    except OSError:
        raise UserError(
            f"{file}: is missing, and without scores no image can be chosen; for FFHQ: "
            "faithdiff fetch --profile paper (artifact ffhq-scores)"
        ) from None
    except (ValueError, IndexError) as error:
        raise UserError(f"{file}: is not made of lines `name,score`: {error}") from None


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
