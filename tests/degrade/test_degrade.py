"""Degradation: kernels and operations are basicsr's, draws keep to their level, bytes repeat."""

from __future__ import annotations

import csv
import json
import math
import random
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from faithdiff import compat  # noqa: F401  (must precede basicsr)
from faithdiff.data.images import read_image, sha256_file, write_png
from faithdiff.degrade.dataset import degrade_dataset
from faithdiff.degrade.levels import Level, load_levels
from faithdiff.degrade.pipeline import apply, draw, make_kernel
from faithdiff.errors import ConfigError, ImageError

from basicsr.data import degradations as basicsr  # isort: skip
from basicsr.utils.img_process_util import filter2D  # isort: skip
from shared import ROOT

LEVELS_FILE = ROOT / "config" / "levels.yaml"
LEVELS = load_levels(LEVELS_FILE)

level_names = st.sampled_from(sorted(LEVELS))
any_seed = st.integers(0, 2**63 - 1)
few = settings(deadline=None, max_examples=60)


def scene(seed: int, height: int = 128, width: int = 128) -> np.ndarray:
    """Photograph-like statistics: soft colour fields, hard edges and fine gratings."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(40, 215, (6, 6, 3)).astype(np.float32)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(12):
        y, x = rng.integers(0, height - 8), rng.integers(0, width - 8)
        image[y : y + rng.integers(4, 40), x : x + rng.integers(4, 40)] += rng.uniform(-70, 70, 3)
    wave = np.sin(np.arange(width) * rng.uniform(0.5, 1.2)) * rng.uniform(5, 20)
    image[height // 2 :] += wave[None, :, None].astype(np.float32)
    return np.clip(np.round(image), 0, 255).astype(np.uint8)


def one_step(image: np.ndarray, **step: Any) -> np.ndarray:
    """Apply a single operation at scale 1."""
    parameters = {"hq_size": list(image.shape[:2]), "scale": 1, "steps": [step]}
    return apply(image, parameters)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


def upsampled(lq: np.ndarray, like: np.ndarray) -> np.ndarray:
    size = (like.shape[1], like.shape[0])
    return np.asarray(Image.fromarray(lq).resize(size, Image.Resampling.BICUBIC))


# --- operations -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "reference"),
    [
        ("iso", lambda: basicsr.bivariate_Gaussian(15, 1.7, 0.6, 0.4, isotropic=True)),
        ("aniso", lambda: basicsr.bivariate_Gaussian(15, 1.7, 0.6, 0.4, isotropic=False)),
        (
            "generalized_iso",
            lambda: basicsr.bivariate_generalized_Gaussian(15, 1.7, 0.6, 0.4, 2.5, isotropic=True),
        ),
        (
            "generalized_aniso",
            lambda: basicsr.bivariate_generalized_Gaussian(15, 1.7, 0.6, 0.4, 2.5, isotropic=False),
        ),
        ("plateau_iso", lambda: basicsr.bivariate_plateau(15, 1.7, 0.6, 0.4, 2.5, isotropic=True)),
        (
            "plateau_aniso",
            lambda: basicsr.bivariate_plateau(15, 1.7, 0.6, 0.4, 2.5, isotropic=False),
        ),
    ],
)
def test_kernels_are_those_of_basicsr(family: str, reference: Any) -> None:
    step = {"kernel": family, "size": 15, "sigma": [1.7, 0.6], "theta": 0.4, "beta": 2.5}
    np.testing.assert_allclose(make_kernel(step), reference(), atol=1e-7)


def test_gaussian_kernel_has_the_stated_width_and_direction() -> None:
    kernel = make_kernel({"kernel": "aniso", "size": 21, "sigma": [2.0, 1.0], "theta": math.pi / 2})
    axis = np.arange(-10, 11)
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    # basicsr's grid is (x, y); a quarter turn puts the long axis, sigma 2, along rows.
    assert (kernel.sum(axis=1) * axis**2).sum() == pytest.approx(4, rel=0.02)
    assert (kernel.sum(axis=0) * axis**2).sum() == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize(
    "step",
    [
        {"kernel": "aniso", "size": 9, "sigma": [1.9, 0.5], "theta": 0.7},
        {"kernel": "iso", "size": 21, "sigma": [3.0, 3.0], "theta": 0.0},
        {"kernel": "sinc", "size": 21, "cutoff": 1.1},
    ],
)
def test_blur_equals_basicsr_filter2d(step: dict[str, Any]) -> None:
    image, kernel = scene(1, 64, 80), make_kernel(step)
    planes = torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32) / 255)[None]
    reference = filter2D(planes, torch.from_numpy(kernel)[None])[0].numpy().transpose(1, 2, 0)
    ours = cv2.filter2D(
        image.astype(np.float32) / 255, -1, kernel, borderType=cv2.BORDER_REFLECT_101
    )
    assert np.abs(ours - reference).max() < 2e-6
    blurred = one_step(image, op="blur", **step)
    expected = np.clip(reference * 255, 0, 255)
    assert np.abs(blurred - expected).max() <= 0.5 + 1e-3


def test_a_sinc_kernel_needs_no_padding() -> None:
    # basicsr pads every kernel to 21 to batch them; here each keeps its own side.
    image = scene(2, 48, 48)
    padded = basicsr.circular_lowpass_kernel(1.3, 9, pad_to=21).astype(np.float32)
    expected = cv2.filter2D(image.astype(np.float32), -1, padded, borderType=cv2.BORDER_REFLECT_101)
    ours = one_step(image, op="blur", kernel="sinc", size=9, cutoff=1.3)
    assert np.abs(ours - np.clip(expected, 0, 255)).max() <= 0.5 + 1e-2


@pytest.mark.parametrize("gray", [False, True])
def test_gaussian_noise_is_the_stated_noise(gray: bool) -> None:
    image = np.full((96, 96, 3), 128, np.uint8)
    noisy = one_step(image, op="gaussian", sigma=12.0, gray=gray, seed=5).astype(float) - 128
    assert noisy.std() == pytest.approx(12, rel=0.03)
    assert np.array_equal(noisy[..., 0], noisy[..., 1]) is gray
    noise = np.random.RandomState(5).randn(96, 96) if gray else None
    if noise is not None:
        assert np.abs(noisy[..., 0] - 12 * noise).max() <= 0.5 + 1e-3


def test_poisson_noise_grows_with_brightness_and_scale() -> None:
    def spread(value: int, scale: float) -> float:
        # 256 gray values somewhere in the picture, so that basicsr counts photons at 8 bit
        image = np.full((128, 128, 3), value, np.uint8)
        image[0] = np.arange(128)[:, None]
        image[1] = np.arange(128, 256)[:, None]
        noisy = one_step(image, op="poisson", scale=scale, gray=False, seed=3)
        return float(noisy[2:].std())

    assert spread(100, 1.0) == pytest.approx(math.sqrt(100), rel=0.05)
    assert spread(25, 1.0) == pytest.approx(math.sqrt(25), rel=0.05)
    assert spread(100, 0.5) == pytest.approx(math.sqrt(100) / 2, rel=0.05)


def test_gray_poisson_noise_weighs_rgb_as_luma() -> None:
    # Pure red has luma 0.299 and pure blue 0.114: swapped channels would swap the two spreads.
    def spread(channel: int) -> float:
        image = np.zeros((128, 128, 3), np.uint8)
        image[..., channel] = 255
        image[:2] = np.arange(256).reshape(2, 128, 1)
        noisy = one_step(image, op="poisson", scale=0.5, gray=True, seed=3)
        return float(noisy[2:, :, channel].astype(float).std())

    assert spread(0) > 1.3 * spread(2)


@pytest.mark.parametrize("quality", [30, 75, 95])
def test_jpeg_equals_basicsr(quality: int) -> None:
    image = scene(4, 64, 72)
    bgr = image[..., ::-1].astype(np.float32) / 255
    reference = np.round(basicsr.add_jpg_compression(bgr, quality) * 255)[..., ::-1]
    assert np.array_equal(one_step(image, op="jpeg", quality=quality), reference)


# --- draws ----------------------------------------------------------------------------------


def within(value: float, range_: tuple[float, float]) -> bool:
    return range_[0] <= value <= range_[1]


def check_blur(step: dict[str, Any], level: Level) -> None:
    if step["stage"] == "tail":
        assert level.tail is not None and step["kernel"] == "sinc"
        assert within(step["size_drawn"], level.tail.sinc_size)
        assert within(step["cutoff"], (math.pi / 3, math.pi))
        return
    blur = getattr(level, step["stage"]).blur
    assert within(step["size_drawn"], blur.size)
    assert step["size"] <= step["size_drawn"] and step["size"] % 2 == 1
    if step["kernel"] == "sinc":
        lowest = math.pi / 3 if step["size_drawn"] < 13 else math.pi / 5
        assert blur.sinc_prob > 0 and within(step["cutoff"], (lowest, math.pi))
        return
    assert blur.kernels[step["kernel"]] > 0
    assert all(within(sigma, blur.sigma) for sigma in step["sigma"])
    assert within(step["theta"], (-math.pi, math.pi))
    shape = step["kernel"].partition("_")[0]
    assert ("beta" in step) == (shape in ("generalized", "plateau"))
    if "beta" in step:
        assert within(step["beta"], getattr(blur, f"beta_{shape}"))


def check_step(step: dict[str, Any], level: Level) -> None:
    if step["op"] == "blur":
        check_blur(step, level)
        return
    if step["stage"] == "tail":
        assert step["op"] == "resize"
        return
    stage = getattr(level, step["stage"])
    if step["op"] == "resize":
        assert within(step["factor"], stage.resize.range)
        assert step["mode"] in ("area", "bilinear", "bicubic")
    elif step["op"] == "gaussian":
        assert within(step["sigma"], stage.noise.gaussian_sigma)
    elif step["op"] == "poisson":
        assert within(step["scale"], stage.noise.poisson_scale)
    else:
        assert step["op"] == "jpeg" and within(step["quality"], stage.jpeg)


@few
@given(name=level_names, seed=any_seed, height=st.integers(32, 300), width=st.integers(32, 300))
def test_draws_keep_to_their_level(name: str, seed: int, height: int, width: int) -> None:
    level = LEVELS[name]
    parameters = draw(level, seed, (height, width), 4)
    for step in parameters["steps"]:
        check_step(step, level)
    operations = [step["op"] for step in parameters["steps"]]
    orders = 1 if level.second is None else 2
    assert operations.count("jpeg") == orders
    assert operations.count("resize") == orders + 1
    assert operations.count("gaussian") + operations.count("poisson") == orders
    assert json.loads(json.dumps(parameters)) == parameters


def test_choices_come_with_the_stated_chances() -> None:
    level, n = LEVELS["III"], 2000
    drawn = [draw(level, seed, (512, 512), 4)["steps"] for seed in range(n)]
    steps = [step for image in drawn for step in image]
    first = [step for step in steps if step["stage"] == "first"]

    def share(selected: list[Any]) -> float:
        return len(selected) / n

    chance = {
        "iso": share([s for s in first if s.get("kernel") == "iso"]),
        "down": share([s for s in first if s["op"] == "resize" and s["factor"] < 1]),
        "keep": share([s for s in first if s["op"] == "resize" and s["factor"] == 1]),
        "gaussian": share([s for s in first if s["op"] == "gaussian"]),
        "gray": share([s for s in first if s.get("gray")]),
        "blur2": share([s for s in steps if s["stage"] == "second" and s["op"] == "blur"]),
        "sinc": share([s for s in steps if s["stage"] == "tail" and s["op"] == "blur"]),
        "jpeg last": share([image for image in drawn if image[-1]["op"] == "jpeg"]),
    }
    stated = [0.65, 0.7, 0.1, 0.5, 0.4, 0.8, 0.8, 0.5]
    assert list(chance.values()) == pytest.approx(stated, abs=0.04), chance


def test_draws_do_not_change_between_versions() -> None:
    # Another stream would silently change every published LQ image.
    steps = draw(LEVELS["II"], 0, (256, 256), 4)["steps"]
    assert [step["op"] for step in steps] == ["blur", "resize", "poisson", "jpeg", "resize"]
    assert (steps[0]["kernel"], steps[0]["size"]) == ("iso", 15)
    assert steps[0]["sigma"][0] == pytest.approx(1.257251310960354, rel=1e-12)
    assert (steps[2]["seed"], steps[3]["quality"]) == (2404827117, 93)


# --- whole images ---------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(name=level_names, seed=any_seed)
@pytest.mark.parametrize(
    ("height", "width", "expected"), [(32, 32, (8, 8)), (33, 47, (9, 12)), (130, 61, (33, 16))]
)
def test_any_size_gives_the_lq_size(
    height: int, width: int, expected: tuple[int, int], name: str, seed: int
) -> None:
    hq = scene(0, height, width)
    parameters = draw(LEVELS[name], seed, (height, width), 4)
    lq = apply(hq, parameters)
    assert lq.dtype == np.uint8 and lq.shape == (*expected, 3)
    assert lq.std() > 1
    assert np.array_equal(lq, apply(hq, json.loads(json.dumps(parameters))))


def test_kernels_are_capped_to_the_image_and_logged() -> None:
    capped = [
        step
        for seed in range(40)
        for step in draw(LEVELS["III"], seed, (32, 32), 4)["steps"]
        if step["op"] == "blur" and step["size"] < step["size_drawn"]
    ]
    assert capped
    # tail kernels see the 8 px LQ image: radius at most 7
    assert all(step["size"] <= 15 for step in capped if step["stage"] == "tail")
    large = [draw(LEVELS["III"], seed, (512, 512), 4)["steps"] for seed in range(40)]
    assert all(s["size"] == s["size_drawn"] for image in large for s in image if s["op"] == "blur")


@few
@given(name=level_names, seed=any_seed)
def test_logged_sizes_are_the_sizes(name: str, seed: int) -> None:
    hq = scene(0, 64, 48)
    parameters = draw(LEVELS[name], seed, (64, 48), 4)
    for count, step in enumerate(parameters["steps"], 1):
        if step["op"] == "resize":
            partial = {**parameters, "steps": parameters["steps"][:count]}
            assert apply(hq, partial).shape[:2] == tuple(step["size"])


def test_levels_rise_in_severity() -> None:
    images = [scene(seed) for seed in range(24)]
    mean = {
        name: np.mean(
            [
                psnr(hq, upsampled(apply(hq, draw(LEVELS[name], seed, hq.shape[:2], 4)), hq))
                for seed, hq in enumerate(images)
            ]
        )
        for name in ("I", "II", "III")
    }
    assert mean["I"] > mean["II"] + 0.3 > mean["III"] + 1, mean


def test_global_state_is_left_alone() -> None:
    hq = scene(3)
    numpy_before, threads = np.random.get_state()[1].copy(), cv2.getNumThreads()
    python_before, torch_before = random.getstate(), torch.get_rng_state()
    for seed in range(6):
        apply(hq, draw(LEVELS["III"], seed, (128, 128), 4))
    assert np.array_equal(np.random.get_state()[1], numpy_before)
    assert random.getstate() == python_before
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert cv2.getNumThreads() == threads


def test_global_seeds_have_no_effect() -> None:
    hq, parameters = scene(3), draw(LEVELS["III"], 8, (128, 128), 4)
    np.random.seed(1)
    first = apply(hq, parameters)
    np.random.seed(2)
    assert np.array_equal(first, apply(hq, parameters))


def test_images_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ImageError, match="64 x 31 px"):
        draw(LEVELS["I"], 0, (31, 64), 4)
    parameters = draw(LEVELS["I"], 0, (64, 64), 4)
    with pytest.raises(ImageError, match="64, 64"):
        apply(scene(0, 64, 65), parameters)
    with pytest.raises(ImageError, match="float64"):
        apply(np.zeros((64, 64, 3)), parameters)


# --- datasets ------------------------------------------------------------------------------


def write_dataset(folder: Path, names: list[str]) -> tuple[Path, Path]:
    (folder / "hq").mkdir(parents=True)
    for name in names:
        write_png(scene(sum(name.encode()), 48, 64), folder / "hq" / f"{name}.png")
    with (folder / "index.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("name", "caption"), *((name, "a scene, drawn") for name in names)])
    return folder / "hq", folder / "index.csv"


def degrade(folder: Path, names: list[str], level: str = "III") -> dict[str, dict[str, Any]]:
    hq, index = write_dataset(folder, names)
    out = folder / "lq"
    degrade_dataset(hq, index, level, LEVELS[level], 4, 7, "Scenes", out, progress=False)
    lines = (out / "degradation.jsonl").read_text().splitlines()
    return {(line := json.loads(text))["name"]: line for text in lines}


def test_bytes_do_not_depend_on_order_or_subset(tmp_path: Path) -> None:
    whole = degrade(tmp_path / "whole", ["a", "b", "c", "d"])
    part = degrade(tmp_path / "part", ["d", "b"])
    assert list(part) == ["b", "d"]
    for name, line in part.items():
        assert line == whole[name]
        file = f"lq/{name}.png"
        assert (tmp_path / "part" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_the_log_suffices_to_redo_an_image(tmp_path: Path) -> None:
    log = degrade(tmp_path, ["a", "b", "c"])
    for name, line in log.items():
        hq, lq = tmp_path / "hq" / f"{name}.png", tmp_path / "lq" / f"{name}.png"
        assert np.array_equal(apply(read_image(hq), line["parameters"]), read_image(lq))
        assert (line["hq_sha256"], line["lq_sha256"]) == (sha256_file(hq), sha256_file(lq))
        assert line["parameters"] == draw(LEVELS[line["level"]], line["seed"], (48, 64), 4)


def test_level_and_name_change_the_seed(tmp_path: Path) -> None:
    three = degrade(tmp_path / "three", ["a", "b"], "III")
    two = degrade(tmp_path / "two", ["a", "b"], "II")
    seeds = {line["seed"] for log in (three, two) for line in log.values()}
    assert len(seeds) == 4


def test_a_failed_run_leaves_no_log(tmp_path: Path) -> None:
    degrade(tmp_path, ["a", "b"])
    (tmp_path / "hq" / "b.png").unlink()
    with pytest.raises(ImageError, match=r"b\.png"):
        degrade_dataset(
            tmp_path / "hq",
            tmp_path / "index.csv",
            "I",
            LEVELS["I"],
            4,
            7,
            "Scenes",
            tmp_path / "lq",
            progress=False,
        )
    assert not (tmp_path / "lq" / "degradation.jsonl").exists()


@pytest.mark.parametrize(
    ("index", "message"),
    [("name\n", "no image"), ("title\nx\n", "column 'name'"), ("name\nx\nx\n", "more than once")],
)
def test_a_bad_index_is_named(tmp_path: Path, index: str, message: str) -> None:
    file = tmp_path / "index.csv"
    file.write_text(index)
    with pytest.raises(ImageError, match=f"index.csv.*{message}"):
        degrade_dataset(tmp_path, file, "I", LEVELS["I"], 4, 7, "S", tmp_path / "lq", False)


# --- the levels file ------------------------------------------------------------------------


def test_shipped_levels_nest() -> None:
    """Weak ranges lie inside severe ones, as in DASR."""
    one, two, three = (LEVELS[name].first for name in ("I", "II", "III"))
    for weak, strong in ((one, two), (two, three)):
        assert weak.blur.sigma[1] < strong.blur.sigma[1]
        assert weak.resize.range[0] > strong.resize.range[0]
        assert weak.noise.gaussian_sigma[1] < strong.noise.gaussian_sigma[1]
        assert weak.noise.poisson_scale[1] < strong.noise.poisson_scale[1]
        assert weak.jpeg[0] > strong.jpeg[0]
    assert LEVELS["I"].second is None and LEVELS["III"].second is not None


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (("III", "first", "blur", "sigma"), [3, 0.2], "III.first.blur.sigma"),
        (("III", "first", "blur", "size"), [8, 21], "III.first.blur.size"),
        (("III", "first", "blur", "prob"), 1.2, "III.first.blur.prob"),
        (("III", "first", "blur", "kernels"), {"iso": 0.6}, "III.first.blur.kernels"),
        (("III", "first", "blur", "kernels"), {"round": 1.0}, "round"),
        (("III", "first", "blur", "kernels"), {"plateau_iso": 1.0}, "beta_plateau"),
        (("III", "second", "resize", "keep"), 0.9, "III.second.resize"),
        (("III", "second", "resize", "range"), [1.1, 1.2], "III.second.resize.range"),
        (("III", "second", "jpeg"), [30, 101], "III.second.jpeg"),
        (("III", "second", "jepg"), [30, 95], "jepg"),
        (("III", "tail"), None, "second and tail"),
        (("train", "first", "blur", "beta_plateau"), [1.5, 2], "train.first.blur.beta_plateau"),
    ],
)
def test_a_bad_level_names_file_and_field(
    tmp_path: Path, path: tuple[str, ...], value: Any, field: str
) -> None:
    content = yaml.safe_load(LEVELS_FILE.read_text())
    section = content["levels"]
    for key in path[:-1]:
        section = section[key]
    section[path[-1]] = value
    file = tmp_path / "levels.yaml"
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError) as caught:
        load_levels(file)
    assert "levels.yaml" in str(caught.value) and field in str(caught.value)
