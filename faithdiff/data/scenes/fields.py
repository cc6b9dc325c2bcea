"""Fields for the textured scenes: fractal noise, flow, cells, and light on a height field.

Fields cover a whole picture at the supersampled scale, ``(2 size, 2 size)`` float32; lengths that
callers give are pixels of the final image, as everywhere in the scenes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from faithdiff.data.scenes.colours import Colour
from faithdiff.data.scenes.fills import plain
from faithdiff.data.scenes.parts import SUPERSAMPLE, Bytes, Canvas, Floats

Light: TypeAlias = tuple[float, float, float]
# Sums with Python numbers and with random ones are double; functions here give single precision.
Real: TypeAlias = NDArray[np.float32] | NDArray[np.float64]


def single(values: ArrayLike) -> Floats:
    """Return an array, such as a colour, in single precision."""
    return np.asarray(values, np.float32)


def as_bytes(picture: Real) -> Bytes:
    """Round a picture to bytes: OpenCV draws antialiased lines and outlines on no other type."""
    return np.asarray(np.rint(np.clip(single(picture), 0, 1) * 255), np.uint8)


def grid(size: int) -> tuple[Floats, Floats]:
    """Return the coordinates ``(h, w)`` in final pixels of every supersampled pixel."""
    along = (np.arange(SUPERSAMPLE * size, dtype=np.float32) + 0.5) / SUPERSAMPLE
    x, y = np.meshgrid(along.astype(np.float32), along.astype(np.float32))
    return x, y


def canvas_of(picture: Real) -> Canvas:
    """Return a canvas that shows a supersampled picture ``(2 size, 2 size, 3)``."""
    canvas = Canvas(picture.shape[0] // SUPERSAMPLE, plain((0.0, 0.0, 0.0)))
    canvas.pixels = np.ascontiguousarray(picture, np.float32)
    return canvas


def fractal(
    rng: np.random.Generator,
    size: int,
    slope: float = 1.0,
    coarse: float = 128.0,
    stretch: float = 1.0,
    angle: float = 0.0,
) -> Floats:
    """Noise of zero mean and unit deviation whose amplitude falls with frequency.

    Args:
        rng: Source of the noise.
        size: Side of the final image in px.
        slope: The amplitude is f^-slope; photographs have about 1.
        coarse: Period in px above which the spectrum is flat.
        stretch: How much longer structures are along ``angle`` than across it.
        angle: Direction of the stretch in radians.
    """
    from scipy import fft  # here: most jobs that read a dataset draw no scenes

    side = SUPERSAMPLE * size
    white = rng.standard_normal((side, side), np.float32)
    down = np.asarray(fft.fftfreq(side), np.float32)[:, None] * SUPERSAMPLE
    across = np.asarray(fft.rfftfreq(side), np.float32)[None, :] * SUPERSAMPLE
    along = across * np.float32(np.cos(angle)) + down * np.float32(np.sin(angle))
    beside = down * np.float32(np.cos(angle)) - across * np.float32(np.sin(angle))
    squared = np.maximum((along * np.float32(stretch)) ** 2 + beside**2, np.float32(coarse**-2))
    values = fft.irfft2(fft.rfft2(white) * squared ** np.float32(-slope / 2), s=(side, side))
    values -= values.mean()
    return np.asarray(values / values.std(), np.float32)


def ridges(rng: np.random.Generator, size: int, coarse: float, octaves: int = 4) -> Floats:
    """Sharp crests between smooth valleys, in ``[0, 1]``: folded noise summed over octaves."""
    total = np.zeros((SUPERSAMPLE * size,) * 2, np.float32)
    weight, period = 1.0, coarse
    for _ in range(octaves):
        fold = 1.0 - np.minimum(abs(fractal(rng, size, 2.2, period)) / 1.6, 1.0)
        total += np.float32(weight) * fold * fold
        weight, period = 0.5 * weight, 0.45 * period
    return scaled(total)


def scaled(values: Real) -> Floats:
    """Stretch a field to ``[0, 1]``."""
    low, high = float(values.min()), float(values.max())
    return np.asarray((values - low) / max(high - low, 1e-6), np.float32)


def blurred(values: Real, sigma: float) -> Floats:
    """Blur a field or picture by ``sigma`` px; wide blurs work on a smaller copy."""
    sigma *= SUPERSAMPLE
    side, values = values.shape[0], values.astype(np.float32)
    step = int(min(8, max(1, sigma // 3)))
    if step == 1 or side < 64:
        return np.asarray(cv2.GaussianBlur(values, (0, 0), sigma, borderType=cv2.BORDER_REFLECT))
    small = cv2.resize(values, (side // step, side // step), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma / step, borderType=cv2.BORDER_REFLECT)
    return np.asarray(cv2.resize(small, (side, side), interpolation=cv2.INTER_LINEAR))


def displaced(values: Floats, right: Real | float, down: Real | float) -> Floats:
    """Sample a field or picture at places moved by so many px; it continues mirrored."""
    side = values.shape[0]
    steps = np.arange(side, dtype=np.float32)
    columns = np.asarray(steps[None, :] + SUPERSAMPLE * (right + np.zeros((side, 1))), np.float32)
    rows = np.asarray(steps[:, None] + SUPERSAMPLE * (down + np.zeros((1, side))), np.float32)
    return np.asarray(
        cv2.remap(values, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    )


def smear(values: Floats, angle: Real, length: float) -> Floats:
    """Average a field along a flow (line integral convolution): fibres, hair, brushed metal.

    Args:
        values: The field, usually white noise.
        angle: Direction of the flow in radians at every pixel.
        length: Reach in px to each side.
    """
    # Steps of a whole number of pixels would leave out every second one where the flow is level.
    step = 1.5
    steps = int(max(2, round(length * SUPERSAMPLE / step)))
    side = values.shape[0]
    x0, y0 = np.meshgrid(np.arange(side, dtype=np.float32), np.arange(side, dtype=np.float32))
    right, down = single(step * np.cos(angle)), single(step * np.sin(angle))
    total = values.copy()
    for sign in (1.0, -1.0):
        x, y = x0, y0
        for _ in range(steps):
            flow_x = cv2.remap(right, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT)
            flow_y = cv2.remap(down, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT)
            x, y = x + np.float32(sign) * flow_x, y + np.float32(sign) * flow_y
            total += cv2.remap(values, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    total -= total.mean()
    return np.asarray(total / total.std(), np.float32)


def cells(
    rng: np.random.Generator, size: int, spacing: float, jitter: float = 0.45
) -> tuple[Floats, Floats, NDArray[np.int32]]:
    """Voronoi cells of a jittered grid.

    Returns:
        The distance in px to the middle of the own cell, that to its border, and the cell's number.
    """
    side, step = SUPERSAMPLE * size, SUPERSAMPLE * spacing
    count = int(np.ceil(side / step)) + 1
    rows, columns = np.mgrid[0:count, 0:count].reshape(2, -1) * step
    seeds = np.stack([columns, rows]) + rng.uniform(-jitter, jitter, (2, count * count)) * step
    inside = np.clip(np.rint(seeds), 0, side - 1).astype(np.int64)
    mask = np.full((side, side), 255, np.uint8)
    mask[inside[1], inside[0]] = 0
    middle, labels = cv2.distanceTransformWithLabels(
        mask, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    border = np.full((side, side), 255, np.uint8)
    border[:, 1:][labels[:, 1:] != labels[:, :-1]] = 0
    border[1:][labels[1:] != labels[:-1]] = 0
    away = cv2.distanceTransform(border, cv2.DIST_L2, cv2.DIST_MASK_5)
    owner = np.asarray(labels, np.int32)
    return single(middle / SUPERSAMPLE), single(away / SUPERSAMPLE), owner


def per_cell(rng: np.random.Generator, owner: NDArray[np.int32], deviation: float = 1.0) -> Floats:
    """One random number of zero mean for every numbered cell, at each of its pixels."""
    table = rng.normal(0, deviation, int(owner.max()) + 1).astype(np.float32)
    return table[owner]


def lamp(rng: np.random.Generator, lowest: float = 0.35) -> Light:
    """A light's direction as a unit vector (right, down, towards the viewer), from above."""
    angle, height = rng.uniform(-np.pi, 0), rng.uniform(lowest, 0.85)
    flat = float(np.sqrt(1 - height**2))
    return flat * float(np.cos(angle)), flat * float(np.sin(angle)), float(height)


