"""Latent tiles: they cover the latent, and their weighted mean has no seams."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shared.restoring import random_lq

from faithdiff.restore.tiling import gaussian, merged, tiles

# diffusers' Euler scheduler
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
sides = st.integers(1, 40)


@settings(deadline=None, max_examples=60)
@given(height=sides, width=sides, size=st.integers(1, 16), share=st.floats(0.01, 1))
def test_tiles_cover_the_latent_and_stay_inside(
    height: int, width: int, size: int, share: float
) -> None:
    stride = max(1, math.ceil(share * size))
    covered = torch.zeros(1, 1, height, width)
    parts = tiles(height, width, size, stride)
    for tile in parts:
        window = tile.cut(covered)
        assert window.shape[2:] == (min(size, height), min(size, width))
        window += 1
    assert covered.min() >= 1
    assert len(set(parts)) == len(parts)


@settings(deadline=None, max_examples=30)
@given(height=st.integers(1, 130), width=st.integers(1, 130))
def test_weights_of_a_tile_are_positive(height: int, width: int) -> None:
    weights = gaussian(height, width)
    assert weights.shape == (1, 1, height, width)
    assert weights.min() > 0


@settings(deadline=None, max_examples=20)
@given(height=sides, width=sides, size=st.integers(2, 16))
def test_merging_what_does_not_depend_on_the_tile_changes_nothing(
    height: int, width: int, size: int
) -> None:
    latents = random_lq(2, 4, height, width)
    parts = tiles(height, width, size, size // 2)
    assert torch.allclose(merged([(tile, tile.cut(latents)) for tile in parts], latents), latents)


def test_one_tile_is_the_whole() -> None:
    latents = random_lq(1, 4, 9, 7)
    parts = tiles(9, 7, size=9, stride=3)
    assert len(parts) == 1
    assert torch.equal(merged([(tile, tile.cut(latents)) for tile in parts], latents), latents)
