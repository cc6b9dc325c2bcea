"""Faces in the textured scenes: a lit relief of a head with eyes, lips, hair, and clothes below.

Lengths are in half widths of the face: ``u`` runs across it, ``v`` down, the eyes are at
``v = -0.15``, the mouth at 0.72 and the chin at 1.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from faithdiff.data.scenes.colours import Colour, Palette, blend, pick, vary
from faithdiff.data.scenes.fields import (
    Real,
    blurred,
    canvas_of,
    edge,
    fractal,
    grid,
    lamp,
    lit,
    over,
    ramp,
    single,
)
from faithdiff.data.scenes.materials import MATERIALS, cloth, knit
from faithdiff.data.scenes.parts import SUPERSAMPLE, Floats, Sketch
from faithdiff.data.scenes.strokes import blurred_ground, coat, draw_strokes

_SKIN: tuple[Colour, ...] = (
    (0.87, 0.69, 0.58), (0.8, 0.6, 0.48), (0.68, 0.48, 0.36), (0.5, 0.33, 0.24), (0.36, 0.23, 0.17),
    (0.9, 0.75, 0.66),
)  # fmt: skip
_HAIR: tuple[Colour, ...] = (
    (0.12, 0.09, 0.07), (0.3, 0.19, 0.11), (0.5, 0.36, 0.2), (0.72, 0.58, 0.36), (0.6, 0.58, 0.56),
    (0.45, 0.2, 0.1), (0.85, 0.83, 0.8),
)  # fmt: skip
_IRIS: tuple[Colour, ...] = (
    (0.3, 0.45, 0.6),
    (0.35, 0.22, 0.12),
    (0.35, 0.42, 0.25),
    (0.2, 0.13, 0.08),
)


@dataclass(frozen=True)
class _Head:
    """Where a face is: its coordinates at every pixel, its unit in px, and how it may differ."""

    u: Floats
    v: Floats
    unit: float
    left: float
    top: float
    roll: float
    smiles: bool
    old: float

    def place(self, u: Real, v: Real) -> Floats:
        """The points ``(..., 2)`` in px of places on the face."""
        cos, sin = np.cos(self.roll), np.sin(self.roll)
        points = np.stack([self.left + self.unit * (u * cos - v * sin),
                           self.top + self.unit * (u * sin + v * cos)], -1)  # fmt: skip
        return np.asarray(points, np.float32)


def _bump(u: Floats, v: Floats, wide: float, tall: float) -> Floats:
    return np.asarray(np.exp(-((u / wide) ** 2) - (v / tall) ** 2), np.float32)


def _relief(head: _Head) -> Floats:
    """Height of a face: an ellipsoid with nose, brows, sockets, cheeks, lips and chin."""
    u, v, side = head.u, head.v, abs(head.u)
    bridge = np.exp(-((u / 0.15) ** 2)) * np.clip((v + 0.35) / 0.75, 0, 1) * edge(0.44 - v, 0.09)
    height = 0.8 * np.sqrt(np.clip(1.15 - u**2 - (v / 1.45) ** 2, 0.01, None))
    height += (
        0.17 * bridge
        + 0.13 * _bump(u, v - 0.36, 0.15, 0.1)
        + 0.08 * _bump(side - 0.17, v - 0.4, 0.07, 0.08)
    )
    height -= 0.11 * _bump(side - 0.4, v + 0.17, 0.24, 0.15)
    height += 0.07 * _bump(side - 0.4, v + 0.14, 0.16, 0.11) + 0.05 * _bump(
        side - 0.38, v + 0.42, 0.3, 0.1
    )
    height += 0.1 * _bump(side - 0.5, v - 0.32, 0.25, 0.24)
    fold = side - 0.2 - 0.55 * (v - 0.42)
    height -= (
        (0.015 + 0.03 * head.old) * np.exp(-((fold / 0.04) ** 2)) * _bump(0 * u, v - 0.6, 1, 0.22)
    )
    lips = np.clip(1 - (u / 0.36) ** 2, 0, 1)
    height += lips * (
        0.05 * _bump(0 * u, v - 0.65, 1, 0.05) + 0.07 * _bump(0 * u, v - 0.79, 1, 0.06)
    )
    height += 0.09 * _bump(u, v - 1.12, 0.26, 0.15) - 0.05 * _bump(u, v - 0.93, 0.3, 0.06)
    lines = np.sin(30 * v + 2 * u**2) * _bump(u, v + 0.68, 0.5, 0.18)
    height += (
        0.012
        * head.old
        * (lines + np.sin(40 * v + 25 * side) * _bump(side - 0.68, v + 0.1, 0.1, 0.15))
    )
    return np.asarray(height, np.float32)


def _skin(rng: np.random.Generator, head: _Head, tone: Colour) -> Floats:
    """The face's skin in light: red where blood is near, mottled, with pores and freckles."""
    size = head.u.shape[0] // SUPERSAMPLE
    u, v, side = head.u, head.v, abs(head.u)
    blush = 0.7 * _bump(side - 0.5, v - 0.3, 0.25, 0.22) + 0.7 * _bump(u, v - 0.36, 0.16, 0.14)
    picture = ramp(
        np.clip(0.5 + 0.12 * fractal(rng, size, 1.3, 40), 0, 1), (vary(rng, tone, 0.03), tone)
    )
    picture = over(picture, single(tone) * single([1.0, 0.72, 0.68]), 0.35 * blush)
    lip_curve = -0.45 * u**2 if head.smiles else 0.06 * u**2 - 0.008 * np.cos(14 * u)
    taper = np.clip(1 - (u / 0.36) ** 2, 0, 1)
    level = v - 0.715 - lip_curve
    lip = np.minimum(level + 0.085 * taper - 0.02 * _bump(u, 0 * v, 0.06, 1), 0.11 * taper - level)
    rose = single(tone) * single([0.92, 0.6, 0.6])
    rough = 1 + 0.06 * np.sin(60 * u + 3 * v)
    picture = over(
        picture, rose * rough[..., None], 0.8 * edge(np.minimum(lip, 0.36 - side) * head.unit, 1.2)
    )
    if rng.random() < 0.25:
        freckle = edge(fractal(rng, size, 0.7, 5) - 1.4, 0.2) * _bump(u, v - 0.1, 0.7, 0.35)
        picture = over(picture, single(tone) * 0.65, 0.6 * freckle)
    pores = fractal(rng, size, 0.5, max(3.0, 0.07 * head.unit))
    height = head.unit * _relief(head) + (0.05 + 0.05 * head.old) * min(1.0, head.unit / 80) * pores
    shade = lit(height, lamp(rng, 0.55), 0.42, float(rng.uniform(0, 0.25)))
    # Shadow keeps a reddish glow, as light travels through skin.
    glow = 0.9 * np.clip(shade, 0.12, 1.15)[..., None] ** single([0.9, 1.05, 1.1])
    picture = picture * glow * (1 + 0.012 * pores)[..., None]
    mouth = abs(level) * head.unit
    line = edge(0.7 + 0.012 * head.unit - mouth, 0.7) * edge((0.34 - side) * head.unit, 2)
    picture = over(picture, single(tone) * single([0.3, 0.14, 0.14]), 0.85 * line)
    nostril = 0.05 - np.hypot(side - 0.12, 1.6 * (v - 0.46))
    return over(
        picture,
        single(tone) * 0.22,
        0.8 * edge(nostril * head.unit, 0.9),
    )


