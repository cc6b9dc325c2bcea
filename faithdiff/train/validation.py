"""Pictures of a training under way: LQ, restored and HQ test images with their captions."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from faithdiff.data.datasets import read_index
from faithdiff.data.images import read_image
from faithdiff.errors import UserError
from faithdiff.methods.method import Restorer, Study
from faithdiff.restore.arrays import to_tensor
from faithdiff.study import seeds

IMAGES = 4
TITLES = ("LQ", "restored", "HQ")


def validation_sources(study: Study) -> list[Path]:
    """What a grid is made from: the first test set and its last level, both prepared before."""
    name = next(iter(study.profile.data.test))
    level = study.profile.data.levels[-1]
    return [study.layout.dataset(name) / "index.csv", study.layout.lq(name, level)]


def check_sources(study: Study) -> None:
    """Tell before the training that its grids cannot be drawn.

    Raises:
        UserError: The test images are not prepared.
    """
    missing = [path for path in validation_sources(study) if not path.exists()]
    if missing:
        name, level = next(iter(study.profile.data.test)), study.profile.data.levels[-1]
        raise UserError(
            f"{missing[0]}: is missing, and training.validation_every draws it; make it with: "
            f"faithdiff prepare --dataset {name} and faithdiff degrade --dataset {name} "
            f"--level {level}, or set training.validation_every to 0"
        )


def draw_grid(study: Study, restorer: Restorer, update: int, file: Path) -> None:
    """Restore a centre crop of a few test images and draw them beside LQ and HQ."""
    index, folder = validation_sources(study)
    crop, scale = study.profile.training.crop, study.profile.data.scale
    rows = read_index(index.parent).head(IMAGES).to_dict("records")
    figure = Figure(figsize=(2.2 * len(TITLES), 2.5 * len(rows)), layout="constrained")
    figure.suptitle(f"after update {update}", fontsize=8)
    axes = figure.subplots(len(rows), len(TITLES), squeeze=False)
    for line, row in zip(axes, rows, strict=True):
        lq = _centre(to_tensor(read_image(folder / f"{row['name']}.png")), crop // scale)
        hq = _centre(to_tensor(read_image(index.parent / "hq" / f"{row['name']}.png")), crop)
        # Keyed by the image and not by the update: pictures of one training differ by its weights
        # alone.
        seed = seeds.seed(study.profile.seed, "validation", row["name"])
        restored = restorer.restore(lq, [row["caption"]], [seed])
        for cell, title, image in zip(line, TITLES, (lq, restored, hq), strict=True):
            cell.imshow(image[0].permute(1, 2, 0).cpu().numpy(), interpolation="nearest")
            cell.set_title(title, fontsize=7)
            cell.set_axis_off()
        line[0].text(
            0, -0.03, textwrap.shorten(row["caption"], 90), fontsize=5, va="top",
            transform=line[0].transAxes,
        )  # fmt: skip
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)


def _centre(images: Tensor, size: int) -> Tensor:
    top, left = (max(side - size, 0) // 2 for side in images.shape[-2:])
    return images[..., top : top + size, left : left + size]


def evaluating(model: torch.nn.Module, work: Callable[[], None]) -> None:
    """Do something with a model that is being trained, and put it back to training."""
    # In evaluation mode `attention: released` no longer mixes the images of a batch. The mode is
    # put back as it was, or the next update would train another network.
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            work()
    finally:
        model.train(training)
