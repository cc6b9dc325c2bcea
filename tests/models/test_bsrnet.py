"""BSRNet, which cleans LQ images before they are described."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from faithdiff.errors import CheckpointError
from faithdiff.models.bsrnet import load_bsrnet, network_of


def test_bsrnet_reads_the_published_names_and_enlarges_by_four(bsrnet: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    clean = load_bsrnet(bsrnet, "cpu")
    assert clean(image).shape == (80, 120, 3)
    assert np.array_equal(clean(image), clean(image))


def test_tiles_of_bsrnet_agree_with_the_whole_image(
    bsrnet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 90, 3)).astype(np.uint8)
    whole = load_bsrnet(bsrnet, "cpu")(image)
    monkeypatch.setattr("faithdiff.models.bsrnet.TILE", 32)
    tiled = load_bsrnet(bsrnet, "cpu")(image)
    assert np.abs(whole.astype(int) - tiled).max() <= 1


def test_another_network_is_refused(tmp_path: Path) -> None:
    torch.save({"conv_first.weight": torch.zeros(8, 3, 3, 3)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth: is not BSRNet"):
        load_bsrnet(tmp_path / "other.pth", "cpu")
    with pytest.raises(CheckpointError, match="faithdiff fetch --profile released"):
        load_bsrnet(tmp_path / "none.pth", "cpu")
    (tmp_path / "cut.pth").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"cut\.pth: cannot be read"):
        load_bsrnet(tmp_path / "cut.pth", "cpu")
    with pytest.raises(CheckpointError, match="is not BSRNet"):
        network_of({}, "nothing")
