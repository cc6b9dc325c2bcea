"""The profile that claims are tested on."""

from __future__ import annotations

import pytest
from shared import ROOT

from faithdiff.config import Profile, load_profile


@pytest.fixture(scope="session")
def profile() -> Profile:
    mini = load_profile(ROOT / "config" / "mini.yaml")
    score = mini.score.model_copy(update={"protocols_file": ROOT / "config" / "protocols.yaml"})
    report = mini.report.model_copy(update={"bootstrap": 500})
    return mini.model_copy(update={"score": score, "report": report})
