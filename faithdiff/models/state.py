"""Reads a state dict from the files that people have: nested, sharded, of another format or cut.

The idea is that of spandrel: what wraps the tensors is taken off, never guessed at, and a file of
something else is told for what it is.
"""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from faithdiff.errors import CheckpointError
from faithdiff.study.files import lfs_pointer

# Keys under which programs put the weights, those that were averaged over the training first, as
# basicsr does.
_WITHIN = (
    *("params_ema", "params-ema", "ema", "model_ema", "state_dict_ema", "params", "state_dict"),
    *("model_state_dict", "model", "module", "net", "network", "generator", "unet"),
)
# What every name begins with where a wrapper was saved with its module.
_PREFIXES = ("module.", "_orig_mod.", "model.", "unet.")
INDEX = ".index.json"  # how the name of a sharded model's index ends
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})(?=\.(?:safetensors|bin)$)")
_ZIP, _GGUF = b"PK\x03\x04", b"GGUF"
_HEADER = 8  # bytes of a safetensors file that hold the length of its header
# What a file holds, by a pattern that a name in it fits; the first that is found.
_KINDS = (
    (r"(^|\.)lora_(A|B|up|down|unet|te\d?)|\.alpha$|\.(hada|lokr)_", "a LoRA, which only changes a"
     " model: merge it into a full model first"),
    (r"^((model\.)?diffusion_model|first_stage_model|conditioner|cond_stage_model)\.", "a whole"
     " Stable Diffusion model in one file, as ComfyUI and AUTOMATIC1111 read it"),
    (r"^control_model\.|(^|\.)controlnet_|^model\.control_model\.", "a ControlNet, or SUPIR"),
    (r"^(conv_first|RRDB_trunk\.|model\.1\.sub\.)|^body\.\d+\.rdb\d", "a Real-ESRGAN or ESRGAN"),
    (r"^text_model\.|^transformer\.resblocks\.", "a text encoder"),
    (r"^(encoder|decoder)\.(down|up)_blocks?\.|^decoder\.conv_in", "a VAE"),
    (r"^(double|single|joint)_(transformer_)?blocks\.|^transformer_blocks\.0\.attn\.add_", "a"
     " transformer (FLUX, SD3)"),
    (r"^(down_blocks|mid_block|up_blocks)\.", "the UNet of a diffusion model alone"),
)  # fmt: skip


def read_state(file: Path) -> dict[str, Tensor]:
    """Read a state dict without running code: safetensors, or a pickle of tensors alone.

    What is taken of a file that holds more is printed. Of a sharded model any shard, or the index,
    stands for all of them.

    Raises:
        CheckpointError: The file is missing, cut, of another format, or holds anything but named
            tensors of floating-point numbers.
    """
    if shards := _shards(file):
        state: dict[str, Tensor] = {}
        for shard in shards:
            state |= _tensors(shard)
    else:
        state = _tensors(file)
    for key, tensor in state.items():
        # Of one byte, they are quantised; float8 would be read as if nothing were lost.
        if tensor.element_size() < 2 and tensor.numel() > 1:
            raise CheckpointError(
                f"{file}: {key} has numbers of 8 bits ({tensor.dtype}): a quantised model; give "
                "one in fp32, bf16 or fp16"
            )
    return state


def what_holds(names: Iterable[str]) -> str:
    """What a file with these tensors is, in words; empty where nothing fits."""
    known = list(names)
    found = (what for pattern, what in _KINDS if any(re.search(pattern, name) for name in known))
    return next(found, "")


def named_by(index: Path) -> list[Path]:
    """The files that the index of a sharded model names.

    Raises:
        CheckpointError: It is none.
    """
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return [index.with_name(name) for name in sorted(set(names))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index}: is no index of a sharded model: {error!r}") from None


def _shards(file: Path) -> list[Path]:
    """All files of the sharded model that a file is of; none where it is not sharded."""
    if file.name.endswith(INDEX):
        shards = named_by(file)
    elif number := _SHARD.search(file.name):
        head, tail = file.name[: number.start()], file.name[number.end() :]
        count = int(number[2])
        shards = [
            file.with_name(f"{head}-{each:05}-of-{count:05}{tail}") for each in range(1, count + 1)
        ]
    else:
        return []
    if missing := [shard.name for shard in shards if not shard.exists()]:
        raise CheckpointError(
            f"{file}: is one part of {len(shards)} of a model, and {len(missing)} are not beside "
            f"it ({missing[0]}); fetch them, too"
        )
    return shards


