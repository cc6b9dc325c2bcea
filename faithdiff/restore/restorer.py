"""The study's way to the sampler: settings of a profile in, restored tensors out."""

from __future__ import annotations

import functools
from dataclasses import replace

import torch
from torch import Tensor

from faithdiff.config import Restore, Sampling
from faithdiff.methods.method import Denoiser, Restorer
from faithdiff.models.faithdiff import FaithDiff
from faithdiff.models.prior import Prior
from faithdiff.models.vae import tile_vae
from faithdiff.restore.sampler import Hooks, Sampler, SamplerSettings, caption_encoder
from faithdiff.restore.schedule import make_scheduler


class DiffusionRestorer(Restorer):
    """A denoiser on its prior, ready to restore images of any size.

    Args:
        prior: In the precision of `config`; its UNet is the one that the denoiser runs.
        denoiser: What conditions that UNet.
        config: Of the profile.
        scale: Side of the result / side of the LQ image.
        sampling: Where the method departs from `config`.
    """

    def __init__(
        self,
        prior: Prior,
        denoiser: Denoiser,
        config: Restore,
        scale: int,
        sampling: Sampling | None = None,
    ) -> None:
        if config.vae_tile:
            tile_vae(prior.vae, config.vae_tile)
        if config.compile:
            # In place, so that hooks stay: FaithDiff's alignment and SUPIR's connectors are hooks.
            # The VAE runs once per image and would not win back the minute that compiling takes.
            prior.unet.compile()
        own = sampling.changed(config) if sampling is not None else config
        scheduler = make_scheduler(own, prior.scheduler)
        self._sampler = Sampler(prior, denoiser, scheduler, caption_encoder(prior))
        self._settings = SamplerSettings.of(config, sampling)
        self._scale = scale
        self.batch_size = config.batch_size

    def save_memory(self) -> str | None:
        # Rows of a pass do not see each other, so fewer of them give the same up to rounding.
        less = self._settings.tile_batch_size // 2
        if less == 0:
            return None
        self._settings = self._settings.model_copy(update={"tile_batch_size": less})
        return f"tiles in one UNet pass: {less} at most"

    def restore(self, lq: Tensor, captions: list[str], seeds: list[int]) -> Tensor:
        sampler, settings = self._sampler, self._settings
        view = sampler.view(lq, self._scale, sampler.prior.unet.device)
        # On the CPU whatever the device: a GPU's generator draws other numbers from the same seed.
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        hooks = Hooks() if self.progress is None else Hooks(on_pass=self.progress)
        latents = sampler.sample(view, captions, generators, settings, hooks)
        return sampler.images(latents, view, settings).cpu()


class FaithDiffRestorer(DiffusionRestorer):
    """A trained FaithDiff model or variant, ready to restore images of any size."""

    def __init__(self, model: FaithDiff, prior: Prior, config: Restore, scale: int) -> None:
        if config.vae_tile:
            model.lq_encoder.enable_tiling(config.vae_tile)
        see = functools.partial(model.see, always_tile=config.as_released)
        super().__init__(
            replace(prior, unet=model.unet), Denoiser(see, model.predict), config, scale
        )
