"""Built scenes: signs with words on them, and facades of windows.

They carry what dead leaves lack: straight parallels, repetition, lettering.
"""

from __future__ import annotations

import numpy as np

from faithdiff.data.scenes.abstract import backdrop, body, shown
from faithdiff.data.scenes.colours import Colour, Palette, blend, luma, pick, vary
from faithdiff.data.scenes.fills import bricks, gradient, mottled, plain, stripes
from faithdiff.data.scenes.parts import SHAPES, Canvas, Sketch, box
from faithdiff.data.scenes.words import contrasting, draw_word, scatter_words


def signs(rng: np.random.Generator, size: int, palette: Palette) -> Sketch:
    """One to three boards with a word each, before a wall or a blurred street."""
    canvas, ground = _wall(rng, size, palette)
    count = 1 if size < 100 else int(rng.integers(1, 4))
    words = []
    slot = size / count
    for row in range(count):
        height = float(rng.uniform(0.6, 0.9) * min(slot, 0.55 * size if size >= 100 else slot))
        width = float(rng.uniform(0.6, 0.92) * size)
        left = float(rng.uniform(0.03 * size, 0.97 * size - width))
        top = row * slot + float(rng.uniform(0.05, 0.95) * (slot - height))
        words.append(_board(canvas, rng, palette, (left, top, width, height)))
    drawn = tuple(word for word in words if word)
    return Sketch(canvas, "a sign" if count == 1 else "signs", (ground,), drawn)


def _wall(rng: np.random.Generator, size: int, palette: Palette) -> tuple[Canvas, str]:
    canvas, kind = backdrop(rng, size, palette), rng.random()
    if kind < 0.3:
        colour = pick(rng, palette)
        wall = bricks(colour, vary(rng, colour, 0.15), float(rng.uniform(10, 20)))
        canvas.polygon(box(0, 0, size, size), mottled(rng, wall, 0.05))
        return canvas, "a brick wall"
    if kind < 0.45:
        wall = stripes(rng, pick(rng, palette), pick(rng, palette), low=10.0)
        canvas.polygon(box(0, 0, size, size), wall)
        return canvas, "stripes"
    if kind < 0.75:
        for _ in range(12):
            middle = rng.uniform(0, size, 2).astype(np.float32)
            name = str(rng.choice(list(SHAPES)))
            body(canvas, rng, palette, name, middle, float(rng.uniform(15, 50)), False)
        canvas.blur(float(rng.uniform(3, 7)))
        return canvas, "a blurred background"
    return canvas, "a plain wall"


def _board(
    canvas: Canvas,
    rng: np.random.Generator,
    palette: Palette,
    area: tuple[float, float, float, float],
) -> str | None:
    left, top, width, height = area
    corner = float(rng.choice([0.0, 5.0, 12.0, height / 2]))
    if rng.random() < 0.35:
        post = box(left + width / 2 - 4, top + height / 2, 8, 2.0 * canvas.size)
        canvas.shadow(post, 2.0)
        canvas.polygon(post, plain((0.45, 0.45, 0.47)))
    outline, face = box(*area, corner=corner), pick(rng, palette)
    canvas.shadow(outline, float(rng.uniform(2, 6)))
    slope = gradient(face, vary(rng, face), (left + width / 2, top + height / 2), height, np.pi / 2)
    canvas.polygon(outline, slope)
    ink = contrasting(rng, palette, luma(face))
    if rng.random() < 0.5 and height > 34:
        rim = box(left + 4, top + 4, width - 8, height - 8, max(0.0, corner - 4))
        canvas.stroke(rim, 2.0, plain(ink), closed=True)
    pad = 9.0 if height > 34 else 3.0
    side = pad + 0.2 * corner
    tilt = float(rng.choice([0.0, 0.0, rng.uniform(-6, 6)]))
    inner = (left + side, top + pad, width - 2 * side, height - 2 * pad)
    return draw_word(canvas, rng, inner, ink, tilt)


def facade(rng: np.random.Generator, size: int, palette: Palette) -> Sketch:
    """A house front: rows of framed windows, floor bands, at times a shop sign."""
    wall = pick(rng, palette)
    rough = rng.random() < 0.4
    front = bricks(wall, vary(rng, wall, 0.12), 12.0) if rough else plain(wall)
    canvas = Canvas(size, mottled(rng, front, 0.04))
    width, floor = float(rng.uniform(26, 60)), float(rng.uniform(40, 80))
    pane, frame = rng.uniform(0.5, 0.7) * width, vary(rng, (0.88, 0.87, 0.84), 0.1)
    tall, glass = rng.uniform(0.5, 0.7) * floor, vary(rng, (0.22, 0.3, 0.38), 0.08)
    arched = float(rng.choice([0.0, 0.0, pane / 2]))
    shift_x, shift_y = float(rng.uniform(0, width)), float(rng.uniform(0, floor))
    for y in np.arange(-shift_y, size, floor):
        canvas.polygon(box(0, float(y), size, 4.0), plain(frame))
        for x in np.arange(-shift_x, size, width):
            corner = (float(x + (width - pane) / 2), float(y + 0.6 * (floor - tall)))
            _window(canvas, rng, (*corner, float(pane), float(tall)), arched, frame, glass)
    details = shown(["windows", "bricks" if rough else ""])
    words = scatter_words(canvas, rng, palette, int(rng.choice([0, 1, 1])))
    return Sketch(canvas, "a house front", details, tuple(words))


def _window(
    canvas: Canvas,
    rng: np.random.Generator,
    area: tuple[float, float, float, float],
    arched: float,
    frame: Colour,
    glass: Colour,
) -> None:
    left, top, width, height = area
    canvas.shadow(box(*area), 1.5, 0.3)
    canvas.polygon(box(*area, corner=arched), plain(frame))
    inner = (left + 3, top + 3, width - 6, height - 6)
    sky = blend(glass, (0.75, 0.83, 0.9), float(rng.uniform(0.0, 0.6)))
    shine = gradient(sky, glass, (left, top + height / 2), height, np.pi / 3)
    canvas.polygon(box(*inner, corner=max(0.0, arched - 3)), shine)
    canvas.polygon(box(left + width / 2 - 1.2, top + 3, 2.4, height - 6), plain(frame))
    canvas.polygon(box(left + 3, top + 0.4 * height, width - 6, 2.4), plain(frame))
