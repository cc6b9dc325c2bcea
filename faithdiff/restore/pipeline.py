"""FaithDiff as a diffusers pipeline: LQ image to restored image (paper's code: test.py, pipeline).

The interface of diffusers on the study's one sampling loop (faithdiff/restore/sampler.py).
``as_released`` brings back what the released code does by accident; docs/as-released.md lists it.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Protocol, TypeAlias, TypeVar

import diffusers
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from faithdiff import compat  # noqa: F401  (must precede diffusers' models)

# isort: split
from diffusers import AutoencoderKL, DDPMScheduler, DiffusionPipeline, UNet2DConditionModel
from diffusers.image_processor import PipelineImageInput, VaeImageProcessor
from diffusers.pipelines import ImagePipelineOutput

from faithdiff.methods.method import Denoiser
from faithdiff.models.alignment import Alignment
from faithdiff.models.faithdiff import FaithDiff, load
from faithdiff.models.lq_encoder import LQEncoder
from faithdiff.models.prior import Prior, load_prior
from faithdiff.models.text import TextEncoder
from faithdiff.models.vae import tile_vae
from faithdiff.restore.sampler import Hooks, Sampler, SamplerSettings, caption_encoder
from faithdiff.restore.schedule import Scheduler

Images: TypeAlias = list[Image.Image] | NDArray[np.float32] | Tensor
T = TypeVar("T")


class StepCallback(Protocol):
    """What diffusers calls after a step, with the values that it may replace."""

    def __call__(
        self, pipeline: FaithDiffPipeline, step: int, timestep: Tensor, values: dict[str, Tensor], /
    ) -> dict[str, Tensor]: ...


class FaithDiffPipeline(DiffusionPipeline):
    """Restores images of any size with a FaithDiff model.

    Where a GPU has too little memory for all networks at once, diffusers' own
    ``enable_model_cpu_offload()`` keeps each on it only while it computes. A UNet that was loaded
    quantised goes in by ``from_pretrained(folder, unet=unet)``: the alignment is hooked on its
    first convolution, and 8-bit and 4-bit loading change linear layers alone. docs/full-size.md has
    both, and says what was never run on a GPU.

    Args:
        vae: Of the prior.
        text_encoder: CLIP text model; the only one of the small prior, SDXL's first.
        tokenizer: Of `text_encoder`.
        unet: Fine-tuned; the alignment is attached to it.
        lq_encoder: Reads the enlarged LQ image.
        alignment: Joins LQ features and noisy latent.
        scheduler: Any diffusers scheduler whose step is linear and keeps no history (DDIM, Euler).
        text_encoder_2: SDXL's second, with projection.
        tokenizer_2: Of `text_encoder_2`.
    """

    model_cpu_offload_seq = "text_encoder->text_encoder_2->lq_encoder->unet->vae"
    _exclude_from_cpu_offload: ClassVar[list[str]] = ["alignment"]
    _optional_components: ClassVar[list[str]] = ["text_encoder_2", "tokenizer_2"]
    _callback_tensor_inputs: ClassVar[list[str]] = ["latents"]

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: TextEncoder,
        tokenizer: PreTrainedTokenizerBase,
        unet: UNet2DConditionModel,
        lq_encoder: LQEncoder,
        alignment: Alignment,
        scheduler: Scheduler,
        text_encoder_2: TextEncoder | None = None,
        tokenizer_2: PreTrainedTokenizerBase | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            lq_encoder=lq_encoder,
            alignment=alignment,
            scheduler=scheduler,
            text_encoder_2=text_encoder_2,
            tokenizer_2=tokenizer_2,
        )
        encoders = [text_encoder, *([text_encoder_2] if text_encoder_2 is not None else [])]
        tokenizers = [tokenizer, *([tokenizer_2] if tokenizer_2 is not None else [])]
        # The released start adds noise by the DDPM schedule, whatever the sampler.
        trained = DDPMScheduler.from_config(scheduler.config)
        # No copies: what diffusers moves, casts or offloads is moved for the sampler as well.
        self._prior = Prior(vae, unet, encoders, tokenizers, trained)
        self._model = FaithDiff(unet, lq_encoder, alignment)
        self._encode = caption_encoder(self._prior)
        self.image_processor = VaeImageProcessor(vae_scale_factor=self._prior.factor)
        #: Called with (done, total) UNet passes of one call.
        self.on_pass: Callable[[int, int], None] | None = None

    @classmethod
    def from_parts(
        cls, prior: Prior, model: FaithDiff, scheduler: Scheduler | None = None
    ) -> FaithDiffPipeline:
        """Build the pipeline from a prior and a model in memory."""
        second = len(prior.text_encoders) > 1
        return cls(
            vae=prior.vae,
            text_encoder=prior.text_encoders[0],
            tokenizer=prior.tokenizers[0],
            unet=model.unet,
            lq_encoder=model.lq_encoder,
            alignment=model.alignment,
            scheduler=scheduler or prior.scheduler,
            text_encoder_2=prior.text_encoders[1] if second else None,
            tokenizer_2=prior.tokenizers[1] if second else None,
        )

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        torch_dtype: torch.dtype = torch.float32,
        unet: UNet2DConditionModel | None = None,
    ) -> FaithDiffPipeline:
        """Read a folder that :meth:`save_pretrained` wrote; every tensor must be there and fit.

        Args:
            pretrained_model_name_or_path: The folder.
            torch_dtype: Of the networks that are read here.
            unet: Takes the place of the folder's own, such as one that was loaded quantised.

        Raises:
            CheckpointError: A part is missing, corrupted, or does not fit its config.
            ValueError: `unet` computes in another precision than the networks beside it.
        """
        if unet is not None and unet.dtype != torch_dtype:
            # The alignment joins its features to the UNet's, in one convolution.
            raise ValueError(
                f"unet computes in {unet.dtype} and the rest in {torch_dtype}; "
                f"give torch_dtype={unet.dtype}"
            )
        folder = Path(pretrained_model_name_or_path)
        model = load(folder, torch_dtype, unet)
        prior = load_prior(folder, torch_dtype, model.unet)
        library, name = cls.load_config(folder, local_files_only=True)["scheduler"]
        scheduler = getattr(importlib.import_module(library), name)
        return cls.from_parts(prior, model, scheduler.from_pretrained(folder / "scheduler"))

    @torch.no_grad()
    def __call__(
        self,
        image: PipelineImageInput,
        prompt: str | Sequence[str] = "",
        *,
        upscale: int = 4,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: StepCallback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        **settings: object,
    ) -> ImagePipelineOutput | tuple[Images]:
        """Restore images.

        Args:
            image: LQ images of one size: PIL, arrays or tensors ``(B, 3, h, w)`` in [0, 1].
            prompt: A caption for all, or one for each image.
            upscale: Side of the result / side of the LQ image.
            generator: Source of all noise on the CPU: one for all images, or one for each.
            output_type: ``pil``, ``np``, ``pt`` or ``latent``.
            callback_on_step_end: Called as ``(pipeline, step, timestep, {"latents": ...})``; what
                it returns replaces the latents.
            settings: Fields of :class:`SamplerSettings`: steps, guidance, tiles, colours.

        Returns:
            Images of ``upscale`` times the size; ``pt`` is ``(B, 3, H, W)`` float32 in [0, 1].

        Raises:
            ConfigError: No timestep of the schedule is as low as `start_timestep`.
            ValueError: Prompts or generators are neither one nor as many as images, or a setting
                is unknown or of the wrong type.
        """
        self._refuse_unknown(callback_on_step_end_tensor_inputs)
        # Settings are checked when they are given: diffusers' users pass them by keyword, and a
        # misspelt one that is swallowed would restore otherwise than they believe.
        chosen, lq = SamplerSettings.model_validate(settings), self._read(image)
        prompts = _one_for_each("prompt", [prompt] if isinstance(prompt, str) else prompt, len(lq))
        sources = [*generator] if isinstance(generator, Sequence) else [generator]
        generators = _one_for_each("generator", sources, len(lq))
        see = functools.partial(self._model.see, always_tile=chosen.as_released)
        denoiser = Denoiser(see, self._model.predict, sees_pairs_once=True)
        # Built for each call, as `pipeline.scheduler` may be replaced between two.
        sampler = Sampler(self._prior, denoiser, self.scheduler, self._encode)
        view = sampler.view(lq, upscale, self._execution_device)
        hooks = self._hooks(callback_on_step_end)
        latents = sampler.sample(view, prompts, generators, chosen, hooks)
        restored: Images = latents
        if output_type != "latent":
            images = sampler.images(latents, view, chosen)
            restored = self.image_processor.postprocess(
                images, output_type, do_denormalize=[False] * len(images)
            )
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=restored) if return_dict else (restored,)

    def _hooks(self, callback: StepCallback | None) -> Hooks:
        """Diffusers' progress bar and callback, and our own count of passes."""

        def on_step(step: int, timestep: Tensor, latents: Tensor) -> Tensor:
            if callback is None:
                return latents
            return callback(self, step, timestep, {"latents": latents}).pop("latents", latents)

        on_pass = self.on_pass or (lambda done, total: None)
        return Hooks(bar=self.progress_bar, on_pass=on_pass, on_step=on_step)

    def enable_vae_tiling(self, size: int = 1024) -> None:
        """Encode and decode images by overlapping tiles of `size` pixels, to save memory.

        The VAE is diffusers' own; the LQ encoder blends its tiles in the same way.
        """
        tile_vae(self.vae, size)
        self.lq_encoder.enable_tiling(size)

    def disable_vae_tiling(self) -> None:
        """Encode and decode whole images."""
        self.vae.disable_tiling()
        self.lq_encoder.disable_tiling()

    def _refuse_unknown(self, inputs: Sequence[str]) -> None:
        if unknown := sorted(set(inputs) - set(self._callback_tensor_inputs)):
            raise ValueError(
                f"callback_on_step_end_tensor_inputs: {unknown} is not in "
                f"{self._callback_tensor_inputs}"
            )

    def _read(self, image: PipelineImageInput) -> Tensor:
        """Images as float32 ``(B, 3, h, w)`` in [0, 1] on the CPU, of their own size."""
        if isinstance(image, Tensor):
            return (image if image.ndim == 4 else image[None]).float().cpu()
        images = image if isinstance(image, list | tuple) else [image]
        if all(isinstance(one, Tensor) for one in images):
            return torch.stack([one.float().cpu() for one in images])
        arrays = [
            np.asarray(one.convert("RGB"), np.float32) / 255
            if isinstance(one, Image.Image)
            else np.asarray(one, np.float32)
            for one in images
        ]
        return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)


def save_pipeline(model: FaithDiff, prior_folder: Path, target: Path) -> None:
    """Write a model and the rest of its base model as one pipeline folder.

    The sampler is the base model's own, whatever it is.

    Raises:
        CheckpointError: The prior is missing, corrupted, or of another size.
    """
    prior = load_prior(prior_folder, model.unet.dtype, model.unet)
    config = DDPMScheduler.load_config(prior_folder / "scheduler", local_files_only=True)
    sampler = getattr(diffusers, config["_class_name"])
    pipeline = FaithDiffPipeline.from_parts(prior, model, sampler.from_config(config))
    pipeline.save_pretrained(target)


def _one_for_each(name: str, given: Sequence[T], count: int) -> list[T]:
    """One of `given` for each of `count` images; a single one is for all.

    Raises:
        ValueError: There are neither one nor `count`.
    """
    if len(given) == 1:
        return [*given] * count
    if len(given) != count:
        raise ValueError(
            f"{name}: {len(given)} given for {count} images; give one, or one for each"
        )
    return [*given]
