"""Keyed seeds: a draw depends on its key alone."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from faithdiff.study import seeds

part = st.text("aBé 0.,'/", max_size=8) | st.integers(-(10**6), 10**6)
keys = st.lists(part, max_size=4).map(tuple)
masters = st.integers(0, 2**63 - 1)


@settings(deadline=None, max_examples=40)
@given(masters, keys)
def test_a_seed_is_valid_for_every_library_and_repeatable(master: int, key: tuple) -> None:
    value = seeds.seed(master, *key)
    assert 0 <= value < 2**63
    assert value == seeds.seed(master, *key)


@settings(deadline=None, max_examples=40)
@given(masters, st.lists(keys, min_size=2, max_size=20, unique_by=repr))
def test_different_keys_give_different_seeds(master: int, some: list[tuple]) -> None:
    assert len({seeds.seed(master, *key) for key in some}) == len(some)


@settings(deadline=None, max_examples=40)
@given(keys, masters, masters)
def test_the_master_seed_counts(key: tuple, one: int, other: int) -> None:
    assert (seeds.seed(one, *key) == seeds.seed(other, *key)) == (one == other)


def test_parts_of_a_key_are_kept_apart() -> None:
    values = {seeds.seed(0, *key) for key in [("a", "bc"), ("ab", "c"), ("abc",), ("a", "b", "c")]}
    assert len(values) == 4
    assert seeds.seed(0, 1) != seeds.seed(0, "1")
    assert seeds.seed(1, 2) != seeds.seed(12)


def test_seeds_are_the_same_on_every_machine() -> None:
    assert seeds.seed(2411, "degrade", "Photos", "II", "cat.png") == 9038212637946836554
    assert seeds.numpy_rng(2411, "scene", 3).integers(0, 1000, 4).tolist() == [688, 107, 149, 179]


def test_generators_use_their_key_and_leave_the_global_ones_alone() -> None:
    import torch

    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    numbers = seeds.numpy_rng(7, "x").normal(size=3)
    noise = torch.randn(3, generator=seeds.torch_generator(7, "x"))
    torch.randn(3, generator=seeds.torch_generator(7, "y"))
    assert np.array_equal(numbers, seeds.numpy_rng(7, "x").normal(size=3))
    assert torch.equal(noise, torch.randn(3, generator=seeds.torch_generator(7, "x")))
    assert not torch.equal(noise, torch.randn(3, generator=seeds.torch_generator(7, "y")))
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert before == after
