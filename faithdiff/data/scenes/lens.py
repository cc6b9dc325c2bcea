"""What instruments see, in the textured scenes: stars, stained tissue, vessels, lamps at night."""

from __future__ import annotations

import numpy as np

from faithdiff.data.scenes.colours import Colour, Palette, blend, pick, vary
from faithdiff.data.scenes.fields import (
    Real,
    canvas_of,
    cells,
    displaced,
    edge,
    fractal,
    grid,
    over,
    per_cell,
    ramp,
    single,
)
from faithdiff.data.scenes.parts import SUPERSAMPLE, Floats, Sketch
from faithdiff.data.scenes.strokes import draw_strokes

_STARLIGHT: tuple[Colour, ...] = (
    (1.0, 0.95, 0.85), (0.75, 0.85, 1.0), (1.0, 0.7, 0.45), (1.0, 0.5, 0.4), (0.95, 0.95, 1.0),
)  # fmt: skip


def _add_spot(
    picture: Floats,
    middle: Real,
    colour: Floats,
    wide: float,
    flat: float,
    turn: float,
    power: float,
) -> None:
    """Add light that falls off as a Sersic profile around a place, within the box that it fills."""
    side = picture.shape[0]
    reach = int(np.ceil(SUPERSAMPLE * wide * (9 if power < 0.8 else 4))) + 2
    left, top = (int(v) for v in middle * SUPERSAMPLE)
    x0, x1 = max(0, left - reach), min(side, left + reach)
    y0, y1 = max(0, top - reach), min(side, top + reach)
    if x1 <= x0 or y1 <= y0:
        return
    across = ((np.arange(x0, x1) + 0.5) / SUPERSAMPLE - middle[0])[None, :]
    down = ((np.arange(y0, y1) + 0.5) / SUPERSAMPLE - middle[1])[:, None]
    along = across * np.cos(turn) + down * np.sin(turn)
    beside = (down * np.cos(turn) - across * np.sin(turn)) / flat
    light = np.exp(-(((along**2 + beside**2) / wide**2) ** power))
    picture[y0:y1, x0:x1] += light[..., None].astype(np.float32) * colour


def stars(rng: np.random.Generator, size: int, palette: Palette) -> Sketch:
    """Faint and bright points, tilted galaxies, spikes on the brightest, at times a nebula."""
    del palette
    picture = np.full((SUPERSAMPLE * size,) * 2 + (3,), 0.02, np.float32)
    picture += 0.012 * rng.standard_normal(picture.shape, np.float32)
    area = (size / 256) ** 2
    details = ["stars", "galaxies"]
    if rng.random() < 0.35:
        gas = np.exp(0.9 * fractal(rng, size, 1.6, 120) - 2.2)
        veil = np.exp(-abs(fractal(rng, size, 1.7, 70)) * 3)
        tint = single(pick(rng, ((0.9, 0.3, 0.35), (0.3, 0.5, 0.9), (0.4, 0.8, 0.7))))
        picture += (gas * (0.4 + veil))[..., None] * tint
        details.append("a glowing nebula")
    for _ in range(int(rng.integers(120, 900) * area)):
        middle = rng.uniform(0, size, 2)
        glow = float(np.exp(rng.normal(-1.2, 0.9)))
        colour = single(pick(rng, _STARLIGHT)) * np.float32(min(glow, 1.5))
        _add_spot(picture, middle, colour, float(rng.uniform(0.4, 0.9)), 1.0, 0.0, 1.0)
    for _ in range(int(rng.integers(20, 220) * area)):
        middle, wide = rng.uniform(0, size, 2), float(np.exp(rng.normal(0.3, 0.6)))
        colour = single(vary(rng, pick(rng, _STARLIGHT), 0.1)) * np.float32(rng.uniform(0.2, 1))
        flat, turn = float(rng.uniform(0.25, 1)), float(rng.uniform(0, 3))
        _add_spot(picture, middle, colour, wide, flat, turn, 0.6)
        if wide > 2.5:
            _add_spot(picture, middle, 0.8 * colour, 0.35 * wide, 1.0, 0.0, 1.0)
    for _ in range(int(rng.integers(0, 4))):
        _flare(picture, rng, rng.uniform(0, size, 2), float(rng.uniform(1.2, 3.5)), 4)
    return Sketch(canvas_of(np.minimum(picture, 1.2)), "the night sky", tuple(details))


