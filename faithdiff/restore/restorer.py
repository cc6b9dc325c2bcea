"""The study's way to the pipeline: settings of a profile in, tensors out."""

from __future__ import annotations

import torch
from torch import Tensor

from faithdiff.config import Restore
from faithdiff.methods.method import Restorer
from faithdiff.models.faithdiff import FaithDiff
from faithdiff.models.prior import Prior
from faithdiff.restore.pipeline import FaithDiffPipeline
from faithdiff.restore.schedule import make_scheduler

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class FaithDiffRestorer(Restorer):
    """A trained FaithDiff model or variant, ready to restore images of any size."""

    def __init__(self, model: FaithDiff, prior: Prior, config: Restore, scale: int) -> None:
        scheduler = make_scheduler(config, prior.scheduler)
        self._pipeline = FaithDiffPipeline.from_parts(prior, model, scheduler)
        self._pipeline.set_progress_bar_config(disable=True)
        if config.vae_tile:
            self._pipeline.enable_vae_tiling(config.vae_tile)
        if config.compile:
            model.unet.compile()
        self._config = config
        self._scale = scale
        self._tile_batch = config.tile_batch
        self.batch_size = config.batch_size

    def save_memory(self) -> str | None:
        if self._tile_batch == 1:
            return None
        self._tile_batch //= 2
        return f"tiles in one UNet pass: {self._tile_batch} at most"

    def restore(self, lq: Tensor, captions: list[str], seeds: list[int]) -> Tensor:
        config = self._config
        self._pipeline.on_pass = self.progress
        (restored,) = self._pipeline(
            image=lq,
            prompt=captions,
            negative_prompt=config.negative_prompt,
            upscale=self._scale,
            num_inference_steps=config.steps,
            guidance_scale=config.guidance_scale,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            start_point=config.start_point,
            start_timestep=config.start_timestep,
            tile_size=config.tile,
            tile_stride=config.tile_stride,
            tile_batch_size=self._tile_batch,
            color_fix=config.color_fix,
            wavelet_levels=config.wavelet_levels,
            as_released=config.as_released,
            output_type="pt",
            return_dict=False,
        )
        assert isinstance(restored, Tensor)
        return restored
