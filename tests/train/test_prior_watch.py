"""The parts of a prior's dataset that it is not trained on, but watched with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from faithdiff.config import Profile, load_profile
from faithdiff.train.prior import train_prior
from faithdiff.train.prior_watch import HeldOutImages

SCENES = {"source": "scenes", "count": 2, "size": 96}


def _profile(data: object, held_out: list[str], every: int) -> Profile:
    given = load_profile(Path("config/test.yaml")).model_dump(mode="json")
    training = given["prior"]["training"]
    training |= {"data": data, "held_out": held_out}
    training["unet"] |= {"steps": 4, "validation_every": every}
    return Profile.model_validate(given)


def test_held_out_losses_and_samples_are_kept_on_the_way(tmp_path: Path) -> None:
    parts = {"seen": SCENES, "apart": SCENES}
    profile = _profile({"source": "mixture", "parts": parts}, ["apart"], 2)
    images = torch.randint(256, (3, 3, 64, 64), dtype=torch.uint8)
    held_out = HeldOutImages(images[2:], ["a held-out picture"])
    train_prior(profile, images[:2], ["one", "two"], tmp_path / "out", tmp_path / "state", held_out)
    rows = (tmp_path / "out" / "training.csv").read_text().splitlines()
    watched = [row.split(",") for row in rows if row.startswith("prior unet held-out")]
    assert [int(row[1]) for row in watched] == [1, 3]
    assert watched[0][2] != watched[1][2]
    drawn = sorted(file.name for file in (tmp_path / "state" / "validation").iterdir())
    assert drawn == ["000002.png", "000004.png"]


@pytest.mark.parametrize(
    ("parts", "held_out", "every", "said"),
    [
        ({"seen": SCENES}, ["apart"], 0, "data has no part 'apart'"),
        ({"seen": SCENES}, ["seen"], 0, "no part of data is left to train on"),
        ({"seen": SCENES}, [], 2, "needs parts of data in `held_out`"),
    ],
)
def test_what_cannot_be_watched_is_refused(
    parts: object, held_out: list[str], every: int, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        _profile({"source": "mixture", "parts": parts}, held_out, every)
