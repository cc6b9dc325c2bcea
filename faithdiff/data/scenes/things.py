"""Things in the textured scenes: blossoms, fruit, cups and metal, shaded as round bodies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from faithdiff.data.scenes.colours import Colour, Palette, blend, pick, vary
from faithdiff.data.scenes.fields import (
    Light,
    canvas_of,
    edge,
    fractal,
    grid,
    lamp,
    over,
    ramp,
    scaled,
    single,
    smear,
)
from faithdiff.data.scenes.materials import MATERIALS, cloth, planks
from faithdiff.data.scenes.nature import foliage
from faithdiff.data.scenes.parts import SUPERSAMPLE, Floats, Sketch
from faithdiff.data.scenes.strokes import blurred_ground, draw_strokes

_PETALS: tuple[Colour, ...] = (
    (0.9, 0.5, 0.2), (0.85, 0.25, 0.3), (0.9, 0.6, 0.7), (0.93, 0.8, 0.3), (0.9, 0.88, 0.85),
    (0.6, 0.4, 0.75), (0.93, 0.7, 0.5), (0.7, 0.12, 0.2),
)  # fmt: skip
_FRUIT: tuple[tuple[str, Colour], ...] = (
    ("oranges", (0.9, 0.5, 0.1)), ("apples", (0.7, 0.15, 0.12)), ("apples", (0.55, 0.65, 0.2)),
    ("lemons", (0.92, 0.8, 0.2)), ("plums", (0.3, 0.15, 0.3)), ("berries", (0.75, 0.08, 0.12)),
    ("peaches", (0.92, 0.6, 0.42)),
)  # fmt: skip


def _box(
    side: int, middle: tuple[float, float], reach: float, to: tuple[float, float] | None = None
) -> tuple[slice, slice, Floats, Floats] | None:
    """The part of a picture within reach of a place, or of a line ``to`` another.

    Returns:
        Its rows and columns, and its coordinates ``(1, w)`` and ``(h, 1)`` around that place.
    """
    spans = []
    for start, end in zip(middle, to or middle, strict=True):
        low = max(0, int(SUPERSAMPLE * (min(start, end) - reach)))
        high = min(side, int(SUPERSAMPLE * (max(start, end) + reach)))
        if high <= low:
            return None
        spans.append((low, high))
    (x0, x1), (y0, y1) = spans
    across = single((np.arange(x0, x1) + 0.5) / SUPERSAMPLE - middle[0])
    down = single((np.arange(y0, y1) + 0.5) / SUPERSAMPLE - middle[1])
    return slice(y0, y1), slice(x0, x1), across[None, :], down[:, None]


def _petal(
    picture: Floats,
    rng: np.random.Generator,
    base: tuple[float, float],
    turn: float,
    length: float,
    wide: float,
    colours: tuple[Colour, Colour],
    notch: float,
) -> None:
    """Draw one cupped petal from its base outwards, over the shadow that it casts."""
    tip_place = (base[0] + length * float(np.cos(turn)), base[1] + length * float(np.sin(turn)))
    found = _box(picture.shape[0], base, (1.1 * wide + 0.08) * length + 2, tip_place)
    if found is None:
        return
    rows, columns, across, down = found
    along = (across * np.cos(turn) + down * np.sin(turn)) / length
    beside = (down * np.cos(turn) - across * np.sin(turn)) / length
    inner = np.clip(along, 0, 1)
    half = wide * np.sqrt(np.clip(inner * (1.12 - inner**3.5), 0, 1)) * 1.35
    tip = (1 - along - notch * beside**2 / wide**2 * 0.2) * length
    inside = np.minimum((half - abs(beside)) * length * 0.8, tip)
    inside = np.minimum(inside, along * length + 1)
    body = edge(inside, 0.5)
    dark = np.exp(-np.maximum(-inside, 0) / (0.06 * length + 0.5)) * (along > -0.05)
    region = picture[rows, columns]
    region *= (1 - 0.55 * dark)[..., None]
    bowl = np.clip(abs(beside) / np.maximum(half, 1e-3), 0, 1)
    veins = 0.05 * np.sin(beside / wide * 19 + rng.uniform(0, 6)) * (1 - bowl)
    light = 0.5 + 0.45 * inner + 0.16 * bowl**2 + veins + rng.normal(0, 0.05)
    light += 0.12 * np.sign(beside) * np.sin(turn)
    rim = np.exp(-(((inside - 0.6) / 0.7) ** 2)) * 0.22
    share = np.clip(inner + 0.25 * bowl - 0.1, 0, 1)[..., None]
    colour = single(colours[0]) + share * (single(colours[1]) - single(colours[0]))
    region += body[..., None] * (colour * (light + rim)[..., None] - region)


def blossom(rng: np.random.Generator, size: int, palette: Palette) -> Sketch:
    """Blossoms of many overlapping shaded petals before leaves or a soft dark ground."""
    sharp = rng.random() < 0.4
    if sharp:
        picture, ground = foliage(rng, size, palette).canvas.pixels * 0.7, "green leaves"
    else:
        dark = tuple(blend(c, (0.05, 0.12, 0.06), 0.7) for c in palette)
        picture, ground = blurred_ground(rng, size, dark), "a blurred background"
    picture = np.ascontiguousarray(picture, np.float32)
    outer = vary(rng, pick(rng, _PETALS), 0.06)
    inner = blend(vary(rng, outer, 0.08), pick(rng, _PETALS), float(rng.uniform(0, 0.5)))
    broadest = float(rng.uniform(0.25, 0.52)) * size
    count = 1 if broadest > 0.36 * size else int(rng.integers(2, 6))
    double = rng.random() < 0.65
    for _ in range(count):
        middle = rng.uniform(0.1, 0.9, 2) * size if count > 1 else rng.uniform(0.4, 0.6, 2) * size
        reach = broadest * float(rng.uniform(0.6, 1.0)) if count > 1 else broadest
        rings = int(rng.integers(5, 10 if count == 1 else 7)) if double else 2
        number = int(rng.integers(9, 22))
        for ring in range(rings):
            # Inner petals are shorter and stand on the bases of the outer ones.
            far = 1 - ring / rings
            around = max(5, round(number * (0.5 + 0.5 * far)))
            length = reach * (0.42 if double else 0.85) * (0.45 + 0.55 * far)
            start = max(0.0, reach * far - length)
            for turn in (np.arange(around) + 0.5 * (ring % 2)) * 2 * np.pi / around:
                turn = float(turn + rng.normal(0, 0.06))
                base = (
                    float(middle[0] + start * np.cos(turn)),
                    float(middle[1] + start * np.sin(turn)),
                )
                wide = (2.4 if double else 2.0) * (start + 0.6 * length) / around / length
                _petal(
                    picture,
                    rng,
                    base,
                    turn,
                    length,
                    min(0.6, wide),
                    (inner, outer),
                    rng.uniform(-1, 1),
                )
        if not double:
            _stamens(picture, rng, (float(middle[0]), float(middle[1])), 0.25 * reach)
    picture *= (1 + 0.04 * fractal(rng, size, 0.7, 10))[..., None]
    return Sketch(canvas_of(picture), "a flower" if count == 1 else "flowers", ("petals", ground))


def _stamens(
    picture: Floats, rng: np.random.Generator, middle: tuple[float, float], reach: float
) -> None:
    count = 260
    away = reach * np.sqrt(rng.random(count))
    turn = rng.uniform(0, 2 * np.pi, count)
    ends = np.asarray(middle) + np.stack([away * np.cos(turn), away * np.sin(turn)], 1)
    paths = np.stack([ends, ends + 0.07 * reach], 1).astype(np.float32)
    colours = np.asarray((0.75, 0.52, 0.12)) * rng.uniform(0.3, 1.4, (count, 1))
    picture[:] = draw_strokes(picture, paths, colours, max(0.5, 0.06 * reach))


def _ball(
    picture: Floats,
    middle: tuple[float, float],
    reach: float,
    skin: Floats,
    light: Light,
    gloss: float,
) -> None:
    """Draw a lit ball that wears a picture as its skin, and the soft shadow beside it."""
    found = _box(picture.shape[0], middle, 1.6 * reach)
    if found is None:
        return
    rows, columns, across, down = found
    region = picture[rows, columns]
    cast = np.hypot(across + 0.35 * light[0] * reach, down + 0.35 * light[1] * reach - 0.1 * reach)
    region *= 1 - 0.6 * edge(1.02 * reach - cast, 0.25 * reach)[..., None]
    u, v = across / reach, down / reach
    depth = np.sqrt(np.clip(1 - u**2 - v**2, 0, 1))
    facing = u * light[0] + v * light[1] + depth * light[2]
    # The ground throws a little light back from below.
    shade = 0.25 + 0.8 * np.maximum(facing, 0) + 0.12 * np.maximum(v, 0) * (1 - depth)
    half = np.asarray([light[0], light[1], light[2] + 1]) / np.sqrt(2 + 2 * light[2])
    mirror = np.maximum(u * half[0] + v * half[1] + depth * half[2], 0)
    spot = gloss * mirror ** (12 + 90 * gloss)
    face = skin[rows, columns] * shade[..., None] + spot[..., None]
    region += edge((1 - np.hypot(u, v)) * reach, 0.5)[..., None] * (face - region)


def fruit(rng: np.random.Generator, size: int, palette: Palette) -> Sketch:
    """A heap of fruit with pores, streaks or seeds, on wood or cloth."""
    name, base = _FRUIT[int(rng.integers(len(_FRUIT)))]
    material = (planks, cloth)[int(rng.integers(2))]
    picture, ground = material(rng, size, palette)
    picture, light = np.ascontiguousarray(0.8 * picture, np.float32), lamp(rng, 0.45)
    reach = float(rng.uniform(0.06, 0.3)) * size
    pores = fractal(rng, size, 0.4, float(rng.uniform(4, 8)))
    streaks = fractal(rng, size, 1.0, 40, 5.0, rng.uniform(0, 3))
    share = np.clip(0.5 + 0.2 * fractal(rng, size, 1.5) + 0.2 * streaks, 0, 1)
    skin = ramp(share, (vary(rng, base, 0.12), base, blend(base, (0.95, 0.85, 0.4), 0.3)))
    skin = skin * (1 + 0.04 * pores)[..., None]
    if name == "berries":
        x, y = grid(size)
        cell = float(rng.uniform(3, 7))
        beside = np.mod(x / cell + 0.5 * np.mod(np.floor(y / cell), 2), 1) - 0.5
        seed = edge(0.17 * cell - np.hypot(beside * cell, 0.6 * (np.mod(y, cell) - cell / 2)), 0.5)
        skin = over(skin, (0.9, 0.75, 0.35), seed)
    count = int(np.clip(1.1 * (size / (2 * reach)) ** 2, 2, 45))
    gloss = 0.15 if name in {"peaches", "lemons"} else float(rng.uniform(0.3, 0.9))
    for _ in range(count):
        middle = (float(rng.uniform(0, size)), float(rng.uniform(0.1, 1) * size))
        _ball(
            picture,
            middle,
            reach * float(rng.uniform(0.8, 1.1)),
            np.asarray(skin, np.float32),
            light,
            gloss,
        )
    return Sketch(canvas_of(picture), name, (f"on {ground}",))


@dataclass(frozen=True)
class _Ovals:
    """Circles around one place on a table, seen at a slant: everything round about a cup."""

    x: Floats
    y: Floats
    left: float
    top: float
    flat: float

    def inside(self, reach: float, lower: float = 0.0) -> Floats:
        """Signed distance in px to an oval of a half width, so many px below the place."""
        away = np.hypot(self.x - self.left, (self.y - self.top - lower) / self.flat)
        return np.asarray((reach - away) * self.flat**0.5, np.float32)

    def turned(self, lower: float = 0.0) -> Floats:
        """Direction in radians from the place."""
        down = (self.y - self.top - lower) / self.flat
        return np.asarray(np.arctan2(down, self.x - self.left), np.float32)


def _saucer(
    picture: Floats, ovals: _Ovals, plate: float, lower: float, glaze: Colour, light: float
) -> Floats:
    ring = ovals.inside(plate, lower)
    slope = np.cos(ovals.turned(lower) - np.pi / 2 - light)
    shine = np.exp(-(((ring - 0.2 * plate) / (0.05 * plate)) ** 2)) * np.maximum(-slope, 0) ** 6
    tone = 0.75 + 0.12 * slope + 0.25 * np.exp(-((ring - 1.3) ** 2))
    face = single(glaze) * tone[..., None] + 0.6 * shine[..., None]
    return over(picture, face, edge(ring))


def _wall(
    picture: Floats, ovals: _Ovals, wide: float, tall: float, glaze: Colour, light: float
) -> Floats:
    """Draw the outside of a cup: from its rim to a smaller foot, with two long highlights."""
    share = np.clip((ovals.y - ovals.top) / tall, 0, 1)
    half = wide * (1 - 0.35 * share**2)
    across = (ovals.x - ovals.left) / half
    foot = 0.65 * ovals.flat * wide * np.sqrt(np.clip(1 - across**2, 0, 1))
    wall = np.minimum((1 - abs(across)) * half, ovals.top + tall + foot - ovals.y)
    wall = np.minimum(wall, ovals.y - ovals.top)
    sheen = np.exp(-(((across - light) / 0.12) ** 2)) + 0.5 * np.exp(
        -(((across + 0.75) / 0.07) ** 2)
    )
    tone = 0.35 + 0.55 * np.sqrt(np.clip(1 - (across - 0.6 * light) ** 2 / 2, 0, 1))
    face = single(glaze) * tone[..., None] + 0.5 * (sheen * (1 - share))[..., None]
    return over(picture * (1 - 0.5 * edge(wall, 9))[..., None], face, edge(wall))


def _drink(
    picture: Floats,
    rng: np.random.Generator,
    ovals: _Ovals,
    wide: float,
    hollow: Floats,
    light: float,
) -> Floats:
    """Fill a cup: a mottled surface that mirrors a lamp as an arc."""
    size, lower = picture.shape[0] // SUPERSAMPLE, 0.28 * wide
    drink = vary(rng, pick(rng, ((0.3, 0.16, 0.07), (0.6, 0.4, 0.2), (0.75, 0.5, 0.2))), 0.05)
    tones = (blend(drink, (0, 0, 0), 0.35), drink, blend(drink, (0.95, 0.8, 0.55), 0.5))
    liquid = ramp(scaled(fractal(rng, size, 1.2, 50, 2.0)), tones)
    level = np.minimum(ovals.inside(0.83 * wide, lower), hollow - 1)
    arc = edge(3 - abs(ovals.inside(0.55 * wide, lower)), 1.5)
    arc = arc * edge(np.cos(ovals.turned(lower) - light) - 0.55, 0.1)
    liquid = over(liquid, (0.98, 0.92, 0.8), 0.7 * arc)
    return over(
        picture, liquid * (1 - 0.4 * np.exp(-np.maximum(level, 0) / 2))[..., None], edge(level)
    )


def cup(rng: np.random.Generator, size: int, palette: Palette) -> Sketch:
    """A cup seen from above at a slant: glazed walls, a rim with a highlight, a drink inside."""
    x, y = grid(size)
    materials = (planks, cloth, *MATERIALS)
    picture, ground = materials[int(rng.integers(len(materials)))](rng, size, palette)
    glaze, light = pick(rng, palette), float(rng.uniform(-0.7, 0.7))
    rim = single(blend(glaze, (0.95, 0.94, 0.92), float(rng.uniform(0.3, 1))))
    flat, wide = float(rng.uniform(0.55, 0.85)), float(rng.uniform(0.2, 0.44)) * size
    left, top = float(rng.uniform(0.35, 0.65)) * size, float(rng.uniform(0.3, 0.5)) * size
    ovals = _Ovals(x, y, left, top, flat)
    tall, plate = wide * float(rng.uniform(0.5, 1.1)), float(rng.uniform(1.4, 1.75)) * wide
    picture = picture * (1 - 0.5 * edge(ovals.inside(1.03 * plate, 0.9 * tall), 7))[..., None]
    if rng.random() < 0.7:
        picture = _saucer(picture, ovals, plate, 0.75 * tall, glaze, light)
    picture = _wall(picture, ovals, wide, tall, glaze, light)
    bright = 0.8 + 0.25 * np.cos(ovals.turned() + np.pi / 2 - light)
    picture = over(picture, rim * bright[..., None], edge(ovals.inside(wide)))
    hollow = ovals.inside(0.93 * wide - 1)
    depth = 0.55 + 0.35 * np.cos(ovals.turned() - np.pi / 2 + light) + 0.1 * hollow / wide
    picture = over(picture, rim * depth[..., None], edge(hollow, 0.6))
    picture = _drink(picture, rng, ovals, wide, hollow, light)
    # Nothing in a photograph is quite even.
    grain = 1 + 0.015 * fractal(rng, size, 0.4, 5) + 0.015 * fractal(rng, size, 1.6, 60)
    details = (f"on {ground}", "shining glaze")
    return Sketch(canvas_of(picture * grain[..., None]), "a cup with a drink", details)


def metal(rng: np.random.Generator, size: int, palette: Palette) -> Sketch:
    """Brushed plates with screws, chrome pipes, or a heap of polished balls."""
    kind, tone = int(rng.integers(3)), vary(rng, (0.62, 0.62, 0.63), 0.1)
    if rng.random() < 0.4:
        tone = vary(rng, pick(rng, ((0.75, 0.6, 0.3), (0.7, 0.45, 0.32), (0.35, 0.37, 0.4))), 0.04)
    x, y = grid(size)
    turn = float(rng.uniform(0, np.pi))
    white = rng.standard_normal(x.shape, np.float32)
    scratch = smear(white, np.full(x.shape, turn, np.float32), 14)
    env = np.interp(
        np.linspace(0, 1, 256), np.linspace(0, 1, 6), rng.permutation(np.linspace(0.05, 1.5, 6))
    )
    if kind == 0:
        warm = scaled(fractal(rng, size, 2.0, 150, 4.0, turn + np.pi / 2))
        picture = ramp(warm, (blend(tone, (0, 0, 0), 0.4), tone, blend(tone, (1, 1, 1), 0.5)))
        picture = np.ascontiguousarray(picture * (1 + 0.11 * scratch)[..., None], np.float32)
        spacing, light = float(rng.uniform(30, 90)), lamp(rng)
        skin = np.broadcast_to(single(blend(tone, (1, 1, 1), 0.2)), picture.shape)
        for left in np.arange(spacing / 2, size, spacing):
            for top in np.arange(spacing / 2, size, spacing):
                _ball(picture, (float(left), float(top)), 0.12 * spacing, skin, light, 0.6)
        seam = np.minimum(np.mod(x, 2 * spacing), np.mod(y, 2 * spacing))
        picture *= (0.35 + 0.65 * edge(seam - 0.8, 0.6))[..., None]
        return Sketch(canvas_of(picture), "brushed metal", ("rivets",))
    if kind == 1:
        along = x * np.cos(turn) + y * np.sin(turn) + 0.3 * fractal(rng, size, 2, 100)
        wide = float(rng.uniform(8, 60))
        across = 2 * np.mod(along / wide, 1) - 1
        reflected = env[np.clip((across * 0.5 + 0.5) * 255, 0, 255).astype(int)]
        gain = reflected * (1 + 0.05 * scratch) * edge((1 - abs(across)) * wide / 2 - 0.4, 0.5)
        return Sketch(canvas_of(single(tone) * gain[..., None]), "metal pipes", ("reflections",))
    picture = np.ascontiguousarray(
        0.5 * MATERIALS[int(rng.integers(4))](rng, size, palette)[0], np.float32
    )
    reach = float(rng.uniform(0.05, 0.25)) * size
    for _ in range(int(np.clip((size / (2 * reach)) ** 2, 2, 50))):
        middle = (float(rng.uniform(0, size)), float(rng.uniform(0, size)))
        found = _box(picture.shape[0], middle, 1.2 * reach)
        if found is None:
            continue
        rows, columns, across, down = found
        u, v = across / reach, down / reach
        away = np.hypot(u, v)
        # A ball mirrors nearly the whole room, its rim what lies behind.
        index = np.clip((0.5 + 0.5 * v * (0.4 + 0.6 * away) + 0.03 * np.sin(4 * u)) * 255, 0, 255)
        face = single(tone) * env[index.astype(int)][..., None] * (1.05 - 0.5 * away**4)[..., None]
        region = picture[rows, columns]
        region *= 1 - 0.5 * edge((1.08 - away) * reach, 0.12 * reach)[..., None]
        region += edge((1 - away) * reach, 0.5)[..., None] * (face - region)
    return Sketch(canvas_of(picture), "metal balls", ("reflections",))
