"""Prepares a data set: its images and ``index.csv`` with hash, caption, source and licence of each.

Scenes are drawn from seeds keyed by data set and name, so a set is the same bytes whatever the
number of workers, and the sets of a study never share a picture.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from faithdiff.config import REAL, Dataset, FolderSet, MixtureSet, PhotoSet, SceneSet
from faithdiff.data.folders import Source, cut, read_files, sources
from faithdiff.data.images import Notes, sha256_file, write_png
from faithdiff.data.outside import MISSING, contents
from faithdiff.data.photos import PHOTOS, load_photo, photo_files
from faithdiff.data.scene_words import font_files
from faithdiff.data.scenes import render_scene
from faithdiff.errors import ImageError, UserError
from faithdiff.study import seeds
from faithdiff.study.checksums import (
    check_summed,
    corrupted,
    read_checked,
    with_checksum,
    write_summed,
)
from faithdiff.study.files import write_text_atomic
from faithdiff.study.remake import command_for

# Name, image, and its picture, caption, source, licence, and what is to be noted of its file.
Picture = tuple[str, NDArray[np.uint8], dict[str, Any]]
Unit = Any  # what one call makes images from: a name, or a file of a folder
Make = Callable[[Unit], Iterable[Picture]]
Row = dict[str, Any]  # of the index, and what is noted besides
# Images and their hashes by name -> captions by name.
Captioner = Callable[[Mapping[str, Path], Mapping[str, str]], dict[str, str]]
# picture: what an image was cut from; crops of one photograph are no independent test images.
COLUMNS = ("name", "sha256", "width", "height", "picture", "caption", "source", "licence")
SOURCES = "sources.json"  # beside the index of a person's images: what they were when it was made


def prepare_dataset(
    config: Dataset,
    dataset: str,
    master_seed: int,
    folder: Path,
    workers: int = 1,
    captioner: Captioner | None = None,
    multiple: int = 1,
) -> None:
    """Write ``folder/hq/<name>.png`` and, last, ``folder/index.csv``.

    Sets of real-world images have no HQ: theirs go to ``folder/lq/real``. What was skipped or
    changed of a person's images is printed in one line.

    Args:
        config: What the set is made of.
        dataset: Its name; part of every seed.
        master_seed: The ``seed`` of the profile.
        folder: Receives the set.
        workers: Processes.
        captioner: Writes captions of the HQ images that `config` wants from a model; None: they
            stay empty (test sets are captioned by their LQ images, see `faithdiff caption`).
        multiple: Images are cut on the right and below until it divides their sides. For a set
            that is degraded this is the scale, as is common in this field: then whatever is made
            from an LQ image has the size of its HQ image.

    Raises:
        UserError: A folder set has no images, or more photographs are asked for than there are.
    """
    notes = Notes()
    units, make = _plan(config, dataset, master_seed, notes)
    before = source_hashes(config)  # a file that changes from here on is found changed
    real = isinstance(config, FolderSet) and config.lq_only
    images = folder / "lq" / REAL if real else folder / "hq"
    write = partial(_write, make, images, multiple)
    parts = tqdm(_each(write, units, workers), f"prepare {dataset}", len(units), unit="image")
    rows: list[Row] = []
    for unit, made in zip(units, parts, strict=True):
        rows += made
        if not made:
            notes.add("skipped, smaller than a crop", unit.file.name)
    if not rows:
        raise UserError(f"data set {dataset}: every image is smaller than a crop (`crops.size`)")
    for row in rows:
        for what in row["notes"]:
            notes.add(what, row["file"])
    if said := notes.line():
        print(f"prepare {dataset}: {said}", flush=True)
    index = pd.DataFrame(rows).sort_values("name")
    kept = {images / f"{name}.png" for name in index["name"]}
    for stale in set(images.glob("*.png")) - kept:
        stale.unlink()
    if captioner is not None:
        asked = index["asked"] == "llava"
        files = {name: images / f"{name}.png" for name in index.loc[asked, "name"]}
        hashes = dict(zip(index["name"], index["sha256"], strict=True))
        index.loc[asked, "caption"] = index.loc[asked, "name"].map(captioner(files, hashes))
    if isinstance(config, FolderSet | MixtureSet):
        record = json.dumps(with_checksum({"files": before}), indent=1, ensure_ascii=False)
        write_text_atomic(record + "\n", folder / SOURCES)
    table = index[list(COLUMNS)].to_csv(index=False, lineterminator="\n")
    write_summed(table, folder / "index.csv")


def source_hashes(config: Dataset) -> dict[str, str]:
    """sha256 of every file outside of the study that decides a set, by a name for it.

    The pictures, captions and scores of a folder; for what ships, the files inside packages.
    """
    if isinstance(config, FolderSet | MixtureSet):
        files = read_files(config)
    elif isinstance(config, PhotoSet):
        files = photo_files(config.count)
    else:
        files = font_files()
    found = contents(files.values())
    return {name: found[file] for name, file in files.items()}


def changed_sources(config: Dataset, folder: Path) -> list[str]:
    """How the files of a person's folder differ from those that a set was prepared from.

    Nothing where they are not here at all, as in a study that was copied without them.

    Args:
        config: What the set is made of.
        folder: Of the prepared set.

    Raises:
        CorruptedError: The record is corrupted.
    """
    file, now = folder / SOURCES, source_hashes(config)
    if not file.is_file() or set(now.values()) <= {MISSING}:
        return []
    before = read_checked(file)["files"]
    added = dict.fromkeys(now.keys() - before.keys(), "added")
    removed = dict.fromkeys(before.keys() - now.keys(), "removed")
    changed = {n: "changed" for n in before.keys() & now.keys() if before[n] != now[n]}
    return [
        f"data set {folder.name}: {name}: {what} since prepared"
        for name, what in sorted({**added, **removed, **changed}.items())
    ]


def read_index(folder: Path) -> pd.DataFrame:
    """Read ``index.csv`` of a prepared data set, one row per image, sorted by name.

    Raises:
        UserError: It is missing.
        CorruptedError: It is not what ``faithdiff prepare`` wrote, or no index.
    """
    file = folder / "index.csv"
    if not file.is_file():
        raise UserError(f"{file}: is missing; make it with: {command_for(file)}")
    check_summed(file)
    index = pd.read_csv(file, dtype=str, keep_default_na=False)
    check_names(file, index.get("name", []))
    return index


def check_names(index: Path, names: Iterable[str]) -> None:
    """Refuse names that would lead out of the folder of the images.

    Raises:
        CorruptedError: Names the index and the name.
    """
    for name in names:
        if name in ("", ".", "..") or name != Path(name).name or "\0" in name:
            raise corrupted(index, f"{name!r} is no name of an image")


def _each(
    write: Callable[[Unit], list[Row]], units: list[Unit], workers: int
) -> Iterator[list[Row]]:
    if workers == 1:
        yield from map(write, units)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(write, units, chunksize=8)


def _write(make: Make, folder: Path, multiple: int, unit: Unit) -> list[Row]:
    rows: list[Row] = []
    for name, image, about in make(unit):
        source, notes = about["source"], list(about.get("notes", ()))
        height, width = (side - side % multiple for side in image.shape[:2])
        if (height, width) != image.shape[:2]:
            whole = f"{image.shape[1]} x {image.shape[0]}"
            if not height or not width:
                raise ImageError(f"{source}: of {whole} px, each side needs {multiple} at least")
            image = np.ascontiguousarray(image[:height, :width])
            source = f"{source}; {whole} cut to {width} x {height} px"
            notes.append(f"cut to a multiple of {multiple} px")
        file = folder / f"{name}.png"
        write_png(image, file)
        made = {"name": name, "sha256": sha256_file(file), "width": width, "height": height}
        rows.append({"asked": "", "file": name, **about, **made, "source": source, "notes": notes})
    return rows


def _plan(config: Dataset, dataset: str, master_seed: int, notes: Notes) -> tuple[list[Unit], Make]:
    """What a set is made from, and what makes its images from each of them."""
    if isinstance(config, SceneSet):
        names: list[Unit] = [f"scene-{index:05d}" for index in range(config.count)]
        return names, partial(_scene, config.size, dataset, master_seed)
    if isinstance(config, PhotoSet):
        if config.count > len(PHOTOS):
            raise UserError(
                f"data set {dataset}: {config.count} photographs asked for, {len(PHOTOS)} ship"
            )
        return [photo.name for photo in PHOTOS[: config.count]], partial(_photo, config.size)
    return [*sources(config, notes)], partial(_folder, dataset, master_seed)


def _scene(size: int, dataset: str, master_seed: int, name: str) -> list[Picture]:
    scene = render_scene(seeds.numpy_rng(master_seed, "scene", dataset, name), size)
    source = f"procedural, seed key ('scene', '{dataset}', '{name}')"
    about = {"picture": name, "caption": scene.caption, "source": source, "licence": "Apache-2.0"}
    return [(name, scene.image, about)]


def _photo(size: int, name: str) -> list[Picture]:
    photo = next(photo for photo in PHOTOS if photo.name == name)
    about = {
        "picture": photo.file,
        "caption": photo.caption,
        "source": photo.source,
        "licence": photo.licence,
    }
    return [(name, load_photo(photo, size), about)]


def _folder(dataset: str, master_seed: int, source: Source) -> Iterator[Picture]:
    config = source.config
    about = {
        "picture": source.name,
        "caption": source.caption,
        "licence": config.licence,
        "asked": config.captions,
        "file": source.file.name,
    }
    for part in cut(source, dataset, master_seed):
        yield part.name, part.pixels, {**about, "source": part.place, "notes": part.changes}
