"""The prior: a VAE and a text-conditioned latent UNet in diffusers' folder format.

The study starts from a prior as the paper starts from SDXL. Building, loading and saving are the
same at every size: ``vae/ unet/ text_encoder*/ tokenizer*/ scheduler/``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from faithdiff.config import PriorSettings
from faithdiff.errors import CheckpointError
from faithdiff.models.text import Prompt, TextEncoder, build_text_encoder, cut_text, encode
from faithdiff.models.vae import PatchAutoencoderKL
from faithdiff.models.weights import load_part, refuse_pointers, variant_of

CUTS_SAID = 10  # captions that are named because their end is not read


@dataclass
class Prior:
    """The five parts of a latent diffusion prior."""

    vae: AutoencoderKL
    unet: UNet2DConditionModel
    text_encoders: list[TextEncoder]
    tokenizers: list[PreTrainedTokenizerBase]
    scheduler: DDPMScheduler
    # Captions are drawn again and again; each is looked at once, and only the first few are named.
    _looked_at: set[str] = field(default_factory=set, init=False, repr=False, compare=False)
    _said: int = field(default=0, init=False, repr=False, compare=False)

    @property
    def factor(self) -> int:
        """Pixels per latent pixel."""
        levels = len(self.vae.config.block_out_channels)
        return int(getattr(self.vae.config, "patch_size", 1) * 2 ** (levels - 1))

    def modules(self) -> list[nn.Module]:
        return [self.vae, self.unet, *self.text_encoders]

    def freeze(self) -> Prior:
        """Put everything in evaluation mode without gradients."""
        for module in self.modules():
            module.eval().requires_grad_(False)
        return self

    def to(self, device: torch.device | str) -> Prior:
        for module in self.modules():
            module.to(device)
        return self

    def encode_text(self, captions: list[str]) -> Prompt:
        """Encode captions: hidden states ``(B, L, D)`` and pooled ``(B, P)``.

        Of captions that are cut, the first few are printed, each once.
        """
        for caption in dict.fromkeys(captions):
            if self._said < CUTS_SAID and caption not in self._looked_at:
                self._looked_at.add(caption)
                self._say_if_cut(caption)
        return encode(captions, self.tokenizers, self.text_encoders)

    def _say_if_cut(self, caption: str) -> None:
        cut = cut_text(caption, self.tokenizers)
        if cut is None:
            return
        self._said += 1
        last = "; others that are cut are not named" if self._said == CUTS_SAID else ""
        print(f'caption cut: "{caption[:40]}..." has {cut}{last}', flush=True)

    def encode_moments(self, images: Tensor) -> Tensor:
        """Latent mean and log-variance ``(B, 2C, h, w)`` of images ``(B, 3, H, W)`` in [-1, 1].

        The VAE computes in its own precision; moments and latents are float32 at any.
        """
        return self.vae.encode(images.to(self.vae.dtype)).latent_dist.parameters.float()

    def sample_latents(self, moments: Tensor, noise: Tensor) -> Tensor:
        """Scaled latents ``(B, C, h, w)`` from moments and standard normal noise."""
        mean, log_variance = moments.chunk(2, dim=1)
        # diffusers' own bounds: beyond them the exponential overflows float32.
        deviation = (0.5 * log_variance.clamp(-30, 20)).exp()
        # The noise comes from the caller and not from `latent_dist.sample()`, which draws from
        # the global state: the released sampler repeats only under one global seed for this reason.
        return (mean + deviation * noise) * self.vae.config.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Images ``(B, 3, H, W)`` in about [-1, 1] from scaled latents ``(B, C, h, w)``."""
        scaled = latents.to(self.vae.dtype) / self.vae.config.scaling_factor
        return self.vae.decode(scaled).sample.float()

    def save(self, folder: Path) -> None:
        """Write the diffusers folders; tokenizer and text encoder are numbered as SDXL does."""
        self.vae.save_pretrained(folder / "vae")
        self.unet.save_pretrained(folder / "unet")
        self.scheduler.save_pretrained(folder / "scheduler")
        for index, (tokenizer, encoder) in enumerate(
            zip(self.tokenizers, self.text_encoders, strict=True)
        ):
            suffix = f"_{index + 1}" if index else ""
            tokenizer.save_pretrained(folder / f"tokenizer{suffix}")
            encoder.save_pretrained(folder / f"text_encoder{suffix}")


