"""Sampling: LQ image to restored image with a trained model (paper's code: test.py and pipeline).

Enlarge (Lanczos), encode, start from noise or from the noised LQ latent, denoise with text-only
classifier-free guidance over latent tiles, decode, fix the colours, crop.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler
from PIL import Image
from torch import Tensor

from faithdiff.config import Restore
from faithdiff.errors import ConfigError
from faithdiff.methods import Restorer
from faithdiff.models.faithdiff import FaithDiff
from faithdiff.models.prior import Prior
from faithdiff.models.text import Prompt
from faithdiff.restore.colour import fix_colour
from faithdiff.restore.tiling import Tile, merged, tiles
from faithdiff.train.objective import time_ids


class FaithDiffRestorer(Restorer):
    """A trained FaithDiff model or variant, ready to restore images of any size."""

    def __init__(self, model: FaithDiff, prior: Prior, config: Restore, scale: int) -> None:
        self._model = model
        self._prior = prior
        self._config = config
        self._scale = scale
        self.batch_size = config.batch_size

    @torch.no_grad()
    def restore(self, lq: Tensor, captions: list[str], seeds: list[int]) -> Tensor:
        height, width = (side * self._scale for side in lq.shape[2:])
        enlarged = self._pad(enlarge(lq, self._scale).to(self._prior.unet.device)) * 2 - 1
        latents = self._sample(enlarged, captions, seeds, (height, width))
        image = self._prior.decode(latents)
        fixed = fix_colour(image, enlarged, self._config.color_fix, self._config.wavelet_levels)
        return (fixed[:, :, :height, :width] / 2 + 0.5).clamp(0, 1)

    def _pad(self, image: Tensor) -> Tensor:
        """Repeat the right and bottom border up to whole latent pixels."""
        down, right = (-side % self._prior.factor for side in image.shape[2:])
        return F.pad(image, (0, right, 0, down), mode="replicate")

    def _sample(
        self, enlarged: Tensor, captions: list[str], seeds: list[int], size: tuple[int, int]
    ) -> Tensor:
        config = self._config
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        features = self._model.lq_encoder(enlarged)
        moments = self._prior.encode_moments(enlarged)
        shape = moments[:1, ::2].shape
        posterior, noise = (
            torch.cat([torch.randn(shape, generator=g) for g in generators]).to(moments)
            for _ in range(2)
        )
        scheduler, timesteps = make_scheduler(config, self._prior.scheduler)
        if config.start_point == "lq":
            start = self._prior.sample_latents(moments, posterior)
            latents = scheduler.add_noise(start, noise, timesteps[:1])
        else:
            latents = noise * scheduler.init_noise_sigma
        prompt = self._prompts(captions)
        tall, wide = latents.shape[2:]
        parts = tiles(tall, wide, config.tile, config.tile_stride)
        passes, total = itertools.count(1), len(timesteps) * len(parts)
        for timestep in timesteps:
            scaled = scheduler.scale_model_input(latents, timestep)

            def predict(tile: Tile, scaled: Tensor = scaled, timestep: Tensor = timestep) -> Tensor:
                prediction = self._guided(scaled, timestep, features, prompt, tile, size)
                if self.progress is not None:
                    self.progress(next(passes), total)
                return prediction

            latents = scheduler.step(merged(predict, latents, parts), timestep, latents).prev_sample
        return latents

    def _prompts(self, captions: list[str]) -> Prompt:
        """Captions, preceded by as many negative prompts where guidance needs them."""
        if self._config.guidance_scale == 1:
            return self._prior.encode_text(captions)
        return self._prior.encode_text([self._config.negative_prompt] * len(captions) + captions)

    def _guided(
        self,
        latents: Tensor,
        timestep: Tensor,
        features: Tensor,
        prompt: Prompt,
        tile: Tile,
        size: tuple[int, int],
    ) -> Tensor:
        """Prediction for one tile; both halves of the guidance pair see the LQ features."""
        noisy, seen = tile.cut(latents), tile.cut(features)
        copies = len(prompt.hidden) // len(noisy)
        factor = self._prior.factor
        corner = torch.tensor([[tile.top * factor, tile.left * factor]])
        ids = time_ids(size, corner, (tile.height * factor, tile.width * factor))
        prediction = self._model(
            torch.cat([noisy] * copies),
            timestep.expand(copies * len(noisy)).to(noisy.device),
            torch.cat([seen] * copies),
            prompt,
            ids.expand(copies * len(noisy), -1).to(noisy),
        )
        if copies == 1:
            return prediction
        negative, positive = prediction.chunk(2)
        return negative + self._config.guidance_scale * (positive - negative)


def enlarge(lq: Tensor, scale: int) -> Tensor:
    """Lanczos enlargement of ``(B, 3, h, w)`` in [0, 1] through 8-bit PIL, as released."""
    enlarged = []
    for image in (lq * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy():
        height, width = image.shape[:2]
        picture = Image.fromarray(image).resize(
            (scale * width, scale * height), Image.Resampling.LANCZOS
        )
        enlarged.append(torch.from_numpy(np.array(picture)))
    return torch.stack(enlarged).permute(0, 3, 1, 2).float() / 255


def make_scheduler(
    config: Restore, trained: DDPMScheduler
) -> tuple[DDIMScheduler | EulerDiscreteScheduler, Tensor]:
    """A sampler on the prior's own noise schedule, and the timesteps to visit, descending.

    Raises:
        ConfigError: No timestep of the schedule is as low as `start_timestep`.
    """
    kind = DDIMScheduler if config.scheduler == "ddim" else EulerDiscreteScheduler
    scheduler = kind.from_config(trained.config, timestep_spacing=config.timestep_spacing)
    scheduler.set_timesteps(config.steps)
    timesteps = scheduler.timesteps
    if config.start_point == "lq":
        timesteps = timesteps[timesteps <= config.start_timestep]
        if not len(timesteps):
            raise ConfigError(
                f"restore.start_timestep: no step of {config.steps} is at or below "
                f"{config.start_timestep}; the lowest is {int(scheduler.timesteps[-1])}"
            )
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(len(scheduler.timesteps) - len(timesteps))
    return scheduler, timesteps
