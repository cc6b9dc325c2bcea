"""The profile `released` end to end, in exactly the real formats and on small random weights.

A server on the loopback interface stands for the outside: base model and VAE in SDXL's
folder layout, the official single file, LLaVA, metric weights, zipped image sets. Only addresses
and hashes of artifacts.yaml change, and of the profile what needs a GPU or another gigabyte.
"""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from shared.loopback import running
from shared.official_model import official_state, save_base_model
from shared.tiny_llava import save_tiny_llava
from shared.whole import copy_suite, run

from faithdiff import cli
from faithdiff.data.images import read_image
from faithdiff.study import seeds

GPU = ("unet/diffusion_pytorch_model", "text_encoder/model", "text_encoder_2/model")
METRICS = ["psnr", "ssim", "lpips", "musiq"]  # CLIP would add 1.2 GB
HERE = {
    "faithdiff", "realvisxl-v4", "sdxl-vae-fp16-fix", "llava-1.5-13b", "div2k-val", "lsdir-val",
    "realphoto60", "realdeg", "alexnet", "lpips-alex", "musiq-koniq",
}  # fmt: skip


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The files of the outside world, and their address."""
    folder = tmp_path_factory.mktemp("outside")
    _publish_models(folder)
    _publish_metrics(folder)
    _zip(folder / "DIV2K_valid_HR.zip", {"DIV2K_valid_HR/0801.png": (72, 64)})
    _zip(folder / "val1.zip", {"val1/HR/val/0000001.png": (64, 80)})
    _zip(folder / "RealPhoto60.zip", {"RealPhoto60/old.jpg": (40, 36)})
    _zip(folder / "RealDeg.zip", {"RealDeg/film/a.png": (33, 42)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    with running(server):
        yield folder, f"http://127.0.0.1:{server.server_address[1]}"


def _publish_models(folder: Path) -> None:
    base = folder / "RealVisXL_V4.0"
    save_base_model(base)
    shutil.move(base / "vae", folder / "vae-fix")
    (base / "model_index.json").write_text("{}", encoding="utf-8")
    for name in GPU:
        (base / f"{name}.safetensors").rename(base / f"{name}.fp16.safetensors")
    for suffix in ("", "_2"):
        (base / f"tokenizer{suffix}" / "special_tokens_map.json").write_text("{}", "utf-8")
    torch.save({k: t.half() for k, t in official_state().items()}, folder / "FaithDiff.bin")
    save_tiny_llava(folder / "llava")


def _publish_metrics(folder: Path) -> None:
    import lpips
    import torchvision
    from pyiqa.archs import musiq_arch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(torchvision.models.alexnet().state_dict(), folder / "alexnet.pth")
        torch.save(musiq_arch.MUSIQ(pretrained=False).state_dict(), folder / "musiq.pth")
    shutil.copy(Path(lpips.__file__).parent / "weights/v0.1/alex.pth", folder / "lpips.pth")


def _zip(file: Path, images: dict[str, tuple[int, int]]) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for name, (height, width) in images.items():
            small = seeds.numpy_rng(0, "released", name).random((height // 8, width // 8, 3))
            picture = Image.fromarray((small * 255).astype(np.uint8)).resize((width, height))
            stream = io.BytesIO()
            picture.save(stream, "JPEG" if name.endswith("jpg") else "PNG")
            archive.writestr(name, stream.getvalue())


def _point_at(folder: Path, address: str, suite: Path) -> None:
    """Rewrite the list of artifacts: these addresses, no hashes of the real files."""
    places = {
        "faithdiff": "FaithDiff.bin", "realvisxl-v4": "RealVisXL_V4.0", "alexnet": "alexnet.pth",
        "sdxl-vae-fp16-fix": "vae-fix", "llava-1.5-13b": "llava", "div2k-val": "DIV2K_valid_HR.zip",
        "lsdir-val": "val1.zip", "realphoto60": "RealPhoto60.zip", "realdeg": "RealDeg.zip",
        "lpips-alex": "lpips.pth", "musiq-koniq": "musiq.pth",
    }  # fmt: skip
    file = suite / "config" / "artifacts.yaml"
    listed = yaml.safe_load(file.read_text(encoding="utf-8"))
    for item in (*listed["artifacts"], *listed["folders"]):
        if item["name"] not in HERE:
            item["profiles"] = []
            continue
        place = places[item["name"]]
        item |= {"address": f"{address}/{place}", "mirrors": [], "gated": False}
        if "files" in item:
            if item["name"].startswith("llava"):
                names = sorted(path.name for path in (folder / place).iterdir())
                item["files"] = [{"path": name} for name in names]
            for part in item["files"]:
                part |= {"sha256": None, "size_mb": 0.1}
        else:
            item |= {"sha256": None, "sha256_prefix": None, "size_mb": 1.0}
            if item["path"].endswith(".tar.gz"):
                item["path"] = "val1.zip"
    file.write_text(yaml.safe_dump(listed), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # lpips' use of torchvision
def test_released_profile_from_fetch_to_tables(
    outside: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = copy_suite(tmp_path / "suite")
    _point_at(*outside, suite)
    profile = suite / "config" / "released.yaml"
    changed = yaml.safe_load(profile.read_text(encoding="utf-8"))
    changed |= {"device": "cpu", "captioner": {"max_tokens": 8, "precision": "float32"}}
    changed["restore"] = {"precision": "fp32", "steps": 3}
    changed["score"] = {"metrics": METRICS}
    changed["report"] |= {"bootstrap": 200, "main": ["bicubic", "faithdiff"]}
    changed["baselines"] = dict.fromkeys(
        ("realesrgan-x4plus", "realesrgan", "diffbir", "supir", "supir-own", "seesr")
    )
    profile.write_text(yaml.safe_dump(changed), encoding="utf-8")

    monkeypatch.chdir(suite)
    cli.fetch(profile="released")
    run(suite, profile="released")

    scores = pd.read_csv(suite / "results" / "released" / "scores.csv")
    ok = scores[scores["status"] == "ok"]
    assert set(ok["method"]) >= {"bicubic", "faithdiff"}
    with_hq = ok[ok["level"] != "real"]
    assert set(with_hq["metric"]) >= {*METRICS}
    assert set(ok.loc[ok["level"] == "real", "metric"]) == {"musiq"}
    restored = suite / "restored" / "released" / "faithdiff" / "seed0"
    assert read_image(restored / "DIV2K-Val" / "II" / "0801.png").shape == (72, 64, 3)
    assert read_image(restored / "LSDIR-Val" / "III" / "0000001.png").shape == (64, 80, 3)
    assert read_image(next((restored / "RealDeg" / "real").glob("*.png"))).shape == (66, 84, 3)
    tables = suite / "results" / "released" / "tables"
    assert "FaithDiff" in (tables / "main.md").read_text(encoding="utf-8")
    assert "RealDeg" in (tables / "real.md").read_text(encoding="utf-8")
    made_by = json.loads(
        (suite / "checkpoints/released/faithdiff/seed0/run.json").read_text(encoding="utf-8")
    )
    assert made_by["method"] == "faithdiff"
    assert "Nothing to be done" in run(suite, profile="released")
