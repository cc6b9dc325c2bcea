"""Training: resumed equals uninterrupted, groups, shared data and stage 1, and failures."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from faithdiff import cli
from faithdiff.config import Optimiser, Profile, Stage1, Training, load_profile, parse
from faithdiff.data.images import read_image, sha256_file, write_png
from faithdiff.errors import CheckpointError, ConfigError, Paused, RunError, UserError
from faithdiff.methods.method import Study
from faithdiff.methods.registry import find_method
from faithdiff.models.alignment import Alignment, Standardise
from faithdiff.models.faithdiff import FaithDiff, build, load
from faithdiff.models.lq_encoder import LQEncoder
from faithdiff.models.prior import Prior, load_prior
from faithdiff.models.weights import load_part
from faithdiff.score.heldout import heldout_job
from faithdiff.study import seeds
from faithdiff.study.checksums import write_summed
from faithdiff.study.provenance import folder_digest
from faithdiff.train import encode, loop, variants
from faithdiff.train.cache import Batch, Cache, to_signed
from faithdiff.train.encode import Part
from faithdiff.train.engine import Trained
from faithdiff.train.loop import Job, rate, train
from faithdiff.train.pairs import PairFiles, find_pairs
from faithdiff.train.prefetch import Prefetcher
from faithdiff.train.processes import Processes
from faithdiff.train.run import run_job

PROFILE = Path("config/test.yaml")
OPTIMISER = Optimiser(
    betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, max_grad_norm=1.0, warmup=2, hold=0.5
)

# --- The loop -----------------------------------------------------------------------------------


def _toy_loss(model: nn.Module) -> Callable[[int, int], Tensor]:
    def loss(step: int, micro: int) -> Tensor:
        inputs = torch.randn(4, 3, generator=seeds.torch_generator(0, "toy", step, micro))
        return (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()

    return loss


def _toy(state: Path | None = None, **changes: Any) -> Job:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
    job = Job(
        name="toy",
        model=model,
        groups=[Trained.whole(model, 0.01)],
        loss=_toy_loss(model),
        steps=9,
        optimiser=OPTIMISER,
        micro_batches=2,
        ema_decay=0.9,
        state=state,
        identity="toy",
        log_every=2,
        checkpoint_every=3,
    )
    for name, value in changes.items():
        setattr(job, name, value)
    return job


def _killed_at(job: Job, step: int) -> Job:
    whole = job.loss

    def loss(now: int, micro: int) -> Tensor:
        if now == step:
            raise KeyboardInterrupt
        return whole(now, micro)

    job.loss = loss
    return job


def _same(one: nn.Module | None, other: nn.Module | None) -> bool:
    assert one is not None and other is not None
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize("kill", [1, 3, 5, 8])
def test_resumed_training_equals_uninterrupted_bit_for_bit(tmp_path: Path, kill: int) -> None:
    whole = _toy()
    averaged = train(whole)
    state = tmp_path / "state" / "toy.pt"
    with pytest.raises(KeyboardInterrupt):
        train(_killed_at(_toy(state), kill))
    assert state.is_file() == (kill >= 3)
    resumed, steps = _toy(state), []
    plain = resumed.loss
    resumed.loss = lambda step, micro: (steps.append(step), plain(step, micro))[1]
    again = train(resumed)
    assert steps[0] == kill // 3 * 3
    assert _same(resumed.model, whole.model) and _same(again, averaged)
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in resumed.log]
    assert rows == [{k: v for k, v in row.items() if k != "seconds"} for row in whole.log]
    assert [row["step"] for row in rows] == [1, 3, 5, 7, 8]


def test_log_holds_the_mean_loss_since_the_row_before() -> None:
    every, second = _toy(log_every=1), _toy()
    train(every)
    train(second)
    single = [row["loss"] for row in every.log]
    means = [sum(single[i : i + 2]) / len(single[i : i + 2]) for i in range(0, 9, 2)]
    assert [row["loss"] for row in second.log] == pytest.approx(means, rel=1e-12)


@pytest.mark.parametrize("corruption", ["identity", "cut", "empty"])
def test_a_state_that_does_not_fit_starts_afresh(
    tmp_path: Path, corruption: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, state = _toy(), tmp_path / "toy.pt"
    train(whole)
    with pytest.raises(KeyboardInterrupt):
        train(_killed_at(_toy(state, identity="other"), 5))
    if corruption != "identity":
        data = state.read_bytes()
        state.write_bytes(data[: len(data) // 2] if corruption == "cut" else b"")
    afresh = _toy(state)
    train(afresh)
    assert _same(afresh.model, whole.model)
    assert "starting afresh" in capsys.readouterr().out


def test_a_loss_that_is_not_finite_names_the_update_and_the_state(tmp_path: Path) -> None:
    state = tmp_path / "toy.pt"
    job = _toy(state)
    plain = job.loss
    job.loss = lambda step, micro: plain(step, micro) * (math.nan if step == 4 else 1)
    before = copy.deepcopy(job.model)
    with pytest.raises(RunError, match=rf"toy: the loss is nan at update 4; .*{state}") as caught:
        train(job)
    assert "learning rate" in str(caught.value)
    assert state.is_file() and not _same(before, job.model)
    assert all(p.isfinite().all() for p in job.model.parameters())
    # Mended, it goes on from the kept state and ends where an undisturbed run ends.
    mended, whole = _toy(state), _toy()
    train(mended)
    train(whole)
    assert _same(mended.model, whole.model)


def test_divergence_before_the_first_state_claims_none(tmp_path: Path) -> None:
    job = _toy(tmp_path / "toy.pt", loss=lambda *_: torch.tensor(math.inf, requires_grad=True))
    with pytest.raises(RunError, match="the loss is inf at update 0") as caught:
        train(job)
    assert "kept" not in str(caught.value)


def test_a_state_that_cannot_be_written_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object, file: Path) -> None:
        file.write_bytes(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file: No space left on device")

    monkeypatch.setattr(loop.torch, "save", full)
    with pytest.raises(RunError, match=r"toy\.pt: the training state cannot be written"):
        train(_toy(tmp_path / "toy.pt"))
    assert [file.name for file in tmp_path.iterdir()] == ["toy.csv"]  # its log


def test_micro_batches_add_up_to_the_whole_batch() -> None:
    inputs = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))

    def result(micro_batches: int) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = nn.Linear(3, 1)
        parts = inputs.chunk(micro_batches)
        job = _toy(model=model, groups=[Trained.whole(model, 0.01)])
        job.micro_batches, job.steps = micro_batches, 4
        job.loss = lambda _, micro: (model(parts[micro]) - 1).square().mean()
        train(job)
        return model

    whole, split = result(1), result(4)
    for one, other in zip(whole.parameters(), split.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_averaged_weights_follow_their_recursion() -> None:
    job = _toy(optimiser=OPTIMISER.model_copy(update={"warmup": 0}))
    seen: list[Tensor] = []
    plain = job.loss

    def loss(step: int, micro: int) -> Tensor:
        if micro == 0 and step > 0:
            seen.append(job.model[0].weight.detach().clone())
        return plain(step, micro)

    job.loss = loss
    averaged = train(job)
    seen.append(job.model[0].weight.detach().clone())
    expected = seen[0]
    for weight in seen[1:]:
        expected = 0.9 * expected + 0.1 * weight
    assert averaged is not None and len(seen) == job.steps
    assert torch.allclose(averaged[0].weight, expected, atol=1e-6)
    assert train(_toy(ema_decay=None)) is None


# --- Precision and memory -----------------------------------------------------------------------


def _wide(precision: Any, **changes: Any) -> Job:
    """A toy whose passes a lower precision changes, on inputs that fp16 can hold."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 32), nn.SiLU(), nn.Linear(32, 1))
    groups = [Trained.whole(model, 0.01)]
    changes = {"model": model, "groups": groups, "loss": _toy_loss(model), **changes}
    return _toy(**changes, precision=precision, log_every=1, steps=30)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_trains_float32_weights(precision: str) -> None:
    exact, low = _wide("fp32"), _wide(precision)
    train(exact)
    train(low)
    assert all(p.dtype == torch.float32 for p in low.model.parameters())
    curves = [torch.tensor([row["loss"] for row in job.log]) for job in (exact, low)]
    assert not torch.equal(*curves)
    if precision == "bf16":  # fp16 leaves out the updates that find its loss scale
        assert torch.allclose(*curves, rtol=0.1, atol=0.02)
    assert curves[1][-5:].mean() < 0.5 * curves[1][:5].mean()


