"""Training: resumed equals uninterrupted, groups, shared data and stage 1, and failures."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from shared.training import PROFILE, cache_of, digest_of, digest_of_batch, training_job, training_of
from torch import Tensor

from faithdiff import cli
from faithdiff.config import Profile, Stage1, load_profile, parse
from faithdiff.errors import CheckpointError, ConfigError, Paused, RunError
from faithdiff.methods.method import Study
from faithdiff.methods.registry import find_method
from faithdiff.models.alignment import Alignment, Standardise
from faithdiff.models.faithdiff import FaithDiff, build, load
from faithdiff.models.lq_encoder import LQEncoder
from faithdiff.models.prior import load_prior
from faithdiff.models.weights import load_part
from faithdiff.score.heldout import heldout_job
from faithdiff.study.provenance import folder_digest
from faithdiff.train import variants
from faithdiff.train.cache import Batch, Cache
from faithdiff.train.run import run_job


@dataclass
class Record:
    """What happened in the stage 2 of one variant."""

    batches: list[str] = field(default_factory=list)
    alignment: dict[str, Tensor] = field(default_factory=dict)  # before the first denoising step


def _small(study: Study) -> Study:
    """All variants of the default profile in the study of the tests, with two updates each."""
    every = load_profile(Path("config/mini.yaml"))
    training = training_of(study, stage1_steps=2, stage2_steps=2, batch_size=2, micro_batch=2)
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
                record.batches.append(digest_of_batch(batch))
                return plain(model, cache, batch, kind)

            patch.setattr(variants, "denoising_loss", loss)
            run_job(study, name, 0, study.layout.checkpoint(name, 0), training_job(study, name))
    return root, study, records


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
        return digest_of(
            *variants._start(study, recipe, seed).model.alignment.state_dict().values()
        )

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
        run_job(
            study, "frozen", 0, study.layout.checkpoint("frozen", 0), training_job(study, "frozen")
        )
    assert not study.layout.checkpoint("frozen", 0).exists()


def test_a_stage_1_of_another_recipe_is_refused(study: Study) -> None:
    small = _small(study)
    shutil.copytree(small.layout.stage1("released", 0), small.layout.stage1("concat", 0))
    with pytest.raises(CheckpointError, match="is not the alignment of recipe concat"):
        run_job(
            small, "concat", 0, small.layout.checkpoint("concat", 0), training_job(small, "concat")
        )
    with pytest.raises(CheckpointError, match=r"stage1-moments.* --recipe moments --seed 0"):
        training_job(small, "features-8ch")(Path("out"), Path("state"))


def test_a_crop_off_the_grid_is_refused(study: Study) -> None:
    with pytest.raises(ConfigError, match=r"training\.crop 30 is not a multiple"):
        cache_of(study, load_prior(study.layout.trained_prior), crop=30)


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
    cache = cache_of(study, prior)
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
