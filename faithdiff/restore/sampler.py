"""The one sampling loop: FaithDiff, its variants and the controlled baselines all go through it.

A model comes in as a :class:`Denoiser`: what it sees of the LQ image, and a predict callable. What
its paper does differently in sampling is data (:class:`SamplerSettings`); Euler or DDIM is a
diffusers scheduler. So, under equal settings, designs differ by their conditioning alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from faithdiff.config import Positive, Restore, Sampling, Section
from faithdiff.methods.method import Denoiser, Guide
from faithdiff.models.objective import time_ids
from faithdiff.models.prior import Prior
from faithdiff.models.seen import Seen
from faithdiff.models.text import Prompt
from faithdiff.restore.colour import fix_colour
from faithdiff.restore.enlarge import enlarge
from faithdiff.restore.schedule import (
    Scheduler,
    add_noise_as_released,
    clean_latents,
    noise_level,
    prediction_of,
    visited,
)
from faithdiff.restore.tiling import Tile, merged, tiles

CAPTIONS = 1024  # encoded captions that are kept: a test set has the same one at every level


class SamplerSettings(Section):
    """What is switched from design to design and study to study; defaults are FaithDiff's released.

    The names are those of diffusers' pipelines. Tiles are in latent pixels.
    """

    num_inference_steps: Positive = 20  # of the whole schedule
    start_point: Literal["noise", "lq", "restored"] = "lq"  # or the noised latent of an image
    start_timestep: int = 999  # the highest that is visited from the latent of an image
    guidance_scale: float = 5.0  # classifier-free guidance by text; 1 is without
    negative_prompt: str = ""
    read_captions: bool = True  # by the design from the LQ image, where it has a captioner (SeeSR)
    restoration_guidance: float = 0.0  # 0: none; what it measures is up to the design
    tile_size: Positive = 128
    tile_stride: Positive = 64  # from tile to tile
    tile_batch_size: Positive = 1  # tiles in one UNet pass: speed and memory, not the result
    color_fix: Literal["none", "adain", "wavelet"] = "adain"
    color_reference: Literal["lq", "restored"] = "lq"
    wavelet_levels: Positive = 5
    as_released: bool = False  # what the released code does by accident, see docs/as-released.md

    @classmethod
    def of(cls, restore: Restore, sampling: Sampling | None = None) -> SamplerSettings:
        """The settings of a profile, with the switches of a method.

        All but the tiles, which are chosen for each image (restore/tile_sizes.py).
        """
        own = sampling or Sampling()
        config = own.changed(restore)
        return cls(
            num_inference_steps=config.steps,
            start_point="restored" if own.start_point == "restored" else config.start_point,
            start_timestep=config.start_timestep,
            guidance_scale=config.guidance_scale,
            negative_prompt=config.negative_prompt,
            read_captions=own.captions is None,
            restoration_guidance=own.restoration_guidance,
            color_fix=config.color_fix,
            color_reference=own.color_reference,
            wavelet_levels=config.wavelet_levels,
            as_released=config.as_released,
        )


@dataclass(frozen=True)
class View:
    """LQ images as a denoiser meets them, in [-1, 1] and float32.

    Attributes:
        enlarged: ``(B, 3, H, W)`` of the size of the result.
        padded: The same, up to whole latent pixels.
        seen: What the denoiser takes from them.
    """

    enlarged: Tensor
    padded: Tensor
    seen: Seen


@dataclass(frozen=True)
class Hooks:
    """Progress and callbacks of one sampling; only `on_step` can change a result.

    Attributes:
        bar: Wraps the timesteps to show a progress bar.
        on_pass: Called with (done, total) tiles of all steps.
        on_step: Called with step, timestep and latents after each step; gives the latents to go
            on with.
    """

    bar: Callable[[Tensor], Iterable[Tensor]] = iter
    on_pass: Callable[[int, int], None] = lambda done, total: None
    on_step: Callable[[int, Tensor, Tensor], Tensor] = lambda step, timestep, latents: latents


@dataclass(frozen=True)
class Sampler:
    """Samples with one denoiser: :meth:`view`, then :meth:`sample`, then :meth:`images`.

    Attributes:
        prior: Gives VAE and text encoders; its UNet is the one that the denoiser runs.
        denoiser: What differs between designs.
        scheduler: Takes the steps.
        encode: Encodes one caption, see :func:`caption_encoder`.
    """

    prior: Prior
    denoiser: Denoiser
    scheduler: Scheduler
    encode: Callable[[str], Prompt]

    @torch.no_grad()
    def view(self, lq: Tensor, scale: int, device: torch.device | str) -> View:
        """Enlarge LQ images ``(B, 3, h, w)`` in [0, 1] and let the denoiser see them."""
        enlarged = enlarge(lq, scale).to(device) * 2 - 1
        # The border is repeated, as the released code does: zeros would be a grey edge to restore,
        # and a reflection needs an image that is larger than its border.
        down, right = (-side % self.prior.factor for side in enlarged.shape[2:])
        padded = F.pad(enlarged, (0, right, 0, down), mode="replicate")
        return View(enlarged, padded, self.denoiser.see(padded))

    @torch.no_grad()
    def sample(
        self,
        view: View,
        captions: Sequence[str],
        generators: Sequence[torch.Generator | None],
        settings: SamplerSettings,
        hooks: Hooks = Hooks(),
    ) -> Tensor:
        """Clean latents ``(B, C, h, w)`` in float32.

        Args:
            view: What :meth:`view` gave.
            captions: One for each image.
            generators: One for each image, on the CPU: the source of all its noise.
            settings: The same for all images.
            hooks: Progress and callbacks.

        Raises:
            ConfigError: No timestep of the schedule is as low as `start_timestep`.
        """
        latents, timesteps = self._start(view, generators, settings)
        prompt = self._prompt(view, captions, settings)
        # What it pulls towards does not change from step to step: decoded and encoded once.
        guide = self.denoiser.guidance(view.seen) if settings.restoration_guidance else None
        parts = tiles(latents.shape[2], latents.shape[3], settings.tile_size, settings.tile_stride)
        size = settings.tile_batch_size
        chunks = [parts[first : first + size] for first in range(0, len(parts), size)]
        done, total = 0, len(timesteps) * len(parts)
        for step, timestep in enumerate(hooks.bar(timesteps)):
            noisy = self.scheduler.scale_model_input(latents, timestep)
            predictions: list[tuple[Tile, Tensor]] = []
            for chunk in chunks:
                found = self._predict(noisy, timestep, chunk, view, prompt, settings)
                predictions += zip(chunk, found, strict=True)
                done += len(chunk)
                hooks.on_pass(done, total)
            # Merged before the step, where the released code steps each tile: a step is linear.
            prediction = merged(predictions, latents)
            # SUPIR's sampler pulls only where noise is left after the step (there: sigma > 0.05),
            # so that the model has the last word.
            if guide is not None and timestep != timesteps[-1]:
                prediction = self._guided(prediction, noisy, timestep, timesteps, guide, settings)
            latents = self.scheduler.step(prediction, timestep, latents).prev_sample
            latents = hooks.on_step(step, timestep, latents)
        return latents

    @torch.no_grad()
    def images(self, latents: Tensor, view: View, settings: SamplerSettings) -> Tensor:
        """Decode, crop, fix the colours: ``(B, 3, H, W)`` in [0, 1]."""
        height, width = view.enlarged.shape[2:]
        # Cropped before the colours are fixed: the repeated border would shift their mean.
        images, reference = self.prior.decode(latents)[:, :, :height, :width], view.enlarged
        if settings.color_reference == "restored":
            reference = self.denoiser.restored(view.seen)[:, :, :height, :width]
        kind, levels = settings.color_fix, settings.wavelet_levels
        if not settings.as_released:
            return (fix_colour(images, reference, kind, levels) / 2 + 0.5).clamp(0, 1)
        # The released code fixes 8-bit images and cuts its result off to 8 bits, without rounding.
        whole = ((images / 2 + 0.5).clamp(0, 1) * 255).round() / 255
        if kind == "none":
            return whole
        fixed = fix_colour(whole, reference / 2 + 0.5, kind, levels).clamp(0, 1)
        return (fixed * 255).floor() / 255

    def _start(
        self,
        view: View,
        generators: Sequence[torch.Generator | None],
        settings: SamplerSettings,
    ) -> tuple[Tensor, Tensor]:
        """The first latents ``(B, C, h, w)`` in float32, and the timesteps to visit, descending."""
        from_image = settings.start_point != "noise"
        highest = settings.start_timestep if from_image and not settings.as_released else None
        timesteps = visited(self.scheduler, settings.num_inference_steps, highest)
        from_restored = settings.start_point == "restored"
        image = self.denoiser.restored(view.seen) if from_restored else view.padded
        moments = self.prior.encode_moments(image)
        # Each image draws from its own generator, so that a batch changes nothing, and on the CPU,
        # so that a GPU starts from the same noise. The posterior's noise comes first whether it is
        # used or not: start points then share the noise of the latent.
        posterior, noise = (
            torch.cat([torch.randn(moments[:1, ::2].shape, generator=g) for g in generators]).to(
                moments
            )
            for _ in range(2)
        )
        if not from_image:
            return noise * self.scheduler.init_noise_sigma, timesteps
        clean = self.prior.sample_latents(moments, posterior)
        if settings.as_released:
            # The released code scales first and then mixes by DDPM's formula, although Euler's
            # latents are in other units.
            scaled = noise * self.scheduler.init_noise_sigma
            return add_noise_as_released(self.prior.scheduler, clean, scaled), timesteps
        return self.scheduler.add_noise(clean, noise, timesteps[:1]), timesteps

    def _prompt(self, view: View, captions: Sequence[str], settings: SamplerSettings) -> Prompt:
        """Captions, preceded by as many negative prompts where guidance needs them."""
        positive = [*captions]
        if settings.read_captions:
            positive = self.denoiser.captions(view.seen, positive)
        paired = settings.guidance_scale != 1
        wanted = [settings.negative_prompt] * len(positive) * paired + positive
        # One by one: kernels chosen by batch size round otherwise, and a caption's encoding would
        # then depend on the captions beside it.
        rows = [self.encode(caption) for caption in wanted]
        hidden, pooled = (
            torch.cat([getattr(r, key) for r in rows]) for key in ("hidden", "pooled")
        )
        return Prompt(hidden, pooled).to(view.padded.device)

    def _predict(
        self,
        noisy: Tensor,
        timestep: Tensor,
        chunk: Sequence[Tile],
        view: View,
        prompt: Prompt,
        settings: SamplerSettings,
    ) -> tuple[Tensor, ...]:
        """Guided predictions ``(B, C, h, w)``, one for each tile of a chunk, in one UNet pass.

        Both halves of the guidance pair see the LQ image, so guidance is by text alone: so in the
        released code of FaithDiff, and in DiffBIR's.
        """
        images, dtype = len(noisy), self.prior.unet.dtype
        copies = len(prompt.hidden) // images
        # Rows of a pass: half of the pair, then tile, then image.
        cut = torch.cat([tile.cut(noisy) for tile in chunk] * copies)
        ids = [self._time_ids(tile, view, settings).expand(images, -1) for tile in chunk] * copies
        rows = torch.arange(len(prompt.hidden)).view(copies, 1, images)
        seen = _seen_by(view.seen, chunk, 1 if self.denoiser.sees_pairs_once else copies, dtype)
        prediction = self.denoiser.predict(
            cut.to(dtype),
            timestep.expand(len(cut)).to(cut.device),
            seen,
            prompt[rows.expand(copies, len(chunk), images).flatten()],
            torch.cat(ids).to(cut.device, dtype),
        ).float()
        if copies == 2:
            negative, positive = prediction.chunk(2)
            prediction = negative + settings.guidance_scale * (positive - negative)
        return prediction.split(images)

    def _time_ids(self, tile: Tile, view: View, settings: SamplerSettings) -> Tensor:
        factor = self.prior.factor
        if settings.as_released:  # corner in latent pixels, nominal tile as target, padded image
            corner, side = torch.tensor([[tile.top, tile.left]]), settings.tile_size * factor
            return time_ids((view.padded.shape[2], view.padded.shape[3]), corner, (side, side))
        corner = torch.tensor([[tile.top * factor, tile.left * factor]])
        size = view.enlarged.shape[2], view.enlarged.shape[3]
        return time_ids(size, corner, (tile.height * factor, tile.width * factor))

    def _guided(
        self,
        prediction: Tensor,
        noisy: Tensor,
        timestep: Tensor,
        timesteps: Tensor,
        guide: Guide,
        settings: SamplerSettings,
    ) -> Tensor:
        """Pull the clean latent of a prediction towards the restored image, as the design does.

        DiffBIR and SUPIR guide the clean latent inside their own samplers. Turned back into a
        prediction, the pulled latent goes through any scheduler's step.
        """
        trained = self.prior.scheduler
        alpha, first = (trained.alphas_cumprod[int(t)] for t in (timestep, timesteps[0]))
        kind = trained.config.prediction_type
        clean = clean_latents(prediction, noisy, alpha, kind)
        # SUPIR divides by the noise of the schedule's last timestep; a late start has none of it.
        ratio = float(noise_level(alpha) / noise_level(first))
        pulled = guide(clean, settings.restoration_guidance, ratio)
        return prediction_of(pulled, noisy, alpha, kind)


def caption_encoder(prior: Prior) -> Callable[[str], Prompt]:
    """Encode captions one by one and keep them, so that none depends on those beside it."""
    return functools.lru_cache(CAPTIONS)(lambda caption: prior.encode_text([caption]))


def _seen_by(seen: Seen, chunk: Sequence[Tile], copies: int, dtype: torch.dtype) -> Seen:
    """What each row of a pass sees: the tile's part of the map, and all tokens of its image."""
    parts = torch.cat([tile.cut(seen.map) for tile in chunk] * copies)
    if seen.tokens is None:
        return Seen(parts).to(dtype)
    return Seen(parts, torch.cat([seen.tokens] * (len(chunk) * copies))).to(dtype)
