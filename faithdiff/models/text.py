"""Text conditioning as SDXL uses it: penultimate hidden states and a pooled projection.

The small prior brings its own byte-level BPE tokenizer and a CLIP text model of a few layers;
SDXL folders bring two of each. Both are read the same way: hidden states are concatenated, the
last encoder gives the pooled embedding (paper's code: encode_prompt of the training scripts).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from faithdiff.config import TextEncoder as TextEncoderConfig

TextEncoder: TypeAlias = CLIPTextModel | CLIPTextModelWithProjection

BOS, PAD, UNK, EOS = "<|startoftext|>", "<|pad|>", "<|unk|>", "<|endoftext|>"


@dataclass(frozen=True)
class Prompt:
    """Encoded captions: hidden states ``(B, L, D)`` and pooled ``(B, P)``."""

    hidden: Tensor
    pooled: Tensor

    def __getitem__(self, rows: Tensor | slice) -> Prompt:
        return Prompt(self.hidden[rows], self.pooled[rows])

    def to(self, device: torch.device | str) -> Prompt:
        return Prompt(self.hidden.to(device), self.pooled.to(device))


def build_tokenizer(captions: Iterable[str], config: TextEncoderConfig) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on captions; unseen words fall back to their bytes."""
    tokenizer = Tokenizer(models.BPE(unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocabulary,
        special_tokens=[BOS, PAD, UNK, EOS],
        # Sorted, as the set has another order in each process, and the numbers of tokens follow it.
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    # CLIP's frame of two marks: its text model takes the pooled embedding from the position of EOS,
    # and would find it nowhere.
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (BOS, EOS)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=config.length,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNK,
    )


def build_text_encoder(
    tokenizer: PreTrainedTokenizerBase, config: TextEncoderConfig
) -> CLIPTextModelWithProjection:
    """Build a small CLIP text model for a tokenizer."""
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.width,
            intermediate_size=2 * config.width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            max_position_embeddings=config.length,
            projection_dim=config.width,
            bos_token_id=tokenizer.bos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def cut_text(text: str, tokenizers: Iterable[PreTrainedTokenizerBase]) -> str | None:
    """Say what is not read of a text that has more tokens than a model takes; None: all is read."""
    for tokenizer in tokenizers:
        limit = tokenizer.model_max_length
        tokens = tokenizer(text, truncation=False, verbose=False).input_ids
        # CLIP reads 77 tokens. LLaVA's captions may be longer, and their end would be dropped
        # silently.
        if len(tokens) > limit:
            read = tokenizer.decode(tokens[: limit - 1], skip_special_tokens=True).strip()
            return f'{len(tokens)} tokens, {limit} are read: it ends after "... {read[-40:]}"'
    return None


def encode(
    captions: Sequence[str],
    tokenizers: Sequence[PreTrainedTokenizerBase],
    encoders: Sequence[TextEncoder],
) -> Prompt:
    """Encode captions; gradients flow if the encoders require them.

    Returns:
        Hidden states ``(B, L, sum of widths)`` of the penultimate layers, and the pooled
        projection ``(B, P)`` of the last encoder.
    """
    hidden = []
    for tokenizer, encoder in zip(tokenizers, encoders, strict=True):
        tokens = tokenizer(
            list(captions),
            padding="max_length",
            truncation=True,
            max_length=tokenizer.model_max_length,
            return_tensors="pt",
        ).input_ids.to(encoder.device)
        output = encoder(tokens, output_hidden_states=True)
        # The layer before the last, without the final norm: SDXL was trained on it.
        hidden.append(output.hidden_states[-2])
    return Prompt(torch.cat(hidden, dim=-1), output.text_embeds)
