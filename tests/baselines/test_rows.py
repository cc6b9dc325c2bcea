"""Baselines read the training set by row: their memory does not grow with its images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from basicsr.utils.img_process_util import USMSharp
from shared import ROOT
from torch import Tensor, nn

import baselines.realesrgan_training as realesrgan
from baselines.realesrgan import RealESRGAN
from baselines.realesrgan_training import RealESRGANTraining, Targets, sharpened_crops
from baselines.seesr import SeeSR, Views, words
from baselines.seesr import _thresholds as thresholds
from faithdiff.methods.method import Study
from faithdiff.methods.registry import find_method
from faithdiff.study.files import write_text_atomic
from faithdiff.train import encode, pairs
from faithdiff.train.cache import PixelRows
from faithdiff.train.encode import Part
from faithdiff.train.pairs import find_pairs

SIDE, SCALE = 64, 4
TAGS = ["boat", "house", "red", "water"]


def encoded(folder: Path, count: int) -> Study:
    """A study with an encoded training set of small crops, written without holding it."""
    study = Study.load(ROOT / "config/mini.yaml")
    parts = {
        "hq": Part("U8", (count, 3, SIDE, SIDE)),
        "lq": Part("U8", (count, 3, SIDE // SCALE, SIDE // SCALE)),
    }
    file = study.layout.train_cache
    encode._allocate(file, parts)
    tensors, rng = encode._map(file, parts), np.random.default_rng(0)
    for row in range(count):
        coarse = rng.integers(0, 256, (3, SIDE // SCALE, SIDE // SCALE), np.uint8)
        tensors["lq"][row] = coarse
        tensors["hq"][row] = coarse.repeat(SCALE, 1).repeat(SCALE, 2)
    lines = [f"{row},{' '.join(rng.choice(TAGS, 2))}\n" for row in range(count)]
    index = study.layout.dataset("train") / "index.csv"
    write_text_atomic("name,caption\n" + "".join(lines), index)
    return study


class Tagger(nn.Module):
    """Stands in for a tagger; its logits are colours."""

    tags = TAGS

    def forward(self, images: Tensor) -> tuple[None, Tensor]:
        return None, torch.cat([images.mean((2, 3)), images.amax((2, 3))[:, :1]], 1)

    def truth(self, captions: list[str]) -> Tensor:
        return torch.tensor([[float(tag in words(c)) for tag in self.tags] for c in captions])


def work(study: Study, folder: Path) -> int:
    """Draw as a training does; returns by how many bytes the memory of the process grew at most."""
    method = find_method(study, "realesrgan")
    assert isinstance(method, RealESRGAN)
    rows = PixelRows(study.layout.train_cache)
    before = most = anonymous()
    training = RealESRGANTraining.prepare(method.config, study, 0, rows, folder)
    views = Views(rows, study, 0)
    for step in range(30):
        training._batch("psnr", step)
        views.draw("tagger", step, 0)
        most = max(most, anonymous())
    captions = find_pairs(study.layout, study.profile.data.train_level).captions
    thresholds(Tagger(), views, captions, folder / "logits")  # type: ignore[arg-type]
    return max(most, anonymous()) - before


def anonymous() -> int:
    """Memory of this process in bytes, without mapped files, which the system can drop."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(status.partition("RssAnon:")[2].split()[0])


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("config", "prior"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def test_the_memory_of_a_training_does_not_grow_with_its_images(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(realesrgan, "KEPT", 2**20)
    monkeypatch.setattr(pairs, "read_stack", None)  # no PNG is read
    work(encoded(place, 20), place / "state")  # what is loaded once
    count = 2000
    grown = work(encoded(place, count), place / "state")
    assert grown < 0.5 * count * 3 * SIDE**2


def test_the_tagger_wants_captions_alone(place: Path) -> None:
    """The vocabulary is made before anything is encoded."""
    study = encoded(place, 30)
    study.layout.train_cache.unlink()
    method = find_method(study, "seesr")
    assert isinstance(method, SeeSR)
    method.config = method.config.model_copy(update={"tag_range": (0.0, 1.0)})
    assert sorted(method._tags(study)) == TAGS


def test_thresholds_are_those_of_all_logits_at_once(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("baselines.seesr.TAGS_AT_ONCE", 3)
    study, tagger = encoded(place, 21), Tagger()
    views = Views(PixelRows(study.layout.train_cache), study, 0)
    captions = find_pairs(study.layout, study.profile.data.train_level).captions
    said = torch.cat([tagger(view)[1] for view in views.whole()])
    share = tagger.truth(captions).mean(0).tolist()
    wanted = [float(torch.quantile(s, 1 - p)) for s, p in zip(said.T, share, strict=True)]
    found = thresholds(tagger, views, captions, place / "logits")  # type: ignore[arg-type]
    assert found.tolist() == wanted
    assert not (place / "logits").exists()


def test_targets_are_sharpened_whole_whatever_is_kept(place: Path) -> None:
    study = encoded(place, 4)
    rows, picked = PixelRows(study.layout.train_cache), torch.tensor([2, 0, 2])
    corner = torch.tensor([[0, 0], [32, 32], [8, 20]])
    found = Targets(rows, 32, torch.device("cpu")).crops(rows.hq(picked), picked, corner)
    for image, row, (top, left) in zip(found, picked, corner.tolist(), strict=True):
        whole = realesrgan._sharpen(rows.hq(row[None])[0])
        assert torch.equal(image, whole[:, top : top + 32, left : left + 32])


def test_a_crop_sharpened_with_its_margin_is_that_of_the_whole_image() -> None:
    """What a GPU does, here on the CPU: to rounding, the same values also at the borders."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(4, 3, 24, 24, generator=generator)
    images = nn.functional.interpolate(coarse, scale_factor=8, mode="bicubic").clamp(0, 1)
    images = (255 * images).round().byte()
    corner = torch.tensor([[0, 0], [160, 160], [70, 88], [30, 130]])
    found = sharpened_crops(USMSharp(), images, corner, 32, torch.device("cpu"))
    for crop, image, (top, left) in zip(found, images, corner.tolist(), strict=True):
        whole = realesrgan._sharpen(image)[:, top : top + 32, left : left + 32]
        assert (crop.int() - whole.int()).abs().max() <= 1
        plain = image[:, top : top + 32, left : left + 32]
        assert (whole.int() - plain.int()).abs().max() > 5


def test_mirrored_views_show_the_same_in_hq_and_lq(place: Path) -> None:
    study = encoded(place, 8)
    training = study.profile.training.model_copy(update={"flip": True})
    profile = study.profile.model_copy(update={"training": training})
    rows = PixelRows(study.layout.train_cache)
    flipped = Study(profile, study.file, study.layout)
    for step in (0, 1):
        _, plain, _ = Views(rows, study, 0).draw("tagger", step, 0)
        _, hq, lq = Views(rows, flipped, 0).draw("tagger", step, 0)
        turned = (hq != plain).flatten(1).any(1)
        assert 0 < turned.sum() < len(hq)
        assert torch.equal(hq[turned], plain[turned].flip(-1))
        assert (hq.mean(2) - lq.mean(2)).abs().mean() < 0.1  # mirrored, it would be 0.3
