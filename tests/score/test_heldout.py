"""The held-out loss: one UNet in the profile's precision, and only where losses are compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from diffusers import UNet2DConditionModel
from shared import ROOT

from faithdiff.config import Profile, Variant, load_profile
from faithdiff.methods.method import Study
from faithdiff.methods.registry import find_method
from faithdiff.planning.workload import jobs_of
from faithdiff.score.collect import score_files
from faithdiff.score.heldout import heldout_job
from faithdiff.study.layout import Layout


def _precise(study: Study, precision: str) -> Study:
    restore = study.profile.restore.model_copy(update={"precision": precision})
    profile = study.profile.model_copy(update={"restore": restore})
    return Study(profile, study.file, study.layout)


def _losses(study: Study) -> pd.DataFrame:
    heldout_job(study, find_method(study, "faithdiff"), "faithdiff", 0)
    return pd.read_csv(study.layout.restored("faithdiff", 0) / "heldout.csv")


def test_one_unet_is_loaded_in_the_precision_of_the_profile(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _losses(study)
    loaded: list[torch.dtype | None] = []
    read = UNet2DConditionModel.from_pretrained.__func__

    def counted(cls: type, *args: Any, **options: Any) -> Any:
        loaded.append(options.get("torch_dtype"))
        return read(cls, *args, **options)

    monkeypatch.setattr(UNet2DConditionModel, "from_pretrained", classmethod(counted))
    half = _losses(_precise(study, "bf16"))
    assert len(loaded) == 1
    assert half["value"].to_numpy() == pytest.approx(whole["value"].to_numpy(), rel=0.05)
    assert (half["value"] != whole["value"]).all()
    assert set(half["protocol_sha256"]) != set(whole["protocol_sha256"])


def _imported(profile: Profile, *names: str) -> Profile:
    """The profile with these variants alone, from weights of others."""
    chosen = {
        name: Variant.model_validate(
            {**profile.variants["faithdiff"].model_dump(), "weights": Path(f"{name}.bin")}
        )
        for name in names
    }
    return profile.model_copy(update={"variants": chosen})


def test_it_is_measured_where_there_is_something_to_compare() -> None:
    released = load_profile(ROOT / "config/released.yaml")
    assert released.denoisers == ["faithdiff"] and released.compared == []
    assert _imported(released, "faithdiff", "mine").compared == ["faithdiff", "mine"]
    for name in ("mini", "paper"):
        profile = load_profile(ROOT / f"config/{name}.yaml")
        assert profile.compared == profile.denoisers


def test_no_job_and_no_table_waits_for_a_loss_that_is_not_measured() -> None:
    study = Study.load(Path("config/released.yaml"))
    rules = {job.rule for job in jobs_of(study)}
    assert "restore_denoiser" not in rules
    files = score_files(study.profile, Layout(study.profile.profile))
    assert "heldout.csv" not in {file.name for file in files}
    assert any("faithdiff" in file.parts for file in files)
