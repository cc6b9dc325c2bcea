"""Writing in the textured scenes: pages of small print, handwriting, lettering on materials.

The letters are as small as on a photographed page. What they say is not in the caption unless they
are large enough to be read.
"""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image, ImageDraw

from faithdiff.data.scenes.colours import Colour, Palette, blend, luma, pick, vary
from faithdiff.data.scenes.fields import (
    blurred,
    canvas_of,
    edge,
    fractal,
    grid,
    lamp,
    lit,
    over,
    ramp,
    scaled,
    single,
    tilted,
)
from faithdiff.data.scenes.materials import MATERIALS
from faithdiff.data.scenes.parts import SUPERSAMPLE, Floats, Sketch
from faithdiff.data.scenes.strokes import draw_strokes
from faithdiff.data.scenes.words import FONTS, WORDS, contrasting, font_of

_SYLLABLE_LIST = (
    "an be con de er fi go ha in jo ka le ma no or per qui ra sen ta un ver wo xi you za ther ing "
    "tion str sh ch th ous ble ment al ic ed ly es of the and to a I"
)
_SYLLABLES = tuple(_SYLLABLE_LIST.split())


def paper(rng: np.random.Generator, size: int) -> Floats:
    """A sheet: off-white with fibres, slightly curved, at times stained or yellowed."""
    tone = pick(rng, ((0.95, 0.94, 0.91), (0.92, 0.87, 0.75), (0.86, 0.87, 0.88), (0.8, 0.7, 0.52)))
    fibres = 1 + 0.018 * fractal(rng, size, 0.6, 10) + 0.02 * fractal(rng, size, 1.4)
    sheet = single(tone) * fibres[..., None]
    if rng.random() < 0.25:
        stain = edge(fractal(rng, size, 1.8, 140) - 1.0, 0.2)
        rim = np.clip(stain - blurred(stain, 2), 0, 1) + 0.3 * stain
        sheet = sheet * (1 - single([0.2, 0.35, 0.55]) * rim[..., None])
    return np.asarray(sheet, np.float32)


def _slanted(rng: np.random.Generator, picture: Floats, amount: float) -> Floats:
    """Tilt a page; it repeats beyond its border, as a mirrored one would teach mirrored letters."""
    return tilted(picture, amount, int(rng.integers(4)), cv2.BORDER_WRAP)


def _word(rng: np.random.Generator) -> str:
    kind = rng.random()
    if kind < 0.3:
        return WORDS[int(rng.integers(len(WORDS)))].lower()
    if kind < 0.36:
        return str(rng.integers(1, 2030))
    word = "".join(
        _SYLLABLES[i] for i in rng.integers(len(_SYLLABLES), size=int(rng.integers(1, 4)))
    )
    return word.capitalize() if kind > 0.9 else word


def _column(
    draw: ImageDraw.ImageDraw,
    rng: np.random.Generator,
    area: tuple[int, int, int, int],
    font: str,
    points: int,
) -> None:
    """Set lines of words into a box of the supersampled page, with headings and paragraphs."""
    left, top, right, bottom = area
    y, face = top, font_of(font, points)
    while y < bottom:
        if rng.random() < 0.06:
            head = font_of("DejaVuSans-Bold", round(1.5 * points))
            draw.text((left, y), _word(rng).capitalize() + " " + _word(rng), fill=255, font=head)
            y += round(2.2 * points)
            continue
        line, last = _word(rng), rng.random() < 0.12
        goal = (right - left) * (rng.uniform(0.3, 0.9) if last else 1.0)
        while True:
            longer = f"{line}{',' if rng.random() < 0.06 else ''} {_word(rng)}"
            if face.getlength(longer) > goal:
                break
            line = longer
        draw.text((left, y), line + ("." if last else ""), fill=255, font=face)
        y += round((2.0 if last else 1.3) * points)


