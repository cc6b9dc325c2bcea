"""The encoded training set: what is in it, and how a killed encoding goes on."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from shared.training import PROFILE, cache_of

from faithdiff import cli
from faithdiff.data.images import read_image, sha256_file, write_png
from faithdiff.errors import UserError
from faithdiff.methods.method import Study
from faithdiff.models.prior import load_prior
from faithdiff.study.checksums import write_summed
from faithdiff.train import encode
from faithdiff.train.cache import to_signed
from faithdiff.train.pairs import PairFiles, find_pairs


def test_the_cache_holds_what_the_prior_computes(study: Study) -> None:
    prior = load_prior(study.layout.trained_prior)
    found = find_pairs(study.layout, study.profile.data.train_level)
    pairs = found.read(0, len(found))
    batch = cache_of(study, prior, crop=96, text_dropout=0).batch(0, master=0)
    rows = [int((to_signed(pairs.hq) == image).flatten(1).all(1).nonzero()) for image in batch.hq]
    captions = prior.encode_text([pairs.captions[row] for row in rows])
    assert torch.allclose(batch.prompt.hidden, captions.hidden, atol=1e-5)
    mean = prior.encode_moments(batch.hq).chunk(2, dim=1)[0] * prior.vae.config.scaling_factor
    # Latents are drawn around the mean: they correlate with it as with nothing else.
    assert torch.corrcoef(torch.stack([mean.flatten(), batch.latents.flatten()]))[0, 1] > 0.9


def test_the_cache_file_is_what_safetensors_would_write(study: Study, tmp_path: Path) -> None:
    file = study.layout.train_cache
    save_file(load_file(file), tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == file.read_bytes()


@pytest.mark.parametrize("dies_at", [1, 3, 4])
def test_a_killed_encoding_goes_on_where_it_was(
    study: Study, monkeypatch: pytest.MonkeyPatch, dies_at: int
) -> None:
    file = study.layout.train_cache
    whole = file.read_bytes()
    monkeypatch.setattr(encode, "IMAGES", 4)
    monkeypatch.setattr(encode, "CAPTIONS", 5)
    monkeypatch.setattr(encode, "SAVED_EVERY", 2)
    cli.cache(PROFILE)
    in_small_chunks = file.read_bytes()
    assert len(in_small_chunks) == len(whole)
    file.unlink()
    plain, calls = PairFiles.read, []

    def read(self: PairFiles, start: int, stop: int) -> Any:
        calls.append(start)
        if len(calls) == dies_at + 1:  # the first call looks at the shapes
            raise KeyboardInterrupt
        return plain(self, start, stop)

    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(PairFiles, "read", read)
        cli.cache(PROFILE)
    assert file.exists() is (dies_at == 4)  # three chunks of images
    calls.clear()
    with monkeypatch.context() as patch:
        patch.setattr(PairFiles, "read", lambda *args: (calls.append(args[1]), plain(*args))[1])
        cli.cache(PROFILE)
    assert calls[1:] == ([8] if dies_at == 3 else [0, 4, 8])
    assert file.read_bytes() == in_small_chunks
    assert {path.name for path in file.parent.glob("cache*")} == {file.name, "cache.sums"}


def test_an_encoding_of_other_images_starts_afresh(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = study.layout.train_cache
    whole = file.read_bytes()
    file.with_suffix(".partial").write_bytes(b"x" * len(whole))
    progress = {"of": "another set", "done": 2}
    file.with_suffix(".progress.json").write_text(json.dumps(progress))
    file.unlink()
    cli.cache(PROFILE)
    assert file.read_bytes() == whole


def test_images_of_two_sizes_are_refused(study: Study) -> None:
    folder = study.layout.dataset("train")
    image = sorted((folder / "hq").glob("*.png"))[-1]
    before = sha256_file(image)
    write_png(read_image(image)[:48, :48], image)
    index = (folder / "index.csv").read_text("utf-8")
    write_summed(index.replace(before, sha256_file(image)), folder / "index.csv")
    with pytest.raises(UserError, match="must have one size"):
        cli.cache(PROFILE)
    assert not study.layout.train_cache.with_suffix(".progress.json").exists()
