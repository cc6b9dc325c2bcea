"""Trains the VAE of the small prior: by L1 first, then with a perceptual distance beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from faithdiff.config import Perceptual, Profile, VaeTraining, digest
from faithdiff.models.perceptual import PerceptualDistance, weights_file
from faithdiff.models.prior import Prior
from faithdiff.study import seeds
from faithdiff.train.cache import to_signed
from faithdiff.train.engine import Trained
from faithdiff.train.log import LogRow
from faithdiff.train.loop import Job, train
from faithdiff.train.pairs import corners, crops, pick

# (decoded, target), both (B, 3, H, W) in [-1, 1] -> the loss
Reconstruction = Callable[[Tensor, Tensor], Tensor]


def train_vae(profile: Profile, prior: Prior, images: Tensor, state: Path) -> list[LogRow]:
    """Train the VAE of a prior and freeze it; its latents are scaled to unit deviation.

    Args:
        images: ``(N, 3, H, W)`` uint8, all of one size.
        state: Folder for the resumable states.

    Returns:
        The rows of ``training.csv``.

    Raises:
        UserError: The weights of the perceptual distance are missing or corrupted.
    """
    training, vae = profile.prior.training, prior.vae
    alone, second = training.vae.model_copy(update={"perceptual": None}), training.vae.perceptual
    shown = hashlib.sha256(images.contiguous().numpy().data).hexdigest()
    if second:
        # Before the first phase, which may take hours, and not when the second one needs them.
        weights_file("vgg", profile.score.weights)

    def job(phase: str, part: VaeTraining | Perceptual, reconstruction: Reconstruction) -> Job:
        return Job(
            name=f"prior {phase}",
            model=vae,
            groups=[Trained.whole(vae, part.learning_rate)],
            loss=_loss(profile, prior, images, phase, part.batch_size, reconstruction),
            steps=part.steps,
            optimiser=training.optimiser,
            precision=training.precision,
            state=state / f"{phase}.pt",
            # Only what decides this phase: another UNet does not cost the VAE its hours.
            identity=digest(
                *(profile.seed, profile.prior.vae, alone, part),
                *(training.optimiser, training.precision, shown),
            ),
        )

    # Without averaged weights: the codec starts next to its optimum and ends at a rate of zero.
    first = job("vae", alone, F.l1_loss)
    train(first)
    log = first.log
    if second:
        distance = PerceptualDistance("vgg", profile.score.weights, profile.device)
        # Not from the start: the distance takes most of an update's time, and L1 alone finds the
        # colours and edges as well.
        perceptual = job(
            "vae-perceptual",
            second,
            lambda decoded, target: (
                F.l1_loss(decoded, target) + second.weight * distance(decoded, target).mean()
            ),
        )
        train(perceptual)
        log = log + perceptual.log
    vae.eval().requires_grad_(False)
    set_scale(prior, images)
    return log


def _loss(
    profile: Profile,
    prior: Prior,
    images: Tensor,
    phase: str,
    batch_size: int,
    reconstruction: Reconstruction,
) -> Callable[[int, int], Tensor]:
    recipe, vae = profile.prior.training.vae, prior.vae

    def loss(step: int, _: int) -> Tensor:
        generator = seeds.torch_generator(profile.seed, "prior", phase, step)
        rows = pick(len(images), batch_size, generator)
        target = to_signed(random_crops(images[rows], recipe.crop, generator)[0]).to(vae.device)
        posterior = vae.encode(target).latent_dist
        # Drawn on the CPU: the same numbers on every device.
        noise = torch.randn(posterior.mean.shape, generator=generator).to(vae.device)
        latents = posterior.mean + posterior.std * noise
        latents = latents + _extra_noise(recipe, posterior.mean, generator)
        decoded = vae.decode(latents).sample.float()
        # A KL term so small that it only keeps latents from running away; the prior learns their
        # shape.
        kl = recipe.kl_weight * posterior.kl().float().mean() / noise[0].numel()
        return reconstruction(decoded, target) + kl

    return loss


def _extra_noise(recipe: VaeTraining, mean: Tensor, generator: torch.Generator) -> Tensor:
    """More noise on latents than their own posterior has, of a random amount per image.

    What a sampler leaves of the noise must not show in the decoded image.
    """
    amount = recipe.latent_noise * torch.rand((len(mean), 1, 1, 1), generator=generator)
    spread = torch.randn(mean.shape, generator=generator)
    return amount.to(mean.device) * mean.detach().std() * spread.to(mean.device)


def random_crops(images: Tensor, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Square crops ``(B, C, size, size)`` and their corners ``(B, 2)`` (top, left)."""
    corner = corners(images.shape[-1], size, len(images), generator)
    return crops(images, corner, size), corner


def set_scale(prior: Prior, images: Tensor) -> None:
    """Scale latents to unit deviation, as SDXL's are."""
    latents = encode_all(prior, images[:64]).chunk(2, dim=1)[0]
    prior.vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 4))


@torch.no_grad()
def encode_all(prior: Prior, images: Tensor) -> Tensor:
    """Moments ``(N, 2C, h, w)``, on the CPU, of uint8 images ``(N, 3, H, W)``."""
    batches = (to_signed(batch).to(prior.vae.device) for batch in images.split(16))
    return torch.cat([prior.encode_moments(batch).cpu() for batch in batches])
