"""FaithDiff as a diffusers pipeline: LQ image to restored image (paper's code: test.py, pipeline).

Enlarge (Lanczos), encode, start from noise or from the noised LQ latent, denoise with text-only
classifier-free guidance over latent tiles, decode, fix the colours, crop. ``as_released`` brings
back what the released code does by accident; docs/as-released.md lists it.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import diffusers
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from faithdiff import compat  # noqa: F401  (must precede diffusers' models)

# isort: split
from diffusers import AutoencoderKL, DDPMScheduler, DiffusionPipeline, UNet2DConditionModel
from diffusers.image_processor import PipelineImageInput, VaeImageProcessor
from diffusers.pipelines import ImagePipelineOutput

from faithdiff.models.alignment import Alignment
from faithdiff.models.faithdiff import FaithDiff, load
from faithdiff.models.lq_encoder import LQEncoder
from faithdiff.models.objective import time_ids
from faithdiff.models.prior import Prior, load_prior
from faithdiff.models.text import Prompt, TextEncoder
from faithdiff.restore.colour import fix_colour
from faithdiff.restore.enlarge import enlarge
from faithdiff.restore.schedule import add_noise_as_released, visited
from faithdiff.restore.tiling import Tile, merged, tiles

Generators = torch.Generator | Sequence[torch.Generator] | None


class FaithDiffPipeline(DiffusionPipeline):
    """Restores images of any size with a FaithDiff model.

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
        scheduler: Any,
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
        self._prior = Prior(vae, unet, encoders, tokenizers, trained)
        self._model = FaithDiff(unet, lq_encoder, alignment)
        self._encode_one = functools.lru_cache(maxsize=1024)(self._encode)
        self.image_processor = VaeImageProcessor(vae_scale_factor=self._prior.factor)
        #: Called with (done, total) UNet passes of one call.
        self.on_pass: Callable[[int, int], None] | None = None

    @classmethod
    def from_parts(cls, prior: Prior, model: FaithDiff, scheduler: Any = None) -> FaithDiffPipeline:
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
        **_: Any,
    ) -> FaithDiffPipeline:
        """Read a folder that :meth:`save_pretrained` wrote; every tensor must be there and fit.

        Raises:
            CheckpointError: A part is missing, corrupted, or does not fit its config.
        """
        folder = Path(pretrained_model_name_or_path)
        model = load(folder, torch_dtype)
        prior = load_prior(folder, torch_dtype, model.unet)
        library, name = cls.load_config(folder, local_files_only=True)["scheduler"]
        scheduler = getattr(importlib.import_module(library), name)
        return cls.from_parts(prior, model, scheduler.from_pretrained(folder / "scheduler"))

    @torch.no_grad()
    def __call__(
        self,
        image: PipelineImageInput,
        prompt: str | Sequence[str] = "",
        negative_prompt: str = "",
        upscale: int = 4,
        num_inference_steps: int = 20,
        guidance_scale: float = 5.0,
        generator: Generators = None,
        start_point: str = "lq",
        start_timestep: int = 999,
        tile_size: int = 128,
        tile_stride: int = 64,
        tile_batch_size: int = 1,
        color_fix: str = "adain",
        wavelet_levels: int = 5,
        as_released: bool = False,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., dict[str, Any]] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> ImagePipelineOutput | tuple[Any]:
        """Restore images.

        Args:
            image: LQ images of one size: PIL, arrays or tensors ``(B, 3, h, w)`` in [0, 1].
            prompt: A caption for all, or one for each image.
            negative_prompt: Of the guidance pair.
            upscale: Side of the result / side of the LQ image.
            num_inference_steps: Of the whole schedule.
            guidance_scale: 1 is without guidance.
            generator: Source of all noise on the CPU: one for all images, or one for each.
            start_point: ``lq`` (noised LQ latent) or ``noise``.
            start_timestep: The highest timestep visited from the start point ``lq``.
            tile_size: Side of a latent tile in latent pixels.
            tile_stride: From tile to tile in latent pixels.
            tile_batch_size: Tiles in one UNet pass; changes speed and memory, not the result.
            color_fix: ``none``, ``adain`` or ``wavelet``.
            wavelet_levels: Of the wavelet colour fix.
            as_released: Do what the released code does by accident (docs/as-released.md).
            output_type: ``pil``, ``np``, ``pt`` or ``latent``.
            callback_on_step_end: Called as ``(pipeline, step, timestep, {"latents": ...})``; what
                it returns replaces the latents.

        Returns:
            Images of ``upscale`` times the size; ``pt`` is ``(B, 3, H, W)`` float32 in [0, 1].

        Raises:
            ConfigError: No timestep of the schedule is as low as `start_timestep`.
            ValueError: Prompts or generators are neither one nor as many as images.
        """
        self._refuse_unknown(callback_on_step_end_tensor_inputs)
        lq = self._read(image)
        prompts = _one_for_each("prompt", [prompt] if isinstance(prompt, str) else prompt, len(lq))
        height, width = (side * upscale for side in lq.shape[2:])
        device = self._execution_device
        enlarged = enlarge(lq, upscale).to(device) * 2 - 1
        padded = self._pad(enlarged)
        latents, timesteps = self._start(
            padded, num_inference_steps, start_point, start_timestep, generator, as_released
        )
        features = self.lq_encoder(padded.to(self.lq_encoder.dtype), always_tile=as_released)
        predict = functools.partial(
            self._predict,
            features=features,
            prompt=self._prompts(prompts, negative_prompt, guidance_scale).to(device),
            size=(padded.shape[2], padded.shape[3]) if as_released else (height, width),
            guidance_scale=guidance_scale,
            tile_size=tile_size if as_released else None,
        )
        parts = tiles(latents.shape[2], latents.shape[3], tile_size, tile_stride)
        chunks = [parts[i : i + tile_batch_size] for i in range(0, len(parts), tile_batch_size)]
        done, total = 0, len(timesteps) * len(parts)
        for step, timestep in enumerate(self.progress_bar(timesteps)):
            scaled = self.scheduler.scale_model_input(latents, timestep)
            predictions: list[tuple[Tile, Tensor]] = []
            for chunk in chunks:
                predictions += zip(chunk, predict(scaled, timestep, chunk), strict=True)
                done += len(chunk)
                if self.on_pass is not None:
                    self.on_pass(done, total)
            noise = merged(predictions, latents)
            latents = self.scheduler.step(noise, timestep, latents).prev_sample
            if callback_on_step_end is not None:
                changed = callback_on_step_end(self, step, timestep, {"latents": latents})
                latents = changed.pop("latents", latents)
        if output_type == "latent":
            restored: Any = latents
        else:
            images = self._decode(latents)[:, :, :height, :width]
            images = _finish(images, enlarged, color_fix, wavelet_levels, as_released)
            restored = self.image_processor.postprocess(
                images, output_type, do_denormalize=[False] * len(images)
            )
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=restored) if return_dict else (restored,)

    def enable_vae_tiling(self, size: int = 1024) -> None:
        """Encode and decode images by overlapping tiles of `size` pixels, to save memory.

        The VAE is diffusers' own; the LQ encoder blends its tiles in the same way.
        """
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)  # of the convolutions
        self.vae.enable_tiling()
        self.vae.tile_latent_min_size = size // self._prior.factor
        self.vae.tile_sample_min_size = self.vae.tile_latent_min_size * factor
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

    def _pad(self, image: Tensor) -> Tensor:
        """Repeat the right and bottom border up to whole latent pixels."""
        down, right = (-side % self._prior.factor for side in image.shape[2:])
        return F.pad(image, (0, right, 0, down), mode="replicate")

    def _start(
        self,
        enlarged: Tensor,
        steps: int,
        start_point: str,
        start_timestep: int,
        generator: Generators,
        as_released: bool,
    ) -> tuple[Tensor, Tensor]:
        """The first latents ``(B, C, h, w)`` in float32, and the timesteps to visit, descending."""
        late = start_point == "lq" and not as_released
        timesteps = visited(self.scheduler, steps, start_timestep if late else None)
        moments = self._prior.encode_moments(enlarged.to(self.vae.dtype)).float()
        shape = moments[:1, ::2].shape
        generators = _one_for_each(
            "generator", [generator] if not isinstance(generator, Sequence) else generator,
            len(enlarged),
        )  # fmt: skip
        posterior, noise = (
            torch.cat([torch.randn(shape, generator=g) for g in generators]).to(moments)
            for _ in range(2)
        )
        if start_point == "noise":
            return noise * self.scheduler.init_noise_sigma, timesteps
        clean = self._prior.sample_latents(moments, posterior)
        if as_released:
            scaled = noise * self.scheduler.init_noise_sigma
            return add_noise_as_released(self._prior.scheduler, clean, scaled), timesteps
        return self.scheduler.add_noise(clean, noise, timesteps[:1]), timesteps

    def _prompts(self, captions: Sequence[str], negative: str, guidance_scale: float) -> Prompt:
        """Captions, preceded by as many negative prompts where guidance needs them."""
        wanted = [*captions]
        if guidance_scale != 1:
            wanted = [negative] * len(captions) + wanted
        rows = [self._encode_one(caption) for caption in wanted]
        return Prompt(*(torch.cat([getattr(r, key) for r in rows]) for key in ("hidden", "pooled")))

    def _encode(self, caption: str) -> Prompt:
        """Encode one caption; whatever is encoded beside it can so not change it."""
        return self._prior.encode_text([caption])

    def _predict(
        self,
        latents: Tensor,
        timestep: Tensor,
        chunk: list[Tile],
        *,
        features: Tensor,
        prompt: Prompt,
        size: tuple[int, int],
        guidance_scale: float,
        tile_size: int | None,
    ) -> tuple[Tensor, ...]:
        """Guided predictions ``(B, C, h, w)``, one for each tile of a chunk, in one UNet pass.

        Both halves of the guidance pair see the LQ features. `tile_size` is given where the time
        ids are those of the released code: corner in latent pixels, nominal tile as target.
        """
        images, dtype = len(latents), self.unet.dtype
        copies = len(prompt.hidden) // images
        noisy, seen = (
            torch.cat([tile.cut(tensor) for tile in chunk]) for tensor in (latents, features)
        )
        ids = torch.cat(
            [self._time_ids(tile, size, tile_size).expand(images, -1) for tile in chunk]
        )
        rows = torch.arange(len(prompt.hidden)).view(copies, 1, images)
        prediction = self._model(
            torch.cat([noisy] * copies).to(dtype),
            timestep.expand(copies * len(noisy)).to(noisy.device),
            torch.cat([seen] * copies),
            prompt[rows.expand(copies, len(chunk), images).flatten()],
            torch.cat([ids] * copies).to(noisy.device, dtype),
        ).float()
        if copies == 2:
            negative, positive = prediction.chunk(2)
            prediction = negative + guidance_scale * (positive - negative)
        return prediction.split(images)

    def _time_ids(self, tile: Tile, size: tuple[int, int], tile_size: int | None) -> Tensor:
        factor = self._prior.factor
        if tile_size is not None:
            return time_ids(size, torch.tensor([[tile.top, tile.left]]), (tile_size * factor,) * 2)
        corner = torch.tensor([[tile.top * factor, tile.left * factor]])
        return time_ids(size, corner, (tile.height * factor, tile.width * factor))

    def _decode(self, latents: Tensor) -> Tensor:
        """Images in about [-1, 1], float32."""
        return self._prior.decode(latents.to(self.vae.dtype)).float()


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


def _finish(
    images: Tensor, enlarged: Tensor, color_fix: str, levels: int, as_released: bool
) -> Tensor:
    """Fix the colours; from [-1, 1] to [0, 1]."""
    if not as_released:
        fixed = fix_colour(images, enlarged, color_fix, levels)
        return (fixed / 2 + 0.5).clamp(0, 1)
    # The released code fixes 8-bit images and cuts its result off to 8 bits, without rounding.
    whole = ((images / 2 + 0.5).clamp(0, 1) * 255).round() / 255
    if color_fix == "none":
        return whole
    fixed = fix_colour(whole, enlarged / 2 + 0.5, color_fix, levels).clamp(0, 1)
    return (fixed * 255).floor() / 255


def _one_for_each(name: str, given: Sequence[Any], count: int) -> list[Any]:
    if len(given) == 1:
        return [*given] * count
    if len(given) != count:
        raise ValueError(
            f"{name}: {len(given)} given for {count} images; give one, or one for each"
        )
    return [*given]
