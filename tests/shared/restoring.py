"""A restorer of the small study, for tests of sampling and of pictures."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from faithdiff.config import Restore, parse
from faithdiff.methods.method import Study
from faithdiff.models.faithdiff import load
from faithdiff.models.prior import load_prior
from faithdiff.restore.faithdiff_restorer import FaithDiffRestorer

SCALE = 4


def random_lq(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def make_restorer(study: Study, **changes: Any) -> FaithDiffRestorer:
    config = parse({**study.profile.restore.model_dump(), **changes}, Restore, "restore")
    model = load(study.layout.checkpoint("faithdiff", 0))
    return FaithDiffRestorer(model, load_prior(study.layout.trained_prior), config, SCALE)
