"""Prepares a dataset: its images and ``index.csv`` with hash, caption, source and licence of each.

Scenes are drawn from seeds keyed by dataset and name, so a set is the same bytes whatever the
number of workers, and the sets of a study never share a picture.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from faithdiff.config import (
    REAL,
    Dataset,
    FolderSet,
    MixtureSet,
    PackageSet,
    PhotoSet,
    SceneSet,
    parts_of,
)
from faithdiff.config.checks import RESERVED_SETS
from faithdiff.data.duplicates import check_one_size
from faithdiff.data.folders import Source, cut, read_files, sources
from faithdiff.data.images import sha256_file, write_png
from faithdiff.data.listing import Notes
from faithdiff.data.outside import MISSING, contents
from faithdiff.data.photographs import (
    PHOTOGRAPHS,
    Photograph,
    cut_photograph,
    lacking,
    photographs_of,
)
from faithdiff.data.photos import PHOTOS, Photo, load_photo, photo_files
from faithdiff.data.scenes.render import render_scene
from faithdiff.data.scenes.words import font_files
from faithdiff.errors import ImageError, UserError
from faithdiff.study import seeds
from faithdiff.study.checksums import (
    check_summed,
    corrupted,
    read_checked,
    with_checksum,
    write_summed,
)
from faithdiff.study.files import CSV_END, printable, unix_lines, write_text_atomic
from faithdiff.study.progress import ProgressBar
from faithdiff.study.remake import command_for


@dataclass(frozen=True)
class Described:
    """The image file that a captioner looks at."""

    file: Path
    sha256: str


@dataclass(frozen=True)
class NewImage:
    """An image of a set before it is written, and what is known of it.

    Attributes:
        picture: What it was cut from: crops of one photograph are no independent test images.
        asked: Who is to caption it, if anybody.
        described: What they look at; None: the image itself.
        file: Of a person's folder, for notes.
        notes: What was changed of the file's values as it was read.
    """

    name: str
    pixels: NDArray[np.uint8]
    picture: str
    caption: str
    source: str
    licence: str
    asked: str = ""
    described: Described | None = None
    file: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unit:
    """What one call makes images from, so that workers share a set: a scene, or a file.

    ``without`` says why, where it makes none.
    """

    name: str
    make: Callable[[], Iterable[NewImage]]
    without: str = "skipped, smaller than a crop"


@dataclass(frozen=True)
class IndexRow:
    """One image of a set; the fields are the columns of ``index.csv``, in their order."""

    name: str
    sha256: str
    width: int
    height: int
    picture: str
    caption: str
    source: str
    licence: str


@dataclass(frozen=True)
class Written:
    """An image on disk: its row, and what is said besides."""

    row: IndexRow
    asked: str
    described: Described | None
    file: str
    notes: tuple[str, ...]


COLUMNS = tuple(field.name for field in fields(IndexRow))
# Images and their hashes by name -> captions by name.
Captioner = Callable[[Mapping[str, Path], Mapping[str, str]], dict[str, str]]
SOURCES = "sources.json"  # beside the index of a person's images: what they were when it was made


def prepare_dataset(
    config: Dataset,
    dataset: str,
    master_seed: int,
    folder: Path,
    workers: int = 1,
    captioner: Captioner | None = None,
    multiple: int = 1,
    least: int = 1,
    equal: bool = False,
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
        least: Pixels that each side needs, since what is made of the images later needs them.
        equal: All images must have one size, as those of a training.

    Raises:
        UserError: A folder set has no images, more photographs are asked for than there are, or
            a folder to train on holds one picture at several sizes.
        ImageError: Images are too small or not equal: all of them are named.
    """
    notes = Notes()
    units = _plan(config, dataset, master_seed, notes)
    before = _folder_hashes(config)  # a file that changes from here on is found changed
    real = isinstance(config, FolderSet) and config.lq_only
    images = folder / "lq" / REAL if real else folder / "hq"
    write = partial(_write, images, multiple)
    parts = ProgressBar(
        _each(write, units, workers), f"prepare {dataset}", len(units), unit="image"
    )
    written: list[Written] = []
    for unit, made in zip(units, parts, strict=True):
        written += made
        if not made:
            notes.add(unit.without, unit.name)
    if not written:
        packages = all(isinstance(part, PackageSet) for part in parts_of(config).values())
        small, soft = "is smaller than a crop (`crops.size`)", "has too little detail (`detail`)"
        raise UserError(f"dataset {dataset}: every image {soft if packages else small}")
    _check_sizes(written, dataset, least, equal)
    for each in written:
        for what in each.notes:
            notes.add(what, each.file)
    if said := notes.line():
        print(f"prepare {dataset}: {said}", flush=True)
    index = pd.DataFrame([asdict(each.row) for each in written]).sort_values("name")
    kept = {images / f"{name}.png" for name in index["name"]}
    for stale in set(images.glob("*.png")) - kept:
        stale.unlink()
    if captioner is not None:
        _caption(index, written, images, captioner)
    if before:
        record = json.dumps(with_checksum({"files": before}), indent=1, ensure_ascii=False)
        write_text_atomic(record + "\n", folder / SOURCES)
    table = index.to_csv(index=False, lineterminator=CSV_END)
    write_summed(unix_lines(table), folder / "index.csv")


