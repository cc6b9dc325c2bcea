"""Colour correction, and how pixels become tensors and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from shared.restoring import random_lq

from faithdiff.restore.arrays import to_image, to_tensor
from faithdiff.restore.colour import adain, fix_colour, low_frequencies, wavelet
from faithdiff.restore.enlarge import enlarge

# diffusers' Euler scheduler
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def test_wavelet_takes_low_frequencies_from_the_reference() -> None:
    image, reference = random_lq(2, 3, 40, 33), random_lq(2, 3, 40, 33, seed=1)
    assert torch.allclose(wavelet(image, image, 5), image, atol=1e-6)
    shifted = wavelet(image, image + 0.25, 3)
    assert torch.allclose(shifted, image + 0.25, atol=1e-6)
    fixed = wavelet(image, reference, 2)
    high = image - low_frequencies(image, 2)
    assert torch.allclose(fixed - low_frequencies(reference, 2), high, atol=1e-6)


def test_low_frequencies_keep_a_constant_and_remove_a_checkerboard() -> None:
    constant = torch.full((1, 3, 16, 16), 0.3)
    checkerboard = (torch.arange(16)[:, None] + torch.arange(16)) % 2
    assert torch.allclose(low_frequencies(constant, 4), constant)
    inner = low_frequencies(checkerboard.float().expand(1, 3, 16, 16), 1)[..., 1:-1, 1:-1]
    assert torch.allclose(inner, torch.full_like(inner, 0.5))


def test_adain_gives_the_statistics_of_the_reference() -> None:
    image, reference = random_lq(2, 3, 40, 33), 0.2 + 0.3 * random_lq(2, 3, 40, 33, seed=1)
    fixed = adain(image, reference)
    assert torch.allclose(fixed.mean((2, 3)), reference.mean((2, 3)), atol=1e-4)
    assert torch.allclose(fixed.std((2, 3)), reference.std((2, 3)), atol=1e-3)
    assert torch.allclose(adain(image, image), image, atol=1e-5)


def test_no_colour_fix_changes_nothing() -> None:
    image = random_lq(1, 3, 8, 8)
    assert fix_colour(image, 1 - image, "none", 3) is image


def test_arrays_round_trip() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert np.array_equal(to_image(to_tensor(image)[0]), image)


def test_enlargement_is_pillow_lanczos() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    expected = Image.fromarray(image).resize((28, 20), Image.Resampling.LANCZOS)
    assert np.array_equal(to_image(enlarge(to_tensor(image), 4)[0]), np.array(expected))
