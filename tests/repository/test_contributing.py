"""What CONTRIBUTING.md shows works: each of its YAML blocks is a profile on top of `mini`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from shared import ROOT

from faithdiff.config import load_profile
from faithdiff.methods.method import Study
from faithdiff.methods.registry import find_method
from faithdiff.score.protocols import definitions_of

BLOCKS = re.findall(
    r"## (.*?)\n.*?```yaml\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.DOTALL
)


@pytest.mark.parametrize("block", [text for _, text in BLOCKS], ids=[title for title, _ in BLOCKS])
def test_every_block_is_a_profile(block: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"extends: {ROOT / 'config/mini.yaml'}\nprofile: mine\n{block}", "utf-8")
    study = Study.load(file)
    assert study.profile != load_profile(ROOT / "config" / "mini.yaml")
    for name in study.profile.methods:
        find_method(study, name)
    assert definitions_of(study.profile)


def test_there_is_a_block_for_each_thing_to_add() -> None:
    assert len(BLOCKS) >= 5
