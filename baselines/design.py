"""What DiffBIR, SUPIR and SeeSR have in common: a frozen prior and a trained control beside it.

The axes on which the designs differ (and what the official code does on each) are: which image
of the LQ is seen, how it enters the control encoder, how the control enters the UNet, and what
is trained beforehand. Each is a method of :class:`Design`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from faithdiff import compat as compat  # before diffusers

# isort: split
from diffusers import ControlNetModel, UNet2DConditionModel

from faithdiff.methods.method import Denoiser, Guide
from faithdiff.models.prior import Prior
from faithdiff.models.seen import Seen
from faithdiff.models.text import Prompt


class Design(nn.Module, ABC):
    """A conditioning design on a frozen prior.

    Its parameters are `front`, which pre-stages train and which is frozen afterwards, and
    `control`, which the last stage trains. The prior is not part of its state.
    """

    front: nn.ModuleDict
    control: nn.ModuleDict

    def __init__(self, prior: Prior) -> None:
        super().__init__()
        self.prior = prior  # a dataclass: its networks are not registered here

    @abstractmethod
    def see(self, lq: Tensor) -> Seen:
        """Take what the design needs from enlarged LQ images ``(B, 3, H, W)`` in [-1, 1]."""

    @abstractmethod
    def restored(self, seen: Seen) -> Tensor:
        """The image ``(B, 3, H, W)`` in [-1, 1] that the pre-stages made of the LQ image."""

    def captions(self, seen: Seen, known: list[str]) -> list[str]:
        """The captions to denoise by; a design with a captioner of its own ignores `known`."""
        return known

    def guidance(self, seen: Seen) -> Guide:
        """Restoration guidance towards what the pre-stages made of these images."""
        raise NotImplementedError(f"{type(self).__name__} has no restoration guidance")

    def denoiser(self) -> Denoiser:
        """The design as the common sampler asks it."""
        return Denoiser(
            self.see, self, self.captions, self.restored, self.guidance, self.prior.unet
        )

    def convert(self, dtype: torch.dtype) -> None:
        """Let the control compute in a precision, as the prior's UNet that it stands beside.

        The pre-stages stay in float32: they run once per image, not once per step. SwinIR makes
        attention masks in float32, and a copy of SDXL's own VAE encoder overflows in float16.
        """
        self.front.float()
        self.control.to(dtype)

    def tile_encoders(self, size: int) -> None:
        """Read images by tiles of `size` pixels, where a pre-stage has a VAE's encoder.

        0 reads them whole.
        """

    def compile_control(self) -> None:
        """Compile what runs in every step beside the prior's UNet."""
        self.control["control_encoder"].compile()

    @abstractmethod
    def forward(
        self, noisy: Tensor, timesteps: Tensor, seen: Seen, prompt: Prompt, time_ids: Tensor
    ) -> Tensor:
        """Predict noise or velocity ``(B, C, h, w)``, as the prior does."""

    def encode(
        self, noisy: Tensor, timesteps: Tensor, seen: Seen, prompt: Prompt, time_ids: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """The control's features of each level of the encoder, and of the middle."""
        # The UNet's own timestep and text, as in the official code of DiffBIR and SUPIR.
        down, middle = self.control["control_encoder"](
            noisy,
            timesteps,
            prompt.hidden,
            seen.map,
            added_cond_kwargs={"text_embeds": prompt.pooled, "time_ids": time_ids},
            return_dict=False,
        )
        return list(down), middle

    def denoise(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        prompt: Prompt,
        time_ids: Tensor,
        down: list[Tensor] | None = None,
        middle: Tensor | None = None,
    ) -> Tensor:
        """One pass of the frozen UNet, with residuals for its skips and its middle."""
        # diffusers adds the residuals to the skips before the decoder concatenates them, which is
        # where ControlNet and DiffBIR add theirs. None leaves the UNet as it is (SUPIR's hooks).
        prediction: Tensor = self.prior.unet(
            noisy,
            timesteps,
            prompt.hidden,
            added_cond_kwargs={"text_embeds": prompt.pooled, "time_ids": time_ids},
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
        ).sample
        return prediction


def control_encoder(unet: UNet2DConditionModel, stem: nn.Module) -> ControlNetModel:
    """A trainable copy of a UNet's encoder and middle.

    Its outputs pass zero-initialised 1×1 convolutions (Zhang et al., ICCV 2023).

    Args:
        stem: Maps what is seen to the width of the first level; starts at zero.
    """
    # The channels only size a stem that is replaced at once: diffusers builds one in any case.
    control = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 8))
    control.controlnet_cond_embedding = stem
    return control


def zero(module: nn.Module) -> nn.Module:
    """Set all parameters of a module to zero."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def latent_stem(unet: UNet2DConditionModel, bias: bool) -> nn.Module:
    """A zero 3×3 convolution of a latent, added after the control's first convolution.

    The same as the official eight-channel first convolution whose four new columns start at zero.
    """
    # Beside the first convolution, not in it: the copy keeps the shape that `from_unet` can load.
    config = unet.config
    width = config.block_out_channels[0]
    return zero(nn.Conv2d(config.in_channels, width, 3, padding=1, bias=bias))
