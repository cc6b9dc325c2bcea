"""The pictures of the page: small WebP files, named by the hash of what they show.

Images beyond `WHOLE` pixels are cut to the square with most detail, the same for every method; up
to `EXACT` pixels they are stored without loss.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TypedDict

import pandas as pd
from PIL import Image

from faithdiff.data.datasets import read_index
from faithdiff.data.images import read_image, read_result, sha256_file
from faithdiff.errors import ImageError, UserError
from faithdiff.methods.method import Study
from faithdiff.report.panels import Pixels, detailed_box

EXACT, WHOLE = 160, 512  # pixels of the longer side
QUALITY = 90
PER_SET = 60  # images of a test set in the explorer
FIGURE_WIDTH = 1400  # pixels
CAPTIONS = {  # by how the name of the file begins
    "ablation": "Each variant's difference to the first row of the table, with its 95% interval.",
    "levels": "Test images, original and degraded at each level.",
    "heldout": "Held-out loss minus that of the first row, at each timestep.",
    "panels": "Test images restored by each method, with an enlarged detail, PSNR and ST-LPIPS.",
    "training": "Loss during training.",
    "perception-distortion": "PSNR against perceptual quality of each method, at each level.",
}
Place = tuple[str, str, str]  # dataset, level, image
Box = tuple[int, int, int, int]  # top, left, bottom, right as thousandths of the sides


class ShownFigure(TypedDict):
    """A figure as the template prints it: its file in the page's folder, and its size there."""

    title: str
    caption: str
    file: str
    width: int
    height: int


class Explorer(TypedDict):
    """Images that can be looked at: ``images[dataset|level|image][method]`` is a file.

    `missing` says why others are not there.
    """

    images: dict[str, dict[str, str]]
    labels: dict[str, str]
    missing: list[str]


class Album:
    """Pictures below the folder of a page; equal ones are stored once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "images").mkdir()

    def add(self, pixels: Pixels, limit: int = 0) -> str:
        """Store a picture and return its path in the page's folder."""
        picture = Image.fromarray(pixels)
        if limit and picture.width > limit:
            height = round(picture.height * limit / picture.width)
            picture = picture.resize((limit, height), Image.Resampling.LANCZOS)
        content = repr(pixels.shape).encode() + pixels.tobytes()
        name = f"images/{hashlib.sha256(content).hexdigest()[:20]}.webp"
        exact = max(picture.size) <= EXACT
        if not (self.folder / name).exists():
            picture.save(self.folder / name, "WEBP", lossless=exact, quality=QUALITY, method=4)
        return name


def figures(folder: Path, album: Album) -> list[ShownFigure]:
    """The study's figures, small enough for a page."""
    found: list[ShownFigure] = []
    for file in sorted(folder.glob("*.png")):
        pixels = read_image(file)
        height = round(pixels.shape[0] * min(1, FIGURE_WIDTH / pixels.shape[1]))
        title = file.stem.replace("-", " ").capitalize()
        caption = next((CAPTIONS[name] for name in CAPTIONS if file.stem.startswith(name)), "")
        found.append(
            {
                "title": title,
                "caption": caption,
                "file": album.add(pixels, FIGURE_WIDTH),
                "width": min(pixels.shape[1], FIGURE_WIDTH),
                "height": height,
            }
        )
    return found


def explorer(study: Study, scores: pd.DataFrame, root: Path, album: Album) -> Explorer:
    """Images that can be looked at; the first seed stands for its method."""
    images: dict[str, dict[str, str]] = {}
    missing: list[str] = []
    known = _hashes(scores, study.profile.seeds[0])
    for dataset, level in study.profile.data.places:
        try:
            names = list(read_index(root / study.layout.dataset(dataset))["name"])[:PER_SET]
        except UserError as error:
            missing.append(str(error))
            continue
        for name in names:
            place = (dataset, level, name)
            shown = _one(study, known.get(place, {}), root, album, place, missing)
            if shown:
                images[f"{dataset}|{level}|{name}"] = shown
    labels = {key: each.label for key, each in study.profile.methods.items()}
    return {
        "images": images,
        "labels": {"hq": "HQ (the truth)", "lq": "LQ (the input)", **labels},
        "missing": missing,
    }


def _one(
    study: Study,
    known: dict[str, str],
    root: Path,
    album: Album,
    place: Place,
    missing: list[str],
) -> dict[str, str]:
    """All pictures of one image at one level, cut alike."""
    dataset, level, name = place
    layout, seed = study.layout, study.profile.seeds[0]
    files = {
        "hq": root / layout.dataset(dataset) / "hq" / f"{name}.png",
        "lq": root / layout.lq(dataset, level) / f"{name}.png",
    }
    if study.profile.data.is_real(dataset):
        del files["hq"]
    for method in study.profile.methods:
        files[method] = root / layout.restoration(method, seed, dataset, level) / f"{name}.png"
    shown: dict[str, str] = {}
    box: Box | None = None
    for key, file in files.items():
        try:
            if key in known and file.is_file() and sha256_file(file) != known[key]:
                raise ImageError(f"{file}: is not the image that scores.csv names")
            pixels = read_result(file)
        except ImageError as error:
            missing.append(str(error))
            continue
        box = box or _box(pixels)
        shown[key] = album.add(_cut(pixels, box))
    return shown


def _hashes(scores: pd.DataFrame, seed: int) -> dict[Place, dict[str, str]]:
    """Hash of each method's restored image, by place."""
    own = scores[(scores["seed"] == seed) & (scores["restored_sha256"] != "")]
    found: dict[Place, dict[str, str]] = {}
    names = ["dataset", "level", "image", "method", "restored_sha256"]
    for dataset, level, image, method, sha in own[names].itertuples(index=False, name=None):
        found.setdefault((dataset, level, image), {})[method] = sha
    return found


def _box(pixels: Pixels) -> Box:
    """What is shown of an image, as shares of its sides, so that it fits the small LQ image."""
    height, width = pixels.shape[:2]
    if max(height, width) <= WHOLE:
        return 0, 0, 1000, 1000
    top, left, side = detailed_box(pixels)
    size = min(WHOLE, height, width)
    top = min(max(top + (side - size) // 2, 0), height - size)
    left = min(max(left + (side - size) // 2, 0), width - size)
    return (
        round(1000 * top / height),
        round(1000 * left / width),
        round(1000 * (top + size) / height),
        round(1000 * (left + size) / width),
    )


def _cut(pixels: Pixels, box: Box) -> Pixels:
    height, width = pixels.shape[:2]
    top, left, bottom, right = box
    rows = slice(round(height * top / 1000), max(round(height * bottom / 1000), 1))
    return pixels[rows, round(width * left / 1000) : max(round(width * right / 1000), 1)].copy()
