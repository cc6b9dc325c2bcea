"""A small model in the official file's format, with weights that every machine draws alike.

The golden figures in tests/models/test_official.py come from the official code on exactly these
weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from faithdiff.models.alignment import Alignment
from faithdiff.models.faithdiff import FaithDiff
from faithdiff.models.lq_encoder import LQEncoder
from faithdiff.models.official import official_name
from faithdiff.study import seeds

LENGTH = 24  # tokens of a caption
# The official alignment and LQ encoder have one size; the rest is as small as diffusers allows.
UNET: dict[str, Any] = {
    "sample_size": 16,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 320),
    "layers_per_block": 1,
    "cross_attention_dim": 48,
    "attention_head_dim": [5, 10],
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 32,
    "projection_class_embeddings_input_dim": 6 * 32 + 32,
    "transformer_layers_per_block": [1, 2],
}
VAE: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (32, 32, 64, 64),
    "layers_per_block": 1,
    "norm_num_groups": 16,
    "scaling_factor": 0.13,
    "force_upcast": False,
}


def official_state() -> dict[str, Tensor]:
    """The state dict of a small official model."""
    with torch.device("meta"):
        model = FaithDiff(UNet2DConditionModel(**UNET), LQEncoder(), Alignment(512, 320))
    return {
        official_name(key): _draw(official_name(key), t) for key, t in model.state_dict().items()
    }


def save_base_model(folder: Path) -> None:
    """Write an SDXL-shaped pipeline folder: two text encoders, a VAE, a UNet, Euler's scheduler."""
    for number, (width, kind) in enumerate(
        ((16, CLIPTextModel), (32, CLIPTextModelWithProjection))
    ):
        suffix = "_2" if number else ""
        size = _save_tokenizer(folder / f"tokenizer{suffix}", "!" if number else "<|endoftext|>")
        config = CLIPTextConfig(
            vocab_size=size,
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=2 + number,
            num_attention_heads=2,
            max_position_embeddings=LENGTH,
            projection_dim=width,
            bos_token_id=size - 2,
            eos_token_id=size - 1,
        )
        _filled(kind(config)).save_pretrained(folder / f"text_encoder{suffix}")
    _filled(AutoencoderKL(**VAE)).save_pretrained(folder / "vae")
    _filled(UNet2DConditionModel(**UNET)).save_pretrained(folder / "unet")
    EulerDiscreteScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        timestep_spacing="leading",
        steps_offset=1,
    ).save_pretrained(folder / "scheduler")


def _save_tokenizer(folder: Path, pad: str) -> int:
    """CLIP's two files with single letters only; returns the size of the vocabulary."""
    folder.mkdir(parents=True)
    # CLIP's byte-level alphabet: printable bytes stand for themselves, the others follow 256.
    letters = [chr(c) for c in (*range(33, 127), *range(161, 173), *range(174, 256))]
    letters += [chr(256 + number) for number in range(68)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": LENGTH,
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": pad,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return len(words)


def _filled(module: Any) -> Any:
    state = module.state_dict()
    drawn = {k: _draw(k, t) if t.is_floating_point() else t for k, t in state.items()}
    module.load_state_dict(drawn)
    return module.eval()


def _draw(name: str, like: Tensor) -> Tensor:
    """Weights of usual size; those that start at zero or one are moved away from it."""
    noise = torch.randn(like.shape, generator=seeds.torch_generator(0, "golden", name))
    if like.ndim == 1:
        return 0.1 * noise + (1.0 if "norm" in name or ".ln_" in name else 0.0) * name.endswith(
            "weight"
        )
    return noise / like[0].numel() ** 0.5
