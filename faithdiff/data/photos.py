"""Real test photographs without a download: crops of those inside three scientific wheels.

scikit-image, scikit-learn and matplotlib ship a few photographs under free licences. Seventeen
square crops of ten pictures are named here with their licence and origin; motorcycle_left/right are
left out because no licence is stated for them. The first ten are of ten different pictures, as
small profiles take a prefix and statistics count pictures. The reduction from crop to test size
makes the images sharp.
"""

from __future__ import annotations

import importlib.util
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from faithdiff.data.images import read_picture
from faithdiff.errors import UserError

_FOLDERS = {
    "skimage": ("scikit-image", "data"),
    "sklearn": ("scikit-learn", "datasets/images"),
    "matplotlib": ("matplotlib", "mpl-data/sample_data"),
}
Package = Literal["skimage", "sklearn", "matplotlib"]


@dataclass(frozen=True)
class Photo:
    """A square crop of a bundled photograph.

    ``box`` is (left, top, side) in pixels of the source; resizing the crop to the test size is the
    only reduction, so its factor is ``side / size``. ``focus`` is where a reader looks, a square
    (left, top, side) as shares of the crop's side; None: wherever most detail is.
    """

    name: str
    package: Package
    file: str
    box: tuple[int, int, int]
    caption: str
    licence: str
    source: str
    focus: tuple[float, float, float] | None = None


_RECORDS: dict[str, tuple[Package, str, str]] = {
    "astronaut.png": ("skimage", "public domain", "NASA, https://flic.kr/p/r9qvLn"),
    "chelsea.png": ("skimage", "CC0 1.0", "Stefan van der Walt"),
    "coffee.png": ("skimage", "CC0 1.0", "Rachel Michetti, courtesy of Pikolo Espresso Bar"),
    "rocket.jpg": (
        "skimage",
        "public domain",
        "SpaceX, https://www.flickr.com/photos/spacexphotos/16511594820",
    ),
    "hubble_deep_field.jpg": (
        "skimage",
        "public domain",
        "NASA, http://hubblesite.org/newscenter/archive/releases/2012/37/image/a/",
    ),
    "retina.jpg": (
        "skimage",
        "CC0 1.0",
        "Mikael Häggström, Wikimedia Commons: Fundus_photograph_of_normal_left_eye.jpg",
    ),
    "ihc.png": (
        "skimage",
        "no known copyright restrictions",
        "Center for Microscopy And Molecular Imaging (CMMI)",
    ),
    "china.jpg": (
        "sklearn",
        "CC BY 2.0",
        "danielbuechele, https://www.flickr.com/photos/danielbuechele/6061409035",
    ),
    "grace_hopper.jpg": (
        "matplotlib",
        "public domain",
        "James S. Davis, U.S. Navy (Commodore Grace M. Hopper)",
    ),
    # The wheel's README credits danielbuechele for this one too, but links vultilion's page.
    "flower.jpg": (
        "sklearn",
        "CC BY 2.0",
        "vultilion, https://www.flickr.com/photos/vultilion/6056698931",
    ),
}


# Where the report enlarges: faces, lettering, texture. Shares of the crop's side.
_FOCUS: dict[str, tuple[float, float, float]] = {
    "astronaut_face": (0.34, 0.46, 0.38),
    "pagoda_roof": (0.30, 0.58, 0.36),
    "cat_face": (0.08, 0.20, 0.34),
    "flower": (0.34, 0.30, 0.34),
    "coffee_cup": (0.10, 0.28, 0.36),
    "admiral": (0.26, 0.36, 0.40),
    "rocket": (0.33, 0.66, 0.34),
    "tissue": (0.30, 0.32, 0.36),
    "optic_disc": (0.20, 0.35, 0.36),
    "galaxies": (0.26, 0.26, 0.32),
    "mission_patch": (0.24, 0.20, 0.42),
    "helmet": (0.06, 0.05, 0.32),
    "lake_trees": (0.30, 0.60, 0.32),
    "tissue_folds": (0.35, 0.40, 0.36),
    "spoon": (0.04, 0.02, 0.44),
    "lamps": (0.60, 0.62, 0.36),
    "pagoda_floors": (0.28, 0.20, 0.36),
}


