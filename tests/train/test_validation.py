"""Validation images of a training."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from shared.training import changed_training, training_job
from torch import Tensor, nn

from faithdiff.data.images import read_image
from faithdiff.errors import UserError
from faithdiff.methods.method import Study
from faithdiff.study.provenance import folder_digest
from faithdiff.train import variants
from faithdiff.train.run import run_job


def test_validation_images_change_nothing_and_stay_with_the_checkpoint(study: Study) -> None:
    folder = study.layout.checkpoint("faithdiff", 0)
    before = folder_digest(folder)
    again = changed_training(study, validation_every=2)
    run_job(again, "faithdiff", 0, folder, training_job(again, "faithdiff"))
    assert folder_digest(folder) == before
    pictures = sorted((folder / "validation").iterdir())
    ends = [path.name.rsplit("-", 1)[1] for path in pictures]
    assert ends == ["000002.png", "000004.png"]
    one, other = (read_image(path) for path in pictures)
    assert one.shape == other.shape and (one != other).any()
    assert one.std() > 10


def test_validation_leaves_no_tiles_in_the_model_that_is_trained(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = changed_training(study, validation_every=2)
    tiled = again.profile.restore.model_copy(update={"vae_tile": 16, "compile": True})
    again = replace(again, profile=again.profile.model_copy(update={"restore": tiled}))
    training = variants._start(again, "released", 0)
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", compiled.append)
    lq = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    drawn: list[Tensor] = []
    monkeypatch.setattr(
        variants, "draw_grid", lambda _, by, *__: drawn.append(by.restore(lq, ["a"], [1]))
    )
    variants._validation(training, "faithdiff")(2, None, Path("validation"))
    assert drawn and not compiled and training.model.lq_encoder._tile is None


def test_validation_without_its_images_is_refused_before_the_training(study: Study) -> None:
    shutil.rmtree(study.layout.dataset("Photos"))
    again = changed_training(study, validation_every=2)
    with pytest.raises(UserError, match=r"Photos.*faithdiff prepare --dataset Photos .*every to 0"):
        run_job(
            again, "faithdiff", 0, study.layout.checkpoint("f", 0), training_job(again, "faithdiff")
        )
