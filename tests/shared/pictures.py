"""Small pictures for tests that restore them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from faithdiff.study import seeds


def picture(seed: int, size: int) -> Tensor:
    """A smooth random picture ``(1, 3, size, size)``."""
    coarse = torch.rand(1, 3, size // 6, size // 6, generator=seeds.torch_generator(1, seed))
    return F.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1)


def save(image: Tensor, file: Path) -> None:
    """Write an image ``(1, 3, H, W)`` of values 0 to 1."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((image[0] * 255).byte().permute(1, 2, 0).numpy()).save(file)


def pixels(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Random noise ``(H, W, 3)`` of 8 bits."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
