"""Surfaces of the procedural scenes: shading, patterns and rough textures.

A fill gives a colour for every point, so a texture continues unbroken under any outline.
Patterns are edged by their signed distance in pixels, which keeps stripes and dots antialiased.
Most surfaces are plain or shaded and no pattern repeats within 7 px: finer detail is lost by a
reduction of four and only teaches a prior to invent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from faithdiff.data.scenes.colours import Colour, Palette, pick, vary

Floats: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class Fill:
    """A surface: ``colour(x, y)`` maps ``(1, w)`` and ``(h, 1)`` px to ``(h, w, 3)`` RGB.

    ``name`` is the caption's word for its pattern, empty for plain and shaded surfaces.
    """

    name: str
    colour: Callable[[Floats, Floats], Floats]


def plain(colour: Colour) -> Fill:
    """One colour everywhere."""
    flat = np.asarray(colour, np.float32)
    return Fill("", lambda x, y: np.broadcast_to(flat, (y.shape[0], x.shape[1], 3)))


def gradient(
    start: Colour, end: Colour, centre: tuple[float, float], span: float, angle: float
) -> Fill:
    """Blend two colours along ``angle`` (radians) over ``span`` px around ``centre``."""
    first, last = np.asarray(start, np.float32), np.asarray(end, np.float32)

    def colour(x: Floats, y: Floats) -> Floats:
        along = (x - centre[0]) * np.cos(angle) + (y - centre[1]) * np.sin(angle)
        share = np.clip(along / span + 0.5, 0, 1).astype(np.float32)[..., None]
        return first + share * (last - first)

    return Fill("", colour)


def shaded(fill: Fill, centre: tuple[float, float], radius: float, gloss: float) -> Fill:
    """Light a surface from the upper left like a bulging body; ``gloss`` adds a highlight."""

    def colour(x: Floats, y: Floats) -> Floats:
        across, down = (x - centre[0]) / radius, (y - centre[1]) / radius
        light = 1.0 - 0.22 * (across + down)
        spot = gloss * np.exp(-6.0 * ((across + 0.4) ** 2 + (down + 0.4) ** 2))
        return (fill.colour(x, y) * light[..., None] + spot[..., None]).astype(np.float32)

    return Fill(fill.name, colour)


def pattern(
    name: str, distance: Callable[[Floats, Floats], Floats], first: Colour, last: Colour
) -> Fill:
    """Two colours apart where a signed ``distance`` in px crosses zero, its edge antialiased."""
    start, end = np.asarray(first, np.float32), np.asarray(last, np.float32)

    def colour(x: Floats, y: Floats) -> Floats:
        share = np.clip(distance(x, y) + 0.5, 0, 1).astype(np.float32)[..., None]
        return start + share * (end - start)

    return Fill(name, colour)


def _wave(along: Floats, period: float, duty: float = 0.5) -> Floats:
    """Signed distance in px to the nearest edge of a square wave."""
    phase = np.mod(along, period)
    return np.asarray(np.minimum(phase, duty * period - phase), np.float32)


def stripes(rng: np.random.Generator, first: Colour, last: Colour, low: float = 7.0) -> Fill:
    """Straight or wavy stripes of a period between ``low`` and three times that."""
    angle, period = rng.uniform(0, np.pi), rng.uniform(low, 3 * low)
    duty, bend = rng.uniform(0.35, 0.65), rng.choice([0.0, 0.0, 0.25]) * period
    reach, cos, sin = rng.uniform(25, 60), float(np.cos(angle)), float(np.sin(angle))

    def distance(x: Floats, y: Floats) -> Floats:
        along, across = x * cos + y * sin, y * cos - x * sin
        return _wave(along + bend * np.sin(across * (2 * np.pi / reach)), period, duty)

    return pattern("stripes", distance, first, last)


def checks(rng: np.random.Generator, first: Colour, last: Colour) -> Fill:
    """A chessboard, turned, of cells between 6 and 14 px."""
    angle, period = rng.uniform(0, np.pi / 2), 2 * rng.uniform(6, 14)
    cos, sin = float(np.cos(angle)), float(np.sin(angle))

    def distance(x: Floats, y: Floats) -> Floats:
        one, two = _wave(x * cos + y * sin, period), _wave(y * cos - x * sin, period)
        return np.asarray(np.sign(one * two) * np.minimum(abs(one), abs(two)), np.float32)

    return pattern("checks", distance, first, last)


def dots(rng: np.random.Generator, first: Colour, last: Colour) -> Fill:
    """Round dots on a turned grid of 9 to 20 px."""
    angle, period = rng.uniform(0, np.pi / 2), rng.uniform(9, 20)
    radius, cos, sin = period * rng.uniform(0.22, 0.36), float(np.cos(angle)), float(np.sin(angle))

    def distance(x: Floats, y: Floats) -> Floats:
        one = np.mod(x * cos + y * sin, period) - period / 2
        two = np.mod(y * cos - x * sin, period) - period / 2
        return np.asarray(radius - np.hypot(one, two), np.float32)

    return pattern("dots", distance, first, last)


def hatch(rng: np.random.Generator, first: Colour, last: Colour) -> Fill:
    """Thin lines of 2 to 3 px, crossed or not, 9 to 18 px apart."""
    angle, period = rng.uniform(0, np.pi), rng.uniform(9, 18)
    duty, crossed = rng.uniform(2.0, 3.0) / period, rng.random() < 0.5
    cos, sin = float(np.cos(angle)), float(np.sin(angle))

    def distance(x: Floats, y: Floats) -> Floats:
        one = _wave(x * cos + y * sin, period, duty)
        return np.maximum(one, _wave(y * cos - x * sin, period, duty)) if crossed else one

    return pattern("hatching", distance, first, last)


def bricks(first: Colour, mortar: Colour, height: float) -> Fill:
    """A brick wall with 2 px joints; bricks are ``height`` px high and twice as long."""

    def distance(x: Floats, y: Floats) -> Floats:
        shift = height * np.mod(np.floor(y / height), 2)
        across = np.mod(x + shift, 2 * height)
        down = np.mod(y, height) + 0 * x
        joint = np.minimum(np.minimum(across, 2 * height - across), np.minimum(down, height - down))
        return np.asarray(joint - 1.0, np.float32)

    return pattern("bricks", distance, mortar, first)


def mottled(rng: np.random.Generator, fill: Fill, amount: float, stretch: float = 1.0) -> Fill:
    """Vary a surface's brightness by smooth 1/f noise; ``stretch`` > 1 draws it out like grain."""
    tile, steepness = 128, 1.3
    frequency = np.hypot(np.fft.fftfreq(tile)[:, None], np.fft.rfftfreq(tile)[None, :])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal((tile, tile))) / frequency**steepness
    noise = np.fft.irfft2(spectrum, s=(tile, tile))
    noise = (noise / noise.std()).astype(np.float32)

    def colour(x: Floats, y: Floats) -> Floats:
        columns = np.mod(x / stretch + 0 * y, tile).astype(np.float32)
        rows = np.mod(y + 0 * x, tile).astype(np.float32)
        sampled = cv2.remap(noise, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        return fill.colour(x, y) * (1 + np.float32(amount) * sampled[..., None])

    return Fill(fill.name or "rough texture", colour)


def surface(
    rng: np.random.Generator, palette: Palette, centre: tuple[float, float], radius: float
) -> Fill:
    """Choose the surface of one body: 60 % plain or graded, else patterned, often lit."""
    first, last = pick(rng, palette), pick(rng, palette)
    kind = rng.random()
    if kind < 0.25 or radius < 10:
        fill = plain(first)
    elif kind < 0.6:
        fill = gradient(first, last, centre, 2 * radius, rng.uniform(0, 2 * np.pi))
    elif kind < 0.7:
        fill = mottled(rng, plain(first), 0.09, float(rng.choice([1.0, 1.0, 5.0])))
    else:
        make = (stripes, stripes, checks, dots, hatch)[int(rng.integers(5))]
        fill = make(rng, first, vary(rng, last, 0.1))
    if rng.random() < 0.5:
        fill = shaded(fill, centre, 1.4 * radius, float(rng.choice([0.0, 0.0, 0.35])))
    return fill
