"""The LQ encoder: a copy of the VAE encoder that reads the low-quality image.

Paper: features before the output convolution (512 channels at SDXL size, 96 in the small prior)
carry more of the LQ image than the latent. Variant `moments` keeps the output convolution and
gives the mean and log-variance (8 channels). Official: `denoise_encoder` of the released UNet.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import Encoder
from torch import Tensor, nn

TILE_OVERLAP = 0.25  # of the tile's side, as diffusers' VAE and the released encoder have it


class LQEncoder(ModelMixin, ConfigMixin):
    """Features ``(B, F, H/f, W/f)`` of images ``(B, 3, H, W)`` in [-1, 1].

    F is the width of the last VAE level for ``features="penultimate"`` (no normalisation, no
    activation), twice the latent channels for ``features="moments"``.
    """

    _supports_gradient_checkpointing = True  # diffusers' Encoder does

    @register_to_config
    def __init__(
        self,
        features: str = "penultimate",
        patch_size: int = 1,
        latent_channels: int = 4,
        block_out_channels: tuple[int, ...] = (128, 256, 512, 512),
        layers_per_block: int = 2,
        norm_num_groups: int = 32,
        mid_block_add_attention: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(
            in_channels=3 * patch_size**2,
            out_channels=latent_channels,
            down_block_types=("DownEncoderBlock2D",) * len(block_out_channels),
            block_out_channels=block_out_channels,
            layers_per_block=layers_per_block,
            norm_num_groups=norm_num_groups,
            double_z=True,
            mid_block_add_attention=mid_block_add_attention,
        )
        # A VAE on pixel-unshuffled images has no output normalisation (models/vae.py).
        if features == "penultimate" or patch_size > 1:
            self.encoder.conv_norm_out = nn.Identity()
            self.encoder.conv_act = nn.Identity()
        if features == "penultimate":
            # An Identity in its place, not an encoder of our own: every other tensor keeps the name
            # that it has in the VAE, and in the official file below `denoise_encoder`.
            self.encoder.conv_out = nn.Identity()
        self.channels = block_out_channels[-1] if features == "penultimate" else 2 * latent_channels
        self.factor = patch_size * 2 ** (len(block_out_channels) - 1)
        self._tile: int | None = None

    @classmethod
    def from_vae(cls, vae: AutoencoderKL, features: str) -> LQEncoder:
        """Copy the encoder of a VAE."""
        config = vae.config
        encoder = cls(
            features=features,
            patch_size=getattr(config, "patch_size", 1),
            latent_channels=config.latent_channels,
            block_out_channels=tuple(config.block_out_channels),
            layers_per_block=config.layers_per_block,
            norm_num_groups=config.norm_num_groups,
            mid_block_add_attention=config.mid_block_add_attention,
        )
        # A copy, which is trained, while the VAE must go on making the latents that the UNet knows.
        # Its tensors are picked by name: the layers that are left out here exist there.
        wanted = encoder.encoder.state_dict()
        source = vae.encoder.state_dict()
        encoder.encoder.load_state_dict({key: source[key] for key in wanted})
        return encoder

    def enable_tiling(self, size: int | None) -> None:
        """Read images larger than `size` pixels by tiles, blended as diffusers' VAE blends its.

        None reads all of them whole.
        """
        self._tile = size

    def disable_tiling(self) -> None:
        """Read images whole: the attention of the middle block then spans the image."""
        self._tile = None

    def forward(self, images: Tensor, always_tile: bool = False) -> Tensor:
        """Read images.

        Args:
            images: ``(B, 3, H, W)`` in [-1, 1], sides multiples of `factor`.
            always_tile: With tiling enabled, tile from 1/8 of the tile's side on, as the released
                code does, which compares pixels with latent pixels.
        """
        limit = self._tile and (self._tile // self.factor if always_tile else self._tile)
        if limit and max(images.shape[2:]) > limit:
            return self._tiled(images)
        return self._whole(images)

    def _whole(self, images: Tensor) -> Tensor:
        return self.encoder(F.pixel_unshuffle(images, self.config.patch_size))

    def _tiled(self, images: Tensor) -> Tensor:
        assert self._tile is not None
        side = self._tile // self.factor
        blend = int(side * TILE_OVERLAP)
        keep, step = side - blend, int(self._tile * (1 - TILE_OVERLAP))
        # The loop of diffusers' `tiled_encode`, step by step: its own method ends in the
        # convolutions that this encoder lacks, and a blend of another kind would move released
        # results.
        rows: list[Tensor] = []
        above: list[Tensor] = []
        for top in range(0, images.shape[2], step):
            tiles: list[Tensor] = []
            for left in range(0, images.shape[3], step):
                tile = self._whole(images[:, :, top : top + self._tile, left : left + self._tile])
                if above:
                    tile = _blend(above[len(tiles)], tile, blend, dim=2)
                if tiles:
                    tile = _blend(tiles[-1], tile, blend, dim=3)
                tiles.append(tile)
            rows.append(torch.cat([tile[:, :, :keep, :keep] for tile in tiles], dim=3))
            above = tiles
        return torch.cat(rows, dim=2)


def _blend(before: Tensor, after: Tensor, extent: int, dim: int) -> Tensor:
    """Fade from the end of one tile into the beginning of the next, along a dimension."""
    extent = min(before.shape[dim], after.shape[dim], extent)
    shape = [1, 1, 1, 1]
    shape[dim] = extent
    share = (torch.arange(extent, device=after.device) / extent).to(after.dtype).view(shape)
    # Linear weights that add up to 1 in every position keep the level of a feature, and so no seam.
    end = before.narrow(dim, before.shape[dim] - extent, extent)
    start, rest = after.split([extent, after.shape[dim] - extent], dim)
    return torch.cat([end * (1 - share) + start * share, rest], dim)