def _teeth(picture: Floats, head: _Head) -> Floats:
    u, v = head.u, head.v
    level = v - 0.715 + 0.45 * u**2
    gap = np.minimum(level + 0.012, 0.075 * np.clip(1 - (u / 0.33) ** 2, 0, 1) - level)
    gap = np.minimum(gap, 0.33 - abs(u))
    gaps = 0.75 + 0.25 * edge((abs(np.mod(u * 11, 1) - 0.5) - 0.06) * head.unit / 11, 0.4)
    white = single([0.93, 0.9, 0.85]) * (gaps * (1 - 0.9 * u**2 * 4).clip(0.3, 1))[..., None]
    return over(picture, white, edge(gap * head.unit, 0.5))


def _eyes(picture: Floats, rng: np.random.Generator, head: _Head) -> Floats:
    """Almond eyes: shaded whites, iris with fibres, pupil, catch light, lashes and lid crease."""
    size = picture.shape[0] // SUPERSAMPLE
    iris, gaze = pick(rng, _IRIS), float(rng.uniform(-0.05, 0.05))
    opened = float(rng.uniform(0.06, 0.1)) * (0.8 if head.smiles else 1.0)
    fibre = fractal(rng, size, 0.7, 6)
    catch = float(rng.choice([-0.03, 0.03]))
    for sign in (-1.0, 1.0):
        s, t = head.u - sign * 0.4, head.v + 0.15 + 0.02 * sign * (head.u - sign * 0.4)
        upper, lower = t + opened * (1 - (s / 0.2) ** 2), 0.75 * opened * (1 - (s / 0.2) ** 2) - t
        inside = np.asarray(np.minimum(upper, lower) * head.unit, np.float32)
        white = (0.9 - 0.4 * np.exp(-np.maximum(upper, 0) / 0.03) - 3 * s**2)[..., None]
        picture = over(picture, single([0.95, 0.92, 0.9]) * white, edge(inside, 0.6))
        away = np.hypot(s - gaze, t + 0.01) / 0.095
        share = np.clip(away + 0.1 * fibre, 0, 1).astype(np.float32)
        ball = ramp(share, (blend(iris, (1, 1, 1), 0.25), iris, blend(iris, (0, 0, 0), 0.7)))
        seen = edge(np.minimum(inside, (1 - away) * 0.095 * head.unit).astype(np.float32), 0.5)
        picture = over(picture, ball * (0.75 + 4 * t).clip(0.4, 1.1)[..., None], seen)
        pupil = edge((0.4 - away) * 0.095 * head.unit, 0.5)
        picture = over(picture, (0.02, 0.02, 0.02), pupil * seen)
        glint = np.hypot(s - gaze - catch, t + 0.045)
        picture = over(
            picture,
            (1, 1, 1),
            edge((0.024 - glint) * head.unit, 0.5) * edge(inside, 0.5),
        )
        near = edge((0.21 - abs(s)) * head.unit, 1.5)
        lash = edge(0.014 * head.unit + 0.3 - abs(upper) * head.unit, 0.6)
        crease = np.exp(-(((upper + 0.06) / 0.014) ** 2)) * near
        fold = np.exp(-(((lower + 0.05) / 0.02) ** 2)) * near * (0.25 + 0.4 * head.old)
        picture = over(picture, (0.12, 0.07, 0.05), 0.85 * lash * near)
        picture = picture * (1 - 0.35 * crease - 0.4 * fold)[..., None]
    return np.asarray(picture, np.float32)


