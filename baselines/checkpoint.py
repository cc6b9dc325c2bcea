"""The checkpoint folder of a trained baseline: weights, their config, the training log."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypedDict

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from faithdiff.errors import CheckpointError, RunError
from faithdiff.study.files import lfs_pointer, write_text_atomic
from faithdiff.train.log import LogRow, write_log

WEIGHTS, CONFIG = "model.safetensors", "config.json"


class About(TypedDict, total=False):
    """``config.json``: what must be known beside the settings to build a network again."""

    format: str
    architecture: dict[str, int]
    tags: list[str]  # the vocabulary of SeeSR's tagger


def save(
    weights: dict[str, Tensor], about: dict[str, Any], log: list[LogRow], folder: Path
) -> None:
    """Write ``model.safetensors``, ``config.json`` and ``training.csv``."""
    folder.mkdir(parents=True, exist_ok=True)
    # safetensors refuses views and shared memory, which averaged weights may be.
    tensors = {key: value.detach().cpu().contiguous() for key, value in weights.items()}
    # Weights last: a folder that has them has the rest.
    write_text_atomic(json.dumps(about, indent=2) + "\n", folder / CONFIG)
    _publish(lambda file: write_log(log, file), folder / "training.csv")
    _publish(lambda file: save_file(tensors, file, {"format": "pt"}), folder / WEIGHTS)


def _publish(write: Callable[[Path], None], file: Path) -> None:
    """Write a file under a passing name, then give it its own."""
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        write(partial)
        os.replace(partial, file)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise RunError(f"{file}: cannot be written: {error}") from None


def read_config(folder: Path, method: str) -> About:
    """Read what :func:`save` was told about the weights.

    Raises:
        CheckpointError: It is missing or corrupted.
    """
    file = folder / CONFIG
    if not file.is_file():
        raise CheckpointError(_missing(file, method))
    try:
        about: About = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file}: is corrupted: {error}; train it again") from None
    return about


def read_weights(folder: Path, expected: dict[str, Tensor], method: str) -> dict[str, Tensor]:
    """Read weights that must have the names and shapes of `expected`.

    Raises:
        CheckpointError: They are missing, corrupted, or of another shape.
    """
    file = folder / WEIGHTS
    if not file.is_file():
        raise CheckpointError(_missing(file, method))
    try:
        found = load_file(file)
    except (OSError, SafetensorError) as error:
        said = lfs_pointer(file) or f"cannot be read: {error}; train it again"
        raise CheckpointError(f"{file}: {said}") from None
    # Checked by name before `load_state_dict`, whose message speaks of modules and of no setting.
    for key in sorted(expected.keys() | found.keys()):
        have, want = (str(tuple(d[key].shape)) if key in d else "none" for d in (found, expected))
        if have != want:
            raise CheckpointError(
                f"{file}: {key}: shape {have} found, {want} expected by the settings of the "
                "profile; restore these settings or train it again"
            )
    return found


def _missing(file: Path, method: str) -> str:
    return f"{file}: is missing; make it with: faithdiff train --method {method}"
