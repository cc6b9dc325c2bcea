"""Nature in the textured scenes: foliage, trees, rock, bark, marble, clouds and water."""

from __future__ import annotations

import cv2
import numpy as np

from faithdiff.data.scenes.colours import Colour, Palette, blend, pick, vary
from faithdiff.data.scenes.fields import (
    Real,
    as_bytes,
    blurred,
    canvas_of,
    cells,
    displaced,
    edge,
    fractal,
    grid,
    lamp,
    lit,
    over,
    per_cell,
    ramp,
    ridges,
    scaled,
    single,
    tilted,
    tinted,
)
from faithdiff.data.scenes.parts import SUBPIXEL_BITS, SUPERSAMPLE, Floats, Sketch
from faithdiff.data.scenes.strokes import draw_strokes, sampled

_GREENS: tuple[Colour, ...] = (
    (0.3, 0.42, 0.15), (0.2, 0.34, 0.16), (0.45, 0.5, 0.2), (0.36, 0.44, 0.3), (0.16, 0.26, 0.14),
)  # fmt: skip
_AUTUMN: tuple[Colour, ...] = ((0.7, 0.38, 0.1), (0.62, 0.2, 0.1), (0.75, 0.6, 0.18))
_ROCK: tuple[Colour, ...] = (
    (0.5, 0.47, 0.43),
    (0.6, 0.5, 0.38),
    (0.4, 0.42, 0.45),
    (0.55, 0.4, 0.32),
)


def draw_polygons(picture: Real, outlines: Real, colours: Real) -> Floats:
    """Fill convex outlines ``(N, K, 2)`` in final px, the first below the others."""
    bytes_ = as_bytes(picture)
    fixed = np.rint((outlines * SUPERSAMPLE - 0.5) * 2**SUBPIXEL_BITS).astype(np.int32)
    for points, ink in zip(fixed, (np.clip(colours, 0, 1) * 255).tolist(), strict=True):
        cv2.fillConvexPoly(bytes_, points, ink, cv2.LINE_AA, SUBPIXEL_BITS)
    return single(bytes_ / 255)


def leaf_layer(
    rng: np.random.Generator,
    picture: Real,
    middles: Real,
    reach: float,
    base: Colour,
    gain: Real,
) -> Floats:
    """Draw pointed leaves of two halves, one turned to the light, each in its own tone.

    Args:
        rng: Source of directions and tones.
        picture: What lies below.
        middles: ``(N, 2)`` in px.
        reach: Half the length of a leaf in px.
        base: Their colour.
        gain: Brightness of each, ``(N,)``.
    """
    count = len(middles)
    turn, wide = rng.uniform(0, 2 * np.pi, count), rng.uniform(0.15, 0.5, count)
    lengths = reach * rng.uniform(0.6, 1.3, count)
    along = np.stack([np.cos(turn), np.sin(turn)], 1) * lengths[:, None]
    beside = np.stack([-np.sin(turn), np.cos(turn)], 1) * (lengths * wide)[:, None]
    tone = (np.asarray(base) + rng.normal(0, 0.03, (count, 3))) * gain[:, None]
    tone = tone * (1 + rng.normal(0, 0.15, (count, 1)))
    outlines, colours = [], []
    for sign, light in ((1, 1.15), (-1, 0.85)):
        half = np.stack(
            [middles - along, middles - 0.3 * along + sign * beside, middles + 0.3 * along
             + 0.85 * sign * beside, middles + along], 1)  # fmt: skip
        outlines.append(half)
        colours.append(tone * light)
    # Both halves of a leaf follow each other, so that leaves cover leaves.
    pairs = np.stack(outlines, 1).reshape(2 * count, 4, 2).astype(np.float32)
    return draw_polygons(picture, pairs, np.stack(colours, 1).reshape(2 * count, 3))