def _brows(picture: Floats, rng: np.random.Generator, head: _Head, tone: Colour) -> Floats:
    count = 110
    for sign in (-1.0, 1.0):
        t = rng.random(count)
        u = sign * (0.17 + 0.46 * t)
        v = -0.35 - 0.07 * np.sin(2.6 * t) + rng.normal(0, 0.017, count) * (1.3 - t)
        length = rng.uniform(0.05, 0.12, count)
        ends_u, ends_v = u + sign * length, v + length * (0.9 * t - 0.75)
        paths = np.stack([head.place(u, v), head.place(ends_u, ends_v)], 1)
        colours = np.asarray(tone) * rng.uniform(0.5, 1.2, (count, 1))
        picture = draw_strokes(picture, paths, colours, max(0.5, 0.008 * head.unit), 0.75)
    return picture


def _hair(
    picture: Floats, rng: np.random.Generator, head: _Head, tone: Colour
) -> tuple[Floats, str]:
    """Hair around the face from a parting, short or down to the shoulders."""
    u, v = head.u, head.v
    long = rng.random() < 0.5
    part = float(rng.uniform(-0.4, 0.4))
    size = picture.shape[0] // SUPERSAMPLE
    wisps = 0.05 * fractal(rng, size, 1.2, 0.4 * head.unit + 4)
    skull = 1.14 + 0.12 * rng.random() - np.hypot(u, (v + 0.25) / 1.15) + wisps
    if long:
        fall = np.minimum(1.18 + 0.12 * np.sin(3 * v) - abs(u), np.minimum(v + 0.4, 1.9 - v))
        skull = np.maximum(skull, fall + wisps)
    line = -0.72 + 0.45 * (u - part) ** 2 + 1.5 * np.clip(abs(u) - 0.72, 0, 1)
    face = np.minimum(0.97 - np.hypot(u, v / 1.4), v - line + wisps)
    # The neck and the collar stay free between the locks.
    face = np.maximum(face, np.minimum(0.74 + 0.4 * wisps - abs(u), v - 0.5))
    below = 0.25 - v if not long else 9 - v
    inside = np.asarray(np.minimum(np.minimum(skull, -face), below + wisps) * head.unit, np.float32)
    mask = edge(inside, 1.0)
    angle = np.arctan2(
        0.35 + 0.8 * abs(u - part) + 0.2 * (v + 1),
        np.sign(u - part) * (1.1 - 0.6 * abs(u)).clip(0.15, None),
    )
    angle = np.asarray(
        angle + head.roll + 0.2 * fractal(rng, size, 2.0, 0.6 * head.unit + 4), np.float32
    )
    gloss = np.exp(-(((np.hypot(u, v + 0.1) - 1.08) / 0.13) ** 2))
    share = np.clip(0.4 + 0.4 * gloss + 0.08 * fractal(rng, size, 1.0, 20), 0, 1)
    tones = (blend(tone, (0, 0, 0), 0.5), tone, blend(tone, (1, 0.95, 0.85), 0.35))
    base = ramp(share, tones)
    shaded = over(picture * (1 - 0.35 * blurred(mask, 0.05 * head.unit))[..., None], base, mask)
    drawn = coat(rng, shaded, angle, 0.3 * head.unit, 0.12, mask, 0.8)
    return drawn, "long hair" if long else "short hair"


