"""The official single file (``FaithDiff.bin``): its names and shapes, read and written.

It holds the whole UNet and the four added modules in one state dict. The official loader fills
what is absent with fresh weights and says nothing; here every tensor is accounted for. Sizes are
deduced from the tensors and the UNet's own config, so the format is not tied to SDXL's.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypedDict, TypeVar

import torch
from diffusers import ModelMixin, UNet2DConditionModel
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from faithdiff.errors import CheckpointError, RunError
from faithdiff.models.alignment import Alignment
from faithdiff.models.faithdiff import FaithDiff
from faithdiff.models.lq_encoder import LQEncoder
from faithdiff.models.state import read_state, what_holds
from faithdiff.models.weights import Shapes
from faithdiff.study.checkpoints import check_checkpoint

# Official prefix -> our part and prefix; whatever has none of these is the UNet's.
PREFIXES = {
    "denoise_encoder.": "lq_encoder.encoder.",
    "condition_embedding.": "alignment.condition.",
    "information_transformer_layes.": "alignment.transformer.",  # sic
    "spatial_ch_projs.": "alignment.project.",
}
Part = TypeVar("Part", bound=ModelMixin)
BLOCKS = 2  # not deduced: a file without its second block must not pass for a smaller model
SHOWN = 8  # wrong keys of each kind in a message


def our_name(official: str) -> str:
    """Translate a key: ``spatial_ch_projs.bias`` -> ``alignment.project.bias``."""
    for theirs, ours in PREFIXES.items():
        if official.startswith(theirs):
            rest = official.removeprefix(theirs)
            return ours + re.sub(r"^(\d+)\.mlp\.", r"\1.", rest)
    return f"unet.{official}"


def official_name(name: str) -> str:
    """The reverse of :func:`our_name`."""
    for theirs, ours in PREFIXES.items():
        if name.startswith(ours):
            rest = name.removeprefix(ours)
            return theirs + re.sub(r"^(\d+)\.(c_fc|c_proj)\.", r"\1.mlp.\2.", rest)
    return name.removeprefix("unet.")


def import_official(weights: Path, unet_config: Path, heads: int = 8) -> FaithDiff:
    """Read an official file at the size that the UNet's config and the tensors say.

    Args:
        weights: ``.safetensors``, or a pickle, which is read without running code in it.
        unet_config: ``unet/config.json`` of the base model.
        heads: Of the alignment's attention, the one size that no tensor tells.

    Returns:
        The model with the file's tensors and number formats, in evaluation mode.

    Raises:
        CheckpointError: The file is corrupted or holds something else; every tensor that is
            missing, left over or of another shape is counted, and the first of each kind are shown.
    """
    # Built without memory, then given the file's own tensors (`assign`): 10 GB once and not twice,
    # and their number formats stay as published.
    found = read_state(weights)
    with torch.device("meta"):
        model = _model(found, _read_config(unet_config), weights, heads)
    expected = {official_name(key): tensor for key, tensor in model.state_dict().items()}
    # The official loader reads the UNet with strict=False and skips a prefix that is absent: a file
    # of the wrong model gives an untrained alignment there, and pictures that look almost right.
    if problems := _compare(_shapes(found), _shapes(expected)):
        raise CheckpointError(
            f"{weights}: is not a FaithDiff of {unet_config}{_instead(found)}:\n"
            + "\n".join(problems)
        )
    model.load_state_dict({our_name(key): tensor for key, tensor in found.items()}, assign=True)
    return model.eval().requires_grad_(False)


def export_official(folder: Path, target: Path) -> None:
    """Write a trained checkpoint as one official file: safetensors by that suffix, else a pickle.

    Raises:
        CheckpointError: The checkpoint is corrupted, or of a variant beyond the format.
        RunError: The file cannot be written.
        CorruptedError: The checkpoint is not what its training wrote.
    """
    check_checkpoint(folder)
    _check_expressible(folder)
    state: dict[str, Tensor] = {}
    for part in ("unet", "lq_encoder", "alignment"):
        for file in sorted((folder / part).glob("*.safetensors")):
            tensors = read_state(file)
            state |= {official_name(f"{part}.{key}"): tensors[key] for key in tensors}
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.partial")
    try:
        if target.suffix == ".safetensors":
            save_file(state, partial)
        else:
            torch.save(state, partial)
        os.replace(partial, target)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise RunError(f"{target}: cannot be written: {error}") from None
    finally:
        partial.unlink(missing_ok=True)


def _instead(found: Iterable[str]) -> str:
    """What a file is that has none of the modules of FaithDiff, for the middle of a message."""
    names = list(found)
    what = what_holds(names)
    if not what or any(name.startswith(tuple(PREFIXES)) for name in names):
        return ""
    return f": it looks like {what}; wanted is FaithDiff.bin, or what `faithdiff export` wrote"


class UNetConfig(TypedDict):
    """``unet/config.json``: what is read of it here; diffusers reads the rest."""

    block_out_channels: list[int]


def _read_config(file: Path) -> UNetConfig:
    try:
        config: UNetConfig = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: the UNet's config cannot be read: {error}") from None
    if not isinstance(config, dict) or "block_out_channels" not in config:
        raise CheckpointError(f"{file}: is not the config of a UNet2DConditionModel")
    return config


def _model(found: Mapping[str, Tensor], config: UNetConfig, file: Path, heads: int) -> FaithDiff:
    """The model whose sizes the config and the tensors give; absent parts get usual sizes."""
    width = config["block_out_channels"][0]
    norm, mlp = (
        found.get(f"{key}.weight")
        for key in ("condition_embedding.norm_in", "information_transformer_layes.0.mlp.c_fc")
    )
    levels = _count(found, r"denoise_encoder\.down_blocks\.(\d+)\.") or 4
    first = [
        found.get(f"denoise_encoder.down_blocks.{level}.resnets.0.conv1.weight")
        for level in range(levels)
    ]
    default = (128, 256, 512, 512)
    widths = default if None in first else tuple(len(t) for t in first if t is not None)
    try:
        unet = UNet2DConditionModel.from_config(config)
        encoder = LQEncoder(
            block_out_channels=widths,
            layers_per_block=_count(found, r"denoise_encoder\.down_blocks\.0\.resnets\.(\d+)\.")
            or 2,
        )
        alignment = Alignment(
            feature_channels=encoder.channels if norm is None else len(norm),
            width=width,
            blocks=BLOCKS,
            heads=heads,
            mlp_ratio=2 if mlp is None else len(mlp) // (2 * width),
        )
    except (ValueError, TypeError, AssertionError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"{file}: no model can be built of its tensors and the UNet's config: {error}"
        ) from None
    return FaithDiff(unet, encoder, alignment)


def _count(names: Iterable[str], pattern: str) -> int:
    """One more than the largest number that a pattern finds in the names; 0 if it finds none."""
    numbers = [int(match[1]) for name in names if (match := re.match(pattern, name))]
    return max(numbers, default=-1) + 1


def _shapes(state: Mapping[str, Tensor]) -> Shapes:
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


def _compare(found: Shapes, expected: Shapes) -> list[str]:
    missing = sorted(expected.keys() - found.keys())
    unexpected = sorted(found.keys() - expected.keys())
    wrong = sorted(key for key in found.keys() & expected.keys() if found[key] != expected[key])
    return [
        *_listed("missing", [f"{key} {expected[key]}" for key in missing]),
        *_listed("unexpected", [f"{key} {found[key]}" for key in unexpected]),
        *_listed(
            "of another shape",
            [f"{key}: {found[key]} found, {expected[key]} expected" for key in wrong],
        ),
    ]


def _listed(kind: str, lines: list[str]) -> list[str]:
    if not lines:
        return []
    more = [f"  ... and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    noun = "tensor" if len(lines) == 1 else "tensors"
    return [f"{len(lines)} {noun} {kind}:", *(f"  {line}" for line in lines[:SHOWN]), *more]


def _check_expressible(folder: Path) -> None:
    """The official module has one alignment and one kind of LQ features."""
    with torch.device("meta"):
        encoder = _untrained(LQEncoder, folder / "lq_encoder")
        alignment = _untrained(Alignment, folder / "alignment")
    wanted = {
        "features": (encoder.config.features, "penultimate"),
        "patch_size": (encoder.config.patch_size, 1),
        "alignment": (alignment.config.kind, "transformer"),
        "attention": (alignment.config.attention, "released"),
        "norm": (alignment.config.norm, "group"),
    }
    wrong = [f"{key} is {is_!r}" for key, (is_, must) in wanted.items() if is_ != must]
    if wrong:
        raise CheckpointError(
            f"{folder}: the official format cannot express it: {', '.join(wrong)} (it has "
            + ", ".join(f"{key} {must!r}" for key, (_, must) in wanted.items())
            + ")"
        )


def _untrained(cls: type[Part], folder: Path) -> Part:
    """A part as its own config says, with fresh weights."""
    try:
        return cls.from_config(cls.load_config(folder, local_files_only=True))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder}: cannot be read: {error}") from None