def build_unet(config: PriorSettings) -> UNet2DConditionModel:
    """Build an SDXL-shaped UNet: text cross-attention and added time and text conditioning."""
    shape, text = config.unet, config.text_encoder
    # The kind of UNet that SDXL is, in everything that its config names: what holds of the code at
    # this size holds at that one, and the paper's weights load through the same lines.
    levels = range(len(shape.block_out_channels))
    attends = [level in shape.attention_levels for level in levels]
    return UNet2DConditionModel(
        sample_size=config.training.unet.crop // config.vae.patch_size,
        in_channels=config.vae.latent_channels,
        out_channels=config.vae.latent_channels,
        down_block_types=["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends],
        up_block_types=["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)],
        block_out_channels=shape.block_out_channels,
        layers_per_block=shape.layers_per_block,
        norm_num_groups=shape.norm_groups,
        cross_attention_dim=text.width,
        # diffusers' name is historical: these are the numbers of heads.
        attention_head_dim=[width // shape.head_dim for width in shape.block_out_channels],
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=shape.time_id_dim,
        projection_class_embeddings_input_dim=6 * shape.time_id_dim
        + (shape.pooled_width or text.width),
        transformer_layers_per_block=shape.transformer_blocks,
    )


def build_prior(config: PriorSettings, tokenizer: PreTrainedTokenizerBase) -> Prior:
    """Build an untrained prior; call under a forked, seeded random state."""
    vae = PatchAutoencoderKL(
        patch_size=config.vae.patch_size,
        latent_channels=config.vae.latent_channels,
        block_out_channels=tuple(config.vae.block_out_channels),
        layers_per_block=config.vae.layers_per_block,
        refine_channels=config.vae.refine_channels,
        refine_layers=config.vae.refine_layers,
    )
    # SDXL's noise schedule, digit by digit. It ends at sqrt(ᾱ) = 0.068 and not at zero, so a trace
    # of the LQ image is left in a start from its noised latent; a study on another schedule would
    # say nothing of that choice. `clip_sample` is for pixels in [-1, 1], and latents are not.
    scheduler = DDPMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type=config.prediction_type,
        clip_sample=False,
    )
    encoder = build_text_encoder(tokenizer, config.text_encoder)
    return Prior(vae, build_unet(config), [encoder], [tokenizer], scheduler)


def load_prior(
    folder: Path, dtype: torch.dtype = torch.float32, unet: UNet2DConditionModel | None = None
) -> Prior:
    """Read a prior from diffusers folders, frozen, its weights converted to `dtype`.

    A VAE whose config asks for it (``force_upcast``: SDXL's own) stays float32 where `dtype` is
    float16, in which it overflows.

    Args:
        unet: Takes the place of the folder's own, which is then not read.

    Raises:
        CheckpointError: A part is missing, corrupted, or does not fit its own config.
    """
    refuse_pointers(folder)
    if hint := _no_folder_of_parts(folder):
        raise CheckpointError(f"{folder}: {hint}")
    try:
        patched, upcast = _vae_kind(folder)
        vae_class = PatchAutoencoderKL if patched else AutoencoderKL
        vae_dtype = torch.float32 if upcast and dtype == torch.float16 else dtype
        suffixes = ["", *(["_2"] if (folder / "text_encoder_2").is_dir() else [])]
        return Prior(
            load_part(vae_class, folder / "vae", vae_dtype),
            # A checkpoint brings a UNet of its own: at SDXL's size the prior's would cost 10 GB to
            # read, only to be dropped.
            unet or load_part(UNet2DConditionModel, folder / "unet", dtype),
            [_load_text_encoder(folder / f"text_encoder{s}", dtype) for s in suffixes],
            [_load_tokenizer(folder / f"tokenizer{s}") for s in suffixes],
            DDPMScheduler.from_pretrained(folder / "scheduler", local_files_only=True),
        ).freeze()
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder}: is not a complete prior (vae/ unet/ text_encoder/ tokenizer/ scheduler/): "
            f"{error}"
        ) from None


def _no_folder_of_parts(folder: Path) -> str:
    """What a path is that people give in place of a prior's folder; empty for others."""
    if folder.is_file():
        return (
            "is a file; a prior is a folder (vae/ unet/ text_encoder/ tokenizer/ scheduler/). A "
            "model in one file becomes such a folder by from_single_file and save_pretrained of "
            "diffusers' pipeline"
        )
    if (folder / "vae").exists():
        return ""
    # The hub's cache: the files lie in its `blobs`, and links to them in a folder for each commit.
    found = sorted(folder.glob("snapshots/*/vae")) or sorted(folder.glob("*/vae"))
    return f"is not the prior itself; give {found[0].parent}" if found else ""


def _load_text_encoder(folder: Path, dtype: torch.dtype) -> TextEncoder:
    """SDXL's first text encoder has no projection; its config says so."""
    architectures = CLIPTextConfig.from_pretrained(folder, local_files_only=True).architectures
    plain = architectures == [CLIPTextModel.__name__]
    encoder, info = (CLIPTextModel if plain else CLIPTextModelWithProjection).from_pretrained(
        folder,
        local_files_only=True,
        dtype=dtype,
        variant=variant_of(folder),
        output_loading_info=True,
    )
    if info["missing_keys"]:  # transformers fills them with random numbers
        raise CheckpointError(f"{folder}: tensors are missing: {sorted(info['missing_keys'])}")
    return encoder


def _load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Ours is one ``tokenizer.json``; SDXL's folders hold CLIP's vocabulary and merges."""
    whole = (folder / "tokenizer.json").is_file()
    tokenizer = PreTrainedTokenizerFast if whole else CLIPTokenizer
    return tokenizer.from_pretrained(folder, local_files_only=True)


def _vae_kind(folder: Path) -> tuple[bool, bool]:
    """Whether the VAE sees pixel-unshuffled images, and whether it overflows in float16."""
    config = json.loads((folder / "vae" / "config.json").read_text(encoding="utf-8"))
    patched = config.get("_class_name") == PatchAutoencoderKL.__name__
    return patched, not patched and config.get("force_upcast", True)
