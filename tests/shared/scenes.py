"""What procedural scenes are made for, as numbers."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

from faithdiff.data.scenes.render import Scene


def cubic_psnr(scenes: Iterable[Scene]) -> float:
    """Median PSNR, in dB, of scenes of 128 px that were reduced by four and enlarged again."""
    errors = []
    for scene in scenes:
        small = cv2.resize(scene.image, (32, 32), interpolation=cv2.INTER_AREA)
        back = cv2.resize(small, (128, 128), interpolation=cv2.INTER_CUBIC)
        errors.append(np.mean((back.astype(float) - scene.image) ** 2))
    return float(np.median(10 * np.log10(255**2 / np.array(errors))))
