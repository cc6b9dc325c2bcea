"""Between image files and networks: uint8 arrays and float tensors."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_tensor(image: NDArray[np.uint8]) -> Tensor:
    """uint8 ``(H, W, 3)`` to float32 ``(1, 3, H, W)`` in [0, 1]."""
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255


def to_image(image: Tensor) -> NDArray[np.uint8]:
    """Float ``(3, H, W)`` in [0, 1] to uint8 ``(H, W, 3)``, rounded to the nearest."""
    # The official scripts of DiffBIR and SUPIR cut off instead, which darkens by half a level. Here
    # every controlled method is rounded, so that this decides no comparison.
    rounded = (image.clamp(0, 1) * 255).round().byte()
    array: NDArray[np.uint8] = rounded.permute(1, 2, 0).cpu().numpy()
    return array
