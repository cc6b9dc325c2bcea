"""A clone of a repository at one commit, whose bytes are the commit's."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from faithdiff.errors import RunError, UserError
from faithdiff.study.layout import OFFICIAL


@dataclass(frozen=True)
class Checkout:
    """One repository at one commit, below ``official/checkouts``."""

    name: str
    repository: str
    commit: str
    home: Path = OFFICIAL / "checkouts"

    @property
    def folder(self) -> Path:
        return (self.home / f"{self.name}-{self.commit[:12]}").absolute()

    def problem(self) -> str:
        """Why it cannot be used; empty if it can."""
        if not (self.folder / ".git").is_dir():
            return f"its code is not here ({self.repository} at {self.commit[:12]})"
        try:
            found = _git(self.folder, "rev-parse", "HEAD")
        except RunError as error:
            return str(error)
        if found != self.commit:
            return f"{self.folder}: is at {found[:12]}, not {self.commit[:12]}"
        return ""

    def make(self) -> None:
        """Clone, unless it is there; one of another commit is made again.

        Raises:
            UserError: git is not installed.
            RunError: The repository cannot be reached, or has no such commit.
        """
        if shutil.which("git") is None:
            raise UserError("git is not installed; it fetches the official code")
        if not self.problem():
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        _git(self.folder, "init", "--quiet")
        _git(self.folder, "remote", "add", "origin", self.repository)
        try:
            _git(self.folder, "fetch", "--quiet", "--depth", "1", "origin", self.commit)
        except RunError:  # a host may not give single commits
            _git(self.folder, "fetch", "--quiet", "origin")
        _git(self.folder, "checkout", "--quiet", "--detach", self.commit)

    def pristine(self, *files: str) -> None:
        """Undo what an adapter wrote into files of the repository."""
        _git(self.folder, "checkout", "--quiet", self.commit, "--", *files)


def _git(folder: Path, *arguments: str) -> str:
    # Weights come by `faithdiff fetch`, and nobody is there to type a password.
    quiet = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "1"}
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env=quiet, capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RunError(f"git {' '.join(arguments)} in {folder}: {last}")
    return done.stdout.strip()
