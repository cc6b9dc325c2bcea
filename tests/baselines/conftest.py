"""The controlled designs, trained once in a run of the tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from shared.designs import METHODS, train
from shared.whole import made_once

from faithdiff.methods.method import Study


@pytest.fixture(scope="session")
def checkpoints(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every controlled baseline trained once, in a copy of the built study."""

    def make(root: Path) -> None:
        shutil.copytree(built, root)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(root)
            study = Study.load(Path("config/test.yaml"))
            for name in METHODS:
                train(study, name)

    return made_once(tmp_path_factory, "controlled", make) / "checkpoints"


@pytest.fixture
def trained(study: Study, checkpoints: Path) -> Study:
    """The study with every controlled baseline trained; the test may change it."""
    shutil.copytree(checkpoints, "checkpoints", dirs_exist_ok=True)
    return study
