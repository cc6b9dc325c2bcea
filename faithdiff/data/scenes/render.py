"""Procedural scenes: an endless, licence-free set of pictures with exact captions.

They train the small diffusion prior and serve as held-out test images. Lengths are in pixels, not
in shares of the picture: a small canvas is a small view of the same world, and every detail stays
coarse enough to survive a reduction of four. The textured scenes, which train the prior where a
profile asks for them, are the exception: their subjects fill the picture and are fine to a pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from faithdiff.data.scenes.abstract import bokeh, geometry, leaves, panels
from faithdiff.data.scenes.colours import Palette, colour_names, pick_palette
from faithdiff.data.scenes.fills import gradient
from faithdiff.data.scenes.landscape import landscape
from faithdiff.data.scenes.parts import Sketch
from faithdiff.data.scenes.textured import textured as draw_textured
from faithdiff.data.scenes.views import facade, signs

MIN_SIZE = 32
_KINDS: tuple[tuple[float, Callable[[np.random.Generator, int, Palette], Sketch]], ...] = (
    (0.30, leaves),
    (0.19, signs),
    (0.18, landscape),
    (0.10, geometry),
    (0.08, panels),
    (0.08, facade),
    (0.07, bokeh),
)


@dataclass(frozen=True)
class Scene:
    """A picture ``(size, size, 3)`` uint8 RGB and the caption of what is in it."""

    image: NDArray[np.uint8]
    caption: str


def render_scene(rng: np.random.Generator, size: int, textured: float = 0.0) -> Scene:
    """Draw one random scene.

    Args:
        rng: Source of every choice; equal states give equal bytes on one machine.
        size: Side of the picture in px, at least 32.
        textured: Probability of a scene with fine texture in place of one of
            the plain kinds. They train the prior.

    Raises:
        ValueError: ``size`` is too small to hold anything.
    """
    if size < MIN_SIZE:
        raise ValueError(f"a scene needs at least {MIN_SIZE} px a side, got {size}")
    # Plain sets draw nothing here: their scenes are what they were before there was a choice.
    if textured and rng.random() < textured:
        sketch = draw_textured(rng, size, pick_palette(rng))
    else:
        kind = int(rng.choice(len(_KINDS), p=[share for share, _ in _KINDS]))
        sketch = _KINDS[kind][1](rng, size, pick_palette(rng))
    _illuminate(rng, sketch, size)
    image = sketch.canvas.image()
    return Scene(image, _caption(sketch, colour_names(image)))


def _illuminate(rng: np.random.Generator, sketch: Sketch, size: int) -> None:
    """Let the light fall off across the picture, slightly warm or cool."""
    bright, dark = rng.uniform(1.0, 1.12), rng.uniform(0.82, 1.0)
    warmth = rng.normal(0, 0.03)
    start = (bright * (1 + warmth), bright, bright * (1 - warmth))
    middle = (size / 2, size / 2)
    fall = gradient(start, (dark, dark, dark), middle, 1.4 * size, rng.uniform(0, 2 * np.pi))
    sketch.canvas.light(fall)


def _caption(sketch: Sketch, colours: list[str]) -> str:
    parts = [f"{sketch.subject} in {' and '.join(colours)}", *dict.fromkeys(sketch.details)]
    if sketch.words:
        quoted = " and ".join(f"'{word}'" for word in sketch.words)
        parts.append(f"the word{'s' if len(sketch.words) > 1 else ''} {quoted}")
    return ", ".join(parts)