def _photo(name: str, file: str, box: tuple[int, int, int], caption: str) -> Photo:
    package, licence, source = _RECORDS[file]
    return Photo(name, package, file, box, caption, licence, source, _FOCUS.get(name))


PHOTOS: tuple[Photo, ...] = (
    _photo("astronaut_face", "astronaut.png", (125, 5, 190), "the face of a smiling astronaut"),
    _photo("pagoda_roof", "china.jpg", (95, 20, 220), "the roofs of a Chinese pagoda"),
    _photo("cat_face", "chelsea.png", (105, 20, 260), "the face of a tabby cat with green eyes"),
    _photo("flower", "flower.jpg", (160, 75, 290), "an orange dahlia in bloom"),
    _photo("coffee_cup", "coffee.png", (150, 0, 260), "a cup of espresso on a red saucer"),
    _photo("admiral", "grace_hopper.jpg", (115, 45, 300), "the face of a naval officer with a cap"),
    _photo("rocket", "rocket.jpg", (190, 120, 300), "a rocket on its launch pad at dusk"),
    _photo("tissue", "ihc.png", (210, 270, 240), "stained tissue with a gland under a microscope"),
    _photo("optic_disc", "retina.jpg", (60, 400, 500), "blood vessels and optic disc of a retina"),
    _photo("galaxies", "hubble_deep_field.jpg", (620, 360, 260), "distant galaxies in the dark"),
    _photo(
        "mission_patch",
        "astronaut.png",
        (105, 320, 140),
        "a round mission patch with lettering on an orange space suit",
    ),
    _photo("helmet", "astronaut.png", (262, 322, 188), "a black space helmet with a white rim"),
    _photo("lake_trees", "china.jpg", (340, 130, 290), "trees before a hazy lake"),
    _photo("tissue_folds", "ihc.png", (200, 0, 240), "folds of brown and blue stained tissue"),
    _photo("spoon", "coffee.png", (320, 235, 165), "a metal spoon on a red saucer"),
    _photo("lamps", "rocket.jpg", (20, 247, 180), "bright lamps between steel towers at dusk"),
    _photo("pagoda_floors", "china.jpg", (80, 240, 185), "carved floors of a Chinese pagoda"),
)


def load_photo(photo: Photo, size: int) -> NDArray[np.uint8]:
    """Return a crop as ``(size, size, 3)`` uint8 RGB, resized by an antialiased Lanczos filter.

    Raises:
        UserError: The wheel that holds the file is not installed, or lacks the file.
    """
    left, top, side = photo.box
    # The set is these stored values. rocket.jpg has an Adobe RGB profile, which the packages that
    # ship it do not look at either.
    whole = read_picture(_locate(photo), convert_colours=False).pixels
    crop = whole[top : top + side, left : left + side]
    resized = Image.fromarray(crop).resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(resized, np.uint8)


def photo_files(count: int) -> dict[str, Path]:
    """The files of packages that the first photographs are cut from, by name; those that exist."""
    found = {}
    for photo in PHOTOS[:count]:
        with suppress(UserError):  # said by :func:`load_photo`, once it is needed
            found[photo.file] = _locate(photo)
    return found


def _locate(photo: Photo) -> Path:
    distribution, folder = _FOLDERS[photo.package]
    # find_spec, not an import: scikit-learn takes a second to import and is needed for nothing.
    spec = importlib.util.find_spec(photo.package)
    if spec is None or spec.origin is None:
        raise UserError(
            f"photo {photo.name!r}: {distribution} is not installed but ships {photo.file}; "
            f"run `pip install {distribution}`"
        )
    path = Path(spec.origin).parent / folder / photo.file
    if not path.is_file():
        raise UserError(
            f"photo {photo.name!r}: {path} is missing from {distribution}; reinstall it"
        )
    return path
