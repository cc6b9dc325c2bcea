"""Materials of the textured scenes: masonry, roofs, wood and textiles, lit from one side.

Each function fills a whole picture and returns it with the caption's name of the material. Grain,
chips and threads go down to a pixel: a prior cannot draw what it never saw.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from faithdiff.data.scenes.colours import Colour, Palette, blend, pick, vary
from faithdiff.data.scenes.fields import (
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
    scaled,
    single,
    smear,
    tilted,
    tinted,
)
from faithdiff.data.scenes.parts import Floats, Sketch

Material: TypeAlias = Callable[[np.random.Generator, int, Palette], tuple[Floats, str]]

_CLAY: tuple[Colour, ...] = (
    (0.55, 0.26, 0.18),
    (0.66, 0.36, 0.25),
    (0.45, 0.3, 0.25),
    (0.7, 0.5, 0.36),
)
_STONE: tuple[Colour, ...] = (
    (0.5, 0.48, 0.45),
    (0.62, 0.57, 0.48),
    (0.38, 0.4, 0.42),
    (0.68, 0.64, 0.6),
)
_TIMBER: tuple[Colour, ...] = (
    (0.5, 0.33, 0.2),
    (0.64, 0.46, 0.28),
    (0.36, 0.24, 0.17),
    (0.6, 0.54, 0.47),
)


def either(rng: np.random.Generator, usual: tuple[Colour, ...], palette: Palette) -> Colour:
    """Choose a material's usual colour or, one time in three, one of the palette."""
    return pick(rng, palette) if rng.random() < 0.33 else pick(rng, usual)


def bricks(rng: np.random.Generator, size: int, palette: Palette) -> tuple[Floats, str]:
    """Courses of bricks of varied tone, chipped at their edges, in sandy mortar."""
    x, y = grid(size)
    high = float(rng.uniform(5, 22))
    wide, joint = high * float(rng.uniform(1.8, 3.2)), float(np.clip(0.09 * high, 0.6, 2.0))
    wobble = 0.035 * high * fractal(rng, size, 1.3, 4 * high)
    row = np.floor((y + wobble) / high).astype(np.int32)
    across = (x + wobble) / wide + single(rng.choice([0.5, 0.5, 0.33])) * row
    column = np.floor(across).astype(np.int32)
    beside, below = across - column, (y + wobble) / high - row
    inside = np.minimum(
        np.minimum(beside, 1 - beside) * wide, np.minimum(below, 1 - below) * high
    ) - single(joint)
    grain = fractal(rng, size, 0.7, 20)
    body = edge(inside + 0.25 * joint * grain, 0.5)
    table = rng.normal(0, 1, (251, 3)).astype(np.float32)
    tone = table[(row * 71 + column * 13) % 251]
    clay, mortar = either(rng, _CLAY, palette), vary(rng, (0.66, 0.63, 0.58), 0.12)
    face = np.asarray(clay, np.float32) * (1 + 0.13 * tone[..., :1] + 0.05 * tone)
    picture = over(np.broadcast_to(single(mortar), face.shape), face, body)
    height = float(rng.uniform(0.8, 2)) * edge(inside, 0.12 * high) + 0.22 * grain * (0.5 + body)
    return tinted(rng, picture * lit(height, lamp(rng))[..., None], 0.07), "bricks"


def stones(rng: np.random.Generator, size: int, palette: Palette) -> tuple[Floats, str]:
    """Rubble or cobbles: rounded stones of their own tones with dark joints."""
    spacing = float(rng.uniform(9, 46))
    _, away, owner = cells(rng, size, spacing)
    rough = fractal(rng, size, 1.1, spacing)
    inside = away - 0.06 * spacing + 0.03 * spacing * rough
    round_top = np.sqrt(np.clip(inside / (0.35 * spacing), 0, 1))
    height = 0.22 * spacing * round_top + float(rng.uniform(0.2, 0.7)) * fractal(rng, size, 1.0, 24)
    base = np.asarray(either(rng, _STONE, palette), np.float32)
    tone = 1 + 0.16 * per_cell(rng, owner)[..., None] + 0.07 * rough[..., None]
    face = base * tone + 0.04 * per_cell(rng, owner)[..., None] * single([1, 0.2, -1])
    joint = single(vary(rng, (0.25, 0.23, 0.2), 0.07))
    picture = over(np.broadcast_to(joint, face.shape), face, edge(inside, 0.6))
    return tinted(rng, picture * lit(height, lamp(rng))[..., None], 0.07), "stones"


