"""Degradation of one image, in two steps kept apart: draw the parameters, then apply them.

Real-ESRGAN's second-order pipeline (Wang et al., ICCVW 2021) as DASR and FaithDiff configure it,
over basicsr's own kernels and noise. The drawn parameters are plain JSON values and hold
all randomness, the noise seeds included, so a logged line suffices to remake its image.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from faithdiff import compat  # noqa: F401  (must precede basicsr)
from faithdiff.degrade.draw import (
    BlurStep,
    Drawn,
    GaussianStep,
    JpegStep,
    PoissonStep,
    ResizeStep,
    Step,
    ceil_to,
    draw,
)
from faithdiff.errors import ImageError

from basicsr.data import degradations as basicsr  # isort: skip

Image = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]

__all__ = ["apply", "draw", "make_kernel"]


def apply(hq: Pixels, parameters: Drawn) -> Pixels:
    """Make the LQ image; a pure function of its arguments.

    An HQ side that `scale` does not divide is first extended right/below by repeating the border
    (as the official inference pads), never cropped, so the LQ side is ``ceil(side / scale)``.
    basicsr's noise uses numpy's global generator: its state is put back, but do not call this from
    several *threads* at once (processes are fine).

    Args:
        hq: uint8 RGB (H, W, 3).
        parameters: From :func:`draw`, or ``parameters`` of a line of ``degradation.jsonl``.

    Returns:
        uint8 RGB (ceil(H / scale), ceil(W / scale), 3).

    Raises:
        ImageError: `hq` is not uint8 RGB of the size that the parameters were drawn for.
    """
    height, width = parameters["hq_size"]
    if hq.dtype != np.uint8 or hq.shape != (height, width, 3):
        raise ImageError(
            f"parameters were drawn for uint8 (H, W, 3) = {(height, width, 3)}, got {hq.dtype} "
            f"{hq.shape}"
        )
    below, right = (ceil_to(side, parameters["scale"]) - side for side in (height, width))
    # BGR: basicsr's gray noise weighs channels in that order, and its JPEG is OpenCV's.
    bgr = np.pad(hq[..., ::-1], ((0, below), (0, right), (0, 0)), mode="edge")
    image = np.ascontiguousarray(bgr, dtype=np.float32) / np.float32(255)
    with _one_opencv_thread():
        for step in parameters["steps"]:
            image = _applied(image, step).astype(np.float32, copy=False)
    rounded = np.clip(np.round(image * 255), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(rounded[..., ::-1])


def _applied(image: Image, step: Step) -> Image:
    match step["op"]:
        case "blur":
            return _blur(image, step)
        case "resize":
            return _resize(image, step)
        case "gaussian":
            return _gaussian(image, step)
        case "poisson":
            return _poisson(image, step)
        case "jpeg":
            return _jpeg(image, step)


def make_kernel(step: BlurStep) -> npt.NDArray[np.float32]:
    """Return basicsr's kernel (size, size), sum 1, for one ``blur`` step."""
    family, size = step["kernel"], step["size"]
    if family == "sinc":
        kernel = basicsr.circular_lowpass_kernel(step["cutoff"], size)
    else:
        shape = (size, *step["sigma"], step["theta"])
        isotropic = not family.endswith("aniso")
        if family.startswith("generalized"):
            kernel = basicsr.bivariate_generalized_Gaussian(
                *shape, step["beta"], isotropic=isotropic
            )
        elif family.startswith("plateau"):
            kernel = basicsr.bivariate_plateau(*shape, step["beta"], isotropic=isotropic)
        else:
            kernel = basicsr.bivariate_Gaussian(*shape, isotropic=isotropic)
    return np.asarray(kernel, dtype=np.float32)


def _blur(image: Image, step: BlurStep) -> Image:
    # Equals basicsr's filter2D (reflect pad, correlation) to 1e-6, and is ten times faster.
    return cv2.filter2D(image, -1, make_kernel(step), borderType=cv2.BORDER_REFLECT_101)


def _resize(image: Image, step: ResizeStep) -> Image:
    # torch, not OpenCV: "area" differs between them when enlarging. As in the sources, a resize
    # relative to its input keeps the exact factor (its grid), one relative to LQ fits the size.
    planes = torch.from_numpy(image.transpose(2, 0, 1).copy())[None]
    if step["of"] == "input":
        resized = F.interpolate(planes, mode=step["mode"], scale_factor=step["factor"])
    else:
        resized = F.interpolate(planes, mode=step["mode"], size=tuple(step["size"]))
    out: Image = resized[0].numpy().transpose(1, 2, 0)
    return np.ascontiguousarray(out)


def _gaussian(image: Image, step: GaussianStep) -> Image:
    with _seeded_numpy(step["seed"]):
        return basicsr.add_gaussian_noise(image, step["sigma"], gray_noise=step["gray"])


def _poisson(image: Image, step: PoissonStep) -> Image:
    with _seeded_numpy(step["seed"]):
        return basicsr.add_poisson_noise(image, step["scale"], gray_noise=step["gray"])


def _jpeg(image: Image, step: JpegStep) -> Image:
    # Equals basicsr's add_jpg_compression, which hands OpenCV floats and so earns a warning.
    pixels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    _, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, step["quality"]])
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), dtype=np.float32) / np.float32(255)


@contextmanager
def _seeded_numpy(seed: int) -> Iterator[None]:
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


@contextmanager
def _one_opencv_thread() -> Iterator[None]:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
