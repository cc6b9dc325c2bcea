"""A folder to train on that holds one picture at several sizes is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faithdiff.config import FolderSet, MixtureSet, load_profile
from faithdiff.data.datasets import prepare_dataset
from faithdiff.errors import UserError


def _picture(seed: int, size: tuple[int, int] = (96, 64)) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 9, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def _save(picture: Image.Image, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.save(file)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Flickr2K as it unpacks: HR, and LR versions in a folder for each scale."""
    root = tmp_path / "Flickr2K"
    for number in (1, 2):
        _save(_picture(number), root / "Flickr2K_HR" / f"00000{number}.png")
        for scale in (2, 4):
            small = _picture(number).resize((96 // scale, 64 // scale), Image.Resampling.BICUBIC)
            folder = root / "Flickr2K_LR_bicubic" / f"X{scale}"
            _save(small, folder / f"00000{number}x{scale}.png")
    return root


def _set(path: Path) -> FolderSet:
    return FolderSet.model_validate({"source": "folder", "path": path, "recursive": True})


def test_a_training_folder_with_lr_versions_is_refused(archive: Path, tmp_path: Path) -> None:
    message = (
        r"Flickr2K: Flickr2K_HR/000001.png \(96 x 64 px\) and "
        r"Flickr2K_LR_bicubic/X2/000001x2.png \(48 x 32 px\) are one picture at two sizes.*"
        r"let `path` name the folder that holds the HQ images alone"
    )
    with pytest.raises(UserError, match=message):
        prepare_dataset(_set(archive), "train", 1, tmp_path / "out")
    mixture = MixtureSet(source="mixture", parts={"Flickr2K": _set(archive)})
    with pytest.raises(UserError, match="at two sizes"):
        prepare_dataset(mixture, "train", 1, tmp_path / "out")
    prepare_dataset(_set(archive / "Flickr2K_HR"), "train", 1, tmp_path / "out")  # the way out


def test_the_same_name_at_several_sizes_is_found_in_other_formats(tmp_path: Path) -> None:
    _save(_picture(1, (98, 66)), tmp_path / "HR" / "a.png")  # cut to 96 x 64 before it was reduced
    _save(_picture(1, (24, 16)), tmp_path / "LR" / "a.jpg")
    with pytest.raises(UserError, match=r"HR/a.png \(98 x 66 px\) and LR/a.jpg"):
        prepare_dataset(_set(tmp_path), "train", 1, tmp_path / "out")


def test_other_pictures_of_one_name_and_equal_sizes_are_no_copies(tmp_path: Path) -> None:
    _save(_picture(1), tmp_path / "raw" / "may" / "img_1.png")
    _save(_picture(2, (48, 32)), tmp_path / "raw" / "june" / "img_1.png")
    _save(_picture(1), tmp_path / "raw" / "again" / "img_1.png")  # no other size
    prepare_dataset(_set(tmp_path / "raw"), "train", 1, tmp_path / "out")


def test_a_test_set_may_hold_them(archive: Path, tmp_path: Path) -> None:
    prepare_dataset(_set(archive), "Mine", 1, tmp_path / "out")


def test_the_published_profile_reads_the_hq_folder_alone() -> None:
    train = load_profile(Path("config/paper.yaml")).data.train
    assert isinstance(train, MixtureSet)
    part = train.parts["Flickr2K"]
    assert part.path.name == "Flickr2K_HR" and not part.recursive
