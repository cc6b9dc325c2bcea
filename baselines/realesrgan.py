"""Real-ESRGAN (Wang et al., ICCVW 2021), controlled: its design on the study's own data.

A regression network without prior or prompt: RRDBNet trained by L1 against sharpened targets, then
by L1 + perceptual + adversarial losses. What differs from the published recipe, besides size:

- The perceptual distance is taken in the encoder of the study's own VAE. VGG19's weights are not
  part of the suite; an encoder trained to reconstruct is the lesser judge of perception.
- Generator and discriminator are updated at the same time, each by its own loss, where the
  published code alternates; the optimiser and schedule are the study's (`training.optimiser`).
- Instead of ESRGAN's weights, the network starts as bilinear enlargement.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from faithdiff import compat
from faithdiff.study import seeds

# isort: split
from basicsr.archs.discriminator_arch import UNetDiscriminatorSN
from basicsr.archs.rrdbnet_arch import RRDBNet

from baselines.checkpoint import read_config, read_weights, save
from baselines.realesrgan_training import (
    RealESRGANSettings,
    RealESRGANTraining,
    start_from_bilinear,
)
from faithdiff.config import parse
from faithdiff.errors import CheckpointError, ConfigError
from faithdiff.methods.method import Method, Restorer, Study
from faithdiff.study.plain import Json
from faithdiff.study.records import Cost
from faithdiff.train.cache import PixelRows
from faithdiff.train.spent import measure

compat.patch()
FORMAT = "faithdiff.realesrgan/1"
TILE, OVERLAP = 512, 32  # LQ pixels: larger images are restored in tiles, to bound the memory


class RealESRGAN(Method):
    """Trains and loads the controlled Real-ESRGAN.

    Raises:
        ConfigError: `settings` do not fit :class:`RealESRGANSettings`.
    """

    trained = True

    def __init__(self, settings: dict[str, Json], where: str) -> None:
        self.config = parse(settings, RealESRGANSettings, where)
        self.where = where

    def settings(self, study: Study) -> dict[str, Json]:
        return {"tile": TILE, "overlap": OVERLAP}

    def train(self, study: Study, seed: int, folder: Path, state: Path) -> Cost:
        """Write ``model.safetensors`` (averaged weights), ``config.json`` and ``training.csv``."""
        training = RealESRGANTraining.prepare(self.config, study, seed, self._rows(study), state)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeds.seed(study.profile.seed, "realesrgan", "init", seed))
            generator = self._build(study)
            discriminator = UNetDiscriminatorSN(3, num_feat=max(self.config.features // 3, 1))
        start_from_bilinear(generator)
        log = training.by_pixels(generator)
        if self.config.gan_steps:
            log += training.by_all_losses(generator, discriminator)
        about = {"format": FORMAT, "architecture": self._architecture(study)}
        save(generator.state_dict(), about, log, folder)
        parts = {"generator": generator, "discriminator": discriminator}
        return measure(parts, [generator], log, pre=[log[0]["phase"]])

    def load(self, study: Study, folder: Path) -> Restorer:
        """Read the weights that :meth:`train` wrote.

        On a test set of another scale the result is resized, as the authors' `outscale` does.

        Raises:
            CheckpointError: They are missing, corrupted, or of another shape.
        """
        wanted = self._check_scale(study.profile.data.scale)
        generator = self._build(study.at_scale(_trained_scale(folder, wanted)))
        generator.load_state_dict(read_weights(folder, generator.state_dict(), "realesrgan"))
        return TiledRestorer(
            generator.eval().requires_grad_(False).to(study.profile.device), wanted
        )

    def _architecture(self, study: Study) -> dict[str, int]:
        return {
            "scale": study.profile.data.scale,
            "num_feat": self.config.features,
            "num_block": self.config.blocks,
            "num_grow_ch": self.config.growth,
        }

    def check(self, study: Study) -> None:
        self._check_scale(study.profile.data.scale)
        size = getattr(study.profile.data.train, "size", None)
        if size is not None:
            self._check_crop(size)

    def _check_scale(self, scale: int) -> int:
        if scale not in (1, 2, 4):
            raise ConfigError(
                f"{self.where}: RRDBNet enlarges by 1, 2 or 4, and data.scale is {scale}; change "
                "the scale or remove this baseline"
            )
        return scale

    def _build(self, study: Study) -> RRDBNet:
        self._check_scale(study.profile.data.scale)
        return RRDBNet(3, 3, **self._architecture(study))

    def _rows(self, study: Study) -> PixelRows:
        rows = PixelRows(study.layout.train_cache)
        self._check_crop(min(rows.shape))
        return rows

    def _check_crop(self, smallest: int) -> None:
        if self.config.crop > smallest:
            raise ConfigError(
                f"{self.where}.crop: {self.config.crop} px do not fit the training images "
                f"({smallest} px)"
            )


class TiledRestorer(Restorer):
    """An RRDBNet; whole where the image fits a tile."""

    def __init__(self, generator: RRDBNet, scale: int) -> None:
        self.generator, self.scale = generator, scale
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
                part = lq[
                    ..., top - above : top + TILE + OVERLAP, left - before : left + TILE + OVERLAP
                ]
                inner = self._forward(part)[..., scale * above :, scale * before :]
                place = output[
                    ..., scale * top : scale * (top + TILE), scale * left : scale * (left + TILE)
                ]
                place.copy_(inner[..., : place.shape[-2], : place.shape[-1]])
        if self.scale != scale:
            size = (self.scale * height, self.scale * width)
            output = F.interpolate(output, size, mode="bicubic", antialias=True)
        return output.clamp(0, 1)

    def _forward(self, lq: Tensor) -> Tensor:
        """RRDBNet below x4 unshuffles its input, whose sides must be multiples of ``4 / scale``."""
        scale, (height, width) = self.generator.scale, lq.shape[-2:]
        grid = 4 // scale
        padded = F.pad(lq, (0, -width % grid, 0, -height % grid), mode="replicate")
        return self.generator(padded)[..., : scale * height, : scale * width]


def _trained_scale(folder: Path, default: int) -> int:
    """The scale that a checkpoint was trained at."""
    try:
        return int(read_config(folder, "realesrgan")["architecture"]["scale"])
    except (CheckpointError, KeyError):
        return default  # the weights themselves say what is wrong, if anything is
