"""The images that moved most, and their crops."""

from __future__ import annotations

import shutil

import pytest
from shared.audited import World

from faithdiff.audit.crops import crops_of


def test_the_image_that_moved_most_and_its_crops(world: World) -> None:
    found = world.audit("first", "sharper", crops=True, metrics=("psnr",))
    most = found.movers[0]
    assert (most.dataset, most.level, most.image) == ("Photos", "II", "image-07")
    assert most.new - most.old == pytest.approx(5.07)
    # Neither version is in the working tree with these hashes, so both came from DVC's cache.
    assert found.crops[0].mover is most
    assert found.crops[0].png.startswith(b"\x89PNG")
    assert found.without_crop == []


def test_crops_that_cannot_be_had_are_named(other: World) -> None:
    shutil.rmtree(other.root / ".dvc/cache")
    found = other.audit("first", "sharper", crops=True, metrics=("psnr",))
    assert found.crops == []
    assert "not in the working tree or DVC's cache for OLD" in found.without_crop[0]
    crops, missing = crops_of(found.movers, found.new, found.new, other.root)
    assert crops == []
    assert "not in the working tree" in missing[0] or "the same file" in missing[0]
