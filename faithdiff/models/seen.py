"""What a denoiser takes from an LQ image: the one thing in which designs differ while sampling."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Seen:
    """What a denoiser takes from LQ images, once per image.

    Attributes:
        map: ``(B, K, h, w)`` at the size of the latents; tiles cut it.
        tokens: ``(B, N, D)`` of the whole images; every tile sees all of them.
        image: What pre-stages made of the images, ``(B, 3, H, W)`` in [-1, 1].
    """

    map: Tensor
    tokens: Tensor | None = None
    image: Tensor | None = None
