"""The textured scenes: the plain ones stay, detail is that of photographs, captions are true."""

from __future__ import annotations

import hashlib

import cv2
import numpy as np
import pytest
from shared.scenes import cubic_psnr

from faithdiff.config import SceneSet
from faithdiff.config.section import digest
from faithdiff.data.photos import PHOTOS, load_photo
from faithdiff.data.scenes.colours import colour_names, pick_palette
from faithdiff.data.scenes.fields import blurred, canvas_of, cells, edge, fractal, smear, tilted
from faithdiff.data.scenes.render import MIN_SIZE, Scene, render_scene
from faithdiff.data.scenes.textured import DETAIL, KINDS, detail

# Measured before there were textured scenes: the test set and the training set of the study are
# made of the plain ones, so no byte of those may change.
PLAIN = {
    0: "747661a8d5a9222e85a718356276fa7754aab11f7ef0efbd9c28aa8d746e5d96",
    1: "18f8d9256eb85de59fc8c34d5e3487e7f1081316bbb2395c7fd6a24b5ae39a9e",
    2: "b78dfc08065af2c1a00d4cfc4ef3d622e771903de3d446a817f90285e777b5d9",
    3: "4657792fdf4fb529e98e03edbb4413787fe695afeaf2b240286c8fe583dc297a",
}
SUBJECTS = {
    "wall": ("bricks", "stones", "roof tiles", "planks", "cloth", "wool", "a carpet", "plaster"),
    "portrait": ("the face of a person",),
    "fur": ("fur",),
    "animal": ("the face of a furry animal",),
    "foliage": ("foliage",),
    "blossom": ("flower",),
    "hair": ("long hair",),
    "grass": ("grass",),
    "trees": ("trees before the sky",),
    "rock": ("rock", "tree bark", "rippled sand", "cracked earth"),
    "cup": ("a cup with a drink",),
    "printed_page": ("a printed page",),
    "house": ("a house front",),
    "temple": ("tiled roofs",),
    "lettering": ("lettering",),
    "fruit": ("oranges", "apples", "lemons", "plums", "berries", "peaches"),
    "stars": ("the night sky",),
    "tissue": ("stained tissue",),
    "vessels": ("branching vessels",),
    "night": ("towers at dusk",),
    "water": ("water",),
    "marble": ("marble", "granite"),
    "metal": ("brushed metal", "metal pipes", "metal balls"),
    "handwriting": ("handwriting",),
    "clouds": ("a sky with clouds",),
    "table": ("a printed table",),
}


@pytest.fixture(scope="module")
def gallery() -> list[Scene]:
    return [render_scene(np.random.default_rng(index), 128, textured=1.0) for index in range(40)]


@pytest.mark.parametrize("seed", PLAIN)
def test_plain_scenes_keep_their_bytes(seed: int) -> None:
    scene = render_scene(np.random.default_rng(seed), 64)
    assert hashlib.sha256(scene.image.tobytes()).hexdigest() == PLAIN[seed]


def test_a_set_without_textured_scenes_keeps_its_digest() -> None:
    plain = SceneSet(source="scenes", count=3, size=64)
    assert digest(plain) == "412923131289941b"
    assert SceneSet(source="scenes", count=3, size=64, textured=0) == plain
    assert digest(SceneSet(source="scenes", count=3, size=64, textured=0.5)) != digest(plain)


def test_share_of_textured_scenes_is_between_none_and_all() -> None:
    subjects = tuple(word for words in SUBJECTS.values() for word in words)
    scenes = [render_scene(np.random.default_rng(seed), 32, textured=0.5) for seed in range(30)]
    share = sum(scene.caption.split(" in ")[0].endswith(subjects) for scene in scenes) / 30
    assert 0.25 < share < 0.75
    for wrong in (-0.1, 1.1):
        with pytest.raises(ValueError, match="textured"):
            SceneSet(source="scenes", count=3, size=64, textured=wrong)


def test_shares_of_kinds_are_all_of_them() -> None:
    assert sum(share for share, _ in KINDS) == pytest.approx(1)
    assert {kind.__name__ for _, kind in KINDS} == set(SUBJECTS)