def _caption(
    index: pd.DataFrame, written: Iterable[Written], images: Path, captioner: Captioner
) -> None:
    """Let a model caption the images that want it, in the index itself; other captions stay."""
    # Crops of one image share its hash, so that it is described once.
    looks = {
        each.row.name: each.described or Described(images / f"{each.row.name}.png", each.row.sha256)
        for each in written
        if each.asked == "llava"
    }
    files = {name: look.file for name, look in looks.items()}
    hashes = {name: look.sha256 for name, look in looks.items()}
    asked = index["name"].isin(looks)
    index.loc[asked, "caption"] = index.loc[asked, "name"].map(captioner(files, hashes))


def source_hashes(config: Dataset) -> dict[str, str]:
    """sha256 of every file outside of the study that decides a set, by a name for it.

    The pictures, captions and scores of a folder; for what ships, the files inside packages; of
    listed photographs the list, which has their hashes.
    """
    if isinstance(config, MixtureSet):
        parts = {name: source_hashes(part) for name, part in config.parts.items()}
        return {f"{name}/{n}": found for name, part in parts.items() for n, found in part.items()}
    if isinstance(config, FolderSet):
        return _folder_hashes(config)
    if isinstance(config, PhotoSet):
        return _hashes(photo_files(config.count))
    return _hashes({"list": config.files} if isinstance(config, PackageSet) else font_files())


def _hashes(files: Mapping[str, Path]) -> dict[str, str]:
    found = contents(files.values())
    return {name: found[file] for name, file in files.items()}


def _folder_hashes(config: Dataset) -> dict[str, str]:
    """sha256 of every file of a person's folders, by a name for it."""
    return _hashes(read_files(config)) if isinstance(config, FolderSet | MixtureSet) else {}


def changed_sources(config: Dataset, folder: Path) -> list[str]:
    """How the files of a person's folder differ from those that a set was prepared from.

    Nothing where they are not here at all, as in a study that was copied without them.

    Args:
        config: What the set is made of.
        folder: Of the prepared set.

    Raises:
        CorruptedError: The record is corrupted.
    """
    file, now = folder / SOURCES, _folder_hashes(config)
    if not file.is_file() or set(now.values()) <= {MISSING}:
        return []
    before = read_checked(file)["files"]
    added = dict.fromkeys(now.keys() - before.keys(), "added")
    removed = dict.fromkeys(before.keys() - now.keys(), "removed")
    changed = {n: "changed" for n in before.keys() & now.keys() if before[n] != now[n]}
    return [
        f"dataset {folder.name}: {name}: {what} since prepared"
        for name, what in sorted({**added, **removed, **changed}.items())
    ]


