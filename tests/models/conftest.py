"""Models of other people, tiny and under their names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from shared.tiny_llava import save_tiny_llava

from faithdiff.data.images import write_png


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llava")
    save_tiny_llava(folder)
    return folder


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    file = tmp_path / "picture.png"
    write_png(np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8), file)
    return file


@pytest.fixture(scope="module")
def bsrnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network under the names of the published file."""
    from faithdiff import compat

    compat.patch()
    from basicsr.archs.rrdbnet_arch import RRDBNet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = RRDBNet(3, 3, num_feat=8, num_block=2, num_grow_ch=4).state_dict()
    names = {
        "conv_body.": "trunk_conv.",
        "body.": "RRDB_trunk.",
        "rdb": "RDB",
        "conv_up": "upconv",
        "conv_hr": "HRconv",
    }
    published = {}
    for key, tensor in state.items():
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        published[key] = tensor
    assert "RRDB_trunk.0.RDB1.conv1.weight" in published
    file = tmp_path_factory.mktemp("bsrnet") / "BSRNet.pth"
    torch.save(published, file)
    return file
