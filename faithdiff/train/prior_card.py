"""What a prior can do: reconstruction, held-out loss and samples, before and after its training.

"Before" is the prior as :func:`faithdiff.train.prior.train_prior` starts it: a VAE from the
principal components of image patches, a UNet from random weights.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from faithdiff.data.datasets import read_index
from faithdiff.methods.method import Study
from faithdiff.models.objective import prediction_target, time_ids
from faithdiff.models.prior import Prior, load_prior
from faithdiff.restore.schedule import make_scheduler, visited
from faithdiff.study import seeds
from faithdiff.train.cache import to_signed
from faithdiff.train.pairs import read_stack
from faithdiff.train.prior import untrained_prior

SHOWN = 6
TIMESTEPS = (100, 350, 600, 850)  # of the held-out loss: spread over the whole schedule


def write_card(study: Study, picture: Path) -> str:
    """Draw the panels of a prior and return a Markdown table of its figures.

    Needs the test sets (``faithdiff prepare``); "before" is built from their own captions and
    patches, which is enough for a start that no one uses.
    """
    torch.set_num_threads(1)
    after = load_prior(study.prior_folder)
    lines = [
        "| test set | prior | VAE reconstruction, PSNR dB | held-out loss |",
        "|---|---|--:|--:|",
    ]
    panels: dict[str, Tensor] = {}
    for dataset in study.profile.data.with_hq:
        folder = study.layout.dataset(dataset)
        index = read_index(folder)
        images = read_stack([folder / "hq" / f"{name}.png" for name in index["name"]])
        captions = list(index["caption"])
        for title, prior in {
            "before": untrained_prior(study, images, captions),
            "after": after,
        }.items():
            rebuilt, psnr = _reconstruct(prior, images)
            loss = _heldout(study, prior, images, captions, dataset)
            lines.append(f"| {dataset} | {title} training | {psnr:.2f} | {loss:.4f} |")
            panels[f"{dataset}: VAE {title}"] = rebuilt[:SHOWN]
        panels[f"{dataset}: HQ"] = images[:SHOWN] / 255
        panels[f"{dataset}: samples from these captions"] = _samples(study, after, captions[:SHOWN])
    _draw(panels, picture)
    return "\n".join(lines) + "\n"


@torch.no_grad()
def _reconstruct(prior: Prior, images: Tensor) -> tuple[Tensor, float]:
    """Reconstructions ``(N, 3, H, W)`` in [0, 1], and their mean PSNR over RGB."""
    signed = to_signed(images)
    latents = prior.sample_latents(moments := prior.encode_moments(signed), 0 * moments[:, ::2])
    rebuilt = (prior.decode(latents) / 2 + 0.5).clamp(0, 1)
    error = (rebuilt - images / 255).square().mean((1, 2, 3))
    return rebuilt, float((-10 * error.log10()).mean())


@torch.no_grad()
def _heldout(
    study: Study, prior: Prior, images: Tensor, captions: list[str], dataset: str
) -> float:
    """Mean squared error of the prediction at fixed timesteps with fixed noise."""
    generator = seeds.torch_generator(study.profile.seed, "prior card", dataset)
    moments = prior.encode_moments(to_signed(images))
    latents = prior.sample_latents(moments, torch.zeros_like(moments[:, ::2]))
    prompt = prior.encode_text(captions)
    losses = []
    for number in TIMESTEPS:
        timesteps = torch.full((len(images),), number)
        # The same noise before and after: the difference of two losses is then of the prior alone.
        noise = torch.randn(latents.shape, generator=generator)
        noisy = prior.scheduler.add_noise(latents, noise, timesteps)
        target = prediction_target(prior.scheduler, latents, noise, timesteps)
        prediction = _predict(prior, noisy, timesteps, prompt.hidden, prompt.pooled)
        losses.append(float(F.mse_loss(prediction, target)))
    return sum(losses) / len(losses)


def _predict(
    prior: Prior, noisy: Tensor, timesteps: Tensor, hidden: Tensor, pooled: Tensor
) -> Tensor:
    side = noisy.shape[-1] * prior.factor
    ids = time_ids((side, side), torch.zeros(len(noisy), 2), (side, side))
    conditioning = {"text_embeds": pooled, "time_ids": ids}
    prediction: Tensor = prior.unet(noisy, timesteps, hidden, added_cond_kwargs=conditioning).sample
    return prediction


@torch.no_grad()
def _samples(study: Study, prior: Prior, captions: list[str]) -> Tensor:
    """Images ``(N, 3, 128, 128)`` in [0, 1] from pure noise and captions, 20 steps."""
    config = study.profile.restore.model_copy(update={"steps": 20})
    scheduler = make_scheduler(config, prior.scheduler)
    timesteps = visited(scheduler, config.steps)
    generator = seeds.torch_generator(study.profile.seed, "prior card", "samples")
    side = 128 // prior.factor
    shape = (len(captions), prior.unet.config.in_channels, side, side)
    latents = torch.randn(shape, generator=generator) * scheduler.init_noise_sigma
    prompt = prior.encode_text(captions)
    for timestep in timesteps:
        scaled = scheduler.scale_model_input(latents, timestep)
        steps = timestep.expand(len(latents))
        prediction = _predict(prior, scaled, steps, prompt.hidden, prompt.pooled)
        latents = scheduler.step(prediction, timestep, latents).prev_sample
    return (prior.decode(latents) / 2 + 0.5).clamp(0, 1)


def _draw(panels: dict[str, Tensor], picture: Path) -> None:
    figure = Figure(figsize=(1.3 * SHOWN, 1.45 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), SHOWN, squeeze=False)
    for row, (title, images) in zip(axes, panels.items(), strict=True):
        row[0].set_title(title, fontsize=7, loc="left")
        for cell, image in zip(row, images, strict=False):
            cell.imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest")
        for cell in row:
            cell.set_axis_off()
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=110)
