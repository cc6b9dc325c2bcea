"""Sizes: counted once, printed by the plan and on the page of the data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from faithdiff.config import FolderSet, MixtureSet, load_profile
from faithdiff.data.datasets import prepare_dataset, read_index
from faithdiff.data.images import write_png
from faithdiff.models.prior import load_prior
from faithdiff.planning.disk import download, encoded_image, images_in, sizes
from faithdiff.train.encode import write_cache
from faithdiff.train.pairs import PairFiles

NAMES = ("mini", "released", "paper")


def _set(path: Path, **changes: Any) -> FolderSet:
    return FolderSet.model_validate({"source": "folder", "path": path, **changes})


def test_the_page_of_the_data_has_the_sizes_that_are_counted() -> None:
    page = Path("docs/data.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- sizes -->\n(.*)<!-- /sizes -->", page, re.DOTALL)
    assert found is not None
    lines = sizes(load_profile(Path("config", f"{name}.yaml")) for name in NAMES)
    assert found[1] == "".join(f"{line}\n" for line in lines)


def test_files_of_unknown_size_are_counted_and_not_summed() -> None:
    found = download(load_profile(Path("config/paper.yaml")))
    listed = [artifact for artifact in found.fetched if artifact.size_mb is not None]
    assert len(listed) + len(found.unlisted) == len(found.fetched)
    assert found.gigabytes == pytest.approx(sum(a.size_mb or 0 for a in listed) / 1000)
    assert "lsdir-shard-00" in found.unlisted


@pytest.mark.parametrize("flip", [False, True])
def test_the_encoded_set_has_the_size_that_is_counted(tmp_path: Path, flip: bool) -> None:
    profile = load_profile(Path("config/mini.yaml"))
    train = profile.data.train.model_copy(update={"size": 32})
    profile = profile.model_copy(
        update={
            "data": profile.data.model_copy(update={"train": train}),
            "training": profile.training.model_copy(update={"flip": flip}),
        }
    )
    files: dict[int, list[Path]] = {32: [], 8: []}
    for size, made in files.items():
        for number in range(2):
            made.append(tmp_path / f"{size}-{number}.png")
            write_png(np.full((size, size, 3), 90, np.uint8), made[-1])
    prior = load_prior(profile.prior.path)
    file = tmp_path / "cache.safetensors"
    write_cache(PairFiles(files[32], files[8], ["a", "b"], "", {}, {}), prior, file, flip=flip)
    tensors = load_file(file)
    rows = sum(tensor[0].numel() * tensor.element_size() for tensor in tensors.values())
    assert encoded_image(profile, prior) == rows


@pytest.mark.parametrize("crops", [{"size": 40, "stride": 32}, {"size": 40, "count": 3}])
def test_crops_are_counted_as_they_are_cut(tmp_path: Path, crops: dict[str, int]) -> None:
    for name, size in {"a": (90, 120), "b": (70, 64), "c": (200, 44)}.items():
        (tmp_path / "raw").mkdir(exist_ok=True)
        Image.new("RGB", size).save(tmp_path / "raw" / f"{name}.png")
    config = _set(tmp_path / "raw", crops=crops)
    prepare_dataset(config, "train", 1, tmp_path / "out")
    found = images_in(config)
    assert found is not None and (found.files, found.expected) == (3, False)
    assert found.crops == len(read_index(tmp_path / "out"))


def test_a_set_that_is_not_here_is_counted_as_it_was_published(tmp_path: Path) -> None:
    gone, crops = tmp_path / "gone", {"size": 640, "stride": 640}
    assert images_in(_set(gone)) is None
    known = _set(gone, crops=crops, expected={"images": 10, "size": [1356, 2040]})
    faces = _set(gone, limit=4, crops={"size": 640, "count": 2}, expected={"images": 70000})
    found = images_in(MixtureSet(source="mixture", parts={"a": known, "b": faces}))
    assert found is not None and found.expected
    assert (found.files, found.crops) == (14, 10 * 3 * 4 + 4 * 2)
    with pytest.raises(ValueError, match="counted by `size`, which is missing"):
        _set(gone, crops=crops, expected={"images": 10})
