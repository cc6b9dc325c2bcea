"""The alignment module: brings the LQ features and the noisy latent's features together.

Official: `condition_embedding`, `information_transformer_layes` and `spatial_ch_projs` of the
released UNet. The released code attends over the *batch* axis (nn.MultiheadAttention without
``batch_first``), while the paper describes spatial interaction: ``attention`` chooses.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn


class Standardise(nn.Module):
    """Fixed shift and scale of each channel, from statistics of the training features.

    Unlike the group normalisation of the released code it keeps the absolute level of a feature,
    and with it the colour of the image.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("deviation", torch.ones(channels, 1, 1))

    def fit(self, features: Tensor) -> None:
        """Take the statistics of features ``(B, C, h, w)``."""
        self.mean.copy_(features.mean((0, 2, 3))[:, None, None])
        # Fitted once, to the untrained encoder, and stored: a running mean would depend on the
        # order of the batches, and would go on moving a condition that stage 1 has just learned.
        # The log-variance half of the moments hardly varies: do not blow its noise up.
        deviation = features.std((0, 2, 3))[:, None, None]
        self.deviation.copy_(deviation.clamp_min(0.1 * deviation.max()))

    def forward(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.deviation


class ConditionEmbedding(nn.Module):
    """LQ features ``(B, F, h, w)`` to the width of the UNet: norm, 3×3, SiLU, 3×3.

    The last convolution starts at zero where `zero` says so. Straight before a Linear that starts
    at zero, too, it must not: neither would ever receive a gradient.
    """

    def __init__(self, channels: int, width: int, norm: str, zero: bool) -> None:
        super().__init__()
        self.norm_in = (
            Standardise(channels)
            if norm == "standardise"
            # The released code's 32 groups; the 8 channels of the moments have no more than 8.
            else nn.GroupNorm(min(32, channels), channels, eps=1e-6)
        )
        self.conv_in = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_out = nn.Conv2d(channels, width, 3, padding=1)
        if zero:
            # As ControlNet's zero convolutions: the tokens hold x alone at first, and the condition
            # grows in while the Linear after the blocks learns what to do with it.
            for parameter in self.conv_out.parameters():
                nn.init.zeros_(parameter)

    def forward(self, features: Tensor) -> Tensor:
        # contiguous: the backward of GroupNorm crashes on channels-last input without gradient
        # (torch 2.13 on CPU), which is what a frozen LQ encoder gives.
        return self.conv_out(F.silu(self.conv_in(self.norm_in(features.contiguous()))))


class TransformerBlock(nn.Module):
    """Pre-norm Transformer block over tokens ``(B, N, D)``, with CLIP's QuickGELU."""

    def __init__(self, width: int, heads: int, mlp_ratio: int, attention: str) -> None:
        super().__init__()
        self.attention = attention
        self.ln_1 = nn.LayerNorm(width)
        # Without `batch_first`, (B, N, D) is read as N sequences of length B: the released code's
        # attention over the batch. It is kept as an axis of the study, not mended, since the
        # published weights were trained so.
        self.attn = nn.MultiheadAttention(width, heads, batch_first=attention == "spatial")
        self.ln_2 = nn.LayerNorm(width)
        self.c_fc = nn.Linear(width, mlp_ratio * width)
        self.c_proj = nn.Linear(mlp_ratio * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self._attend(self.ln_1(tokens))
        hidden = self.c_fc(self.ln_2(tokens))
        # QuickGELU, not nn.GELU: the published weights were trained with CLIP's approximation.
        return tokens + self.c_proj(hidden * torch.sigmoid(1.702 * hidden))

    def _attend(self, tokens: Tensor) -> Tensor:
        if self.attention == "released" and not self.training:
            # Attention over a batch of one image, or of equal copies of it (a CFG pair), is a
            # weighted mean of equal values: exactly this. So batching never mixes images.
            _, _, weight = self.attn.in_proj_weight.chunk(3)
            _, _, bias = self.attn.in_proj_bias.chunk(3)
            return self.attn.out_proj(F.linear(tokens, weight, bias))
        attended: Tensor = self.attn(tokens, tokens, tokens, need_weights=False)[0]
        return attended


class Alignment(ModelMixin, ConfigMixin):
    """``x + Linear(Transformer(concat(x, m)))`` with ``m`` the embedded LQ features.

    Args:
        feature_channels: Channels of the LQ features.
        width: Channels of ``unet.conv_in``'s output.
        kind: ``transformer``, or ``concat`` for the variant without Transformer blocks.
        attention: ``released``: over the batch in training mode, per sample in evaluation mode;
            ``spatial``: over the positions of each image.
        norm: Of the LQ features: ``group`` (released code) or ``standardise``.
    """

    @register_to_config
    def __init__(
        self,
        feature_channels: int,
        width: int,
        kind: str = "transformer",
        attention: str = "released",
        norm: str = "group",
        blocks: int = 2,
        heads: int = 8,
        mlp_ratio: int = 2,
    ) -> None:
        super().__init__()
        self.condition = ConditionEmbedding(
            feature_channels, width, norm, zero=kind == "transformer"
        )
        count = blocks if kind == "transformer" else 0
        self.transformer = nn.Sequential(
            *(TransformerBlock(2 * width, heads, mlp_ratio, attention) for _ in range(count))
        )
        # Zero as well, so that the untrained model predicts exactly what the prior predicts. At the
        # first update only this layer has a gradient; it opens the way to the others.
        self.project = nn.Linear(2 * width, width)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)
        # Of the LQ images of the UNet pass under way. Handed over by this attribute, since a hook
        # gets the input and output of `conv_in` and nothing else.
        self.features: Tensor | None = None

    def attach(self, unet: UNet2DConditionModel) -> None:
        """Pass the output of ``unet.conv_in`` through this module; a second call does nothing.

        Raises:
            ValueError: Another alignment is attached to this UNet.
        """
        # Two alignments on one UNet would both add to its features, and no error would tell.
        hooks = unet.conv_in._forward_hooks.values()
        attached = [hook.__self__ for hook in hooks if hasattr(hook, "__self__")]
        if any(isinstance(other, Alignment) and other is not self for other in attached):
            raise ValueError("this UNet has an alignment already; load another copy of it")
        if not any(other is self for other in attached):
            # A bound method: deepcopy (averaged weights) rebinds it to the copy.
            unet.conv_in.register_forward_hook(self._align)

    def _align(self, _: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        assert self.features is not None, "call FaithDiff, not its UNet"
        return self(output, self.features)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        """Align.

        Args:
            x: ``(B, width, h, w)``, output of ``unet.conv_in``.
            features: ``(B, feature_channels, h, w)`` of the LQ encoder; ``(B / k, ...)`` where `x`
                is k equal copies, one after the other.

        Returns:
            ``(B, width, h, w)``; equal to `x` at initialisation.
        """
        # No timestep, no gate and no scale of the condition: the released module has none. x is
        # added after the Linear, as in the released code and the project page's figure; added
        # before it, as some accounts of the paper have it, 2 x 320 channels would meet 320.
        rows, copies = len(features), len(x) // len(features)
        # The convolutions still see all copies: torch chooses their kernels by the number of rows,
        # and another one rounds otherwise.
        condition = self.condition(torch.cat([features] * copies) if copies > 1 else features)
        joined = torch.cat([x[:rows], condition[:rows]], dim=1)
        tokens = self.transformer(joined.flatten(2).transpose(1, 2))
        added = self.project(tokens).transpose(1, 2).unflatten(2, x.shape[2:])
        return x + (torch.cat([added] * copies) if copies > 1 else added)
