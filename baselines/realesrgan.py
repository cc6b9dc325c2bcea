"""Real-ESRGAN (Wang et al., ICCVW 2021), controlled: its design on the study's own data and budget.

A regression network without prior or prompt: RRDBNet trained by L1 against sharpened targets, then
by L1 + perceptual + adversarial losses. What differs from the published recipe, besides size:

- The perceptual distance is taken in the encoder of the study's own VAE. VGG19's weights are not
  part of the suite; an encoder trained to reconstruct is the lesser judge of perception.
- Generator and discriminator are updated at the same time, each by its own loss, where the
  published code alternates; the optimiser and schedule are the study's (`training.optimiser`).
- Instead of ESRGAN's weights, the network starts as bilinear enlargement.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from faithdiff import compat, seeds

# isort: split
from basicsr.archs.discriminator_arch import UNetDiscriminatorSN
from basicsr.archs.rrdbnet_arch import RRDBNet
from basicsr.utils.img_process_util import usm_sharp

from faithdiff.config import Natural, Positive, Probability, Rate, Section, digest, parse
from faithdiff.errors import CheckpointError, ConfigError, RunError
from faithdiff.files import write_text_atomic
from faithdiff.methods import Method, Restorer, Study
from faithdiff.models.prior import load_prior
from faithdiff.train.loop import Job, train, write_log
from faithdiff.train.pairs import Pairs, corners, crops, load_pairs, pick
from faithdiff.train.variants import prior_folder

compat.patch()
FORMAT = "faithdiff.realesrgan/1"
TILE, OVERLAP = 512, 32  # LQ pixels: larger images are restored in tiles, to bound the memory
Weight = Annotated[float, Field(ge=0)]


class Settings(Section):
    """``baselines.realesrgan.settings``; published values in brackets."""

    features: Positive  # [64]; the discriminator has a third of it [64]
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
    ema_decay: Probability  # [0.999]


class RealESRGAN(Method):
    """Trains and loads the controlled Real-ESRGAN.

    Raises:
        ConfigError: `settings` do not fit :class:`Settings`.
    """

    trained = True

    def __init__(self, settings: dict[str, Any], where: str) -> None:
        self.config = parse(settings, Settings, where)
        self.where = where

    def settings(self, study: Study) -> dict[str, Any]:
        return {"tile": TILE, "overlap": OVERLAP}

    def train(self, study: Study, seed: int, folder: Path, state: Path) -> None:
        """Write ``model.safetensors`` (averaged weights), ``config.json`` and ``training.csv``."""
        training = _Training.prepare(self.config, study, seed, self._check_crop(study), state)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeds.seed(study.profile.seed, "realesrgan", "init", seed))
            generator = self._build(study)
            discriminator = UNetDiscriminatorSN(3, num_feat=max(self.config.features // 3, 1))
        _start_from_bilinear(generator)
        log = training.by_pixels(generator)
        if self.config.gan_steps:
            log += training.by_all_losses(generator, discriminator)
        _save(generator, self._architecture(study), log, folder)

    def load(self, study: Study, folder: Path) -> Restorer:
        """Read the weights that :meth:`train` wrote.

        Raises:
            CheckpointError: They are missing, damaged, or of another shape.
        """
        generator = self._build(study)
        generator.load_state_dict(_read(folder / "model.safetensors", generator.state_dict()))
        return _Restorer(generator.eval().requires_grad_(False).to(study.profile.device))

    def _architecture(self, study: Study) -> dict[str, int]:
        return {
            "scale": study.profile.data.scale,
            "num_feat": self.config.features,
            "num_block": self.config.blocks,
            "num_grow_ch": self.config.growth,
        }

    def _build(self, study: Study) -> RRDBNet:
        if study.profile.data.scale not in (1, 2, 4):
            raise ConfigError(
                f"{self.where}: RRDBNet enlarges by 1, 2 or 4, and data.scale is "
                f"{study.profile.data.scale}; change the scale or remove this baseline"
            )
        return RRDBNet(3, 3, **self._architecture(study))

    def _check_crop(self, study: Study) -> Pairs:
        pairs = load_pairs(study.layout, study.profile.data.train_level)
        smallest = min(pairs.hq.shape[-2:])
        if self.config.crop > smallest:
            raise ConfigError(
                f"{self.where}.crop: {self.config.crop} px do not fit the training images "
                f"({smallest} px)"
            )
        return pairs


@dataclass
class _Training:
    """Both phases of one repetition: data, frozen VAE, and where their states lie."""

    config: Settings
    study: Study
    seed: int
    pairs: Pairs
    sharp: Tensor  # sharpened HQ, (N, 3, H, W) uint8
    vae: nn.Module
    state: Path
    identity: str

    @classmethod
    def prepare(
        cls, config: Settings, study: Study, seed: int, pairs: Pairs, state: Path
    ) -> _Training:
        profile = study.profile
        torch.set_num_threads(1)  # the order of sums, and so the last bits, depend on it
        vae = load_prior(prior_folder(study)).vae.to(profile.device)
        contents = _sha256([pairs.hq, pairs.lq, *vae.encoder.state_dict().values()])
        identity = digest(config, profile.training.optimiser, profile.seed, seed, contents)
        return cls(config, study, seed, pairs, _sharpen(pairs.hq), vae, state, identity)

    def by_pixels(self, generator: nn.Module) -> list[dict[str, Any]]:
        """Phase 1, RealESRNet: L1 alone. Leaves the averaged weights in `generator`."""

        def loss(step: int, _: int) -> Tensor:
            lq, sharp, _ = self._batch("psnr", step)
            return F.l1_loss(generator(lq), sharp)

        steps, rate = self.config.psnr_steps, self.config.learning_rate
        return self._run("psnr", nn.ModuleDict({"generator": generator}), loss, steps, rate)

    def by_all_losses(
        self, generator: nn.Module, discriminator: nn.Module
    ) -> list[dict[str, Any]]:
        """Phase 2: L1 + perceptual against sharpened targets; raw images are what is real."""
        weights = self.config

        def loss(step: int, _: int) -> Tensor:
            lq, sharp, hq = self._batch("gan", step)
            fake = generator(lq)
            discriminator.requires_grad_(False)  # the generator's loss leaves it alone
            generated = (
                weights.pixel_weight * F.l1_loss(fake, sharp)
                + weights.perceptual_weight * _perceptual_distance(self.vae, fake, sharp)
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
    ) -> list[dict[str, Any]]:
        model.to(self.study.profile.device).train()
        training = self.study.profile.training
        job = Job(
            name=f"realesrgan {phase}",
            model=model,
            groups=[{"params": list(model.parameters()), "lr": rate}],
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
        assert averaged is not None
        model["generator"].load_state_dict(averaged["generator"].state_dict())
        return job.log

    def _batch(self, phase: str, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """LQ ``(B, 3, h, w)``, sharpened and raw HQ ``(B, 3, H, W)``, all in [0, 1]."""
        profile, config, scale = self.study.profile, self.config, self.study.profile.data.scale
        generator = seeds.torch_generator(
            profile.seed, "realesrgan", "batch", phase, self.seed, step
        )
        rows = pick(len(self.pairs.hq), config.batch_size, generator)
        # Corners are LQ pixels, so that both crops show the same part.
        size = min(self.pairs.hq.shape[-2:]) // scale
        corner = corners(size, config.crop // scale, config.batch_size, generator)
        lq = crops(self.pairs.lq[rows], corner, config.crop // scale)
        sharp = crops(self.sharp[rows], scale * corner, config.crop)
        hq = crops(self.pairs.hq[rows], scale * corner, config.crop)
        first, second, third = (part.to(profile.device).float() / 255 for part in (lq, sharp, hq))
        return first, second, third


class _Restorer(Restorer):
    def __init__(self, generator: nn.Module) -> None:
        self.generator = generator
        self.device = next(generator.parameters()).device

    @torch.inference_mode()
    def restore(self, lq: Tensor, captions: list[str], seeds: list[int]) -> Tensor:
        # One by one: kernels chosen by batch size may round differently.
        return torch.cat([self._one(image.to(self.device)) for image in lq.split(1)]).to(lq.device)

    def _one(self, lq: Tensor) -> Tensor:
        """Restore ``(1, 3, h, w)``; each tile is computed with a margin that is cut off again."""
        scale = self.generator.scale
        height, width = lq.shape[-2:]
        output = lq.new_empty(1, 3, scale * height, scale * width)
        for top in range(0, height, TILE):
            for left in range(0, width, TILE):
                above, before = min(top, OVERLAP), min(left, OVERLAP)
                part = lq[..., top - above : top + TILE + OVERLAP, left - before : left + TILE + OVERLAP]
                inner = self._forward(part)[..., scale * above :, scale * before :]
                place = output[
                    ..., scale * top : scale * (top + TILE), scale * left : scale * (left + TILE)
                ]
                place.copy_(inner[..., : place.shape[-2], : place.shape[-1]])
        return output.clamp(0, 1)

    def _forward(self, lq: Tensor) -> Tensor:
        """RRDBNet below x4 unshuffles its input, whose sides must be multiples of ``4 / scale``."""
        scale, (height, width) = self.generator.scale, lq.shape[-2:]
        grid = 4 // scale
        padded = F.pad(lq, (0, -width % grid, 0, -height % grid), mode="replicate")
        return self.generator(padded)[..., : scale * height, : scale * width]


def _perceptual_distance(vae: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """Relative L1 distance of VAE encoder features, averaged over depths; images in [0, 1]."""
    with torch.no_grad():
        wanted = list(_features(vae, targets))
    distances = [
        F.l1_loss(found, goal) / goal.abs().mean()
        for found, goal in zip(_features(vae, images), wanted, strict=True)
    ]
    return torch.stack(distances).mean()


def _features(vae: nn.Module, images: Tensor) -> Iterator[Tensor]:
    """Features after the encoder's first convolution and after each of its levels."""
    patches = F.pixel_unshuffle(2 * images - 1, getattr(vae.config, "patch_size", 1))
    features = vae.encoder.conv_in(patches)
    yield features
    for block in vae.encoder.down_blocks:
        features = block(features)
        yield features


