"""What a denoiser is asked to predict, and SDXL's micro-conditioning."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from torch import Tensor


def prediction_target(
    scheduler: DDPMScheduler, latents: Tensor, noise: Tensor, timesteps: Tensor
) -> Tensor:
    """The regression target ``(B, C, h, w)``: noise, or velocity ``sqrt(ᾱ) ε - sqrt(1-ᾱ) z``."""
    # By the prior's own config. SDXL predicts noise; the small prior predicts velocity (Salimans
    # and Ho, 2022), since where nearly all is noise, a noise target asks for no more than a copy.
    if scheduler.config.prediction_type == "epsilon":
        return noise
    return scheduler.get_velocity(latents, noise, timesteps)


def distance(prediction: Tensor, target: Tensor, kind: Literal["l1", "mse"]) -> Tensor:
    """Mean distance between prediction and target; paper: L1 on the noise."""
    mean = F.l1_loss if kind == "l1" else F.mse_loss
    # In float32, as the released code has it: the squares of small errors vanish in 16 bits, and so
    # do the addends of a mean over a million values.
    return mean(prediction.float(), target.float())


def time_ids(original: tuple[int, int], corners: Tensor, target: tuple[int, int]) -> Tensor:
    """SDXL's size and crop conditioning.

    Args:
        original: (height, width) of the whole image in pixels.
        corners: ``(B, 2)`` top and left of each crop in pixels.
        target: (height, width) of the crop in pixels.

    Returns:
        ``(B, 6)`` float32: original size, crop corner, target size.
    """
    # Pixels in training, as SDXL was trained. The released sampler gives its tiles' corners in
    # latent pixels; the difference is the authors', see docs/as-released.md.
    batch = len(corners)
    return torch.cat(
        [
            torch.tensor([original], dtype=torch.float32).expand(batch, 2),
            corners.float(),
            torch.tensor([target], dtype=torch.float32).expand(batch, 2),
        ],
        dim=1,
    )
