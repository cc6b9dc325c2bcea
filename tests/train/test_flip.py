"""Mirrored crops: image, latents and caption of one crop belong together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from faithdiff.config import Training, load_profile, parse
from faithdiff.data.images import write_png
from faithdiff.errors import CheckpointError
from faithdiff.models.prior import Prior, load_prior
from faithdiff.train.cache import Cache, to_signed
from faithdiff.train.encode import write_cache
from faithdiff.train.pairs import PairFiles, mirror, mirrored

SCALE, SIZE, COUNT = 4, 96, 3


@pytest.fixture(scope="module")
def prior() -> Prior:
    return load_prior(Path(__file__).parents[2] / "prior" / "mini")


def _settings(**changes: Any) -> Training:
    known = load_profile(Path("config/mini.yaml")).training.model_dump()
    return parse(
        {**known, "crop": 32, "micro_batch": 16, "batch_size": 16, **changes}, Training, ""
    )


def _coordinates(prior: Prior, file: Path) -> Path:
    """An encoded set whose pixels and latents rise from left to right, and fall in the mirror."""
    lq = torch.zeros(COUNT, 3, SIZE // SCALE, SIZE // SCALE)
    lq[:, 0] = 8 * torch.arange(SIZE // SCALE)
    lq[:, 1] = 50 * torch.arange(COUNT)[:, None, None]
    side, channels = SIZE // prior.factor, prior.vae.config.latent_channels
    moments = torch.full((COUNT, 2 * channels, side, side), -30.0)  # no variance
    moments[:, 0] = torch.arange(side)
    moments[:, 1] = torch.arange(COUNT)[:, None, None]
    save_file(
        {
            "lq": lq.byte(),
            "hq": lq.repeat_interleave(SCALE, 2).repeat_interleave(SCALE, 3).byte(),
            "moments": moments,
            "mirrored": moments.flip(-1).contiguous(),
            "hidden": torch.arange(COUNT + 1.0)[:, None, None].expand(-1, 2, 4).contiguous(),
            "pooled": torch.zeros(COUNT + 1, 4),
        },
        file,
    )
    return file


def _rises(images: Tensor) -> Tensor:
    return images[:, 0, :, -1].mean(1) > images[:, 0, :, 0].mean(1)


def test_pixels_latents_and_caption_are_of_the_same_crop(prior: Prior, tmp_path: Path) -> None:
    file = _coordinates(prior, tmp_path / "train.safetensors")
    batch = Cache(file, prior, SCALE, _settings(flip=True, text_dropout=0)).draw(0, master=5)
    plain = ~mirrored(True, 16, 5, 0)
    assert 0 < plain.sum() < 16
    for images in (batch.hq, batch.lq, batch.latents):
        assert torch.equal(_rises(images), plain)
    # The place: mean column of the pixels and of the latents, in LQ pixels.
    latents = batch.latents / prior.vae.config.scaling_factor
    seen = (batch.hq[:, 0].mean((1, 2)) + 1) * 127.5 / 8
    there = (latents[:, 0].mean((1, 2)) + 0.5) * prior.factor / SCALE - 0.5
    assert torch.allclose(seen, there, atol=1e-3)
    picture = ((batch.hq[:, 1].mean((1, 2)) + 1) * 127.5 / 50).round()
    assert torch.equal(picture, batch.prompt.hidden[:, 0, 0])
    assert torch.allclose(latents[:, 1].mean((1, 2)), picture, atol=1e-3)


def test_no_other_draw_depends_on_it(prior: Prior, tmp_path: Path) -> None:
    file = _coordinates(prior, tmp_path / "train.safetensors")
    off, on = (Cache(file, prior, SCALE, _settings(flip=f)).draw(0, 3, master=5) for f in (0, 1))
    chosen = mirrored(True, 16, 5, 0, 3)
    assert torch.equal(mirror(off.hq, chosen), on.hq)
    for name in ("noise", "timesteps", "time_ids"):
        assert torch.equal(getattr(off, name), getattr(on, name))
    assert torch.equal(off.prompt.hidden, on.prompt.hidden)
    others = [mirrored(True, 16, 5, 0, 4), mirrored(True, 16, 6, 0, 3)]
    assert not any(torch.equal(chosen, other) for other in others)


def test_mirrored_images_are_encoded_and_not_their_latents_mirrored(
    prior: Prior, tmp_path: Path
) -> None:
    rng, hq = np.random.default_rng(0), []
    for number in range(2):
        hq.append(tmp_path / "hq" / f"{number}.png")
        write_png(rng.integers(0, 256, (32, 32, 3), np.uint8), hq[-1])
    pairs = PairFiles(hq, hq, ["a", "b"], "two", {}, {})
    file = tmp_path / "train.safetensors"
    write_cache(pairs, prior, file)
    assert "mirrored" not in load_file(file)
    with pytest.raises(CheckpointError, match="latents of mirrored images"):
        Cache(file, prior, SCALE, _settings(flip=True))
    write_cache(pairs, prior, file, flip=True)
    found = load_file(file)
    wanted = prior.encode_moments(to_signed(found["hq"]).flip(-1))
    assert torch.allclose(found["mirrored"], wanted, atol=1e-5)
    assert not torch.allclose(found["mirrored"], found["moments"].flip(-1), atol=1e-2)


def test_the_published_profile_mirrors_and_the_miniature_does_not() -> None:
    assert load_profile(Path("config/paper.yaml")).training.flip
    assert not load_profile(Path("config/mini.yaml")).training.flip
