"""SeeSR (Wu et al., CVPR 2024), as its authors published it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from baselines.official.definition import KeptCommon
from baselines.official.kept import OfficialKept
from baselines.official.runner import Value
from faithdiff.methods.external.command import Task
from faithdiff.methods.external.results import images_in


class SeeSRArguments(KeptCommon):
    """Arguments of ``test_seesr.py``; its own tags are the prompt."""

    prompt: str
    added_prompt: str
    negative_prompt: str
    guidance_scale: float
    conditioning_scale: float
    num_inference_steps: int
    process_size: int
    latent_tiled_size: int
    latent_tiled_overlap: int
    vae_decoder_tiled_size: int
    vae_encoder_tiled_size: int
    align_method: Literal["wavelet", "adain", "nofix"]
    start_point: Literal["lr", "noise"]
    mixed_precision: Literal["no", "fp16", "bf16"]


class OfficialSeeSR(OfficialKept):
    """Seeds once for a whole folder, so it is run anew for each image, with its models kept."""

    method = "seesr"
    schema = SeeSRArguments
    loaders = {"load_seesr_pipeline": "", "load_tag_model": ""}  # noqa: RUF012

    def inputs(self, task: Task) -> dict[str, Value]:
        return {
            "pretrained_model_path": "preset/models/stable-diffusion-2-base",
            "seesr_model_path": "preset/models/seesr",
            "ram_ft_path": "preset/models/DAPE.pth",
            "image_path": task.lq,
            "output_dir": task.out,
            "upscale": task.scale,
            "seed": self.seed(task),
        }

    def found(self, task: Task) -> dict[str, Path]:
        # One folder per sample of an image, of which the study wants one.
        return images_in(task.out / "sample00", task.items)