def test_fp16_resumes_with_its_loss_scale(tmp_path: Path) -> None:
    whole, state = _wide("fp16"), tmp_path / "toy.pt"
    train(whole)
    with pytest.raises(KeyboardInterrupt):
        train(_killed_at(_wide("fp16", state=state), 7))
    resumed = _wide("fp16", state=state)
    train(resumed)
    assert _same(resumed.model, whole.model)


def test_fp16_that_overflows_for_good_names_bf16() -> None:
    job = _wide("fp16")
    plain = job.loss
    job.loss = lambda step, micro: plain(step, micro).float() * 1e37  # no scale above 1 will do
    before = copy.deepcopy(job.model)
    with pytest.raises(RunError, match=r"overflow at any loss scale at update \d+\. .*to bf16"):
        train(job)
    assert _same(before, job.model)


def test_gradient_checkpointing_changes_nothing(study: Study) -> None:
    folder = study.layout.checkpoint("faithdiff", 0)
    before = folder_digest(folder)
    again = _changed(study, gradient_checkpointing=True)
    calls: list[int] = []
    plain = LQEncoder.enable_gradient_checkpointing
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            LQEncoder, "enable_gradient_checkpointing", lambda self: (calls.append(1), plain(self))
        )
        run_job(again, "faithdiff", 0, folder, _train(again, "faithdiff"))
    assert calls == [1] and folder_digest(folder) == before


