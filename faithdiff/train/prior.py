"""Trains the small prior: the VAE first, then the UNet with its text encoder in its latents.

The paper starts from SDXL; this is what stands in its place. The recipe (principal-component
start, L1 and a perceptual distance, v-prediction, warm-up / hold / cosine, averaged weights) is
`prior.training` of the profile.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faithdiff.config import Profile, digest
from faithdiff.data.datasets import read_index
from faithdiff.methods.method import Study
from faithdiff.models.objective import prediction_target, time_ids
from faithdiff.models.prior import Prior, build_prior, load_prior
from faithdiff.models.repeatable import compute_repeatably
from faithdiff.models.text import Prompt, build_tokenizer
from faithdiff.models.vae import start_from_patches
from faithdiff.models.weights import module_digest
from faithdiff.study import seeds
from faithdiff.study.provenance import folder_digest
from faithdiff.train.cache import to_signed
from faithdiff.train.engine import Trained
from faithdiff.train.log import LogRow, write_log
from faithdiff.train.loop import Job, train
from faithdiff.train.pairs import pick, read_stack
from faithdiff.train.prior_vae import encode_all, random_crops, set_scale, train_vae
from faithdiff.train.prior_watch import HeldOutImages, watch_unet


def train_prior(
    profile: Profile,
    images: Tensor,
    captions: list[str],
    folder: Path,
    state: Path,
    held_out: HeldOutImages | None = None,
) -> None:
    """Train the prior of a profile on its device; write diffusers folders and ``training.csv``.

    Args:
        images: ``(N, 3, H, W)`` uint8, all of one size.
        captions: One per image.
        folder: Receives vae/ unet/ text_encoder/ tokenizer/ scheduler/ and training.csv.
        state: Folder for the resumable states.
        held_out: Watched every `validation_every` updates of the UNet.
    """
    prior = _start(profile, images, captions).to(profile.device)
    log = train_vae(profile, prior, images, state)
    moments = encode_all(prior, images)
    log += _train_unet(profile, prior, moments, captions, state / "unet.pt", held_out)
    prior.save(folder)
    write_log(log, folder / "training.csv")


def _start(profile: Profile, images: Tensor, captions: list[str]) -> Prior:
    """The prior before its training, from keyed random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.seed(profile.seed, "prior", "init"))
        tokenizer = build_tokenizer(captions, profile.prior.text_encoder)
        prior = build_prior(profile.prior, tokenizer)
    # 64 images of 256 pixels hold 260,000 patches: plenty for a covariance of 48 x 48.
    start_from_patches(prior.vae, to_signed(images[:64]))
    return prior


def untrained_prior(study: Study, images: Tensor, captions: list[str]) -> Prior:
    """The start that :func:`train_prior` would take from these images: a "before" to compare."""
    prior = _start(study.profile, images, captions)
    set_scale(prior, images)
    return prior.freeze()


def _train_unet(
    profile: Profile,
    prior: Prior,
    moments: Tensor,
    captions: list[str],
    state: Path,
    held_out: HeldOutImages | None,
) -> list[LogRow]:
    recipe = profile.prior.training.unet
    crop, size = recipe.crop // prior.factor, moments.shape[-1] * prior.factor
    # Together, as the small text encoder knows no language: captions get the meaning that the UNet
    # has a use for. SDXL's were trained before, and stay frozen.
    trained = nn.ModuleList([prior.unet, *prior.text_encoders])
    device = prior.unet.device

    def loss(step: int, _: int) -> Tensor:
        generator = seeds.torch_generator(profile.seed, "prior", "unet", step)
        rows = pick(len(moments), recipe.batch_size, generator)
        part, corner = random_crops(moments[rows], crop, generator)
        latents = prior.sample_latents(part, torch.randn(part[:, ::2].shape, generator=generator))
        latents = latents.to(device)
        prompt = _prompt(
            prior, [captions[int(row)] for row in rows], recipe.text_dropout, generator
        )
        noise = torch.randn(latents.shape, generator=generator).to(device)
        timesteps = torch.randint(1000, (len(rows),), generator=generator).to(device)
        noisy = prior.scheduler.add_noise(latents, noise, timesteps)
        ids = time_ids((size, size), corner * prior.factor, (recipe.crop, recipe.crop)).to(device)
        prediction = prior.unet(
            noisy,
            timesteps,
            prompt.hidden,
            added_cond_kwargs={"text_embeds": prompt.pooled, "time_ids": ids},
        ).sample
        # MSE, which diffusion models are trained with: the L1 of the paper is FaithDiff's, not
        # SDXL's.
        target = prediction_target(prior.scheduler, latents, noise, timesteps)
        return F.mse_loss(prediction.float(), target)

    job = Job(
        name="prior unet",
        model=trained,
        groups=[Trained.whole(trained, recipe.learning_rate)],
        loss=loss,
        steps=recipe.steps,
        optimiser=profile.prior.training.optimiser,
        precision=profile.prior.training.precision,
        ema_decay=recipe.ema_decay,
        state=state,
        # The VAE's bits stand for the images, too, which it was trained from.
        identity=digest(profile.prior, profile.seed, module_digest(prior.vae), captions),
        checkpoint_every=250,
    )
    if held_out and recipe.validation_every:
        job.validate = watch_unet(profile, prior, held_out, job.log)
        job.validation_every = recipe.validation_every
    averaged = train(job)
    assert averaged is not None
    trained.load_state_dict(averaged.state_dict())
    prior.freeze()
    return job.log


def _prompt(
    prior: Prior, captions: list[str], dropout: float, generator: torch.Generator
) -> Prompt:
    dropped = torch.rand(len(captions), generator=generator) < dropout
    return prior.encode_text(["" if d else c for d, c in zip(dropped, captions, strict=True)])


def train_prior_job(study: Study, folder: Path, state: Path) -> None:
    """Train the prior of a profile from its prepared dataset into a folder."""
    compute_repeatably(study.profile)
    data = study.layout.dataset("prior")
    index = read_index(data)
    # Images of a mixture's part begin with its name; none begins with one of no parts.
    apart = tuple(f"{part}-" for part in study.profile.prior.training.held_out)
    watched = index["name"].str.startswith(apart)
    seen, rest = index[~watched], index[watched]
    held_out = HeldOutImages(_images(data, rest), list(rest["caption"])) if apart else None
    images, captions = _images(data, seen), list(seen["caption"])
    train_prior(study.profile, images, captions, folder, state, held_out)


def _images(data: Path, index: pd.DataFrame) -> Tensor:
    return read_stack([data / "hq" / f"{name}.png" for name in index["name"]])


def ship(study: Study, target: Path) -> None:
    """Write the trained prior in half precision beside its training curve, and print its hash."""
    source = study.layout.trained_prior
    prior = load_prior(source)
    for module in prior.modules():
        module.half()
    prior.save(target)
    shutil.copyfile(source / "training.csv", target / "training.csv")
    size = sum(file.stat().st_size for file in target.rglob("*.*")) / 1e6
    print(f"{target}: {size:.1f} MB, digest {folder_digest(target)}")
