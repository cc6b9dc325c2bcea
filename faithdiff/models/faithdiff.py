"""FaithDiff: a diffusion UNet whose first features are aligned with those of the LQ image.

diffusers' UNet stays as it is: a hook on ``unet.conv_in`` passes its output through the alignment,
so the aligned features feed the down path and are the first skip, as in the released code.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from faithdiff.config import AlignmentSettings, Group, Stage1
from faithdiff.models.alignment import Alignment
from faithdiff.models.lq_encoder import LQEncoder
from faithdiff.models.prior import Prior
from faithdiff.models.seen import Seen
from faithdiff.models.text import Prompt
from faithdiff.models.weights import load_part


class FaithDiff(nn.Module):
    """UNet, LQ encoder and alignment as one model."""

    def __init__(
        self, unet: UNet2DConditionModel, lq_encoder: LQEncoder, alignment: Alignment
    ) -> None:
        super().__init__()
        self.unet = unet
        self.lq_encoder = lq_encoder
        self.alignment = alignment
        # A hook and not a subclass of the UNet: diffusers stays free to change its forward pass,
        # and any UNet2DConditionModel that it loads will do.
        alignment.attach(unet)

    def group(self, name: Group) -> nn.Module:
        """The module of a parameter group of the config."""
        module: nn.Module = getattr(self, name)
        return module

    def see(self, lq: Tensor, always_tile: bool = False) -> Seen:
        """Take the LQ features from enlarged LQ images ``(B, 3, H, W)`` in [-1, 1].

        Args:
            always_tile: Tile as the released code does, see :meth:`LQEncoder.forward`.
        """
        return Seen(self.lq_encoder(lq.to(self.lq_encoder.dtype), always_tile))

    def predict(
        self, noisy: Tensor, timesteps: Tensor, seen: Seen, prompt: Prompt, time_ids: Tensor
    ) -> Tensor:
        """Predict noise or velocity from what :meth:`see` gave."""
        prediction: Tensor = self(noisy, timesteps, seen.map, prompt, time_ids)
        return prediction

    def forward(
        self, noisy: Tensor, timesteps: Tensor, features: Tensor, prompt: Prompt, time_ids: Tensor
    ) -> Tensor:
        """Predict noise or velocity.

        Args:
            noisy: ``(B, C, h, w)`` noisy latents z_t.
            timesteps: ``(B,)`` integers in [0, 1000).
            features: ``(B, F, h, w)`` of the LQ encoder. Fewer rows, ``(B / k, F, h, w)``, say that
                `noisy` is k equal copies, one after the other, as guidance has it: the alignment,
                which sees no text, then runs for one of them.
            prompt: Encoded captions of B rows.
            time_ids: ``(B, 6)``: original size, crop corner, target size.

        Returns:
            ``(B, C, h, w)``, what the prior's ``prediction_type`` says.
        """
        # Cleared again even after an error: features of an image left behind would silently be
        # those of the next one, wherever somebody calls the UNet itself.
        self.alignment.features = features
        try:
            prediction: Tensor = self.unet(
                noisy,
                timesteps,
                prompt.hidden,
                added_cond_kwargs={"text_embeds": prompt.pooled, "time_ids": time_ids},
            ).sample
        finally:
            self.alignment.features = None
        return prediction

    def save(self, folder: Path) -> None:
        """Write ``unet/ lq_encoder/ alignment/`` as diffusers folders."""
        self.unet.save_pretrained(folder / "unet")
        self.lq_encoder.save_pretrained(folder / "lq_encoder")
        self.alignment.save_pretrained(folder / "alignment")


def build(prior: Prior, recipe: Stage1, config: AlignmentSettings) -> FaithDiff:
    """Attach a fresh alignment to a prior; the untrained model predicts exactly as the prior."""
    # From the VAE encoder's weights, as the official `denoise_encoder`: its features then speak of
    # the same things as the latents from the first update on.
    lq_encoder = LQEncoder.from_vae(prior.vae, recipe.features)
    alignment = Alignment(
        feature_channels=lq_encoder.channels,
        width=prior.unet.config.block_out_channels[0],
        kind=recipe.alignment,
        attention=recipe.attention,
        norm=config.norm,
        blocks=config.blocks,
        heads=config.heads,
        mlp_ratio=recipe.mlp_ratio or config.mlp_ratio,
    )
    return FaithDiff(prior.unet, lq_encoder, alignment)


def load(
    folder: Path, dtype: torch.dtype = torch.float32, unet: UNet2DConditionModel | None = None
) -> FaithDiff:
    """Read what :meth:`FaithDiff.save` wrote, frozen, in evaluation mode, converted to `dtype`.

    Args:
        unet: Takes the place of the folder's own, which is then not read.

    Raises:
        CheckpointError: A part is missing, corrupted, or does not fit its config.
    """
    model = FaithDiff(
        # The whole UNet, not a difference to the prior's: "unleashed" means that all of it was
        # trained (stage 2), so there is nothing to share.
        unet or load_part(UNet2DConditionModel, folder / "unet", dtype),
        load_part(LQEncoder, folder / "lq_encoder", dtype),
        load_part(Alignment, folder / "alignment", dtype),
    )
    return model.eval().requires_grad_(False)