def lit(height: Real, light: Light, ambient: float = 0.3, gloss: float = 0.0) -> Floats:
    """Shade a height field in px: about 1 where it is flat, brighter where it faces the light."""
    slope_y, slope_x = (np.asarray(g, np.float32) * SUPERSAMPLE for g in np.gradient(height))
    norm = 1.0 / np.sqrt(slope_x**2 + slope_y**2 + 1)
    facing = (light[2] - slope_x * light[0] - slope_y * light[1]) * norm
    shade = ambient + (1 - ambient) * np.maximum(facing, 0) / light[2]
    if gloss:
        # Half way between the light and the viewer: where the surface mirrors the lamp.
        half = np.asarray([light[0], light[1], light[2] + 1])
        half /= np.linalg.norm(half)
        mirrored = (half[2] - slope_x * half[0] - slope_y * half[1]) * norm
        shade += np.float32(gloss) * np.maximum(mirrored, 0) ** 40
    return np.asarray(np.minimum(shade, 2.2), np.float32)


def edge(distance: Real, soft: float = 0.5) -> Floats:
    """Opacity of a signed distance in px (positive inside) over an edge 2 ``soft`` px wide."""
    return np.asarray(np.clip(distance / (2 * soft) + 0.5, 0, 1), np.float32)


def ramp(values: Real, colours: Sequence[Colour]) -> Floats:
    """Map ``[0, 1]`` through evenly spaced colours to a picture ``(h, w, 3)``."""
    table = np.asarray(colours, np.float32)
    stops = np.linspace(0, 1, len(table))
    fine = np.stack([np.interp(np.linspace(0, 1, 1024), stops, c) for c in table.T], 1)
    index = np.clip(values * 1023, 0, 1023).astype(np.int32)
    return np.asarray(fine.astype(np.float32)[index])