def _hat(picture: Floats, rng: np.random.Generator, head: _Head, palette: Palette) -> Floats:
    size = picture.shape[0] // SUPERSAMPLE
    u, v = head.u, head.v
    felt = pick(rng, palette)
    weave = (1 + 0.08 * fractal(rng, size, 0.4, 5)) * (1.0 - 0.35 * u)
    crown = np.minimum(
        np.minimum(1.12 - abs(u) * (1.0 - 0.1 * v), -0.62 + 0.12 * u**2 - v), v + 1.75 - 0.35 * u**2
    )
    brim = np.minimum(-0.48 + 0.2 * u**2 - v, 0.17 - abs(v + 0.62 - 0.22 * u**2))
    brim = np.minimum(brim, 1.3 - abs(u))
    band = edge((0.1 - abs(v + 0.83 - 0.15 * u**2)) * head.unit, 0.6)
    picture = picture * (1 - 0.5 * edge((brim + 0.1) * head.unit, 0.08 * head.unit))[..., None]
    cloth_ = single(felt) * weave[..., None]
    cloth_ = over(cloth_, single(pick(rng, palette)) * weave[..., None], band)
    picture = over(
        picture,
        cloth_,
        edge(crown * head.unit, 0.6),
    )
    return over(
        picture,
        0.75 * cloth_,
        edge(brim * head.unit, 0.6),
    )


def _glasses(picture: Floats, head: _Head, tone: Colour) -> Floats:
    side, v = abs(head.u), head.v
    away = ((abs(side - 0.41) / 0.27) ** 3 + (abs(v + 0.11) / 0.2) ** 3) ** (1 / 3)
    rim = 0.018 * head.unit + 0.3 - abs(away - 1) * 0.23 * head.unit
    bridge = np.minimum(0.02 - abs(v + 0.17 - 0.4 * side**2), 0.15 - side) * head.unit
    arm = np.minimum(np.minimum(0.025 - abs(v + 0.2), side - 0.67), 1.02 - side) * head.unit
    frame = np.maximum(np.maximum(rim, bridge), arm)
    picture = over(picture, (0.9, 0.95, 1.0), 0.12 * edge((1 - away) * head.unit, 1))
    gleam = edge((0.03 - abs(side - 0.3 + 0.5 * v)) * head.unit, 1) * (away < 0.9)
    picture = over(picture, (1, 1, 1), 0.3 * gleam)
    return over(picture, tone, edge(frame, 0.5))


