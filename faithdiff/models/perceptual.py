"""The perceptual distance ST-LPIPS by pyiqa: with VGG it trains the small prior's VAE.

Scores and the prior's card are measured with AlexNet, another network with weights of its own. The
two are related all the same, as docs/prior.md says.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from faithdiff import compat
from faithdiff.data.artifacts import ARTIFACTS_FILE, check, lacking, load_artifacts
from faithdiff.errors import UserError

if TYPE_CHECKING:
    from pyiqa.archs.stlpips_arch import STLPIPS

Backbone = Literal["vgg", "alex"]
WEIGHTS: dict[Backbone, str] = {"vgg": "st-lpips-vgg", "alex": "st-lpips-alex"}  # artifacts


class PerceptualDistance:
    """ST-LPIPS of image pairs, with gradients for the images alone.

    Args:
        backbone: The network whose features are compared.
        weights: The folder of `faithdiff fetch`; the file lies inside an installed package.
        device: Where it computes.

    Raises:
        UserError: The weights are missing or corrupted.
    """

    def __init__(self, backbone: Backbone, weights: Path, device: str) -> None:
        network = _network(backbone, weights_file(backbone, weights))
        self._network = network.eval().requires_grad_(False).to(device)

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        """Distances ``(B,)`` of images ``(B, 3, H, W)`` in [-1, 1] from their targets."""
        distances: Tensor = self._network(images, targets, normalize=False)
        return distances.float().flatten()


def weights_file(backbone: Backbone, weights: Path) -> Path:
    """The file of a network's weights, once its checksum is right.

    Raises:
        UserError: It is missing or corrupted.
    """
    name = WEIGHTS[backbone]
    artifact = load_artifacts(ARTIFACTS_FILE)[name]
    state, _ = check(artifact, weights)
    if problem := lacking([(artifact, state)], f"faithdiff fetch --weights {name}"):
        raise UserError(f"{name}: {problem}")
    return artifact.file(weights)


def _network(backbone: Backbone, file: Path) -> STLPIPS:
    compat.patch()
    from pyiqa.archs.stlpips_arch import STLPIPS

    with contextlib.redirect_stdout(io.StringIO()):  # pyiqa prints each file it loads
        return STLPIPS(net=backbone, variant="shift_tolerant", pretrained_model_path=str(file))
