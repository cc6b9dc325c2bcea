"""The bundled photographs: present, within their sources, distinct, and under a stated licence."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from faithdiff.data import photos
from faithdiff.data.photos import PHOTOS, Photo, load_photo
from faithdiff.errors import UserError

needs_sklearn = pytest.mark.skipif(
    importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed"
)


def _params() -> list[object]:
    marks = {"sklearn": needs_sklearn, "skimage": (), "matplotlib": ()}
    return [pytest.param(photo, id=photo.name, marks=marks[photo.package]) for photo in PHOTOS]


@pytest.mark.parametrize("photo", _params())
def test_photo_loads_sharp_and_whole(photo: Photo) -> None:
    image = load_photo(photo, 96)
    assert image.shape == (96, 96, 3)
    assert image.dtype == np.uint8
    assert image.std() > 15
    assert np.array_equal(image, load_photo(photo, 96))


@pytest.mark.parametrize("photo", _params())
def test_box_lies_within_its_source(photo: Photo) -> None:
    left, top, side = photo.box
    with Image.open(photos._locate(photo)) as source:
        assert min(left, top) >= 0
        assert left + side <= source.width
        assert top + side <= source.height
    assert side >= 128, "a smaller crop would be enlarged to the usual test size"


def test_names_are_there_once_and_the_first_ten_are_of_ten_pictures() -> None:
    assert len({photo.name for photo in PHOTOS}) == len(PHOTOS)
    assert len({photo.file for photo in PHOTOS[:10]}) == 10
    assert len({photo.caption for photo in PHOTOS}) == len(PHOTOS)


def test_first_eight_come_from_at_least_six_sources() -> None:
    assert len({photo.file for photo in PHOTOS[:8]}) >= 6


def test_every_licence_is_free_and_credited() -> None:
    free = {"public domain", "CC0 1.0", "CC BY 2.0", "no known copyright restrictions"}
    for photo in PHOTOS:
        assert photo.licence in free
        assert photo.source
        assert "motorcycle" not in photo.file


def test_crops_of_one_source_barely_overlap() -> None:
    """Test images must be independent: two views of one thing would count it twice."""
    for one, two in combinations(PHOTOS, 2):
        if one.file != two.file:
            continue
        shared = 1
        for axis in (0, 1):
            start = max(one.box[axis], two.box[axis])
            end = min(one.box[axis] + one.box[2], two.box[axis] + two.box[2])
            shared *= max(0, end - start)
        assert shared <= 0.1 * min(one.box[2], two.box[2]) ** 2, (one.name, two.name)


def test_missing_file_names_photo_and_package() -> None:
    broken = replace(PHOTOS[0], file="no_such.png")
    with pytest.raises(UserError, match=r"astronaut_face.*no_such\.png.*scikit-image"):
        load_photo(broken, 32)


def test_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install scikit-image"):
        load_photo(PHOTOS[0], 32)
