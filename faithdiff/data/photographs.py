"""Photographs from Debian packages, to train the small prior: the list, and crops by detail.

The list (``config/prior_photographs.csv``) names each file by package, version and hash, with its
licence and author; :mod:`faithdiff.data.packages` brings the files. Most of a photograph is softer
than a test image, so crops are drawn at many places and scales, and those with the detail of the
test photographs are kept. Pictures on transparent ground are laid over parts of other photographs.
"""

from __future__ import annotations

import csv
import functools
import io
import itertools
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from faithdiff.config import PackageSet
from faithdiff.config.data import PhotographKind, PhotographPart
from faithdiff.data.detail import detail, sharpness
from faithdiff.data.images import read_picture, sha256_file
from faithdiff.errors import ConfigError
from faithdiff.study import seeds
from faithdiff.study.files import read_text

PHOTOGRAPHS = Path("data", "raw", "photographs")  # where `faithdiff fetch` puts them
LICENCES = re.compile(
    r"public domain|CC0-1\.0|CC-BY(-SA)?-[234]\.0|L?GPL-[23]\.[01]-(only|or-later)|MIT"
)
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_TRIES = 5  # for each crop that is wanted
_RIVALS = 2  # candidates of a try, of which the one with more detail counts
_OVERLAP = 0.4  # of two crops of a photograph, as intersection over union
_FLAT = 0.5  # of the least detail: below that even a soft crop shows nothing
_GROUNDS = 3  # photographs that a cutout is laid over
_COMPOSITE = 1.6  # a cutout is reduced up to so much, or further until it fits

Box = tuple[int, int, int]  # left, top, side


@dataclass(frozen=True)
class Photograph:
    """A file of a Debian package; the fields are the columns of the list.

    Attributes:
        name: Of its crops.
        path: Of the file, inside the package.
        span: ``<offset>+<bytes>`` where it lies inside that file, as in a bundle of resources;
            empty: it is that file.
        sha256: Of the picture, not of what it lies in.
        kind: ``photograph``, or ``cutout`` for a picture on transparent ground.
        part: ``training``, or ``validation`` for what no prior is trained on.
        origin: Where its author published it, if the package says so.
        caption: What it shows.
    """

    name: str
    package: str
    version: str
    path: str
    span: str
    sha256: str
    kind: PhotographKind
    part: PhotographPart
    licence: str
    author: str
    origin: str
    caption: str

    @property
    def range(self) -> tuple[int, int] | None:
        """Where it begins inside its file, and where it ends; None: it is that file."""
        if not self.span:
            return None
        offset, length = map(int, self.span.split("+"))
        return offset, offset + length

    def file(self, folder: Path) -> Path:
        """Where it lies once it was fetched."""
        # The bundles of gcompris hold WebP; what a file is called decides nothing for its reader.
        return folder / f"{self.name}{'.webp' if self.span else Path(self.path).suffix}"


@functools.cache
def load_list(file: Path) -> tuple[Photograph, ...]:
    """Read the list of photographs, in its order.

    Raises:
        ConfigError: Names the line and the field that is wrong.
    """
    columns = [field.name for field in fields(Photograph)]
    rows = list(csv.reader(io.StringIO(read_text(file))))
    if not rows or rows[0] != columns:
        raise ConfigError(f"{file}: the first line must be {','.join(columns)}")
    found: dict[str, Photograph] = {}
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(columns):
            raise ConfigError(f"{file}: line {number}: {len(row)} fields, not {len(columns)}")
        photo = Photograph(*row)  # type: ignore[arg-type]  # `kind` and `part` are checked next
        if wrong := _wrong(photo):
            raise ConfigError(f"{file}: line {number} ({photo.name}): {wrong}")
        if found.setdefault(photo.name, photo) is not photo:
            raise ConfigError(f"{file}: line {number}: the name {photo.name!r} comes twice")
    return tuple(found.values())


def _wrong(photo: Photograph) -> str:
    """What is wrong with a line of the list; empty where nothing is."""
    if not _NAME.fullmatch(photo.name):
        return f"name {photo.name!r} is not made of a-z, 0-9 and hyphens"
    if photo.kind not in get_args(PhotographKind):
        return f"kind {photo.kind!r} is none of {', '.join(get_args(PhotographKind))}"
    if photo.part not in get_args(PhotographPart):
        return f"part {photo.part!r} is none of {', '.join(get_args(PhotographPart))}"
    if not re.fullmatch(r"[0-9a-f]{64}", photo.sha256):
        return "sha256 is not 64 hexadecimal digits"
    if photo.span and not re.fullmatch(r"\d+\+\d+", photo.span):
        return f"span {photo.span!r} is not <offset>+<bytes>"
    if photo.path.startswith("/") or ".." in Path(photo.path).parts:
        return f"path {photo.path!r} leaves the package"
    if not LICENCES.fullmatch(photo.licence):
        return f"licence {photo.licence!r} is not one that this list takes"
    needed = ("package", "version", "path", "author", "caption")
    return next((f"{name} is empty" for name in needed if not getattr(photo, name)), "")


@dataclass(frozen=True)
class PhotographCrop:
    """A crop of a photograph, and where it is from, in words."""

    name: str
    pixels: NDArray[np.uint8]
    place: str


@dataclass(frozen=True)
class _View:
    """A candidate: a part of a photograph, or a cutout over one (without a box)."""

    box: Box | None
    pixels: NDArray[np.uint8]

    @functools.cached_property
    def detail(self) -> float:
        return detail(self.pixels)

    def repeats(self, other: _View) -> bool:
        """Whether both show much the same."""
        if self.box is None or other.box is None:
            return False
        one, two = self.box[2], other.box[2]
        shared = math.prod(
            max(0, min(a + one, b + two) - max(a, b))
            for a, b in zip(self.box[:2], other.box[:2], strict=True)
        )
        return shared > _OVERLAP * (one**2 + two**2 - shared)


