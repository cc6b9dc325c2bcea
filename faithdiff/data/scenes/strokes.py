"""Strokes of the textured scenes: thousands of short lines that follow a flow.

Fur, hair, grass and whiskers are drawn line by line, half a pixel wide and more, so that single
hairs stand out of the mass as they do in a sharp photograph.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from faithdiff.data.scenes.colours import Colour, Palette, blend, pick, vary
from faithdiff.data.scenes.fields import (
    Real,
    as_bytes,
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
    smear,
)
from faithdiff.data.scenes.parts import SUBPIXEL_BITS, SUPERSAMPLE, Canvas, Floats, Sketch

_COATS: tuple[Colour, ...] = (
    (0.62, 0.46, 0.3), (0.42, 0.31, 0.22), (0.72, 0.62, 0.5), (0.25, 0.22, 0.2),
    (0.5, 0.48, 0.46), (0.68, 0.42, 0.22), (0.85, 0.8, 0.74), (0.35, 0.3, 0.27),
)  # fmt: skip


def draw_strokes(
    picture: Real,
    paths: Floats | Sequence[Floats],
    colours: Real,
    width: float | Real,
    opacity: float = 1.0,
) -> Floats:
    """Draw lines, the first below the others.

    Args:
        picture: ``(2 size, 2 size, 3)`` in ``[0, 1]``.
        paths: N lines of ``(K, 2)`` points in final px.
        colours: ``(N, 3)``.
        width: Of all lines or of each, in final px; 0.5 is the thinnest.
        opacity: Of all strokes together.

    Returns:
        A new picture.
    """
    bytes_ = as_bytes(picture)
    scale, half = SUPERSAMPLE * 2**SUBPIXEL_BITS, 2 ** (SUBPIXEL_BITS - 1)
    if isinstance(paths, np.ndarray):
        fixed = list(np.rint(paths * scale - half).astype(np.int32))
    else:
        fixed = [np.rint(path * scale - half).astype(np.int32) for path in paths]
    thickness = np.maximum(1, np.rint(np.full(len(fixed), width) * SUPERSAMPLE))
    inks = (np.clip(colours, 0, 1) * 255).tolist()
    for points, ink, thick in zip(fixed, inks, thickness.astype(int).tolist(), strict=True):
        cv2.polylines(bytes_, [points], False, ink, thick, cv2.LINE_AA, SUBPIXEL_BITS)
    return over(picture, single(bytes_ / 255), np.full((1, 1), opacity))


def follow(roots: Floats, angle: Real, lengths: Real, bend: Real, steps: int = 4) -> Floats:
    """Grow a path ``(N, steps + 1, 2)`` from each root along a flow, turned by ``bend`` radians."""
    side = angle.shape[0]
    paths = [roots]
    for index in range(steps):
        spot = np.clip((paths[-1] * SUPERSAMPLE).astype(np.int32), 0, side - 1)
        heading = angle[spot[:, 1], spot[:, 0]] + bend * (0.4 + index / steps)
        move = np.stack([np.cos(heading), np.sin(heading)], 1) * (lengths / steps)[:, None]
        paths.append((paths[-1] + move).astype(np.float32))
    return np.stack(paths, 1)


def sampled(picture: Real, points: Real) -> Floats:
    """Read a picture or field at points ``(N, 2)`` in final px."""
    side = picture.shape[0]
    spot = np.clip((points * SUPERSAMPLE).astype(np.int32), 0, side - 1)
    return np.asarray(picture[spot[:, 1], spot[:, 0]])


def coat(
    rng: np.random.Generator,
    base: Real,
    angle: Real,
    length: float,
    spread: float = 0.25,
    where: Floats | None = None,
    density: float = 1.0,
) -> Floats:
    """Cover a picture with hair in its own colours, light tips over dark roots.

    Args:
        rng: Source of every hair.
        base: Picture whose colours the hair takes at its roots.
        angle: Flow of the hair in radians, ``(2 size, 2 size)``.
        length: Of a hair in px.
        spread: Deviation of a hair's direction from the flow in radians.
        where: Share of roots that grow a hair, by place; everywhere by default.
        density: Number of hairs, 1: as many as hide the ground.
    """
    size = base.shape[0] // SUPERSAMPLE
    ground = smear(rng.standard_normal(angle.shape, np.float32), angle, 0.3 * length)
    shade = 0.72 + 0.13 * ground
    if where is not None:
        shade = 1 + where * (shade - 1)
    picture = np.asarray(base * shade[..., None], np.float32)
    count = int(density * min(7000, 1.6 * size * size / length))
    layers = ((0.35, 0.72, 1.0), (0.4, 1.0, 0.5), (0.25, 1.28, 0.5))
    for share, gain, width in layers:
        roots = rng.uniform(-0.02 * size, 1.02 * size, (int(share * count), 2)).astype(np.float32)
        if where is not None:
            roots = roots[sampled(where, roots) > rng.random(len(roots))]
        number = len(roots)
        lengths = (length * rng.uniform(0.5, 1.3, number)).astype(np.float32)
        bend = rng.normal(0, spread, number).astype(np.float32)
        paths = follow(roots, angle, lengths, bend)
        tone = gain * (1 + rng.normal(0, 0.14, (number, 1)))
        # A hair shows the colour of its middle, so that markings keep their place.
        colours = sampled(base, paths[:, 2]) * tone
        picture = draw_strokes(picture, paths, colours, width, 0.85)
    return picture


def flow(rng: np.random.Generator, size: int, wander: float = 0.6, coarse: float = 120) -> Floats:
    """A smooth field of directions in radians around a random one."""
    return np.asarray(
        rng.uniform(0, 2 * np.pi) + wander * fractal(rng, size, 2.4, coarse), np.float32
    )


def markings(rng: np.random.Generator, size: int, angle: Floats) -> tuple[Floats, str]:
    """How dark a coat is by place, in ``[0, 1]``, and the word for its pattern."""
    kind = rng.random()
    x, y = grid(size)
    if kind < 0.4:
        mean = float(angle.mean())
        across = x * np.cos(mean) + y * np.sin(mean)
        period = float(rng.uniform(9, 36))
        wave = across / period + 0.45 * fractal(rng, size, 1.8, 60)
        return edge(np.sin(2 * np.pi * wave).astype(np.float32) - 0.1, 0.5), "tabby stripes"
    if kind < 0.6:
        return edge(fractal(rng, size, 2.2, float(rng.uniform(14, 60))) - 0.5, 0.2), "spots"
    return scaled(fractal(rng, size, 1.6, 100)), "soft fur"


def fur(rng: np.random.Generator, size: int, palette: Palette) -> Sketch:
    """A coat close up, plain, striped or spotted, in the lie of the body beneath."""
    del palette
    angle = flow(rng, size, float(rng.uniform(0.2, 0.9)))
    dark, name = markings(rng, size, angle)
    tone = pick(rng, _COATS)
    light = blend(tone, (1, 0.96, 0.88), float(rng.uniform(0.1, 0.5)))
    deep = blend(tone, (0.08, 0.06, 0.05), float(rng.uniform(0.3, 0.75)))
    picture = ramp(np.clip(dark + 0.08 * fractal(rng, size, 1.0), 0, 1), (light, tone, deep))
    picture = coat(rng, picture, angle, float(rng.uniform(5, 22)), float(rng.uniform(0.1, 0.35)))
    body = lit(14 * fractal(rng, size, 2.6, 150), lamp(rng, 0.6), 0.5)
    return Sketch(canvas_of(picture * body[..., None]), "fur", (name, "close up"))


def hair(rng: np.random.Generator, size: int, palette: Palette) -> Sketch:
    """Long combed or wavy hair with sheen and stray strands."""
    x, y = grid(size)
    base = pick(rng, _COATS) if rng.random() < 0.85 else pick(rng, palette)
    across = fractal(rng, size, 2.2, 130)
    wave = float(rng.uniform(0, 0.5)) * np.sin(y / rng.uniform(8, 30) + 1.5 * across)
    angle = np.asarray(rng.uniform(0.9, 2.2) + 0.35 * across + wave, np.float32)
    strands = smear(rng.standard_normal(x.shape, np.float32), angle, 12)
    locks = smear(fractal(rng, size, 0.8, 14), angle, 12)
    sheen = np.exp(
        -((y - rng.uniform(0, size) + 14 * across) ** 2) / (2 * rng.uniform(10, 40) ** 2)
    )
    share = 0.42 + 0.1 * strands + 0.13 * locks + 0.25 * sheen * (1 + 0.35 * strands)
    colours = (blend(base, (0, 0, 0), 0.8), base, blend(base, (1, 0.97, 0.9), 0.65))
    picture = ramp(np.clip(share, 0, 1).astype(np.float32), colours)
    count = int(3 * size)
    roots = rng.uniform(-0.1 * size, size, (count, 2)).astype(np.float32)
    bend = rng.normal(0, 0.12, count).astype(np.float32)
    paths = follow(roots, angle, np.full(count, 34, np.float32), bend, 6)
    tone = rng.choice([0.6, 1.25, 1.5], count)[:, None] * (1 + rng.normal(0, 0.1, (count, 1)))
    picture = draw_strokes(picture, paths, sampled(picture, paths[:, 3]) * tone, 0.5, 0.75)
    detail = "wavy" if wave.std() > 0.15 else "combed"
    return Sketch(canvas_of(picture), "long hair", (detail, "shining strands"))


def grass(rng: np.random.Generator, size: int, palette: Palette) -> Sketch:
    """Blades, needles or straw, rows behind darker, at times with small flowers."""
    straw = rng.random() < 0.3
    base: Colour = vary(rng, (0.62, 0.52, 0.3) if straw else (0.3, 0.42, 0.14), 0.07)
    picture = ramp(
        scaled(fractal(rng, size, 1.2)), (blend(base, (0, 0, 0), 0.85), blend(base, (0, 0, 0), 0.5))
    )
    length = float(rng.uniform(10, 60))
    lean = -np.pi / 2 + 0.25 * fractal(rng, size, 2.0, 80)
    for depth in np.linspace(0.45, 1.3, 6):
        count = int(min(900, 0.25 * size * size / length))
        roots = rng.uniform(-0.1, 1.25, (count, 2)).astype(np.float32) * np.float32(size)
        lengths = (length * rng.uniform(0.4, 1.2, count)).astype(np.float32)
        bend = rng.normal(0, 0.45, count).astype(np.float32)
        paths = follow(roots, np.asarray(lean, np.float32), lengths, bend, 5)
        tone = depth * (1 + rng.normal(0, 0.2, (count, 1)))
        colours = (np.asarray(base) + rng.normal(0, 0.035, (count, 3))) * tone
        width = float(rng.choice([0.5, 1.0, 1.5])) if length > 20 else 0.5
        picture = draw_strokes(picture, paths, colours, width)
        # A lighter edge makes blades out of lines.
        picture = draw_strokes(picture, paths + np.float32(0.4), colours * 1.25, 0.5, 0.6)
    details = ["dry straw" if straw else "green blades"]
    if rng.random() < 0.3:
        canvas = canvas_of(picture)
        flowers(canvas, rng, palette, int(rng.integers(5, 40)))
        picture = canvas.pixels
        details.append("small flowers")
    sun = 1 + 0.2 * fractal(rng, size, 1.8, 80)
    return Sketch(canvas_of(picture * sun[..., None]), "grass", tuple(details))


def flowers(canvas: Canvas, rng: np.random.Generator, palette: Palette, count: int) -> None:
    """Scatter small blossoms of five to nine petals."""
    petal = pick(rng, palette)
    for _ in range(count):
        middle = rng.uniform(0, canvas.size, 2)
        reach, petals = float(rng.uniform(2, 6)), int(rng.integers(5, 10))
        turns = rng.uniform(0, 7) + np.arange(petals) * 2 * np.pi / petals
        ends = middle + reach * np.stack([np.cos(turns), 0.8 * np.sin(turns)], 1)
        paths = np.stack([np.broadcast_to(middle, ends.shape), ends], 1).astype(np.float32)
        tones = np.asarray(petal) * rng.uniform(0.7, 1.2, (petals, 1))
        canvas.pixels = draw_strokes(canvas.pixels, paths, tones, 0.5 * reach)
        dot = np.asarray([[middle, middle + 0.1]], np.float32)
        canvas.pixels = draw_strokes(
            canvas.pixels, dot, np.asarray([[0.85, 0.7, 0.15]]), 0.4 * reach
        )


def _eye(
    picture: Floats,
    rng: np.random.Generator,
    middle: tuple[float, float],
    reach: float,
    iris: Colour,
    slant: float,
) -> Floats:
    """An animal's eye: a ring of iris with fibres between dark lids, pupil, mirrored light."""
    size = picture.shape[0] // SUPERSAMPLE
    x, y = grid(size)
    right, below = x - np.float32(middle[0]), y - np.float32(middle[1])
    across, down = right + np.float32(slant) * below, below - np.float32(slant) * right
    away, turn = np.hypot(across, down), np.arctan2(down, across)
    lids = 0.95 * (1 - (across / (1.4 * reach)) ** 2) * reach - abs(down)
    picture = over(picture, (0.07, 0.05, 0.05), edge(lids + 0.16 * reach, 0.09 * reach + 0.3))
    fibres = 0.12 * np.sin(turn * 37 + 6 * rng.random()) + 0.1 * fractal(rng, size, 0.7, 8)
    bright = blend(iris, (1, 1, 0.8), 0.35)
    ball = ramp(np.clip(away / reach + fibres, 0, 1), (bright, iris, blend(iris, (0, 0, 0), 0.6)))
    # The upper lid throws a shadow on the ball.
    ball = ball * single(0.75 + 0.35 * np.clip(down / reach + 0.5, 0, 1))[..., None]
    inside = np.minimum(reach - away, lids)
    picture = over(picture, ball, edge(inside, 0.6))
    narrow = float(rng.uniform(0.2, 0.75))
    pupil = np.minimum(narrow * (0.62 * reach - np.hypot(across / narrow, down)), inside)
    picture = over(picture, (0.02, 0.02, 0.02), edge(pupil))
    glint = 0.17 * reach - np.hypot(right + 0.3 * reach, below + 0.38 * reach)
    return over(picture, (1, 1, 1), edge(glint, 0.4))