def printed_page(rng: np.random.Generator, size: int, palette: Palette) -> Sketch:
    """A page of print in one or two columns, looked at from the side, lit unevenly."""
    side = SUPERSAMPLE * size
    page = Image.new("L", (side, side))
    draw = ImageDraw.Draw(page)
    font, points = FONTS[int(rng.integers(len(FONTS)))], int(rng.integers(9, 34))
    edge_ = int(rng.uniform(-0.3, 0.1) * side)
    columns = 1 if points > 18 else int(rng.integers(1, 4))
    wide = (side - 2 * edge_) // columns
    for index in range(columns):
        start = edge_ + index * wide
        _column(draw, rng, (start, edge_, start + wide - 2 * points, side), font, points)
    ink = (
        vary(rng, (0.12, 0.12, 0.14), 0.05)
        if rng.random() < 0.8
        else blend(pick(rng, palette), (0, 0, 0), 0.5)
    )
    worn = np.clip(0.9 + 0.08 * fractal(rng, size, 0.6, 6), 0, 1)
    mask = np.asarray(page, np.float32) / 255 * worn
    picture = over(paper(rng, size), ink, mask)
    details = ["small print" if points < 18 else "large print"]
    if rng.random() < 0.3:
        picture = _figure(picture, rng, palette)
        details.append("a picture")
    if rng.random() < 0.65:
        picture = _slanted(rng, picture, float(rng.uniform(0.05, 0.4)))
        details.append("in perspective")
    x, _ = grid(size)
    curl = 1 + 0.15 * np.sin(x / size * rng.uniform(1, 4) + rng.uniform(0, 6)) * rng.uniform(0, 1)
    return Sketch(
        canvas_of(picture * curl[..., None]),
        "a printed page",
        tuple(details),
    )


def _figure(picture: Floats, rng: np.random.Generator, palette: Palette) -> Floats:
    """Set a picture of a material into the page."""
    size = picture.shape[0] // SUPERSAMPLE
    image = MATERIALS[int(rng.integers(len(MATERIALS)))](rng, size, palette)[0]
    high, wide = (int(v) for v in rng.uniform(0.25, 0.6, 2) * picture.shape[0])
    top, left = (int(rng.integers(picture.shape[0] - v)) for v in (high, wide))
    rows, columns = slice(top, top + high), slice(left, left + wide)
    picture = picture.copy()
    picture[rows, columns] = image[rows, columns]
    return picture


def handwriting(rng: np.random.Generator, size: int, palette: Palette) -> Sketch:
    """Lines of cursive loops in ink on plain, ruled or squared paper."""
    picture, (x, y) = paper(rng, size), grid(size)
    high = float(rng.uniform(3.5, 13))
    leading = high * float(rng.uniform(2.6, 3.6))
    rule = float(rng.choice([0, 0, 1, 2]))
    if rule:
        away = abs(np.mod(y, leading) - leading / 2)
        if rule == 2:
            away = np.minimum(np.minimum(away, abs(np.mod(x, leading) - leading / 2)), 99)
        picture = over(picture, (0.55, 0.65, 0.8), 0.7 * edge(0.4 - away, 0.4))
    ink = pick(rng, ((0.1, 0.12, 0.35), (0.08, 0.08, 0.1), (0.1, 0.2, 0.45), (0.35, 0.1, 0.1)))
    slant, paths = float(rng.normal(0.25, 0.25)), []
    for line in np.arange(leading / 2, size + leading, leading):
        start = float(rng.uniform(-0.2, 0.1)) * size
        while start < size:
            letters = int(rng.integers(2, 10))
            t = np.linspace(0, letters, 10 * letters)
            index = np.minimum(t.astype(int), letters - 1)
            up = rng.choice([0.5, 0.5, 0.55, 1.1, 1.2, -0.7], letters)[index]
            loop = rng.uniform(0.1, 0.4, letters)[index]
            phase = 2 * np.pi * t
            lifted = high * (0.5 * up * (1 - np.cos(phase)) + 0.05 * np.sin(3 * phase))
            across = start + high * (0.62 * t + loop * np.sin(phase)) + slant * lifted
            drift = 0.06 * high * np.sin(t * 0.7 + rng.uniform(0, 6))
            paths.append(np.stack([across, line - lifted + drift], 1).astype(np.float32))
            start = float(across[-1] + high * rng.uniform(0.5, 1.1))
    tones = np.asarray(ink) * rng.uniform(0.8, 1.3, (len(paths), 1))
    wide = float(np.clip(0.09 * high, 0.5, 1.5))
    picture = draw_strokes(picture, paths, tones, wide, float(rng.uniform(0.75, 1)))
    if rng.random() < 0.5:
        picture = _slanted(rng, picture, float(rng.uniform(0.05, 0.35)))
    fall = 0.75 + 0.3 * scaled(fractal(rng, size, 2.4, 200))
    style = {0.0: "plain", 1.0: "ruled", 2.0: "squared"}[rule]
    return Sketch(canvas_of(picture * fall[..., None]), "handwriting", (f"on {style} paper",))


