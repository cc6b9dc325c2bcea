"""Restores with a trained FaithDiff model.

Apart from the restorer of all designs: an edit of FaithDiff's networks must not train the baselines
again, which import that one.
"""

from __future__ import annotations

import functools
from dataclasses import replace

import torch
from accelerate import cpu_offload_with_hook

from faithdiff.config import Restore
from faithdiff.methods.method import Denoiser
from faithdiff.models.faithdiff import FaithDiff
from faithdiff.models.prior import Prior
from faithdiff.restore.restorer import DiffusionRestorer


class FaithDiffRestorer(DiffusionRestorer):
    """A trained FaithDiff model or variant, ready to restore images of any size."""

    def __init__(self, model: FaithDiff, prior: Prior, config: Restore, scale: int) -> None:
        self._model = model
        see = functools.partial(model.see, always_tile=config.as_released)
        super().__init__(
            replace(prior, unet=model.unet),
            Denoiser(see, model.predict, sees_pairs_once=True),
            config,
            scale,
            tile_encoders=lambda size: model.lq_encoder.enable_tiling(size or None),
        )

    def offload(self, device: torch.device) -> None:
        # The hooks are those of `FaithDiffPipeline.enable_model_cpu_offload`, in its order: each
        # network sends the one before it back. The alignment is small, and a part of the UNet's
        # pass.
        prior, hook = self._sampler.prior, None
        networks = [*prior.text_encoders, self._model.lq_encoder, prior.unet, prior.vae]
        for network in networks:
            _, hook = cpu_offload_with_hook(network, device, hook)
        self._model.alignment.to(device)
        self._device = device
