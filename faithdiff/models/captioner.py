"""LLaVA, asked as the released code asks it: one question, sampled, the answer on one line.

transformers' own model and processor. The released code drives the original repository's, whose
template and settings are repeated here; :func:`faithdiff.data.captions.shorten` makes the caption.
"""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from safetensors import SafetensorError
from transformers import AutoProcessor, LlavaForConditionalGeneration, ProcessorMixin

from faithdiff.config import Captioner, digest
from faithdiff.data.images import read_image, sha256_file
from faithdiff.data.outside import contents
from faithdiff.errors import CheckpointError
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
    def __call__(self, file: Path) -> str:
        """The answer of one image; the same whatever was asked before it."""
        pixels = read_image(file)
        image = Image.fromarray(self._clean(pixels) if self._clean else pixels)
        prompt = TEMPLATE.format(self._config.question)
        inputs = self._processor(images=image, text=prompt, return_tensors="pt")
        inputs = inputs.to(self._device, self._model.dtype)
        settings: dict[str, bool | float] = {"do_sample": False}
        if self._config.temperature:
            settings = {
                "do_sample": True,
                "temperature": self._config.temperature,
                "top_p": self._config.top_p,
                "top_k": 0,  # transformers would keep 50 words
            }
        # generate() samples from the global state: it is forked, and seeded for this image.
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            # By the bytes of the image, not by its name or place: an image that two data sets share
            # has one caption, and 26 GB of model need not look at it twice.
            torch.manual_seed(seeds.seed(self._seed, "caption", sha256_file(file)))
            tokens = self._model.generate(
                **inputs, **settings, num_beams=1, max_new_tokens=self._config.max_tokens
            )
        answer = self._processor.decode(
            tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        # On one line, as it goes into a CSV field that people read and edit.
        return " ".join(str(answer).split())


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
    return digest(config.model_dump(mode="json", exclude={"path"}), about, cleaner, master_seed)


def _load(
    config: Captioner, device: torch.device
) -> tuple[ProcessorMixin, LlavaForConditionalGeneration]:
    if not (config.path / "config.json").is_file():
        raise CheckpointError(f"{config.path}: the captioner is missing; run: {FETCH}")
    refuse_pointers(config.path)
    try:
        processor = AutoProcessor.from_pretrained(config.path, local_files_only=True)
        model, info = LlavaForConditionalGeneration.from_pretrained(
            config.path,
            local_files_only=True,
            dtype=getattr(torch, config.precision),
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise CheckpointError(f"{config.path}: cannot be loaded: {error}; run: {FETCH}") from None
    if info["missing_keys"]:  # transformers fills them with random numbers
        raise CheckpointError(f"{config.path}: tensors are missing: {sorted(info['missing_keys'])}")
    vision = model.config.vision_config
    # Older folders leave these to the model's config; the processor must know them to count tokens.
    if processor.patch_size is None:
        processor.patch_size = vision.patch_size
        processor.vision_feature_select_strategy = model.config.vision_feature_select_strategy
        processor.num_additional_image_tokens = 1  # CLIP's class token
    return processor, model.to(device).eval().requires_grad_(False)
