"""SUPIR (Yu et al., CVPR 2024), controlled: a robust encoder, a control encoder, strong connectors.

The pre-stage fine-tunes a copy of the VAE encoder so that the frozen decoder makes a clean image of
its latent of the LQ image. That latent enters a trainable copy of the UNet's encoder without zero
convolutions; its features modulate the frozen decoder at every concatenation (ZeroSFT) and, before
each upsampler, by cross-attention. Sampling pulls the clean latent towards the decoded and encoded
restored image, the more the noisier the step, and guidance leads away from words of bad quality,
which the last stage has seen on images of bad quality.

It does not start as its prior, and that is the published design: ZeroSFT puts a group normalisation
in place of the decoder's features, and the cross-attention starts at random.
``identity_start: true`` is the ablation that leaves out both: features stay, and what is added
starts at zero. What differs from the published system, besides size and the study's own data:

- The control encoder is the whole copy, as released; the paper trims its transformer blocks.
- The encoder's target is the clean image by the original encoder, ``D(E(x))``, as a constant: with
  the trained encoder on both sides a constant image would be a solution.
- Images of bad quality are the LQ images themselves; the paper has the base model draw them.
- Guidance has one scale for all steps, and captions get no words of good quality.
- The pull is measured against the noise of the first step that is visited, not of the schedule's
  last: a late start would otherwise have none. Euler without added noise is DDIM in other units.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.checkpoint import About
from baselines.controlled import ControlledMethod, ControlledSettings, ControlledTraining
from baselines.design import Design, control_encoder, latent_stem, zero
from faithdiff import compat as compat  # before diffusers

# isort: split
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import Attention

from faithdiff.config import Positive, Probability, Rate
from faithdiff.methods.method import Guide, Study
from faithdiff.models.prior import Prior
from faithdiff.models.seen import Seen
from faithdiff.models.text import Prompt
from faithdiff.models.vae import tile_vae
from faithdiff.study import seeds
from faithdiff.train.cache import Batch

HIDDEN = 128  # channels between control and modulation, as released
Inputs = tuple[Tensor, *tuple[object, ...]]  # of a module: features, then the rest
Hook = Callable[[nn.Module, Inputs], Inputs]


class SUPIRSettings(ControlledSettings):
    """``baselines.supir.settings``; published values in brackets, as far as they are known."""

    encoder_steps: Positive  # updates of the robust encoder
    encoder_learning_rate: Rate
    negative_share: Probability  # of training images that are of bad quality [about 0.5 %]
    negative_words: str  # their caption; the sampler's `negative_prompt` should be the same
    head_dim: Positive  # of the cross-attention [64]
    identity_start: bool  # false is the published design


class SUPIR(ControlledMethod["SUPIRDesign"]):
    """Trains and loads the controlled SUPIR."""

    name = "supir"
    schema = SUPIRSettings
    config: SUPIRSettings

    def build(self, prior: Prior, study: Study, about: About | None) -> SUPIRDesign:
        return SUPIRDesign(prior, self.config.head_dim, self.config.identity_start)

    def pretrain(self, design: SUPIRDesign, training: ControlledTraining) -> None:
        """The robust encoder: ``|D(E'(lq)) - D(E(hq))|²``, decoder and target frozen."""
        prior = design.prior

        def loss(step: int, micro: int) -> Tensor:
            batch = training.batch("encoder", step, micro)
            with torch.no_grad():
                # By the frozen encoder: with the robust one on both sides, as printed, one latent
                # for all images would have no loss.
                target = prior.decode(mode(prior, prior.vae, batch.hq))
            return F.mse_loss(prior.decode(mode(prior, design.robust_encoder, batch.lq)), target)

        config = self.config
        training.run(
            "encoder", design.front, loss, config.encoder_steps, config.encoder_learning_rate
        )

    def train_control(self, design: SUPIRDesign, training: ControlledTraining) -> None:
        """The last stage, some of its images replaced by LQ images with words that say so."""
        words = design.prior.encode_text([self.config.negative_words])

        def batch(step: int, micro: int) -> Batch:
            shared = training.shared_batch(step, micro)
            generator = seeds.torch_generator(
                training.study.profile.seed, "supir", "negative", training.seed, step, micro
            )
            chosen = torch.rand(len(shared.lq), generator=generator) < self.config.negative_share
            return with_negatives(design.prior, shared, chosen.to(shared.lq.device), words)

        training.control(design, batch)


def with_negatives(prior: Prior, batch: Batch, chosen: Tensor, words: Prompt) -> Batch:
    """Let some rows of a batch denoise towards their LQ image, captioned as of bad quality."""
    if not chosen.any():
        return batch
    with torch.no_grad():
        bad = mode(prior, prior.vae, batch.lq)
    pick = chosen[:, None, None]
    prompt = Prompt(
        torch.where(pick, words.hidden, batch.prompt.hidden),
        torch.where(chosen[:, None], words.pooled, batch.prompt.pooled),
    )
    return replace(batch, latents=torch.where(pick[..., None], bad, batch.latents), prompt=prompt)


def mode(prior: Prior, encoder: AutoencoderKL, images: Tensor) -> Tensor:
    """Scaled latents ``(B, C, h, w)`` of images: the mean of the posterior."""
    moments = encoder.encode(images.to(encoder.dtype)).latent_dist.parameters.float()
    return prior.sample_latents(moments, torch.zeros_like(moments[:, ::2]))


class SUPIRDesign(Design):
    """`front` is the robust encoder, `control` its control encoder and the connectors.

    Attributes:
        strength: 1 is the trained model; at 0 the prediction is the prior's.
    """

    strength = 1.0

    def __init__(self, prior: Prior, head_dim: int, identity_start: bool) -> None:
        super().__init__(prior)
        robust = copy.deepcopy(prior.vae)
        # The decoder is the prior's own, frozen: a copy would be saved, counted and never used.
        robust.decoder = robust.post_quant_conv = nn.Identity()
        self.front = nn.ModuleDict({"robust_encoder": robust})
        encoder = control_encoder(prior.unet, latent_stem(prior.unet, bias=True))
        # No zero convolutions here: SUPIR's stand in the connectors, which see the raw features.
        outputs = encoder.controlnet_down_blocks
        encoder.controlnet_down_blocks = nn.ModuleList(nn.Identity() for _ in outputs)
        encoder.controlnet_mid_block = nn.Identity()
        connectors = Connectors(prior.unet, head_dim, identity_start)
        self.control = nn.ModuleDict({"control_encoder": encoder, "connectors": connectors})
        self._features: tuple[list[Tensor], Tensor] | None = None  # of the pass under way
        self._restored: tuple[Tensor, Tensor] | None = None  # a latent that was seen, and its image
        self._attach()

    @property
    def robust_encoder(self) -> AutoencoderKL:
        found = self.front["robust_encoder"]
        assert isinstance(found, AutoencoderKL)
        return found

    @property
    def connectors(self) -> Connectors:
        found = self.control["connectors"]
        assert isinstance(found, Connectors)
        return found

    def see(self, lq: Tensor) -> Seen:
        return Seen(mode(self.prior, self.robust_encoder, lq))

    def restored(self, seen: Seen) -> Tensor:
        # Start, pull and colours ask for the same image: it is decoded once for all three.
        if self._restored is None or self._restored[0] is not seen.map:
            self._restored = seen.map, self.prior.decode(seen.map)
        return self._restored[1]

    def guidance(self, seen: Seen) -> Guide:
        """``z - ratio^τ (z - z_c)`` with τ = `strength`: the smaller, the stronger the pull.

        z_c is the original encoder's latent of the restored image.
        """
        anchor = mode(self.prior, self.prior.vae, self.restored(seen))
        return lambda clean, strength, ratio: clean - ratio**strength * (clean - anchor)

    def tile_encoders(self, size: int) -> None:
        tile_vae(self.robust_encoder, size)

    def forward(
        self, noisy: Tensor, timesteps: Tensor, seen: Seen, prompt: Prompt, time_ids: Tensor
    ) -> Tensor:
        # Hooks take no arguments of their own, so the features wait here for the pass of the UNet.
        self._features = self.encode(noisy, timesteps, seen, prompt, time_ids)
        try:
            return self.denoise(noisy, timesteps, prompt, time_ids)
        finally:
            self._features = None

    def _attach(self) -> None:
        """Hook the connectors into the decoder of the frozen UNet, whose modules stay as they are.

        The decoder concatenates its features and the skips, last skip first; each hook knows the
        number of the skip that is consumed where it stands.
        """
        unet, index = self.prior.unet, self.connectors.skips
        unet.mid_block.register_forward_hook(self._middle)
        for level, block in enumerate(unet.up_blocks):
            for resnet in block.resnets:
                index -= 1
                resnet.register_forward_pre_hook(self._modulate(index))
            for upsampler in block.upsamplers or ():
                upsampler.register_forward_pre_hook(self._attend(level, index))

    def _middle(self, _: nn.Module, __: object, output: Tensor) -> Tensor:
        assert self._features is not None, "call the design, not its UNet"
        connected = self.connectors.middle(output, None, self._features[1])
        return torch.lerp(output, connected, self.strength)

    def _modulate(self, index: int) -> Hook:
        def hook(_: nn.Module, arguments: Inputs) -> Inputs:
            joined, *rest = arguments
            assert self._features is not None, "call the design, not its UNet"
            control = self._features[0][index]
            features, skip = joined.split([joined.shape[1] - control.shape[1], control.shape[1]], 1)
            connected = self.connectors.sites[index](features, skip, control)
            return (torch.lerp(joined, connected, self.strength), *rest)

        return hook

    def _attend(self, level: int, index: int) -> Hook:
        def hook(_: nn.Module, arguments: Inputs) -> Inputs:
            features, *rest = arguments
            assert self._features is not None, "call the design, not its UNet"
            control = self._features[0][index].flatten(2).transpose(1, 2)
            attended = self.connectors.attentions[level](features, control)
            return (torch.lerp(features, attended, self.strength), *rest)

        return hook


class Connectors(nn.Module):
    """ZeroSFT for the middle and for every skip, cross-attention for every upsampler."""

    def __init__(self, unet: UNet2DConditionModel, head_dim: int, identity_start: bool) -> None:
        super().__init__()
        widths = [unet.conv_in.out_channels]
        for block in unet.down_blocks:
            widths += [resnet.out_channels for resnet in block.resnets]
            widths += [sampler.out_channels for sampler in block.downsamplers or ()]
        self.skips = len(widths)
        middle = unet.config.block_out_channels[-1]
        self.middle = ZeroSFT(middle, 0, middle, identity_start)
        sites: list[nn.Module] = []
        attentions: list[nn.Module] = []
        remaining = list(widths)
        for block in unet.up_blocks:
            for resnet in block.resnets:
                skip = remaining.pop()
                sites.append(ZeroSFT(resnet.in_channels - skip, skip, skip, identity_start))
            for _ in block.upsamplers or ():
                attentions.append(_attention(resnet.out_channels, skip, head_dim, identity_start))
        self.sites = nn.ModuleList(reversed(sites))  # by the number of the skip
        self.attentions = nn.ModuleList(attentions)


class ZeroSFT(nn.Module):
    """Scale and shift of normalised features by the control, which also adds to the skip.

    ``s' = s + conv(c)``, ``u = [h, s']``, ``v = norm(u) (1 + γ) + β`` with γ and β from c; what
    leads from c ends in convolutions that start at zero. With an identity start
    ``v = u + norm(u) γ + β``.
    """

    def __init__(self, features: int, skip: int, control: int, identity_start: bool) -> None:
        super().__init__()
        width = features + skip
        self.identity_start = identity_start
        self.add = zero(nn.Conv2d(control, skip or features, 1))
        self.norm = nn.GroupNorm(math.gcd(32, width), width)
        self.hidden = nn.Conv2d(control, HIDDEN, 3, padding=1)
        self.scale = zero(nn.Conv2d(HIDDEN, width, 3, padding=1))
        self.shift = zero(nn.Conv2d(HIDDEN, width, 3, padding=1))

    def forward(self, features: Tensor, skip: Tensor | None, control: Tensor) -> Tensor:
        added = self.add(control)
        joined = features + added if skip is None else torch.cat([features, skip + added], 1)
        hidden = F.silu(self.hidden(control))
        normal = self.norm(joined)
        # Published: the normalised features take the place of the features, so that the network
        # does not start as its prior even where scale and shift are zero.
        kept = joined if self.identity_start else normal
        return kept + normal * self.scale(hidden) + self.shift(hidden)


def _attention(width: int, control: int, head_dim: int, identity_start: bool) -> Attention:
    """Cross-attention from features ``(B, C, h, w)`` to control tokens: normalised, residual."""
    # gcd: SDXL's 32 groups where they divide the width, fewer in the small prior.
    attention = Attention(
        query_dim=width,
        cross_attention_dim=control,
        heads=max(width // head_dim, 1),
        dim_head=head_dim,
        norm_num_groups=math.gcd(32, width),
        cross_attention_norm="group_norm",
        cross_attention_norm_num_groups=math.gcd(32, control),
        residual_connection=True,
    )
    if identity_start:
        zero(attention.to_out[0])
    return attention
