"""Reads convolutions from the files of ncnn, the inference library for phones.

A network is two files. The text ``.param`` lists its layers in order, with their settings as
``key=value``; the ``.bin`` holds, for each convolution in that order, a tag of 4 bytes that says how
the weights are stored, the weights ``(out, in, k, k)``, then the biases as float32. How the layers
are wired is left to the caller, who knows the network. Whatever is not known here is an error: a
file read by halves would give a network that runs and is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from faithdiff.errors import CheckpointError

MAGIC = "7767517"
WITHOUT_WEIGHTS = {"Input", "Split", "Concat", "Eltwise", "BinaryOp", "Interp"}
# Settings of a convolution, by ncnn's numbers. Those of an array begin with -233.
OUT, KERNEL, DILATION, STRIDE, PADDING, BIAS, SIZE, ACTIVATION = "0", "1", "2", "3", "4", "5", "6", "9"
SLOPE = "-23310"
SETTINGS = {OUT, KERNEL, DILATION, STRIDE, PADDING, BIAS, SIZE, ACTIVATION, SLOPE}
FLOAT16, FLOAT32 = 0x01306B47, 0


@dataclass(frozen=True)
class Convolution:
    """A square convolution that keeps the size of the image.

    Attributes:
        shape: ``(out, in, k, k)``.
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
        CheckpointError: It is missing or cut, or holds a layer or setting that is not known here.
    """
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file}: cannot be read: {error}") from None
    magic = lines[0].strip() if lines else ""
    if magic != MAGIC:
        raise CheckpointError(f"{file}: begins with {magic[:40]!r}, expected {MAGIC} of ncnn")
    counts, layers = " ".join(lines[1:2]).split(), [line.split() for line in lines[2:] if line]
    if not counts or counts[0] != str(len(layers)):
        raise CheckpointError(
            f"{file}: has {len(layers)} layers, expected {' '.join(counts[:1]) or 'a number'} by its "
            "second line: it is cut"
        )
    found = []
    for fields in layers:
        if fields[0] == "Convolution":
            found.append(_convolution(fields, file))
        elif fields[0] not in WITHOUT_WEIGHTS:
            known = ", ".join(sorted(WITHOUT_WEIGHTS | {"Convolution"}))
            raise CheckpointError(
                f"{file}: layer {' '.join(fields[1:2])}: type {fields[0]!r} is none of {known}"
            )
    return found


def _convolution(fields: list[str], file: Path) -> Convolution:
    where = f"{file}: layer {' '.join(fields[1:2])}"
    try:
        # type, name, number of inputs and of outputs, their names, then the settings
        first = 4 + int(fields[2]) + int(fields[3])
        given = dict(field.split("=") for field in fields[first:])
        number = {key: int(given.get(key, default)) for key, default in DEFAULTS.items()}
        slope = _slope(number[ACTIVATION], given.get(SLOPE))
    except (ValueError, IndexError):
        raise CheckpointError(f"{where}: cannot be read: {' '.join(fields)[:200]!r}") from None
    if unknown := sorted(set(given) - SETTINGS):
        raise CheckpointError(f"{where}: setting {unknown[0]}={given[unknown[0]]} is not known here")
    kernel = number[KERNEL]
    for key, expected in {DILATION: 1, STRIDE: 1, PADDING: kernel // 2}.items():
        if number[key] != expected:
            raise CheckpointError(f"{where}: setting {key} is {number[key]}, expected {expected}")
    inputs, rest = divmod(number[SIZE], max(number[OUT] * kernel**2, 1))
    if inputs < 1 or rest:
        raise CheckpointError(
            f"{where}: {number[SIZE]} weights found, expected a multiple of "
            f"{number[OUT]} x {kernel} x {kernel}"
        )
    shape = (number[OUT], inputs, kernel, kernel)
    return Convolution(fields[1], shape, bool(number[BIAS]), slope)


# What ncnn takes where a .param leaves a setting out.
DEFAULTS = {OUT: 0, KERNEL: 0, DILATION: 1, STRIDE: 1, PADDING: 0, BIAS: 0, SIZE: 0, ACTIVATION: 0}


def _slope(activation: int, array: str | None) -> float | None:
    """Read ``-23310=1,0.2``: an array with its length first."""
    if activation == 0 and array is None:
        return None
    length, *values = (array or "").split(",")
    if activation != 2 or int(length) != len(values) or len(values) != 1:
        raise ValueError
    return float(values[0])


def read_weights(file: Path, convolutions: list[Convolution]) -> list[Weights]:
    """Read the ``.bin`` that belongs to these convolutions.

    Raises:
        CheckpointError: It is missing, cut, longer than they are, or holds weights stored in
            another way than float16 or float32.
    """
    try:
        content = memoryview(file.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error}") from None
    at = 0

    def take(size: int, convolution: Convolution, what: str) -> memoryview:
        nonlocal at
        if at + size > len(content):
            raise CheckpointError(
                f"{file}: layer {convolution.name}: {len(content) - at} bytes found, {size} expected "
                f"of its {what}: the file is cut, or belongs to another network"
            )
        at += size
        return content[at - size : at]

    found = []
    for convolution in convolutions:
        count = int(np.prod(convolution.shape))
        tag = int.from_bytes(take(4, convolution, "tag"), "little")
        if tag == FLOAT16:
            # The next part begins at a multiple of 4 bytes.
            stored = take(2 * count + 2 * count % 4, convolution, "weights")[: 2 * count]
            weight = np.frombuffer(stored, "<f2").astype(np.float32)
        elif tag == FLOAT32:
            stored = take(4 * count, convolution, "weights")
            weight = np.frombuffer(stored, "<f4").astype(np.float32)
        else:
            raise CheckpointError(
                f"{file}: layer {convolution.name}: tag {tag:#010x} found, expected "
                f"{FLOAT16:#010x} (float16) or {FLOAT32:#010x} (float32)"
            )
        bias = None
        if convolution.bias:
            values = take(4 * convolution.shape[0], convolution, "biases")
            bias = np.frombuffer(values, "<f4").astype(np.float32)
        found.append(Weights(weight.reshape(convolution.shape), bias))
    if at != len(content):
        raise CheckpointError(
            f"{file}: {len(content) - at} bytes are left over after the last layer: it belongs to "
            "another network"
        )
    return found
