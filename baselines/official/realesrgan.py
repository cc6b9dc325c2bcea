"""Real-ESRGAN (Wang et al., ICCVW 2021), as its authors published it: their script, or in process.

`Inside` runs the published weights in basicsr's RRDBNet, without the authors' repository: the same
network, on a CPU as well. Larger images are cut into tiles of our own size, and a scale other than
4 is reached by bicubic resizing where the script has Lanczos.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from baselines.official.definition import Common
from baselines.official.runner import Official, Value
from baselines.realesrgan_published import ARCHITECTURE, Published
from faithdiff.data.artifacts import ARTIFACTS_FILE, load_artifacts, quick_state
from faithdiff.errors import CheckpointError
from faithdiff.methods.external.command import Task
from faithdiff.methods.method import Study
from faithdiff.study.plain import Json

if TYPE_CHECKING:
    from basicsr.archs.rrdbnet_arch import RRDBNet
    from torch import Tensor

ARTIFACT = "realesrgan-x4plus"
MISSING = "is missing; get it with: faithdiff fetch --profile released"


class RealESRGANArguments(Common):
    """Arguments of ``inference_realesrgan.py``."""

    model_name: Literal["RealESRGAN_x4plus"]
    tile: int
    tile_pad: int
    pre_pad: int
    fp32: bool


class OfficialRealESRGAN(Official):
    """Has no randomness; on a GPU without memory it skips an image and still ends with 0."""

    method = "realesrgan"
    schema = RealESRGANArguments

    def inputs(self, task: Task) -> dict[str, Value]:
        return {
            "input": task.lq,
            "output": task.out,
            "outscale": task.scale,
            "model_path": "weights/RealESRGAN_x4plus.pth",
            "suffix": "",  # outputs keep the names of their inputs
            "ext": "png",
        }

    def configure(self, folder: Path) -> None:
        # Its setup.py would write this file, which the package imports.
        version = "__version__ = '0.3.0'\n__gitsha__ = 'unknown'\nversion_info = (0, 3, 0)\n"
        (folder / "realesrgan" / "version.py").write_text(version, encoding="utf-8")


class Inside(Published):
    """The published ``.pth`` in this process."""

    def needs(self, study: Study) -> list[str]:
        file = load_artifacts(ARTIFACTS_FILE)[ARTIFACT].file(study.profile.score.weights)
        return [] if file.is_file() else [f"{file}: {MISSING}"]

    def settings(self, study: Study) -> dict[str, Json]:
        artifact = load_artifacts(ARTIFACTS_FILE)[ARTIFACT]
        return {
            "architecture": ARCHITECTURE,
            "weights": {ARTIFACT: quick_state(artifact, study.profile.score.weights)},
        }

    def weights(self, study: Study, network: RRDBNet) -> dict[str, Tensor]:
        """Read ``RealESRGAN_x4plus.pth``."""
        file = load_artifacts(ARTIFACTS_FILE)[ARTIFACT].file(study.profile.score.weights)
        return read_pth(file, network)


def read_pth(file: Path, network: RRDBNet) -> dict[str, Tensor]:
    """Read an RRDBNet from the authors' format, the averaged weights where there are such.

    Raises:
        CheckpointError: The file is missing or corrupted, or belongs to another network.
    """
    from faithdiff.models.state import read_state, what_holds

    if not file.is_file():
        raise CheckpointError(f"{file}: {MISSING}")
    weights = read_state(file)
    wanted = network.state_dict()
    for key in sorted(wanted.keys() | weights.keys()):
        have, want = (tuple(d[key].shape) if key in d else None for d in (weights, wanted))
        if have != want:
            what = what_holds(weights)
            like = f" (it looks like {what})" if what and "conv_first.weight" not in weights else ""
            raise CheckpointError(f"{file}: {key}: shape {have} found, {want} expected{like}")
    return weights
