"""BSRNet (Zhang et al., ICCV 2021): takes the degradation out of an image before it is captioned.

Optional in the released code and off by default there. The network is basicsr's RRDBNet, whose
arithmetic is the same; the published file has other names for the same layers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from faithdiff import compat
from faithdiff.errors import CheckpointError
from faithdiff.study.files import lfs_pointer

TILE, MARGIN, SCALE = 512, 16, 4  # pixels of the LQ image
_NAMES = (
    (r"^RRDB_trunk\.(\d+)\.RDB(\d)\.", r"body.\1.rdb\2."),
    (r"^trunk_conv\.", "conv_body."),
    (r"^upconv(\d)\.", r"conv_up\1."),
    (r"^HRconv\.", "conv_hr."),
)
Pixels = NDArray[np.uint8]


def load_bsrnet(file: Path, device: str) -> Callable[[Pixels], Pixels]:
    """Read the published weights; the result makes ``(4H, 4W, 3)`` uint8 of ``(H, W, 3)``.

    Raises:
        CheckpointError: The file is missing, corrupted, or of another network.
    """
    # In float32 whatever the study's precision is: it is small, and only the captioner looks at
    # what it makes. The restoration itself starts from the LQ image as it came.
    network = network_of(read_state(file), str(file)).to(device)

    @torch.inference_mode()
    def clean(image: Pixels) -> Pixels:
        lq = torch.from_numpy(image).permute(2, 0, 1)[None].to(device).float() / 255
        restored = _tiled(network, lq)[0].clamp(0, 1).permute(1, 2, 0)
        return (restored * 255).round().byte().cpu().numpy()

    return clean


def read_state(file: Path) -> dict[str, Tensor]:
    """Tensors of the file under basicsr's names."""
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        return {_renamed(key): tensor for key, tensor in state.items()}
    except FileNotFoundError:
        raise CheckpointError(
            f"{file}: is missing; run: faithdiff fetch --profile released, or set captioner.clean: "
            "null"
        ) from None
    except Exception as error:  # noqa: BLE001 - a file from outside may fail in any way
        raise CheckpointError(
            f"{file}: {lfs_pointer(file) or f'cannot be read: {error}'}"
        ) from None


def network_of(state: dict[str, Tensor], where: str) -> nn.Module:
    """The network that tensors fit, its sizes taken from them."""
    compat.patch()
    from basicsr.archs.rrdbnet_arch import RRDBNet

    try:
        width = state["conv_first.weight"].shape[0]
        growth = state["body.0.rdb1.conv1.weight"].shape[0]
        blocks = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("body."))
        network = RRDBNet(3, 3, scale=SCALE, num_feat=width, num_block=blocks, num_grow_ch=growth)
        network.load_state_dict(state)
    except (KeyError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{where}: is not BSRNet: {error}") from None
    return network.eval().requires_grad_(False)


def _renamed(key: str) -> str:
    for pattern, name in _NAMES:
        key = re.sub(pattern, name, key)
    return key


def _tiled(network: nn.Module, lq: Tensor) -> Tensor:
    """Tile by tile with a margin that is cut off again, so that large images fit the memory."""
    height, width = lq.shape[-2:]
    output = lq.new_empty(1, 3, SCALE * height, SCALE * width)
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            above, before = min(top, MARGIN), min(left, MARGIN)
            part = lq[..., top - above : top + TILE + MARGIN, left - before : left + TILE + MARGIN]
            # Zeros to a multiple of four, as there; they fall outside of `place` again.
            sides = (0, -part.shape[-1] % 4, 0, -part.shape[-2] % 4)
            inner = network(F.pad(part, sides))[..., SCALE * above :, SCALE * before :]
            place = output[
                ..., SCALE * top : SCALE * (top + TILE), SCALE * left : SCALE * (left + TILE)
            ]
            place.copy_(inner[..., : place.shape[-2], : place.shape[-1]])
    return output