def photographs_of(config: PackageSet) -> list[Photograph]:
    """The photographs of the list that a set is made of.

    Raises:
        ConfigError: The list is not well-formed, or has no photograph of this part.
    """
    found = [photo for photo in load_list(config.files) if photo.part == config.part]
    # Cutouts alone would have no ground to lie on.
    if not any(photo.kind == "photograph" for photo in found):
        raise ConfigError(f"{config.files}: lists no photograph whose part is {config.part!r}")
    return found


def crops_of(photo: Photograph, config: PackageSet) -> int:
    """How many crops are made of a photograph at most."""
    return config.composites if photo.kind == "cutout" else config.crops


def lacking(photos: Iterable[Photograph], folder: Path = PHOTOGRAPHS) -> list[Photograph]:
    """The photographs that are not in the folder, or are there with other bytes."""
    return [p for p in photos if not (f := p.file(folder)).is_file() or sha256_file(f) != p.sha256]


def cut_photograph(
    photo: Photograph, config: PackageSet, folder: Path, dataset: str, master_seed: int
) -> list[PhotographCrop]:
    """Choose the crops of a photograph by their detail; none where it is too small or too soft.

    Args:
        photo: One of the list of `config`.
        config: What is asked of crops.
        folder: Where the photographs of the list lie.
        dataset: Its name; part of every seed.
        master_seed: The ``seed`` of the profile.

    Raises:
        ImageError: A file is missing or corrupted.
    """
    rng = seeds.numpy_rng(master_seed, "photograph", dataset, photo.name)
    wanted = crops_of(photo, config)
    if photo.kind == "cutout":
        candidates = _composites(photo, config, folder, rng)
    else:
        candidates = _views(_opened(photo.file(folder)), config, rng)
    soft = int(rng.binomial(wanted, config.soft))  # how many of them may be out of focus
    least, most = config.detail
    kept: list[_View] = []
    for _ in range(_TRIES * wanted):
        rivals = [view for view in itertools.islice(candidates, _RIVALS) if view.detail <= most]
        view = max(rivals, key=lambda rival: rival.detail, default=None)
        if view is None or view.detail < _FLAT * least or any(map(view.repeats, kept)):
            continue
        crispness = sharpness(view.pixels)
        if crispness > config.sharpness[1]:
            continue
        sharp = view.detail >= least and crispness >= config.sharpness[0]
        if sharp or soft:
            soft -= not sharp
            kept.append(view)
        if len(kept) == wanted:
            break
    return [
        PhotographCrop(f"{photo.name}-{number:02d}", view.pixels, _place(photo, view.box))
        for number, view in enumerate(kept)
    ]


def _place(photo: Photograph, box: Box | None) -> str:
    where = f"{box[2]} px from {box[0]},{box[1]}" if box else "over another photograph"
    origin = f"; {photo.origin}" if photo.origin else ""
    return f"{photo.author}; {photo.package} {photo.version}, {photo.path}, {where}{origin}"


def _opened(file: Path) -> Image.Image:
    return Image.fromarray(read_picture(file).pixels)


def _window(image: Image.Image, side: int, rng: np.random.Generator) -> Box:
    left, top = (int(rng.integers(0, whole - side + 1)) for whole in image.size)
    return left, top, side


def _reduced(image: Image.Image, box: Box, size: int) -> Image.Image:
    left, top, side = box
    region = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.LANCZOS, box=region)


def _views(image: Image.Image, config: PackageSet, rng: np.random.Generator) -> Iterator[_View]:
    """Endless crops at drawn places and scales; nothing of an image that is too small."""
    least, most = config.reduction
    most = min(most, min(image.size) / config.size)
    if most < least:
        return
    while True:
        factor = math.exp(rng.uniform(math.log(least), math.log(most)))
        box = _window(image, int(config.size * factor), rng)
        yield _View(box, np.asarray(_reduced(image, box, config.size), np.uint8))


def _composites(
    photo: Photograph, config: PackageSet, folder: Path, rng: np.random.Generator
) -> Iterator[_View]:
    """A cutout over parts of other photographs; half of these grounds are out of focus."""
    with Image.open(photo.file(folder)) as opened:
        cutout = opened.convert("RGBA")
    cutout = cutout.crop(cutout.getchannel("A").getbbox())
    listed = [each for each in photographs_of(config) if each.kind == "photograph"]
    # A few for all candidates, as some take half a second to read.
    chosen = rng.choice(len(listed), min(_GROUNDS, len(listed)), replace=False)
    grounds = [_opened(listed[number].file(folder)) for number in chosen]
    least = config.reduction[0]
    most = max(_COMPOSITE, max(cutout.size) / config.size)
    while True:
        side = int(config.size * rng.uniform(least, most))
        ground = grounds[int(rng.integers(len(grounds)))]
        box = _window(ground, int(rng.integers(min(side, *ground.size), min(ground.size) + 1)), rng)
        canvas = _reduced(ground, box, side)
        if rng.random() < 0.5:
            canvas = canvas.filter(ImageFilter.GaussianBlur(float(rng.uniform(2, 6))))
        left, top = (_shift(side, own, rng) for own in cutout.size)
        canvas.paste(cutout, (left, top), cutout)
        whole = _reduced(canvas, (0, 0, side), config.size)
        yield _View(None, np.asarray(whole, np.uint8))


def _shift(whole: int, part: int, rng: np.random.Generator) -> int:
    low, high = sorted((0, whole - part))
    return int(rng.integers(low, high + 1))
