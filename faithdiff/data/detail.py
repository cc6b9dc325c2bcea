"""How much detail a picture has per pixel, and how sharp it is: what crops are chosen by.

A prior learns the sharpness of what it sees, and most of a photograph is sky, ground or blur.
``python -m faithdiff.data.detail`` prints both numbers for the test photographs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from faithdiff.data.photos import PHOTOS, load_photo
from faithdiff.data.scenes.colours import LUMA

_LUMA = np.array(LUMA, np.float32)


def detail(pixels: NDArray[np.uint8]) -> float:
    """Mean length of the gradient of luma, in grey levels of 255 per pixel."""
    return float(_slopes(pixels).mean())


def sharpness(pixels: NDArray[np.uint8]) -> float:
    """Root mean square gradient in relation to that at half the size.

    0.5 for what is blurred, however strong its contrast, 0.7 for sharp edges, 1 for fine grain.
    The mean would not tell a sharp edge from a blurred one, which is as high and only wider.
    """
    height, width = pixels.shape[:2]
    half = Image.fromarray(pixels).resize((width // 2, height // 2), Image.Resampling.LANCZOS)
    whole, reduced = (
        float(np.square(_slopes(image)).mean() ** 0.5)
        for image in (pixels, np.asarray(half, np.uint8))
    )
    return whole / max(reduced, 1e-6)


def _slopes(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    down, right = np.gradient(pixels.astype(np.float32) @ _LUMA)
    return np.hypot(down, right)


def _print_of_photos(count: int = 10, size: int = 128) -> None:
    images = {photo.name: load_photo(photo, size) for photo in PHOTOS[:count]}
    found = [(name, detail(image), sharpness(image)) for name, image in images.items()]
    for name, much, sharp in found:
        print(f"{name:16} detail {much:5.2f}  sharpness {sharp:.3f}")
    for what, values in (("detail", [f[1] for f in found]), ("sharpness", [f[2] for f in found])):
        print(f"{what}: {min(values):.3f} to {max(values):.3f}")


if __name__ == "__main__":
    _print_of_photos()
