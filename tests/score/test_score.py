"""Scores: agreement with basicsr and lpips, missing and arriving weights, refusals."""

from __future__ import annotations

import csv
import json
import math
import random
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from faithdiff import compat  # before torchvision, which pyiqa imports

# isort: split
from pyiqa.archs import clip_model, lpips_arch, musiq_arch
from pyiqa.archs.clipiqa_arch import default_model_urls as clipiqa_urls
from pyiqa.default_model_configs import DEFAULT_CONFIGS
from shared import CONFIG

from faithdiff.config import Profile, load_profile
from faithdiff.data.artifacts import Artifact, load_artifacts
from faithdiff.data.fetch import fetch_all
from faithdiff.data.images import sha256_file, write_png
from faithdiff.errors import ConfigError, RunError, UserError
from faithdiff.score.cache import ScoreCache
from faithdiff.score.metrics import Metric, prepare_all
from faithdiff.score.protocols import MetricDefinition, choose, load_protocols, weights_state
from faithdiff.score.rows import COLUMNS
from faithdiff.score.run import ScoredSet, score_folder, score_job, write_scores
from faithdiff.score.scorer import Pair, Scorer
from faithdiff.study.layout import Layout

compat.patch()
PROTOCOLS = load_protocols(CONFIG / "protocols.yaml")
ARTIFACTS = load_artifacts(CONFIG / "artifacts.yaml")
BOTH = ["faithdiff-repo", "ycbcr"]
PLACE = ScoredSet("faithdiff", "faithdiff", 0, "Photos", "II")


