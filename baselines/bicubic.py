"""Bicubic interpolation: the floor of every comparison, with nothing to train.

Keys' kernel with a = -0.5, as Pillow and MATLAB's ``imresize`` (the bicubic of the literature).
"""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from faithdiff.config import Section, parse
from faithdiff.methods.method import Method, Restorer, Study
from faithdiff.study.plain import Json


class BicubicSettings(Section):
    """Bicubic interpolation has no settings."""


class Bicubic(Method):
    """Enlarges by bicubic interpolation and clips to [0, 1].

    Raises:
        ConfigError: `settings` is not empty.
    """

    def __init__(self, settings: dict[str, Json], where: str) -> None:
        parse(settings, BicubicSettings, where)

    def load(self, study: Study, folder: Path) -> Restorer:
        return _Bicubic(study.profile.data.scale)

    def settings(self, study: Study) -> dict[str, Json]:
        return {"kernel": "keys", "a": -0.5}


class _Bicubic(Restorer):
    batch_size = 16

    def __init__(self, scale: int) -> None:
        self.scale = scale

    def restore(self, lq: Tensor, captions: list[str], seeds: list[int]) -> Tensor:
        # `antialias` low-passes nothing when enlarging; it selects a = -0.5 in place of torch's
        # own -0.75, which no published bicubic row was made with.
        size = (self.scale * lq.shape[-2], self.scale * lq.shape[-1])
        enlarged = F.interpolate(lq, size, mode="bicubic", align_corners=False, antialias=True)
        return enlarged.clamp(0, 1)