def roof_tiles(rng: np.random.Generator, size: int, palette: Palette) -> tuple[Floats, str]:
    """Overlapping rows of round tiles or shingles, each with a shadow below its edge."""
    x, y = grid(size)
    wide = float(rng.uniform(6, 20))
    high = wide * float(rng.uniform(0.8, 1.5))
    grain = fractal(rng, size, 0.9, 16)
    y = y + 0.05 * high * fractal(rng, size, 1.5, 8 * high)
    bow = float(rng.choice([0.0, 0.35, 0.45]))
    row = np.floor(y / high)
    # The lower edge of a round tile hangs into the next row.
    for _ in range(2):
        phase = np.mod(x / wide + 0.5 * np.mod(row, 2), 1)
        drop = bow * (1 - (2 * phase - 1) ** 2)
        row = np.floor(y / high - drop)
    number = (np.floor(x / wide + 0.5 * np.mod(row, 2)) * 13 + row * 71).astype(np.int32)
    below = y / high - drop - row
    table = rng.normal(0, 1, 251).astype(np.float32)
    tone = (1 + 0.13 * table[number % 251] + 0.06 * grain)[..., None]
    base = np.asarray(either(rng, _CLAY + _STONE[:1], palette), np.float32)
    curved = 0.3 * wide * np.sqrt(np.maximum(1 - (2 * phase - 1) ** 2, 0.02)) if bow else 0 * x
    height = curved * float(rng.uniform(0.3, 0.8)) + 0.2 * grain
    shade = lit(height, lamp(rng))
    shade *= 1 - 0.6 * np.exp(-np.maximum(below, 0) * high / (0.1 * high + 0.6))
    gap = edge(np.minimum(phase, 1 - phase) * wide - 0.35, 0.5)
    shade *= 0.45 + 0.55 * gap
    return tinted(rng, base * tone * shade[..., None], 0.07), "roof tiles"


def planks(rng: np.random.Generator, size: int, palette: Palette) -> tuple[Floats, str]:
    """Boards with grain that flows around knots, at times a little weathered."""
    x, y = grid(size)
    wide = float(rng.uniform(14, 70))
    board = np.floor(y / wide).astype(np.int32)
    table = rng.normal(0, 1, (211, 2)).astype(np.float32)
    own = table[board % 211]
    bend = fractal(rng, size, 2.0, 120, 5.0)
    rings = y + 9 * bend + 40 * own[..., 1]
    for _ in range(int(rng.integers(0, 4))):
        left, top = rng.uniform(0, size, 2)
        away = ((x - left) / 16) ** 2 + ((y - top) / 6) ** 2
        rings = rings + 14 * np.exp(-away) * (1 if rng.random() < 0.5 else -1)
    period = float(rng.uniform(2.2, 7))
    growth = np.mod(rings / period + 0.25 * bend, 1)
    grown = np.asarray(growth**3 * (1 - growth**8), np.float32)
    pores = fractal(rng, size, 0.35, 8, 12.0)
    base = either(rng, _TIMBER, palette)
    share = np.clip(0.9 * grown + 0.12 * pores + 0.1, 0, 1)
    picture = ramp(
        share, (blend(base, (1, 0.95, 0.85), 0.12), base, blend(base, (0.1, 0.06, 0.04), 0.55))
    )
    picture = picture * (1 + 0.12 * own[..., :1])
    apart = np.minimum(np.mod(y, wide), wide - np.mod(y, wide))
    height = 0.5 * edge(apart - 0.8, 1.5) - 0.35 * share + 0.1 * pores
    picture = picture * lit(height, lamp(rng))[..., None] * edge(apart + 0.1, 0.7)[..., None]
    return tinted(rng, picture, 0.05), "wooden planks"


def _threads(along: Floats, beside: Floats) -> Floats:
    """Height of a plain weave at thread coordinates: warp and weft pass over one another."""
    warp = np.sqrt(np.maximum(1 - (2 * np.mod(along, 1) - 1) ** 2, 0))
    weft = np.sqrt(np.maximum(1 - (2 * np.mod(beside, 1) - 1) ** 2, 0))
    upper = np.cos(np.pi * (np.floor(along) + np.floor(beside))) > 0
    rise_a = np.cos(np.pi * (np.mod(beside, 1) - 0.5))
    rise_b = np.cos(np.pi * (np.mod(along, 1) - 0.5))
    return np.asarray(np.where(upper, warp * rise_a, weft * rise_b), np.float32)


def cloth(rng: np.random.Generator, size: int, palette: Palette) -> tuple[Floats, str]:
    """A plain or checked weave, often in folds."""
    x, y = grid(size)
    turn, thread = rng.uniform(0, np.pi), float(rng.uniform(1.6, 6))
    folds = fractal(rng, size, 2.4, 140, float(rng.choice([1.0, 3.0])), rng.uniform(0, np.pi))
    fold = float(rng.uniform(0, 7))
    wave = 0.35 * thread * fractal(rng, size, 1.6, 60) + 0.6 * fold * folds
    along = (x * np.cos(turn) + y * np.sin(turn) + wave) / thread
    beside = (y * np.cos(turn) - x * np.sin(turn) + wave) / thread
    weave = _threads(along, beside)
    upper = np.cos(np.pi * (np.floor(along) + np.floor(beside))) > 0
    table = rng.normal(0, 1, 199).astype(np.float32)
    number = np.where(upper, np.floor(along), 57 + np.floor(beside)).astype(np.int32)
    first, second = pick(rng, palette), pick(rng, palette)
    share = np.zeros_like(x)
    name = "woven cloth"
    if rng.random() < 0.45:
        repeat = int(rng.integers(6, 24))
        share = (np.mod(number, repeat) < repeat * rng.uniform(0.2, 0.5)).astype(np.float32)
        name = "checked cloth"
    picture = ramp(share, (first, second)) * (1 + 0.1 * table[number % 199])[..., None]
    height = 0.32 * thread * weave + 2.2 * fold * folds + 0.12 * fractal(rng, size, 0.5, 6)
    shade = lit(height, lamp(rng)) * (0.55 + 0.5 * weave)
    return tinted(rng, picture * shade[..., None], 0.04), name


