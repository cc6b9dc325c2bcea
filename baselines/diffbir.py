"""DiffBIR (Lin et al., ECCV 2024), controlled: restore first, then let the prior add detail.

Stage 1 is a regression network, SwinIR by mean squared error, that removes the degradation. Stage 2
is a ControlNet on the VAE latent of its output: a copy of the UNet's encoder whose features pass
zero convolutions and are added to the skips of the frozen UNet. Untrained, it predicts exactly as
its prior. What differs from the published system, besides size and the study's own data:

- SwinIR reads the enlarged image pixel-unshuffled, and its output is shuffled back, where the
  published one enlarges by three learnt steps. It starts as the identity.
- Stage 2 is trained and tested on the same restoration module; the published one is trained on a
  module of its own and tested with another (BSRNet).
- Captions are those of the study; the paper's rows use none, the later releases a captioner.
- Restoration guidance sums over pixels and has a constant weight; the published one follows the
  posterior's coefficient.
"""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.checkpoint import About
from baselines.controlled import ControlledMethod, ControlledSettings, ControlledTraining
from baselines.design import Design, control_encoder, latent_stem, zero
from faithdiff import compat as compat  # before basicsr

# isort: split
from basicsr.archs.swinir_arch import SwinIR

from faithdiff.config import Positive, Rate, Section
from faithdiff.methods.method import Guide, Study
from faithdiff.models.prior import Prior
from faithdiff.models.seen import Seen
from faithdiff.models.text import Prompt


class Restoration(Section):
    """``settings.restoration``: the SwinIR of stage 1; published values in brackets."""

    width: Positive  # [180]
    blocks: Positive  # residual Swin blocks [8]
    layers: Positive  # of each [6]
    heads: Positive  # [6]
    window: Positive  # tokens [8]
    unshuffle: Positive  # pixels of the enlarged image that one token holds, each way [8]


class DiffBIRSettings(ControlledSettings):
    """``baselines.diffbir.settings``."""

    restoration: Restoration
    restoration_steps: Positive  # updates of stage 1 [150,000]
    restoration_learning_rate: Rate  # [1e-4]


class DiffBIR(ControlledMethod["DiffBIRDesign"]):
    """Trains and loads the controlled DiffBIR."""

    name = "diffbir"
    schema = DiffBIRSettings
    config: DiffBIRSettings

    def build(self, prior: Prior, study: Study, about: About | None) -> DiffBIRDesign:
        return DiffBIRDesign(prior, self.config.restoration)

    def pretrain(self, design: DiffBIRDesign, training: ControlledTraining) -> None:
        """Stage 1: mean squared error of the restored crop."""

        def loss(step: int, micro: int) -> Tensor:
            batch = training.batch("restoration", step, micro)
            return F.mse_loss(design.front["restoration_module"](batch.lq), batch.hq)

        config = self.config
        training.run(
            "restoration", design.front, loss,
            config.restoration_steps, config.restoration_learning_rate,
        )  # fmt: skip


class DiffBIRDesign(Design):
    """`front` is the restoration module, `control` the ControlNet."""

    def __init__(self, prior: Prior, config: Restoration) -> None:
        super().__init__(prior)
        self.front = nn.ModuleDict({"restoration_module": RestorationModule(config)})
        encoder = control_encoder(prior.unet, latent_stem(prior.unet, bias=False))
        self.control = nn.ModuleDict({"control_encoder": encoder})

    def see(self, lq: Tensor) -> Seen:
        """Restore, then encode: the mode of the posterior, where clean latents are sampled."""
        image = self.front["restoration_module"](lq)
        # Official: the mode for the condition, a sample for the image to denoise. So the condition
        # has no noise of its own.
        moments = self.prior.encode_moments(image)
        latents = self.prior.sample_latents(moments, torch.zeros_like(moments[:, ::2]))
        return Seen(latents, image=image)

    def restored(self, seen: Seen) -> Tensor:
        assert seen.image is not None
        return seen.image

    def forward(
        self, noisy: Tensor, timesteps: Tensor, seen: Seen, prompt: Prompt, time_ids: Tensor
    ) -> Tensor:
        down, middle = self.encode(noisy, timesteps, seen, prompt, time_ids)
        return self.denoise(noisy, timesteps, prompt, time_ids, down, middle)

    def guidance(self, seen: Seen) -> Guide:
        """A gradient step of ``sum(W (D(z) - I)²) / 2`` on the clean latent z.

        W is near 1 in flat areas and 0 on edges: there the restoration module is over-smooth, and
        the prior is to add detail.
        """
        image = self.restored(seen)
        weight = flatness(image)

        def guide(clean: Tensor, strength: float, ratio: float) -> Tensor:
            with torch.enable_grad():
                latents = clean.detach().requires_grad_()
                distance = (weight * (self.prior.decode(latents) - image).square()).sum() / 2
                (gradient,) = torch.autograd.grad(distance, latents)
            # The published step is divided by the clean latent's coefficient in DDPM's posterior.
            # A constant weight means the same under Euler and DDIM.
            return clean - strength * gradient

        return guide


class RestorationModule(nn.Module):
    """SwinIR on pixel-unshuffled images ``(B, 3, H, W)`` in [-1, 1]; starts as the identity."""

    def __init__(self, config: Restoration) -> None:
        super().__init__()
        self.unshuffle, self.window = config.unshuffle, config.window
        # On the CPU first, as it reads a tensor while it is built, which has to have memory.
        with torch.device("cpu"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.meshgrid")  # basicsr 1.4.2, last of 2022
            self.swinir = SwinIR(
                img_size=config.window,
                in_chans=3 * config.unshuffle**2,
                embed_dim=config.width,
                depths=[config.layers] * config.blocks,
                num_heads=[config.heads] * config.blocks,
                window_size=config.window,
                mlp_ratio=2,
                drop_path_rate=0.0,  # nothing random while training but the data
                upsampler="",
            )
        # SwinIR adds its input at the end, so a last layer of zero gives the LQ image itself: a few
        # hundred updates improve on it, and do not have to find it first.
        zero(self.swinir.conv_last)

    def forward(self, images: Tensor) -> Tensor:
        """Images of any size: padded to whole windows, and cropped again."""
        height, width = images.shape[2:]
        grid = self.unshuffle * self.window
        padded = F.pad(images, (0, -width % grid, 0, -height % grid), mode="replicate")
        restored = self.swinir(F.pixel_unshuffle(padded, self.unshuffle))
        return F.pixel_shuffle(restored, self.unshuffle)[:, :, :height, :width]


def flatness(image: Tensor) -> Tensor:
    """``1 - tanh`` of the Sobel gradient summed over 2×2 blocks, ``(B, 1, H, W)``."""
    down = torch.tensor([[-1.0, -2.0, -1.0], [0.0, 0.0, 0.0], [1.0, 2.0, 1.0]]).to(image)
    kernels = torch.stack([down, down.T])[:, None]
    grey = F.pad(image.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    edges = F.conv2d(grey, kernels).square().sum(1, keepdim=True).sqrt()
    # Four times the mean is the sum over a block, as in the official code (v2.0.0).
    blocks = 4 * F.avg_pool2d(edges, 2, ceil_mode=True)
    weight = 1 - blocks.tanh()
    height, width = image.shape[2:]
    return F.interpolate(weight, scale_factor=2, mode="nearest")[:, :, :height, :width]