def test_gradient_checkpointing_keeps_fewer_activations(study: Study) -> None:
    kept = {}
    for checkpointing in (False, True):
        changed = _changed(study, gradient_checkpointing=checkpointing)
        start = variants._start(changed, "released", 0)
        start.model.requires_grad_(True)
        sizes: list[int] = []
        pack = lambda t, sizes=sizes: (sizes.append(t.numel()), t)[1]  # noqa: E731
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            batch = start.cache.batch(0, master=0)
            variants.denoising_loss(start.model, start.cache, batch, "mse")
        kept[checkpointing] = sum(sizes)
    assert kept[True] < 0.7 * kept[False]


@settings(deadline=None, max_examples=50)
@given(steps=st.integers(1, 300), warmup=st.integers(0, 50), hold=st.floats(0, 1))
def test_the_rate_rises_holds_and_falls(steps: int, warmup: int, hold: float) -> None:
    optimiser = OPTIMISER.model_copy(update={"warmup": warmup, "hold": hold})
    job = _toy(steps=steps, optimiser=optimiser)
    rates = [rate(step, job) for step in range(steps)]
    assert all(0 < r <= 1 for r in rates)
    top = min(warmup, steps - 1)
    assert all(a < b for a, b in pairwise(rates[: top + 1]))
    assert all(a >= b for a, b in pairwise(rates[top:]))


# --- Batches ------------------------------------------------------------------------------------


def _digest(*tensors: Tensor) -> str:
    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(tensor.detach().contiguous().numpy().tobytes())
    return sha.hexdigest()


def _digest_batch(batch: Batch) -> str:
    prompt = batch.prompt
    # Without its HQ pixels, which are read only for a training that looks at them; the latents show
    # the same crops.
    parts = (batch.lq, batch.latents, batch.noise, batch.timesteps, batch.time_ids)
    return _digest(*parts, prompt.hidden, prompt.pooled)


def _training(study: Study, **changes: Any) -> Training:
    return parse({**study.profile.training.model_dump(), **changes}, Training, "training")


def _changed(study: Study, **training: Any) -> Study:
    profile = study.profile.model_copy(update={"training": _training(study, **training)})
    return Study(profile, study.file, study.layout)


def _cache(study: Study, prior: Prior, **changes: Any) -> Cache:
    training = _training(study, **changes)
    return Cache(study.layout.train_cache, prior, study.profile.data.scale, training)


