"""Lanczos enlargement: what every diffusion model of the study sees of an LQ image."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def enlarge(lq: Tensor, scale: int) -> Tensor:
    """Lanczos enlargement of ``(B, 3, h, w)`` in [0, 1] through 8-bit PIL, as released."""
    # Through PIL although torch resizes on the GPU: torch has no Lanczos, and the paper's test.py
    # enlarges this way. (Its training mixes nearest, bilinear and bicubic enlargement.)
    enlarged = []
    for image in (lq * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy():
        height, width = image.shape[:2]
        picture = Image.fromarray(image).resize(
            (scale * width, scale * height), Image.Resampling.LANCZOS
        )
        enlarged.append(torch.from_numpy(np.array(picture)))
    return torch.stack(enlarged).permute(0, 3, 1, 2).float() / 255
