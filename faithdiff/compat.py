"""Repairs imports of the pinned stack, and shortens them, before torchvision, basicsr or diffusers.

1. The registry's torchvision wheel is a CUDA build. Beside a CPU-only torch its operators do not
   load, and ``import torchvision`` dies while registering shape functions for ``nms``.
2. basicsr 1.4.2 imports ``torchvision.transforms.functional_tensor``, which torchvision 0.17
   removed (mended upstream after the last release).
3. diffusers and torchvision import torch's compiler for a name or two, which takes as long as torch
   itself. Most jobs compile nothing; the real compiler is imported by the first that does.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import types
from collections.abc import Iterator

import torch

_kept_alive: list[object] = []  # a torch Library undoes its definitions when it is collected


def patch() -> None:
    """Make ``import torchvision`` and ``import basicsr`` work; safe to call again.

    Does nothing without torchvision: models alone need neither.
    """
    if importlib.util.find_spec("torchvision") is None:
        return
    if torch.version.cuda is None and not _kept_alive:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept_alive.append(library)
    name = "torchvision.transforms.functional_tensor"
    if name not in sys.modules:
        with _without_compiler():
            import torchvision.transforms.functional as functional

        module = types.ModuleType(name)
        module.rgb_to_grayscale = functional.rgb_to_grayscale  # type: ignore[attr-defined]
        sys.modules[name] = module


def _is_compile_supported(device: str) -> bool:
    # torchvision asks when it aligns regions of a detector, which nothing of the study does.
    from torch._dynamo.utils import is_compile_supported

    return bool(is_compile_supported(device))


@contextlib.contextmanager
def _without_compiler() -> Iterator[None]:
    """Let modules that are imported meanwhile find an empty ``torch._dynamo``.

    They provide for a torch without a compiler. A torch with CUDA gets the real one: there a
    profile may compile its UNet, and diffusers marks blocks for that.
    """
    package, utils = (types.ModuleType(name) for name in ("torch._dynamo", "torch._dynamo.utils"))
    if torch.version.cuda is not None or package.__name__ in sys.modules:
        yield
        return
    utils.is_compile_supported = _is_compile_supported  # type: ignore[attr-defined]
    sys.modules.update({module.__name__: module for module in (package, utils)})
    try:
        yield
    finally:
        for module in (utils, package):
            del sys.modules[module.__name__]


with _without_compiler():
    import diffusers.utils.torch_utils  # noqa: F401
patch()