def test_a_batch_depends_on_its_key_alone(study: Study) -> None:
    prior = load_prior(study.layout.trained_prior)
    one, other = _cache(study, prior), _cache(study, prior)
    last = _digest_batch(one.batch(0, 7, 1, master=5))
    assert _digest_batch(other.batch(0, 7, 1, master=5)) == last
    keys = [((1, 7, 1), 5), ((0, 8, 1), 5), ((0, 7, 0), 5), ((0, 7, 1), 6)]
    others = {_digest_batch(other.batch(*key, master=master)) for key, master in keys}
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
    config = _training(study, batch_size=16, micro_batch=16)
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
    prompt = _cache(study, prior, text_dropout=dropout).batch(0, master=0).prompt
    empty = prior.encode_text([""]).pooled
    assert torch.allclose(prompt.pooled, empty, atol=1e-6) is (dropout == 1)


def test_the_cache_holds_what_the_prior_computes(study: Study) -> None:
    prior = load_prior(study.layout.trained_prior)
    found = find_pairs(study.layout, study.profile.data.train_level)
    pairs = found.read(0, len(found))
    batch = _cache(study, prior, crop=96, text_dropout=0).batch(0, master=0)
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
    cache = Cache(file, prior, 4, _training(study))
    batch = cache.batch(0, 0, 0, master=0)
    assert (batch.hq == -1).all() and batch.latents.std() > 0


@pytest.mark.parametrize("processes", [Processes(), Processes(1, 2)])
def test_prefetched_batches_are_the_same(study: Study, processes: Processes) -> None:
    cache = _cache(study, load_prior(study.layout.trained_prior))

    def draw(step: int, micro: int) -> Batch:
        return cache.draw(0, step, micro, master=1)

    prefetcher = Prefetcher(draw, 4, processes, 3, torch.device("cpu"))
    keys = [(step, micro) for step in (0, 1, 2) for micro in processes.mine(4)]
    for step, micro in [*keys, (0, 1), (7, 3), (7, 3)]:  # and jumps
        assert _digest_batch(prefetcher(step, micro)) == _digest_batch(draw(step, micro))
    assert len(prefetcher._ready) == 3


def test_a_training_with_prefetched_batches_has_the_same_bytes(study: Study) -> None:
    folder = study.layout.checkpoint("faithdiff", 0)
    before = folder_digest(folder)
    again = _changed(study, prefetch=3)
    run_job(again, "faithdiff", 0, folder, _train(again, "faithdiff"))
    assert folder_digest(folder) == before


def test_a_corrupted_cache_names_the_command_that_makes_it(study: Study) -> None:
    prior = load_prior(study.layout.trained_prior)
    file = study.layout.train_cache
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"cache\.safetensors: .* faithdiff cache"):
        _cache(study, prior)


# --- Variants -----------------------------------------------------------------------------------


@dataclass
class Record:
    """What happened in the stage 2 of one variant."""

    batches: list[str] = field(default_factory=list)
    alignment: dict[str, Tensor] = field(default_factory=dict)  # before the first denoising step


def _small(study: Study) -> Study:
    """All variants of the default profile in the study of the tests, with two updates each."""
    every = load_profile(Path("config/mini.yaml"))
    training = _training(study, stage1_steps=2, stage2_steps=2, batch_size=2, micro_batch=2)
    changes = {"variants": every.variants, "recipes": every.recipes, "training": training}
    return Study(study.profile.model_copy(update=changes), study.file, study.layout)


@pytest.fixture(scope="module")
def everything(
    built: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Study, dict[str, Record]]:
    """Every variant trained for two updates: folder, study, and what each saw."""
    root = tmp_path_factory.mktemp("variants") / "study"
    shutil.copytree(built, root, ignore=shutil.ignore_patterns("seed0"))
    records: dict[str, Record] = {}
    plain = variants.denoising_loss
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        study = _small(Study.load(PROFILE))
        for recipe in study.profile.recipes:
            folder = study.layout.stage1(recipe, 0)
            run_job(study, f"stage1-{recipe}", 0, folder, _pretrain(study, recipe))
        for name in study.profile.variants:
            record = records[name] = Record()

            def loss(
                model: FaithDiff, cache: Cache, batch: Batch, kind: str, record: Record = record
            ) -> Tensor:
                if not record.batches:
                    record.alignment = copy.deepcopy(model.alignment.state_dict())
                record.batches.append(_digest_batch(batch))
                return plain(model, cache, batch, kind)

            patch.setattr(variants, "denoising_loss", loss)
            run_job(study, name, 0, study.layout.checkpoint(name, 0), _train(study, name))
    return root, study, records


