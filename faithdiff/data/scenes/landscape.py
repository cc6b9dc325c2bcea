"""Landscapes: a horizon, hazy ridges, and trees, houses, roads or water before them.

They bring what dead leaves lack: the sky's smooth gradients, depth by haze, and things that shrink
with their distance.
"""

from __future__ import annotations

import numpy as np

from faithdiff.data.scenes.colours import Colour, Palette, blend, luma, pick, vary
from faithdiff.data.scenes.fills import gradient, mottled, plain, shaded
from faithdiff.data.scenes.parts import SHAPES, Canvas, Floats, Sketch, box, circle
from faithdiff.data.scenes.words import scatter_words

_SKIES: tuple[tuple[Colour, Colour], ...] = (
    ((0.33, 0.55, 0.82), (0.80, 0.89, 0.95)),
    ((0.52, 0.66, 0.78), (0.90, 0.91, 0.90)),
    ((0.22, 0.27, 0.48), (0.95, 0.62, 0.42)),
    ((0.09, 0.12, 0.25), (0.35, 0.36, 0.52)),
    ((0.62, 0.64, 0.66), (0.86, 0.86, 0.85)),
)
_GROUNDS: tuple[Colour, ...] = (
    (0.36, 0.50, 0.24),
    (0.55, 0.52, 0.30),
    (0.62, 0.48, 0.33),
    (0.25, 0.38, 0.22),
    (0.78, 0.70, 0.52),
    (0.85, 0.88, 0.92),
)


def landscape(rng: np.random.Generator, size: int, palette: Palette) -> Sketch:
    """Sky, hazy ridges, and a foreground of trees and houses, or of water."""
    high, low = _SKIES[int(rng.integers(len(_SKIES)))]
    horizon = float(rng.uniform(0.45, 0.72) * size)
    sky = gradient(vary(rng, high), low, (0.0, horizon / 2), horizon, np.pi / 2)
    canvas, details = Canvas(size, sky), ["hills"]
    _heaven(canvas, rng, horizon)
    # An evening sky leaves the land in the dark.
    dusk = 0.6 * max(0.0, 0.75 - luma(high) - 0.2)
    ground = blend(vary(rng, _GROUNDS[int(rng.integers(len(_GROUNDS)))]), (0.1, 0.1, 0.2), dusk)
    for depth in np.linspace(0.75, 0.2, int(rng.integers(2, 5))):
        haze = blend(vary(rng, ground), low, float(depth))
        rise = float(rng.uniform(0.05, 0.3) * depth * size)
        canvas.polygon(_ridge(rng, size, horizon, rise), plain(haze))
    field = gradient(blend(ground, low, 0.2), ground, (0.0, size), size - horizon, np.pi / 2)
    if rng.random() < 0.3:
        _water(canvas, rng, horizon, high, low)
        details += ["water", *_grove(canvas, rng, ground, palette, (horizon, horizon + 0.1 * size))]
    else:
        canvas.polygon(box(0, horizon, size, size), mottled(rng, field, 0.06, 4.0))
        if rng.random() < 0.5:
            _road(canvas, rng, horizon)
            details.append("a road")
        details += _grove(canvas, rng, ground, palette, (horizon, float(size)))
    words = scatter_words(canvas, rng, palette, int(rng.choice([0, 0, 0, 1])))
    return Sketch(canvas, "a landscape", tuple(dict.fromkeys(details)), tuple(words))


