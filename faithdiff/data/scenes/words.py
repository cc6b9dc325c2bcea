"""Rendered words: the structure whose faithful restoration the study is about.

Words are drawn last and never over one another, so that a caption names only readable ones.
Capitals are at least 14 px high: smaller print does not survive a reduction of four.
The fonts are the DejaVu family inside the matplotlib wheel, so no system font is needed.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from faithdiff.data.scenes.colours import LUMA, Colour, Palette, luma, pick
from faithdiff.data.scenes.fills import plain
from faithdiff.data.scenes.parts import SUPERSAMPLE, Bytes, Canvas, box

MIN_CAPITAL = 14.0
FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-Italic",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
)
# DejaVu capitals are 0.73 of the font size high.
_CAPITAL = 0.73
_WORD_LIST = (
    "RIVER STONE CLOUD BREAD OPEN EXIT STOP HOTEL CAFE MARKET NORTH SOUTH EAST WEST TAXI BUS PARK "
    "PORT BANK BOOKS MUSIC CINEMA GARDEN BRIDGE STREET MUSEUM LIGHT WATER FIRE EARTH WIND SNOW "
    "RAIN SUN MOON STAR TREE LEAF FERN LION BEAR FOX OWL FISH HORSE EAGLE WOLF CAT DOG BAR PIZZA "
    "TEA MILK SALT SUGAR APPLE LEMON PEACH GOLD SILVER IRON GLASS PAPER HOUSE DOOR ROOM LEVEL GATE "
    "TRACK SPEED LIMIT SALE NEW FREE SHOP STORE LOCK KEY CLOCK TIME MAY JUNE APRIL FAITH IMAGE "
    "SHARP CLEAR DETAIL PIXEL TRUE SCALE Harbour Studio Bakery Coffee Flowers Station Library "
    "Tower Village Summer Winter 24 42 75 100 1984 2025 A12 B7 K9 R2D2 No5 "
)
WORDS = tuple(_WORD_LIST.split())


def draw_word(
    canvas: Canvas,
    rng: np.random.Generator,
    area: tuple[float, float, float, float],
    ink: Colour,
    tilt: float = 0.0,
) -> str | None:
    """Draw a random word as large as fits into ``area`` (left, top, width, height in px).

    Args:
        canvas: The picture to draw on.
        rng: Chooses word and font.
        area: The box that the word, its tilt included, must not leave.
        ink: Colour of the letters.
        tilt: Rotation in degrees, counter-clockwise.

    Returns:
        The word, or None where none tried fits at a readable size.
    """
    left, top, width, height = area
    font = FONTS[int(rng.integers(len(FONTS)))]
    for index in rng.choice(len(WORDS), size=4, replace=False):
        mask = _fitted(WORDS[index], font, width, height, tilt)
        if mask is not None:
            rows, columns = (side / SUPERSAMPLE for side in mask.shape)
            x, y = left + (width - columns) / 2, top + (height - rows) / 2
            canvas.stamp(mask, x, y, plain(ink))
            return WORDS[index]
    return None


def contrasting(rng: np.random.Generator, palette: Palette, ground: float) -> Colour:
    """Choose a palette colour, or near-black or near-white, that stands out from a luma."""
    for _ in range(4):
        colour = pick(rng, palette)
        if abs(luma(colour) - ground) > 0.4:
            return colour
    return (0.96, 0.95, 0.92) if ground < 0.5 else (0.08, 0.08, 0.1)


def scatter_words(
    canvas: Canvas, rng: np.random.Generator, palette: Palette, count: int
) -> list[str]:
    """Put up to ``count`` words at free places; on a busy ground they get a plate behind them."""
    drawn: list[str] = []
    taken: list[tuple[float, float, float, float]] = []
    size = canvas.size
    for _ in range(3 * count):
        width = rng.uniform(0.3, 0.75) * size
        height = max(24.0, rng.uniform(0.1, 0.24) * size)
        if len(drawn) == count or width > size - 4 or height > size - 4:
            break
        left, top = (float(rng.uniform(2, size - 2 - side)) for side in (width, height))
        area = (left, top, float(width), float(height))
        if any(_overlap(area, other) for other in taken):
            continue
        word = _lettering(canvas, rng, palette, area)
        if word is not None:
            taken.append(area)
            drawn.append(word)
    return drawn


def _lettering(
    canvas: Canvas,
    rng: np.random.Generator,
    palette: Palette,
    area: tuple[float, float, float, float],
) -> str | None:
    ground = canvas.patch(*area) @ np.asarray(LUMA, np.float32)
    level = float(ground.mean())
    if float(ground.std()) > 0.09:
        plate = pick(rng, palette)
        level = luma(plate)
        outline = box(*area, corner=float(rng.choice([0.0, 4.0])))
        canvas.shadow(outline, 2.0)
        canvas.polygon(outline, plain(plate))
    tilt = float(rng.choice([0.0, 0.0, rng.uniform(-9, 9)]))
    left, top, width, height = area
    inner = (left + 4, top + 3, width - 8, height - 6)
    return draw_word(canvas, rng, inner, contrasting(rng, palette, level), tilt)


def _overlap(
    one: tuple[float, float, float, float], two: tuple[float, float, float, float]
) -> bool:
    apart = (
        one[0] + one[2] < two[0]
        or two[0] + two[2] < one[0]
        or one[1] + one[3] < two[1]
        or two[1] + two[3] < one[1]
    )
    return not apart


def _fitted(word: str, font: str, width: float, height: float, tilt: float) -> Bytes | None:
    """Return the mask of a word at the largest size that fits, or None below ``MIN_CAPITAL``."""
    smallest = MIN_CAPITAL / _CAPITAL
    # One trial gives the aspect; glyph widths scale with the font size almost exactly.
    trial = _mask(word, font, round(SUPERSAMPLE * smallest), tilt)
    scale = min(
        SUPERSAMPLE * width / trial.shape[1], SUPERSAMPLE * height / trial.shape[0], 64 / smallest
    )
    if scale < 1.0:
        return None
    # Two pixels of the doubled grid less leave room for hinting, so the fit never overflows.
    mask = _mask(
        word,
        font,
        max(round(SUPERSAMPLE * smallest), int(SUPERSAMPLE * smallest * scale) - 1),
        tilt,
    )
    fits = mask.shape[0] <= SUPERSAMPLE * height and mask.shape[1] <= SUPERSAMPLE * width
    return mask if fits else trial


def _mask(word: str, font: str, points: int, tilt: float) -> Bytes:
    face = font_of(font, points)
    left, top, right, bottom = face.getbbox(word)
    picture = Image.new("L", (int(right - left) + 2, int(bottom - top) + 2))
    ImageDraw.Draw(picture).text((1 - left, 1 - top), word, fill=255, font=face)
    if tilt:
        picture = picture.rotate(tilt, Image.Resampling.BICUBIC, expand=True)
    return np.asarray(picture, np.uint8)


def font_files() -> dict[str, Path]:
    """The fonts that words are drawn with, by name."""
    # Not by an import: a plan asks for the fonts, and matplotlib takes a third of a second.
    folder = Path(str(distribution("matplotlib").locate_file("matplotlib/mpl-data/fonts/ttf")))
    return {name: folder / f"{name}.ttf" for name in FONTS}


@lru_cache(maxsize=256)
def font_of(name: str, points: int) -> ImageFont.FreeTypeFont:
    """Load one of :data:`FONTS` at a size in px of what is drawn."""
    # Basic layout: Raqm, where present, would shape the same text by another route.
    return ImageFont.truetype(font_files()[name], points, layout_engine=ImageFont.Layout.BASIC)
