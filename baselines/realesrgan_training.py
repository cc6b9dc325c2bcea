"""Trains the controlled Real-ESRGAN (see baselines/realesrgan.py) in its two phases.

RealESRNet by L1, then RealESRGAN by L1 + perceptual + adversarial losses (Wang et al., ICCVW 2021,
section 4.1; options/train_real{esrnet,esrgan}_x4plus.yml of the official repository).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from pydantic import Field
from torch import Tensor, nn

from faithdiff import compat
from faithdiff.study import seeds

# isort: split
from basicsr.archs.discriminator_arch import UNetDiscriminatorSN
from basicsr.archs.rrdbnet_arch import RRDBNet
from basicsr.utils.img_process_util import USMSharp, usm_sharp

from faithdiff.config import Natural, Positive, Probability, Rate, Section, digest
from faithdiff.methods.method import Study
from faithdiff.models.prior import load_prior
from faithdiff.models.repeatable import allow_tf32, compute_repeatably
from faithdiff.train.cache import PixelRows
from faithdiff.train.engine import Trained
from faithdiff.train.log import LogRow
from faithdiff.train.loop import Job, train
from faithdiff.train.pairs import corners, crops, find_pairs, mirror, mirrored, pick

compat.patch()
KEPT = 2**26  # bytes of sharpened images that are kept; the 240 of `mini` fit
MARGIN = 50  # pixels that sharpening reaches: two blurs over 51 of them
Weight = Annotated[float, Field(ge=0)]


class RealESRGANSettings(Section):
    """``baselines.realesrgan.settings``; published values in brackets."""

    features: Annotated[int, Field(ge=3)]  # [64]; the discriminator has a third of it [64]
    blocks: Positive  # [23]
    growth: Positive  # [32]
    psnr_steps: Positive  # updates by L1 alone [1,000,000]
    gan_steps: Natural  # updates with all losses [400,000]
    crop: Annotated[int, Field(ge=8, multiple_of=8)]  # HQ pixels; the discriminator halves thrice
    batch_size: Positive
    learning_rate: Rate  # [2e-4]
    gan_learning_rate: Rate  # of both networks [1e-4]
    pixel_weight: Weight  # [1]
    perceptual_weight: Weight  # [1]
    gan_weight: Weight  # [0.1]
    sharpen: bool  # the targets, by an unsharp mask [true]; costs PSNR, and gains sharpness
    ema_decay: Probability  # [0.999]


@dataclass
class RealESRGANTraining:
    """Both phases of one repetition: data, frozen VAE, and where their states lie."""

    config: RealESRGANSettings
    study: Study
    seed: int
    rows: PixelRows
    targets: Targets
    vae: AutoencoderKL
    state: Path
    identity: str

    @classmethod
    def prepare(
        cls, config: RealESRGANSettings, study: Study, seed: int, rows: PixelRows, state: Path
    ) -> RealESRGANTraining:
        profile = study.profile
        compute_repeatably(study.profile)
        allow_tf32(study.profile)
        vae = load_prior(study.prior_folder).vae.to(profile.device)
        identity = digest(
            *(config, profile.training.optimiser, profile.training.flip, profile.seed, seed),
            find_pairs(study.layout, profile.data.train_level).identity,
            _sha256(vae.encoder.state_dict().values()),
        )
        targets = Targets(rows, config.crop, torch.device(profile.device))
        return cls(config, study, seed, rows, targets, vae, state, identity)

    def by_pixels(self, generator: RRDBNet) -> list[LogRow]:
        """Phase 1, RealESRNet: L1 alone. Leaves the averaged weights in `generator`."""

        def loss(step: int, _: int) -> Tensor:
            lq, target, _hq = self._batch("psnr", step)
            return F.l1_loss(generator(lq), target)

        steps, rate = self.config.psnr_steps, self.config.learning_rate
        return self._run("psnr", nn.ModuleDict({"generator": generator}), loss, steps, rate)

    def by_all_losses(self, generator: RRDBNet, discriminator: UNetDiscriminatorSN) -> list[LogRow]:
        """Phase 2: L1 + perceptual against the targets; raw images are what is real."""
        weights = self.config

        def loss(step: int, _: int) -> Tensor:
            lq, target, hq = self._batch("gan", step)
            fake = generator(lq)
            discriminator.requires_grad_(False)  # the generator's loss leaves it alone
            generated = (
                weights.pixel_weight * F.l1_loss(fake, target)
                + weights.perceptual_weight * _perceptual_distance(self.vae, fake, target)
                + weights.gan_weight * F.softplus(-discriminator(fake)).mean()
            )
            discriminator.requires_grad_(True)
            # -log sigmoid(x) = softplus(-x): the vanilla GAN loss on logits
            real = F.softplus(-discriminator(hq)).mean()
            return generated + real + F.softplus(discriminator(fake.detach())).mean()

        model = nn.ModuleDict({"generator": generator, "discriminator": discriminator})
        return self._run("gan", model, loss, weights.gan_steps, weights.gan_learning_rate)

    def _run(
        self,
        phase: str,
        model: nn.ModuleDict,
        loss: Callable[[int, int], Tensor],
        steps: int,
        rate: float,
    ) -> list[LogRow]:
        model.to(self.study.profile.device).train()
        training = self.study.profile.training
        job = Job(
            name=f"realesrgan {phase}",
            model=model,
            groups=[Trained.whole(model, rate)],
            loss=loss,
            steps=steps,
            optimiser=training.optimiser,
            ema_decay=self.config.ema_decay,
            state=self.state / f"{phase}.pt",
            identity=self.identity,
            log_every=training.log_every,
            checkpoint_every=training.checkpoint_every,
        )
        averaged = train(job)
        assert isinstance(averaged, nn.ModuleDict)
        model["generator"].load_state_dict(averaged["generator"].state_dict())
        return job.log

    def _batch(self, phase: str, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """LQ ``(B, 3, h, w)``, targets and raw HQ ``(B, 3, H, W)``, all in [0, 1]."""
        profile, config, scale = self.study.profile, self.config, self.study.profile.data.scale
        key = ("realesrgan", "batch", phase, self.seed, step)
        generator = seeds.torch_generator(profile.seed, *key)
        rows = pick(len(self.rows), config.batch_size, generator)
        # Corners are LQ pixels, so that both crops show the same part.
        size = min(self.rows.shape) // scale
        corner = corners(size, config.crop // scale, config.batch_size, generator)
        lq = crops(self.rows.lq(rows), corner, config.crop // scale)
        images = self.rows.hq(rows)
        hq = crops(images, scale * corner, config.crop)
        target = self.targets.crops(images, rows, scale * corner) if config.sharpen else hq
        flipped = mirrored(profile.training.flip, len(rows), profile.seed, *key)
        first, second, third = (
            mirror(part, flipped.to(part.device)).to(profile.device).float() / 255
            for part in (lq, target, hq)
        )
        return first, second, third


class Targets:
    """Sharpened HQ crops, made when they are drawn: a set of any size takes the same memory.

    On a CPU whole images are sharpened, and the last of them kept. On a GPU each crop is sharpened
    there with a margin beyond which nothing reaches it, as the published code sharpens a batch.
    """

    def __init__(self, rows: PixelRows, size: int, device: torch.device) -> None:
        self._size, self._device = size, device
        bytes_of_one = 3 * rows.shape[0] * rows.shape[1]
        self._whole = functools.lru_cache(max(1, KEPT // bytes_of_one))(
            lambda row: _sharpen(rows.hq(torch.tensor([row]))[0])
        )
        self._on_gpu = USMSharp().to(device) if device.type == "cuda" else None

    def crops(self, images: Tensor, rows: Tensor, corner: Tensor) -> Tensor:
        """Crops ``(B, 3, size, size)`` as uint8.

        Args:
            images: The HQ images of the rows, ``(B, 3, H, W)`` uint8.
            corner: Top and left of each crop, ``(B, 2)``.
        """
        if self._on_gpu is None:
            whole = torch.stack([self._whole(row) for row in rows.tolist()])
            return crops(whole, corner, self._size)
        return sharpened_crops(self._on_gpu, images, corner, self._size, self._device)


@torch.no_grad()
def sharpened_crops(
    sharpen: USMSharp, images: Tensor, corner: Tensor, size: int, device: torch.device
) -> Tensor:
    """Cut crops with a margin, sharpen them on a device, and cut the margin off."""
    side = min(size + 2 * MARGIN, *images.shape[-2:])
    # Where the image ends within the margin, the part ends there, too: borders are reflected.
    limit = torch.tensor(images.shape[-2:]) - side
    start = torch.minimum((corner - MARGIN).clamp(min=0), limit)
    sharp = sharpen(crops(images, start, side).to(device).float() / 255)
    return crops(sharp, corner - start, size).mul(255).round().clamp(0, 255).byte()


def _perceptual_distance(vae: AutoencoderKL, images: Tensor, targets: Tensor) -> Tensor:
    """Relative L1 distance of VAE encoder features, averaged over depths; images in [0, 1]."""
    with torch.no_grad():
        wanted = list(_features(vae, targets))
    distances = [
        F.l1_loss(found, goal) / goal.abs().mean()
        for found, goal in zip(_features(vae, images), wanted, strict=True)
    ]
    return torch.stack(distances).mean()


def _features(vae: AutoencoderKL, images: Tensor) -> Iterator[Tensor]:
    """Features after the encoder's first convolution and after each of its levels."""
    patches = F.pixel_unshuffle(2 * images - 1, getattr(vae.config, "patch_size", 1))
    features = vae.encoder.conv_in(patches)
    yield features
    for block in vae.encoder.down_blocks:
        features = block(features)
        yield features


