"""What every variant needs of the training set, computed once: latents, LQ pixels, text.

HQ latents come from the frozen VAE and captions from the frozen text encoder, so neither changes
during the study (the paper's code computes them anew in each step).
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from faithdiff import seeds
from faithdiff.config import Training
from faithdiff.errors import CheckpointError, ConfigError, RunError
from faithdiff.models.prior import Prior
from faithdiff.models.text import Prompt
from faithdiff.train.objective import time_ids
from faithdiff.train.pairs import Pairs, crops, pick

# A training crop of the LQ image is enlarged by one of these at random (paper's code).
ENLARGEMENTS = ("nearest", "bilinear", "bicubic")


def write_cache(pairs: Pairs, prior: Prior, file: Path) -> None:
    """Encode a training set and write the cache in one step."""
    tensors = {"lq": pairs.lq, "hq": pairs.hq}
    with torch.no_grad():
        batches = tqdm(pairs.hq.split(8), "encode latents", unit="batch", mininterval=2)
        tensors["moments"] = torch.cat([prior.encode_moments(to_signed(b)) for b in batches])
        prompt = prior.encode_text([*pairs.captions, ""])  # the last row is the empty caption
    tensors |= {"hidden": prompt.hidden, "pooled": prompt.pooled}
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    try:
        save_file({key: value.contiguous() for key, value in tensors.items()}, partial)
        os.replace(partial, file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise RunError(f"{file}: cannot be written: {error}") from None


def to_signed(images: Tensor) -> Tensor:
    """uint8 images as float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


@dataclass(frozen=True)
class Batch:
    """One micro-batch of B crops of `training.crop` pixels.

    Attributes:
        hq: HQ crops ``(B, 3, H, W)`` in [-1, 1].
        lq: Enlarged LQ crops ``(B, 3, H, W)`` in [-1, 1].
        latents: Scaled HQ latents ``(B, C, h, w)``.
        noise: Same shape, noise offset included.
        timesteps: ``(B,)``.
        prompt: Text conditioning, some captions dropped.
        time_ids: ``(B, 6)``.
    """

    hq: Tensor
    lq: Tensor
    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    prompt: Prompt
    time_ids: Tensor

    def to(self, device: torch.device) -> Batch:
        return Batch(*(getattr(self, part.name).to(device) for part in fields(self)))


class Cache:
    """The training set in memory; batches are drawn by the number of the update."""

    def __init__(self, file: Path, prior: Prior, scale: int, config: Training) -> None:
        self.prior = prior
        self.scheduler = prior.scheduler
        self._tensors = _read(file)
        self._scale = scale
        self._config = config
        # A crop must start on a whole pixel of both the latent and the LQ image.
        self._grid = math.lcm(prior.factor, scale)
        if config.crop % self._grid:
            raise ConfigError(f"training.crop {config.crop} is not a multiple of {self._grid}")

    def lq_sample(self, count: int) -> Tensor:
        """Enlarged LQ images ``(count, 3, H, W)`` in [-1, 1], for statistics of the features."""
        lq = to_signed(self._tensors["lq"][:count])
        return F.interpolate(lq, scale_factor=self._scale, mode="bicubic").clamp(-1, 1)

    def batch(self, *key: str | int, master: int) -> Batch:
        """The micro-batch of a key such as (seed, update, micro-batch)."""
        generator = seeds.torch_generator(master, "train", *key)
        config, factor, grid = self._config, self.prior.factor, self._grid
        height = self._tensors["hq"].shape[-1]
        rows = pick(len(self._tensors["hq"]), config.micro_batch, generator)
        corner = grid * torch.randint(
            (height - config.crop) // grid + 1, (len(rows), 2), generator=generator
        )
        moments = crops(self._tensors["moments"][rows], corner // factor, config.crop // factor)
        latents = self.prior.sample_latents(moments, _normal(moments[:, ::2].shape, generator))
        offset = config.noise_offset * _normal((*latents.shape[:2], 1, 1), generator)
        lq = crops(self._tensors["lq"][rows], corner // self._scale, config.crop // self._scale)
        return Batch(
            hq=to_signed(crops(self._tensors["hq"][rows], corner, config.crop)),
            lq=self._enlarge(to_signed(lq), generator),
            latents=latents,
            noise=_normal(latents.shape, generator) + offset,
            timesteps=torch.randint(1000, (len(rows),), generator=generator),
            prompt=self._prompt(rows, generator),
            time_ids=time_ids((height, height), corner, (config.crop, config.crop)),
        ).to(self.prior.unet.device)

    def _enlarge(self, lq: Tensor, generator: torch.Generator) -> Tensor:
        modes = torch.randint(len(ENLARGEMENTS), (len(lq),), generator=generator).tolist()
        images = [
            F.interpolate(image[None], scale_factor=self._scale, mode=ENLARGEMENTS[mode])
            for image, mode in zip(lq, modes, strict=True)
        ]
        return torch.cat(images).clamp(-1, 1)

    def _prompt(self, rows: Tensor, generator: torch.Generator) -> Prompt:
        dropped = torch.rand(len(rows), generator=generator) < self._config.text_dropout
        rows = torch.where(dropped, len(self._tensors["hidden"]) - 1, rows)
        return Prompt(self._tensors["hidden"], self._tensors["pooled"])[rows]


def _normal(shape: torch.Size | tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator)


def _read(file: Path) -> dict[str, Tensor]:
    try:
        with safe_open(file, framework="pt") as stream:
            return {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{file}: cannot be read ({error}); make it with: faithdiff cache"
        ) from None
