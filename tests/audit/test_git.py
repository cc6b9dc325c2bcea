"""Reading commits: any subject, and a folder that has none."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from faithdiff.audit.git import Git
from faithdiff.errors import UserError


def test_a_subject_may_hold_any_character(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=tmp_path, check=True
        )

    git("init", "-q")
    for subject in ("one\u2028two\x85three\x0bfour", "plain"):
        git("commit", "-q", "--allow-empty", "-m", subject)
    assert [each.subject for each in Git(tmp_path).log()] == [
        "plain",
        "one\u2028two\x85three\x0bfour",
    ]


def test_a_folder_without_git_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no Git checkout, .*; give two folders with results"):
        Git(tmp_path).log("-1")
