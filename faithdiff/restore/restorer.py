"""The study's way to the sampler: settings of a profile in, restored tensors out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from faithdiff.config import Restore, Sampling
from faithdiff.methods.method import Denoiser, Restorer
from faithdiff.models.prior import Prior
from faithdiff.models.repeatable import channels_last
from faithdiff.models.vae import tile_vae
from faithdiff.restore.sampler import Hooks, Sampler, SamplerSettings, caption_encoder
from faithdiff.restore.schedule import make_scheduler
from faithdiff.restore.tile_sizes import TileChooser


class DiffusionRestorer(Restorer):
    """A denoiser on its prior, ready to restore images of any size.

    Args:
        prior: In the precision of `config`; its UNet is the one that the denoiser runs.
        denoiser: What conditions that UNet.
        config: Of the profile.
        scale: Side of the result / side of the LQ image.
        sampling: Where the method departs from `config`.
        tile_encoders: Lets encoders beside the prior's VAE read by tiles of so many pixels; 0:
            whole.
    """

    def __init__(
        self,
        prior: Prior,
        denoiser: Denoiser,
        config: Restore,
        scale: int,
        sampling: Sampling | None = None,
        tile_encoders: Callable[[int], None] = lambda size: None,
    ) -> None:
        if config.channels_last:
            channels_last(prior.unet, prior.vae)
        if config.compile:
            # In place, so that hooks stay: FaithDiff's alignment and SUPIR's connectors are hooks.
            # The VAE runs once per image and would not win back the minute that compiling takes.
            prior.unet.compile()
        own = sampling.changed(config) if sampling is not None else config
        scheduler = make_scheduler(own, prior.scheduler)
        self._sampler = Sampler(prior, denoiser, scheduler, caption_encoder(prior))
        self._settings = SamplerSettings.of(config, sampling)
        self._scale = scale
        self._tile_encoders = tile_encoders
        self._chooser = TileChooser(config, prior)
        self._device: torch.device | None = None  # None: where the networks are
        self.batch_size = config.batch_size

    def save_memory(self) -> str | None:
        # Rows of a pass do not see each other, so fewer of them give the same up to rounding.
        return self._chooser.smaller()

    def restore(self, lq: Tensor, captions: list[str], seeds: list[int]) -> Tensor:
        sampler, settings = self._sampler, self._take_apart(lq)
        view = sampler.view(lq, self._scale, self._device or sampler.prior.unet.device)
        # On the CPU whatever the device: a GPU's generator draws other numbers from the same seed.
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        hooks = Hooks() if self.progress is None else Hooks(on_pass=self.progress)
        latents = sampler.sample(view, captions, generators, settings, hooks)
        return sampler.images(latents, view, settings).cpu()

    def _take_apart(self, lq: Tensor) -> SamplerSettings:
        """Choose the tiles for images of this size."""
        prior = self._sampler.prior
        height, width = (self._scale * side for side in lq.shape[2:])
        device = self._device or prior.unet.device
        tiles = self._chooser.choose(height, width, len(lq), device)
        tile_vae(prior.vae, tiles.vae)
        self._tile_encoders(tiles.vae)
        chosen = {
            "tile_size": tiles.size,
            "tile_stride": tiles.stride,
            "tile_batch_size": tiles.batch,
        }
        return self._settings.model_copy(update=chosen)
