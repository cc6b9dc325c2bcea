"""Buildings in the textured scenes: facades whose windows mirror the sky, tiers of tiled roofs."""

from __future__ import annotations

import cv2
import numpy as np

from faithdiff.data.scenes.colours import Colour, Palette, blend, pick, vary
from faithdiff.data.scenes.fields import (
    canvas_of,
    edge,
    fractal,
    grid,
    lamp,
    lit,
    over,
    single,
    tilted,
)
from faithdiff.data.scenes.materials import bricks, planks, plaster, roof_tiles, stones
from faithdiff.data.scenes.nature import leaf_layer, sky
from faithdiff.data.scenes.parts import SUPERSAMPLE, Floats, Sketch


def _ornament(rng: np.random.Generator, x: Floats, y: Floats, reach: float) -> Floats:
    """Height in ``[0, 1]`` of a repeated carving: rosettes, scrolls, teeth or crosses."""
    u, v = np.mod(x / reach, 1) * 2 - 1, np.mod(y / reach, 1) * 2 - 1
    away, turn = np.hypot(u, v), np.arctan2(v, u)
    kind = int(rng.integers(4))
    if kind == 0:
        leaves = int(rng.integers(4, 9))
        return edge(0.75 + 0.2 * np.cos(leaves * turn) - away, 0.12)
    if kind == 1:
        return edge(np.sin(9 * away - turn * rng.choice([1, 2, -1])), 0.3)
    if kind == 2:
        return edge(0.55 - np.maximum(abs(u), abs(v) * 0.8), 0.08)
    return edge(0.2 - np.minimum(abs(u - v), abs(u + v)), 0.1)


def _windows(
    picture: Floats, rng: np.random.Generator, palette: Palette, wide: float, high: float
) -> Floats:
    """Set rows of windows into a wall: reveal, frame, bars, and glass that mirrors the sky."""
    size = picture.shape[0] // SUPERSAMPLE
    x, y = grid(size)
    column, row = np.floor(x / wide), np.floor(y / high)
    u, v = (x / wide - column - 0.5) * wide, (y / high - row - 0.5) * high
    half_w, half_h = wide * float(rng.uniform(0.2, 0.38)), high * float(rng.uniform(0.25, 0.4))
    arch = half_w * float(rng.choice([0, 0, 1]))
    top = half_h + arch * (np.sqrt(np.clip(1 - (u / half_w) ** 2, 0, 1)) - 1)
    inside = np.asarray(np.minimum(half_w - abs(u), np.minimum(half_h - v, v + top)), np.float32)
    frame: Colour = vary(rng, (0.85, 0.84, 0.8), 0.1) if rng.random() < 0.6 else pick(rng, palette)
    surround = max(1.0, 0.05 * wide)
    if rng.random() < 0.6:
        stone = vary(rng, (0.72, 0.7, 0.66), 0.1)
        rough = (1 + 0.05 * fractal(rng, size, 0.6, 8))[..., None]
        picture = over(picture, single(stone) * rough, edge(inside + 2 * surround, 0.5))
        sill = np.minimum(
            half_w + 3 * surround - abs(u), np.minimum(v - half_h, half_h + 2.5 * surround - v)
        )
        picture = over(picture, single(stone) * 1.1 * rough, edge(sill, 0.5))
    picture = picture * (1 - 0.45 * edge(inside + surround, 1.0) * edge(-inside, 1.0))[..., None]
    picture = over(picture, frame, edge(inside, 0.5))
    bars_u = np.mod(u / half_w * float(rng.integers(1, 3)) + 1.0, 1.0)
    bars_v = np.mod((v + half_h) / half_h * float(rng.integers(1, 4)) / 2, 1.0)
    bar = max(0.5, 0.025 * wide)
    pane = (
        np.minimum(np.minimum(bars_u, 1 - bars_u) * half_w, np.minimum(bars_v, 1 - bars_v) * half_h)
        - bar
    )
    pane = np.minimum(pane, inside - 1.6 * bar)
    # Every pane hangs a little differently and mirrors another part of the sky.
    table = rng.normal(0, 1, 97)
    number = (np.floor(u / half_w + 9) * 3 + column * 7 + row * 31).astype(np.int32) % 97
    mirrored = fractal(rng, size, 1.7, 60) + 1.2 * table[number]
    dark, bright = vary(rng, (0.07, 0.09, 0.11), 0.03), vary(rng, (0.55, 0.65, 0.75), 0.1)
    share = np.clip(0.3 + 0.25 * mirrored - 0.3 * v / high, 0, 1)[..., None]
    glass = single(dark) + share * (single(bright) - single(dark))
    glass = glass * (1 - 0.6 * edge(3 * bar - (inside - 1.5 * bar), 2 * bar))[..., None]
    return over(picture, glass, edge(pane, 0.5))


