"""Batches of the training set, drawn by the number of the update from the encoded set on disk.

:mod:`faithdiff.train.encode` wrote the file. It is mapped, not read: a batch touches its own rows
only, so a set may be larger than the memory.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save
from torch import Tensor

from faithdiff.config import Training
from faithdiff.errors import CheckpointError, ConfigError
from faithdiff.models.objective import time_ids
from faithdiff.models.prior import Prior
from faithdiff.models.text import Prompt
from faithdiff.study import seeds
from faithdiff.study.checksums import corrupted
from faithdiff.study.files import write_bytes_atomic
from faithdiff.study.remake import command_for
from faithdiff.train.pairs import crops, mirror, mirrored, pick

# A training crop of the LQ image is enlarged by one of these at random (paper's code).
ENLARGEMENTS = ("nearest", "bilinear", "bicubic")


def to_signed(images: Tensor) -> Tensor:
    """uint8 images as float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


@dataclass(frozen=True)
class Batch:
    """One micro-batch of B crops of `training.crop` pixels.

    Attributes:
        hq: HQ crops ``(B, 3, H, W)`` in [-1, 1]; empty where nothing asks for them.
        lq: Enlarged LQ crops ``(B, 3, H, W)`` in [-1, 1].
        latents: Scaled HQ latents ``(B, C, h, w)``.
        noise: Same shape, noise offset included.
        timesteps: ``(B,)``.
        prompt: Text conditioning, some captions dropped.
        time_ids: ``(B, 6)``.
    """

    hq: Tensor
    lq: Tensor
    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    prompt: Prompt
    time_ids: Tensor

    def to(self, device: torch.device) -> Batch:
        # Everything at once, at the end of drawing: random numbers come from the CPU's generators,
        # so that a GPU trains on the same data bit by bit. non_blocking: from pinned memory the
        # copy runs beside the computation.
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> Batch:
        """A copy that a GPU can fetch by itself."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        prompt = Prompt(change(self.prompt.hidden), change(self.prompt.pooled))
        names = [part.name for part in fields(self) if part.name != "prompt"]
        return replace(self, prompt=prompt, **{name: change(getattr(self, name)) for name in names})


class PixelRows:
    """The pixels of an encoded training set, for what learns from them alone; read by row.

    Attributes:
        shape: Height and width of the HQ images.
    """

    def __init__(self, file: Path) -> None:
        tensors = _open(file)
        self._hq, self._lq = tensors["hq"], tensors["lq"]
        self.shape = (self._hq.shape[-2], self._hq.shape[-1])

    def __len__(self) -> int:
        return len(self._hq)

    def hq(self, rows: Tensor) -> Tensor:
        """HQ images ``(B, 3, H, W)`` as uint8."""
        return self._hq[rows]

    def lq(self, rows: Tensor) -> Tensor:
        """LQ images ``(B, 3, h, w)`` as uint8."""
        return self._lq[rows]


class Cache:
    """The encoded training set; batches are drawn by the number of the update."""

    def __init__(
        self, file: Path, prior: Prior, scale: int, config: Training, hq: bool = True
    ) -> None:
        """Prepare.

        Args:
            hq: Whether batches hold HQ pixels. Where only latents are learnt from, they would be
                most of what is read from the disk, checked, and sent to the device.
        """
        self._wants_hq = hq
        self.prior = prior
        self.scheduler = prior.scheduler
        self._tensors = _open(file)
        self._scale = scale
        self._config = config
        # A crop must start on a whole pixel of both the latent and the LQ image.
        self._grid = math.lcm(prior.factor, scale)
        if config.crop % self._grid:
            raise ConfigError(f"training.crop {config.crop} is not a multiple of {self._grid}")
        if config.flip and "mirrored" not in self._tensors:
            raise CheckpointError(
                f"{file}: has no latents of mirrored images, which training.flip needs; "
                f"make it again with: {command_for(file)}"
            )

    def lq_sample(self, count: int) -> Tensor:
        """Enlarged LQ images ``(count, 3, H, W)`` in [-1, 1], for statistics of the features."""
        lq = to_signed(self._tensors["lq"].first(count))
        return F.interpolate(lq, scale_factor=self._scale, mode="bicubic").clamp(-1, 1)

    def batch(self, *key: str | int, master: int) -> Batch:
        """The micro-batch of a key such as (seed, update, micro-batch), on the model's device."""
        return self.draw(*key, master=master).to(self.prior.unet.device)

    def draw(self, *key: str | int, master: int) -> Batch:
        """The same micro-batch in the memory of the CPU."""
        # One generator for each micro-batch, keyed by its place and not by the variant: every
        # variant of a seed sees the same crops, noise and timesteps, so that they differ by their
        # design alone. The order of the draws below is part of the data: another one is another
        # training.
        generator = seeds.torch_generator(master, "train", *key)
        config, factor, grid = self._config, self.prior.factor, self._grid
        height = self._tensors["hq"].shape[-1]
        rows = pick(len(self._tensors["hq"]), config.micro_batch, generator)
        corner = grid * torch.randint(
            (height - config.crop) // grid + 1, (len(rows), 2), generator=generator
        )
        flipped = mirrored(config.flip, len(rows), master, *key)
        moments = self._moments(rows, corner // factor, flipped)
        latents = self.prior.sample_latents(moments, _normal(moments[:, ::2].shape, generator))
        # One value per image and channel beside the noise of each pixel (released code): without it
        # a denoiser hardly learns to move the mean of an image, which the schedule never quite
        # hides.
        offset = config.noise_offset * _normal((*latents.shape[:2], 1, 1), generator)
        lq = crops(self._tensors["lq"][rows], corner // self._scale, config.crop // self._scale)
        return Batch(
            hq=self._pixels(rows, corner, flipped),
            lq=self._enlarge(to_signed(mirror(lq, flipped)), generator),
            latents=latents,
            noise=_normal(latents.shape, generator) + offset,
            # Uniform over the schedule and without weights for the loss, as in the released code.
            timesteps=torch.randint(1000, (len(rows),), generator=generator),
            prompt=self._prompt(rows, generator),
            # Of the crop before it is mirrored, as in the released code.
            time_ids=time_ids((height, height), corner, (config.crop, config.crop)),
        )

    def _pixels(self, rows: Tensor, corner: Tensor, flipped: Tensor) -> Tensor:
        if not self._wants_hq:
            return torch.empty(0)
        return to_signed(
            mirror(crops(self._tensors["hq"][rows], corner, self._config.crop), flipped)
        )

    def _moments(self, rows: Tensor, corner: Tensor, flipped: Tensor) -> Tensor:
        """Moments ``(B, 2 C, h, w)`` of the crops at these corners, in latent pixels."""
        size = self._config.crop // self.prior.factor
        moments = crops(self._tensors["moments"][rows], corner, size)
        if flipped.any():
            width = self._tensors["moments"].shape[-1]
            there = torch.stack([corner[:, 0], width - size - corner[:, 1]], 1)[flipped]
            moments[flipped] = crops(self._tensors["mirrored"][rows[flipped]], there, size)
        return moments

    def _enlarge(self, lq: Tensor, generator: torch.Generator) -> Tensor:
        # Any of the three, image by image (released code). At test it is Lanczos, which is none of
        # them: the encoder must not learn to undo one filter.
        modes = torch.randint(len(ENLARGEMENTS), (len(lq),), generator=generator).tolist()
        images = [
            F.interpolate(image[None], scale_factor=self._scale, mode=ENLARGEMENTS[mode])
            for image, mode in zip(lq, modes, strict=True)
        ]
        return torch.cat(images).clamp(-1, 1)

    def _prompt(self, rows: Tensor, generator: torch.Generator) -> Prompt:
        # Some captions are replaced by the empty one, whose prediction classifier-free guidance
        # needs as well: a model that never saw it would have nothing to be guided away from.
        dropped = torch.rand(len(rows), generator=generator) < self._config.text_dropout
        rows = torch.where(dropped, len(self._tensors["hidden"]) - 1, rows)
        return Prompt(self._tensors["hidden"][rows], self._tensors["pooled"][rows])


def _normal(shape: torch.Size | tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator)


def sums_file(file: Path) -> Path:
    """Where the checksums of the rows of an encoded training set lie."""
    return file.with_suffix(".sums")


def write_sums(tensors: Mapping[str, NDArray[np.generic]], file: Path) -> None:
    """Write a CRC-32 of each row of each tensor beside an encoded training set.

    Of rows, not of the file: a batch is checked by reading no more than the batch.

    Raises:
        RunError: They cannot be written.
    """
    sums = {name: np.array([_crc(row) for row in rows]) for name, rows in tensors.items()}
    write_bytes_atomic(save(sums), sums_file(file))


def check_cache(file: Path) -> None:
    """Read an encoded training set whole and hold each row against its checksum.

    Raises:
        CheckpointError: It cannot be read.
        CorruptedError: A row is not what was written.
    """
    for tensor in _open(file).values():
        for row in range(len(tensor)):
            tensor[torch.tensor([row])]


def _crc(row: NDArray[np.generic]) -> np.uint32:
    return np.uint32(zlib.crc32(row.tobytes()))


class Slice(Protocol):
    """A tensor of a file that safetensors has opened: only what is asked for is read."""

    def get_shape(self) -> list[int]: ...

    def __getitem__(self, rows: slice) -> NDArray[np.generic]: ...


class _Mapped:
    """A tensor of the file, read by row; a row that is not what was written is an error."""

    def __init__(self, part: Slice, file: Path, sums: NDArray[np.uint32] | None) -> None:
        self._part = part
        self._file, self._sums = file, sums
        self.shape = tuple(part.get_shape())

    def __len__(self) -> int:
        return self.shape[0]

    def first(self, count: int) -> Tensor:
        return self[torch.arange(min(count, len(self)))]

    def __getitem__(self, rows: Tensor) -> Tensor:
        found = torch.cat([torch.from_numpy(self._row(row)) for row in rows.tolist()])
        return found.view(torch.bfloat16) if found.dtype == torch.uint16 else found

    def _row(self, row: int) -> NDArray[np.generic]:
        values = self._part[row : row + 1]
        if self._sums is not None and _crc(values) != self._sums[row]:
            raise corrupted(self._file, f"is corrupted in row {row}")
        return values


def _open(file: Path) -> dict[str, _Mapped]:
    # As numpy: for torch, safetensors maps the file a second time in a way that the system counts
    # as memory in use, and refuses for a file larger than it.
    try:
        stream = safe_open(file, framework="np")
        keys = list(stream.keys())
        sums = load_file(sums_file(file)) if sums_file(file).is_file() else {}
        if sums and set(sums) != set(keys):
            raise corrupted(file, f"is corrupted: has {', '.join(sorted(keys))}")
        return {key: _Mapped(stream.get_slice(key), file, sums.get(key)) for key in keys}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{file}: cannot be read ({error}); make it with: {command_for(file)}"
        ) from None