def foliage(rng: np.random.Generator, size: int, palette: Palette) -> Sketch:
    """Leaves behind leaves, those in front brighter, in patches of sun."""
    del palette
    autumn = rng.random() < 0.3
    base = vary(rng, pick(rng, _AUTUMN if autumn else _GREENS), 0.05)
    picture = ramp(
        scaled(fractal(rng, size, 1.3)), (blend(base, (0, 0, 0), 0.95), blend(base, (0, 0, 0), 0.6))
    )
    reach, sun = float(rng.uniform(2.2, 15)), 1 + 0.35 * fractal(rng, size, 1.6, 70)
    for depth in (0.4, 0.62, 0.85, 1.1):
        count = int(min(1500, 0.3 * (size / reach) ** 2))
        middles = rng.uniform(-0.02 * size, 1.02 * size, (count, 2)).astype(np.float32)
        gain = depth * np.clip(sampled(sun, middles), 0.3, 1.8)
        picture = leaf_layer(rng, picture, middles, reach, base, gain)
    picture = picture * (1 + 0.06 * fractal(rng, size, 0.6, 8))[..., None]
    blurs = rng.random() < 0.1
    if blurs:
        picture = blurred(picture, float(rng.uniform(2, 5)))
        middles = rng.uniform(0.2 * size, 0.8 * size, (40, 2)).astype(np.float32)
        picture = leaf_layer(rng, picture, middles, 12.0, base, np.full(40, 1.2))
    details = ["autumn leaves" if autumn else "green leaves"]
    if blurs:
        details.append("a blurred background")
    return Sketch(canvas_of(picture), "foliage", tuple(details))


def sky(rng: np.random.Generator, size: int, clear: float = 0.25) -> Floats:
    """A sky that pales towards the horizon; ``clear`` is the probability of one without clouds."""
    _, y = grid(size)
    upper = pick(rng, ((0.25, 0.45, 0.75), (0.45, 0.6, 0.8), (0.6, 0.65, 0.7), (0.15, 0.2, 0.4)))
    low = blend(upper, pick(rng, ((0.95, 0.95, 0.95), (0.95, 0.75, 0.55), (0.8, 0.87, 0.95))), 0.8)
    picture = ramp(np.clip(y / size, 0, 1), (upper, low))
    if rng.random() >= clear:
        cover = float(rng.choice([-0.4, 0.1, 0.4]))
        body = fractal(rng, size, 1.7, 100, 1.8) + 0.35 * abs(fractal(rng, size, 1.2, 40))
        inside = edge(body + cover - 0.5, 0.8)
        bulk = blurred(8 * body, 1.5)
        shade = 0.7 + 0.25 * lit(bulk, lamp(rng), 0.3) + 0.015 * body
        picture = over(
            picture, np.clip(shade, 0, 1.05)[..., None] * single([1, 0.98, 0.97]), inside
        )
    return np.asarray(picture, np.float32)


def clouds(rng: np.random.Generator, size: int, palette: Palette) -> Sketch:
    """The sky alone, or above dark jagged hills."""
    picture = sky(rng, size, clear=0.0)
    details = ("soft light",)
    if rng.random() < 0.6:
        _, y = grid(size)
        crest = fractal(rng, size, 1.4, 150)[0] * 0.08 * size + rng.uniform(0.6, 0.85) * size
        tones = ((0.03, 0.04, 0.04), vary(rng, (0.3, 0.33, 0.3), 0.1))
        rough = ramp(np.clip(0.5 + 0.2 * fractal(rng, size, 0.9), 0, 1), tones)
        trees = 2.5 * abs(fractal(rng, size, 0.6, 12)[0])
        picture = over(picture, rough, edge(y - (crest - trees)[None, :], 0.5))
        details = ("dark hills",)
    return Sketch(canvas_of(picture), "a sky with clouds", details)


def _branches(
    rng: np.random.Generator, root: Floats, length: float, width: float, levels: int
) -> list[tuple[Floats, float]]:
    """Grow a tree of bent segments: for each level its paths ``(N, 4, 2)`` and their width."""
    bases, headings = root[None], np.asarray([-np.pi / 2 + rng.normal(0, 0.1)])
    grown: list[tuple[Floats, float]] = []
    for _ in range(levels):
        paths = [bases]
        heading = headings
        for _ in range(3):
            heading = heading + rng.normal(0, 0.13, len(heading))
            move = np.stack([np.cos(heading), np.sin(heading)], 1) * length / 3
            move = move * rng.uniform(0.7, 1.2, (len(heading), 1))
            paths.append(single(paths[-1] + move))
        stacked = np.stack(paths, 1)
        grown.append((stacked, width))
        forks = int(rng.integers(2, 4))
        starts = [stacked[:, -1], stacked[:, -1], stacked[:, 2]][:forks]
        turns = [0.45, -0.45, rng.choice([-0.8, 0.8])][:forks]
        bases = np.concatenate(starts)
        headings = np.concatenate(
            [heading + turn + rng.normal(0, 0.2, len(heading)) for turn in turns]
        )
        if len(bases) > 900:
            break
        length, width = 0.76 * length, max(0.5, 0.62 * width)
    return grown


