"""One sampler for every controlled design, with switches for what their papers do differently.

The steps are those of FaithDiff's pipeline (faithdiff/restore/pipeline.py), and so is every draw of
noise: with no switch set, designs differ by their conditioning alone. A switch is a line in
``settings.sampling`` of a baseline. Networks run in float32 and the VAE on whole images, whatever
``restore.precision`` and ``restore.vae_tile`` say.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.design import Design, Seen
from faithdiff.config import Restore, Sampling
from faithdiff.methods.method import Restorer
from faithdiff.models.objective import time_ids
from faithdiff.models.text import Prompt
from faithdiff.restore.colour import fix_colour
from faithdiff.restore.enlarge import enlarge
from faithdiff.restore.schedule import make_scheduler, visited
from faithdiff.restore.tiling import Tile, merged, tiles


class Sampler(Restorer):
    """A trained design, ready to restore images of any size."""

    def __init__(self, design: Design, restore: Restore, sampling: Sampling, scale: int) -> None:
        self._design, self._prior = design, design.prior
        self._config, self._sampling = sampling.changed(restore), sampling
        self._scheduler = make_scheduler(self._config, self._prior.scheduler)
        self._scale = scale
        self._encode = functools.lru_cache(maxsize=1024)(self._encode_one)
        self.batch_size = restore.batch_size

    @torch.no_grad()
    def restore(self, lq: Tensor, captions: list[str], seeds: list[int]) -> Tensor:
        config, design = self._config, self._design
        height, width = (side * self._scale for side in lq.shape[2:])
        enlarged = enlarge(lq, self._scale).to(self._prior.unet.device) * 2 - 1
        padded = self._pad(enlarged)
        seen = design.see(padded)
        latents, timesteps = self._start(padded, seen, seeds)
        if self._sampling.captions is None:
            captions = design.captions(seen, captions)
        prompt = self._prompts(captions).to(latents.device)
        target = design.target(seen) if self._sampling.restoration_guidance else None
        parts = tiles(latents.shape[2], latents.shape[3], config.tile, config.tile_stride)
        done = 0
        for timestep in timesteps:
            scaled = self._scheduler.scale_model_input(latents, timestep)
            predictions = []
            for tile in parts:
                found = self._predict(scaled, timestep, tile, seen, prompt, (height, width))
                predictions.append((tile, found))
                done += 1
                if self.progress is not None:
                    self.progress(done, len(timesteps) * len(parts))
            prediction = merged(predictions, latents)
            if target is not None and timestep != timesteps[-1]:
                prediction = self._guide(prediction, scaled, int(timestep), timesteps, target)
            latents = self._scheduler.step(prediction, timestep, latents).prev_sample
        images = self._prior.decode(latents)[:, :, :height, :width]
        if self._sampling.color_reference == "restored":
            enlarged = design.restored(seen)[:, :, :height, :width]
        fixed = fix_colour(images, enlarged, config.color_fix, config.wavelet_levels)
        return (fixed / 2 + 0.5).clamp(0, 1).cpu()

    def _pad(self, image: Tensor) -> Tensor:
        """Repeat the right and bottom border up to whole latent pixels."""
        down, right = (-side % self._prior.factor for side in image.shape[2:])
        return F.pad(image, (0, right, 0, down), mode="replicate")

    def _start(self, padded: Tensor, seen: Seen, seeds: list[int]) -> tuple[Tensor, Tensor]:
        """The first latents ``(B, C, h, w)``, and the timesteps to visit, descending."""
        config, late = self._config, self._config.start_point == "lq"
        highest = config.start_timestep if late else None
        timesteps = visited(self._scheduler, config.steps, highest)
        restored = self._sampling.start_point == "restored"
        moments = self._prior.encode_moments(self._design.restored(seen) if restored else padded)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        posterior, noise = (
            torch.cat([torch.randn(moments[:1, ::2].shape, generator=g) for g in generators])
            for _ in range(2)
        )
        posterior, noise = posterior.to(moments), noise.to(moments)
        if not late:
            return noise * self._scheduler.init_noise_sigma, timesteps
        clean = self._prior.sample_latents(moments, posterior)
        return self._scheduler.add_noise(clean, noise, timesteps[:1]), timesteps

    def _prompts(self, captions: list[str]) -> Prompt:
        """Captions, preceded by as many negative prompts where guidance needs them."""
        wanted = [*captions]
        if self._config.guidance_scale != 1:
            wanted = [self._config.negative_prompt] * len(captions) + wanted
        rows = [self._encode(caption) for caption in wanted]
        return Prompt(*(torch.cat([getattr(r, key) for r in rows]) for key in ("hidden", "pooled")))

    def _encode_one(self, caption: str) -> Prompt:
        """Encode one caption; whatever is encoded beside it can so not change it."""
        return self._prior.encode_text([caption])

    def _predict(
        self,
        latents: Tensor,
        timestep: Tensor,
        tile: Tile,
        seen: Seen,
        prompt: Prompt,
        size: tuple[int, int],
    ) -> Tensor:
        """The guided prediction of a tile; both halves of the guidance pair see the LQ image."""
        factor, copies = self._prior.factor, len(prompt.hidden) // len(latents)
        noisy = torch.cat([tile.cut(latents)] * copies)
        corner = torch.tensor([[tile.top * factor, tile.left * factor]])
        ids = time_ids(size, corner, (tile.height * factor, tile.width * factor))
        prediction = self._design(
            noisy,
            timestep.expand(len(noisy)).to(noisy.device),
            seen.cut(tile).repeated(copies),
            prompt,
            ids.expand(len(noisy), -1).to(noisy.device),
        )
        if copies == 2:
            negative, positive = prediction.chunk(2)
            prediction = negative + self._config.guidance_scale * (positive - negative)
        return prediction

    def _guide(
        self, prediction: Tensor, noisy: Tensor, timestep: int, timesteps: Tensor, target: Any
    ) -> Tensor:
        """Pull the clean latent of a prediction towards the restored image, as the design does."""
        alpha, first = (self._alpha(t) for t in (timestep, int(timesteps[0])))
        kind = self._prior.scheduler.config.prediction_type
        clean = clean_latents(prediction, noisy, alpha, kind)
        share = float(noise_level(alpha) / noise_level(first))
        strength = self._sampling.restoration_guidance
        return prediction_of(self._design.guide(clean, target, strength, share), noisy, alpha, kind)

    def _alpha(self, timestep: int) -> Tensor:
        return self._prior.scheduler.alphas_cumprod[timestep]


def noise_level(alpha: Tensor) -> Tensor:
    """The deviation of the noise relative to the clean latent: ``sqrt((1 - ᾱ) / ᾱ)``."""
    return ((1 - alpha) / alpha).sqrt()


def clean_latents(prediction: Tensor, noisy: Tensor, alpha: Tensor, kind: str) -> Tensor:
    """The clean latent that a prediction implies, from ``sqrt(ᾱ) z + sqrt(1-ᾱ) ε``."""
    signal, noise = alpha.sqrt(), (1 - alpha).sqrt()
    if kind == "epsilon":
        return (noisy - noise * prediction) / signal
    return signal * noisy - noise * prediction


def prediction_of(clean: Tensor, noisy: Tensor, alpha: Tensor, kind: str) -> Tensor:
    """The prediction that implies a clean latent: the inverse of :func:`clean_latents`."""
    signal, noise = alpha.sqrt(), (1 - alpha).sqrt()
    if kind == "epsilon":
        return (noisy - signal * clean) / noise
    return (signal * noisy - clean) / noise