def lettering(rng: np.random.Generator, size: int, palette: Palette) -> Sketch:
    """One to four words painted, worn or carved on a material."""
    material = MATERIALS[int(rng.integers(len(MATERIALS)))]
    ground, name = material(rng, size, palette)
    side = SUPERSAMPLE * size
    page = Image.new("L", (side, side))
    words: list[str] = []
    draw, y = ImageDraw.Draw(page), float(rng.uniform(0.03, 0.2)) * side
    while y < 0.85 * side and len(words) < 4:
        word, font = WORDS[int(rng.integers(len(WORDS)))], FONTS[int(rng.integers(len(FONTS)))]
        trial = font_of(font, 40).getlength(word)
        points = int(min(rng.uniform(0.4, 0.9) * side * 40 / trial, 0.4 * side, side - y))
        if points < 2 * 14:
            break
        left = rng.uniform(0.02, 0.98) * (side - trial * points / 40)
        draw.text((left, y - 0.2 * points), word, fill=255, font=font_of(font, points))
        words.append(word)
        y += points * float(rng.uniform(1.0, 1.5))
    mask = single(np.asarray(page) / 255)
    worn = edge(fractal(rng, size, 0.9, 30) + float(rng.uniform(0.8, 2.6)), 0.3)
    ink: Colour = contrasting(rng, palette, luma(ground.mean((0, 1))))
    details = [f"painted on {name}"]
    if rng.random() < 0.4:
        slant, turn = float(rng.uniform(0.05, 0.3)), int(rng.integers(4))
        ground, mask = tilted(ground, slant, turn), tilted(mask, slant, turn, cv2.BORDER_CONSTANT)
        details.append("in perspective")
    if rng.random() < 0.3:
        height = -4.0 * blurred(mask, 0.7)
        shade = lit(height, lamp(rng, 0.4), 0.3)
        picture = single(ground * (shade * (1 - 0.45 * mask))[..., None])
        details[0] = f"carved in {name}"
    else:
        # Paint takes on a part of the relief that it covers.
        relief = ground @ single([0.3, 0.59, 0.11])
        relief = 0.5 + 0.5 * relief / blurred(relief, 6)
        picture = over(ground, single(ink) * relief[..., None], mask * worn)
    return Sketch(canvas_of(picture), "lettering", tuple(details), tuple(words))


def table(rng: np.random.Generator, size: int, palette: Palette) -> Sketch:
    """Tables and plans: ruled boxes with small figures and lines, as on a label or a drawing."""
    side = SUPERSAMPLE * size
    page = Image.new("L", (side, side))
    draw = ImageDraw.Draw(page)
    wide, high = int(rng.integers(50, 170)), int(rng.integers(22, 60))
    font = FONTS[int(rng.integers(len(FONTS)))]
    points = int(min(rng.uniform(0.4, 0.75) * high, 30))
    shift_x, shift_y = int(rng.integers(wide)), int(rng.integers(high))
    for top in range(-shift_y, side, high):
        draw.line([(0, top), (side, top)], fill=200, width=int(rng.choice([1, 2, 3])))
        for left in range(-shift_x, side, wide):
            text = (
                _word(rng) if rng.random() < 0.4 else f"{rng.uniform(0, 1000):.{rng.integers(3)}f}"
            )
            draw.text((left + 6, top + 2), text, fill=255, font=font_of(font, points))
    for left in range(-shift_x, side, wide):
        draw.line([(left, 0), (left, side)], fill=200, width=2)
    mask = np.asarray(page, np.float32) / 255
    ground = paper(rng, size)
    if rng.random() < 0.5:
        share = scaled(fractal(rng, size, 2.0, 200))
        ground = ground * ramp(share, (pick(rng, palette), vary(rng, pick(rng, palette), 0.1)))
    ink = contrasting(rng, palette, luma(ground.mean((0, 1))))
    picture = _slanted(rng, over(ground, ink, mask), float(rng.uniform(0, 0.4)))
    return Sketch(canvas_of(picture), "a printed table", ("numbers", "lines"))
