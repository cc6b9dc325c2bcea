"""A small suite in Git, and a copy that a test may change."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from shared import ROOT
from shared.audited import (
    DVC,
    PARTS,
    PROFILE,
    World,
    faithdiff_sharper,
    realesrgan_worse,
    remember,
    write,
)
from shared.whole import made_once


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Five commits: first results, a comment, a fix that helps, an edit, one that harms."""
    return World(made_once(tmp_path_factory, "world", make_world))


def make_world(root: Path) -> None:
    for part in (*PARTS, ".dvc/config", ".dvcignore"):
        source, target = ROOT / part, root / part
        target.parent.mkdir(parents=True, exist_ok=True)
        ignored = shutil.ignore_patterns("__pycache__")
        if source.is_dir():
            shutil.copytree(source, target, ignore=ignored)
        else:
            shutil.copy(source, target)
    write(root / "config/tiny.yaml", PROFILE)
    write(root / "dvc.yaml", DVC)
    write(
        root / ".gitignore", "/data/\n/checkpoints/\n/restored/\n/.dvc/cache/\n/.dvc/tmp/\n/logs/\n"
    )
    found = World(root)
    found.git("init", "--quiet", "--initial-branch", "main")
    found.commit("The suite")
    found.run()
    remember(root)
    found.commit("First results")
    found.git("tag", "first")
    found.edit("faithdiff/restore/colour.py", "def ", "# why\ndef ")
    found.commit("A comment on #5, thanks @someone")
    found.edit("faithdiff/restore/colour.py", "import torch\n", "import torch\n\nSTRENGTH = 2\n")
    found.commit("Stronger colour fix")
    found.edit("config/tiny.yaml", "data: {levels", "restore: {guidance_scale: 2.0}\ndata: {levels")
    found.commit("More guidance")
    found.run(faithdiff_sharper, weights="sharper")
    remember(root)
    found.commit("Results of the colour fix")
    found.git("tag", "sharper")
    write(root / "notes.txt", "nothing to do with results")
    found.commit("Notes")
    found.run(realesrgan_worse, weights="sharper")
    remember(root)
    found.commit("Results of a worse baseline")
    found.git("tag", "worse")


@pytest.fixture
def other(world: World, tmp_path: Path) -> World:
    """A copy of the repository that the test may change."""
    shutil.copytree(world.root, tmp_path / "copy", symlinks=True)
    return World(tmp_path / "copy")


@pytest.fixture(autouse=True)
def plain_git(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Without the settings of whoever runs the tests."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    return