def animal(rng: np.random.Generator, size: int, palette: Palette) -> Sketch:
    """The face of a furry animal: fur that runs from the nose outwards, eyes, nose, whiskers."""
    del palette
    x, y = grid(size)
    unit = size * float(rng.uniform(0.22, 0.6))  # half the width of the face
    left, top = size * rng.uniform(0.3, 0.7), size * rng.uniform(0.35, 0.65)
    across, down = (x - np.float32(left)) / unit, (y - np.float32(top)) / unit
    outward = np.arctan2(down - 0.25, across).astype(np.float32)
    angle = outward + 0.25 * fractal(rng, size, 2.2, 60)
    coat_tone, eye_wide = pick(rng, _COATS), float(rng.uniform(0.38, 0.5))
    eye = float(rng.uniform(0.14, 0.2)) * unit
    light = blend(coat_tone, (1, 0.97, 0.9), 0.5)
    deep = blend(coat_tone, (0.07, 0.05, 0.05), 0.7)
    stripe = np.sin(9 * across + 0.5 * fractal(rng, size, 1.8, 40)) * np.exp(-2 * (down + 0.9) ** 2)
    cheek = np.sin(11 * down - 3 * abs(across)) * np.exp(-3 * (abs(across) - 0.9) ** 2)
    striped = rng.random() < 0.6
    share = 0.5 + (0.4 * (stripe + 0.7 * cheek) if striped else 0.0) + 0.1 * fractal(rng, size, 1.2)
    share = share - 0.45 * np.exp(-6 * (across**2 + (down - 0.55) ** 2))
    picture = ramp(np.clip(share, 0, 1).astype(np.float32), (light, coat_tone, deep))
    iris = pick(rng, ((0.45, 0.55, 0.2), (0.75, 0.55, 0.15), (0.35, 0.5, 0.6), (0.35, 0.2, 0.1)))
    height = -0.22 * unit * (across**2 + 0.7 * down**2) + 0.18 * unit * np.exp(-14 * across**2)
    shade = lit(height, lamp(rng, 0.6), 0.55)
    picture = coat(rng, picture, angle, 0.14 * unit + 3, 0.25)
    picture = np.asarray(picture * shade[..., None], np.float32)
    for sign in (-1, 1):
        spot = (left + sign * eye_wide * unit, top - 0.15 * unit)
        picture = _eye(picture, rng, spot, eye, iris, 0.25 * sign)
    snout = np.asarray(0.13 - np.hypot(across, 1.4 * (down - 0.42) + 0.5 * abs(across)), np.float32)
    skin = vary(rng, (0.6, 0.35, 0.3) if rng.random() < 0.5 else (0.12, 0.1, 0.1), 0.04)
    rough = (1 + 0.12 * fractal(rng, size, 0.6, 6) - 1.5 * (down - 0.4))[..., None]
    picture = over(picture, single(skin) * rough, edge(snout * unit, 0.8))
    mouth = abs(down - 0.62 + 0.06 * np.cos(14 * across)) * unit
    line = edge(1.2 - mouth, 0.6) * edge((0.31 - abs(across)) * unit, 1.5)
    picture = over(picture, (0.1, 0.07, 0.07), 0.6 * line)
    picture = _whiskers(picture, rng, (left, top + 0.55 * unit), unit)
    details = ("tabby stripes" if striped else "soft fur", "eyes and whiskers")
    return Sketch(canvas_of(picture), "the face of a furry animal", details)


