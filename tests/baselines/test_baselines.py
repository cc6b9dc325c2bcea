"""Baselines: one contract for all, and the training of the controlled Real-ESRGAN."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from shared import CONFIG
from shared.pictures import picture
from torch import Tensor

from baselines.realesrgan import RealESRGAN
from faithdiff.data.images import write_png
from faithdiff.errors import CheckpointError, ConfigError, RunError
from faithdiff.methods.method import Method, Restorer, Study
from faithdiff.methods.registry import find_method
from faithdiff.models.prior import build_prior, load_prior
from faithdiff.models.text import build_tokenizer
from faithdiff.restore.arrays import to_image, to_tensor
from faithdiff.study import seeds
from faithdiff.study.files import write_text_atomic
from faithdiff.train.encode import write_cache
from faithdiff.train.pairs import find_pairs

SIZE, COUNT = 48, 4  # of the training images
SETTINGS: dict[str, Any] = {
    "features": 8,
    "blocks": 1,
    "growth": 4,
    "psnr_steps": 3,
    "gan_steps": 3,
    "crop": 32,
    "batch_size": 2,
}


def write_profile(file: Path, settings: dict[str, Any], scale: int = 4) -> Study:
    profile = {
        "extends": str(CONFIG / "mini.yaml"),
        "profile": "tiny",
        "data": {"scale": scale},
        "prior": {
            "source": "train",
            "vae": {"patch_size": 2, "block_out_channels": [32]},
            "unet": {"block_out_channels": [32, 32], "attention_levels": [1], "head_dim": 16},
            "text_encoder": {"vocabulary": 300, "width": 32, "heads": 2},
        },
        "training": {"log_every": 1, "checkpoint_every": 1, "optimiser": {"warmup": 1}},
        "baselines": {"realesrgan": {"settings": {**SETTINGS, **settings}}},
    }
    write_text_atomic(yaml.safe_dump(profile), file)
    return Study.load(file)


def write_training_set(study: Study) -> None:
    """A training set as `faithdiff prepare`, `degrade` and `cache` would leave it."""
    folder, scale = study.layout.dataset("train"), study.profile.data.scale
    names = [f"image-{number}" for number in range(COUNT)]
    for number, name in enumerate(names):
        hq = picture(number, SIZE)
        lq = F.interpolate(hq, size=(SIZE // scale,) * 2, mode="area")
        write_png(to_image(hq[0]), folder / "hq" / f"{name}.png")
        write_png(
            to_image(lq[0]),
            study.layout.lq("train", study.profile.data.train_level) / f"{name}.png",
        )
    write_text_atomic("name,caption\n" + "".join(f"{n},\n" for n in names), folder / "index.csv")
    pairs = find_pairs(study.layout, study.profile.data.train_level)
    write_cache(pairs, load_prior(study.layout.trained_prior), study.layout.train_cache)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny prior, training pairs, and both baselines trained where they can be."""
    root = tmp_path_factory.mktemp("baselines")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        study = write_profile(Path("tiny.yaml"), {})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            config = study.profile.prior
            prior = build_prior(config, build_tokenizer(["a boat"], config.text_encoder))
        prior.save(study.layout.trained_prior)
        write_training_set(study)
        train(study, Path("trained"), Path("state"))
    return root


