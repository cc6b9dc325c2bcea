"""Reads convolutions from the files of ncnn, an inference library for phones.

A network is two files. The text ``.param`` lists its layers in order, with settings as
``key=value``. The ``.bin`` holds, for each convolution in that order: a tag of 4 bytes that says
how the weights are stored, the weights ``(out, in, k, k)``, and the biases as float32. How the
layers are wired is left to the caller, who knows the network. Whatever is not known here is an
error: a file that is half understood would give a network that runs and is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from faithdiff.errors import CheckpointError

MAGIC = "7767517"
WITHOUT_WEIGHTS = ("Input", "Split", "Concat", "Eltwise", "BinaryOp", "Interp")
# Settings of a convolution by ncnn's numbers (-23310 is the array of number 10), and what holds
# where a file leaves one out.
NAMES = {
    "0": "outputs",
    "1": "kernel",
    "2": "dilation",
    "3": "stride",
    "4": "padding",
    "5": "bias",
    "6": "weights",
    "9": "activation",
    "-23310": "slope",
}
DEFAULTS = {"dilation": "1", "stride": "1", "padding": "0", "bias": "0", "activation": "0"}
LEAKY_RELU = "2"  # an activation
FLOAT16, FLOAT32 = 0x01306B47, 0  # tags


@dataclass(frozen=True)
class Convolution:
    """A square convolution that keeps the size of the image.

    Attributes:
        name: What the file calls it.
        shape: Of the weights, ``(out, in, k, k)``.
        bias: Whether it has biases.
        slope: Of the leaky ReLU that follows; None where nothing does.
    """

    name: str
    shape: tuple[int, int, int, int]
    bias: bool
    slope: float | None


@dataclass(frozen=True)
class Weights:
    """What the ``.bin`` holds of a convolution, as float32."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None


def read_convolutions(file: Path) -> list[Convolution]:
    """Read the convolutions of a ``.param`` file, in its order.

    Raises:
        CheckpointError: It is missing or cut, or has a layer or a setting that is not known here.
    """
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file}: cannot be read: {error}") from None
    magic, counts, *layers = [*lines, "", ""]
    if magic.strip() != MAGIC:
        raise CheckpointError(f"{file}: begins with {magic[:20]!r} found, {MAGIC} of ncnn expected")
    rows = [layer.split() for layer in layers if layer.strip()]
    promised = counts.partition(" ")[0]
    if promised != str(len(rows)):
        raise CheckpointError(
            f"{file}: {len(rows)} layers found, {promised or 'a number'} expected by its second "
            "line: the file is cut or changed"
        )
    found = []
    for kind, *fields in rows:
        where = f"{file}: layer {fields[0] if fields else '?'}"
        if kind == "Convolution":
            found.append(_convolution(fields, where))
        elif kind not in WITHOUT_WEIGHTS:
            known = ", ".join(("Convolution", *WITHOUT_WEIGHTS))
            raise CheckpointError(f"{where}: type {kind!r} found, one of {known} expected")
    return found


def _convolution(fields: list[str], where: str) -> Convolution:
    """Read a line without its type: name, counts of inputs and outputs, those, settings."""
    try:
        first = 3 + int(fields[1]) + int(fields[2])
        given = dict(field.split("=") for field in fields[first:])
        if unknown := sorted(given.keys() - NAMES):
            raise CheckpointError(f"{where}: setting {unknown[0]}={given[unknown[0]]} is not known")
        settings = DEFAULTS | {NAMES[key]: value for key, value in given.items()}
        outputs, kernel, count = (int(settings[name]) for name in ("outputs", "kernel", "weights"))
        slope = _slope(settings)
    except (ValueError, IndexError, KeyError):
        raise CheckpointError(
            f"{where}: {' '.join(fields)[:200]!r} found, a convolution expected"
        ) from None
    for name, expected in {"dilation": "1", "stride": "1", "padding": str(kernel // 2)}.items():
        if settings[name] != expected:
            raise CheckpointError(f"{where}: {name} {settings[name]} found, {expected} expected")
    inputs, rest = divmod(count, max(outputs * kernel**2, 1))
    if inputs < 1 or rest:
        raise CheckpointError(
            f"{where}: {count} weights found, a multiple of {outputs} x {kernel} x {kernel} "
            "expected"
        )
    return Convolution(fields[0], (outputs, inputs, kernel, kernel), settings["bias"] == "1", slope)


def _slope(settings: dict[str, str]) -> float | None:
    """Read the activation, which is a leaky ReLU with its slope as ``1,0.2``, or none."""
    if settings["activation"] == "0":
        return None
    length, value = settings["slope"].split(",")
    if (settings["activation"], length) != (LEAKY_RELU, "1"):
        raise ValueError
    return float(value)


def read_weights(file: Path, convolutions: list[Convolution]) -> list[Weights]:
    """Read the ``.bin`` that belongs to these convolutions.

    Raises:
        CheckpointError: It is missing, too short or too long for them, or holds weights that are
            neither float16 nor float32.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error}") from None
    at = 0

    def take(size: int, what: str) -> bytes:
        nonlocal at
        if at + size > len(content):
            raise CheckpointError(
                f"{file}: layer {convolution.name}: {len(content) - at} bytes found, {size} "
                f"expected for its {what}: the file is cut or belongs to another network"
            )
        at += size
        return content[at - size : at]

    found = []
    for convolution in convolutions:
        count = int(np.prod(convolution.shape))
        tag = int.from_bytes(take(4, "tag"), "little")
        if tag == FLOAT16:
            # An odd number of them is padded: the biases begin at a multiple of 4 bytes.
            stored = np.frombuffer(take(2 * (count + count % 2), "weights"), "<f2", count)
        elif tag == FLOAT32:
            stored = np.frombuffer(take(4 * count, "weights"), "<f4")
        else:
            raise CheckpointError(
                f"{file}: layer {convolution.name}: tag {tag:#010x} found, {FLOAT16:#010x} "
                f"(float16) or {FLOAT32:#010x} (float32) expected"
            )
        weight = stored.astype(np.float32).reshape(convolution.shape)
        bias = None
        if convolution.bias:
            biases = take(4 * convolution.shape[0], "biases")
            bias = np.frombuffer(biases, "<f4").astype(np.float32)
        found.append(Weights(weight, bias))
    if at != len(content):
        raise CheckpointError(
            f"{file}: {len(content) - at} bytes left over after the last layer, none expected: it "
            "belongs to another network"
        )
    return found
