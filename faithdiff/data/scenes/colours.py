"""Colours of the procedural scenes: palettes, small variations, and names for captions.

Colours are RGB in ``[0, 1]``. The palettes are mostly muted, as photographs are.
"""

from __future__ import annotations

import colorsys
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Colour: TypeAlias = tuple[float, float, float]
Palette: TypeAlias = tuple[Colour, ...]

LUMA: Colour = (0.299, 0.587, 0.114)  # weights of red, green and blue (Rec. 601)

_PALETTES = (
    "264653 2a9d8f e9c46a f4a261 e76f51",  # coast
    "3a3226 6b5b3e a68a56 d9c79a 8a9a5b",  # field
    "1d3557 457b9d a8dadc f1faee e63946",  # flag
    "5f6b6d 8d99ae bfc5c9 edf2f4 2b2d42",  # overcast
    "283618 606c38 a3b18a fefae0 bc6c25",  # forest
    "f7ede2 f5cac3 84a59d f28482 f6bd60",  # pastel
    "22223b 4a4e69 9a8c98 c9ada7 f2e9e4",  # dusk
    "7f4f24 936639 a68a64 c2c5aa 414833",  # wood
    "003049 d62828 f77f00 fcbf49 eae2b7",  # poster
    "0b3954 087e8b bfd7ea ff5a5f c81d25",  # signal
    "9b5de5 f15bb5 fee440 00bbf9 00f5d4",  # neon
    "6d6875 b5838d e5989b ffb4a2 ffcdb2",  # skin
    "8ecae6 219ebc 023047 ffb703 fb8500",  # beach
    "cad2c5 84a98c 52796f 354f52 2f3e46",  # moss
    "efe9e1 d1c7b7 a39a8e 5c5550 b23a48",  # studio
    "b7b7a4 a5a58d 6b705c cb997e ddbea9",  # clay
)
_HUES = (
    (0.03, "red"),
    (0.11, "orange"),
    (0.18, "yellow"),
    (0.45, "green"),
    (0.53, "teal"),
    (0.71, "blue"),
    (0.82, "purple"),
    (0.95, "pink"),
    (1.01, "red"),
)


def pick_palette(rng: np.random.Generator) -> Palette:
    """Choose five related colours: a listed palette, or one made around a random hue."""
    if rng.random() < 0.7:
        codes = _PALETTES[int(rng.integers(len(_PALETTES)))].split()
        colours = [tuple(int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)) for code in codes]
    else:
        hue, accent = rng.uniform(), rng.choice([0.08, 0.33, 0.5])
        colours = [
            colorsys.hsv_to_rgb(
                (hue + (accent if i == 4 else rng.normal(0, 0.04))) % 1.0,
                rng.uniform(0.1, 0.75),
                np.clip(0.25 + 0.17 * i + rng.normal(0, 0.06), 0.1, 0.98),
            )
            for i in range(5)
        ]
    order = rng.permutation(len(colours))
    return tuple(vary(rng, colours[i], 0.03) for i in order)


def vary(rng: np.random.Generator, colour: Colour, amount: float = 0.06) -> Colour:
    """Change the brightness of a colour, and its tint a little, within ``[0, 1]``."""
    shifted = np.asarray(colour) + rng.normal(0, amount) + rng.normal(0, amount / 3, 3)
    red, green, blue = (float(v) for v in np.clip(shifted, 0.01, 0.99))
    return red, green, blue


def pick(rng: np.random.Generator, palette: Palette) -> Colour:
    """Choose one colour of a palette, slightly varied."""
    return vary(rng, palette[int(rng.integers(len(palette)))])


def luma(colour: Colour | NDArray[np.float32]) -> float:
    """Return the luma of an RGB colour."""
    return float(np.asarray(colour) @ LUMA)


def colour_names(image: NDArray[np.uint8], count: int = 2) -> list[str]:
    """Name the commonest colours of an RGB image, the commonest first."""
    small = cv2.resize(image, (16, 16), interpolation=cv2.INTER_AREA).reshape(-1, 3) / 255.0
    names = [_colour_name(*colorsys.rgb_to_hsv(*pixel)) for pixel in small]
    return sorted(set(names), key=lambda name: (-names.count(name), name))[:count]


def _colour_name(hue: float, saturation: float, value: float) -> str:
    if value < 0.18:
        return "black"
    if saturation < 0.15:
        return "white" if value > 0.85 else "grey"
    name = next(name for end, name in _HUES if hue < end)
    return "brown" if name in {"orange", "yellow"} and value < 0.55 else name


def blend(one: Colour, two: Colour, share: float) -> Colour:
    """Mix two colours; ``share`` is that of the second."""
    red, green, blue = (float(a + share * (b - a)) for a, b in zip(one, two, strict=True))
    return red, green, blue
