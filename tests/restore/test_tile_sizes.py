"""Tiles that are chosen by the size of an image and the memory there is; images that do not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from faithdiff.config import Restore, parse
from faithdiff.errors import ConfigError
from faithdiff.methods.method import Study
from faithdiff.methods.registry import find_method
from faithdiff.models.faithdiff import load
from faithdiff.models.prior import load_prior
from faithdiff.restore import run
from faithdiff.restore.faithdiff_restorer import FaithDiffRestorer
from faithdiff.restore.memory import restore_in_memory
from faithdiff.restore.tile_sizes import TileChooser, Tiles, free_memory

CPU = torch.device("cpu")
GB = 10**9
AUTO: dict[str, Any] = dict.fromkeys(("tile", "tile_stride", "tile_batch", "vae_tile"), "auto")
FP16 = {"dtype": torch.float16, "device": CPU}
SDXL: Any = SimpleNamespace(
    factor=8,
    vae=SimpleNamespace(config=SimpleNamespace(block_out_channels=(128, 256, 512, 512)), **FP16),
    unet=SimpleNamespace(
        config=SimpleNamespace(sample_size=128, block_out_channels=(320, 640, 1280)), **FP16
    ),
)


def _config(study: Study, **changes: Any) -> Restore:
    return parse({**study.profile.restore.model_dump(), **changes}, Restore, "restore")


def _chooser(study: Study, free: float, **changes: Any) -> TileChooser:
    return TileChooser(_config(study, **{**AUTO, **changes}), SDXL, lambda _: int(free))


def test_tiles_follow_the_size_of_the_image_and_the_memory(study: Study) -> None:
    large, small = _chooser(study, 60 * GB), _chooser(study, 6 * GB)
    # Whole where it fits: 2.1 GB for each million pixels, of half of the free memory.
    assert large.choose(2048, 2048, 1, CPU) == Tiles(0, 128, 64, 16)
    assert large.choose(4320, 7680, 1, CPU).vae == 2048
    assert small.choose(1024, 1024, 1, CPU) == Tiles(0, 128, 64, 4)
    assert small.choose(2048, 2048, 1, CPU).vae == 1024
    assert small.choose(1024, 1024, 4, CPU).vae == 512  # four images at once share the memory
    # With next to nothing the smallest tiles are tried.
    assert _chooser(study, 1e6).choose(2048, 2048, 1, CPU) == Tiles(256, 32, 16, 1)


def test_numbers_of_the_profile_stay_as_they_are(study: Study) -> None:
    fixed = {"vae_tile": 0, "tile": 96, "tile_stride": 40, "tile_batch": 3}
    chooser = _chooser(study, 0, **fixed)
    assert chooser.choose(8000, 8000, 1, CPU) == Tiles(0, 96, 40, 3)
    assert chooser.smaller() == "tiles in one UNet pass: 1 at most"  # at the same result
    assert chooser.choose(8000, 8000, 1, CPU) == Tiles(0, 96, 40, 1)
    assert chooser.smaller() is None


def test_where_the_estimate_was_too_high_less_is_taken(study: Study) -> None:
    chooser = _chooser(study, 1000 * GB, tile_batch=1)
    said = []
    while True:
        tiles = chooser.choose(3000, 2000, 1, CPU)
        less = chooser.smaller()
        if less is None:
            break
        said.append(less)
    assert tiles == Tiles(256, 32, 16, 1)
    assert said[0] == "tiles of 2048 px in the VAE" and len(said) == 4 + 2


def test_no_fewer_tiles_are_tried_than_there_are(study: Study) -> None:
    chooser = _chooser(study, 60 * GB)
    assert chooser.choose(1000, 1024, 1, CPU) == Tiles(0, 128, 64, 16)  # one tile is all of it
    assert chooser.smaller() == "tiles of 512 px in the VAE"
    chooser.choose(1000, 1500, 1, CPU)
    assert chooser.smaller() == "tiles in one UNet pass: 1 at most"  # of two


def test_free_memory_is_told() -> None:
    assert 10**6 < free_memory(CPU) < 10**14


@pytest.mark.parametrize("setting", ["tile", "tile_batch", "vae_tile"])
def test_what_is_neither_a_number_nor_auto_is_refused(study: Study, setting: str) -> None:
    with pytest.raises(ConfigError, match=rf"^restore: {setting}: must be .*integer, not 'big'$"):
        _config(study, **{setting: "big"})
    with pytest.raises(ConfigError, match=r"tile and tile_stride must both be"):
        _config(study, tile="auto")


def test_auto_restores_as_whole_images_where_they_fit(study: Study) -> None:
    lq = torch.rand(1, 3, 12, 10, generator=torch.Generator().manual_seed(0))
    restored = []
    for changes in ({"tile": 64, "tile_stride": 32}, AUTO, {"vae_tile": 32}):
        model = load(study.layout.checkpoint("faithdiff", 0))
        prior = load_prior(study.layout.trained_prior, unet=model.unet)
        prior.unet.register_to_config(sample_size=64)
        restorer = FaithDiffRestorer(model, prior, _config(study, **changes), 4)
        restored.append(restorer.restore(lq, ["a"], [1]))
    assert torch.equal(restored[0], restored[1])
    assert not torch.equal(restored[0], restored[2])


Restored = Callable[[FaithDiffRestorer, Tensor, list[str], list[int]], Tensor]


def _cramped(monkeypatch: pytest.MonkeyPatch, refuses: Callable[[list[int]], bool]) -> None:
    restore: Restored = FaithDiffRestorer.restore

    def cramped(
        self: FaithDiffRestorer, lq: Tensor, captions: list[str], seeds: list[int]
    ) -> Tensor:
        if refuses(seeds):
            torch.empty(2**60, dtype=torch.uint8)  # what the CPU says when memory ends
        return restore(self, lq, captions, seeds)

    monkeypatch.setattr(FaithDiffRestorer, "restore", cramped)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_an_image_that_does_not_fit_fails_alone(
    study: Study, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"restore": _config(study, batch_size=batch_size, steps=2)}
    study = Study(study.profile.model_copy(update=changes), study.file, study.layout)
    level = study.profile.data.levels[0]
    profile, name = study.profile, next(iter(study.profile.data.test))
    first = sorted(run.captions_of(study, name, level))[0]
    too_large = run.seeds.seed(profile.seed, "restore", name, level, first, 0)
    _cramped(monkeypatch, lambda seeds: too_large in seeds)
    run.restore_job(study, find_method(study, "faithdiff"), "faithdiff", 0)
    file = study.layout.restoration("faithdiff", 0, name, level) / "manifest.json"
    manifest = json.loads(file.read_text())
    failed = {image for image, entry in manifest["images"].items() if "failed" in entry}
    assert failed == {first} and len(manifest["images"]) > 1
    assert "not enough memory for one LQ image" in manifest["images"][first]["failed"]
    assert manifest["made"] == len(manifest["images"]) - 1


def test_another_error_is_not_taken_for_a_lack_of_memory(study: Study) -> None:
    restorer = SimpleNamespace(batch_size=1, restore=lambda *_: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        restore_in_memory(restorer, torch.rand(1, 3, 4, 4), ["a"], [1], "set")  # type: ignore[arg-type]
