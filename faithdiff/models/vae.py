"""The small prior's VAE: diffusers' AutoencoderKL on pixel-unshuffled images.

At a few minutes of CPU training a convolutional VAE from default initialisation stays useless.
Unshuffling the pixels into channels and starting from the principal components of image patches
gives it a linear codec to refine (docs/prior.md has the measurements). With ``patch_size=1`` and no
such start it is the ordinary AutoencoderKL.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.configuration_utils import register_to_config
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from torch import Tensor, nn


class PatchAutoencoderKL(AutoencoderKL):
    """AutoencoderKL that sees ``(B, 3 p², H/p, W/p)`` instead of ``(B, 3, H, W)``, p = patch_size.

    Images are ``(B, 3, H, W)`` in ``[-1, 1]``, latents ``(B, C, H/f, W/f)`` with
    ``f = patch_size * 2 ** (levels - 1)``. The output normalisations of encoder and decoder are
    removed, so that the principal-component start (:func:`start_from_patches`) passes unchanged.
    With `refine_channels`, convolutions at the size of the image follow the decoder: what it puts
    out patch by patch shows their borders.
    """

    @register_to_config
    def __init__(
        self,
        patch_size: int = 4,
        latent_channels: int = 4,
        block_out_channels: tuple[int, ...] = (96,),
        layers_per_block: int = 1,
        scaling_factor: float = 1.0,
        refine_channels: int = 0,
        refine_layers: int = 3,
    ) -> None:
        levels = len(block_out_channels)
        super().__init__(
            in_channels=3 * patch_size**2,
            out_channels=3 * patch_size**2,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=block_out_channels,
            layers_per_block=layers_per_block,
            latent_channels=latent_channels,
            scaling_factor=scaling_factor,
            use_quant_conv=False,
            use_post_quant_conv=False,
            mid_block_add_attention=False,
        )
        # A group norm fixes the level of each image, so that nothing linear could pass it; the
        # codec from principal components is linear.
        for half in (self.encoder, self.decoder):
            half.conv_norm_out = nn.Identity()
            half.conv_act = nn.Identity()
        self.refine = _refinement(refine_channels, refine_layers) if refine_channels else None

    def encode(self, x: Tensor, return_dict: bool = True) -> AutoencoderKLOutput:
        return super().encode(F.pixel_unshuffle(x, self.config.patch_size), return_dict)

    def _decode(self, z: Tensor, return_dict: bool = True) -> Tensor:
        decoded = super()._decode(z, return_dict)
        decoded.sample = F.pixel_shuffle(decoded.sample, self.config.patch_size)
        if self.refine is not None:
            decoded.sample = decoded.sample + self.refine(decoded.sample)
        return decoded


def _refinement(channels: int, layers: int) -> nn.Sequential:
    """Convolutions on images ``(B, 3, H, W)``; what they add starts at zero."""
    widths = [3, *[channels] * layers]
    hidden: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        # Without norms: those of a tile would differ from those of its image.
        hidden += [nn.Conv2d(before, after, 3, padding=1), nn.SiLU()]
    last = nn.Conv2d(channels, 3, 3, padding=1)
    for parameter in last.parameters():
        nn.init.zeros_(parameter)
    return nn.Sequential(*hidden, last)


def tile_vae(vae: AutoencoderKL, size: int) -> None:
    """Let a VAE encode and decode by overlapping tiles of `size` pixels, to save memory; 0: whole.

    diffusers counts an encoder's tiles in the pixels that its convolutions see, which are those of
    the image only where they are not unshuffled first.
    """
    if size == 0:
        vae.disable_tiling()
        return
    convolutions = 2 ** (len(vae.config.block_out_channels) - 1)
    patch = getattr(vae.config, "patch_size", 1)
    vae.enable_tiling()
    vae.tile_latent_min_size = size // (patch * convolutions)
    vae.tile_sample_min_size = vae.tile_latent_min_size * convolutions


@torch.no_grad()
def start_from_patches(vae: PatchAutoencoderKL, images: Tensor) -> None:
    """Make the VAE a linear codec of the leading principal components of image patches.

    Args:
        vae: A freshly built VAE; its weights are changed in place.
        images: ``(B, 3, H, W)`` in ``[-1, 1]`` from which the components are computed.
    """
    width, channels = vae.config.block_out_channels[-1], 3 * vae.config.patch_size**2
    if width < channels:
        raise ValueError(
            f"block_out_channels {width} is narrower than the {channels} patch channels"
        )
    patches = F.pixel_unshuffle(images, vae.config.patch_size).movedim(1, -1).flatten(0, 2)
    mean = patches.mean(0)
    variance, basis = torch.linalg.eigh(torch.cov(patches.T))
    # The best linear codec of a given width is known in closed form: training begins where it ends.
    # Largest first; the square root of the deviation brings the latent channels nearer in scale.
    basis, scale = basis.flip(1), variance.flip(0).clamp_min(1e-8) ** 0.25
    analysis, synthesis = (basis / scale).T, basis * scale
    for half in (vae.encoder, vae.decoder):
        for module in half.modules():
            if hasattr(module, "conv2"):  # residual blocks start as the identity
                nn.init.zeros_(module.conv2.weight)
                nn.init.zeros_(module.conv2.bias)
    latents, features = vae.config.latent_channels, patches.shape[1]
    _centre(vae.encoder.conv_in, analysis, -analysis @ mean)
    _centre(vae.encoder.conv_out, torch.eye(latents, features), None)
    # A log-variance of -6 is a deviation of 0.05: with more noise the decoder would learn to blur.
    vae.encoder.conv_out.bias[latents:] = -6.0
    _centre(vae.decoder.conv_in, torch.eye(latents), None)
    _centre(vae.decoder.conv_out, synthesis[:, :latents], mean)


def _centre(conv: nn.Conv2d, matrix: Tensor, bias: Tensor | None) -> None:
    """Put a matrix on the centre tap of a convolution, zero on the rows' other taps.

    Rows beyond the matrix keep their initialisation scaled down: spare channels for training.
    """
    rows, columns = matrix.shape
    assert conv.bias is not None
    # Not zero: channels that start equal would receive equal gradients, and stay equal.
    conv.weight[rows:] *= 0.1
    conv.weight[:rows] = 0
    conv.weight[:rows, :columns, 1, 1] = matrix
    nn.init.zeros_(conv.bias)
    if bias is not None:
        conv.bias[:rows] = bias
