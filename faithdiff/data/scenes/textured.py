"""Textured scenes: the kinds that carry fine detail, and how each is finished like a photograph.

The plain scenes are smooth: a prior trained on them alone cannot draw fur, foliage or print. These
kinds are sharp down to a pixel. They train the prior; no test set is made of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np

from faithdiff.data.scenes.buildings import house, temple
from faithdiff.data.scenes.colours import LUMA, Palette
from faithdiff.data.scenes.fields import blurred, canvas_of, edge, fractal, grid, single
from faithdiff.data.scenes.lens import night, stars, tissue, vessels
from faithdiff.data.scenes.materials import wall
from faithdiff.data.scenes.nature import clouds, foliage, marble, rock, trees, water
from faithdiff.data.scenes.parts import SUPERSAMPLE, Floats, Sketch
from faithdiff.data.scenes.people import portrait
from faithdiff.data.scenes.printed import handwriting, lettering, printed_page, table
from faithdiff.data.scenes.strokes import animal, fur, grass, hair
from faithdiff.data.scenes.things import blossom, cup, fruit, metal

# Mean gradient of the luma, in grey levels a pixel. The first ten test photographs at 128 px have
# 4.4 to 18.5, half of them between 9 and 15.
DETAIL = (4.0, 19.0)
_LUMA = single(LUMA)

KINDS: tuple[tuple[float, Callable[[np.random.Generator, int, Palette], Sketch]], ...] = (
    (0.11, wall),
    (0.10, portrait),
    (0.06, fur),
    (0.06, animal),
    (0.05, foliage),
    (0.05, blossom),
    (0.04, hair),
    (0.04, grass),
    (0.04, trees),
    (0.04, rock),
    (0.04, cup),
    (0.04, printed_page),
    (0.03, house),
    (0.03, temple),
    (0.03, lettering),
    (0.03, fruit),
    (0.03, stars),
    (0.03, tissue),
    (0.03, vessels),
    (0.02, night),
    (0.02, water),
    (0.02, marble),
    (0.02, metal),
    (0.02, handwriting),
    (0.01, clouds),
    (0.01, table),
)


def textured(rng: np.random.Generator, size: int, palette: Palette) -> Sketch:
    """Draw one textured scene: a kind by its share, then focus, contrast, sharpening and noise."""
    kind = int(rng.choice(len(KINDS), p=[share for share, _ in KINDS]))
    sketch = KINDS[kind][1](rng, size, palette)
    picture, details = sketch.canvas.pixels, sketch.details
    picture = single(np.clip(picture, 0, 1.3))
    if rng.random() < 0.08 and not sketch.words:
        picture = _defocused(rng, picture)
        details = (*details, "partly out of focus")
    # Large soft differences of light: texture alone has too little at low frequencies.
    sun = np.exp(float(rng.uniform(0, 0.35)) * fractal(rng, size, 2.0, 1.5 * size))
    picture = single(picture * np.minimum(sun, 1.6)[..., None])
    # Photographs are less colourful than the palettes, and differ in exposure.
    grey = (picture @ _LUMA)[..., None]
    colour = np.float32(rng.uniform(0.65, 1.05))
    picture = single(grey + colour * (picture - grey))
    picture = _with_detail(picture, float(np.clip(rng.lognormal(2.05, 0.42), *DETAIL)))
    if rng.random() < 0.4:
        # The halo of a reduction by Lanczos or of a camera's sharpening.
        picture = picture + np.float32(rng.uniform(0.1, 0.5)) * (picture - blurred(picture, 0.8))
    if rng.random() < 0.4:
        grain = np.float32(rng.uniform(0.002, 0.012))
        picture = picture + grain * fractal(rng, size, 0.2, 4)[..., None]
    return replace(sketch, canvas=canvas_of(picture), details=details)


def detail(picture: Floats) -> float:
    """Mean gradient of the luma of an RGB picture in ``[0, 1]``, in grey levels a pixel.

    :func:`faithdiff.data.detail.detail` is the same of bytes. Its rounding is another, and would
    change the scenes.
    """
    down, across = np.gradient(255 * (picture @ _LUMA))
    return float(np.hypot(down, across).mean())


def _with_detail(picture: Floats, goal: float) -> Floats:
    """Bring a picture's detail near ``goal`` by the contrast of its texture.

    Weak differences from the surroundings are scaled, strong ones (outlines, letters, eyes) stay:
    scaling all alike would put a fog over the picture.
    """
    gain = float(np.clip(goal / max(_final_detail(picture), 0.1), 0.2, 1.4))
    around = blurred(picture, 3.0)
    apart = picture - around
    strong = (apart @ _LUMA)[..., None] ** 2
    strong = strong / (strong + np.float32(0.14**2))
    picture = single(around + apart * (gain + (1 - gain) * strong))
    excess = _final_detail(picture) / DETAIL[1]
    if excess > 1:
        picture = single(around + (picture - around) / np.float32(excess))
    return picture


def _final_detail(picture: Floats) -> float:
    size = picture.shape[0] // SUPERSAMPLE
    small = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
    return detail(single(np.clip(small, 0, 1)))


def _defocused(rng: np.random.Generator, picture: Floats) -> Floats:
    """Blur all but a place or a band of the picture, as a shallow depth of field does."""
    size = picture.shape[0] // SUPERSAMPLE
    x, y = grid(size)
    left, top = rng.uniform(0.3, 0.7, 2) * size
    away = abs(y - top) if rng.random() < 0.5 else np.hypot(x - left, y - top)
    reach = float(rng.uniform(0.15, 0.35)) * size
    far = edge(away - reach - 0.1 * size, 0.1 * size)[..., None]
    return np.asarray(picture + far * (blurred(picture, float(rng.uniform(1.5, 5))) - picture))