def trees(rng: np.random.Generator, size: int, palette: Palette) -> Sketch:
    """Trees against the sky, bare or with crowns whose leaves show the light and the gaps."""
    del palette
    picture = sky(rng, size)
    bare, autumn = rng.random() < 0.35, rng.random() < 0.25
    base = vary(rng, pick(rng, _AUTUMN if autumn else _GREENS), 0.05)
    bark = vary(rng, (0.2, 0.16, 0.13), 0.05)
    tall = float(rng.uniform(0.16, 0.4)) * size
    for _ in range(int(rng.integers(1, 4)) if tall > 0.25 * size else int(rng.integers(2, 6))):
        root = np.asarray([rng.uniform(0, size), rng.uniform(0.85, 1.05) * size], np.float32)
        grown = _branches(rng, root, tall, 0.11 * tall, 7)
        for paths, width in grown:
            tones = np.asarray(bark) * rng.uniform(0.6, 1.3, (len(paths), 1))
            picture = draw_strokes(picture, paths, tones, width)
            if width > 1.5:
                lighter = paths - single([0.25 * width, 0])
                picture = draw_strokes(picture, lighter, tones * 1.5, 0.4 * width, 0.6)
        if bare:
            continue
        tips = np.concatenate([paths[:, -1] for paths, _ in grown[2:]])
        reach = float(rng.uniform(1.2, 4))
        for depth in (0.5, 0.8, 1.15):
            pick_tips = tips[rng.integers(len(tips), size=650)]
            middles = pick_tips + rng.normal(0, 0.08 * tall, (650, 2)) - (depth - 0.8) * 0.08 * tall
            relief = 1 - 0.5 * (middles[:, 1] - pick_tips[:, 1]) / (0.1 * tall)
            gain = depth * np.clip(relief, 0.55, 1.4)
            picture = leaf_layer(rng, picture, middles.astype(np.float32), reach, base, gain)
    season = "bare branches" if bare else "autumn leaves" if autumn else "green leaves"
    return Sketch(canvas_of(picture), "trees before the sky", (season,))


def rock(rng: np.random.Generator, size: int, palette: Palette) -> Sketch:
    """Rock, bark, sand or cracked earth: a rough height field in slanting light."""
    kind = int(rng.integers(4))
    base = pick(rng, _ROCK) if rng.random() < 0.8 else pick(rng, palette)
    grain, light = fractal(rng, size, 0.8, 30), lamp(rng, 0.35)
    if kind == 0:
        name, height = "rock", 9 * ridges(rng, size, float(rng.uniform(30, 120))) + 0.5 * grain
    elif kind == 1:
        name = "tree bark"
        lines = abs(fractal(rng, size, 1.5, float(rng.uniform(12, 40)), 4.0, np.pi / 2))
        height = 3.5 * np.minimum(lines, 1.2) + 0.45 * grain
        base = vary(rng, (0.36, 0.29, 0.23), 0.06)
    elif kind == 2:
        name = "rippled sand"
        _, y = grid(size)
        wave = np.sin(2 * np.pi * y / rng.uniform(8, 22) + 2.5 * fractal(rng, size, 1.8, 90, 3.0))
        height = float(rng.uniform(0.5, 1.5)) * wave + 0.25 * fractal(rng, size, 0.4, 8)
        base = vary(rng, (0.76, 0.64, 0.48), 0.06)
    else:
        name = "cracked earth"
        _, away, owner = cells(rng, size, float(rng.uniform(16, 50)))
        bent = displaced(away, 2.5 * fractal(rng, size, 1.3, 30), 2.5 * fractal(rng, size, 1.3, 30))
        height = 2.5 * edge(bent - 1.2, 1.2) + 0.4 * grain + 0.6 * per_cell(rng, owner)
    high = scaled(blurred(height, 0.5))
    hollow = np.clip(1 + 0.12 * (height - blurred(height, 4)), 0.35, 1.3)
    picture = ramp(
        high, (blend(base, (0.1, 0.08, 0.06), 0.4), base, blend(base, (1, 0.97, 0.9), 0.25))
    )
    shade = lit(height, light, 0.35) * hollow
    picture = tinted(rng, picture * shade[..., None], 0.08)
    if rng.random() < 0.3:
        patch = edge(fractal(rng, size, 1.3, 60) + 0.5 * grain - 0.8, 0.5)
        moss = single(pick(rng, _GREENS)) * (0.9 + 0.25 * fractal(rng, size, 0.4, 5))[..., None]
        picture = over(picture, moss, patch)
        return Sketch(canvas_of(picture), name, ("moss",))
    if rng.random() < 0.3:
        picture = tilted(picture, float(rng.uniform(0.1, 0.45)), int(rng.integers(4)))
        return Sketch(canvas_of(picture), name, ("in perspective",))
    return Sketch(canvas_of(picture), name, ("close up",))