def _whiskers(
    picture: Floats, rng: np.random.Generator, middle: tuple[float, float], unit: float
) -> Floats:
    count = int(rng.integers(8, 26))
    sign = rng.choice([-1.0, 1.0], count)
    roots = np.stack([middle[0] + sign * unit * rng.uniform(0.1, 0.3, count),
                      middle[1] + unit * rng.uniform(-0.12, 0.12, count)], 1)  # fmt: skip
    heading = np.where(sign > 0, 0, np.pi) + sign * rng.normal(0.15, 0.3, count)
    t = np.linspace(0, 1, 8)[None, :]
    reach = unit * rng.uniform(0.5, 1.2, count)[:, None]
    droop = rng.uniform(-0.1, 0.3, count)[:, None] * reach * t**2
    paths = np.stack([roots[:, :1] + reach * t * np.cos(heading)[:, None],
                      roots[:, 1:] + reach * t * np.sin(heading)[:, None] + droop], 2)  # fmt: skip
    colours = np.full((count, 3), 0.93) * rng.uniform(0.8, 1.05, (count, 1))
    return draw_strokes(picture, paths.astype(np.float32), colours, 0.5, 0.8)


def blurred_ground(rng: np.random.Generator, size: int, palette: Palette) -> Floats:
    """A background out of focus: large soft shapes of the palette's colours."""
    first = pick(rng, palette)
    colours = (first, blend(first, pick(rng, palette), 0.4), blend(first, pick(rng, palette), 0.4))
    field = scaled(fractal(rng, size, float(rng.uniform(1.0, 2.0)), 90))
    return blurred(ramp(field, colours), float(rng.uniform(2, 8)))