def picture(seed: int, size: int = 48) -> np.ndarray:
    """A smooth random picture, so that similarity indices lie well inside their range."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.random((1, 3, size // 8, size // 8)))
    fine = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")
    return (fine[0].permute(1, 2, 0).clamp(0, 1).numpy() * 255).round().astype(np.uint8)


def noisy(image: np.ndarray, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 12, image.shape)
    return (image + noise).clip(0, 255).round().astype(np.uint8)


def pair(folder: Path, restored: np.ndarray, hq: np.ndarray) -> Pair:
    write_png(restored, folder / "restored.png")
    write_png(hq, folder / "hq.png")
    return Pair(folder / "restored.png", folder / "hq.png")


def prepared(
    metrics: list[str],
    weights: Path = Path("nowhere"),
    artifacts: Mapping[str, Artifact] = ARTIFACTS,
) -> dict[tuple[str, str], Metric]:
    return prepare_all(choose(PROTOCOLS, BOTH, metrics), weights, artifacts)


def values(images: Pair, metrics: list[str]) -> dict[tuple[str, str], float]:
    outcome = Scorer(prepared(metrics), Path("nowhere")).score(images)
    assert {status for _, status in outcome.values()} == {"ok"}
    return {key: float(value) for key, (value, _) in outcome.items()}


# The numbers


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # basicsr's own imports
def test_psnr_and_ssim_agree_with_basicsr(tmp_path: Path) -> None:
    from basicsr.metrics import calculate_psnr, calculate_ssim

    hq = picture(1, 96)
    restored = noisy(hq, 2)
    ours = values(pair(tmp_path, restored, hq), ["psnr", "ssim"])
    a, b = restored[..., ::-1], hq[..., ::-1]  # basicsr takes BGR
    rgb = calculate_psnr(a, b, crop_border=0)
    luma = calculate_psnr(a, b, crop_border=0, test_y_channel=True)
    assert ours["faithdiff-repo", "psnr"] == pytest.approx(rgb, abs=2e-4)
    assert ours["ycbcr", "psnr"] == pytest.approx(luma, abs=2e-4)
    # pyiqa rounds the luma to integers before SSIM, basicsr does not.
    similarity = calculate_ssim(a, b, crop_border=0, test_y_channel=True)
    assert ours["ycbcr", "ssim"] == pytest.approx(similarity, abs=2e-3)


def test_the_two_lumas_differ_by_their_range(tmp_path: Path) -> None:
    """PSNR on the Y of YIQ (0..255) is 20 log10(255 / 219) below that of YCbCr (16..235)."""
    definition = PROTOCOLS["ycbcr"].metrics["psnr"]
    yiq = definition.model_copy(update={"options": {"test_y_channel": True, "color_space": "yiq"}})
    metrics = prepare_all({("a", "psnr"): definition, ("b", "psnr"): yiq}, tmp_path, {})
    hq = picture(3)
    outcome = Scorer(metrics, tmp_path).score(pair(tmp_path, noisy(hq, 4), hq))
    difference = float(outcome["a", "psnr"][0]) - float(outcome["b", "psnr"][0])
    assert difference == pytest.approx(20 * math.log10(255 / 219), abs=1e-3)
    assert difference == pytest.approx(1.3219, abs=1e-3)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 2**31), st.integers(11, 40), st.integers(11, 40))
def test_psnr_is_the_formula(
    tmp_path_factory: pytest.TempPathFactory, seed: int, height: int, width: int
) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    ours = values(pair(tmp_path_factory.mktemp("pair"), a, b), ["psnr"])
    error = np.mean((a / 255 - b / 255) ** 2)
    assert ours["faithdiff-repo", "psnr"] == pytest.approx(-10 * np.log10(error), abs=1e-3)


def test_crop_border_takes_the_border_from_both_images(tmp_path: Path) -> None:
    definition = PROTOCOLS["ycbcr"].metrics["psnr"].model_copy(update={"crop_border": 4})
    hq = picture(5)
    restored = hq.copy()
    restored[:4] = 0  # only the border differs
    metrics = prepare_all({("ycbcr", "psnr"): definition}, tmp_path, {})
    outcome = Scorer(metrics, tmp_path).score(pair(tmp_path, restored, hq))
    assert float(outcome["ycbcr", "psnr"][0]) == pytest.approx(80)  # pyiqa's cap: equal images


def test_what_a_metric_cannot_do_at_a_size_is_said(tmp_path: Path) -> None:
    hq = picture(6, 128)
    outcome = Scorer(prepared(["ms_ssim", "gmsd"]), tmp_path).score(
        pair(tmp_path, noisy(hq, 7), hq)
    )
    assert outcome["ycbcr", "ms_ssim"] == (
        "",
        "unavailable: needs 161 px on the shorter side, the image has 128",
    )
    assert outcome["ycbcr", "gmsd"][1] == "ok"


def test_min_sizes_are_the_real_limits(tmp_path: Path) -> None:
    """At its smallest size a metric gives a value; one pixel below ms_ssim's, pyiqa raises."""
    for name in ("psnr", "ssim", "ms_ssim", "gmsd", "fsim"):
        definition = PROTOCOLS["ycbcr"].metrics[name]
        size = definition.min_size
        image = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
        outcome = score_one(definition, pair(tmp_path, noisy(image, 1), image))
        assert outcome[1] == "ok", name
    free = PROTOCOLS["ycbcr"].metrics["ms_ssim"].model_copy(update={"min_size": 1})
    image = np.random.default_rng(0).integers(0, 256, (160, 160, 3), dtype=np.uint8)
    value, status = score_one(free, pair(tmp_path, noisy(image, 1), image))
    assert value == ""
    assert status.startswith("failed: RuntimeError")


def score_one(definition: MetricDefinition, images: Pair) -> tuple[str, str]:
    metrics = prepare_all({("p", "m"): definition}, Path("nowhere"), ARTIFACTS)
    return Scorer(metrics, Path("nowhere")).score(images)["p", "m"]