def _head(rng: np.random.Generator, size: int) -> _Head:
    """Place a face: near or far, tilted and turned a little."""
    x, y = grid(size)
    unit = float(np.exp(rng.uniform(np.log(0.13), np.log(0.42)))) * size
    left, top = float(rng.uniform(0.35, 0.65)) * size, float(rng.uniform(0.38, 0.55)) * size
    roll = float(rng.normal(0, 0.1))
    cos, sin = np.float32(np.cos(roll)), np.float32(np.sin(roll))
    across, down = (x - np.float32(left)) / unit, (y - np.float32(top)) / unit
    u, v = across * cos + down * sin, down * cos - across * sin
    # Turning the head moves the middle of the face more than its outline.
    turn = np.float32(rng.normal(0, 0.14))
    turned = u - turn * single(np.clip(1 - u**2 - (v / 1.4) ** 2, 0, 1))
    smiles, old = bool(rng.random() < 0.45), float(rng.choice([0.0, 0.3, 1.0]))
    return _Head(turned, v, unit, left, top, roll, smiles, old)


def _bust(
    picture: Floats, rng: np.random.Generator, head: _Head, palette: Palette, tone: Colour
) -> Floats:
    """Draw what carries the face: shoulders in cloth or wool, the neck, the ears."""
    size = picture.shape[0] // SUPERSAMPLE
    u, v, unit = head.u, head.v, head.unit
    shirt = (cloth, knit)[int(rng.integers(2))](rng, size, palette)[0]
    shoulders = v - 1.55 - 0.12 * u**2 - 0.45 * np.exp(-((u / 0.5) ** 2))
    dress = edge(np.minimum(shoulders, 2.6 - abs(u)) * unit, 0.7)
    picture = over(picture, shirt * (1 - 0.1 * u)[..., None], dress)
    # The chin's shadow lies on the neck.
    shadow = np.clip(0.55 + 0.35 * (v - 1.3) - 0.2 * u, 0.35, 0.95)[..., None]
    neck = np.minimum(0.62 + 0.15 * (v - 1.2) ** 2 - abs(u), v - 0.6)
    picture = over(picture, single(tone) * shadow, edge(neck * unit, 0.8) * (1 - dress))
    ears = 0.2 - np.hypot(1.6 * (abs(u) - 0.99), 0.8 * (v - 0.05))
    inner = 0.85 - 0.35 * np.exp(-(((ears - 0.09) / 0.03) ** 2))
    return over(picture, single(tone) * inner[..., None], edge(ears * unit, 0.6))


def portrait(rng: np.random.Generator, size: int, palette: Palette) -> Sketch:
    """A person from the front: face, hair or hat, clothes, before a soft or a sharp ground."""
    head = _head(rng, size)
    if rng.random() < 0.5:
        picture = blurred_ground(rng, size, palette)
    else:
        picture = MATERIALS[int(rng.integers(len(MATERIALS)))](rng, size, palette)[0]
    tone, hair = vary(rng, pick(rng, _SKIN), 0.03), vary(rng, pick(rng, _HAIR), 0.03)
    picture = _bust(picture, rng, head, palette, tone)
    u, v = head.u, head.v
    outline = 1.0 - np.hypot(u, v / np.where(v > 0, 1.34, 1.3))
    outline = outline - 0.3 * np.clip(v - 0.35, 0, 1) * abs(u)
    picture = over(picture, _skin(rng, head, tone), edge(outline * head.unit, 0.7))
    if head.smiles:
        picture = _teeth(picture, head)
    picture = _eyes(picture, rng, head)
    picture = _brows(picture, rng, head, blend(hair, (0.1, 0.07, 0.05), 0.4))
    picture, cut = _hair(picture, rng, head, hair)
    details = ["smiling" if head.smiles else "serious", cut]
    if rng.random() < 0.25:
        picture, details[1] = _hat(picture, rng, head, palette), "a hat"
    if rng.random() < 0.3:
        picture = _glasses(picture, head, blend(pick(rng, palette), (0.1, 0.1, 0.1), 0.6))
        details.append("glasses")
    return Sketch(canvas_of(picture), "the face of a person", tuple(details))
