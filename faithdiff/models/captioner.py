"""LLaVA, asked as the released code asks it: one question, sampled, the answer on one line.

transformers' own model and processor. The released code drives the original repository's, whose
template and settings are repeated here; :func:`faithdiff.data.captions.shorten` makes the caption.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor
from transformers import (
    AutoProcessor,
    BitsAndBytesConfig,
    LlavaForConditionalGeneration,
    LogitsProcessor,
    LogitsProcessorList,
    ProcessorMixin,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from faithdiff.config import Captioner, digest
from faithdiff.data.images import read_image, sha256_file
from faithdiff.data.outside import contents
from faithdiff.errors import CheckpointError, UserError
from faithdiff.models.weights import refuse_pointers
from faithdiff.study import seeds
from faithdiff.study.provenance import file_digest

# The conversation `vicuna_v1` of the original repository.
TEMPLATE = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions. USER: <image>\n{} ASSISTANT:"
)
FETCH = "faithdiff fetch --profile released"


class Llava:
    """The model with its processor, ready to answer.

    Args:
        config: The section `captioner` of a profile.
        device: ``cpu`` or ``cuda``.
        master_seed: Each answer is sampled with a seed of it and of the image's bytes.
        clean: Whether images go through BSRNet (`config.clean`) before they are looked at.

    Raises:
        CheckpointError: The model's folder is missing or corrupted.
    """

    def __init__(self, config: Captioner, device: str, master_seed: int, clean: bool) -> None:
        self._config, self._seed = config, master_seed
        self._device = torch.device(device)
        self._processor, self._model = _load(config, self._device)
        self._clean = None
        if clean and config.clean:
            from faithdiff.models.bsrnet import load_bsrnet

            self._clean = load_bsrnet(config.clean, device)

    @torch.inference_mode()
    def __call__(self, files: list[Path]) -> list[str]:
        """The answers of images; each the same whatever it is asked with, or was asked before."""
        images = [Image.fromarray(self._seen(file)) for file in files]
        prompt = TEMPLATE.format(self._config.question)
        inputs = self._processor(
            images=images, text=[prompt] * len(images), padding=True, return_tensors="pt"
        ).to(self._device, self._model.dtype)
        tokens = self._model.generate(
            **inputs,
            do_sample=False,
            logits_processor=self._sampler(files),
            num_beams=1,
            max_new_tokens=self._config.max_tokens,
        )
        answers = self._processor.batch_decode(
            tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        # On one line, as it goes into a CSV field that people read and edit.
        return [" ".join(str(answer).split()) for answer in answers]

    def _seen(self, file: Path) -> NDArray[np.uint8]:
        pixels = read_image(file)
        return self._clean(pixels) if self._clean else pixels

    def _sampler(self, files: list[Path]) -> LogitsProcessorList:
        """What makes the likeliest word a drawn one; nothing at temperature 0."""
        if not self._config.temperature:
            return LogitsProcessorList()
        # By the bytes of the image, not by its name or place: an image that two datasets share has
        # one caption, and 26 GB of model need not look at it twice.
        keys = [seeds.seed(self._seed, "caption", sha256_file(file)) for file in files]
        return LogitsProcessorList(
            [
                TemperatureLogitsWarper(self._config.temperature),
                TopPLogitsWarper(self._config.top_p),
                _Drawn(keys),
            ]
        )


class _Drawn(LogitsProcessor):
    """Draws each row's next word by a generator of its own, so that rows do not share a sampler.

    generate() would draw all rows from the global state. The word with the largest logit plus
    Gumbel noise has the distribution of the softmax.
    """

    def __init__(self, keys: list[int]) -> None:
        self._generators = [torch.Generator().manual_seed(key) for key in keys]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        words = scores.shape[1]
        waits = [torch.empty(words).exponential_(generator=g) for g in self._generators]
        return scores.float() - torch.stack(waits).log().to(scores.device)


def answer_digest(config: Captioner, master_seed: int, clean: bool) -> str:
    """What decides an answer besides the image: settings, seed, and the model's files.

    26 GB of weights are hashed once, and not again for each look whether an answer is known.

    Raises:
        CheckpointError: The model's folder is missing.
    """
    files = [file for file in sorted(config.path.glob("*")) if file.is_file()]
    if not files:
        raise CheckpointError(f"{config.path}: the captioner is missing; run: {FETCH}")
    hashes = contents(file for file in files if not file.name.startswith("."))
    about = [(file.name, sha256) for file, sha256 in hashes.items()]
    cleaner = file_digest(config.clean) if clean and config.clean else ""
    return digest(config.decisive(), about, cleaner, master_seed)


def _load(
    config: Captioner, device: torch.device
) -> tuple[ProcessorMixin, LlavaForConditionalGeneration]:
    if not (config.path / "config.json").is_file():
        raise CheckpointError(f"{config.path}: the captioner is missing; run: {FETCH}")
    refuse_pointers(config.path)
    quantised = _quantised(config, device)
    try:
        processor = AutoProcessor.from_pretrained(config.path, local_files_only=True)
        model, info = LlavaForConditionalGeneration.from_pretrained(
            config.path,
            local_files_only=True,
            dtype=getattr(torch, config.precision),
            output_loading_info=True,
            quantization_config=quantised,
            device_map={"": str(device)} if quantised else None,
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise CheckpointError(f"{config.path}: cannot be loaded: {error}; run: {FETCH}") from None
    if info["missing_keys"]:  # transformers fills them with random numbers
        raise CheckpointError(f"{config.path}: tensors are missing: {sorted(info['missing_keys'])}")
    processor.tokenizer.padding_side = "left"  # an answer follows its question
    vision = model.config.vision_config
    # Older folders leave these to the model's config; the processor must know them to count tokens.
    if processor.patch_size is None:
        processor.patch_size = vision.patch_size
        processor.vision_feature_select_strategy = model.config.vision_feature_select_strategy
        processor.num_additional_image_tokens = 1  # CLIP's class token
    model = model if quantised else model.to(device)  # bitsandbytes has put it there
    return processor, model.eval().requires_grad_(False)


def _quantised(config: Captioner, device: torch.device) -> BitsAndBytesConfig | None:
    """How the weights are loaded in fewer bits; None: as they are."""
    if config.quantise is None:
        return None
    if find_spec("bitsandbytes") is None:
        raise UserError(
            f"captioner.quantise: {config.quantise}: needs bitsandbytes, which is not installed; "
            "run: pip install 'faithdiff[quantised]', or set captioner.quantise to null"
        )
    if device.type != "cuda":
        raise UserError(
            f"captioner.quantise: {config.quantise}: is computed on a GPU, and device is "
            f"{device.type}; set captioner.quantise to null"
        )
    if config.quantise == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=getattr(torch, config.precision),
    )
