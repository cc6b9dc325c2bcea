"""Training pairs: HQ scenes and their LQ versions, prepared offline as the paper's are.

Batches are drawn by the number of the update, never by iteration, so that every variant of a
seed sees the same crops in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from faithdiff.config import digest
from faithdiff.data.datasets import read_index
from faithdiff.data.images import read_image
from faithdiff.data.recorded import check_hq, check_lq, hq_hashes, lq_hashes
from faithdiff.errors import UserError
from faithdiff.study import seeds
from faithdiff.study.layout import Layout
from faithdiff.study.provenance import file_digest


@dataclass(frozen=True)
class Pairs:
    """HQ ``(N, 3, H, W)`` and LQ ``(N, 3, h, w)`` as uint8, and N captions."""

    hq: Tensor
    lq: Tensor
    captions: list[str]


@dataclass(frozen=True)
class PairFiles:
    """A prepared training set on disk: files and captions of N pairs, read in parts."""

    hq: list[Path]
    lq: list[Path]
    captions: list[str]
    identity: str  # of the images and captions
    hq_sha256: dict[str, str]  # as recorded, by name
    lq_sha256: dict[str, str]

    def __len__(self) -> int:
        return len(self.hq)

    def read(self, start: int, stop: int) -> Pairs:
        """Read some of the pairs.

        Raises:
            UserError: These images are not all of one size.
            CorruptedError: One is not what was recorded of it.
        """
        # As they are read: a training of days must not begin on an image that changed since it was
        # made.
        part = slice(start, stop)
        for hq, lq in zip(self.hq[part], self.lq[part], strict=True):
            check_hq(hq, self.hq_sha256)
            check_lq(lq, self.lq_sha256)
        return Pairs(read_stack(self.hq[part]), read_stack(self.lq[part]), self.captions[part])


def find_pairs(layout: Layout, level: str) -> PairFiles:
    """The prepared training set of a profile."""
    folder, lq = layout.dataset("train"), layout.lq("train", level)
    index = read_index(folder)
    # Names and hashes of the HQ images, captions, and every parameter of the LQ images. By their
    # tables, which hold a hash of each image: reading a million images to name them would take
    # longer than to encode them.
    records = [folder / "index.csv", lq / "degradation.jsonl"]
    known = [level, *(file_digest(record) for record in records if record.is_file())]
    return PairFiles(
        [folder / "hq" / f"{name}.png" for name in index["name"]],
        [lq / f"{name}.png" for name in index["name"]],
        list(index["caption"]),
        digest(known),
        hq_hashes(folder),
        lq_hashes(lq),
    )


def read_stack(files: list[Path]) -> Tensor:
    """Read images of one size as uint8 ``(N, 3, H, W)``."""
    images = [read_image(file) for file in files]
    sizes = sorted({f"{image.shape[1]} x {image.shape[0]} px" for image in images})
    if len(sizes) != 1:
        found = ", ".join(sizes[:5])
        raise UserError(f"{files[0].parent}: training images must have one size, found {found}")
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def pick(count: int, batch: int, generator: torch.Generator) -> Tensor:
    """Random rows ``(batch,)`` out of `count`."""
    return torch.randint(count, (batch,), generator=generator)


def corners(size: int, crop: int, batch: int, generator: torch.Generator) -> Tensor:
    """Random top-left corners ``(batch, 2)`` of square crops, uniform over where they fit."""
    return torch.randint(size - crop + 1, (batch, 2), generator=generator)


def mirrored(flip: bool, count: int, master: int, *key: str | int) -> Tensor:
    """Which of `count` crops ``(count,)`` are mirrored left to right: each with probability 1/2.

    By a generator of its own, so that all other draws of a batch are the same with and without.

    Args:
        flip: ``training.flip``; where it is false, none is.
        key: Place of the batch in the study.
    """
    if not flip:
        return torch.zeros(count, dtype=torch.bool)
    return torch.rand(count, generator=seeds.torch_generator(master, "flip", *key)) < 0.5


def mirror(images: Tensor, chosen: Tensor) -> Tensor:
    """The images ``(B, C, H, W)``, the chosen ones mirrored left to right."""
    return torch.where(chosen[:, None, None, None], images.flip(-1), images)


def crops(images: Tensor, corner: Tensor, size: int) -> Tensor:
    """Square crops ``(B, C, size, size)`` at one corner (top, left) for each image."""
    parts = [
        image[:, top : top + size, left : left + size]
        for image, (top, left) in zip(images, corner.tolist(), strict=True)
    ]
    return torch.stack(parts)