@pytest.fixture
def study(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.chdir(workplace)
    return Study.load(Path("tiny.yaml"))


def train(study: Study, folder: Path, state: Path, seed: int = 0) -> None:
    find_method(study, "realesrgan").train(study, seed, folder, state)


def loaded(study: Study, name: str) -> Restorer:
    return find_method(study, name).load(study, Path("trained"))


def restore(restorer: Restorer, lq: Tensor) -> Tensor:
    return restorer.restore(lq, [""] * len(lq), [0] * len(lq))


@pytest.fixture(params=["bicubic", "realesrgan"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class TestContract:
    @pytest.mark.parametrize("size", [(9, 14), (16, 16)])
    def test_enlarges_into_the_unit_range(
        self, study: Study, name: str, size: tuple[int, int]
    ) -> None:
        harsh = (torch.rand(2, 3, *size, generator=seeds.torch_generator(0, "lq")) > 0.5).float()
        restored = restore(loaded(study, name), harsh)
        assert restored.shape == (2, 3, 4 * size[0], 4 * size[1])
        assert restored.dtype == torch.float32
        assert 0 <= restored.min() < restored.max() <= 1

    def test_equal_inputs_give_equal_bytes(self, study: Study, name: str) -> None:
        lq = picture(7, 24)
        assert torch.equal(restore(loaded(study, name), lq), restore(loaded(study, name), lq))

    def test_an_image_does_not_depend_on_its_batch(self, study: Study, name: str) -> None:
        restorer = loaded(study, name)
        images = torch.cat([picture(seed, 24) for seed in range(5)])
        alone = torch.cat([restore(restorer, image[None]) for image in images])
        assert torch.equal(restore(restorer, images), alone)
        assert torch.equal(restore(restorer, images.flip(0)), alone.flip(0))

    def test_follows_the_picture(self, study: Study, name: str) -> None:
        restored = restore(loaded(study, name), picture(7, 24))
        shrunk = F.interpolate(restored, size=(24, 24), mode="area")
        inner = (slice(None), slice(None), slice(3, -3), slice(3, -3))
        assert (shrunk - picture(7, 24))[inner].abs().mean() < 0.05

    def test_settings_are_plain_and_the_same_for_equal_profiles(
        self, study: Study, name: str
    ) -> None:
        settings = find_method(study, name).settings(study)
        assert yaml.safe_load(yaml.safe_dump(settings)) == settings

    def test_misspelt_setting_names_its_path(self, tmp_path: Path, name: str) -> None:
        study = write_profile(tmp_path / "typo.yaml", {})
        config = study.profile.baselines[name]
        typo = config.model_copy(update={"settings": {**config.settings, "feature": 8}})
        profile = study.profile.model_copy(update={"baselines": {name: typo}})
        with pytest.raises(
            ConfigError, match=re.escape(f"typo.yaml: baselines.{name}.settings: feature: ")
        ):
            find_method(replace(study, profile=profile), name)


def test_bicubic_is_that_of_pillow(study: Study) -> None:
    lq = to_image(picture(3, 24)[0])
    pillow = Image.fromarray(lq).resize((96, 96), Image.Resampling.BICUBIC)
    ours = to_image(restore(loaded(study, "bicubic"), to_tensor(lq))[0])
    # Pillow rounds between its two passes.
    assert np.abs(ours.astype(int) - np.asarray(pillow, int)).max() <= 1


def test_log_names_both_phases(study: Study) -> None:
    rows = Path("trained/training.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0] == "phase,step,loss,learning_rate,seconds"
    assert [row.split(",")[:2] for row in rows[1:]] == [
        [f"realesrgan {phase}", str(step)] for phase in ("psnr", "gan") for step in range(3)
    ]


def test_both_phases_and_the_seed_change_the_weights(study: Study, tmp_path: Path) -> None:
    train(write_profile(Path("psnr.yaml"), {"gan_steps": 0}), tmp_path / "psnr", tmp_path / "s1")
    train(study, tmp_path / "other", tmp_path / "s2", seed=1)
    both = weights(Path("trained"))
    assert not same(weights(tmp_path / "psnr"), both)
    assert not same(weights(tmp_path / "other"), both)


@pytest.mark.parametrize("fatal", [2, 3, 4], ids=["psnr", "first of gan", "gan"])
def test_a_killed_training_ends_with_the_same_weights(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fatal: int
) -> None:
    with monkeypatch.context() as patch:
        fail_at(patch, fatal, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            train(study, tmp_path / "out", tmp_path / "state")
    assert not list(tmp_path.glob("out/*"))
    done = fail_at(monkeypatch, 100, KeyboardInterrupt())
    train(study, tmp_path / "out", tmp_path / "state")
    assert len(done) < 6, "nothing was resumed"
    assert same(weights(tmp_path / "out"), weights(Path("trained")))


def test_a_state_of_other_settings_is_not_resumed(study: Study, tmp_path: Path) -> None:
    other = write_profile(Path("other.yaml"), {"learning_rate": 0.1, "gan_learning_rate": 0.1})
    train(other, tmp_path / "other", tmp_path / "state")
    train(study, tmp_path / "ours", tmp_path / "state")
    assert not same(weights(tmp_path / "other"), weights(Path("trained")))
    assert same(weights(tmp_path / "ours"), weights(Path("trained")))


def test_global_random_state_neither_matters_nor_moves(study: Study, tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        before = torch.get_rng_state()
        train(study, tmp_path / "out", tmp_path / "state")
        assert torch.equal(torch.get_rng_state(), before)
    assert same(weights(tmp_path / "out"), weights(Path("trained")))


def test_a_loss_that_is_not_finite_stops_the_run(study: Study, tmp_path: Path) -> None:
    wild = write_profile(Path("wild.yaml"), {"learning_rate": 1e30})
    with pytest.raises(RunError, match=r"realesrgan psnr: the loss is (nan|inf) at update [12]"):
        train(wild, tmp_path / "out", tmp_path / "state")
    assert not list(tmp_path.glob("out/*"))


def test_adversarial_loss_reaches_the_generator(study: Study, tmp_path: Path) -> None:
    alone = {"pixel_weight": 0.0, "perceptual_weight": 0.0, "gan_weight": 1.0}
    train(write_profile(Path("gan.yaml"), alone), tmp_path / "gan", tmp_path / "s1")
    none = {**alone, "gan_weight": 0.0}
    train(write_profile(Path("none.yaml"), none), tmp_path / "none", tmp_path / "s2")
    psnr = {**none, "gan_steps": 0}
    train(write_profile(Path("psnr.yaml"), psnr), tmp_path / "psnr", tmp_path / "s3")
    drift = distance(tmp_path / "none", tmp_path / "psnr")  # weight decay, and the average's lag
    assert distance(tmp_path / "gan", tmp_path / "psnr") > 10 * drift


@pytest.mark.parametrize("scale", [1, 2])
def test_smaller_scales_restore_sizes_off_their_grid(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scale: int
) -> None:
    prior = study.layout.trained_prior.resolve()
    monkeypatch.chdir(tmp_path)
    study.layout.checkpoints.mkdir(parents=True)
    study.layout.trained_prior.symlink_to(prior)
    small = write_profile(Path("small.yaml"), {"psnr_steps": 1, "gan_steps": 1}, scale)
    write_training_set(small)
    train(small, Path("trained"), Path("state"))
    restored = restore(loaded(small, "realesrgan"), picture(5, 30)[..., :13, :19])
    assert restored.shape == (1, 3, scale * 13, scale * 19)


def test_a_set_of_another_scale_gets_the_result_resized(study: Study) -> None:
    lq = picture(3, 20)
    four = restore(loaded(study, "realesrgan"), lq)
    two = restore(loaded(study.at_scale(2), "realesrgan"), lq)
    assert two.shape[-2:] == (40, 40)
    reduced = F.interpolate(four, size=(40, 40), mode="area")
    assert float((two - reduced).abs().mean()) < 0.02


def test_tiles_are_seamless(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    lq = picture(11, 90)[..., :70, :]
    restorer = loaded(study, "realesrgan")
    whole = restore(restorer, lq)
    monkeypatch.setattr("baselines.realesrgan.TILE", 40)
    # One block sees 19 LQ pixels far, so an overlap of 32 loses nothing.
    assert torch.allclose(restore(restorer, lq), whole, atol=1e-6)


class TestRefusals:
    def test_missing_weights(self, study: Study, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="faithdiff train --method realesrgan"):
            method(study).load(study, tmp_path)

    def test_corrupted_weights(self, study: Study, tmp_path: Path) -> None:
        whole = Path("trained/model.safetensors").read_bytes()
        (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(CheckpointError, match="cannot be read"):
            method(study).load(study, tmp_path)

    def test_weights_of_another_width(self, study: Study) -> None:
        wide = write_profile(Path("wide.yaml"), {"features": 12})
        message = r"body.0.rdb1.conv1.weight: shape \(4, 8, 3, 3\) found, \(4, 12, 3, 3\) expected"
        with pytest.raises(CheckpointError, match=message):
            method(wide).load(wide, Path("trained"))

    def test_weights_without_a_key(self, study: Study, tmp_path: Path) -> None:
        tensors = weights(Path("trained"))
        del tensors["conv_hr.weight"]
        save_file(tensors, tmp_path / "model.safetensors")
        with pytest.raises(
            CheckpointError, match=r"conv_hr.weight: shape none found, \(8, 8, 3, 3\)"
        ):
            method(study).load(study, tmp_path)

    def test_scale_that_the_network_lacks(self, study: Study) -> None:
        large = write_profile(Path("large.yaml"), {}, scale=8)
        with pytest.raises(ConfigError, match=r"baselines.realesrgan.settings: .* data.scale is 8"):
            method(large).load(large, Path("trained"))

    def test_crop_larger_than_the_images(self, study: Study, tmp_path: Path) -> None:
        large = write_profile(Path("crop.yaml"), {"crop": 64})
        with pytest.raises(ConfigError, match=r"settings.crop: 64 px do not fit .* \(48 px\)"):
            train(large, tmp_path / "out", tmp_path / "state")

    def test_crop_off_the_grid(self, study: Study) -> None:
        odd = write_profile(Path("odd.yaml"), {"crop": 36})
        with pytest.raises(ConfigError, match=r"settings: crop: .* multiple of 8"):
            find_method(odd, "realesrgan")


def method(study: Study) -> Method:
    return find_method(study, "realesrgan")


def weights(folder: Path) -> dict[str, Tensor]:
    return dict(load_file(folder / "model.safetensors"))


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def distance(first: Path, second: Path) -> float:
    one, two = weights(first), weights(second)
    return sum((one[key] - two[key]).abs().sum().item() for key in one)


def fail_at(patch: pytest.MonkeyPatch, update: int, error: BaseException) -> list[int]:
    """Let the given forward pass in training fail; returns a list that grows with each."""
    forward, done = torch.nn.Conv2d.forward, []

    def counted(self: torch.nn.Conv2d, images: Tensor) -> Tensor:
        # conv_first is the only convolution of these runs from 3 to 8 channels.
        if self.training and (self.in_channels, self.out_channels) == (3, 8):
            if len(done) == update:
                raise error
            done.append(len(done))
        return forward(self, images)

    patch.setattr(torch.nn.Conv2d, "forward", counted)
    return done


def test_this_file_tests_every_baseline(study: Study) -> None:
    # The designs on the study's prior have a file of their own: test_controlled.py. So has what
    # others trained: test_published.py.
    plain = set(study.profile.baselines) - set(study.profile.on_prior)
    assert plain - set(study.profile.published) == {"bicubic", "realesrgan"}
    assert study.profile.published == ["realesrgan-x4plus"]
    assert RealESRGAN.trained
