"""Restoration: tiles, colour fixes, the sampler, and jobs that resume at the image."""

from __future__ import annotations

import copy
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from shared import ROOT
from torch import Tensor

from faithdiff import cli
from faithdiff.config import Restore, parse
from faithdiff.data.images import read_image, write_png
from faithdiff.errors import (
    CheckpointError,
    ConfigError,
    FaithDiffError,
    ImageError,
    RunError,
    UserError,
)
from faithdiff.methods.method import Study
from faithdiff.methods.registry import find_method
from faithdiff.models.faithdiff import load
from faithdiff.models.objective import time_ids
from faithdiff.models.prior import load_prior
from faithdiff.restore import run
from faithdiff.restore.arrays import to_image, to_tensor
from faithdiff.restore.choices import Choices
from faithdiff.restore.colour import adain, fix_colour, low_frequencies, wavelet
from faithdiff.restore.enlarge import enlarge
from faithdiff.restore.faithdiff_restorer import FaithDiffRestorer
from faithdiff.restore.pictures import RECORD, restore_pictures
from faithdiff.restore.schedule import make_scheduler, visited
from faithdiff.restore.tiling import gaussian, merged, tiles
from faithdiff.study.checksums import sum_file

# diffusers' Euler scheduler
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SCALE = 4


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


# --- Tiles --------------------------------------------------------------------------------------

sides = st.integers(1, 40)


@settings(deadline=None, max_examples=60)
@given(height=sides, width=sides, size=st.integers(1, 16), share=st.floats(0.01, 1))
def test_tiles_cover_the_latent_and_stay_inside(
    height: int, width: int, size: int, share: float
) -> None:
    stride = max(1, math.ceil(share * size))
    covered = torch.zeros(1, 1, height, width)
    parts = tiles(height, width, size, stride)
    for tile in parts:
        window = tile.cut(covered)
        assert window.shape[2:] == (min(size, height), min(size, width))
        window += 1
    assert covered.min() >= 1
    assert len(set(parts)) == len(parts)


@settings(deadline=None, max_examples=30)
@given(height=st.integers(1, 130), width=st.integers(1, 130))
def test_weights_of_a_tile_are_positive(height: int, width: int) -> None:
    weights = gaussian(height, width)
    assert weights.shape == (1, 1, height, width)
    assert weights.min() > 0


