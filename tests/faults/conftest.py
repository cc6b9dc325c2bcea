"""A finished study of two methods, made once per session and copied for each test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from shared import ROOT
from shared.corrupt import call
from shared.whole import made_once

from faithdiff.methods.method import Study

PROFILE = Path("config/test.yaml")
METHODS = ("bicubic", "faithdiff")


@pytest.fixture(scope="session")
def finished(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a study from data to manifest; not to be changed."""
    return made_once(tmp_path_factory, "finished", lambda root: finish(built, root))


def finish(built: Path, root: Path) -> None:
    """Run the steps after the training, on a copy of the built study."""
    shutil.copytree(built, root)
    shutil.copytree(ROOT / "results/paper", root / "results/paper")
    smaller(root / PROFILE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for method in METHODS:
            run("restore-sets", "--method", method)
            run("score", "--method", method)
        for verb in ("collect", "tables", "figures", "claims", "manifest"):
            run(verb)


def smaller(file: Path) -> None:
    """Leave the profile two methods, so that a whole study takes seconds."""
    profile = yaml.safe_load(file.read_text(encoding="utf-8"))
    others = ("frozen", "concat", "no-pretrain", "spatial-attention", "separate", "features-8ch")
    profile["variants"] = dict.fromkeys(others)
    profile["baselines"] = dict.fromkeys(
        ("realesrgan-x4plus", "realesrgan", "diffbir", "supir", "supir-own", "seesr")
    )
    profile["report"] |= {"main": list(METHODS), "ablation": ["faithdiff"]}
    file.write_text(yaml.safe_dump(profile), encoding="utf-8")


def run(*arguments: str) -> None:
    """Run a verb of the profile, which must not fail."""
    verb, *options = arguments
    assert call(verb, "--config", str(PROFILE), *options) == ""


@pytest.fixture
def whole(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A copy of the finished study that the test may change; its folder is the current one."""
    root = tmp_path / "study"
    shutil.copytree(finished, root)
    monkeypatch.chdir(root)
    return Study.load(PROFILE)
