"""How torch computes in the jobs of a study, so that a job gives the same bits again."""

from __future__ import annotations

import os

import torch
from torch import nn

from faithdiff.config import Profile

NHWC_DEVICE = "cuda"  # whose convolutions have kernels for channels that lie side by side


def compute_repeatably(profile: Profile) -> None:
    """Set up torch in this process; docs/determinism.md says what that promises.

    One CPU thread, since the order of sums, and so their last bits, depend on their number. On a
    GPU, with ``deterministic: true``, no kernel whose result depends on the order of execution:
    where torch has no other, it warns and names it.
    """
    # Jobs run side by side instead, which uses the cores as well without a price in bits.
    torch.set_num_threads(1)
    if profile.device == "cuda" and profile.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read at the first cuBLAS call
        torch.backends.cudnn.benchmark = False  # else the kernel is chosen by a race
        torch.use_deterministic_algorithms(True, warn_only=True)


def allow_tf32(profile: Profile) -> None:
    """Let float32 matrix products and convolutions of a training use TF32, if it says so.

    As the released code does. Only GPUs have it, so that a CPU's results never change.
    """
    if profile.device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = profile.training.tf32
        torch.backends.cudnn.allow_tf32 = profile.training.tf32


def channels_last(*modules: nn.Module) -> None:
    """Order the weights of convolutions as NHWC, in place, where they are on a GPU.

    Feature maps follow them. A CPU's results would change in their last bits, so nothing is done
    there.
    """
    for module in modules:
        if next(module.parameters()).device.type == NHWC_DEVICE:
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def channels_first(module: nn.Module) -> None:
    """Undo :func:`channels_last`: safetensors writes no other order."""
    module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
