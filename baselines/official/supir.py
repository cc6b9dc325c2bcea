"""SUPIR (Yu et al., CVPR 2024), as its authors published it. Non-commercial: opt-in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from baselines.official.definition import OWN, Common
from baselines.official.runner import Official, Value
from faithdiff.config import Unit
from faithdiff.errors import RunError
from faithdiff.methods.external.command import Task
from faithdiff.methods.external.results import images_in
from faithdiff.methods.method import Study
from faithdiff.study.plain import Json

OPTIONS, PATHS = "options/SUPIR_v0.yaml", "CKPT_PTH.py"
SUFFIX = "_0"  # the script numbers its samples


class SUPIRArguments(Common):
    """Arguments of ``test.py``, and where captions come from.

    `captions`: given passes each caption of the study before the added prompt, where the script
    itself puts LLaVA's; none leaves it empty; llava lets the script ask, which is not seeded.
    """

    captions: Literal["given", "none", "llava"]
    llava: Path | None = None  # folder of liuhaotian/llava-v1.5-13b
    llava_clip: Path | None = None  # folder of openai/clip-vit-large-patch14-336
    SUPIR_sign: Literal["F", "Q"]
    min_size: int
    edm_steps: int
    s_stage1: int
    s_stage2: float
    s_churn: int
    s_noise: float
    s_cfg: float
    spt_linear_CFG: float  # noqa: N815 - the script's own name
    a_prompt: str
    n_prompt: str
    color_fix_type: Literal["None", "AdaIn", "Wavelet"]
    ae_dtype: Literal["fp32", "bf16"]
    diff_dtype: Literal["fp32", "fp16", "bf16"]
    loading_half_params: bool = False
    use_tile_vae: bool = False


class OfficialSUPIR(Official):
    """Seeds every image alike, so images are independent; their captions are arguments."""

    method = "supir"
    schema = SUPIRArguments
    chosen: SUPIRArguments

    def inputs(self, task: Task) -> dict[str, Value]:
        return {
            "img_dir": task.lq,
            "save_dir": task.out,
            "upscale": task.scale,
            "seed": self.seed(task),
            "no_llava": self.chosen.captions != "llava",
            "a_prompt": self._caption(task) + self.chosen.a_prompt,
        }

    def _caption(self, task: Task) -> str:
        return task.items[0].caption if self.chosen.captions == "given" else ""

    def fixed(self) -> dict[str, Value]:
        kept = self.chosen.model_dump(exclude=set(OWN))
        own = ("captions", "llava", "llava_clip", "a_prompt")
        return {key: value for key, value in kept.items() if key not in own}

    def settings(self, study: Study) -> dict[str, Json]:
        prompts = {"captions": self.chosen.captions, "a_prompt": self.chosen.a_prompt}
        return {**super().settings(study), **prompts}

    def per_default(self) -> Unit:
        return "image" if self.chosen.captions == "given" else self.definition.per

    def more_needs(self) -> list[str]:
        if self.chosen.captions == "given" and self.per != "image":
            return [f"{self.where}.per: {self.per} cannot go with captions: given; remove it"]
        if self.chosen.captions != "llava":
            return []
        wanted = {"llava": self.chosen.llava, "llava_clip": self.chosen.llava_clip}
        return [
            f"{self.where}.{key}: give its folder, for captions: llava"
            for key, folder in wanted.items()
            if folder is None or not folder.is_dir()
        ]

    def configure(self, folder: Path) -> None:
        """The script reads the places of its weights from two files; both have its author's."""
        self.checkout.pristine(OPTIONS, PATHS)
        here = folder / "weights"
        _set(folder / OPTIONS, "SDXL_CKPT", f"{here}/sd_xl_base_1.0_0.9vae.safetensors", ": ")
        _set(folder / OPTIONS, "SUPIR_CKPT_F", f"{here}/SUPIR-v0F.ckpt", ": ")
        _set(folder / OPTIONS, "SUPIR_CKPT_Q", f"{here}/SUPIR-v0Q.ckpt", ": ")
        clips = {
            "SDXL_CLIP1_PATH": here / "clip-vit-large-patch14",
            "SDXL_CLIP2_CKPT_PTH": here / "open_clip_pytorch_model.bin",
            "LLAVA_MODEL_PATH": self.chosen.llava,
            "LLAVA_CLIP_PATH": self.chosen.llava_clip,
        }
        for name, path in clips.items():
            _set(folder / PATHS, name, repr(str(path.absolute())) if path else "None", " = ")

    def found(self, task: Task) -> dict[str, Path]:
        outputs = images_in(task.out, []).items()
        return {name.removesuffix(SUFFIX): file for name, file in outputs}


def _set(file: Path, name: str, value: str, between: str) -> None:
    """Give a variable of a file another value; it must be there exactly once."""
    text, count = re.subn(
        rf"^{name}\s*[:=].*$",
        lambda _: f"{name}{between}{value}",
        file.read_text(encoding="utf-8"),
        flags=re.MULTILINE,
    )
    if count != 1:
        raise RunError(f"{file}: has {count} lines that set {name}, not 1: another version?")
    file.write_text(text, encoding="utf-8")