def knit(rng: np.random.Generator, size: int, palette: Palette) -> tuple[Floats, str]:
    """Columns of V-shaped stitches of fuzzy wool, plain or striped."""
    x, y = grid(size)
    wide = float(rng.uniform(4.5, 16))
    x = x + 0.18 * wide * fractal(rng, size, 1.8, 90)
    y = y + 0.25 * wide * fractal(rng, size, 1.8, 90)
    side = np.mod(x / wide, 1) - 0.5
    lifted = y / (0.75 * wide) - 1.1 * abs(side)
    row = np.floor(lifted)
    lobe = np.maximum(1 - (2 * np.mod(lifted, 1) - 1) ** 2, 0)
    lobe = np.sqrt(lobe * np.maximum(1 - (4 * abs(abs(side) - 0.25)) ** 2, 0))
    fuzz = smear(rng.standard_normal(x.shape, np.float32), np.sign(side) * 0.95 + np.pi / 2, 3)
    first, second = pick(rng, palette), pick(rng, palette)
    repeat = float(rng.integers(4, 12))
    striped = (
        (np.mod(row, repeat) < 0.4 * repeat) if rng.random() < 0.5 else np.zeros(x.shape, bool)
    )
    picture = ramp(striped.astype(np.float32), (first, second)) * (1 + 0.09 * fuzz)[..., None]
    height = np.asarray(0.35 * wide * lobe + 0.15 * fuzz, np.float32)
    shade = lit(height, lamp(rng)) * (0.35 + 0.7 * lobe)
    return tinted(rng, picture * shade[..., None], 0.05), "knitted wool"


def carpet(rng: np.random.Generator, size: int, palette: Palette) -> tuple[Floats, str]:
    """Tufts of two or three tones that follow an ornament."""
    x, y = grid(size)
    tuft = float(rng.uniform(1.8, 4))
    middle, _, owner = cells(rng, size, tuft)
    reach = float(rng.uniform(18, 60))
    wander = 0.12 * fractal(rng, size, 1.6, reach)
    pattern = np.sin(2 * np.pi * x / reach) * np.sin(2 * np.pi * y / reach) + wander
    pattern += 0.5 * np.sin(4 * np.pi * (x + y) / reach) * np.sin(4 * np.pi * (x - y) / reach)
    share = (np.clip(np.floor(2 * pattern + 1.5), 0, 2) / 2).astype(np.float32)
    colours = (pick(rng, palette), pick(rng, palette), pick(rng, palette))
    picture = ramp(share, colours) * (1 + 0.13 * per_cell(rng, owner))[..., None]
    shade = 1.1 - 0.65 * np.clip(middle / tuft, 0, 1) + 0.09 * fractal(rng, size, 0.4, 6)
    return tinted(rng, picture * shade[..., None], 0.06), "a carpet"


def plaster(rng: np.random.Generator, size: int, palette: Palette) -> tuple[Floats, str]:
    """Rough render or concrete with stains and fine cracks."""
    base = either(rng, _STONE, palette)
    stain = scaled(fractal(rng, size, 1.5, 90))
    picture = ramp(stain, (vary(rng, base, 0.1), base, vary(rng, base, 0.06)))
    height = float(rng.uniform(0.2, 0.8)) * fractal(rng, size, float(rng.uniform(0.9, 1.4)), 18)
    if rng.random() < 0.5:
        _, away, _ = cells(rng, size, float(rng.uniform(40, 110)))
        bent = displaced(away, 5 * fractal(rng, size, 1.4, 40), 5 * fractal(rng, size, 1.4, 40))
        height = height - 1.2 * np.exp(-((bent / 0.6) ** 2))
    shade = lit(height, lamp(rng))
    return tinted(rng, picture * shade[..., None], 0.06), "rough plaster"


MATERIALS: tuple[Material, ...] = (
    bricks, stones, roof_tiles, planks, cloth, knit, carpet, plaster,
)  # fmt: skip


def wall(rng: np.random.Generator, size: int, palette: Palette) -> Sketch:
    """One material fills the picture, often at a slant, at times under soft shadows."""
    material = MATERIALS[int(rng.integers(len(MATERIALS)))]
    picture, name = material(rng, size, palette)
    details = ["close up"]
    if rng.random() < 0.5:
        picture = tilted(picture, float(rng.uniform(0.1, 0.45)), int(rng.integers(4)))
        details = ["in perspective"]
    if rng.random() < 0.35:
        cover = edge(blurred(fractal(rng, size, 1.4, 60), 0.5), 0.4)
        picture = picture * (1 - 0.5 * blurred(cover, float(rng.uniform(0.5, 4))))[..., None]
        details.append("soft shadows")
    return Sketch(canvas_of(picture), name, tuple(details))