def _train(study: Study, name: str, seed: int = 0) -> Callable[[Path, Path], None]:
    method = find_method(study, name)
    return lambda folder, state: method.train(study, seed, folder, state)


def _pretrain(study: Study, recipe: str, seed: int = 0) -> Callable[[Path, Path], None]:
    return lambda folder, state: variants.pretrain(study, recipe, seed, folder, state)


def test_each_variant_changes_the_groups_it_trains_and_no_other(
    everything: tuple[Path, Study, dict[str, Record]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, study, records = everything
    monkeypatch.chdir(root)
    prior = load_prior(study.layout.trained_prior)
    for name, variant in study.profile.variants.items():
        recipe = study.profile.recipes[variant.recipe]
        model = load(study.layout.checkpoint(name, 0))
        start = {
            "lq_encoder": LQEncoder.from_vae(prior.vae, recipe.features).state_dict(),
            "alignment": records[name].alignment,
            "unet": prior.unet.state_dict(),
        }
        trained = {group for phase in variant.phases for group in phase.train}
        for group, before in start.items():
            after = model.group(group).state_dict()
            same = [torch.equal(after[key], before[key]) for key in before]
            assert after.keys() == before.keys()
            assert all(same) is (group not in trained), (name, group)


def test_every_variant_of_a_seed_sees_the_same_data(
    everything: tuple[Path, Study, dict[str, Record]],
) -> None:
    _, study, records = everything
    order = records["no-pretrain"].batches  # all of its updates denoise
    assert len(set(order)) == len(order) == study.profile.updates_of("no-pretrain") == 4
    for name, record in records.items():
        assert record.batches == order[-len(record.batches) :], name


def test_variants_of_a_recipe_share_stage_1(
    everything: tuple[Path, Study, dict[str, Record]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, study, records = everything
    monkeypatch.chdir(root)
    for name, variant in study.profile.variants.items():
        stage1 = load_part(Alignment, study.layout.stage1(variant.recipe, 0) / "alignment")
        started = records[name].alignment
        same = all(torch.equal(started[k], v) for k, v in stage1.state_dict().items())
        assert same is variant.pretrain, name
        # The projection starts at zero, so what moved it is stage 1.
        assert started["project.weight"].any().item() is variant.pretrain


def test_stage_1_trains_the_alignment_of_a_fresh_model(
    everything: tuple[Path, Study, dict[str, Record]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, study, _ = everything
    monkeypatch.chdir(root)
    folder = study.layout.stage1("released", 0)
    assert {path.name for path in folder.iterdir()} == {"alignment", "run.json", "training.csv"}
    log = pd.read_csv(folder / "training.csv")
    assert list(log.columns) == ["phase", "step", "loss", "learning_rate", "seconds"]
    assert list(log["step"]) == [0, 1]


def test_a_variant_logs_every_phase(
    everything: tuple[Path, Study, dict[str, Record]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, study, _ = everything
    monkeypatch.chdir(root)
    log = pd.read_csv(study.layout.checkpoint("separate", 0) / "training.csv")
    assert list(log["phase"].unique()) == ["separate lq_encoder", "separate alignment+unet"]
    assert log["loss"].between(0, 100).all()


def test_no_two_variants_are_the_same_model(
    everything: tuple[Path, Study, dict[str, Record]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, study, _ = everything
    monkeypatch.chdir(root)
    names = list(study.profile.variants)
    assert len({folder_digest(study.layout.checkpoint(name, 0)) for name in names}) == len(names)


def test_the_start_depends_on_recipe_and_seed_alone(study: Study) -> None:
    study = _small(study)
    before = torch.get_rng_state()

    def start(recipe: str, seed: int) -> str:
        return _digest(*variants._start(study, recipe, seed).model.alignment.state_dict().values())

    assert start("released", 0) == start("released", 0)
    assert len({start("released", 0), start("released", 1), start("spatial", 0)}) == 3
    assert torch.equal(torch.get_rng_state(), before)


def test_features_are_standardised_on_the_training_set(study: Study) -> None:
    start = variants._start(study, "released", 0)
    model, cache = start.model, start.cache
    norm = model.alignment.condition.norm_in
    assert isinstance(norm, Standardise)
    features = norm(model.lq_encoder(cache.lq_sample(12)))
    assert features.mean((0, 2, 3)).abs().max() < 1e-3
    assert features.std((0, 2, 3)).max() < 1.001


def test_a_repeated_training_gives_the_same_bytes(study: Study) -> None:
    folder = study.layout.checkpoint("faithdiff", 0)
    before = folder_digest(folder)
    shutil.rmtree(folder)
    cli.train("faithdiff", config=PROFILE)
    assert folder_digest(folder) == before


def test_a_killed_variant_resumes_in_its_second_phase(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = study.layout.checkpoint("separate", 0)
    profile = yaml.safe_load(PROFILE.read_text())
    profile["training"]["checkpoint_every"] = 1
    PROFILE.write_text(yaml.safe_dump(profile))
    cli.train("separate", config=PROFILE)
    whole = folder_digest(folder)
    shutil.rmtree(folder)
    plain, calls = variants.denoising_loss, []

    def loss(model: FaithDiff, cache: Cache, batch: Batch, kind: str) -> Tensor:
        calls.append(len(calls))
        if len(calls) == 3:  # two for each update: the state after the first is there
            raise KeyboardInterrupt
        return plain(model, cache, batch, kind)

    monkeypatch.setattr(variants, "denoising_loss", loss)
    with pytest.raises(KeyboardInterrupt):
        cli.train("separate", config=PROFILE)
    assert not folder.exists()
    calls[:] = [0] * 10
    cli.train("separate", config=PROFILE)
    assert len(calls) == 12  # update 2
    assert folder_digest(folder) == whole
    assert not study.layout.work("separate-seed0").exists()


@pytest.mark.parametrize("method", ["separate", "realesrgan"])
def test_a_training_in_pieces_ends_with_the_same_bytes(study: Study, method: str) -> None:
    cli.train(method, config=PROFILE)
    folder = study.layout.checkpoint(method, 0)
    whole, log = folder_digest(folder), pd.read_csv(folder / "training.csv")
    shutil.rmtree(folder)
    # The last update of a phase is followed by no pause.
    for _ in range(len(log) - log["phase"].nunique()):
        with pytest.raises(Paused, match=r"paused after update \d of \d \(time limit\)") as caught:
            cli.train(method, config=PROFILE, time_limit=0)
        assert caught.value.exit_code == 75
        assert caught.value.state.is_file()
        assert not folder.exists()
    cli.train(method, config=PROFILE)
    assert folder_digest(folder) == whole
    again = pd.read_csv(folder / "training.csv")
    assert again.drop(columns="seconds").equals(log.drop(columns="seconds"))


def test_stage_1_and_the_prior_pause_too(study: Study) -> None:
    for folder, call in (
        (study.layout.stage1("released", 0), partial(cli.pretrain, "released", config=PROFILE)),
        (study.layout.trained_prior, partial(cli.train_prior, config=PROFILE)),
    ):
        before = folder_digest(folder)
        shutil.rmtree(folder)
        with pytest.raises(Paused, match="paused after update 1 of"):
            call(time_limit=0)
        call(time_limit=1000)
        assert folder_digest(folder) == before


def test_a_frozen_group_that_moves_is_an_error(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = _small(study)
    plain = variants.denoising_loss

    def loss(model: FaithDiff, cache: Cache, batch: Batch, kind: str) -> Tensor:
        with torch.no_grad():
            model.unet.conv_in.bias.add_(1e-6)
        return plain(model, cache, batch, kind)

    monkeypatch.setattr(variants, "denoising_loss", loss)
    with pytest.raises(RunError, match="the frozen group unet changed"):
        run_job(study, "frozen", 0, study.layout.checkpoint("frozen", 0), _train(study, "frozen"))
    assert not study.layout.checkpoint("frozen", 0).exists()


def test_a_stage_1_of_another_recipe_is_refused(study: Study) -> None:
    small = _small(study)
    shutil.copytree(small.layout.stage1("released", 0), small.layout.stage1("concat", 0))
    with pytest.raises(CheckpointError, match="is not the alignment of recipe concat"):
        run_job(small, "concat", 0, small.layout.checkpoint("concat", 0), _train(small, "concat"))
    with pytest.raises(CheckpointError, match=r"stage1-moments.* --recipe moments --seed 0"):
        _train(small, "features-8ch")(Path("out"), Path("state"))


def test_a_crop_off_the_grid_is_refused(study: Study) -> None:
    with pytest.raises(ConfigError, match=r"training\.crop 30 is not a multiple"):
        _cache(study, load_prior(study.layout.trained_prior), crop=30)


# --- Validation images --------------------------------------------------------------------------


def test_validation_images_change_nothing_and_stay_with_the_checkpoint(study: Study) -> None:
    folder = study.layout.checkpoint("faithdiff", 0)
    before = folder_digest(folder)
    again = _changed(study, validation_every=2)
    run_job(again, "faithdiff", 0, folder, _train(again, "faithdiff"))
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
    again = _changed(study, validation_every=2)
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
    again = _changed(study, validation_every=2)
    with pytest.raises(UserError, match=r"Photos.*faithdiff prepare --dataset Photos .*every to 0"):
        run_job(again, "faithdiff", 0, study.layout.checkpoint("f", 0), _train(again, "faithdiff"))


# --- Jobs ---------------------------------------------------------------------------------------


def test_a_checkpoint_appears_whole_or_not_at_all(study: Study) -> None:
    folder = study.layout.checkpoint("toy", 3)

    def disk_full(out: Path, state: Path) -> None:
        (out / "weights").write_text("half")
        (state / "phase1.pt").write_text("state")
        raise OSError(28, "No space left on device")

    with pytest.raises(RunError, match=r"toy/seed3: training stopped: .*No space left"):
        run_job(study, "toy", 3, folder, disk_full)
    assert not folder.exists()
    assert (study.layout.work("toy-seed3") / "phase1.pt").is_file()

    def finish(out: Path, _: Path) -> None:
        (out / "weights").write_text("all")

    run_job(study, "toy", 3, folder, finish)
    assert {path.name for path in folder.iterdir()} == {"weights", "run.json"}
    assert (folder / "weights").read_text() == "all"
    assert not study.layout.work("toy-seed3").exists()


def test_a_checkpoint_knows_the_profile_that_made_it(study: Study) -> None:
    text = (study.layout.checkpoint("faithdiff", 0) / "run.json").read_text()
    made = json.loads(text)
    assert (made["method"], made["seed"]) == ("faithdiff", 0)
    assert parse(made["profile"], Profile, "run.json") == study.profile
    assert made["packages"]["torch"] and made["hardware"]["cores"]


def test_the_held_out_loss_is_the_same_when_measured_again(study: Study) -> None:
    file = study.layout.restored("faithdiff", 0) / "heldout.csv"
    heldout_job(study, find_method(study, "faithdiff"), "faithdiff", 0)
    first = file.read_bytes()
    heldout_job(study, find_method(study, "faithdiff"), "faithdiff", 0)
    assert file.read_bytes() == first
    table = pd.read_csv(file)
    # One image of each set, at the two timesteps that the sampler visits and the one of the curve.
    wide = table.pivot(index=["dataset", "image"], columns="metric", values="value")
    assert wide.shape == (2, 4) and wide.gt(0).all(axis=None)
    visited = wide[["heldout_loss@249", "heldout_loss@499"]].mean(axis=1)
    assert np.allclose(wide["heldout_loss"], visited)


def test_an_untrained_model_has_the_loss_of_its_prior(study: Study) -> None:
    prior = load_prior(study.layout.trained_prior)
    recipe = Stage1(features="penultimate", alignment="transformer", attention="released")
    cache = _cache(study, prior)
    batch = cache.batch(0, master=0)
    noisy = cache.scheduler.add_noise(batch.latents, batch.noise, batch.timesteps)
    target = cache.scheduler.get_velocity(batch.latents, batch.noise, batch.timesteps)
    conditions = {"text_embeds": batch.prompt.pooled, "time_ids": batch.time_ids}
    bare = prior.unet(noisy, batch.timesteps, batch.prompt.hidden, added_cond_kwargs=conditions)
    expected = {
        "mse": (bare.sample - target).square().mean(),
        "l1": (bare.sample - target).abs().mean(),
    }
    model = build(prior, recipe, study.profile.alignment)
    for kind, value in expected.items():
        assert torch.allclose(variants.denoising_loss(model, cache, batch, kind), value)
