"""Scenes without a place: overlapping leaves, arranged shapes, patterned panels, bokeh.

The leaves follow the dead-leaves model (occluding bodies whose radii obey a power law), whose
edge statistics resemble those of photographs; the radii start at 6 px because smaller bodies do
not survive a reduction of four.
"""

from __future__ import annotations

import numpy as np

from faithdiff.data.scenes.colours import Palette, pick, vary
from faithdiff.data.scenes.fills import gradient, mottled, plain, shaded, surface
from faithdiff.data.scenes.parts import SHAPES, Canvas, Floats, Sketch, box, circle
from faithdiff.data.scenes.words import scatter_words

MIN_RADIUS = 6.0


def backdrop(rng: np.random.Generator, size: int, palette: Palette) -> Canvas:
    """Start a canvas with a graded ground, at times a rough one."""
    middle, turn = (size / 2, size / 2), rng.uniform(0, 2 * np.pi)
    ground = gradient(pick(rng, palette), pick(rng, palette), middle, 1.2 * size, turn)
    if rng.random() < 0.3:
        ground = mottled(rng, ground, 0.06)
    return Canvas(size, ground)


def power_law(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a radius of density r^-1.9 between ``low`` and ``high``."""
    exponent = -0.9
    share = rng.random()
    return float((low**exponent + share * (high**exponent - low**exponent)) ** (1 / exponent))


def leaves(rng: np.random.Generator, size: int, palette: Palette) -> Sketch:
    """Bodies lie over one another, large ones below, lit and with soft shadows."""
    canvas = backdrop(rng, size, palette)
    area = (size / 256) ** 2
    count = max(4, round(rng.integers(12, 61) * area))
    largest = max(12.0, min(90.0, 0.35 * size))
    radii = [power_law(rng, MIN_RADIUS, largest) for _ in range(count)]
    # A few large bodies first: a power law alone leaves the ground bare.
    beneath = int(rng.integers(2, 3 + count // 4))
    radii[:beneath] = [largest * rng.uniform(0.4, 1.2) for _ in radii[:beneath]]
    names = list(rng.permutation(list(SHAPES)))[: int(rng.integers(1, 4))]
    shadowed = rng.random() < 0.6
    used: list[str] = []
    details = []
    for radius in radii:
        middle = rng.uniform(-0.05 * size, 1.05 * size, 2).astype(np.float32)
        used.append(str(rng.choice(names)))
        details.append(body(canvas, rng, palette, used[-1], middle, radius, shadowed))
    words = scatter_words(canvas, rng, palette, int(rng.choice([0, 0, 1, 2])))
    return Sketch(canvas, f"overlapping {' and '.join(shown(used))}", shown(details), tuple(words))


def geometry(rng: np.random.Generator, size: int, palette: Palette) -> Sketch:
    """Shapes stand in a loose grid, joined by lines and rings."""
    canvas = backdrop(rng, size, palette)
    used: list[str] = []
    details: list[str] = []
    if rng.random() < 0.5:
        _lines(canvas, rng, palette)
        details.append("lines")
    cell = float(rng.choice([43, 52, 72]))
    names = list(rng.permutation(list(SHAPES)))[: int(rng.integers(1, 3))]
    cells = max(1, round(size / cell))
    for row in range(cells):
        for column in range(cells):
            if rng.random() < 0.2:
                continue
            wobble = rng.uniform(-0.1, 0.1, 2) + 0.5
            place = (np.array([column, row]) + wobble).astype(np.float32)
            middle = np.asarray(place * size / cells, np.float32)
            radius = cell * rng.uniform(0.25, 0.48)
            if rng.random() < 0.2:
                used.append("rings")
                _rings(canvas, rng, palette, middle, radius)
            else:
                used.append(str(rng.choice(names)))
                details.append(body(canvas, rng, palette, used[-1], middle, radius, True))
    words = scatter_words(canvas, rng, palette, int(rng.choice([0, 0, 1])))
    subject = f"a grid of {' and '.join(shown(used))}" if used else "a bare ground"
    return Sketch(canvas, subject, shown(details), tuple(words))


def panels(rng: np.random.Generator, size: int, palette: Palette) -> Sketch:
    """The picture is split like a quilt; most panels carry a pattern."""
    canvas = backdrop(rng, size, palette)
    details: list[str] = []
    top = 0.0
    while top < size:
        height = float(rng.uniform(40, 100))
        left = 0.0
        while left < size:
            width = float(rng.uniform(40, 120))
            middle = (left + width / 2, top + height / 2)
            fill = surface(rng, palette, middle, width / 2)
            canvas.polygon(box(left, top, width + 1, height + 1), fill)
            details.append(fill.name)
            left += width
        top += height
    if rng.random() < 0.4:
        _lines(canvas, rng, palette)
        details.append("lines")
    words = scatter_words(canvas, rng, palette, int(rng.choice([0, 1, 2])))
    return Sketch(canvas, "patterned panels", shown(details), tuple(words))


def bokeh(rng: np.random.Generator, size: int, palette: Palette) -> Sketch:
    """Lights out of focus, and a few sharp bodies before them."""
    canvas = backdrop(rng, size, palette)
    for _ in range(max(4, round(rng.integers(10, 30) * (size / 256) ** 2))):
        middle = rng.uniform(0, size, 2).astype(np.float32)
        disc = circle(float(rng.uniform(8, 30))) + middle
        canvas.polygon(disc, plain(vary(rng, pick(rng, palette), 0.15)), 0.6, 1.5)
    canvas.blur(float(rng.uniform(1.5, 5)))
    names = list(rng.permutation(list(SHAPES)))[:2]
    used: list[str] = []
    details = []
    for _ in range(int(rng.integers(1, 4))):
        middle = rng.uniform(0.2 * size, 0.8 * size, 2).astype(np.float32)
        radius = float(rng.uniform(0.12, 0.3) * size)
        used.append(str(rng.choice(names)))
        details.append(body(canvas, rng, palette, used[-1], middle, radius, True))
    words = scatter_words(canvas, rng, palette, int(rng.choice([0, 1])))
    return Sketch(
        canvas, f"{' and '.join(shown(used))} before blurred lights", shown(details), tuple(words)
    )


def shown(details: list[str]) -> tuple[str, ...]:
    """Keep the two commonest names of shapes or patterns, the commonest first."""
    named = [detail for detail in details if detail]
    return tuple(sorted(set(named), key=lambda name: (-named.count(name), name))[:2])


def body(
    canvas: Canvas,
    rng: np.random.Generator,
    palette: Palette,
    shape: str,
    middle: Floats,
    radius: float,
    shadowed: bool,
) -> str:
    """Draw one body with its shadow, outline or midrib; return the name of its pattern."""
    outline = SHAPES[shape](rng, radius) + middle
    centre = (float(middle[0]), float(middle[1]))
    if shadowed:
        canvas.shadow(outline, 1.0 + 0.08 * radius)
    fill = surface(rng, palette, centre, radius)
    canvas.polygon(outline, fill)
    if rng.random() < 0.15:
        canvas.stroke(outline, rng.uniform(2, 4), plain(pick(rng, palette)), closed=True)
    if shape == "leaves" and radius > 12:
        ends = outline[[0, len(outline) // 2]]
        canvas.stroke(ends, 2.0, plain(vary(rng, pick(rng, palette))))
    return fill.name


def _lines(canvas: Canvas, rng: np.random.Generator, palette: Palette) -> None:
    for _ in range(int(rng.integers(2, 7))):
        points = rng.uniform(0, canvas.size, (int(rng.integers(2, 5)), 2)).astype(np.float32)
        canvas.stroke(points, rng.uniform(2, 7), plain(pick(rng, palette)))


def _rings(
    canvas: Canvas, rng: np.random.Generator, palette: Palette, middle: Floats, radius: float
) -> None:
    first, last = pick(rng, palette), pick(rng, palette)
    centre = (float(middle[0]), float(middle[1]))
    for index, reach in enumerate(np.arange(radius, 3, -max(4.0, radius / 5))):
        fill = plain(first if index % 2 else last)
        canvas.polygon(circle(float(reach)) + middle, shaded(fill, centre, 2 * radius, 0.0))