def read_index(folder: Path) -> pd.DataFrame:
    """Read ``index.csv`` of a prepared dataset, one row per image, sorted by name.

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
    write: Callable[[Unit], list[Written]], units: list[Unit], workers: int
) -> Iterator[list[Written]]:
    if workers == 1:
        yield from map(write, units)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(write, units, chunksize=8)


def _write(folder: Path, multiple: int, unit: Unit) -> list[Written]:
    written: list[Written] = []
    for new in unit.make():
        image, source, notes = new.pixels, new.source, new.notes
        height, width = (side - side % multiple for side in image.shape[:2])
        if (height, width) != image.shape[:2]:
            whole = f"{image.shape[1]} x {image.shape[0]}"
            image = np.ascontiguousarray(image[:height, :width])
            source = f"{source}; {whole} cut to {width} x {height} px"
            notes = (*notes, f"cut to a multiple of {multiple} px")
        file = folder / f"{new.name}.png"
        if height and width:  # else it is refused with all others that are too small
            write_png(image, file)
        row = IndexRow(
            name=new.name,
            sha256=sha256_file(file) if height and width else "",
            width=width,
            height=height,
            picture=new.picture,
            caption=new.caption,
            source=source,
            licence=new.licence,
        )
        written.append(Written(row, new.asked, new.described, new.file or new.name, notes))
    return written


def _check_sizes(written: list[Written], dataset: str, least: int, equal: bool) -> None:
    """Refuse images of sizes that a later job could do nothing with."""
    sizes = [(each.row.width, each.row.height, each.file) for each in written]
    small = [f"{file} ({w} x {h} px)" for w, h, file in sizes if min(w, h) < max(least, 1)]
    if small:
        named = ", ".join(map(printable, small[:5]))
        more = f" and {len(small) - 5} more" if len(small) > 5 else ""
        raise ImageError(
            f"dataset {dataset}: each side of an image needs {least} px at least, and these have "
            f"less: {named}{more}; remove them from the folder, or `crops` in the profile leaves "
            "out what is smaller than a crop"
        )
    found = sorted({f"{width} x {height} px" for width, height, _ in sizes})
    if equal and len(found) > 1:
        raise ImageError(
            f"dataset {dataset}: training images must have one size; cut them to one by `crops` "
            f"in the profile; found {', '.join(found[:5])}"
        )


def _plan(config: Dataset, dataset: str, master_seed: int, notes: Notes) -> list[Unit]:
    """What a set is made from."""
    if isinstance(config, SceneSet | PackageSet):
        return _drawn(config, "", dataset, master_seed)
    if isinstance(config, PhotoSet):
        if config.count > len(PHOTOS):
            raise UserError(
                f"dataset {dataset}: {config.count} photographs asked for, {len(PHOTOS)} ship"
            )
        chosen = PHOTOS[: config.count]
        return [Unit(photo.name, partial(_photo, config.size, photo)) for photo in chosen]
    found = sources(config, notes)
    if dataset in RESERVED_SETS:  # to train on
        for part in parts_of(config).values():
            if isinstance(part, FolderSet):
                check_one_size(part.path, [s.file for s in found if s.config is part])
    units = [
        Unit(source.file.name, partial(_folder, dataset, master_seed, source)) for source in found
    ]
    for name, part in parts_of(config).items():
        if isinstance(part, SceneSet | PackageSet):
            units += _drawn(part, f"{name}-", dataset, master_seed)
    return units


def _drawn(
    config: SceneSet | PackageSet, prefix: str, dataset: str, master_seed: int
) -> list[Unit]:
    """Scenes, or crops of photographs; a prefix to their names changes no pixel."""
    if isinstance(config, SceneSet):
        names = [f"scene-{index:05d}" for index in range(config.count)]
        make = partial(_scene, config, dataset, master_seed, prefix)
        return [Unit(prefix + name, partial(make, name)) for name in names]
    photos = photographs_of(config)
    if gone := lacking(photos):
        raise UserError(
            f"dataset {dataset}: {len(gone)} of the {len(photos)} photographs of {config.files} "
            f"are not in {PHOTOGRAPHS}, or corrupted there, as {gone[0].file(PHOTOGRAPHS).name}; "
            f"faithdiff fetch --dataset {dataset}, with the same --config, brings them"
        )
    crops = partial(_crops, config, dataset, master_seed, prefix)
    without = "skipped, no crop with enough detail"
    return [Unit(prefix + photo.name, partial(crops, photo), without) for photo in photos]


def _scene(
    config: SceneSet, dataset: str, master_seed: int, prefix: str, name: str
) -> list[NewImage]:
    rng = seeds.numpy_rng(master_seed, "scene", dataset, name)
    scene = render_scene(rng, config.size, config.textured)
    source = f"procedural, seed key ('scene', '{dataset}', '{name}')"
    named = prefix + name
    return [NewImage(named, scene.image, named, scene.caption, source, "Apache-2.0")]


def _crops(
    config: PackageSet, dataset: str, master_seed: int, prefix: str, photo: Photograph
) -> list[NewImage]:
    return [
        NewImage(
            name=prefix + crop.name,
            pixels=crop.pixels,
            picture=prefix + photo.name,
            caption=photo.caption,
            source=crop.place,
            licence=photo.licence,
        )
        for crop in cut_photograph(photo, config, PHOTOGRAPHS, dataset, master_seed)
    ]


def _photo(size: int, photo: Photo) -> list[NewImage]:
    pixels = load_photo(photo, size)
    return [NewImage(photo.name, pixels, photo.file, photo.caption, photo.source, photo.licence)]


def _folder(dataset: str, master_seed: int, source: Source) -> Iterator[NewImage]:
    config, whole = source.config, None
    if config.captions == "llava" and config.described == "image":
        whole = Described(source.file, sha256_file(source.file))
    for part in cut(source, dataset, master_seed):
        yield NewImage(
            name=part.name,
            pixels=part.pixels,
            picture=source.name,
            caption=source.caption,
            source=part.place,
            licence=config.licence,
            asked=config.captions,
            described=whole,
            file=source.file.name,
            notes=part.changes,
        )
