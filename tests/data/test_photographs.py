"""The list of photographs for the prior, and their crops."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from shared.photographs import photograph, write_list

from faithdiff.config import MixtureSet, PackageSet, SceneSet
from faithdiff.data import datasets
from faithdiff.data.datasets import prepare_dataset, source_hashes
from faithdiff.data.detail import detail, sharpness
from faithdiff.data.photographs import (
    LICENCES,
    cut_photograph,
    lacking,
    load_list,
    photographs_of,
)
from faithdiff.data.photos import PHOTOS, load_photo, photo_files
from faithdiff.errors import ConfigError, UserError

LIST = Path("config/prior_photographs.csv")
SIZE = 32


@pytest.fixture
def here(tmp_path: Path) -> tuple[PackageSet, Path]:
    """A list of two photographs, one with detail on its left half only, and a cutout."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "photographs"
    folder.mkdir()
    grain = Image.fromarray(rng.integers(0, 256, (40, 80, 3), np.uint8))
    textured = grain.resize((160, 80), Image.Resampling.BICUBIC)
    half = textured.copy()
    half.paste((90, 120, 200), (80, 0, 160, 80))
    stamp = textured.crop((0, 0, 40, 30)).convert("RGBA")
    stamp.putalpha(Image.new("L", stamp.size, 0))
    stamp.paste(textured.crop((0, 0, 20, 20)), (10, 5))
    photos = []
    for name, image in (("bark", textured), ("half", half), ("stamp", stamp)):
        file = folder / f"{name}.png"
        image.save(file)
        kind = "cutout" if name == "stamp" else "photograph"
        found = hashlib.sha256(file.read_bytes()).hexdigest()
        photos.append(photograph(name, sha256=found, kind=kind))
    listed = write_list(tmp_path / "list.csv", photos)
    config = PackageSet(
        source="packages",
        files=listed,
        size=SIZE,
        crops=4,
        composites=2,
        detail=(10, 60),
        sharpness=(0.3, 2),
        soft=0,
    )
    return config, folder


def test_list_is_whole_and_names_free_licences_alone() -> None:
    photos = load_list(LIST)
    assert 150 <= len(photos) <= 400
    captions = [photo.caption for photo in photos]
    assert all(c == c.strip() and c[0].islower() and not c.endswith(".") for c in captions)
    assert all(len(caption.split()) <= 12 for caption in captions)
    assert len({photo.sha256 for photo in photos}) == len(photos)
    for licence in ("CC-BY-NC-4.0", "GFDL-1.2", "unknown", "CC-BY-ND-4.0", ""):
        assert not LICENCES.fullmatch(licence)
    # One package has one version, so that it is fetched once.
    assert len({(p.package, p.version) for p in photos}) == len({p.package for p in photos})


def test_list_has_no_test_photograph() -> None:
    listed = {photo.sha256 for photo in load_list(LIST)}
    files = photo_files(len(PHOTOS))
    assert not listed & {hashlib.sha256(f.read_bytes()).hexdigest() for f in files.values()}
    stems = {Path(photo.path).stem for photo in load_list(LIST)}
    assert not stems & {Path(name).stem for name in files if name != "flower.jpg"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"licence": "CC-BY-NC-4.0"}, "licence 'CC-BY-NC-4.0'"),
        ({"sha256": "abc"}, "sha256"),
        ({"span": "12"}, "span '12'"),
        ({"path": "../secret.png"}, "leaves the package"),
        ({"kind": "drawing"}, "none of photograph, cutout"),
        ({"part": "test"}, "none of training, validation"),
        ({"author": ""}, "author is empty"),
        ({"name": "Bark.png"}, "name 'Bark.png'"),
    ],
)
def test_wrong_line_is_named(tmp_path: Path, changes: dict[str, str], said: str) -> None:
    wrong = write_list(
        tmp_path / "list.csv", [photograph("oak"), photograph(**{"name": "bark", **changes})]
    )
    with pytest.raises(ConfigError, match=r"list\.csv: line 3 .*") as error:
        load_list(wrong)
    assert said in str(error.value)


def test_default_detail_is_that_of_the_test_photographs() -> None:
    config = PackageSet(source="packages", size=256, crops=1)
    images = [load_photo(photo, 128) for photo in PHOTOS[:10]]
    least, most = config.detail
    found = [detail(image) for image in images]
    assert least <= min(found) < least + 0.1 and most - 0.1 < max(found) <= most
    crisp = [sharpness(image) for image in images]
    assert config.sharpness[0] <= min(crisp) < config.sharpness[0] + 0.02
    assert max(crisp) <= config.sharpness[1]


def test_blur_is_told_from_contrast() -> None:
    edges = Image.fromarray(np.kron(np.eye(8, dtype=np.uint8) * 255, np.ones((8, 8), np.uint8)))
    sharp = edges.convert("RGB")
    blurred = np.asarray(sharp.filter(ImageFilter.GaussianBlur(3)))
    assert sharpness(blurred) < 0.6 < 0.68 < sharpness(np.asarray(sharp))
    assert detail(np.full((8, 8, 3), 7, np.uint8)) == 0


