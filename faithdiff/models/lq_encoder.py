"""The LQ encoder: a copy of the VAE encoder that reads the low-quality image.

Paper: features before the output convolution (512 channels at SDXL size, 96 in the small prior)
carry more of the LQ image than the latent. Variant `moments` keeps the output convolution and
gives the mean and log-variance (8 channels). Official: `denoise_encoder` of the released UNet.
"""

from __future__ import annotations

import torch.nn.functional as F
from diffusers import AutoencoderKL, ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import Encoder
from torch import Tensor, nn


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
            self.encoder.conv_out = nn.Identity()
        self.channels = block_out_channels[-1] if features == "penultimate" else 2 * latent_channels

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
        wanted = encoder.encoder.state_dict()
        source = vae.encoder.state_dict()
        encoder.encoder.load_state_dict({key: source[key] for key in wanted})
        return encoder

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder(F.pixel_unshuffle(images, self.config.patch_size))
