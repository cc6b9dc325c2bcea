"""The parts of a prior's dataset that it is not trained on, but watched with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from faithdiff.config import Profile, load_profile
from faithdiff.data.datasets import prepare_dataset
from faithdiff.methods.method import Study
from faithdiff.study.layout import Layout
from faithdiff.train import prior
from faithdiff.train.prior import train_prior, train_prior_job, untrained_prior
from faithdiff.train.prior_vae import encode_all
from faithdiff.train.prior_watch import HeldOutImages, denoising_loss, sample

SCENES = {"source": "scenes", "count": 2, "size": 96}


def _profile(data: object, held_out: list[str], every: int) -> Profile:
    given = load_profile(Path("config/test.yaml")).model_dump(mode="json")
    training = given["prior"]["training"]
    training |= {"data": data, "held_out": held_out}
    training["unet"] |= {"steps": 4, "validation_every": every}
    return Profile.model_validate(given)


def _images(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, 3, 64, 64), dtype=torch.uint8, generator=generator)


def test_held_out_losses_and_samples_are_kept_on_the_way(tmp_path: Path) -> None:
    parts = {"seen": SCENES, "apart": SCENES}
    profile = _profile({"source": "mixture", "parts": parts}, ["apart"], 2)
    images = _images(3)
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
        (
            {"photos": SCENES, "photos-2": SCENES},
            ["photos"],
            0,
            "the name of part 'photos-2' begins with 'photos-', as the images of 'photos' do",
        ),
    ],
)
def test_what_cannot_be_watched_is_refused(
    parts: object, held_out: list[str], every: int, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        _profile({"source": "mixture", "parts": parts}, held_out, every)


def test_parts_that_are_held_out_are_told_by_the_names_of_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[int, HeldOutImages | None]] = []
    monkeypatch.setattr(
        prior,
        "train_prior",
        lambda _, images, captions, folder, state, held_out: given.append((len(images), held_out)),
    )
    parts = {"seen": SCENES, "apart": {**SCENES, "count": 1}}
    data = {"source": "mixture", "parts": parts}
    profiles = [_profile(data, held_out, 0) for held_out in (["apart"], [])]
    monkeypatch.chdir(tmp_path)
    for profile in profiles:
        study = Study(profile, Path("own.yaml"), Layout("own"))
        mixture = profile.prior.training.data
        prepare_dataset(mixture, "prior", 1, study.layout.dataset("prior"))
        train_prior_job(study, tmp_path / "out", tmp_path / "state")
    (seen, apart), (whole, nothing) = given
    assert (seen, whole, nothing) == (2, 3, None)
    assert apart is not None and len(apart.images) == len(apart.captions) == 1


def test_a_prior_is_watched_on_the_device_that_it_is_trained_on() -> None:
    profile = _profile({"source": "mixture", "parts": {"seen": SCENES}}, [], 0)
    images = _images(2)
    here = untrained_prior(Study(profile, Path("own.yaml"), Layout("own")), images, ["a", "b"])

    class Elsewhere(torch.nn.Module):
        """A network on a device that this machine may lack: what it is given must lie there."""

        device, config = torch.device("meta"), here.unet.config

        def forward(
            self,
            noisy: torch.Tensor,
            timesteps: torch.Tensor,
            hidden: torch.Tensor,
            added_cond_kwargs: dict[str, torch.Tensor],
        ) -> SimpleNamespace:
            assert noisy.is_meta and timesteps.is_meta and added_cond_kwargs["time_ids"].is_meta
            return SimpleNamespace(sample=torch.zeros(noisy.shape))

    there = replace(here, unet=Elsewhere())
    assert denoising_loss(profile, there, encode_all(here, images), ["a", "b"], "key") > 0
    assert sample(profile, there, ["a"]).device.type == "cpu"
