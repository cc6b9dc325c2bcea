"""What a prior can do: its held-out denoising loss, and samples from captions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from faithdiff.config import Profile
from faithdiff.models.objective import prediction_target, time_ids
from faithdiff.models.prior import Prior
from faithdiff.models.text import Prompt
from faithdiff.restore.schedule import make_scheduler, visited
from faithdiff.study import seeds
from faithdiff.train.log import LogRow
from faithdiff.train.prior_vae import encode_all

SHOWN = 6
TIMESTEPS = (100, 350, 600, 850)  # of the held-out loss: spread over the whole schedule


@dataclass(frozen=True)
class HeldOutImages:
    """Images ``(N, 3, H, W)`` uint8 that a prior is not trained on, each with its caption."""

    images: Tensor
    captions: list[str]


def watch_unet(
    profile: Profile, prior: Prior, held_out: HeldOutImages, log: list[LogRow]
) -> Callable[[int, nn.Module | None, Path], None]:
    """What a training of the UNet calls now and then: a row in `log`, and a picture of samples."""
    moments = encode_all(prior, held_out.images)

    def validate(done: int, averaged: nn.Module | None, folder: Path) -> None:
        assert isinstance(averaged, nn.ModuleList)
        unet, *text_encoders = averaged
        now = replace(prior, unet=unet, text_encoders=text_encoders)
        loss = denoising_loss(profile, now, moments, held_out.captions, "validation")
        log.append(
            {
                "phase": "prior unet held-out",
                "step": done - 1,
                "loss": loss,
                "learning_rate": 0.0,  # nothing is learned from these images
                "seconds": log[-1]["seconds"] if log else 0.0,
            }
        )
        samples = sample(profile, now, held_out.captions[:SHOWN])
        draw({f"after update {done}": samples}, folder / f"{done:06d}.png")

    return validate


@torch.no_grad()
def denoising_loss(
    profile: Profile, prior: Prior, moments: Tensor, captions: list[str], key: str
) -> float:
    """Mean squared error of the prediction at fixed timesteps with fixed noise.

    Args:
        moments: ``(N, 2C, h, w)`` of the images; their mean is denoised.
        captions: One for each.
        key: Part of the noise's seed: the same noise for priors that are compared.
    """
    generator = seeds.torch_generator(profile.seed, "prior card", key)
    latents = prior.sample_latents(moments, torch.zeros_like(moments[:, ::2]))
    prompt = prior.encode_text(captions)
    losses = []
    for number in TIMESTEPS:
        timesteps = torch.full((len(moments),), number)
        noise = torch.randn(latents.shape, generator=generator)
        noisy = prior.scheduler.add_noise(latents, noise, timesteps)
        target = prediction_target(prior.scheduler, latents, noise, timesteps)
        prediction = _predict(prior, noisy, timesteps, prompt)
        losses.append(float(F.mse_loss(prediction, target)))
    return sum(losses) / len(losses)


@torch.no_grad()
def sample(profile: Profile, prior: Prior, captions: list[str]) -> Tensor:
    """Images ``(N, 3, 128, 128)`` in [0, 1], on the CPU, from pure noise and captions, 20 steps."""
    config = profile.restore.model_copy(update={"steps": 20})
    scheduler = make_scheduler(config, prior.scheduler)
    timesteps = visited(scheduler, config.steps)
    generator = seeds.torch_generator(profile.seed, "prior card", "samples")
    side = 128 // prior.factor
    shape = (len(captions), prior.unet.config.in_channels, side, side)
    latents = torch.randn(shape, generator=generator) * scheduler.init_noise_sigma
    prompt = prior.encode_text(captions)
    for timestep in timesteps:
        scaled = scheduler.scale_model_input(latents, timestep)
        steps = timestep.expand(len(latents))
        prediction = _predict(prior, scaled, steps, prompt)
        latents = scheduler.step(prediction, timestep, latents).prev_sample
    return (prior.decode(latents.to(prior.vae.device)).cpu() / 2 + 0.5).clamp(0, 1)


def _predict(prior: Prior, noisy: Tensor, timesteps: Tensor, prompt: Prompt) -> Tensor:
    """The UNet's prediction on the CPU, where noise is drawn and losses are computed."""
    device = prior.unet.device
    side = noisy.shape[-1] * prior.factor
    ids = time_ids((side, side), torch.zeros(len(noisy), 2), (side, side)).to(device)
    conditioning = {"text_embeds": prompt.pooled, "time_ids": ids}
    prediction: Tensor = prior.unet(
        noisy.to(device), timesteps.to(device), prompt.hidden, added_cond_kwargs=conditioning
    ).sample
    return prediction.cpu()


def draw(panels: dict[str, Tensor], picture: Path) -> None:
    """Draw rows of images ``(N, 3, H, W)`` in [0, 1], each under its title."""
    figure = Figure(figsize=(1.3 * SHOWN, 1.45 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), SHOWN, squeeze=False)
    for row, (title, images) in zip(axes, panels.items(), strict=True):
        # It may be wider than an image; the space above each row is there without it.
        row[0].set_title(title, fontsize=7, loc="left").set_in_layout(False)
        for cell, image in zip(row, images, strict=False):
            cell.imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest")
        for cell in row:
            cell.set_axis_off()
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=110)