def house(rng: np.random.Generator, size: int, palette: Palette) -> Sketch:
    """A front of brick, stone, plaster or wood with windows and bands, often at a slant."""
    material = (bricks, stones, plaster, plaster, planks)[int(rng.integers(5))]
    picture, name = material(rng, size, palette)
    wide, high = float(rng.uniform(22, 110)), float(rng.uniform(26, 120))
    x, y = grid(size)
    picture = _windows(picture, rng, palette, wide, high)
    band = max(2.0, 0.08 * high)
    down = np.mod(y, high)
    carved = band * 0.3 * _ornament(rng, x, down, band)
    height = np.where(down < band, carved + 0.15 * band, 0).astype(np.float32)
    tone = single(vary(rng, (0.74, 0.71, 0.65), 0.12))
    shade = lit(height, lamp(rng, 0.4), 0.35)
    picture = over(picture, tone * shade[..., None], edge(band - down, 0.5))
    shadow = 0.5 * np.exp(-np.maximum(down - band, 0) / (0.04 * high + 1)) * (down > band)
    picture = single(picture * (1 - shadow)[..., None])
    details = ["windows", name]
    if rng.random() < 0.6:
        picture = tilted(picture, float(rng.uniform(0.1, 0.45)), int(rng.integers(4)))
        details.append("in perspective")
    if rng.random() < 0.25:
        middles = rng.uniform(0, 1, (260, 2)) * (size, 0.35 * size) + (0, 0.75 * size)
        ivy, gain = (0.25, 0.36, 0.15), rng.uniform(0.5, 1.2, 260)
        picture = leaf_layer(rng, picture, middles, 4.0, ivy, gain)
        details.append("green leaves")
    return Sketch(canvas_of(picture), "a house front", tuple(details[:3]))


def _roof(
    picture: Floats, rng: np.random.Generator, palette: Palette, corners: Floats, body: float
) -> Floats:
    """Lay tiles over a trapezoid whose eaves curve up, with a ridge, rafters' ends and shadow.

    Args:
        picture: What lies behind.
        rng: Source of the tiles.
        palette: Colours of the tiles.
        corners: Upper left, upper right, lower right, lower left in px.
        body: Half the width in px of the storey below, on which the shadow falls.
    """
    size, side = picture.shape[0] // SUPERSAMPLE, picture.shape[0]
    tiles = roof_tiles(rng, size, palette)[0]
    share = float(rng.uniform(0.3, 0.9))
    source = np.asarray([[0, 0], [side, 0], [side, share * side], [0, share * side]], np.float32)
    matrix = cv2.getPerspectiveTransform(source, corners * SUPERSAMPLE)
    laid = cv2.warpPerspective(
        tiles, matrix, (side, side), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT
    )
    (ul, top), (ur, _), (lr, low), (ll, _) = corners
    x, y = grid(size)
    t = np.clip((y - top) / (low - top), 0, 1)
    left, right = ul + (ll - ul) * t**1.6, ur + (lr - ur) * t**1.6
    middle = np.abs(2 * (x - ll) / (lr - ll) - 1)
    eave = low - 0.12 * (low - top) * middle**3 * float(rng.choice([0, 1, 2]))
    inside = np.minimum(np.minimum(x - left, right - x), np.minimum(y - top, eave - y)).astype(
        np.float32
    )
    shade = 1.15 - 0.35 * t
    below = np.exp(-np.maximum(y - eave, 0) / (0.12 * (low - top) + 1))
    below = below * ((y > eave) & (abs(x - (ll + lr) / 2) < body))
    picture = picture * (1 - 0.65 * below)[..., None]
    picture = over(picture, laid * shade[..., None], edge(inside, 0.5))
    trim, thick = vary(rng, pick(rng, palette), 0.05), max(1.0, 0.035 * (low - top) + 0.8)
    beads = 0.75 + 0.35 * np.cos(2 * np.pi * x / max(1.6, 0.07 * (low - top)))
    rim = np.minimum(edge(thick - abs(inside - thick), 0.5), 1)
    return over(picture, single(trim) * beads[..., None], rim)


