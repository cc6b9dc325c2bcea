"""What a prior can do: reconstruction, held-out loss and samples, before and after its training.

"Before" is the prior as :func:`faithdiff.train.prior.train_prior` starts it: a VAE from the
principal components of image patches, a UNet from random weights.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from faithdiff.data.datasets import read_index
from faithdiff.methods.method import Study
from faithdiff.models.perceptual import PerceptualDistance
from faithdiff.models.prior import Prior, load_prior
from faithdiff.train.cache import to_signed
from faithdiff.train.pairs import read_stack
from faithdiff.train.prior import untrained_prior
from faithdiff.train.prior_vae import encode_all
from faithdiff.train.prior_watch import SHOWN, denoising_loss, draw, sample


def write_card(study: Study, picture: Path, earlier: Path | None = None) -> str:
    """Draw the panels of a prior and return a Markdown table of its figures.

    Needs the test sets (``faithdiff prepare``); "before" is built from their own captions and
    patches, which is enough for a start that no one uses.

    Args:
        picture: Receives the panels.
        earlier: The folder of another prior to set beside it, as one that shipped before.
    """
    torch.set_num_threads(1)
    trained = {"after training": load_prior(study.prior_folder)}
    if earlier:
        trained = {"earlier": load_prior(earlier), **trained}
    distance = PerceptualDistance("alex", study.profile.score.weights, "cpu")
    lines = [
        "| test set | prior | VAE: PSNR dB | VAE: ST-LPIPS | held-out loss |",
        "|---|---|--:|--:|--:|",
    ]
    panels: dict[str, Tensor] = {}
    for dataset in study.profile.data.with_hq:
        folder = study.layout.dataset(dataset)
        index = read_index(folder)
        images = read_stack([folder / "hq" / f"{name}.png" for name in index["name"]])
        captions = list(index["caption"])
        untrained = {"before training": untrained_prior(study, images, captions)}
        for title, prior in {**untrained, **trained}.items():
            rebuilt, psnr = _reconstruct(prior, images)
            perceptual = _perceptual(distance, rebuilt, images)
            moments = encode_all(prior, images)
            loss = denoising_loss(study.profile, prior, moments, captions, dataset)
            row = (dataset, title, f"{psnr:.2f}", f"{perceptual:.4f}", f"{loss:.4f}")
            lines.append(f"| {' | '.join(row)} |")
            panels[f"{dataset}: VAE, {title}"] = rebuilt[:SHOWN]
        panels[f"{dataset}: HQ"] = images[:SHOWN] / 255
        for title, prior in trained.items():
            samples = sample(study.profile, prior, captions[:SHOWN])
            panels[f"{dataset}: samples from these captions, {title}"] = samples
    draw(panels, picture)
    return "\n".join(lines) + "\n"


@torch.no_grad()
def _reconstruct(prior: Prior, images: Tensor) -> tuple[Tensor, float]:
    """Reconstructions ``(N, 3, H, W)`` in [0, 1], and their mean PSNR over RGB."""
    moments = prior.encode_moments(to_signed(images))
    latents = prior.sample_latents(moments, torch.zeros_like(moments[:, ::2]))
    rebuilt = (prior.decode(latents) / 2 + 0.5).clamp(0, 1)
    error = (rebuilt - images / 255).square().mean((1, 2, 3))
    return rebuilt, float((-10 * error.log10()).mean())


@torch.no_grad()
def _perceptual(distance: PerceptualDistance, rebuilt: Tensor, images: Tensor) -> float:
    """Mean distance of reconstructions in [0, 1], rounded as a PNG is, from uint8 images."""
    rounded = (rebuilt * 255).round()
    return float(distance(to_signed(rounded), to_signed(images)).mean())
