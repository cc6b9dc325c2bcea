"""The perceptual distance that trains the small prior's VAE: ST-LPIPS with VGG, by pyiqa.

Scores are measured with ST-LPIPS on AlexNet, another network with weights of its own. The two are
related all the same, and the prior's card says so.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from faithdiff import compat
from faithdiff.data.artifacts import ARTIFACTS_FILE, check, lacking, load_artifacts
from faithdiff.errors import UserError

if TYPE_CHECKING:
    from pyiqa.archs.stlpips_arch import STLPIPS

WEIGHTS = "st-lpips-vgg"  # in config/artifacts.yaml


class PerceptualDistance:
    """ST-LPIPS (VGG) of image pairs, with gradients for the images alone.

    Args:
        weights: The folder of `faithdiff fetch`; the file lies inside an installed package.
        device: Where it computes.

    Raises:
        UserError: The weights are missing or corrupted.
    """

    def __init__(self, weights: Path, device: str) -> None:
        artifact = load_artifacts(ARTIFACTS_FILE)[WEIGHTS]
        state, _ = check(artifact, weights)
        if problem := lacking([(artifact, state)], f"faithdiff fetch --weights {WEIGHTS}"):
            raise UserError(f"prior.training.vae.perceptual: {problem}")
        network = _network(artifact.file(weights))
        self._network = network.eval().requires_grad_(False).to(device)

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        """Distances ``(B,)`` of images ``(B, 3, H, W)`` in [-1, 1] from their targets."""
        distances: Tensor = self._network(images, targets, normalize=False)
        return distances.float().flatten()


def _network(file: Path) -> STLPIPS:
    compat.patch()
    from pyiqa.archs.stlpips_arch import STLPIPS

    with contextlib.redirect_stdout(io.StringIO()):  # pyiqa prints each file it loads
        return STLPIPS(net="vgg", variant="shift_tolerant", pretrained_model_path=str(file))