def marble(rng: np.random.Generator, size: int, palette: Palette) -> Sketch:
    """Polished stone: veins at every scale, or speckled granite."""
    base = blend(pick(rng, palette), (0.92, 0.9, 0.87), float(rng.uniform(0.2, 0.9)))
    vein = blend(pick(rng, palette), (0.2, 0.18, 0.17), float(rng.uniform(0.2, 0.8)))
    if rng.random() < 0.4:
        _, _, owner = cells(rng, size, float(rng.uniform(1.4, 4)))
        share = np.clip(0.35 + 0.3 * per_cell(rng, owner) + 0.15 * fractal(rng, size), 0, 1)
        picture = ramp(share.astype(np.float32), (base, blend(base, vein, 0.4), vein))
        return Sketch(canvas_of(picture), "granite", ("speckles",))
    line = np.exp(-abs(fractal(rng, size, 1.7, 120, 2.0, rng.uniform(0, 3))) * rng.uniform(6, 16))
    fine = np.exp(-abs(fractal(rng, size, 1.4, 50, 2.0, rng.uniform(0, 3))) * rng.uniform(8, 20))
    share = np.clip(0.8 * line + 0.45 * fine + 0.1 * fractal(rng, size, 1.4) + 0.1, 0, 1)
    picture = ramp(share.astype(np.float32), (base, blend(base, vein, 0.35), vein))
    return Sketch(canvas_of(tinted(rng, picture, 0.03)), "marble", ("veins",))


def water(rng: np.random.Generator, size: int, palette: Palette) -> Sketch:
    """A rippled surface that mirrors the sky, finer towards the horizon, with glints."""
    del palette
    _, y = grid(size)
    deep = vary(rng, pick(rng, ((0.05, 0.15, 0.2), (0.1, 0.2, 0.18), (0.08, 0.12, 0.25))), 0.04)
    above = pick(rng, ((0.6, 0.75, 0.85), (0.85, 0.7, 0.55), (0.7, 0.75, 0.75)))
    height = fractal(rng, size, 2.1, float(rng.uniform(12, 50)), float(rng.uniform(2.5, 6)))
    height = 0.9 * height + 0.07 * fractal(rng, size, 1.2, 8, 2.0)
    slope_y, slope_x = (np.asarray(g, np.float32) * SUPERSAMPLE for g in np.gradient(height))
    mirror = np.clip(0.45 + 0.55 * slope_y + 0.2 * slope_x, 0, 1)
    picture = ramp(mirror.astype(np.float32), (deep, blend(deep, above, 0.5), above))
    light = lit(height, lamp(rng, 0.3), 0.6, float(rng.uniform(0, 1.5)))
    picture = np.asarray(picture * light[..., None], np.float32)
    if rng.random() < 0.6:
        shore = sky(rng, size)
        horizon = float(rng.uniform(0.15, 0.45)) * size
        bank = 3 + 4 * abs(fractal(rng, size, 1.0, 30)[0])
        land = ramp(np.clip(0.5 + 0.25 * fractal(rng, size, 0.7, 12), 0, 1),
                    ((0.03, 0.05, 0.03), pick(rng, _GREENS)))  # fmt: skip
        shore = over(shore, land, edge(y - (horizon - bank)[None, :], 0.5))
        picture = over(shore, picture, edge(y - horizon, 0.5))
        return Sketch(canvas_of(picture), "water", ("a far shore",))
    return Sketch(canvas_of(picture), "water", ("ripples",))
