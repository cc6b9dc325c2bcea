"""What every variant needs of the training set, computed once: latents, LQ pixels, text.

HQ latents come from the frozen VAE and captions from the frozen text encoder, so neither changes
during the study (the paper's code computes them anew in each step). One safetensors file receives
them a chunk at a time: a set of any size passes through little memory, and a killed call goes on
where it was.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from faithdiff.config import digest
from faithdiff.errors import RunError, UserError
from faithdiff.models.prior import Prior
from faithdiff.study.files import write_text_atomic
from faithdiff.study.progress import ProgressBar
from faithdiff.train.cache import sums_file, to_signed, write_sums
from faithdiff.train.pairs import PairFiles

IMAGES, CAPTIONS = 8, 256  # encoded together
SAVED_EVERY = 32  # chunks between records of the progress
# safetensors' names of types. numpy has no bfloat16: its bits are kept as U16, for nothing else is.
DTYPES: dict[str, type[np.generic]] = {
    "F32": np.float32,
    "F16": np.float16,
    "U16": np.uint16,
    "U8": np.uint8,
}
# Captions are read in the precision of the passes, which would round them anyway.
TEXT = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Rows = dict[str, Tensor]
Mapped = np.memmap[tuple[int, ...], np.dtype[np.generic]]


def text_bytes(precision: str) -> int:
    """Bytes of one number of the encoded captions, for a `training.precision`."""
    return TEXT[precision].itemsize


@dataclass(frozen=True)
class Part:
    """One tensor of the file: safetensors' name of its type, and its shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def width(self) -> int:
        """Bytes of one number."""
        return np.dtype(DTYPES[self.dtype]).itemsize

    @property
    def size(self) -> int:
        return prod(self.shape) * self.width


def write_cache(
    pairs: PairFiles,
    prior: Prior,
    file: Path,
    prior_digest: str = "",
    flip: bool = False,
    precision: str = "fp32",
) -> None:
    """Encode a training set into a safetensors file; a killed call is resumed.

    The tensors are lq, hq (uint8 pixels), moments of the HQ latents, and hidden and pooled of the
    captions; the last row of these two is the empty caption. Where crops are mirrored, `mirrored`
    has the moments of the mirrored images: a VAE does not commute with mirroring.

    Args:
        flip: ``training.flip``.
        precision: ``training.precision``, that of the captions.
        prior_digest: Identity of the prior, for the decision whether to resume.

    Raises:
        RunError: The disk is full; what is written stays for the next call.
    """
    parts = _parts(pairs, prior, flip, precision)
    identity = digest(
        pairs.identity, prior_digest, {k: [p.dtype, p.shape] for k, p in parts.items()}
    )
    partial, progress = file.with_suffix(".partial"), file.with_suffix(".progress.json")
    try:
        done = _resume(partial, progress, identity)
        if not done:
            _allocate(partial, parts)
        places = _map(partial, parts)
        steps = list(_chunks(pairs, prior, flip, precision))
        for number, (first, encode) in enumerate(
            ProgressBar(steps, "encode", unit="chunk", mininterval=2)
        ):
            if number >= done:
                for name, rows in encode().items():
                    place = places[name][first : first + len(rows)]
                    if place.shape != rows.shape:
                        raise UserError(f"{pairs.hq[0].parent}: training images must have one size")
                    place[:] = rows.cpu().numpy()
                if (number + 1) % SAVED_EVERY == 0:
                    _flush(places)
                    write_text_atomic(json.dumps({"of": identity, "done": number + 1}), progress)
        _flush(places)
        sums_file(file).unlink(missing_ok=True)  # never those of an older file beside this one
        os.replace(partial, file)
        write_sums(places, file)
        progress.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"{file}: cannot be written: {error}; the same command goes on") from None