@pytest.mark.parametrize("size", [MIN_SIZE, 64])
@pytest.mark.parametrize("kind", [kind for _, kind in KINDS], ids=lambda kind: kind.__name__)
def test_each_kind_draws_what_it_says(kind, size: int) -> None:  # type: ignore[no-untyped-def]
    for seed in range(2):
        rng = np.random.default_rng(seed)
        sketch = kind(rng, size, pick_palette(rng))
        assert sketch.canvas.pixels.shape == (2 * size, 2 * size, 3)
        assert np.isfinite(sketch.canvas.pixels).all()
        assert any(subject in sketch.subject for subject in SUBJECTS[kind.__name__])
        assert sketch.details
        again = np.random.default_rng(seed)
        assert np.array_equal(
            kind(again, size, pick_palette(again)).canvas.image(), sketch.canvas.image()
        )


def test_scenes_differ_and_captions_name_their_colours(gallery: list[Scene]) -> None:
    assert len({scene.image.tobytes() for scene in gallery}) == len(gallery)
    for scene in gallery:
        assert scene.image.shape == (128, 128, 3) and scene.image.dtype == np.uint8
        assert f" in {' and '.join(colour_names(scene.image))}, " in scene.caption
        assert len(scene.caption) < 160


def test_detail_spans_that_of_the_test_photographs(gallery: list[Scene]) -> None:
    photos = [detail(load_photo(photo, 128) / np.float32(255)) for photo in PHOTOS[:10]]
    values = np.sort([detail(scene.image / np.float32(255)) for scene in gallery])
    assert DETAIL[0] < min(photos) and max(photos) < DETAIL[1]
    assert values[2] < np.quantile(photos, 0.25)
    assert values[-2] > np.quantile(photos, 0.75)
    assert 0.75 < np.median(values) / np.median(photos) < 1.4
    assert values[-1] < 30


def test_detail_is_lost_by_a_reduction_of_four(gallery: list[Scene]) -> None:
    """What the plain scenes lack: on them, cubic enlargement alone reaches 20 to 32 dB."""
    assert 17 < cubic_psnr(gallery) < 25


def test_noise_has_the_slope_that_it_is_asked_for() -> None:
    field = fractal(np.random.default_rng(0), 128, slope=1.0, coarse=1000.0)
    assert field.std() == pytest.approx(1, abs=1e-3)
    power = np.abs(np.fft.fft2(field)) ** 2
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(256), np.fft.fftfreq(256)))
    low, high = (power[(radius > a) & (radius < 1.1 * a)].mean() for a in (0.02, 0.2))
    assert np.log10(low / high) == pytest.approx(2, abs=0.25)  # power is amplitude squared


def test_a_flow_makes_streaks_along_itself() -> None:
    white = np.random.default_rng(0).standard_normal((128, 128), np.float32)
    streaks = smear(white, np.zeros((128, 128), np.float32), 6.0)
    assert np.diff(streaks, axis=1).std() < 0.6 * np.diff(streaks, axis=0).std()


def test_cells_have_their_middle_inside_and_their_border_around() -> None:
    middle, border, owner = cells(np.random.default_rng(0), 64, 12.0)
    assert 20 < len(np.unique(owner)) < 50
    assert middle.max() < 24 and border.min() == 0
    inner = np.s_[24:-24, 24:-24]  # cells at the edge of the picture have their middle on it
    assert border[inner][middle[inner] < 0.6].min() > 0.4


def test_a_slant_keeps_the_near_side_and_enlarges_nothing() -> None:
    stripes = np.tile(edge(np.sin(np.arange(256, dtype=np.float32) / 4)), (256, 1))
    for turn in range(4):
        seen = tilted(stripes, 0.4, turn)
        crossings = (np.diff((seen > 0.5).astype(int), axis=1) != 0).sum(axis=1)
        assert crossings.max() >= (np.diff((stripes > 0.5).astype(int), axis=1) != 0).sum(axis=1)[0]
    assert np.array_equal(tilted(stripes, 0.0, 1), stripes)


def test_a_wide_blur_is_that_of_the_whole_picture() -> None:
    field = fractal(np.random.default_rng(0), 64)
    exact = cv2.GaussianBlur(field, (0, 0), 2 * 8.0, borderType=cv2.BORDER_REFLECT)
    assert abs(blurred(field, 8.0) - exact).max() < 0.1 * exact.std()
    assert canvas_of(np.zeros((64, 64, 3), np.float32)).image().shape == (32, 32, 3)
