"""DiffBIR (Lin et al., ECCV 2024), as its authors published it."""

from __future__ import annotations

from typing import Literal

from baselines.official.definition import KeptCommon
from baselines.official.kept import OfficialKept
from baselines.official.runner import Value
from faithdiff.methods.external.command import Task


class DiffBIRArguments(KeptCommon):
    """Arguments of ``inference.py``; restoration guidance does not exist at this commit."""

    version: Literal["v1", "v2", "v2.1"]
    sampler: str
    steps: int
    captioner: Literal["none", "llava"]
    pos_prompt: str
    neg_prompt: str
    cfg_scale: float
    noise_aug: int = 0
    strength: float = 1
    start_point_type: Literal["noise", "cond"] = "noise"
    precision: Literal["fp32", "fp16", "bf16"]
    cleaner_tiled: bool = False
    vae_encoder_tiled: bool = False
    vae_decoder_tiled: bool = False
    cldm_tiled: bool = False


class OfficialDiffBIR(OfficialKept):
    """Seeds once for a whole folder, so it is run anew for each image, with its models kept."""

    method = "diffbir"
    schema = DiffBIRArguments
    loaders = {"BSRInferenceLoop": "args"}  # noqa: RUF012 - the class of `--task sr`

    def inputs(self, task: Task) -> dict[str, Value]:
        return {
            "task": "sr",
            "input": task.lq,
            "output": task.out,
            "upscale": task.scale,
            "seed": self.seed(task),
            "device": "cuda",  # the script synchronises CUDA unconditionally
        }