def test_crops_are_drawn_by_key_and_have_detail(here: tuple[PackageSet, Path]) -> None:
    config, folder = here
    bark, half, stamp = load_list(config.files)
    crops = cut_photograph(bark, config, folder, "prior", 1)
    again = cut_photograph(bark, config, folder, "prior", 1)
    other = cut_photograph(bark, config, folder, "prior", 2)
    assert [c.pixels.tobytes() for c in crops] == [c.pixels.tobytes() for c in again]
    assert crops[0].pixels.tobytes() != other[0].pixels.tobytes()
    assert [c.name for c in crops] == [f"bark-{n:02d}" for n in range(len(crops))]
    least, most = config.detail
    for crop in [*crops, *cut_photograph(stamp, config, folder, "prior", 1)]:
        assert crop.pixels.shape == (SIZE, SIZE, 3)
        assert least <= detail(crop.pixels) <= most
    # The flat half has nothing to give: every crop reaches into the other one.
    lefts = [
        int(c.place.split("px from ")[1].split(",")[0])
        for c in cut_photograph(half, config, folder, "prior", 1)
    ]
    assert lefts and max(lefts) < 80
    assert len(cut_photograph(stamp, config, folder, "prior", 1)) == 2


def test_small_and_flat_photographs_give_nothing(here: tuple[PackageSet, Path]) -> None:
    config, folder = here
    Image.new("RGB", (200, 200), "blue").save(folder / "flat.png")
    Image.new("RGB", (40, 40), "blue").save(folder / "small.png")
    for name in ("flat", "small"):
        assert cut_photograph(photograph(name), config, folder, "prior", 1) == []


def test_a_part_needs_photographs_and_a_set_needs_crops(
    here: tuple[PackageSet, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, folder = here
    listed = [photograph("oak"), photograph("stamp", kind="cutout", part="validation")]
    other = write_list(tmp_path / "other.csv", listed)
    alone = config.model_copy(update={"files": other, "part": "validation"})
    with pytest.raises(ConfigError, match=r"other\.csv: lists no photograph whose part is 'valid"):
        photographs_of(alone)
    monkeypatch.setattr(datasets, "PHOTOGRAPHS", folder)
    monkeypatch.setattr(datasets, "lacking", lambda photos: lacking(photos, folder))
    strict = config.model_copy(update={"detail": (200.0, 201.0)})
    with pytest.raises(UserError, match=r"dataset prior: every image has too little detail"):
        prepare_dataset(strict, "prior", 1, tmp_path / "out")


def test_mixture_has_scenes_and_photographs(
    here: tuple[PackageSet, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, folder = here
    monkeypatch.setattr(datasets, "PHOTOGRAPHS", folder)
    monkeypatch.setattr(datasets, "lacking", lambda photos: lacking(photos, folder))
    scenes = SceneSet(source="scenes", count=2, size=SIZE)
    mixture = MixtureSet(source="mixture", parts={"drawn": scenes, "photo": config})
    prepare_dataset(mixture, "prior", 1, tmp_path / "mixed", equal=True)
    prepare_dataset(scenes, "prior", 1, tmp_path / "scenes")
    index = datasets.read_index(tmp_path / "mixed").set_index("name")
    assert {"drawn-scene-00000", "photo-bark-00", "photo-stamp-00"} <= set(index.index)
    row = index.loc["photo-bark-00"]
    assert (row["caption"], row["licence"]) == ("a picture of bark", "CC0-1.0")
    assert "A. Photographer" in row["source"] and row["picture"] == "photo-bark"
    alone = datasets.read_index(tmp_path / "scenes").set_index("name")
    # A scene is the same picture in a mixture.
    assert index.loc["drawn-scene-00001", "sha256"] == alone.loc["scene-00001", "sha256"]
    assert "photo/list" in source_hashes(mixture)
    assert not (tmp_path / "mixed" / datasets.SOURCES).exists()


def test_photographs_that_were_not_fetched_are_asked_for(
    here: tuple[PackageSet, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, folder = here
    (folder / "half.png").write_bytes(b"corrupted")
    monkeypatch.setattr(datasets, "lacking", lambda photos: lacking(photos, folder))
    with pytest.raises(
        UserError, match=r"1 of the 3 .*half\.png; faithdiff fetch --dataset prior,"
    ):
        prepare_dataset(config, "prior", 1, tmp_path / "out")


def test_validation_photographs_are_in_no_training_set() -> None:
    base = PackageSet(source="packages", size=64, crops=1)
    training = photographs_of(base)
    validation = photographs_of(base.model_copy(update={"part": "validation"}))
    assert {*training, *validation} == {*load_list(LIST)}
    assert len(validation) == 20
    assert all(photo.kind == "photograph" for photo in validation)
    assert not {p.sha256 for p in training} & {p.sha256 for p in validation}
