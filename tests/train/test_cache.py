"""Batches from the encoded training set: what they hold and what decides them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from shared.training import cache_of, changed_training, digest_of_batch, training_job, training_of

from faithdiff.errors import CheckpointError
from faithdiff.methods.method import Study
from faithdiff.models.prior import load_prior
from faithdiff.study.provenance import folder_digest
from faithdiff.train import encode
from faithdiff.train.cache import Batch, Cache
from faithdiff.train.encode import Part
from faithdiff.train.prefetch import Prefetcher
from faithdiff.train.processes import Processes
from faithdiff.train.run import run_job


def test_a_batch_depends_on_its_key_alone(study: Study) -> None:
    prior = load_prior(study.layout.trained_prior)
    one, other = cache_of(study, prior), cache_of(study, prior)
    last = digest_of_batch(one.batch(0, 7, 1, master=5))
    assert digest_of_batch(other.batch(0, 7, 1, master=5)) == last
    keys = [((1, 7, 1), 5), ((0, 8, 1), 5), ((0, 7, 0), 5), ((0, 7, 1), 6)]
    others = {digest_of_batch(other.batch(*key, master=master)) for key, master in keys}
    assert len(others | {last}) == 5


def test_the_crops_of_a_batch_show_the_same_place(study: Study, tmp_path: Path) -> None:
    """A training set whose values are its coordinates gives itself away."""
    prior, scale, size, count = load_prior(study.layout.trained_prior), 4, 96, 3
    lq = torch.zeros(count, 3, size // scale, size // scale)
    lq[:, 0] = 8 * torch.arange(size // scale)[:, None]
    lq[:, 1] = 8 * torch.arange(size // scale)
    lq[:, 2] = 50 * torch.arange(count)[:, None, None]
    side, channels = size // prior.factor, prior.vae.config.latent_channels
    moments = torch.full((count, 2 * channels, side, side), -30.0)  # no variance
    moments[:, 0] = torch.arange(side)[:, None]
    moments[:, 1] = torch.arange(side)
    hq = lq.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    tensors = {"lq": lq.byte(), "hq": hq.byte(), "moments": moments}
    texts = {"hidden": torch.zeros(count + 1, 2, 4), "pooled": torch.zeros(count + 1, 4)}
    save_file(tensors | texts, tmp_path / "cache.safetensors")
    config = training_of(study, batch_size=16, micro_batch=16)
    cache = Cache(tmp_path / "cache.safetensors", prior, scale, config)
    batch = cache.batch(0, master=0)
    corner = batch.time_ids[:, 2:4]
    assert corner.unique(dim=0).shape[0] > 4
    hq_corner = (batch.hq[:, :2, 0, 0] + 1) * 127.5 / 8 * scale
    assert torch.allclose(hq_corner, corner, atol=1e-3)
    latents = batch.latents[:, :2, 0, 0] / prior.vae.config.scaling_factor * prior.factor
    assert torch.allclose(latents, corner, atol=1e-3)
    # Means, because bicubic enlargement bends the ramps near the border.
    difference = (batch.hq.mean((2, 3)) - batch.lq.mean((2, 3))) * 127.5
    assert difference.abs().max() < 0.5


@pytest.mark.parametrize("dropout", [0.0, 1.0])
def test_dropped_captions_are_the_empty_caption(study: Study, dropout: float) -> None:
    prior = load_prior(study.layout.trained_prior)
    prompt = cache_of(study, prior, text_dropout=dropout).batch(0, master=0).prompt
    empty = prior.encode_text([""]).pooled
    assert torch.allclose(prompt.pooled, empty, atol=1e-6) is (dropout == 1)


def test_a_set_larger_than_the_memory_is_read_by_row(study: Study, tmp_path: Path) -> None:
    """A file of 2 TB, all hole: only its head and the rows of a batch can be read."""
    prior, count, size = load_prior(study.layout.trained_prior), 10**6, 512
    width = study.profile.prior.text_encoder.width
    side, channels = size // prior.factor, 2 * prior.vae.config.latent_channels
    parts = {
        "lq": Part("U8", (count, 3, size // 4, size // 4)),
        "hq": Part("U8", (count, 3, size, size)),
        "moments": Part("F32", (count, channels, side, side)),
        "hidden": Part("F32", (count + 1, 8, width)),
        "pooled": Part("F32", (count + 1, width)),
    }
    file = tmp_path / "cache.safetensors"
    header = encode._header(parts)
    with file.open("wb") as stream:
        stream.write(header)
        stream.truncate(len(header) + sum(part.size for part in parts.values()))
    assert file.stat().st_size > 2e12
    cache = Cache(file, prior, 4, training_of(study))
    batch = cache.batch(0, 0, 0, master=0)
    assert (batch.hq == -1).all() and batch.latents.std() > 0


@pytest.mark.parametrize("processes", [Processes(), Processes(1, 2)])
def test_prefetched_batches_are_the_same(study: Study, processes: Processes) -> None:
    cache = cache_of(study, load_prior(study.layout.trained_prior))

    def draw(step: int, micro: int) -> Batch:
        return cache.draw(0, step, micro, master=1)

    prefetcher = Prefetcher(draw, 4, processes, 3, torch.device("cpu"))
    keys = [(step, micro) for step in (0, 1, 2) for micro in processes.mine(4)]
    for step, micro in [*keys, (0, 1), (7, 3), (7, 3)]:  # and jumps
        assert digest_of_batch(prefetcher(step, micro)) == digest_of_batch(draw(step, micro))
    assert len(prefetcher._ready) == 3


def test_a_training_with_prefetched_batches_has_the_same_bytes(study: Study) -> None:
    folder = study.layout.checkpoint("faithdiff", 0)
    before = folder_digest(folder)
    again = changed_training(study, prefetch=3)
    run_job(again, "faithdiff", 0, folder, training_job(again, "faithdiff"))
    assert folder_digest(folder) == before


def test_a_corrupted_cache_names_the_command_that_makes_it(study: Study) -> None:
    prior = load_prior(study.layout.trained_prior)
    file = study.layout.train_cache
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"cache\.safetensors: .* faithdiff cache"):
        cache_of(study, prior)
