"""Counting the operations of an update, so that trainings can be compared by their compute.

Seconds belong to one machine and to what else ran on it; operations belong to the method.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)


# PyTorch has formulas for the attention kernels of GPUs alone; those of a CPU take the same inputs.
ON_CPU = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


def operation_counter() -> FlopCounterMode:
    """Count what runs inside of it; a multiplication and an addition are two operations."""
    return FlopCounterMode(display=False, custom_mapping=ON_CPU)
