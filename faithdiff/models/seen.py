"""What a denoiser takes from an LQ image: the one thing in which designs differ while sampling."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
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

    def to(self, dtype: torch.dtype) -> Seen:
        """Map and tokens in the precision of the network that takes them."""
        # Pre-stages compute in float32 whatever the UNet does, and convolutions take one type only.
        tokens = None if self.tokens is None else self.tokens.to(dtype)
        return replace(self, map=self.map.to(dtype), tokens=tokens)
