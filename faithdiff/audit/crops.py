"""Restored images of two revisions, cut where they differ most and set side by side.

A file of the working tree is used where its hash is the one that the scores name; else DVC's cache
is asked, by the md5 that the revision's ``dvc.lock`` has. Nothing is downloaded.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from faithdiff.audit.movers import Mover
from faithdiff.audit.results import Results

Pixels = NDArray[np.uint8]
SIDE = 64  # pixels of a crop, at most
ENLARGED = 3
GAP = 6  # white pixels between the two


@dataclass(frozen=True)
class Crop:
    """Both versions of a part of an image: OLD on the left, NEW on the right.

    Attributes:
        top: Upper left corner in the restored image, with `left`.
        png: The picture, enlarged without smoothing.
    """

    mover: Mover
    top: int
    left: int
    side: int
    png: bytes


def crops_of(
    movers: list[Mover], old: Results, new: Results, root: Path
) -> tuple[list[Crop], list[str]]:
    """Crops of the images that can be had on both sides, and why the others have none."""
    crops, missing = [], []
    finders = [finder(side, root) for side in (old, new)]
    for mover in movers:
        if not all(mover.sha256):
            continue  # a value without an image, such as the held-out loss
        files = [find(mover.path, sha) for find, sha in zip(finders, mover.sha256, strict=True)]
        if mover.sha256[0] == mover.sha256[1]:
            missing.append(f"{mover.path}: the same file in both")
        elif absent := [name for name, file in zip(("OLD", "NEW"), files, strict=True) if not file]:
            missing.append(f"{mover.path}: not in the working tree or DVC's cache for "
                           f"{' and '.join(absent)}")  # fmt: skip
        else:
            crops.append(_crop(mover, *(_pixels(file) for file in files if file)))
    return crops, missing


Finder = Callable[[str, str], bytes | None]  # path below restored/<profile>/, sha256 -> content


def finder(results: Results, root: Path) -> Finder:
    """Find restored images of a revision by path and hash."""
    folder = f"restored/{results.profile}"
    hashes = {output["path"]: output["md5"] for output in results.lock.get("outs", [])}
    cached = _cache(root, hashes.get(folder, ""))

    def find(path: str, sha256: str) -> bytes | None:
        for content in (lambda: _read(root / folder / path), lambda: cached(path)):
            # By its hash, since the working tree may hold the image of a third version.
            data = content()
            if data is not None and hashlib.sha256(data).hexdigest() == sha256:
                return data
        return None

    return find


def _cache(root: Path, md5: str) -> Callable[[str], bytes | None]:
    """Files of a folder in DVC's cache by their path in it; opened when first asked."""
    if not md5 or not (root / ".dvc").is_dir():
        return lambda _: None

    @functools.cache
    def listed() -> dict[str, Path]:
        return _listed(root, md5)

    def read(path: str) -> bytes | None:
        file = listed().get(path)
        return _read(file) if file is not None else None

    return read


def _listed(root: Path, md5: str) -> dict[str, Path]:
    """Where the cache keeps each file of a folder; empty if the folder was never cached here."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root.resolve())) as repo:
            path = repo.cache.local.oid_to_path
    except (DvcException, OSError):
        return {}
    # What DVC calls a .dir object: a JSON list of the files with their paths and hashes.
    content = _read(Path(path(md5)))
    entries = json.loads(content) if content else []
    return {entry["relpath"]: Path(path(entry["md5"])) for entry in entries}


def _read(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except OSError:
        return None


def _pixels(content: bytes) -> Pixels:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


def _crop(mover: Mover, old: Pixels, new: Pixels) -> Crop:
    height, width = (min(a, b) for a, b in zip(old.shape[:2], new.shape[:2], strict=True))
    side = min(SIDE, height, width)
    # As floats: differences of unsigned bytes wrap around.
    change = np.abs(old[:height, :width].astype(float) - new[:height, :width]).mean(axis=2)
    # The mean over the window whose upper left corner is here.
    window = ndimage.uniform_filter(change, side, mode="constant", origin=-(side // 2))
    # Rounded, or the last bits of a running sum would choose among windows that are equal.
    inside = np.round(window[: height - side + 1, : width - side + 1], 6)
    top, left = (int(i) for i in np.unravel_index(np.argmax(inside), inside.shape))
    return Crop(mover, top, left, side, _side_by_side(old, new, top, left, side))


def _side_by_side(old: Pixels, new: Pixels, top: int, left: int, side: int) -> bytes:
    size = side * ENLARGED
    canvas = Image.new("RGB", (2 * size + GAP, size), "white")
    for i, pixels in enumerate((old, new)):
        part = Image.fromarray(pixels[top : top + side, left : left + side])
        # Without smoothing: what differs may be a single pixel.
        canvas.paste(part.resize((size, size), Image.Resampling.NEAREST), (i * (size + GAP), 0))
    out = io.BytesIO()
    canvas.save(out, "PNG")
    return out.getvalue()
