"""Sections of the networks: the prior and its training, alignment, stage-1 recipes, captioner."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from faithdiff.config.data import Dataset, parts_of
from faithdiff.config.section import Name, Natural, Positive, Precision, Probability, Rate, Section
from faithdiff.study.plain import JsonObject


class Vae(Section):
    patch_size: Positive  # pixel-unshuffle before the first convolution; 1 is the usual VAE
    latent_channels: Positive
    block_out_channels: list[Positive]
    layers_per_block: Positive
    refine_channels: Natural = 0  # of convolutions on the decoded image; 0: there are none
    refine_layers: Positive = 3  # before the last of them


class Unet(Section):
    block_out_channels: list[Positive]
    layers_per_block: Positive
    attention_levels: list[Natural]  # indices of the levels that have cross-attention
    head_dim: Positive
    norm_groups: Positive
    time_id_dim: Positive
    transformer_blocks: Positive | list[Positive] = 1  # at each level that attends
    pooled_width: Positive | None = None  # of the pooled text; None: the text encoder's width


class TextEncoder(Section):
    vocabulary: Positive
    length: Positive  # tokens
    width: Positive
    layers: Positive
    heads: Positive


class Optimiser(Section):
    betas: tuple[float, float]
    eps: Rate
    weight_decay: Annotated[float, Field(ge=0)]
    max_grad_norm: Rate
    warmup: Natural  # updates with a linearly rising rate
    hold: Probability  # share of the updates at the full rate before the cosine falls


class Perceptual(Section):
    """The second part of a VAE's training: L1 and a perceptual distance, ST-LPIPS with VGG."""

    steps: Positive
    batch_size: Positive
    learning_rate: Rate
    weight: Rate  # of the distance, beside the L1


class VaeTraining(Section):
    steps: Positive
    batch_size: Positive
    crop: Positive  # pixels
    learning_rate: Rate
    kl_weight: Annotated[float, Field(ge=0)]
    latent_noise: Annotated[float, Field(ge=0)]  # decoder robustness: up to this much extra noise
    perceptual: Perceptual | None = None


class UnetTraining(Section):
    steps: Positive
    batch_size: Positive
    crop: Positive  # pixels
    learning_rate: Rate
    ema_decay: Probability
    text_dropout: Probability
    validation_every: Natural = 0  # updates between held-out losses and samples; 0: none


class PriorTraining(Section):
    data: Dataset
    held_out: tuple[Name, ...] = ()  # parts of `data`, a mixture: watched, not trained on
    precision: Precision = "fp32"  # of the passes
    optimiser: Optimiser
    vae: VaeTraining
    unet: UnetTraining

    @model_validator(mode="after")
    def _held_out_is_apart(self) -> PriorTraining:
        parts = parts_of(self.data)
        if unknown := sorted(set(self.held_out) - set(parts)):
            raise ValueError(
                f"held_out: data has no part {unknown[0]!r}; held_out: [] holds none out"
            )
        if set(parts) == set(self.held_out):
            raise ValueError("held_out: no part of data is left to train on")
        # By the names of images, which begin with that of their part.
        for apart in self.held_out:
            for part in sorted(set(parts) - set(self.held_out)):
                if part.startswith(f"{apart}-"):
                    raise ValueError(
                        f"held_out: the name of part {part!r} begins with {apart + '-'!r}, as the "
                        f"images of {apart!r} do; rename one of them"
                    )
        if self.unet.validation_every and not self.held_out:
            raise ValueError(
                "unet.validation_every: needs parts of data in `held_out`; 0 watches none"
            )
        return self


class PriorSettings(Section):
    source: Literal["shipped", "train"]
    path: Path  # read where source is `shipped`
    prediction_type: Literal["epsilon", "v_prediction"]
    vae: Vae
    unet: Unet
    text_encoder: TextEncoder
    training: PriorTraining


class Stage1(Section):
    """A stage-1 recipe, shared by the variants that name it; trains the alignment alone."""

    features: Literal["penultimate", "moments"]
    alignment: Literal["transformer", "concat"]
    attention: Literal["released", "spatial"]
    mlp_ratio: Positive | None = None  # of the Transformer blocks in place of `alignment.mlp_ratio`


class AlignmentSettings(Section):
    norm: Literal["group", "standardise"]
    blocks: Positive
    heads: Positive
    mlp_ratio: Positive


CAPTIONER_OPERATIONAL = {  # settings of `captioner` that change how fast it answers, not what
    "batch_size",
    "processes",
}


class Captioner(Section):
    """LLaVA, asked for the captions of datasets that say ``captions: llava``."""

    path: Path = Path("weights/llava-1.5-13b-hf")  # a folder of transformers
    question: str = "Describe this image and its style in a very detailed manner."
    temperature: Annotated[float, Field(ge=0)] = 0.2  # 0: always the likeliest word
    top_p: Probability = 0.7
    max_tokens: Positive = 512
    precision: Literal["float32", "float16", "bfloat16"] = "float16"
    quantise: Literal["8bit", "4bit"] | None = None  # of the weights, by bitsandbytes on a GPU
    batch_size: Positive = 1  # images asked about at once
    processes: Positive = 1  # one for each GPU; they share the images
    clean: Path | None = None  # BSRNet, which removes the degradation of test images before

    def decisive(self) -> JsonObject:
        """The settings that decide the answers, beside the files of the model.

        Not where those lie: they count by their content.
        """
        return self.model_dump(mode="json", exclude={"path", *CAPTIONER_OPERATIONAL})
