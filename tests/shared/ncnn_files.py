"""Writes an RRDBNet as ncnn's two files, by ncnn's documentation of its format."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from torch import Tensor

LINEAR = ("conv5", "conv_first", "conv_body", "conv_last")  # no activation follows


def write(state: dict[str, Tensor], stem: Path, half: bool) -> tuple[Path, Path]:
    """Write ``<stem>.param`` and ``<stem>.bin``; returns both.

    Layers are in the order of the network, with one of each kind without weights between them.
    """
    lines = ["Input input 0 1 data 0=8 1=8 2=3"]
    content = b""
    for key in [key for key in state if key.endswith(".weight")]:
        name, weight = key.removesuffix(".weight"), state[key].numpy()
        slope = "" if name.endswith(LINEAR) else " 9=2 -23310=1,2.000000e-01"
        sizes = f"0={len(weight)} 1=3 4=1 5=1 6={weight.size}"
        lines.append(f"Convolution {name} 1 1 before_{name} after_{name} {sizes}{slope}")
        content += binary(weight, state[f"{name}.bias"].numpy(), half)
    lines += [
        "Split split 1 2 a b c",
        "Concat concat 2 1 b c d",
        "Eltwise sum 2 1 d a e 0=1 -23301=2,2.000000e-01,1.000000e+00",
        "BinaryOp add 2 1 e a f",
        "Interp larger 1 1 f output 0=1 1=2.000000e+00 2=2.000000e+00",
    ]
    param = stem.with_suffix(".param")
    param.write_text("\n".join(["7767517", f"{len(lines)} 0", *lines]) + "\n", encoding="ascii")
    stem.with_suffix(".bin").write_bytes(content)
    return param, stem.with_suffix(".bin")


def binary(weight: np.ndarray, bias: np.ndarray, half: bool) -> bytes:
    """What a ``.bin`` holds of a convolution."""
    stored = weight.astype("<f2" if half else "<f4").tobytes()
    padding = b"\0" * (-len(stored) % 4)
    tag = 0x01306B47 if half else 0
    return struct.pack("<I", tag) + stored + padding + bias.astype("<f4").tobytes()