@torch.no_grad()
def start_from_bilinear(generator: RRDBNet) -> None:
    """Let three channels carry the colours to the output, smoothed after each doubling.

    Nearest-neighbour doubling, then (1, 2, 1) / 4 both ways, is bilinear doubling.
    """
    grid = 4 // generator.scale
    shares = torch.eye(3).repeat_interleave(grid**2, dim=1) / grid**2
    tent = torch.tensor([0.25, 0.5, 0.25])
    _carry(generator.conv_first, shares)
    for conv in (generator.conv_up1, generator.conv_up2):
        _carry(conv, torch.eye(3), torch.outer(tent, tent))
    for conv in (generator.conv_hr, generator.conv_last):
        _carry(conv, torch.eye(3))
    generator.conv_body.weight *= 0.1
    generator.conv_body.bias[:] = 0


def _carry(conv: nn.Conv2d, matrix: Tensor, kernel: Tensor | None = None) -> None:
    """Map channels to the first three by `matrix`, and spatially by `kernel` (the identity)."""
    if kernel is None:
        kernel = F.pad(torch.ones(1, 1), (1, 1, 1, 1))
    assert conv.bias is not None
    conv.weight[:3] *= 0.1
    conv.weight[:3, : matrix.shape[1]] = matrix[:, :, None, None] * kernel
    conv.bias[:3] = 0


def _sharpen(image: Tensor) -> Tensor:
    """Unsharp-mask a whole image ``(3, H, W)`` uint8 as Real-ESRGAN does its targets."""
    sharp = usm_sharp(image.permute(1, 2, 0).numpy().astype(np.float32) / 255)
    return torch.from_numpy(sharp).mul(255).round().clamp(0, 255).byte().permute(2, 0, 1)


def _sha256(tensors: Iterable[Tensor]) -> str:
    contents = hashlib.sha256()
    for tensor in tensors:
        contents.update(str(tuple(tensor.shape)).encode())
        contents.update(tensor.cpu().contiguous().numpy().tobytes())
    return contents.hexdigest()
