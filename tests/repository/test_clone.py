"""A clone has the committed bytes, whatever git was told about line endings."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from shared import ROOT


def git(*arguments: str, cwd: Path) -> str:
    done = subprocess.run(["git", *arguments], cwd=cwd, capture_output=True, text=True, check=True)
    return done.stdout


def test_line_endings_of_a_clone_are_those_of_the_repository(tmp_path: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout of git")
    folder = tmp_path / "source"
    folder.mkdir()
    git("init", "--quiet", cwd=folder)
    (folder / ".gitattributes").write_bytes((ROOT / ".gitattributes").read_bytes())
    (folder / "config.json").write_bytes(b"{}\n")
    git("add", ".", cwd=folder)
    name = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    git(*name, "commit", "--quiet", "--message", "all", cwd=folder)
    git("-c", "core.autocrlf=true", "clone", "--quiet", str(folder), "clone", cwd=tmp_path)
    assert (tmp_path / "clone" / "config.json").read_bytes() == b"{}\n"