def _parts(pairs: PairFiles, prior: Prior, flip: bool, precision: str) -> dict[str, Part]:
    """All tensors of the file; their shapes are those of the first pair."""
    images, text = _encode_images(pairs, prior, flip, 0, 1), _encode_text(prior, [""], precision)
    encoded = {**images, **text}
    rows = {**dict.fromkeys(images, len(pairs)), **dict.fromkeys(text, len(pairs) + 1)}
    names = {
        torch.float32: "F32", torch.float16: "F16", torch.uint16: "U16", torch.uint8: "U8",
    }  # fmt: skip
    return {
        key: Part(names[value.dtype], (rows[key], *value.shape[1:]))
        for key, value in encoded.items()
    }


def _chunks(
    pairs: PairFiles, prior: Prior, flip: bool, precision: str
) -> Iterator[tuple[int, Callable[[], Rows]]]:
    """First row of each chunk, and what gives its rows: images, then captions."""
    captions = [*pairs.captions, ""]
    for start in range(0, len(pairs), IMAGES):
        stop = min(start + IMAGES, len(pairs))
        yield start, lambda a=start, b=stop: _encode_images(pairs, prior, flip, a, b)  # type: ignore[misc]
    for start in range(0, len(captions), CAPTIONS):
        some = captions[start : start + CAPTIONS]
        yield start, lambda some=some: _encode_text(prior, some, precision)  # type: ignore[misc]


@torch.no_grad()
def _encode_images(pairs: PairFiles, prior: Prior, flip: bool, start: int, stop: int) -> Rows:
    part = pairs.read(start, stop)
    images = to_signed(part.hq.to(prior.vae.device))
    rows = {"lq": part.lq, "hq": part.hq, "moments": prior.encode_moments(images)}
    if flip:
        # Cut to whole latent pixels first: then the left of one is exactly the right of the other.
        whole = images.shape[-1] // prior.factor * prior.factor
        rows["mirrored"] = prior.encode_moments(images[..., :whole].flip(-1))
    return rows


@torch.no_grad()
def _encode_text(prior: Prior, captions: list[str], precision: str) -> Rows:
    prompt = prior.encode_text(captions)
    rows = {"hidden": prompt.hidden, "pooled": prompt.pooled}
    rows = {name: values.to(TEXT[precision]) for name, values in rows.items()}
    if precision == "bf16":
        rows = {name: values.contiguous().view(torch.uint16) for name, values in rows.items()}
    return rows


def _order(parts: dict[str, Part]) -> list[str]:
    # As safetensors orders them: wide types first, then by name.
    return sorted(parts, key=lambda name: (-parts[name].width, name))


def _header(parts: dict[str, Part]) -> bytes:
    """Head of a safetensors file: the length of a JSON text, and the text, padded to 8 bytes."""
    table: dict[str, dict[str, str | list[int]]] = {}
    offset = 0
    for name in _order(parts):
        part = parts[name]
        ends = [offset, offset + part.size]
        table[name] = {"dtype": part.dtype, "shape": list(part.shape), "data_offsets": ends}
        offset = ends[1]
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _allocate(file: Path, parts: dict[str, Part]) -> None:
    """A file of the final size: a full disk shows before anything is computed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    header = _header(parts)
    with file.open("wb") as stream:
        stream.write(header)
        os.posix_fallocate(
            stream.fileno(), 0, len(header) + sum(part.size for part in parts.values())
        )


def _map(file: Path, parts: dict[str, Part]) -> dict[str, Mapped]:
    """The tensors of the file as arrays to write to."""
    places, offset = {}, len(_header(parts))
    for name in _order(parts):
        part = parts[name]
        places[name] = np.memmap(file, DTYPES[part.dtype], "r+", offset, part.shape)
        offset += part.size
    return places


def _flush(places: dict[str, Mapped]) -> None:
    for place in places.values():
        place.flush()


def _resume(partial: Path, progress: Path, identity: str) -> int:
    """Chunks that a killed call left finished."""
    if not (partial.is_file() and progress.is_file()):
        return 0
    try:
        record = json.loads(progress.read_text(encoding="utf-8"))
        return int(record["done"]) if record["of"] == identity else 0
    except (ValueError, KeyError, TypeError):  # corrupted: start afresh
        return 0
