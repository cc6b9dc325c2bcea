"""Captions are cached in the precision of the passes; HQ pixels are read where they are needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from shared import ROOT

from faithdiff.config import Training, load_profile, parse
from faithdiff.data.images import write_png
from faithdiff.models.prior import Prior, load_prior
from faithdiff.models.repeatable import allow_tf32
from faithdiff.train.cache import Cache, _Mapped
from faithdiff.train.encode import write_cache
from faithdiff.train.pairs import PairFiles


@pytest.fixture(scope="module")
def prior() -> Prior:
    return load_prior(ROOT / "prior" / "mini")


@pytest.fixture
def pairs(tmp_path: Path) -> PairFiles:
    files: dict[int, list[Path]] = {32: [], 8: []}
    for size, made in files.items():
        for number in range(2):
            made.append(tmp_path / f"{size}-{number}.png")
            pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), np.uint8)
            write_png(pixels, made[-1])
    return PairFiles(files[32], files[8], ["a boat", "a house"], "", {}, {})


def _settings(**changes: Any) -> Training:
    known = load_profile(Path("config/mini.yaml")).training.model_dump()
    small = {"crop": 32, "micro_batch": 2, "batch_size": 2, "text_dropout": 0}
    return parse({**known, **small, **changes}, Training, "training")


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_captions_are_cached_as_the_passes_read_them(
    prior: Prior, pairs: PairFiles, tmp_path: Path, precision: str, dtype: torch.dtype
) -> None:
    file = tmp_path / "train.safetensors"
    write_cache(pairs, prior, file, precision=precision)
    batch = Cache(file, prior, 4, _settings(precision=precision)).draw(0, master=1)
    assert batch.prompt.hidden.dtype == batch.prompt.pooled.dtype == dtype
    with torch.no_grad():
        known = prior.encode_text(pairs.captions).pooled.to(dtype)
    for pooled in batch.prompt.pooled:
        assert min((pooled - one).abs().max() for one in known) == 0
    stored = load_file(file)
    save_file(stored, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == file.read_bytes()
    prompt = batch.prompt
    condition = {"text_embeds": prompt.pooled, "time_ids": batch.time_ids}
    with torch.no_grad(), torch.autocast("cpu", dtype, enabled=precision != "fp32"):
        prior.unet(batch.latents, batch.timesteps, prompt.hidden, added_cond_kwargs=condition)


def test_hq_pixels_are_not_read_where_only_latents_are_learnt_from(
    prior: Prior, pairs: PairFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "train.safetensors"
    write_cache(pairs, prior, file)
    whole = Cache(file, prior, 4, _settings()).draw(0, master=1)
    cache = Cache(file, prior, 4, _settings(), hq=False)
    read: list[_Mapped] = []
    row = _Mapped._row
    monkeypatch.setattr(_Mapped, "_row", lambda self, n: (read.append(self), row(self, n))[1])
    lean = cache.draw(0, master=1)
    assert lean.hq.numel() == 0 and cache._tensors["hq"] not in read
    for name in ("lq", "latents", "noise", "timesteps", "time_ids"):
        assert torch.equal(getattr(lean, name), getattr(whole, name))
    assert replace(lean, hq=whole.hq).to(torch.device("cpu")).hq is whole.hq


def test_tf32_is_of_gpus_alone() -> None:
    profile = load_profile(Path("config/paper.yaml"))
    assert profile.training.tf32 and not load_profile(Path("config/mini.yaml")).training.tf32
    switches = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [switch.allow_tf32 for switch in switches]
    try:
        for switch in switches:
            switch.allow_tf32 = False
        allow_tf32(profile.model_copy(update={"device": "cpu"}))
        assert not any(switch.allow_tf32 for switch in switches)
        allow_tf32(profile)
        assert all(switch.allow_tf32 for switch in switches)
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value