def _grove(
    canvas: Canvas,
    rng: np.random.Generator,
    ground: Colour,
    palette: Palette,
    span: tuple[float, float],
) -> list[str]:
    """Stand trees and houses between two heights of the picture, the far ones first."""
    horizon, names, size = span[0], [], canvas.size
    wooded = rng.uniform(0.4, 1.0)
    for base in np.sort(rng.uniform(*span, int(rng.integers(2, 4 + size // 16)))):
        near = 0.35 + float(base - horizon) / (size - horizon)
        middle = float(rng.uniform(0, size))
        if rng.random() < wooded:
            _tree(canvas, rng, ground, middle, float(base), 56 * near)
            names.append("trees")
        else:
            _house(canvas, rng, palette, middle, float(base), 50 * near)
            names.append("houses")
    return names


def _road(canvas: Canvas, rng: np.random.Generator, horizon: float) -> None:
    size, far = canvas.size, float(rng.uniform(0.2, 0.8))
    foot = float(rng.uniform(0.1, 0.9))
    down = np.linspace(0, 1, 24)
    middle = size * (far + (foot - far) * down + 0.12 * np.sin(np.pi * 2 * down))
    half = 1.5 + 0.13 * size * down**1.5
    y = horizon + (size - horizon) * down
    left, right = np.stack([middle - half, y], axis=1), np.stack([middle + half, y], axis=1)
    grey = vary(rng, (0.5, 0.49, 0.47), 0.08)
    canvas.polygon(np.concatenate([left, right[::-1]]).astype(np.float32), plain(grey))
    for start in range(8, 22, 4):
        dash = np.stack([middle, y], axis=1)[start : start + 3].astype(np.float32)
        canvas.stroke(dash, 2 + 3 * float(down[start]), plain((0.93, 0.92, 0.86)))


def _heaven(canvas: Canvas, rng: np.random.Generator, horizon: float) -> None:
    size = canvas.size
    if rng.random() < 0.5:
        sun = circle(float(rng.uniform(8, 20))) + rng.uniform(0.1, 0.9, 2) * (size, horizon)
        canvas.polygon(sun.astype(np.float32), plain((1.0, 0.93, 0.72)), 0.5, 8.0)
        canvas.polygon(sun.astype(np.float32), plain((1.0, 0.96, 0.82)))
    for _ in range(int(rng.integers(0, 5))):
        middle = rng.uniform((0.0, 0.05), (1.0, 0.8), 2) * (size, horizon)
        for _ in range(int(rng.integers(3, 7))):
            puff = circle(float(rng.uniform(6, 18))) * (1.6, 0.7)
            puff = puff + middle + rng.normal(0, 1, 2) * (16, 3)
            canvas.polygon(puff.astype(np.float32), plain((0.97, 0.97, 0.98)), 0.7, 2.0)


def _ridge(rng: np.random.Generator, size: int, horizon: float, rise: float) -> Floats:
    x = np.linspace(-2, size + 2, 64)
    waves = sum(
        np.sin(x * 2 * np.pi / reach + rng.uniform(0, 6.3)) * reach
        for reach in rng.uniform(25, 200, 4)
    )
    waves = (waves - waves.min()) / np.ptp(waves)
    crest = np.stack([x, horizon - rise * waves], axis=1)
    return np.concatenate([crest, [[size + 2, horizon + 2], [-2, horizon + 2]]]).astype(np.float32)


def _water(
    canvas: Canvas, rng: np.random.Generator, horizon: float, high: Colour, low: Colour
) -> None:
    size = canvas.size
    depth = gradient(low, blend(high, (0.05, 0.1, 0.15), 0.3), (0.0, size), size - horizon, 1.57)
    canvas.polygon(box(0, horizon, size, size), depth)
    y = horizon + 5
    while y < size:
        near = (y - horizon) / (size - horizon)
        start, reach = float(rng.uniform(-0.2, 0.9) * size), float(rng.uniform(10, 60))
        ripple = box(start, y, reach * (0.5 + near), 2 + 2 * near, 2.0)
        canvas.polygon(ripple, plain(blend(low, (1.0, 1.0, 1.0), 0.4)), 0.7)
        y += float(rng.uniform(2, 5) + 3 * near)


def _tree(
    canvas: Canvas, rng: np.random.Generator, ground: Colour, x: float, base: float, height: float
) -> None:
    green = vary(rng, blend(ground, (0.13, 0.3, 0.16), 0.7), 0.05)
    trunk = max(2.0, 0.08 * height)
    canvas.polygon(
        box(x - trunk / 2, base - 0.4 * height, trunk, 0.4 * height), plain((0.3, 0.22, 0.16))
    )
    if rng.random() < 0.5:
        for tier in (0.25, 0.5, 0.75):
            half, foot = 0.32 * height * (1.15 - tier), base - height * (tier - 0.05)
            tip = [[x - half, foot], [x + half, foot], [x, foot - 0.42 * height]]
            canvas.polygon(
                np.asarray(tip, np.float32), shaded(plain(green), (x, foot), height, 0.0)
            )
        return
    for _ in range(5):
        middle = (
            x + float(rng.normal(0, 0.12)) * height,
            base - height * float(rng.uniform(0.5, 0.8)),
        )
        crown = SHAPES["pebbles"](rng, 0.22 * height) + np.asarray(middle, np.float32)
        canvas.polygon(crown, shaded(plain(vary(rng, green, 0.03)), middle, 0.35 * height, 0.0))


def _house(
    canvas: Canvas, rng: np.random.Generator, palette: Palette, x: float, base: float, width: float
) -> None:
    height = 0.65 * width
    left, top = x - width / 2, base - height
    wall = blend(pick(rng, palette), (0.9, 0.87, 0.8), 0.5)
    canvas.shadow(box(left, top, width, height), 2.0)
    canvas.polygon(box(left, top, width, height), plain(wall))
    eaves = 0.08 * width
    roof = [[left - eaves, top], [left + width + eaves, top], [x, top - 0.5 * width]]
    canvas.polygon(np.asarray(roof, np.float32), plain(vary(rng, (0.5, 0.25, 0.2), 0.08)))
    pane = plain((0.2, 0.25, 0.32))
    for share in (0.15, 0.65):
        canvas.polygon(
            box(left + share * width, top + 0.2 * height, 0.2 * width, 0.3 * height), pane
        )
    door = box(x - 0.08 * width, base - 0.55 * height, 0.16 * width, 0.55 * height)
    canvas.polygon(door, plain(pick(rng, palette)))
