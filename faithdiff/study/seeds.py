"""Keyed seeds: every random draw comes from its place in the study, never from global state.

A key such as ``("degrade", "Photos", "II", "cat.png")`` is hashed together with the master seed,
so shuffling, sub-setting or sharding the images changes no byte of any of them (the idea is
benchopt's ``get_seed``: the author declares what a draw depends on).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch


def seed(master: int, *key: str | int) -> int:
    """Derive a 63-bit seed from the master seed and a key.

    Args:
        master: The ``seed`` of the profile.
        key: What the draw depends on: purpose, dataset, level, image name, repetition.

    Returns:
        An integer in ``[0, 2**63)``: valid for numpy, torch and :mod:`random` alike.
    """
    # repr() keeps the parts apart: ("a", "bc") and ("ab", "c") must not collide, nor 1 and "1".
    digest = hashlib.sha256(repr((master, *key)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def numpy_rng(master: int, *key: str | int) -> np.random.Generator:
    """Return a numpy generator seeded by :func:`seed`."""
    import numpy as np

    return np.random.default_rng(seed(master, *key))


def torch_generator(master: int, *key: str | int) -> torch.Generator:
    """Return a CPU torch generator seeded by :func:`seed`; CPU, so that noise is device-free."""
    import torch

    return torch.Generator().manual_seed(seed(master, *key))