def _tensors(file: Path) -> dict[str, Tensor]:
    """The named tensors of one file, without what wraps them."""
    found, way = _content(file), ""
    while not (isinstance(found, Mapping) and _is_state(found)):
        held = found if isinstance(found, Mapping) else {}
        inner = _inner(held)
        if not inner:
            has = f": it has {', '.join(map(str, held))[:100]}" if held else ""
            raise CheckpointError(f"{file}: is not a state dict of named tensors{has}")
        key = next((each for each in _WITHIN if each in inner), next(iter(inner)))
        if len(inner) > 1 and key not in _WITHIN:
            raise CheckpointError(
                f"{file}: holds several models ({', '.join(inner)}); save the one that is meant "
                "alone"
            )
        way, found = f"{way}[{key!r}]", inner[key]
    state = {str(key): tensor for key, tensor in found.items()}
    prefix = ""
    while each := _before_all(state):
        state, prefix = {key.removeprefix(each): t for key, t in state.items()}, prefix + each
    taken = [f"what it has under {way}"] * bool(way)
    taken += [f"its tensors without {prefix!r} before their names"] * bool(prefix)
    if taken:
        print(f"{file}: takes {', and '.join(taken)}", flush=True)
    return state


def _before_all(names: Iterable[str]) -> str:
    """The prefix of a wrapper that all names have; empty where there is none."""
    known = list(names)
    return next((p for p in _PREFIXES if known and all(n.startswith(p) for n in known)), "")


def _is_state(found: Mapping[str, object]) -> bool:
    return all(isinstance(tensor, Tensor) for tensor in found.values())


def _inner(found: Mapping[str, object]) -> dict[str, Mapping[str, object]]:
    """What lies within and may be a model; no optimiser, whose state is by number."""
    return {
        str(key): value
        for key, value in found.items()
        if isinstance(value, Mapping) and value and all(isinstance(name, str) for name in value)
        if _is_state(value) or _inner(value)
    }


def _content(file: Path) -> object:
    """What a file holds, read by what it begins with: many have the suffix of another format."""
    try:
        if file.is_dir():
            raise CheckpointError(f"{file}: {_of_folder(file)}")
        with file.open("rb") as stream:
            begins = stream.read(_HEADER + 1)
        if begins[:4] != _ZIP and begins[_HEADER:] == b"{":
            if problem := _cut(file, int.from_bytes(begins[:_HEADER], "little")):
                raise CheckpointError(f"{file}: {problem}")
            return load_file(file)
        if not zipfile.is_zipfile(file):
            raise CheckpointError(f"{file}: {_why_no_weights(file, begins)}")
        # `weights_only`: a pickle from the network may otherwise run any code that it likes.
        if file.suffix != ".safetensors":
            return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        with file.open("rb") as stream:  # of a file by name torch would believe the suffix
            return torch.load(stream, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, SafetensorError) as error:
        lost = file.is_symlink() and not file.exists()
        said = "is a link that leads nowhere, as of a download that did not end" if lost else ""
        said = said or f"is missing, truncated or corrupted: {error}"
        raise CheckpointError(f"{file}: {said}") from None
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{file}: holds more than tensors and is not unpickled: {str(error).splitlines()[0]}"
        ) from None


def _cut(file: Path, header: int) -> str:
    """How much of a safetensors file is missing; empty for a whole one."""
    size, whole = file.stat().st_size, _HEADER + header
    if size >= whole:
        with file.open("rb") as stream:
            stream.seek(_HEADER)
            try:
                tensors = json.loads(stream.read(header)).values()
                ends = [each["data_offsets"][1] for each in tensors if "data_offsets" in each]
            except (ValueError, KeyError, TypeError, AttributeError):
                return ""  # its reader will say so
            whole += max(ends, default=0)
    if size >= whole:
        return ""
    return (
        f"is truncated or corrupted: it has {size:,} of {whole:,} bytes at least, as of a download "
        "that did not end; fetch it again"
    )


def _why_no_weights(file: Path, begins: bytes) -> str:
    if pointer := lfs_pointer(file):
        return pointer
    if begins.startswith(_ZIP):
        return "is truncated or corrupted: its end is missing, as of a download that did not end"
    if begins.startswith(_GGUF):
        return "is a quantised model (GGUF); give one in fp32, bf16 or fp16 (.safetensors)"
    if file.suffix == ".safetensors":
        return "is no safetensors file; get it again"
    return (
        "is no archive of torch.save; get it again, or load and save it with a PyTorch newer than "
        "1.6"
    )


def _of_folder(folder: Path) -> str:
    """Why a folder is no file of weights, and which of its files may be meant."""
    kinds = (f"*{INDEX}", "*.safetensors", "*.bin", "*.pth", "*.pt", "*.ckpt")
    files = [file for kind in kinds for file in sorted(folder.rglob(kind))]
    return f"is a folder; give the file{f' in it, such as {files[0]}' if files else ''}"
