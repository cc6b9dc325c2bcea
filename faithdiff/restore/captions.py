"""Restoring by other captions than those of the test set: none, or those of another method.

What a caption is worth depends on who wrote it: a person who saw the clean picture, or a tagger
that saw the LQ image. Rows with ``sampling.captions`` tell the two apart on the same weights.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from faithdiff.config import Sampling
from faithdiff.methods.method import Restorer, Study
from faithdiff.restore.enlarge import enlarge

Captions = Callable[[Tensor, list[str]], list[str]]  # of LQ images in [0, 1] and known captions


def with_captions(
    study: Study, checkpoint: Path, sampling: Sampling, restorer: Restorer
) -> Restorer:
    """Let a restorer see the captions that ``sampling.captions`` asks for.

    Args:
        study: At the scale of the test set.
        checkpoint: Of the restorer; a method whose captions are taken has the same seed.
        sampling: ``none``, ``given`` (those of the test set), or a method.
        restorer: What restores.
    """
    if sampling.captions == "none":
        return Recaptioned(restorer, lambda _, known: [""] * len(known))
    if sampling.captioner is None:  # `given`: the sampler reads none off the image then
        return restorer
    other = checkpoint.parent.parent / sampling.captioner / checkpoint.name
    # By name: an import would make the code of every method part of what decides each of them.
    registry = importlib.import_module("faithdiff.methods.registry")
    model = registry.find_method(study, sampling.captioner).denoiser(study, other)

    def read_off(lq: Tensor, known: list[str]) -> list[str]:
        enlarged = enlarge(lq, study.profile.data.scale).to(study.profile.device)
        return model.captions(model.see(enlarged * 2 - 1), known)

    return Recaptioned(restorer, read_off)


class Recaptioned(Restorer):
    """A restorer that is given other captions than the test set has."""

    def __init__(self, restorer: Restorer, captions: Captions) -> None:
        self._restorer, self._captions = restorer, captions
        self.batch_size = restorer.batch_size

    def restore(self, lq: Tensor, captions: list[str], seeds: list[int]) -> Tensor:
        self._restorer.progress = self.progress
        return self._restorer.restore(lq, self._captions(lq, captions), seeds)

    def save_memory(self) -> str | None:
        return self._restorer.save_memory()