def _flare(picture: Floats, rng: np.random.Generator, middle: Real, wide: float, rays: int) -> None:
    colour = single(blend(pick(rng, _STARLIGHT), (1, 1, 1), 0.4))
    _add_spot(picture, middle, 1.5 * colour, wide, 1.0, 0.0, 0.7)
    _add_spot(picture, middle, 0.25 * colour, 4 * wide, 1.0, 0.0, 0.7)
    turn = float(rng.uniform(0, np.pi))
    for ray in range(rays // 2):
        _add_spot(picture, middle, 0.8 * colour, 7 * wide, 0.05, turn + 2 * ray * np.pi / rays, 0.5)


def tissue(rng: np.random.Generator, size: int, palette: Palette) -> Sketch:
    """Stained tissue: fibres, dark nuclei, and glands whose cells have brown borders."""
    del palette
    pink = rng.random() < 0.5
    ground: Colour = (0.9, 0.78, 0.86) if pink else (0.9, 0.9, 0.93)
    stain: Colour = (0.75, 0.35, 0.58) if pink else (0.6, 0.4, 0.22)
    ink: Colour = (0.36, 0.22, 0.52) if pink else (0.45, 0.5, 0.72)
    turn, spacing = float(rng.uniform(0, np.pi)), float(rng.uniform(5, 16))
    fibres = fractal(rng, size, 0.9, 24, 3.0, turn)
    grain = fractal(rng, size, 0.8, 12)
    picture = ramp(
        np.clip(0.35 + 0.2 * fibres, 0, 1),
        (vary(rng, ground, 0.04), ground, blend(ground, stain, 0.55)),
    )
    gaps = edge(fractal(rng, size, 1.6, 60) + 0.3 * fibres - 1.3, 0.3)
    picture = over(picture, (0.95, 0.94, 0.95), gaps)
    bend = [0.22 * spacing * fractal(rng, size, 1.6, 3 * spacing) for _ in range(2)]
    middle, away, owner = cells(rng, size, spacing)
    middle, away = displaced(middle, *bend), displaced(away, *bend)
    reach = 0.24 * spacing * (1 + 0.25 * per_cell(rng, owner)) + 0.06 * spacing * grain
    # Not every cell shows its nucleus in the plane of the cut.
    reach = np.where(per_cell(rng, owner) < -0.5, -9, reach)
    nuclei = edge(reach - middle, 0.6)
    dark = single(ink) * (1 + 0.14 * per_cell(rng, owner) + 0.16 * grain)[..., None]
    border = np.exp(-((away / (0.07 * spacing + 0.5)) ** 2)) * (0.65 + 0.3 * grain)
    gland = edge(fractal(rng, size, 2.2, float(rng.uniform(70, 160))) - 0.15, 0.08)
    stained = blend(ground, stain, 0.35)
    picture = over(picture, single(stained) * (1 + 0.07 * grain)[..., None], 0.85 * gland)
    picture = over(picture, blend(stain, (0.2, 0.1, 0.05), 0.25), np.clip(border, 0, 1) * gland)
    picture = over(picture, dark, nuclei * (1 - gaps) * (1 - 0.35 * gland))
    return Sketch(canvas_of(picture), "stained tissue", ("cells", "under a microscope"))


def _vessel_paths(rng: np.random.Generator, root: Real, size: int) -> list[tuple[Floats, float]]:
    """Grow branching curves from a place outwards: each a path ``(K, 2)`` with its width."""
    grown: list[tuple[Floats, float]] = []
    queue = []
    for turn in rng.uniform(0, 2 * np.pi) + np.arange(6) * rng.uniform(0.7, 1.3):
        queue.append((root, float(turn), float(rng.uniform(1.8, 5)) * size / 256))
    while queue and len(grown) < 160:
        start, heading, width = queue.pop(0)
        count = int(rng.integers(8, 22))
        steps = heading + np.cumsum(rng.normal(0, 0.16, count))
        reach = (2.2 + width) * size / 256
        path = start + np.cumsum(np.stack([np.cos(steps), np.sin(steps)], 1) * reach, 0)
        path = np.concatenate([start[None], path]).astype(np.float32)
        grown.append((path, width))
        if width < 0.55 or not -20 < path[-1].min() <= path[-1].max() < size + 20:
            continue
        side = rng.choice([-1.0, 1.0])
        queue.append((path[-1], float(steps[-1]) - 0.2 * side, 0.86 * width))
        queue.append((path[-1 - count // 3], float(steps[-1]) + 0.75 * side, 0.55 * width))
    return grown


def vessels(rng: np.random.Generator, size: int, palette: Palette) -> Sketch:
    """Branching vessels or roots on a glowing ground, as in the back of an eye."""
    x, y = grid(size)
    eye = rng.random() < 0.6
    ground: Colour = vary(rng, (0.8, 0.4, 0.22), 0.08) if eye else pick(rng, palette)
    ink = blend(ground, (0.5, 0.08, 0.06) if eye else (0.1, 0.1, 0.1), 0.65)
    away = np.hypot(x - rng.uniform(0, size), y - rng.uniform(0, size)) / size
    grain = fractal(rng, size, 0.9, 20)
    picture = (
        single(ground)
        * (1.15 - 0.4 * away + 0.035 * grain + 0.05 * fractal(rng, size, 1.6))[..., None]
    )
    root = rng.uniform(0.15, 0.85, 2) * size
    details = ["fine branches"]
    if eye:
        reach = float(rng.uniform(0.07, 0.2)) * size
        disc = (
            reach
            - np.hypot(x - root[0], 1.05 * (y - root[1]))
            + 0.05 * reach * fractal(rng, size, 1.6, 60)
        )
        picture = over(picture, (0.97, 0.83, 0.5), 0.8 * edge(disc, 0.18 * reach))
        details.append("a bright disc")
    paths, widths = zip(*_vessel_paths(rng, root, size), strict=True)
    wide = np.maximum(0.5, np.asarray(widths))
    shade = np.asarray([blend(ink, ground, float(rng.uniform(0, 0.45))) for _ in paths])
    picture = draw_strokes(picture, paths, shade, wide, 0.85)
    if max(widths) > 2.2:
        # Light runs along the middle of the thick ones.
        thick = [path for path, width in zip(paths, widths, strict=True) if width > 2.2]
        shine = np.tile(np.asarray(blend(ink, (1, 0.6, 0.5), 0.35)), (len(thick), 1))
        picture = draw_strokes(picture, thick, shine, 0.7, 0.6)
    gain = 1 + 0.03 * fractal(rng, size, 0.5, 6)
    return Sketch(canvas_of(picture * gain[..., None]), "branching vessels", tuple(details))


def night(rng: np.random.Generator, size: int, palette: Palette) -> Sketch:
    """Towers of steel lattice and a smooth body before a dusk sky, with lamps that flare."""
    x, y = grid(size)
    high = vary(rng, (0.1, 0.16, 0.32), 0.05)
    low = blend(high, pick(rng, ((0.5, 0.4, 0.45), (0.75, 0.5, 0.3), (0.3, 0.4, 0.55))), 0.8)
    picture = (
        ramp(np.clip(y / size, 0, 1), (high, low)) * (1 + 0.02 * fractal(rng, size, 1.0))[..., None]
    )
    haze = edge(fractal(rng, size, 1.7, 90, 3.0) + y / size * 3 - 2.6, 0.8)
    picture = over(picture, blend(low, (0.1, 0.1, 0.15), 0.5), 0.7 * haze)
    for _ in range(int(rng.integers(0, 2)) + 1):
        middle, wide = float(rng.uniform(0.2, 0.8)) * size, float(rng.uniform(0.02, 0.08)) * size
        top = float(rng.uniform(0.05, 0.4)) * size
        # Chimneys, silos and round towers: what they share is the shading of a cylinder.
        across = (x - middle) / wide
        cap = float(rng.choice([0.01, 0.3, 0.8]))
        outline = wide * np.sqrt(np.clip((y - top) / (cap * wide), 0, 1))
        round_ = 0.35 + 0.65 * np.sqrt(np.clip(1 - (across + 0.35) ** 2 / 2, 0, 1))
        face = single(blend(pick(rng, palette), (0.95, 0.93, 0.88), 0.6)) * round_[..., None]
        face = face * (1 + 0.05 * fractal(rng, size, 0.8, 20, 3.0, np.pi / 2))[..., None]
        band = np.mod(y / (rng.uniform(1.5, 7) * wide), 1) < 0.06
        face = face * np.where(band, 0.5, 1.0)[..., None]
        picture = over(picture, face, edge(outline - abs(x - middle)))
    for _ in range(int(rng.integers(1, 5))):
        picture = _lattice(picture, rng, float(rng.uniform(0, size)))
    ground = size * float(rng.uniform(0.85, 0.97)) + 3 * fractal(rng, size, 0.9, 30)[0]
    soil = single((0.05, 0.05, 0.05)) * (1 + 0.5 * fractal(rng, size, 0.8))[..., None]
    picture = np.ascontiguousarray(over(picture, soil, edge(y - ground[None, :])), np.float32)
    for _ in range(int(rng.integers(2, 9))):
        spot = np.asarray([rng.uniform(0, size), rng.uniform(0.75, 0.97) * size])
        _flare(picture, rng, spot, float(rng.uniform(0.8, 3)), int(rng.choice([4, 8, 12])))
    return Sketch(
        canvas_of(np.minimum(picture, 1.2)), "towers at dusk", ("bright lamps", "steel lattice")
    )


def _lattice(picture: Floats, rng: np.random.Generator, middle: float) -> Floats:
    size = picture.shape[0] // SUPERSAMPLE
    wide, top = float(rng.uniform(2.5, 10)), float(rng.uniform(0.0, 0.5)) * size
    levels = np.arange(top, size, 1.4 * wide)
    half = wide * (0.4 + 0.6 * (levels - top) / (size - top))
    left, right = (np.stack([middle + s * half, levels], 1) for s in (-1, 1))
    crossed = [
        np.stack([a[:-1], b[1:]], 1)
        for a, b in ((left, right), (right, left), (left, left), (right, right))
    ]
    paths = np.concatenate([*crossed, np.stack([left, right], 1)]).astype(np.float32)
    tone = rng.uniform(0.1, 0.6)
    colours = np.full((len(paths), 3), tone) * rng.uniform(0.6, 1.3, (len(paths), 1))
    return draw_strokes(picture, paths, colours, float(rng.choice([0.5, 0.5, 1.0])))
