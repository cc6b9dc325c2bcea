"""What the command reads beside the scores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from faithdiff.claims.command import gpus_of_restorations
from faithdiff.study.layout import Layout


def test_gpus_of_every_shard_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("restored/test/faithdiff/seed0/Photos/II/manifest.json")
    file.parent.mkdir(parents=True)
    shards = [{"hardware": {"gpus": [name]}} for name in ("NVIDIA A800", "NVIDIA H100")]
    file.write_text(json.dumps({"method": "faithdiff", "shards": shards}))
    assert gpus_of_restorations(Layout("test")) == ["NVIDIA A800", "NVIDIA H100"]
