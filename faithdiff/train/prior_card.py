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
from faithdiff.models.prior import Prior, load_prior
from faithdiff.train.cache import to_signed
from faithdiff.train.pairs import read_stack
from faithdiff.train.prior import untrained_prior
from faithdiff.train.prior_vae import encode_all
from faithdiff.train.prior_watch import SHOWN, denoising_loss, draw, sample


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
            moments = encode_all(prior, images)
            loss = denoising_loss(study.profile, prior, moments, captions, dataset)
            lines.append(f"| {dataset} | {title} training | {psnr:.2f} | {loss:.4f} |")
            panels[f"{dataset}: VAE {title}"] = rebuilt[:SHOWN]
        panels[f"{dataset}: HQ"] = images[:SHOWN] / 255
        panels[f"{dataset}: samples from these captions"] = sample(
            study.profile, after, captions[:SHOWN]
        )
    draw(panels, picture)
    return "\n".join(lines) + "\n"


@torch.no_grad()
def _reconstruct(prior: Prior, images: Tensor) -> tuple[Tensor, float]:
    """Reconstructions ``(N, 3, H, W)`` in [0, 1], and their mean PSNR over RGB."""
    signed = to_signed(images)
    latents = prior.sample_latents(moments := prior.encode_moments(signed), 0 * moments[:, ::2])
    rebuilt = (prior.decode(latents) / 2 + 0.5).clamp(0, 1)
    error = (rebuilt - images / 255).square().mean((1, 2, 3))
    return rebuilt, float((-10 * error.log10()).mean())
