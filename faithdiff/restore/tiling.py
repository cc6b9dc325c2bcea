"""Latent tiling: overlapping tiles, merged with Gaussian weights (paper's code: TLC).

The released loop steps the scheduler in each tile and averages the stepped latents. Every step of
a scheduler without memory is linear in latent and prediction, so averaging the predictions and
stepping once gives the same (tests/restore/test_sampler.py holds the two side by side).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tile:
    """A window of the latent, in latent pixels."""

    top: int
    left: int
    height: int
    width: int

    def cut(self, image: Tensor) -> Tensor:
        """The window of ``(B, C, h, w)``."""
        return image[:, :, self.top : self.top + self.height, self.left : self.left + self.width]


def tiles(height: int, width: int, size: int, stride: int) -> list[Tile]:
    """Cover a latent with tiles of `size`, the last ones shifted back to the border."""
    tall, wide = min(size, height), min(size, width)
    return [
        Tile(top, left, tall, wide)
        for top in _starts(height, tall, stride)
        for left in _starts(width, wide, stride)
    ]


def _starts(length: int, size: int, stride: int) -> list[int]:
    # The last tile overlaps more instead of being smaller: the UNet saw one size while training.
    return [*range(0, length - size, stride), length - size]


def gaussian(height: int, width: int) -> Tensor:
    """Weights ``(1, 1, height, width)``: variance 0.01 of the squared side, as released."""
    # A prediction is best in the middle of a tile, where the UNet sees as far on every side; at the
    # border it lacks context. Weights fall by e^-12.5 until there, so that seams vanish.
    down = _bell(height, height / 2)  # the released code is half a pixel off here; so are we
    across = _bell(width, (width - 1) / 2)
    return torch.outer(down, across)[None, None]


def _bell(length: int, middle: float) -> Tensor:
    # In float64 first: float32's exp differs in its last bit from one processor to another.
    positions = torch.arange(length, dtype=torch.float64)
    return torch.exp(-((positions - middle) ** 2) / (2 * 0.01 * length**2)).float()


def merged(predictions: Sequence[tuple[Tile, Tensor]], latents: Tensor) -> Tensor:
    """Weighted mean ``(B, C, h, w)`` of the predictions of all tiles."""
    first, prediction = predictions[0]
    if len(predictions) == 1:
        return prediction  # p * w / w would round: an image of one tile is exactly the plain loop
    total = torch.zeros_like(latents)
    weight = torch.zeros_like(latents[:1, :1])
    bell = gaussian(first.height, first.width).to(latents)
    # Always in the order of the tiles, however many were in a pass: float sums depend on the order.
    for tile, prediction in predictions:
        tile.cut(total).add_(prediction * bell)
        tile.cut(weight).add_(bell)
    return total / weight
