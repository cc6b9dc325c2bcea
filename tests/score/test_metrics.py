"""What the metrics without a download say: golden values, and what makes them rise or fall."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from faithdiff import compat  # before torchvision, which pyiqa imports

# isort: split
from pyiqa.archs.piqe_arch import piqe
from pyiqa.archs.stlpips_arch import STLPIPS
from shared import CONFIG
from skimage import data as bundled

from faithdiff.data import artifacts as artifacts_module
from faithdiff.data.artifacts import load_artifacts
from faithdiff.data.images import write_png
from faithdiff.data.photos import PHOTOS, load_photo
from faithdiff.degrade.levels import load_levels
from faithdiff.degrade.pipeline import apply, draw
from faithdiff.restore.arrays import to_tensor
from faithdiff.score.metrics import Measure, load, prepare_all
from faithdiff.score.protocols import choose, load_protocols
from faithdiff.score.scorer import Pair, Scorer
from faithdiff.study import seeds

compat.patch()
Pixels = NDArray[np.uint8]
Change = Callable[[Pixels], Pixels]

PROTOCOLS = load_protocols(CONFIG / "protocols.yaml")
ARTIFACTS = load_artifacts(CONFIG / "artifacts.yaml")
NEW = ["st-lpips", "st-lpips-vgg", "piqe", "niqe"]
NOWHERE = Path("nowhere")


def measure_of(name: str) -> Measure:
    definitions = choose(PROTOCOLS, ["ycbcr"], [name])
    (metric,) = prepare_all(definitions, NOWHERE, ARTIFACTS).values()
    assert metric.unavailable is None
    return load(metric, NOWHERE, "cpu")


def noisy(image: Pixels, sigma: float) -> Pixels:
    noise = np.random.default_rng(7).normal(0, sigma, image.shape)
    return (image + noise).clip(0, 255).round().astype(np.uint8)


def blurred(image: Pixels, sigma: float) -> Pixels:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)


# Golden values: each reference implementation called directly


@pytest.mark.parametrize(("name", "net"), [("st-lpips", "alex"), ("st-lpips-vgg", "vgg")])
def test_st_lpips_is_the_published_network_on_the_packaged_file(name: str, net: str) -> None:
    hq = to_tensor(bundled.astronaut()[:128, 128:256])
    restored = to_tensor(blurred(bundled.astronaut()[:128, 128:256], 1.5))
    file = ARTIFACTS[f"st-lpips-{net}"].file(NOWHERE)
    reference = STLPIPS(net=net, pretrained_model_path=str(file))
    with torch.no_grad():
        expected = reference(restored, hq).item()
    assert expected > 0.1  # of untrained linear layers it would be about zero
    ours = measure_of(name)
    assert ours(restored, hq) == pytest.approx(expected, abs=1e-6)
    assert ours(hq, hq) == 0


def test_every_weight_of_st_lpips_comes_from_the_file() -> None:
    """pyiqa loads it with strict=False, which would leave what is missing at random."""
    for net in ("alex", "vgg"):
        file = ARTIFACTS[f"st-lpips-{net}"].file(NOWHERE)
        found = torch.load(file, map_location="cpu", weights_only=True)
        wanted = STLPIPS(net=net, pretrained=False).state_dict()
        # `lins` lists the linear layers again; they are the modules lin0 to lin4.
        named = {key: value for key, value in wanted.items() if not key.startswith("lins.")}
        assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in named.items()}


def test_piqe_is_pyiqas_function() -> None:
    image = to_tensor(bundled.coffee()[:160, :192])
    assert measure_of("piqe")(image, None) == pytest.approx(piqe(image)[0].item(), abs=1e-4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # basicsr's own imports
@pytest.mark.parametrize("picture", ["astronaut", "chelsea"])
def test_niqe_is_basicsrs(picture: str) -> None:
    from basicsr.metrics.niqe import calculate_niqe

    image = getattr(bundled, picture)()
    expected = calculate_niqe(np.ascontiguousarray(image[..., ::-1]), crop_border=0)
    assert measure_of("niqe")(to_tensor(image), None) == pytest.approx(expected, abs=1e-6)


def test_both_protocols_share_these_definitions() -> None:
    prepared = prepare_all(choose(PROTOCOLS, list(PROTOCOLS), NEW), NOWHERE, ARTIFACTS)
    for name in NEW:
        first, second = (prepared[protocol, name] for protocol in PROTOCOLS)
        assert first.digest == second.digest
        assert not first.definition.higher_is_better
    labels = [PROTOCOLS["ycbcr"].metrics[name].label for name in NEW]
    assert labels == ["ST-LPIPS", "ST-LPIPS (VGG)", "PIQE", "NIQE"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", NEW)
def test_the_smallest_size_gives_a_value_and_one_below_is_refused(
    name: str, tmp_path: Path
) -> None:
    side = PROTOCOLS["ycbcr"].metrics[name].min_size
    definitions = choose(PROTOCOLS, ["ycbcr"], [name])
    scorer = Scorer(prepare_all(definitions, NOWHERE, ARTIFACTS), NOWHERE)
    statuses = []
    for size in (side, side - 1):
        hq = bundled.astronaut()[:size, 120 : 120 + size]
        write_png(hq, tmp_path / "hq.png")
        write_png(noisy(hq, 10), tmp_path / "restored.png")
        outcome = scorer.score(Pair(tmp_path / "restored.png", tmp_path / "hq.png"))
        statuses.append(outcome["ycbcr", name][1])
    wanted = f"unavailable: needs {side} px on the shorter side, the image has {side - 1}"
    assert statuses == ["ok", wanted]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_niqe_of_a_single_block_is_no_value() -> None:
    """Why 192 px are asked for: at 191 there is one block, and no covariance."""
    with pytest.raises(np.linalg.LinAlgError):
        measure_of("niqe")(to_tensor(bundled.astronaut()[:191, :191]), None)


# What makes them rise, on the photographs of the study


@pytest.fixture(scope="module")
def photos() -> list[Pixels]:
    return [load_photo(photo, 128) for photo in PHOTOS[:10]]


@pytest.fixture(scope="module")
def measures() -> Mapping[str, Measure]:
    return {name: measure_of(name) for name in ("st-lpips", "piqe")}


def over(measure: Measure, photos: list[Pixels], changes: list[Change]) -> NDArray[np.float64]:
    """A row for each change, a column for each photograph."""
    return np.array(
        [[measure(to_tensor(change(hq)), to_tensor(hq)) for hq in photos] for change in changes]
    )


def at_level(level: str) -> Change:
    """As the study degrades, enlarged again."""
    chosen = load_levels(CONFIG / "levels.yaml")[level]

    def change(hq: Pixels) -> Pixels:
        seed = seeds.seed(0, "sanity", level, int(hq.sum()))
        lq = apply(hq, draw(chosen, seed, hq.shape[:2], 4))
        size = (hq.shape[1], hq.shape[0])
        return np.asarray(Image.fromarray(lq).resize(size, Image.Resampling.BICUBIC))

    return change


LEVELS = [at_level(level) for level in ("I", "II", "III")]
BLURS: list[Change] = [partial(blurred, sigma=sigma) for sigma in (0.5, 1.0, 2.0)]
NOISE: list[Change] = [partial(noisy, sigma=sigma) for sigma in (5.0, 10.0, 20.0, 40.0)]


def untouched(hq: Pixels) -> Pixels:
    return hq


@pytest.mark.parametrize("changes", [BLURS, NOISE], ids=["blur", "noise"])
def test_st_lpips_rises_with_blur_and_noise_on_every_photo(
    changes: list[Change], photos: list[Pixels], measures: Mapping[str, Measure]
) -> None:
    values = over(measures["st-lpips"], photos, [untouched, *changes])
    assert (np.diff(values, axis=0) > 0).all()


def test_st_lpips_rises_with_the_degradation_level(
    photos: list[Pixels], measures: Mapping[str, Measure]
) -> None:
    values = over(measures["st-lpips"], photos, [untouched, *LEVELS])
    assert (np.diff(values.mean(axis=1)) > 0.02).all()
    assert (values[0] < values[1]).all() and (values[1] < values[3]).all()


def test_piqe_tells_level_three_from_the_others_and_hardly_one_from_two(
    photos: list[Pixels], measures: Mapping[str, Measure]
) -> None:
    clean, one, two, three = over(measures["piqe"], photos, [untouched, *LEVELS])
    assert (clean < np.minimum(one, two)).all()
    assert max(one.mean(), two.mean()) + 5 < three.mean()
    assert abs(one.mean() - two.mean()) < 5  # as docs/data.md says


def test_piqe_rises_with_blur_and_with_strong_noise(
    photos: list[Pixels], measures: Mapping[str, Measure]
) -> None:
    blur = over(measures["piqe"], photos, [untouched, *BLURS])
    assert (np.diff(blur.mean(axis=1)) > 0).all()
    assert (np.diff(over(measures["piqe"], photos, NOISE), axis=0)[1:] > 0).all()


def test_piqe_prefers_a_little_noise_to_the_clean_photo(
    photos: list[Pixels], measures: Mapping[str, Measure]
) -> None:
    """The blind spot that docs/data.md names: grain lowers PIQE, so it is no verdict alone."""
    clean, grainy = over(measures["piqe"], photos, [untouched, NOISE[0]])
    assert grainy.mean() < clean.mean() - 5
    assert (grainy < clean).sum() >= 6
    clean, grainy = over(measures["st-lpips"], photos, [untouched, NOISE[0]])
    assert (grainy > clean).all()


# ST-LPIPS is no LPIPS


@pytest.fixture
def both(tmp_path: Path) -> Pair:
    hq = load_photo(PHOTOS[0], 64)
    write_png(hq, tmp_path / "hq.png")
    write_png(blurred(hq, 1), tmp_path / "restored.png")
    return Pair(tmp_path / "restored.png", tmp_path / "hq.png")


def test_st_lpips_never_fills_the_column_of_lpips(both: Pair, tmp_path: Path) -> None:
    names = ["lpips", "st-lpips"]
    metrics = prepare_all(choose(PROTOCOLS, list(PROTOCOLS), names), tmp_path, ARTIFACTS)
    outcome = Scorer(metrics, tmp_path).score(both)
    for protocol in PROTOCOLS:
        assert outcome[protocol, "st-lpips"][1] == "ok"
        value, status = outcome[protocol, "lpips"]
        assert value == ""
        assert status.startswith("unavailable: needs alexnet")
    for protocol in PROTOCOLS.values():
        for name, definition in protocol.metrics.items():
            if "stlpips" in definition.network:
                assert name.startswith("st-lpips")
                assert definition.label.startswith("ST-LPIPS")


def test_without_the_package_its_metrics_are_unavailable_and_the_others_go_on(
    both: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts_module.Package, "installed", None)
    names = ["psnr", "st-lpips", "piqe"]
    metrics = prepare_all(choose(PROTOCOLS, ["ycbcr"], names), tmp_path, ARTIFACTS)
    scorer = Scorer(metrics, tmp_path)
    outcome = scorer.score(both)
    assert outcome["ycbcr", "st-lpips"] == (
        "",
        "unavailable: needs alex_shift_tolerant.pth of the package stlpips-pytorch 0.0.2; "
        "run: pip install --no-deps stlpips-pytorch==0.0.2",
    )
    assert outcome["ycbcr", "psnr"][1] == outcome["ycbcr", "piqe"][1] == "ok"
    assert scorer.computed == 2
    monkeypatch.undo()  # it is installed: the digest changes, and so only its value is computed
    found = prepare_all(choose(PROTOCOLS, ["ycbcr"], names), tmp_path, ARTIFACTS)
    assert found["ycbcr", "st-lpips"].digest != metrics["ycbcr", "st-lpips"].digest
    assert found["ycbcr", "psnr"].digest == metrics["ycbcr", "psnr"].digest
    assert Scorer(found, tmp_path).score(both)["ycbcr", "st-lpips"][1] == "ok"