def over(picture: Real, paint: Real | Colour, opacity: Real) -> Floats:
    """Lay a colour or picture over another with the opacity ``(h, w)``."""
    drawn = picture + opacity[..., None] * (np.asarray(paint, np.float32) - picture)
    return np.asarray(drawn, np.float32)


def tinted(rng: np.random.Generator, picture: Real, amount: float = 0.05) -> Floats:
    """Let brightness and hue wander slowly over a picture, as they do on anything grown or worn."""
    size = picture.shape[0] // SUPERSAMPLE
    gain = 1 + np.float32(amount) * fractal(rng, size, 1.2)[..., None]
    warm = np.float32(0.5 * amount) * fractal(rng, size, 1.6)[..., None]
    return np.asarray(picture * (gain + warm * np.asarray([1, 0, -1], np.float32)), np.float32)


def tilted(picture: Real, amount: float, turn: int, border: int = cv2.BORDER_REFLECT) -> Floats:
    """Look at a flat picture at a slant; nothing is enlarged, so that its detail stays sharp.

    Args:
        picture: Supersampled picture or field.
        amount: By how much the far side is reduced, in ``[0, 0.5]``.
        turn: Which side is far, 0 to 3.
        border: What OpenCV shows beyond the picture's edge.
    """
    side = float(picture.shape[0])
    # The far edge shows more of the surface than the near one.
    reach = 0.5 * side * amount / (1 - amount)
    corners = np.asarray([[0, 0], [side, 0], [side, side], [0, side]], np.float32)
    shown = corners + np.asarray(
        [[-reach, -0.6 * reach], [reach, -0.6 * reach], [0, 0], [0, 0]], np.float32
    )
    # Corners are turned in the order of the square, the shift with them.
    for _ in range(turn):
        shown = np.stack([side - shown[:, 1], shown[:, 0]], 1)
        corners = np.stack([side - corners[:, 1], corners[:, 0]], 1)
    matrix = cv2.getPerspectiveTransform(shown.astype(np.float32), corners.astype(np.float32))
    shape = picture.shape[1], picture.shape[0]
    warped = cv2.warpPerspective(
        picture.astype(np.float32), matrix, shape, flags=cv2.INTER_LINEAR, borderMode=border
    )
    return np.asarray(warped, np.float32)
