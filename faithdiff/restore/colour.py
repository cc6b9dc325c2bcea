"""Colour fixes: give the restored image the colours of the enlarged LQ image.

Both as in the released code (`--color_fix adain | wavelet`); the number of wavelet levels is a
setting: the fewer, the more of the LQ image's blur comes back with its colours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def fix_colour(image: Tensor, reference: Tensor, kind: str, levels: int) -> Tensor:
    """Apply a colour fix.

    Args:
        image: Restored images ``(B, 3, H, W)``.
        reference: Enlarged LQ images of the same shape and range.
        kind: ``none``, ``adain`` or ``wavelet``.
        levels: Levels of the wavelet decomposition.
    """
    if kind == "adain":
        return adain(image, reference)
    if kind == "wavelet":
        return wavelet(image, reference, levels)
    return image


def adain(image: Tensor, reference: Tensor) -> Tensor:
    """Match mean and standard deviation of each channel."""
    mean, deviation = _statistics(image)
    target_mean, target_deviation = _statistics(reference)
    return (image - mean) / deviation * target_deviation + target_mean


def wavelet(image: Tensor, reference: Tensor, levels: int) -> Tensor:
    """Keep the image's high frequencies, take the reference's low ones."""
    return image - low_frequencies(image, levels) + low_frequencies(reference, levels)


def low_frequencies(image: Tensor, levels: int) -> Tensor:
    """À trous decomposition: ``[1 2 1]/4`` blurs, dilated by 1, 2, 4, ..."""
    tap = torch.tensor([1.0, 2.0, 1.0], dtype=image.dtype, device=image.device) / 4
    kernel = torch.outer(tap, tap).expand(image.shape[1], 1, 3, 3)
    # Nothing is thinned out between levels (à trous): the tap is stretched instead, so that low and
    # high frequencies stay images of full size that add up to the image again.
    for level in range(levels):
        reach = 2**level
        # Zeros would darken the border, and with five levels the border is 31 pixels wide.
        padded = F.pad(image, (reach,) * 4, mode="replicate")
        image = F.conv2d(padded, kernel, dilation=reach, groups=image.shape[1])
    return image


def _statistics(image: Tensor) -> tuple[Tensor, Tensor]:
    # The epsilon stands under the root, as in the released adain: flat images have a deviation.
    variance, mean = torch.var_mean(image, dim=(2, 3), keepdim=True)
    return mean, (variance + 1e-5).sqrt()
