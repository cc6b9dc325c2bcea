"""Prepares a data set: HQ images and ``index.csv`` with hash, caption, source and licence of each.

Scenes are drawn from seeds keyed by data set and name, so a set is the same bytes whatever the
number of workers, and the sets of a study never share a picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from faithdiff import seeds
from faithdiff.config import Dataset, FolderSet, PhotoSet, SceneSet
from faithdiff.data.images import list_images, read_image, sha256_file, write_png
from faithdiff.data.photos import PHOTOS, load_photo
from faithdiff.data.scenes import render_scene
from faithdiff.errors import UserError
from faithdiff.files import write_text_atomic

Picture = tuple[NDArray[np.uint8], dict[str, str]]  # image, and caption, source and licence
COLUMNS = ("name", "sha256", "width", "height", "caption", "source", "licence")


def prepare_dataset(
    config: Dataset, dataset: str, master_seed: int, folder: Path, workers: int = 1
) -> None:
    """Write ``folder/hq/<name>.png`` and, last, ``folder/index.csv``.

    Raises:
        UserError: A folder set has no images, or more photographs are asked for than there are.
    """
    names, make = _plan(config, dataset, master_seed)
    write = partial(_write, make, folder / "hq")
    rows = list(tqdm(_each(write, names, workers), f"prepare {dataset}", len(names), unit="image"))
    for stale in set((folder / "hq").glob("*.png")) - {folder / "hq" / f"{n}.png" for n in names}:
        stale.unlink()
    index = pd.DataFrame(rows, columns=COLUMNS).sort_values("name")
    write_text_atomic(index.to_csv(index=False, lineterminator="\n"), folder / "index.csv")


def read_index(folder: Path) -> pd.DataFrame:
    """Read ``index.csv`` of a prepared data set, one row per image, sorted by name."""
    file = folder / "index.csv"
    if not file.is_file():
        raise UserError(
            f"{file}: is missing; make it with: faithdiff prepare --dataset {folder.name}"
        )
    return pd.read_csv(file, dtype=str, keep_default_na=False)


def _each(
    write: Callable[[str], tuple[str, ...]], names: list[str], workers: int
) -> Iterator[tuple[str, ...]]:
    if workers == 1:
        yield from map(write, names)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(write, names, chunksize=8)


def _write(make: Callable[[str], Picture], folder: Path, name: str) -> tuple[str, ...]:
    image, about = make(name)
    file = folder / f"{name}.png"
    write_png(image, file)
    height, width = image.shape[:2]
    facts = (about["caption"], about["source"], about["licence"])
    return (name, sha256_file(file), str(width), str(height), *facts)


def _plan(
    config: Dataset, dataset: str, master_seed: int
) -> tuple[list[str], Callable[[str], Picture]]:
    """Names of the images of a set, and what makes one from its name."""
    if isinstance(config, SceneSet):
        names = [f"scene-{index:05d}" for index in range(config.count)]
        return names, partial(_scene, config.size, dataset, master_seed)
    if isinstance(config, PhotoSet):
        if config.count > len(PHOTOS):
            raise UserError(
                f"data set {dataset}: {config.count} photographs asked for, {len(PHOTOS)} ship"
            )
        return [photo.name for photo in PHOTOS[: config.count]], partial(_photo, config.size)
    return _folder(config)


def _scene(size: int, dataset: str, master_seed: int, name: str) -> Picture:
    scene = render_scene(seeds.numpy_rng(master_seed, "scene", dataset, name), size)
    source = f"procedural, seed key ('scene', '{dataset}', '{name}')"
    return scene.image, {"caption": scene.caption, "source": source, "licence": "Apache-2.0"}


def _photo(size: int, name: str) -> Picture:
    photo = next(photo for photo in PHOTOS if photo.name == name)
    about = {"caption": photo.caption, "source": photo.source, "licence": photo.licence}
    return load_photo(photo, size), about


def _folder(config: FolderSet) -> tuple[list[str], Callable[[str], Picture]]:
    files = {file.stem: file for file in list_images(config.path)}
    captions = _captions(config.path / "captions.csv")

    def picture(name: str) -> Picture:
        source = files[name].name
        about = {"caption": captions.get(name, ""), "source": source, "licence": "unknown"}
        return read_image(files[name]), about

    return sorted(files), picture


def _captions(file: Path) -> dict[str, str]:
    if not file.is_file():
        return {}
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    if not {"name", "caption"} <= set(table.columns):
        raise UserError(f"{file}: needs the columns name,caption, has {','.join(table.columns)}")
    return dict(zip(table["name"], table["caption"], strict=True))
