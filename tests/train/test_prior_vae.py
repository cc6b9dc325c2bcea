"""The VAE of the small prior: its convolutions on the decoded image, and its perceptual phase."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from faithdiff.config import Perceptual, Profile, load_profile
from faithdiff.data.artifacts import ARTIFACTS_FILE, Artifact, load_artifacts
from faithdiff.errors import UserError
from faithdiff.models import perceptual
from faithdiff.models.prior import Prior, build_prior
from faithdiff.models.text import build_tokenizer
from faithdiff.models.vae import PatchAutoencoderKL
from faithdiff.train import prior_vae
from faithdiff.train.loop import Job
from faithdiff.train.prior_vae import train_vae


@pytest.fixture
def images() -> torch.Tensor:
    """Two images ``(2, 3, 48, 48)`` uint8 of soft blots."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand((2, 3, 6, 6), generator=generator) * 255
    return (
        torch.nn.functional.interpolate(coarse, scale_factor=8, mode="bicubic").clamp(0, 255).byte()
    )


def _profile(second: Perceptual | None) -> Profile:
    profile = load_profile(Path("config/test.yaml"))
    prior = profile.prior
    vae = prior.training.vae.model_copy(update={"steps": 2, "perceptual": second})
    training = prior.training.model_copy(update={"vae": vae})
    shape = prior.vae.model_copy(update={"refine_channels": 8})
    prior = prior.model_copy(update={"training": training, "vae": shape})
    return profile.model_copy(update={"prior": prior})


def _untrained(profile: Profile) -> Prior:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_prior(profile.prior, build_tokenizer(["a blot"], profile.prior.text_encoder))


def test_refinement_adds_nothing_before_it_is_trained_and_is_saved(tmp_path: Path) -> None:
    vae = PatchAutoencoderKL(block_out_channels=(32,), patch_size=2, refine_channels=8).eval()
    latents = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(1))
    assert vae.refine is not None
    with torch.no_grad():
        whole = vae.decode(latents).sample
        without, vae.refine = vae.refine, None
        assert torch.equal(vae.decode(latents).sample, whole)
        vae.refine = without
        torch.nn.init.ones_(list(vae.refine.parameters())[-1])
        vae.save_pretrained(tmp_path)
        loaded = PatchAutoencoderKL.from_pretrained(tmp_path)
        torch.testing.assert_close(loaded.decode(latents).sample, whole + 1)


def test_the_perceptual_phase_follows_the_first_and_resumes(
    images: torch.Tensor, tmp_path: Path
) -> None:
    profile = _profile(Perceptual(steps=2, batch_size=1, learning_rate=1e-3, weight=0.3))
    prior = _untrained(profile)
    start = {k: v.clone() for k, v in prior.vae.refine.state_dict().items()}
    log = train_vae(profile, prior, images, tmp_path)
    assert [row["phase"] for row in log] == ["prior vae", "prior vae-perceptual"]
    assert any(not torch.equal(v, start[k]) for k, v in prior.vae.refine.state_dict().items())
    # From the states that lie there nothing is left to do, and the weights are the same.
    again = _untrained(profile)
    train_vae(profile, again, images, tmp_path)
    for name, weight in prior.vae.state_dict().items():
        assert torch.equal(again.vae.state_dict()[name], weight), name


def test_a_phase_goes_on_only_from_what_it_would_do_again(
    monkeypatch: pytest.MonkeyPatch, images: torch.Tensor, tmp_path: Path
) -> None:
    def identities(profile: Profile, shown: torch.Tensor) -> list[str]:
        jobs: list[Job] = []
        monkeypatch.setattr(prior_vae, "train", jobs.append)
        train_vae(profile, _untrained(profile), shown, tmp_path)
        return [job.identity for job in jobs]

    phase = Perceptual(steps=2, batch_size=1, learning_rate=1e-3, weight=0.3)
    profile = _profile(phase)
    first, second = identities(profile, images)
    given = profile.model_dump(mode="json")
    given["prior"]["training"]["unet"]["learning_rate"] = 0.5
    assert identities(Profile.model_validate(given), images) == [first, second]
    longer = identities(_profile(phase.model_copy(update={"steps": 3})), images)
    assert longer[0] == first and longer[1] != second
    assert not {first, second} & set(identities(profile, images.flip(0)))


def test_wrong_weights_of_the_distance_are_named_before_anything_is_trained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: torch.Tensor
) -> None:
    profile = _profile(Perceptual(steps=2, batch_size=1, learning_rate=1e-3, weight=0.3))
    prior = _untrained(profile)
    found = load_artifacts(ARTIFACTS_FILE)
    wrong = found["st-lpips-vgg"].model_copy(update={"sha256": "0" * 64})
    changed: dict[str, Artifact] = {**found, "st-lpips-vgg": wrong}
    monkeypatch.setattr(perceptual, "load_artifacts", lambda _: changed)
    with pytest.raises(UserError, match=r"st-lpips-vgg: needs vgg_shift_tolerant.*pip install"):
        train_vae(profile, prior, images, tmp_path)
    assert not list(tmp_path.iterdir())
