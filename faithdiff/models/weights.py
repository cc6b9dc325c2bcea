"""Reads one part of a model from its diffusers folder, whole or not at all.

diffusers fills what a file lacks with random numbers and a warning. Here every tensor is compared
with what the part's own config asks for, by the headers of its files, before any of it is read.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TypeVar

import torch
from diffusers import ModelMixin
from safetensors import SafetensorError, safe_open
from torch import nn

from faithdiff.errors import CheckpointError
from faithdiff.models.state import INDEX, named_by
from faithdiff.study.files import lfs_pointer

Part = TypeVar("Part", bound=ModelMixin)
Shapes = dict[str, tuple[int, ...]]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}  # of `precision`
FAILURES = (OSError, ValueError, TypeError, RuntimeError, SafetensorError)


def load_part(cls: type[Part], folder: Path, dtype: torch.dtype = torch.float32) -> Part:
    """Read a diffusers model, converted to `dtype`.

    Raises:
        CheckpointError: A file is missing or corrupted, or a tensor is missing, left over or of
            another shape than the config says.
    """
    try:
        # Without memory, as only its shapes are compared: SDXL's UNet would fill another 10 GB.
        with torch.device("meta"):
            expected = cls.from_config(cls.load_config(folder, local_files_only=True))
        variant = variant_of(folder)
        found = read_shapes(folder, variant)
    except FAILURES as error:
        raise CheckpointError(f"{folder}: cannot be loaded: {error}") from None
    _compare(folder, found, {key: tuple(t.shape) for key, t in expected.state_dict().items()})
    try:
        return cls.from_pretrained(
            folder, local_files_only=True, variant=variant, torch_dtype=dtype
        )
    except FAILURES as error:
        raise CheckpointError(f"{folder}: cannot be loaded: {error}") from None


def variant_of(folder: Path) -> str | None:
    """``fp16`` where only files of that variant are there (``*.fp16.safetensors``), else None."""
    # SDXL's folders are often fetched in this variant alone, which diffusers must be told by name.
    files = list(folder.glob("*.safetensors"))
    return "fp16" if files and all(".fp16" in file.name for file in files) else None


def read_shapes(folder: Path, variant: str | None = None) -> Shapes:
    """Shapes of all tensors in the safetensors files of a folder; reads headers only.

    Raises:
        CheckpointError: There is no such file, or one is truncated or corrupted.
    """
    files = sorted(
        file
        for file in folder.glob("*.safetensors")
        if (".fp16" in file.name) == (variant == "fp16")
    )
    if not files:
        pickles = sorted(folder.glob("*.bin"))
        only = f", only {pickles[0].name}, which could run code" if pickles else ""
        raise CheckpointError(f"{folder}: holds no .safetensors file{only}; fetch it, too")
    _check_shards(folder)
    shapes: Shapes = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as stream:
                shapes |= {key: tuple(stream.get_slice(key).get_shape()) for key in stream.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            lost = "is a link that leads nowhere, as of a download that did not end; fetch it again"
            said = lost if not file.exists() else lfs_pointer(file)
            said = said or f"is corrupted or truncated: {error}"
            raise CheckpointError(f"{file}: {said}") from None
    return shapes


def _check_shards(folder: Path) -> None:
    """Refuse a sharded part of which a file is missing, before each of its tensors is missed."""
    for index in sorted(folder.glob(f"*.safetensors{INDEX}")):
        files = named_by(index)
        if missing := [file.name for file in files if not file.exists()]:
            raise CheckpointError(
                f"{index}: names {len(files)} files, and {len(missing)} are not there "
                f"({missing[0]}); fetch them, too"
            )


def refuse_pointers(folder: Path) -> None:
    """Refuse a folder that was cloned without its large files, before a library reads it.

    Raises:
        CheckpointError: Names the first pointer of Git LFS, and the command that gets the file.
    """
    for file in sorted(folder.rglob("*")):
        if file.suffix in (".safetensors", ".bin", ".json", ".model") and lfs_pointer(file):
            raise CheckpointError(f"{file}: {lfs_pointer(file)}")


def module_digest(*modules: nn.Module) -> str:
    """Digest of all parameters and buffers, to prove that none of them changed by one bit."""
    sha = hashlib.sha256()
    for module in modules:
        for name, tensor in module.state_dict().items():
            sha.update(f"{name} {tuple(tensor.shape)}\n".encode())
            sha.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()


def _compare(folder: Path, found: Shapes, expected: Shapes) -> None:
    wrong = [key for key in sorted(found | expected) if found.get(key) != expected.get(key)]
    if wrong:
        key = wrong[0]
        more = f" (and {len(wrong) - 1} more tensors)" if len(wrong) > 1 else ""
        raise CheckpointError(
            f"{folder}: {key}: shape {found.get(key, 'none')} found, "
            f"{expected.get(key, 'none')} expected by its config.json{more}"
        )
