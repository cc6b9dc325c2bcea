"""Repairs two broken imports in the pinned stack, before torchvision or basicsr is imported.

1. The registry's torchvision wheel is a CUDA build. Beside a CPU-only torch its operators do not
   load, and ``import torchvision`` dies while registering shape functions for ``nms``.
2. basicsr 1.4.2 imports ``torchvision.transforms.functional_tensor``, which torchvision 0.17
   removed (mended upstream after the last release).
"""

from __future__ import annotations

import importlib.util
import sys
import types

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
        import torchvision.transforms.functional as functional

        module = types.ModuleType(name)
        module.rgb_to_grayscale = functional.rgb_to_grayscale  # type: ignore[attr-defined]
        sys.modules[name] = module


patch()