def test_a_wrong_size_and_a_nan_are_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = Scorer(prepared(["psnr"]), tmp_path).score(
        pair(tmp_path, picture(1, 40), picture(1, 48))
    )
    assert outcome["ycbcr", "psnr"] == ("", "failed: size 40x40 != 48x48")
    monkeypatch.setattr("faithdiff.score.scorer.load", lambda *_: lambda *_: math.nan)
    cache = ScoreCache(tmp_path / "cache.csv")
    scorer = Scorer(prepared(["psnr"]), tmp_path, cache=cache)
    outcome = scorer.score(pair(tmp_path, picture(1), picture(2)))
    assert outcome["ycbcr", "psnr"] == ("", "failed: value is nan")
    assert not (tmp_path / "cache.csv").exists()  # only ok values are kept


# The definitions


def test_definitions_agree_with_pyiqa() -> None:
    for protocol in PROTOCOLS.values():
        for definition in protocol.metrics.values():
            if definition.library != "pyiqa":
                continue
            known = DEFAULT_CONFIGS[definition.network]
            assert definition.needs_reference == (known["metric_mode"] == "FR")
            assert definition.higher_is_better != known.get("lower_better", False)


def test_artifacts_are_the_files_that_pyiqa_asks_for() -> None:
    from torchvision.models import AlexNet_Weights

    asked = {
        "alexnet": AlexNet_Weights.IMAGENET1K_V1.url,
        "lpips-alex": lpips_arch.default_model_urls["0.1_alex"],
        "musiq-koniq": musiq_arch.default_model_urls["koniq10k"],
        "clip-rn50": clip_model._MODELS["RN50"],
        "clipiqa-plus-prompts": clipiqa_urls["clipiqa+"],
        "clip-vit-l14": clip_model._MODELS["ViT-L/14"],
        "clipiqa-plus-vit-l14-512": clipiqa_urls["clipiqa+_vitL14_512"],
    }
    assert {name: ARTIFACTS[name].address for name in asked} == asked
    assert all(ARTIFACTS[name].path.name == url.rsplit("/", 1)[1] for name, url in asked.items())


def test_shared_definitions_are_computed_once_and_digests_tell_the_rest(tmp_path: Path) -> None:
    metrics = prepared(["psnr", "gmsd"])
    assert metrics["ycbcr", "gmsd"].digest == metrics["faithdiff-repo", "gmsd"].digest
    assert metrics["ycbcr", "psnr"].digest != metrics["faithdiff-repo", "psnr"].digest
    scorer = Scorer(metrics, tmp_path)
    scorer.score(pair(tmp_path, picture(1), picture(2)))
    assert scorer.computed == 3


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="'rgb' is not one of"):
        choose(PROTOCOLS, ["rgb"], ["psnr"])
    with pytest.raises(ConfigError, match="protocol ycbcr has no 'lpipps'"):
        choose(PROTOCOLS, ["ycbcr"], ["lpipps"])
    definition = PROTOCOLS["ycbcr"].metrics["psnr"].model_copy(update={"network": "psnr2"})
    with pytest.raises(ConfigError, match="no metric 'psnr2'"):
        prepare_all({("ycbcr", "psnr"): definition}, Path("nowhere"), {})


# Weights


def test_missing_weights_are_unavailable_with_the_command(tmp_path: Path) -> None:
    scorer = Scorer(prepared(["lpips", "musiq", "clipiqa+"], tmp_path), tmp_path)
    outcome = scorer.score(pair(tmp_path, picture(1), picture(2)))
    value, status = outcome["ycbcr", "lpips"]
    assert value == ""
    assert status == (
        "unavailable: needs alexnet-owt-7be5be79.pth (244.4 MB), "
        "LPIPS_v0.1_alex-df73285e.pth (0.006 MB); run: faithdiff fetch --weights lpips"
    )
    assert outcome["ycbcr", "musiq"][1].endswith("run: faithdiff fetch --weights musiq")
    assert "RN50.pt (256 MB)" in outcome["ycbcr", "clipiqa+"][1]
    assert "ViT-L-14.pt (933 MB)" in outcome["faithdiff-repo", "clipiqa+"][1]
    assert scorer.computed == 0


