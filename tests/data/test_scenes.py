"""The procedural scenes: reproducible, antialiased, varied, and captioned with what they show."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared.scenes import cubic_psnr

from faithdiff.data.scenes.colours import colour_names, pick_palette
from faithdiff.data.scenes.fills import plain
from faithdiff.data.scenes.parts import SHAPES, Canvas, box, circle
from faithdiff.data.scenes.render import MIN_SIZE, Scene, render_scene
from faithdiff.data.scenes.words import MIN_CAPITAL, WORDS, draw_word

GREY, BLACK, WHITE = (0.5, 0.5, 0.5), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def gallery() -> list[Scene]:
    return [render_scene(np.random.default_rng(index), 128) for index in range(60)]


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**32), size=st.integers(MIN_SIZE, 160))
def test_same_state_gives_the_same_scene(seed: int, size: int) -> None:
    first = render_scene(np.random.default_rng(seed), size)
    again = render_scene(np.random.default_rng(seed), size)
    assert first.image.shape == (size, size, 3)
    assert first.image.dtype == np.uint8
    assert first.image.tobytes() == again.image.tobytes()
    assert first.caption == again.caption


def test_another_state_gives_another_scene(gallery: list[Scene]) -> None:
    assert len({scene.image.tobytes() for scene in gallery}) == len(gallery)


def test_global_random_state_neither_matters_nor_changes() -> None:
    np.random.seed(1)
    before = np.random.get_state()[1].copy()  # type: ignore[union-attr, index]
    one = render_scene(np.random.default_rng(3), 64)
    assert np.array_equal(np.random.get_state()[1], before)  # type: ignore[index]
    np.random.seed(2)
    assert np.array_equal(one.image, render_scene(np.random.default_rng(3), 64).image)


def test_too_small_a_scene_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 32 px"):
        render_scene(np.random.default_rng(0), MIN_SIZE - 1)


def test_kinds_and_words_all_occur(gallery: list[Scene]) -> None:
    captions = "\n".join(scene.caption for scene in gallery)
    kinds = ["overlapping", "sign", "landscape", "grid of", "panels", "house front", "lights"]
    assert [kind for kind in kinds if kind not in captions] == []
    share = sum("the word" in scene.caption for scene in gallery) / len(gallery)
    assert 0.3 < share < 0.9


def test_captions_quote_only_listed_words_and_name_colours(gallery: list[Scene]) -> None:
    for scene in gallery:
        quoted = re.findall(r"'(\w+)'", scene.caption)
        assert set(quoted) <= set(WORDS)
        assert ("the words" in scene.caption) == (len(quoted) > 1)
        assert " and ".join(colour_names(scene.image)) in scene.caption
        assert len(scene.caption) < 160


def test_scenes_are_neither_flat_nor_noise(gallery: list[Scene]) -> None:
    """A picture's neighbouring pixels agree far better than its contrast; noise has a ratio 1.4."""
    for scene in gallery:
        grey = scene.image.astype(float).mean(axis=2)
        assert grey.std() > 4
        step = np.diff(grey, axis=1).std()
        assert step < 0.8 * grey.std()


def test_detail_survives_a_reduction_of_four(gallery: list[Scene]) -> None:
    """The lesson of the first prototype: finer scenes lie at 20 dB and teach nothing."""
    assert 20 < cubic_psnr(gallery) < 32


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_shapes_stay_within_reach_of_their_radius(shape: str) -> None:
    for seed in range(10):
        points = SHAPES[shape](np.random.default_rng(seed), 20.0)
        assert points.dtype == np.float32
        reach = np.hypot(*points.T)
        assert 15 < reach.max() < 30


def test_edges_are_antialiased_and_areas_true() -> None:
    canvas = Canvas(64, plain(BLACK))
    canvas.polygon(circle(20.0) + np.float32([32, 32]), plain(WHITE))
    image = canvas.image()[..., 0] / 255
    assert image.sum() == pytest.approx(np.pi * 20**2, rel=0.05)  # OpenCV draws edges 0.3 px fat
    between = (image > 0.1) & (image < 0.9)
    assert between.sum() > 60
    centres = np.arange(64) + 0.5
    assert (image.sum(axis=0) @ centres) / image.sum() == pytest.approx(32, abs=0.05)
    assert (image.sum(axis=1) @ centres) / image.sum() == pytest.approx(32, abs=0.05)


@given(
    left=st.floats(-90, 150), top=st.floats(-90, 150), side=st.floats(1, 200), soft=st.floats(0, 9)
)
@settings(deadline=None, max_examples=40)
def test_drawing_beyond_the_border_is_cut(
    left: float, top: float, side: float, soft: float
) -> None:
    canvas = Canvas(48, plain(GREY))
    canvas.polygon(box(left, top, side, side), plain(WHITE), soft=soft)
    canvas.stroke(box(left, top, side, side), 3.0, plain(BLACK), closed=True)
    assert canvas.pixels.shape == (96, 96, 3)
    assert canvas.pixels.min() >= -1e-5
    assert canvas.pixels.max() <= 1 + 1e-5


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**32),
    width=st.floats(10, 120),
    height=st.floats(8, 60),
    tilt=st.floats(-9, 9),
)
def test_words_keep_to_their_area_and_stay_readable(
    seed: int, width: float, height: float, tilt: float
) -> None:
    canvas = Canvas(128, plain(BLACK))
    word = draw_word(canvas, np.random.default_rng(seed), (4, 4, width, height), WHITE, tilt)
    rows, columns = np.nonzero(canvas.image()[..., 0] > 8)
    if word is None:
        assert rows.size == 0
        return
    assert word in WORDS
    for places, side in ((rows, height), (columns, width)):
        assert places.min() >= 3
        assert places.max() <= 5 + side
    assert np.ptp(rows) + 1 >= MIN_CAPITAL - 1


def test_colours_are_named_commonest_first() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[:] = (30, 60, 220)
    image[:16] = (240, 130, 20)
    assert colour_names(image) == ["blue", "orange"]
    assert colour_names(np.full((64, 64, 3), 128, np.uint8)) == ["grey"]


def test_palettes_are_five_colours_in_range() -> None:
    palettes = {pick_palette(np.random.default_rng(seed)) for seed in range(50)}
    assert len(palettes) == 50
    for palette in palettes:
        assert np.shape(palette) == (5, 3)
        assert np.min(palette) >= 0
        assert np.max(palette) <= 1
