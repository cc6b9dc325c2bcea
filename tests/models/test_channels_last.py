"""Weights of convolutions in NHWC order: on a GPU only, and back again before they are written."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from faithdiff.models import repeatable
from faithdiff.models.repeatable import channels_first, channels_last


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Conv2d(8, 4, 3))


def test_on_a_cpu_nothing_changes() -> None:
    model = network()
    channels_last(model)
    assert all(parameter.is_contiguous() for parameter in model.parameters())


def test_the_order_is_changed_and_changed_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU that plays the GPU."""
    monkeypatch.setattr(repeatable, "NHWC_DEVICE", "cpu")
    model, plain, images = network(), network(), torch.rand(2, 3, 16, 16)
    channels_last(model)
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    result = model(images)
    assert result.is_contiguous(memory_format=torch.channels_last)  # the order is handed on
    assert torch.allclose(result, plain(images), atol=1e-5)
    channels_first(model)
    assert all(p.is_contiguous() for p in model.parameters())
    for name, tensor in plain.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)