def _storey(
    rng: np.random.Generator,
    across: Floats,
    down: Floats,
    bay: float,
    high: float,
    paint: tuple[Colour, Colour],
) -> Floats:
    """One storey: round columns, between them doors with a lattice over a panel, painted bands.

    Args:
        rng: Source of what varies.
        across: Place in px to the right of the storey's middle.
        down: Place in px below its upper edge.
        bay: From column to column in px.
        high: Height of the storey in px.
        paint: Colours of wood and ornament.
    """
    size = across.shape[0] // SUPERSAMPLE
    wood, gold = paint
    beside = abs(np.mod(across, bay) - bay / 2)  # from the middle of a bay
    dark = blend(wood, (0, 0, 0), float(rng.uniform(0.4, 0.75)))
    wall = np.tile(single(dark), (*across.shape, 1))
    cell = max(2.2, bay / float(rng.integers(3, 9)))
    bars = [abs(np.mod(place, cell) - cell / 2) for place in (np.mod(across, bay), down)]
    lattice = edge(0.16 * cell - np.minimum(*bars)) * edge(0.6 * high - down)
    wall = over(wall, blend(wood, gold, float(rng.uniform(0, 0.5))), lattice)
    panel = abs(np.minimum(0.28 * bay - beside, 0.16 * high - abs(down - 0.78 * high)))
    wall = over(wall, wood, edge(0.04 * bay + 0.3 - panel))
    frame = abs(beside - 0.33 * bay)
    wall = over(wall, wood, edge(0.05 * bay + 0.3 - frame))
    column = (bay / 2 - beside) / (0.13 * bay)
    round_ = 0.4 + 0.75 * np.sqrt(np.clip(1 - column**2, 0, 1))
    wall = over(wall, single(wood) * round_[..., None], edge((1 - column) * 0.13 * bay))
    strip = float(rng.uniform(0.14, 0.24)) * high
    carved = _ornament(rng, across, down, max(3.0, strip / float(rng.integers(1, 3))))
    ground = blend(wood, (0.1, 0.15, 0.3), float(rng.uniform(0.2, 0.7)))
    band = over(np.tile(single(ground), (*across.shape, 1)), gold, carved)
    band = band * lit(1.2 * carved, lamp(rng, 0.45), 0.5)[..., None]
    wall = over(wall, band, edge(np.minimum(down, strip - down)))
    wall = over(wall, band, edge(down - high + 0.5 * strip))
    return single(wall * (1 + 0.06 * fractal(rng, size, 0.7, 10))[..., None])


def temple(rng: np.random.Generator, size: int, palette: Palette) -> Sketch:
    """Tiled roofs over storeys with columns, doors and painted bands, before the sky."""
    picture, (x, y) = sky(rng, size), grid(size)
    middle, tiers = float(rng.uniform(0.3, 0.7)) * size, int(rng.integers(1, 4))
    wide, top = float(rng.uniform(0.12, 0.4)) * size, float(rng.uniform(-0.05, 0.25)) * size
    step = (size - top) / (tiers + float(rng.uniform(0, 0.4)))
    paint = (pick(rng, palette), pick(rng, palette))
    for tier in range(tiers):
        roof, storey = step * float(rng.uniform(0.35, 0.5)), step * 0.7
        body = wide * (1.1 + 0.5 * tier)
        low, end = top + roof, top + roof + storey
        bay = max(5.0, 2 * body / float(rng.integers(4, 15)))
        wall = _storey(rng, single(x - middle), single(y - low), bay, storey, paint)
        inside = np.minimum(body - abs(x - middle), np.minimum(y - low + 0.3 * roof, end - y))
        side = 1.05 - 0.25 * (x - middle) / body
        picture = over(picture, wall * side[..., None], edge(inside))
        upper, outer = body * float(rng.uniform(0.3, 0.75)), body * float(rng.uniform(1.15, 1.4))
        ends = [(-upper, top), (upper, top), (outer, low), (-outer, low)]
        corners = single([(middle + across, down) for across, down in ends])
        picture = _roof(picture, rng, palette, corners, body)
        top = end - 0.25 * storey
    details = ("columns and ornament", "before the sky")
    return Sketch(canvas_of(picture), "tiled roofs", details)