def test_corrupted_weights_are_unavailable(tmp_path: Path) -> None:
    save({}, ARTIFACTS["musiq-koniq"].file(tmp_path))
    problem = prepared(["musiq"], tmp_path)["ycbcr", "musiq"].unavailable
    assert problem is not None
    assert "here corrupt: sha256" in problem


def test_weights_of_another_network_fail_without_a_value(tmp_path: Path) -> None:
    save({"head.weight": torch.zeros(3)}, ARTIFACTS["musiq-koniq"].file(tmp_path))
    metrics = prepared(["musiq"], tmp_path, as_found(tmp_path))
    outcome = Scorer(metrics, tmp_path).score(pair(tmp_path, picture(1), picture(2)))
    value, status = outcome["ycbcr", "musiq"]
    assert value == ""
    assert status.startswith("failed: cannot be loaded: RuntimeError: Error(s) in loading")


def test_a_definition_that_forgets_its_weights_does_not_download_them(tmp_path: Path) -> None:
    definition = PROTOCOLS["ycbcr"].metrics["lpips"].model_copy(update={"artifacts": []})
    _, status = score_one(definition, pair(tmp_path, picture(1), picture(2)))
    assert status.startswith("failed: cannot be loaded: URLError: <urlopen error scoring uses no")


def save(weights: Any, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(weights, file)


def as_found(weights: Path) -> dict[str, Artifact]:
    """The shipped list, with the hashes of the (random) files that lie in `weights`."""

    def own(item: Artifact) -> Artifact:
        file = item.file(weights)
        update = {"sha256": sha256_file(file), "sha256_prefix": None} if file.exists() else {}
        return item.model_copy(update=update)

    return {name: own(item) for name, item in ARTIFACTS.items()}


def small_clip(patch: int | None) -> clip_model.CLIP:
    """A tiny CLIP with random weights, a ViT (given its patch) or a ResNet."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = clip_model.CLIP(
            embed_dim=64,
            image_resolution=4 * patch if patch else 64,
            vision_layers=1 if patch else (1, 1, 1, 1),
            vision_width=64 if patch else 16,
            vision_patch_size=patch,
            context_length=77,
            vocab_size=49408,
            transformer_width=64,
            transformer_heads=1,
            transformer_layers=1,
        )
    return model.eval()


def save_archive(model: clip_model.CLIP, file: Path) -> None:
    """Save as the published CLIPs are: a TorchScript archive."""
    side = model.visual.input_resolution
    text = torch.zeros(1, 77, dtype=torch.long)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and what CLIP was published as
        archive = torch.jit.trace(model, (torch.zeros(1, 3, side, side), text), check_trace=False)
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.jit.save(archive, file)


def put_clip(weights: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Artifact]:
    """Put random CLIPs where pyiqa looks for the real ones; its own hash check stays on."""
    for name, key, patch in (("clip-rn50", "RN50", None), ("clip-vit-l14", "ViT-L/14", 14)):
        file = ARTIFACTS[name].file(weights)
        save_archive(small_clip(patch), file)
        address = f"https://example.invalid/{sha256_file(file)}/{file.name}"
        monkeypatch.setitem(clip_model._MODELS, key, address)
    noise = torch.Generator().manual_seed(1)
    prompts = {
        f"prompt_learner.{name}": torch.randn(2, length, 64, generator=noise)
        for name, length in (("ctx", 16), ("token_prefix", 1), ("token_suffix", 60))
    }
    save(prompts["prompt_learner.ctx"], ARTIFACTS["clipiqa-plus-prompts"].file(weights))
    save({"params": prompts}, ARTIFACTS["clipiqa-plus-vit-l14-512"].file(weights))
    return as_found(weights)


@pytest.mark.parametrize("size", [32, 64, 128])
def test_clipiqa_loads_through_pyiqa_from_the_weights_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    artifacts = put_clip(tmp_path, monkeypatch)
    before = torch.hub.get_dir(), torch.get_rng_state()
    metrics = prepared(["clipiqa+"], tmp_path, artifacts)
    images = pair(tmp_path, picture(1, size), picture(2, size))
    outcome = Scorer(metrics, tmp_path).score(images)
    assert {status for _, status in outcome.values()} == {"ok"}
    assert outcome == Scorer(metrics, tmp_path).score(images)
    other = pair(tmp_path, picture(3, size), picture(2, size))
    assert outcome != Scorer(metrics, tmp_path).score(other)
    assert torch.hub.get_dir() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # lpips' use of torchvision
def test_lpips_and_musiq_load_through_pyiqa_from_the_weights_folder(tmp_path: Path) -> None:
    import lpips
    import torchvision

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save(torchvision.models.alexnet().state_dict(), ARTIFACTS["alexnet"].file(tmp_path))
        torch.manual_seed(0)
        official = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
        musiq = musiq_arch.MUSIQ(pretrained=False)
    save(musiq.state_dict(), ARTIFACTS["musiq-koniq"].file(tmp_path))
    linear = ARTIFACTS["lpips-alex"].file(tmp_path)
    linear.parent.mkdir(parents=True, exist_ok=True)
    linear.write_bytes((Path(lpips.__file__).parent / "weights/v0.1/alex.pth").read_bytes())
    assert sha256_file(linear) == ARTIFACTS["lpips-alex"].sha256
    metrics = prepared(["lpips", "musiq"], tmp_path, as_found(tmp_path))
    images = pair(tmp_path, picture(1, 64), picture(2, 64))
    outcome = Scorer(metrics, tmp_path).score(images)
    assert {status for _, status in outcome.values()} == {"ok"}
    restored, hq = (image * 2 - 1 for image in images.images)
    with torch.no_grad():
        expected = official(restored, hq).item()
    assert float(outcome["ycbcr", "lpips"][0]) == pytest.approx(expected, rel=1e-5)
    assert outcome["ycbcr", "lpips"] == outcome["faithdiff-repo", "lpips"]
    smallest = pair(tmp_path, picture(1, 32), picture(2, 32))
    assert {status for _, status in Scorer(metrics, tmp_path).score(smallest).values()} == {"ok"}


# Folders and jobs


def folders(root: Path, count: int) -> tuple[dict[str, Path], dict[str, Path]]:
    hq, restored = {}, {}
    for index in range(count):
        name = f"image-{index}"
        hq[name], restored[name] = root / "hq" / f"{name}.png", root / "restored" / f"{name}.png"
        write_png(picture(index), hq[name])
        write_png(noisy(picture(index), index), restored[name])
    return hq, restored


def test_neither_order_nor_company_changes_a_row(tmp_path: Path) -> None:
    hq, restored = folders(tmp_path, 4)
    metrics = prepared(["psnr", "ssim"])
    write_scores(score_folder(hq, restored, Scorer(metrics, tmp_path), PLACE), tmp_path / "a.csv")
    names = list(hq)
    random.Random(3).shuffle(names)
    alone = [
        row
        for name in names
        for row in score_folder(
            {name: hq[name]}, {name: restored[name]}, Scorer(metrics, tmp_path), PLACE
        )
    ]
    write_scores(alone, tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    rows = read(tmp_path / "a.csv")
    assert list(rows[0]) == list(COLUMNS)
    assert len(rows) == 4 * 2 * 2


def test_unmatched_names_are_refused(tmp_path: Path) -> None:
    hq, restored = folders(tmp_path, 2)
    del restored["image-1"]
    with pytest.raises(UserError, match="no restored image for 'image-1'"):
        score_folder(hq, restored, Scorer(prepared(["psnr"]), tmp_path), PLACE)


def test_a_torn_cache_line_costs_one_value(tmp_path: Path) -> None:
    hq, restored = folders(tmp_path, 3)
    file = tmp_path / "cache.csv"
    metrics = {("ycbcr", "psnr"): prepared(["psnr"])["ycbcr", "psnr"]}
    first = score_folder(hq, restored, Scorer(metrics, tmp_path, cache=ScoreCache(file)), PLACE)
    file.write_bytes(file.read_bytes()[:-5])  # killed while writing the last value
    scorer = Scorer(metrics, tmp_path, cache=ScoreCache(file))
    assert score_folder(hq, restored, scorer, PLACE) == first
    assert scorer.computed == 1
    assert len(ScoreCache(file)._values) == 3


def read(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Profile, Layout]:
    """A profile with one test set at two levels, restored by `faithdiff`; tmp_path is the cwd."""
    monkeypatch.chdir(tmp_path)
    Path("profile.yaml").write_text(
        yaml.safe_dump(
            {
                "extends": str(CONFIG / "mini.yaml"),
                "data": {
                    "levels": ["I", "II"],
                    "test": {"Set": {"source": "scenes", "count": 2, "size": 64}},
                },
                "score": {
                    "protocols_file": str(CONFIG / "protocols.yaml"),
                    "protocols": BOTH,
                    "metrics": ["psnr", "clipiqa+"],
                    "weights": "weights",
                },
            }
        )
    )
    profile = load_profile(Path("profile.yaml"))
    # Only Set: the test sets of mini.yaml are inherited with it.
    test = {"Set": profile.data.test["Set"]}
    profile = profile.model_copy(update={"data": profile.data.model_copy(update={"test": test})})
    layout = Layout(profile.profile)
    hq, _ = folders(layout.dataset("Set"), 2)
    lines = ["name,sha256", *(f"{name},{sha256_file(file)}" for name, file in hq.items())]
    (layout.dataset("Set") / "index.csv").write_text("\n".join(lines) + "\n")
    for level in ("I", "II"):
        folder = layout.restoration("faithdiff", 0, "Set", level)
        for index, name in enumerate(hq):
            write_png(noisy(picture(index), len(level)), folder / f"{name}.png")
        images = {name: {"sha256": sha256_file(folder / f"{name}.png")} for name in hq}
        (folder / "manifest.json").write_text(json.dumps({"images": images}))
    return profile, layout


def write_artifacts(artifacts: Mapping[str, Artifact]) -> Path:
    file = Path("artifacts.yaml")
    entries = [item.model_dump(mode="json") for item in artifacts.values()]
    file.write_text(yaml.safe_dump({"artifacts": entries}))
    return file


def test_when_weights_arrive_only_their_column_is_computed(
    study: tuple[Profile, Layout],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    profile, layout = study
    scores = layout.restored("faithdiff", 0) / "scores.csv"
    shipped = CONFIG / "artifacts.yaml"
    assert set(weights_state(profile, shipped).values()) == {"missing"}
    score_job(profile, layout, "faithdiff", 0, artifacts_file=shipped)
    assert "8 of 16 values ok, 8 computed now" in capsys.readouterr().out
    before = read(scores)
    assert {row["value"] for row in before if row["metric"] == "clipiqa+"} == {""}

    artifacts = put_clip(profile.score.weights, monkeypatch)
    listed = write_artifacts(artifacts)
    found = weights_state(profile, listed)
    assert len(found) == 4
    needed = [artifacts[name] for name in found]
    assert found == {item.name: item.sha256 for item in needed}  # of what is there, by its content
    fetch_all(needed, profile.score.weights, say=lambda _: None)  # verifies, records, no network
    assert weights_state(profile, listed) == {item.name: item.sha256 for item in needed}

    score_job(profile, layout, "faithdiff", 0, artifacts_file=listed)
    assert "16 of 16 values ok, 8 computed now" in capsys.readouterr().out
    after = read(scores)
    assert [row for row in after if row["metric"] == "psnr"] == [
        row for row in before if row["metric"] == "psnr"
    ]
    data = scores.read_bytes()
    score_job(profile, layout, "faithdiff", 0, artifacts_file=listed)
    assert "0 computed now" in capsys.readouterr().out
    assert scores.read_bytes() == data


def test_a_job_goes_on_without_the_package_and_fills_the_column_when_it_is_there(
    study: tuple[Profile, Layout],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    profile, layout = study
    score = profile.score.model_copy(update={"metrics": ["psnr", "st-lpips"]})
    profile = profile.model_copy(update={"score": score})
    shipped = CONFIG / "artifacts.yaml"
    scores = layout.restored("faithdiff", 0) / "scores.csv"
    with monkeypatch.context() as patch:
        patch.setattr("faithdiff.data.artifacts.Package.installed", None)
        assert weights_state(profile, shipped) == {"st-lpips-alex": "missing"}
        score_job(profile, layout, "faithdiff", 0, artifacts_file=shipped)
    assert "8 of 16 values ok, 8 computed now" in capsys.readouterr().out
    (status,) = {row["status"] for row in read(scores) if row["metric"] == "st-lpips"}
    assert status.endswith("; run: pip install --no-deps stlpips-pytorch==0.0.2")

    listed = ARTIFACTS["st-lpips-alex"].sha256
    assert weights_state(profile, shipped) == {"st-lpips-alex": listed}  # snakemake's reason to run
    score_job(profile, layout, "faithdiff", 0, artifacts_file=shipped)
    # Both protocols have the same definition, so four values of the eight are computed.
    assert "16 of 16 values ok, 4 computed now" in capsys.readouterr().out


def test_rows_are_sorted_complete_and_exact(study: tuple[Profile, Layout]) -> None:
    profile, layout = study
    score_job(profile, layout, "faithdiff", 0, artifacts_file=CONFIG / "artifacts.yaml")
    rows = read(layout.restored("faithdiff", 0) / "scores.csv")
    keys = [(r["dataset"], r["level"], r["image"], r["protocol"], r["metric"]) for r in rows]
    assert keys == sorted(keys)
    assert len(set(keys)) == 2 * 2 * 2 * 2
    assert {row["variant"] for row in rows} == {"faithdiff"}
    for row in rows:
        assert (row["status"] == "ok") == (row["value"] != "")
        assert row["value"] == "" or repr(float(row["value"])) == row["value"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "is missing"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "is not a manifest"),
        (lambda folder: (folder / "image-0.png").unlink(), "'image-0' is only in one"),
        (lambda folder: write_png(picture(9), folder / "more.png"), "'more' is only in one"),
        (lambda folder: write_png(picture(9), folder / "image-1.png"), "image-1: .*sha256"),
    ],
)
def test_a_manifest_that_does_not_match_is_refused(
    study: tuple[Profile, Layout], change: Any, message: str
) -> None:
    profile, layout = study
    change(layout.restoration("faithdiff", 0, "Set", "II"))
    with pytest.raises(RunError, match=rf"II/manifest.json: .*{message}"):
        score_job(profile, layout, "faithdiff", 0, artifacts_file=CONFIG / "artifacts.yaml")
    assert not (layout.restored("faithdiff", 0) / "scores.csv").exists()


def test_a_restoration_of_another_data_set_is_refused(study: tuple[Profile, Layout]) -> None:
    profile, layout = study
    (layout.dataset("Set") / "index.csv").write_text("name\nimage-0\nimage-1\nimage-2\n")
    with pytest.raises(RunError, match=r"lists 2 images, there are 3 images in .*index.csv"):
        score_job(profile, layout, "faithdiff", 0, artifacts_file=CONFIG / "artifacts.yaml")


def test_rows_name_the_picture_that_an_image_was_cut_from(study: tuple[Profile, Layout]) -> None:
    profile, layout = study
    (layout.dataset("Set") / "index.csv").write_text("name,picture\nimage-0,a.png\nimage-1,a.png\n")
    score_job(profile, layout, "faithdiff", 0, artifacts_file=CONFIG / "artifacts.yaml")
    rows = pd.read_csv(layout.restored("faithdiff", 0) / "scores.csv")
    assert set(rows["picture"]) == {"a.png"} and set(rows["image"]) == {"image-0", "image-1"}
