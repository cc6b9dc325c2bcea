"""Drawing primitives of the procedural scenes: an antialiased canvas and outlines as polygons.

Everything is drawn at twice the final resolution with antialiased edges and reduced by area
averaging: an aliased ground truth would teach a super-resolution prior staircases.
Coordinates and lengths are in pixels of the final image; colours are RGB in ``[0, 1]``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from faithdiff.data.scenes.fills import Fill, plain

Floats: TypeAlias = NDArray[np.float32]
Bytes: TypeAlias = NDArray[np.uint8]
Shape: TypeAlias = Callable[[np.random.Generator, float], Floats]

SUPERSAMPLE = 2
SUBPIXEL_BITS = 4  # of coordinates in OpenCV, behind the point


@dataclass(frozen=True)
class Sketch:
    """What a composition hands over: its canvas, and what a caption should say of it."""

    canvas: Canvas
    subject: str
    details: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


class Canvas:
    """A square RGB picture in the making, ``(2 size, 2 size, 3)`` float32 inside."""

    def __init__(self, size: int, background: Fill) -> None:
        self.size = size
        side = SUPERSAMPLE * size
        self.pixels: Floats = np.zeros((side, side, 3), np.float32)
        self._paint(np.full((side, side), 255, np.uint8), 0, 0, background, 1.0)

    def polygon(self, points: Floats, fill: Fill, alpha: float = 1.0, soft: float = 0.0) -> None:
        """Fill an outline ``(N, 2)``; ``soft`` is the sigma in px by which its edge is blurred."""
        self._draw(points, fill, alpha, soft, width=None)

    def stroke(self, points: Floats, width: float, fill: Fill, closed: bool = False) -> None:
        """Draw an open or closed line through ``points``, ``width`` px wide (at least 2)."""
        path = np.concatenate([points, points[:1]]) if closed else points
        self._draw(path, fill, 1.0, 0.0, width=max(2.0, width))

    def shadow(self, points: Floats, offset: float, strength: float = 0.45) -> None:
        """Darken below and to the right of an outline, as a lamp from the upper left would."""
        soft = max(1.0, 0.7 * offset)
        self.polygon(points + np.float32(offset), plain((0.04, 0.04, 0.06)), strength, soft)

    def stamp(self, mask: Bytes, left: float, top: float, fill: Fill, alpha: float = 1.0) -> None:
        """Paint through a supersampled ``(h, w)`` mask whose corner lies at ``left, top`` px."""
        self._paint(mask, round(SUPERSAMPLE * left), round(SUPERSAMPLE * top), fill, alpha)

    def blur(self, sigma: float) -> None:
        """Put all that is drawn so far out of focus (half resolution is enough for that)."""
        small = cv2.resize(self.pixels, (self.size, self.size), interpolation=cv2.INTER_AREA)
        small = cv2.GaussianBlur(small, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
        side = SUPERSAMPLE * self.size
        self.pixels = np.asarray(cv2.resize(small, (side, side)), np.float32)

    def light(self, gain: Fill) -> None:
        """Multiply the picture by a slowly varying illumination."""
        side = SUPERSAMPLE * self.size
        self.pixels *= gain.colour(*_grid(0, 0, side, side))

    def patch(self, left: float, top: float, width: float, height: float) -> Floats:
        """Return the pixels drawn so far in a box, ``(h, w, 3)`` at the supersampled scale."""
        x0, y0 = (max(0, int(SUPERSAMPLE * v)) for v in (left, top))
        x1, y1 = (int(SUPERSAMPLE * v) for v in (left + width, top + height))
        return self.pixels[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)]

    def image(self) -> Bytes:
        """Reduce to ``(size, size, 3)`` uint8."""
        small = cv2.resize(self.pixels, (self.size, self.size), interpolation=cv2.INTER_AREA)
        return np.asarray(np.rint(np.clip(small, 0.0, 1.0) * 255.0), np.uint8)

    def _draw(
        self, points: Floats, fill: Fill, alpha: float, soft: float, width: float | None
    ) -> None:
        pad = 2 + int(3 * SUPERSAMPLE * soft + SUPERSAMPLE * (width or 0))
        scaled = points * SUPERSAMPLE
        x0, y0 = (int(v) for v in np.floor(scaled.min(axis=0)) - pad)
        x1, y1 = (int(v) for v in np.ceil(scaled.max(axis=0)) + pad)
        # Cut what lies far outside, but keep a margin so that the blur sees the true outline.
        side = self.pixels.shape[0] + pad
        x0, y0, x1, y1 = max(x0, -pad), max(y0, -pad), min(x1, side), min(y1, side)
        if x1 <= x0 or y1 <= y0:
            return
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        # OpenCV counts from pixel centres, the grid of fills from pixel corners.
        fixed = np.rint((scaled - (x0 + 0.5, y0 + 0.5)) * 2**SUBPIXEL_BITS).astype(np.int32)[None]
        if width is None:
            cv2.fillPoly(mask, fixed, 255, cv2.LINE_AA, SUBPIXEL_BITS)
        else:
            thickness = max(1, round(SUPERSAMPLE * width))
            cv2.polylines(mask, fixed, False, 255, thickness, cv2.LINE_AA, SUBPIXEL_BITS)
        if soft > 0:
            mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), SUPERSAMPLE * soft), np.uint8)
        self._paint(mask, x0, y0, fill, alpha)

    def _paint(self, mask: Bytes, left: int, top: int, fill: Fill, alpha: float) -> None:
        side = self.pixels.shape[0]
        x0, y0 = max(left, 0), max(top, 0)
        x1, y1 = min(left + mask.shape[1], side), min(top + mask.shape[0], side)
        if x1 <= x0 or y1 <= y0:
            return
        opacity = mask[y0 - top : y1 - top, x0 - left : x1 - left, None] * np.float32(alpha / 255)
        region = self.pixels[y0:y1, x0:x1]
        region += opacity * (fill.colour(*_grid(x0, y0, x1, y1)) - region)


def _grid(x0: int, y0: int, x1: int, y1: int) -> tuple[Floats, Floats]:
    """Return the final-pixel coordinates ``(1, w)`` and ``(h, 1)`` of supersampled pixels."""
    x = np.asarray((np.arange(x0, x1, dtype=np.float32) + 0.5) / SUPERSAMPLE, np.float32)
    y = np.asarray((np.arange(y0, y1, dtype=np.float32) + 0.5) / SUPERSAMPLE, np.float32)
    return x[None, :], y[:, None]


def _polar(radii: Floats | float, angles: Floats) -> Floats:
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1).astype(np.float32)


def _turned(rng: np.random.Generator, points: Floats) -> Floats:
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]], np.float32)
    return points @ turn


def _angles(count: int) -> Floats:
    return np.linspace(0, 2 * np.pi, count, endpoint=False, dtype=np.float32)


def circle(radius: float) -> Floats:
    """Return a circle around the origin, ``(N, 2)``."""
    return _polar(radius, _angles(48))


def box(left: float, top: float, width: float, height: float, corner: float = 0.0) -> Floats:
    """Return an upright rectangle, its corners rounded by ``corner`` px."""
    corner = min(corner, width / 2, height / 2)
    arc = _polar(corner, _angles(32)).reshape(4, 8, 2)
    right, low = width - corner, height - corner
    inner = np.array([[right, low], [corner, low], [corner, corner], [right, corner]], np.float32)
    return (arc + inner[:, None] + (left, top)).reshape(-1, 2).astype(np.float32)


def ellipse(rng: np.random.Generator, radius: float) -> Floats:
    """An ellipse of a random aspect between 0.45 and 1."""
    return _turned(rng, circle(radius) * np.asarray([1.0, rng.uniform(0.45, 1.0)], np.float32))


def rounded(rng: np.random.Generator, radius: float) -> Floats:
    """A rectangle with rounded corners."""
    width, height = 2 * radius, 2 * radius * rng.uniform(0.4, 1.0)
    corner = rng.uniform(0, 0.5) * height
    return _turned(rng, box(-width / 2, -height / 2, width, height, corner))


def regular(rng: np.random.Generator, radius: float) -> Floats:
    """A regular polygon of three to seven corners."""
    return _turned(rng, _polar(radius, _angles(int(rng.integers(3, 8)))))


def star(rng: np.random.Generator, radius: float) -> Floats:
    """A star of four to seven rays."""
    rays = int(rng.integers(4, 8))
    radii = np.tile(np.asarray([radius, radius * rng.uniform(0.4, 0.65)], np.float32), rays)
    return _turned(rng, _polar(radii, _angles(2 * rays)))


def blob(rng: np.random.Generator, radius: float) -> Floats:
    """A smooth pebble: a circle with three random low harmonics."""
    angles = _angles(64)
    waves = sum(
        rng.uniform(0, 0.3 / k) * np.sin(k * angles + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 4)
    )
    return _polar((radius * (0.85 + waves)).astype(np.float32), angles)


def leaf(rng: np.random.Generator, radius: float) -> Floats:
    """A pointed plant leaf."""
    along = np.linspace(-1, 1, 24, dtype=np.float32)
    bulge = rng.uniform(0.3, 0.6) * (1 - along**2) * (1 + 0.3 * along)
    upper = np.stack([along, bulge], axis=1)
    lower = np.stack([along, -bulge], axis=1)[::-1]
    return _turned(rng, np.concatenate([upper, lower[1:-1]]).astype(np.float32) * radius)


SHAPES: dict[str, Shape] = {
    "ellipses": ellipse,
    "rounded boxes": rounded,
    "polygons": regular,
    "stars": star,
    "pebbles": blob,
    "leaves": leaf,
}
