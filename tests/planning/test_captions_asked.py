"""Captions are counted as they will be asked for."""

from __future__ import annotations

from pathlib import Path

from faithdiff.config import MixtureSet, load_profile
from faithdiff.planning.captions import captions_asked, captions_lines


def test_training_images_once_and_test_images_at_each_level() -> None:
    profile = load_profile(Path("config/paper.yaml"))
    train = 84_991 + 800 + 2_650 + 1_500 + 10_000
    expected = {"DIV2K-Val": 300, "LSDIR-Val": 750, "RealPhoto60": 60, "RealDeg": 238}
    assert captions_asked(profile) == {**expected, "train": train}
    page = "\n".join(captions_lines(profile))
    assert "| train | 99,941 |" in page and "8 at once in each of 2 processes" in page
    assert f"{train + sum(expected.values()):,}" in Path("config/paper.yaml").read_text()


def test_each_crop_where_the_profile_says_so() -> None:
    profile = load_profile(Path("config/paper.yaml"))
    assert isinstance(profile.data.train, MixtureSet)
    parts = {
        name: part.model_copy(update={"described": "crop"})
        for name, part in profile.data.train.parts.items()
    }
    train = profile.data.train.model_copy(update={"parts": parts})
    data = profile.data.model_copy(update={"train": train})
    assert captions_asked(profile.model_copy(update={"data": data}))["train"] == 255_382


def test_no_caption_is_counted_where_none_is_asked_for() -> None:
    assert not list(captions_lines(load_profile(Path("config/mini.yaml"))))
    assert "train" not in captions_asked(load_profile(Path("config/released.yaml")))