@settings(deadline=None, max_examples=20)
@given(height=sides, width=sides, size=st.integers(2, 16))
def test_merging_what_does_not_depend_on_the_tile_changes_nothing(
    height: int, width: int, size: int
) -> None:
    latents = _random(2, 4, height, width)
    parts = tiles(height, width, size, size // 2)
    assert torch.allclose(merged([(tile, tile.cut(latents)) for tile in parts], latents), latents)


def test_one_tile_is_the_whole() -> None:
    latents = _random(1, 4, 9, 7)
    parts = tiles(9, 7, size=9, stride=3)
    assert len(parts) == 1
    assert torch.equal(merged([(tile, tile.cut(latents)) for tile in parts], latents), latents)


# --- Colour -------------------------------------------------------------------------------------


def test_wavelet_takes_low_frequencies_from_the_reference() -> None:
    image, reference = _random(2, 3, 40, 33), _random(2, 3, 40, 33, seed=1)
    assert torch.allclose(wavelet(image, image, 5), image, atol=1e-6)
    shifted = wavelet(image, image + 0.25, 3)
    assert torch.allclose(shifted, image + 0.25, atol=1e-6)
    fixed = wavelet(image, reference, 2)
    high = image - low_frequencies(image, 2)
    assert torch.allclose(fixed - low_frequencies(reference, 2), high, atol=1e-6)


def test_low_frequencies_keep_a_constant_and_remove_a_checkerboard() -> None:
    constant = torch.full((1, 3, 16, 16), 0.3)
    checkerboard = (torch.arange(16)[:, None] + torch.arange(16)) % 2
    assert torch.allclose(low_frequencies(constant, 4), constant)
    inner = low_frequencies(checkerboard.float().expand(1, 3, 16, 16), 1)[..., 1:-1, 1:-1]
    assert torch.allclose(inner, torch.full_like(inner, 0.5))


def test_adain_gives_the_statistics_of_the_reference() -> None:
    image, reference = _random(2, 3, 40, 33), 0.2 + 0.3 * _random(2, 3, 40, 33, seed=1)
    fixed = adain(image, reference)
    assert torch.allclose(fixed.mean((2, 3)), reference.mean((2, 3)), atol=1e-4)
    assert torch.allclose(fixed.std((2, 3)), reference.std((2, 3)), atol=1e-3)
    assert torch.allclose(adain(image, image), image, atol=1e-5)


def test_no_colour_fix_changes_nothing() -> None:
    image = _random(1, 3, 8, 8)
    assert fix_colour(image, 1 - image, "none", 3) is image


# --- Arrays -------------------------------------------------------------------------------------


def test_arrays_round_trip() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert np.array_equal(to_image(to_tensor(image)[0]), image)


def test_enlargement_is_pillow_lanczos() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    expected = Image.fromarray(image).resize((28, 20), Image.Resampling.LANCZOS)
    assert np.array_equal(to_image(enlarge(to_tensor(image), 4)[0]), np.array(expected))


# --- Sampler ------------------------------------------------------------------------------------


def _restorer(study: Study, **changes: Any) -> FaithDiffRestorer:
    config = parse({**study.profile.restore.model_dump(), **changes}, Restore, "restore")
    model = load(study.layout.checkpoint("faithdiff", 0))
    return FaithDiffRestorer(model, load_prior(study.layout.trained_prior), config, SCALE)


@pytest.mark.parametrize(
    ("size", "colour"), [((13, 21), "none"), ((8, 9), "adain"), ((1, 16), "wavelet")]
)
def test_any_size_is_restored(study: Study, size: tuple[int, int], colour: str) -> None:
    restored = _restorer(study, color_fix=colour).restore(_random(1, 3, *size), ["a"], [1])
    assert restored.shape == (1, 3, SCALE * size[0], SCALE * size[1])
    assert torch.isfinite(restored).all()
    assert restored.min() >= 0 and restored.max() <= 1


def test_an_image_does_not_depend_on_its_batch(study: Study) -> None:
    restorer = _restorer(study, guidance_scale=3.0)
    lq, captions, seeds = _random(3, 3, 12, 16), ["a hill", "", "a house"], [5, 6, 7]
    together = restorer.restore(lq, captions, seeds)
    for row in range(3):
        alone = restorer.restore(lq[row : row + 1], captions[row : row + 1], seeds[row : row + 1])
        assert torch.allclose(alone[0], together[row], atol=1e-5)
    turned = restorer.restore(lq.flip(0), captions[::-1], seeds[::-1]).flip(0)
    assert torch.allclose(turned, together, atol=1e-5)


@pytest.mark.parametrize("scheduler", ["ddim", "euler"])
@pytest.mark.parametrize("start", ["lq", "noise"])
def test_the_seed_decides_the_noise(study: Study, start: str, scheduler: str) -> None:
    restorer = _restorer(study, start_point=start, color_fix="none", scheduler=scheduler)
    lq = _random(1, 3, 12, 12)
    first, again, other = (restorer.restore(lq, ["a"], [seed]) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=1e-3)


def test_restoring_leaves_the_global_random_state_alone(study: Study) -> None:
    restorer, before = _restorer(study), torch.get_rng_state()
    restorer.restore(_random(1, 3, 8, 8), ["a"], [1])
    assert torch.equal(torch.get_rng_state(), before)


def test_guidance_of_one_is_the_captioned_prediction(study: Study) -> None:
    lq = _random(1, 3, 12, 12)
    plain = _restorer(study, guidance_scale=1.0).restore(lq, ["a hill"], [1])
    # The pair of a guided prediction is equal here, so any scale gives the same as none.
    equal = _restorer(study, guidance_scale=7.0, negative_prompt="a hill")
    guided = _restorer(study, guidance_scale=7.0, negative_prompt="a house")
    assert torch.allclose(equal.restore(lq, ["a hill"], [1]), plain, atol=1e-4)
    assert not torch.allclose(guided.restore(lq, ["a hill"], [1]), plain, atol=1e-4)


def test_a_start_below_the_schedule_is_refused(study: Study) -> None:
    # Three steps from the last timestep: 999, 666, 333.
    with pytest.raises(ConfigError, match=r"start_timestep: no step of 3 .* 300; the lowest is"):
        _restorer(study, steps=3, start_timestep=300).restore(_random(1, 3, 8, 8), [""], [0])


def _timesteps(config: Restore, trained: DDPMScheduler) -> Tensor:
    return visited(make_scheduler(config, trained), config.steps, config.start_timestep)


@pytest.mark.parametrize("kind", ["ddim", "euler"])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_a_late_start_visits_the_low_end_of_the_schedule(
    study: Study, kind: str, spacing: str
) -> None:
    trained = load_prior(study.layout.trained_prior).scheduler
    base = study.profile.restore.model_dump() | {"scheduler": kind, "timestep_spacing": spacing}
    early = parse({**base, "steps": 10, "start_timestep": 999}, Restore, "restore")
    late = parse({**base, "steps": 10, "start_timestep": 450}, Restore, "restore")
    every, some = (_timesteps(config, trained).tolist() for config in (early, late))
    assert len(every) == 10 and every == sorted(every, reverse=True)
    assert some == [timestep for timestep in every if timestep <= 450]


def test_the_noised_start_has_the_variance_of_its_timestep(study: Study) -> None:
    """With a model that predicts nothing new, Euler's scaled start is the DDPM forward process."""
    prior = load_prior(study.layout.trained_prior)
    config = parse(
        {**study.profile.restore.model_dump(), "scheduler": "euler", "steps": 10}, Restore, "r"
    )
    scheduler = make_scheduler(config, prior.scheduler)
    timesteps = visited(scheduler, config.steps, config.start_timestep)
    clean, noise = _random(1, 4, 8, 8), _random(1, 4, 8, 8, seed=1)
    started = scheduler.add_noise(clean, noise, timesteps[:1])
    expected = prior.scheduler.add_noise(clean, noise, timesteps[:1].long())
    assert torch.allclose(scheduler.scale_model_input(started, timesteps[0]), expected, atol=1e-4)


def _released_loop(
    study: Study, restorer: FaithDiffRestorer, config: Restore, lq: Tensor
) -> Tensor:
    """The released sampling of one image, one tile after the other, as its code orders it.

    Each tile has its own scheduler and takes its own step; the stepped latents are averaged.
    """
    model = load(study.layout.checkpoint("faithdiff", 0))
    prior = load_prior(study.layout.trained_prior)
    enlarged = enlarge(lq, SCALE) * 2 - 1
    features, moments = model.lq_encoder(enlarged), prior.encode_moments(enlarged)
    generator = torch.Generator().manual_seed(11)
    posterior, noise = (torch.randn(moments[:, ::2].shape, generator=generator) for _ in range(2))
    main = make_scheduler(config, prior.scheduler)
    timesteps = visited(main, config.steps, config.start_timestep)
    latents = main.add_noise(prior.sample_latents(moments, posterior), noise, timesteps[:1])
    (height, width), side = latents.shape[2:], config.tile
    starts = [
        (min(top, height - side), min(left, width - side))
        for top in range(0, height - side + config.tile_stride, config.tile_stride)
        for left in range(0, width - side + config.tile_stride, config.tile_stride)
    ]
    schedulers = {start: copy.deepcopy(main) for start in starts}
    prompt = prior.encode_text(["", "a hill"])
    bell = torch.tensor(
        [
            [
                math.exp(-((y - side / 2) ** 2) / side**2 / 0.02)
                * math.exp(-((x - (side - 1) / 2) ** 2) / side**2 / 0.02)
                for x in range(side)
            ]
            for y in range(side)
        ]
    )
    for timestep in timesteps:
        total, weight = torch.zeros_like(latents), torch.zeros(height, width)
        for (top, left), scheduler in schedulers.items():
            here = (..., slice(top, top + side), slice(left, left + side))
            noisy = scheduler.scale_model_input(latents[here], timestep)
            corner = torch.tensor([[top, left]]) * prior.factor
            ids = time_ids(
                (height * prior.factor, width * prior.factor), corner, (side * prior.factor,) * 2
            )
            uncond, cond = (
                model(noisy, timestep.expand(1), features[here], prompt[row : row + 1], ids)
                for row in (0, 1)
            )
            guided = uncond + config.guidance_scale * (cond - uncond)
            total[here] += scheduler.step(guided, timestep, latents[here]).prev_sample * bell
            weight[here[1:]] += bell
        latents = total / weight
    return (prior.decode(latents) / 2 + 0.5).clamp(0, 1)


@pytest.mark.parametrize("scheduler", ["ddim", "euler"])
def test_merging_predictions_equals_the_released_loop(study: Study, scheduler: str) -> None:
    changes = {"scheduler": scheduler, "tile": 12, "tile_stride": 6, "color_fix": "none"}
    restorer = _restorer(study, **changes)
    config = parse({**study.profile.restore.model_dump(), **changes}, Restore, "restore")
    lq = _random(1, 3, 12, 14)
    with torch.no_grad():
        expected = _released_loop(study, restorer, config, lq)
    restored = restorer.restore(lq, ["a hill"], [11])
    whole = _restorer(study, **{**changes, "tile": 64}).restore(lq, ["a hill"], [11])
    assert torch.allclose(restored, expected, atol=2e-5)
    assert not torch.allclose(restored, whole, atol=2e-4)


def test_progress_counts_every_pass(study: Study) -> None:
    restorer = _restorer(study, tile=8, tile_stride=8, steps=5, start_timestep=999)
    seen: list[tuple[int, int]] = []
    restorer.progress = lambda done, total: seen.append((done, total))
    restorer.restore(_random(1, 3, 8, 8), [""], [0])
    factor = load_prior(study.layout.trained_prior).factor
    total = 5 * (8 * SCALE // factor // 8) ** 2
    assert seen == [(done, total) for done in range(1, total + 1)]


# --- Jobs ---------------------------------------------------------------------------------------


def _job(study: Study, method: str = "faithdiff") -> dict[str, dict[str, Any]]:
    """Run the job; its manifests by dataset."""
    run.restore_job(study, find_method(study, method), method, 0)
    return {
        dataset: json.loads(
            (study.layout.restoration(method, 0, dataset, "II") / "manifest.json").read_text()
        )
        for dataset in study.profile.data.test
    }


def _images(study: Study, method: str = "faithdiff") -> dict[str, bytes]:
    root = study.layout.restored(method, 0)
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in root.rglob("*.png")}


def test_a_second_run_makes_nothing(study: Study) -> None:
    first = _job(study)
    before = _images(study)
    assert {d: m["made"] for d, m in first.items()} == {"Photos": 2, "Scenes": 2}
    assert {d: m["made"] for d, m in _job(study).items()} == {"Photos": 0, "Scenes": 0}
    assert len(before) == 4 and _images(study) == before
    images = {f"{d}/II/{name}.png" for d, m in first.items() for name in m["images"]}
    assert images == set(before)


def test_a_killed_run_goes_on_at_the_image(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []

    def write_three(image: np.ndarray, path: Path) -> None:
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path)
        write_png(image, path)

    with monkeypatch.context() as patch:
        patch.setattr(run, "write_png", write_three)
        with pytest.raises(KeyboardInterrupt):
            _job(study)
    times = {path: path.stat().st_mtime_ns for path in written}
    finished = study.layout.restoration("faithdiff", 0, "Scenes", "II") / "manifest.json"
    assert not finished.exists()
    manifests = _job(study)
    assert {d: m["made"] for d, m in manifests.items()} == {"Photos": 0, "Scenes": 1}
    assert {path: path.stat().st_mtime_ns for path in written} == times
    resumed = _images(study)
    for path in study.layout.cache.rglob("*.png"):
        path.unlink()
    assert {d: m["made"] for d, m in _job(study).items()} == {"Photos": 2, "Scenes": 2}
    assert _images(study) == resumed


def test_a_deleted_or_corrupted_stored_image_is_made_again(study: Study) -> None:
    _job(study)
    before = _images(study)
    first, second, *_ = sorted(study.layout.cache.rglob("*.png"))
    first.unlink()
    data = second.read_bytes()
    second.unlink()  # it is one file with the published image, which stays whole
    second.write_bytes(data[: len(data) // 2])
    assert sum(manifest["made"] for manifest in _job(study).values()) == 2
    assert _images(study) == before


def test_only_what_changed_is_restored_again(study: Study) -> None:
    _job(study)
    before = _images(study)
    lq = study.layout.lq("Scenes", "II") / "scene-00000.png"
    write_png(255 - read_image(lq), lq)
    (lq.parent / "degradation.jsonl").unlink()  # it has the hash of the image before
    assert {d: m["made"] for d, m in _job(study).items()} == {"Photos": 0, "Scenes": 1}
    changed = {name for name, data in _images(study).items() if data != before[name]}
    assert changed == {"Scenes/II/scene-00000.png"}


def test_other_settings_or_weights_restore_all_again(study: Study) -> None:
    _job(study)
    other = study.profile.restore.model_copy(update={"guidance_scale": 4.0})
    profile = study.profile.model_copy(update={"restore": other})
    assert all(m["made"] == 2 for m in _job(Study(profile, study.file, study.layout)).values())
    file = study.layout.checkpoint("faithdiff", 0) / "alignment" / "config.json"
    file.write_text(file.read_text() + "\n")
    (study.layout.checkpoint("faithdiff", 0) / "run.json").unlink()  # has the hash of it before
    assert all(m["made"] == 2 for m in _job(study).values())


def test_the_batch_size_changes_no_image(study: Study) -> None:
    _job(study)
    one = {
        name: read_image(study.layout.restored("faithdiff", 0) / name) for name in _images(study)
    }
    for path in study.layout.cache.rglob("*.png"):
        path.unlink()
    other = study.profile.restore.model_copy(update={"batch_size": 2})
    _job(Study(study.profile.model_copy(update={"restore": other}), study.file, study.layout))
    for name, image in one.items():
        two = read_image(study.layout.restored("faithdiff", 0) / name)
        # Kernels chosen by batch size may round the last bit of a float differently.
        assert np.abs(image.astype(int) - two).max() <= 1


def test_an_image_that_left_the_set_is_removed(study: Study) -> None:
    _job(study, "bicubic")
    index = study.layout.dataset("Photos") / "index.csv"
    index.write_text("".join(index.read_text().splitlines(keepends=True)[:2]))
    sum_file(index).unlink()
    _job(study, "bicubic")
    assert sum(name.startswith("Photos/") for name in _images(study, "bicubic")) == 1


def test_a_job_without_its_inputs_says_what_makes_them(study: Study) -> None:
    with pytest.raises(CheckpointError, match=r"separate/seed0: is missing; .* --method separate"):
        _job(study, "separate")
    next(study.layout.lq("Photos", "II").glob("*.png")).unlink()
    with pytest.raises(UserError, match=r"degrade --config config/test\.yaml --dataset Photos"):
        _job(study, "bicubic")


def test_a_restoration_that_is_not_finite_stops_the_job(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        FaithDiffRestorer, "restore", lambda _, lq, *__: torch.full_like(lq, float("nan"))
    )
    with pytest.raises(RunError, match="NaN"):
        _job(study)
    assert not _images(study)


# --- Own pictures -------------------------------------------------------------------------------


def _gradient(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack(
        [rows * 255 // height, columns * 255 // width, (rows + columns) % 256], 2
    ).astype(np.uint8)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder as people have them."""
    folder = tmp_path / "meine Bilder"
    folder.mkdir()
    picture = Image.fromarray(_gradient(13, 21))
    picture.save(folder / "Über den Wolken (1).jpg")
    picture.convert("RGBA").save(folder / "with alpha.png")
    picture.convert("L").save(folder / "grey.png")
    picture.convert("P").save(folder / "palette.gif")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    picture.save(folder / "turned.jpeg", exif=exif)
    sixteen = (np.arange(13 * 21, dtype=np.uint16) * 200).reshape(13, 21)
    Image.fromarray(sixteen).save(folder / "sixteen.tif")
    (folder / "notes.txt").write_text("not a picture")
    return folder


def _own(study: Study, inputs: list[Path], output: Path, **changes: Any) -> None:
    checkpoint = study.layout.checkpoint("faithdiff", 0)
    choices = Choices(caption="a hill", seed=3, changes=changes)
    restore_pictures(checkpoint, inputs, output, choices)


def test_every_ordinary_picture_is_restored(study: Study, pictures: Path, tmp_path: Path) -> None:
    _own(study, [pictures], tmp_path / "out")
    sizes = {file.stem: read_image(file).shape for file in (tmp_path / "out").glob("*.png")}
    upright, turned = (4 * 13, 4 * 21, 3), (4 * 21, 4 * 13, 3)
    assert sizes == {
        "Über den Wolken (1)": upright,
        "with alpha": upright,
        "grey": upright,
        "palette": upright,
        "turned": turned,
        "sixteen": upright,
    }


def test_a_picture_is_restored_as_the_restorer_does(study: Study, tmp_path: Path) -> None:
    lq = _gradient(12, 10)
    write_png(lq, tmp_path / "a.png")
    _own(study, [tmp_path / "a.png"], tmp_path / "out", tile=16, tile_stride=8, steps=5)
    restorer = _restorer(study, tile=16, tile_stride=8, steps=5)
    expected = to_image(restorer.restore(to_tensor(lq), ["a hill"], [3])[0])
    assert np.array_equal(read_image(tmp_path / "out" / "a.png"), expected)


def test_finished_pictures_are_kept_and_others_made_again(
    study: Study, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    _own(study, [pictures], out)
    before = {file.name: file.read_bytes() for file in out.glob("*.png")}
    (out / "grey.png").unlink()
    (out / "palette.png").write_bytes(b"cut")
    capsys.readouterr()
    _own(study, [pictures], out)
    text = capsys.readouterr().out
    assert "4 of 6 pictures are restored already" in text
    assert "grey.png" in text and "palette.png" in text and "sixteen.png" not in text
    assert {file.name: file.read_bytes() for file in out.glob("*.png")} == before
    _own(study, [pictures], out, guidance_scale=4.0)
    assert (out / "grey.png").read_bytes() != before["grey.png"]


def test_a_picture_of_somebody_else_is_not_written_over(study: Study, tmp_path: Path) -> None:
    photo, album = tmp_path / "holiday.jpg", tmp_path / "album"
    Image.fromarray(_gradient(8, 8)).save(photo)
    write_png(_gradient(9, 9), album / "holiday.png")
    before = (album / "holiday.png").read_bytes()
    with pytest.raises(UserError, match=r"album/holiday\.png: is there already.*another --output"):
        _own(study, [photo], album)
    assert (album / "holiday.png").read_bytes() == before
    (album / "holiday.png").rename(album / "mine.png")
    _own(study, [photo], album)
    _own(study, [photo], album, guidance_scale=4.0)  # our own result may be made again
    assert (album / "mine.png").read_bytes() == before


def test_a_corrupted_record_only_costs_time(study: Study, tmp_path: Path) -> None:
    write_png(_gradient(8, 8), tmp_path / "a.png")
    _own(study, [tmp_path / "a.png"], tmp_path / "out")
    (tmp_path / "out" / RECORD).write_text("{")
    _own(study, [tmp_path / "a.png"], tmp_path / "out")
    assert list(json.loads((tmp_path / "out" / RECORD).read_text())) == ["a.png"]


@pytest.mark.parametrize("record", ["[1]", '{"a.png": "mine"}', "5"])
def test_a_record_of_somebody_else_is_left_alone(study: Study, tmp_path: Path, record: str) -> None:
    write_png(_gradient(8, 8), tmp_path / "a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / RECORD).write_text(record)
    with pytest.raises(UserError, match=r"restored\.json: is not what .*another --output"):
        _own(study, [tmp_path / "a.png"], tmp_path / "out")
    assert (tmp_path / "out" / RECORD).read_text() == record


def test_a_result_that_was_edited_is_left_alone(study: Study, tmp_path: Path) -> None:
    write_png(_gradient(8, 8), tmp_path / "a.png")
    _own(study, [tmp_path / "a.png"], tmp_path / "out")
    write_png(_gradient(20, 20), tmp_path / "out/a.png")  # cropped in another program
    edited = (tmp_path / "out/a.png").read_bytes()
    with pytest.raises(UserError, match=r"a\.png: was changed since .*another --output"):
        _own(study, [tmp_path / "a.png"], tmp_path / "out")
    assert (tmp_path / "out/a.png").read_bytes() == edited


def test_a_link_in_the_place_of_a_result_is_left_alone(study: Study, tmp_path: Path) -> None:
    write_png(_gradient(8, 8), tmp_path / "a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a.png").symlink_to("nowhere.png")
    with pytest.raises(UserError, match=r"a\.png: is there already"):
        _own(study, [tmp_path / "a.png"], tmp_path / "out")
    assert (tmp_path / "out/a.png").is_symlink()


def test_a_pointer_in_place_of_the_record_of_a_training(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
    with pytest.raises(CheckpointError, match=r"run\.json: is a pointer of Git LFS"):
        restore_pictures(tmp_path, [tmp_path], tmp_path / "out", Choices())


def test_all_broken_pictures_are_named_before_any_is_restored(
    study: Study, pictures: Path, tmp_path: Path
) -> None:
    whole = (pictures / "with alpha.png").read_bytes()
    (pictures / "cut off.png").write_bytes(whole[: len(whole) // 2])
    (pictures / "empty.png").write_bytes(b"")
    (pictures / "text.jpg").write_text("hello")
    write_png(_gradient(30, 5), pictures / "thin.png")
    with pytest.raises(ImageError) as caught:
        _own(study, [pictures], tmp_path / "out")
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    for name in ("cut off.png", "empty.png", "text.jpg", "thin.png: 5 x 30 px"):
        assert any(name in line for line in lines)
    assert not (tmp_path / "out").exists()


def test_results_never_collide(study: Study, tmp_path: Path) -> None:
    for name in ("a/one.png", "b/one.jpg", "c/two.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(_gradient(8, 8)).save(tmp_path / name)
    with pytest.raises(UserError, match=r"a/one\.png and .*b/one\.jpg would both become one\.png"):
        _own(study, [tmp_path / "a", tmp_path / "b/one.jpg"], tmp_path / "out")
    with pytest.raises(UserError, match=r"c/two\.png: is an input"):
        _own(study, [tmp_path / "c"], tmp_path / "c")
    # The same picture twice is one picture.
    _own(study, [tmp_path / "c", tmp_path / "c/two.png"], tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").glob("*.png")] == ["two.png"]


def test_what_is_skipped_or_read_otherwise_is_said_before(
    study: Study, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "trip").mkdir()
    (pictures / "grey.png").rename(pictures / "grey.ppm")  # a suffix, whatever the content
    (pictures / "again.png").symlink_to(pictures / "sixteen.tif")
    _own(study, [pictures], tmp_path / "out")
    said = capsys.readouterr().out.splitlines()[0]
    assert said == (
        "restore: skipped, no format of images: notes.txt; skipped, sub-folder: trip; "
        "reduced to 8 bits: again.png, sixteen.tif"
    )
    made = {file.stem: file.read_bytes() for file in (tmp_path / "out").glob("*.png")}
    assert len(made) == 7 and "grey" in made
    assert made["again"] == made["sixteen"]  # two names of one picture are two results


def test_restoring_twice_into_the_folder_of_the_pictures(
    study: Study, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("with alpha.png", "grey.png"):  # these would be written over
        (pictures / name).unlink()
    _own(study, [pictures], pictures)
    before = {file.name: file.read_bytes() for file in pictures.iterdir()}
    capsys.readouterr()
    _own(study, [pictures, pictures / "palette.png"], pictures)
    assert {file.name: file.read_bytes() for file in pictures.iterdir()} == before
    said = capsys.readouterr().out
    assert "skipped, result of an earlier call: palette.png, sixteen.png, turned.png and 1" in said
    assert "4 of 4 pictures are restored already" in said and "restored.json" not in said
    with pytest.raises(UserError, match=r"are results of .*give another --output"):
        _own(study, [pictures / "palette.png"], pictures)
    _own(study, [pictures / "palette.png"], pictures / "larger")
    assert read_image(pictures / "larger/palette.png").shape == (16 * 13, 16 * 21, 3)


def test_wrong_arguments_are_explained(study: Study, tmp_path: Path) -> None:
    write_png(_gradient(8, 8), tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    checkpoint, out = study.layout.checkpoint("faithdiff", 0), tmp_path / "out"

    def message(folder: Path, given: Path, output: Path = out, **changes: Any) -> str:
        with pytest.raises(FaithDiffError) as caught:
            restore_pictures(folder, [given], output, Choices(changes=changes))
        assert caught.value.exit_code == 2
        return str(caught.value)

    assert "no such file" in message(checkpoint, tmp_path / "none.png")
    assert "holds no image" in message(checkpoint, tmp_path / "empty")
    assert "is a file" in message(checkpoint, tmp_path / "a.png", tmp_path / "a.png")
    assert "--guidance: must be " in message(checkpoint, tmp_path / "a.png", guidance_scale=0.5)
    few = message(checkpoint, tmp_path / "a.png", steps=1)
    assert few.startswith("--steps 1: too few; give 2 or more: the LQ image enters at timestep 600")
    assert "run.json: is missing" in message(tmp_path, tmp_path / "a.png")
    stage1 = study.layout.stage1("released", 0)
    assert "has no method 'stage1-released'" in message(stage1, tmp_path / "a.png")
    study.layout.trained_prior.rename(tmp_path / "elsewhere")
    assert "root of the repository" in message(checkpoint, tmp_path / "a.png")
    (checkpoint / "run.json").write_text("{}")
    assert "is not of a method" in message(checkpoint, tmp_path / "a.png")
    (checkpoint / "run.json").write_text('{"method": "faithdiff", "seed": 0, "checksum": "0"}')
    assert "does not fit its checksum" in message(checkpoint, tmp_path / "a.png")


def test_a_baseline_restores_pictures(study: Study, pictures: Path, tmp_path: Path) -> None:
    cli.train("realesrgan", config=study.file)
    checkpoint = study.layout.checkpoint("realesrgan", 0)
    restore_pictures(checkpoint, [pictures / "grey.png"], tmp_path / "out", Choices())
    assert read_image(tmp_path / "out" / "grey.png").shape == (52, 84, 3)


def test_the_command_exits_with_two_and_no_traceback(
    study: Study, pictures: Path, tmp_path: Path
) -> None:
    (pictures / "cut off.png").write_bytes((pictures / "grey.png").read_bytes()[:50])
    checkpoint, out = study.layout.checkpoint("faithdiff", 0), tmp_path / "out"
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from faithdiff.cli import main; main()"
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            code,
            "restore",
            "--checkpoint",
            checkpoint,
            pictures,
            "--output",
            out,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "cut off.png" in done.stderr and "Traceback" not in done.stderr
    assert not out.exists()
