"""Weights of metrics: missing, corrupted, of another network, and as pyiqa loads them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pyiqa.archs import clip_model, lpips_arch, musiq_arch
from pyiqa.archs.clipiqa_arch import default_model_urls as clipiqa_urls
from shared.scoring import (
    ARTIFACTS,
    PROTOCOLS,
    as_found,
    pair,
    picture,
    prepared,
    put_clip,
    save,
)

from faithdiff.data.images import sha256_file
from faithdiff.score.metrics import prepare_all
from faithdiff.score.scorer import Scorer


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
    metrics = prepare_all({("p", "m"): definition}, tmp_path, ARTIFACTS)
    images = pair(tmp_path, picture(1), picture(2))
    _, status = Scorer(metrics, tmp_path).score(images)["p", "m"]
    assert status.startswith("failed: cannot be loaded: URLError: <urlopen error scoring uses no")


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
