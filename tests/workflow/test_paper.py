"""The profile `paper` for a few steps: its own settings on a small base model in SDXL's layout.

Crops, batches and numbers of updates shrink, precision and processes are those of a CPU; everything
else is the published recipe: L1 on the noise, rates by group, GroupNorm, released attention,
noise offset, dropped captions, gradient checkpointing, both stages.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from shared import CONFIG
from shared.official_model import save_base_model

from faithdiff import cli
from faithdiff.errors import Paused
from faithdiff.models.official import read_state
from faithdiff.study import seeds

PAPER = Path("config/paper.yaml")
SMALL = {
    "crop": 64, "batch_size": 2, "micro_batch": 1, "stage1_steps": 2, "stage2_steps": 3,
    "precision": "fp32", "processes": 1, "shard_optimiser": False, "checkpoint_every": 1,
    "log_every": 1,
}  # fmt: skip


@pytest.fixture
def paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the profile, the base model and four training images; the current one."""
    shutil.copytree(CONFIG, tmp_path / "config")
    profile = yaml.safe_load((tmp_path / PAPER).read_text(encoding="utf-8"))
    profile["device"] = "cpu"
    profile["training"] |= SMALL
    profile["baselines"]["realesrgan"]["settings"]["crop"] = SMALL["crop"]
    profile["data"]["train"] = {"source": "folder", "path": "data/raw/train", "captions": "file"}
    (tmp_path / PAPER).write_text(yaml.safe_dump(profile), encoding="utf-8")
    save_base_model(tmp_path / profile["prior"]["path"])
    images = tmp_path / "data" / "raw" / "train"
    images.mkdir(parents=True)
    for number in range(4):
        small = seeds.numpy_rng(0, "paper", number).random((10, 10, 3))
        Image.fromarray((small * 255).astype(np.uint8)).resize((80, 80)).save(
            images / f"{number}.png"
        )
        (images / f"{number}.txt").write_text("a red house", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    cli.prepare("train", PAPER)
    cli.degrade("train", ["train"], PAPER)
    cli.cache(PAPER)
    cli.pretrain("released", config=PAPER)
    return tmp_path


@pytest.mark.slow
def test_a_few_published_updates_resume_and_export(paper: Path) -> None:
    trained = paper / "checkpoints" / "paper" / "faithdiff" / "seed0"
    cli.train("faithdiff", config=PAPER)
    cli.export(trained, paper / "whole.safetensors")
    losses = pd.read_csv(trained / "training.csv")["loss"]
    assert len(losses) == SMALL["stage2_steps"] and losses.between(0.1, 3).all()
    shutil.rmtree(trained)
    pauses = 0
    while not trained.is_dir():
        try:
            cli.train("faithdiff", config=PAPER, time_limit=0)
        except Paused:
            pauses += 1
    assert pauses >= 2
    cli.export(trained, paper / "parts.safetensors")
    whole, parts = (read_state(paper / f"{name}.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    start = read_state(next((paper / "weights" / "RealVisXL_V4.0" / "unet").glob("*.safetensors")))
    assert not torch.equal(whole["conv_in.weight"], start["conv_in.weight"])