@torch.no_grad()
def _start_from_bilinear(generator: RRDBNet) -> None:
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
    conv.weight[:3] *= 0.1
    conv.weight[:3, : matrix.shape[1]] = matrix[:, :, None, None] * kernel
    conv.bias[:3] = 0


def _sharpen(images: Tensor) -> Tensor:
    """Unsharp-mask whole images ``(N, 3, H, W)`` uint8 as Real-ESRGAN does its targets."""
    sharp = torch.empty_like(images)
    for image, place in zip(images, sharp, strict=True):
        pixels = usm_sharp(image.permute(1, 2, 0).numpy().astype(np.float32) / 255)
        place.copy_(torch.from_numpy(pixels).mul(255).round().clamp(0, 255).permute(2, 0, 1))
    return sharp


def _sha256(tensors: Iterable[Tensor]) -> str:
    contents = hashlib.sha256()
    for tensor in tensors:
        contents.update(str(tuple(tensor.shape)).encode())
        contents.update(tensor.cpu().contiguous().numpy().tobytes())
    return contents.hexdigest()


def _save(
    generator: nn.Module, architecture: dict[str, int], log: list[dict[str, Any]], folder: Path
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    weights = {key: value.cpu().contiguous() for key, value in generator.state_dict().items()}
    about = {"format": FORMAT, "architecture": architecture}
    write_text_atomic(json.dumps(about, indent=2) + "\n", folder / "config.json")
    _publish(lambda file: write_log(log, file), folder / "training.csv")
    _publish(lambda file: save_file(weights, file, {"format": "pt"}), folder / "model.safetensors")


def _publish(write: Callable[[Path], None], file: Path) -> None:
    """Write a file under a passing name, then give it its own."""
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        write(partial)
        os.replace(partial, file)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise RunError(f"{file}: cannot be written: {error}") from None


def _read(file: Path, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Read weights that must have the names and shapes of `expected`."""
    if not file.is_file():
        raise CheckpointError(f"{file}: is missing; make it with: faithdiff train --method realesrgan")
    try:
        found = load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file}: cannot be read: {error}; train it again") from None
    for key in sorted(expected.keys() | found.keys()):
        have, want = (str(tuple(d[key].shape)) if key in d else "none" for d in (found, expected))
        if have != want:
            raise CheckpointError(
                f"{file}: {key}: shape {have} found, {want} expected by the settings of the "
                "profile; restore these settings or train it again"
            )
    return found
