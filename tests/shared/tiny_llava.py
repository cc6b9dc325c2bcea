"""A LLaVA folder as transformers writes it: the real classes with a few thousand random weights."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from faithdiff.models.captioner import TEMPLATE

WORDS = [*"ABCDEFGHIJKLMNOPQRSTUVWXYZ", *TEMPLATE.split(), "Describe", "this", "manner."]


def save_tiny_llava(folder: Path) -> None:
    vocabulary = {
        word: k for k, word in enumerate(dict.fromkeys(["<pad>", "</s>", "<unk>", *WORDS]))
    }
    vocabulary["<image>"] = vocabulary.get("<image>", len(vocabulary))
    backend = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        additional_special_tokens=["<image>"],
    )  # fmt: skip
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        image_size=28, patch_size=14, projection_dim=16,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=256,
        pad_token_id=0, eos_token_id=1, bos_token_id=1,
    )  # fmt: skip
    image_token = tokenizer.convert_tokens_to_ids("<image>")
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=image_token)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlavaForConditionalGeneration(config)
    assert sum(p.numel() for p in model.parameters()) < 50_000
    model.save_pretrained(folder)
    size = {"height": 28, "width": 28}
    images = CLIPImageProcessor(size={"shortest_edge": 28}, crop_size=size)
    # As the published folder: the processor's patch size is in the model's config alone.
    LlavaProcessor(image_processor=images, tokenizer=tokenizer).save_pretrained(folder)
