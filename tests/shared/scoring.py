"""Pictures and metrics for tests of scores."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyiqa.archs import clip_model

from faithdiff import compat  # before torchvision, which pyiqa imports
from faithdiff.data.artifacts import Artifact, load_artifacts
from faithdiff.data.images import sha256_file, write_png
from faithdiff.score.metrics import Metric, prepare_all
from faithdiff.score.protocols import MetricDefinition, choose, load_protocols
from faithdiff.score.scorer import Pair, Scorer
from shared import CONFIG

compat.patch()
PROTOCOLS = load_protocols(CONFIG / "protocols.yaml")
ARTIFACTS = load_artifacts(CONFIG / "artifacts.yaml")
BOTH = ["faithdiff-repo", "ycbcr"]


def picture(seed: int, size: int = 48) -> np.ndarray:
    """A smooth random picture, so that similarity indices lie well inside their range."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.random((1, 3, size // 8, size // 8)))
    fine = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")
    return (fine[0].permute(1, 2, 0).clamp(0, 1).numpy() * 255).round().astype(np.uint8)


def noisy(image: np.ndarray, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 12, image.shape)
    return (image + noise).clip(0, 255).round().astype(np.uint8)


def pair(folder: Path, restored: np.ndarray, hq: np.ndarray) -> Pair:
    write_png(restored, folder / "restored.png")
    write_png(hq, folder / "hq.png")
    return Pair(folder / "restored.png", folder / "hq.png")


def prepared(
    metrics: list[str],
    weights: Path = Path("nowhere"),
    artifacts: Mapping[str, Artifact] = ARTIFACTS,
) -> dict[tuple[str, str], Metric]:
    return prepare_all(choose(PROTOCOLS, BOTH, metrics), weights, artifacts)


def score_one(definition: MetricDefinition, images: Pair) -> tuple[str, str]:
    metrics = prepare_all({("p", "m"): definition}, Path("nowhere"), ARTIFACTS)
    return Scorer(metrics, Path("nowhere")).score(images)["p", "m"]


def save(weights: Any, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(weights, file)


def as_found(weights: Path) -> dict[str, Artifact]:
    """The shipped list, with the hashes of the (random) files that lie in `weights`."""

    def own(item: Artifact) -> Artifact:
        file = item.file(weights)
        update = {"sha256": sha256_file(file), "sha256_prefix": None} if file.exists() else {}
        return item.model_copy(update=update)

    return {name: own(item) for name, item in ARTIFACTS.items()}


def small_clip(patch: int | None) -> clip_model.CLIP:
    """A tiny CLIP with random weights, a ViT (given its patch) or a ResNet."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = clip_model.CLIP(
            embed_dim=64,
            image_resolution=4 * patch if patch else 64,
            vision_layers=1 if patch else (1, 1, 1, 1),
            vision_width=64 if patch else 16,
            vision_patch_size=patch,
            context_length=77,
            vocab_size=49408,
            transformer_width=64,
            transformer_heads=1,
            transformer_layers=1,
        )
    return model.eval()


def save_archive(model: clip_model.CLIP, file: Path) -> None:
    """Save as the published CLIPs are: a TorchScript archive."""
    side = model.visual.input_resolution
    text = torch.zeros(1, 77, dtype=torch.long)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and what CLIP was published as
        archive = torch.jit.trace(model, (torch.zeros(1, 3, side, side), text), check_trace=False)
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.jit.save(archive, file)


def put_clip(weights: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Artifact]:
    """Put random CLIPs where pyiqa looks for the real ones; its own hash check stays on."""
    for name, key, patch in (("clip-rn50", "RN50", None), ("clip-vit-l14", "ViT-L/14", 14)):
        file = ARTIFACTS[name].file(weights)
        save_archive(small_clip(patch), file)
        address = f"https://example.invalid/{sha256_file(file)}/{file.name}"
        monkeypatch.setitem(clip_model._MODELS, key, address)
    noise = torch.Generator().manual_seed(1)
    prompts = {
        f"prompt_learner.{name}": torch.randn(2, length, 64, generator=noise)
        for name, length in (("ctx", 16), ("token_prefix", 1), ("token_suffix", 60))
    }
    save(prompts["prompt_learner.ctx"], ARTIFACTS["clipiqa-plus-prompts"].file(weights))
    save({"params": prompts}, ARTIFACTS["clipiqa-plus-vit-l14-512"].file(weights))
    return as_found(weights)
