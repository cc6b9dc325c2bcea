"""Where results come from: a commit, the working tree, or a folder. All are read the same way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from faithdiff.audit.git import Commit, Git
from faithdiff.errors import UserError

WORKING_TREE = "."
SCORES = "scores.csv"


class Revision(ABC):
    """A state of the suite: files by their path from its root.

    Attributes:
        name: As it can be given on the command line again.
        title: What it is, for a reader.
        commit: The commit, where it is one.
    """

    name: str
    title: str
    commit: Commit | None = None

    @abstractmethod
    def read(self, path: str) -> bytes | None:
        """The bytes of a file, or None where there is none."""

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """What a folder has directly in it, sorted."""

    @abstractmethod
    def place(self, path: str) -> str:
        """How a message names a file of this revision."""


class CommitRevision(Revision):
    """A commit, read out of git's database."""

    def __init__(self, name: str, commit: Commit, git: Git) -> None:
        self.name, self.commit, self._git = name, commit, git
        # A hash that was typed need not be said twice; a branch means another commit tomorrow.
        own = commit.sha.startswith(name)
        self.title = str(commit) if own else f"{name} = {commit}"

    def read(self, path: str) -> bytes | None:
        return self._git.read(self._sha, path)

    def names(self, folder: str) -> list[str]:
        return sorted(self._git.names(self._sha, folder))

    def place(self, path: str) -> str:
        return f"{self._sha[:9]}:{path}"

    @property
    def _sha(self) -> str:
        assert self.commit is not None
        return self.commit.sha


class FolderRevision(Revision):
    """Files on disk: the root of a suite, or a bare ``results/<profile>``.

    Args:
        name: As it was given.
        title: What it is.
        root: Root of the suite, None where only the results are there.
        results: The folder of the results.
        profile: What the results are read as.
    """

    def __init__(
        self, name: str, title: str, root: Path | None, results: Path, profile: str
    ) -> None:
        self.name, self.title = name, title
        self._root, self._results, self._prefix = root, results, f"results/{profile}"

    def read(self, path: str) -> bytes | None:
        file = self._file(path)
        return file.read_bytes() if file is not None and file.is_file() else None

    def names(self, folder: str) -> list[str]:
        path = self._file(folder)
        return sorted(p.name for p in path.iterdir()) if path is not None and path.is_dir() else []

    def place(self, path: str) -> str:
        return str(self._file(path) or path)

    def _file(self, path: str) -> Path | None:
        if path == self._prefix or path.startswith(f"{self._prefix}/"):
            return self._results / path[len(self._prefix) + 1 :]
        return self._root / path if self._root is not None else None


def find_revision(name: str, profile: str, root: Path) -> Revision:
    """Find what a name on the command line means: git first, then the disk.

    Args:
        name: A revision of git, a folder, or ``.`` for the working tree.
        profile: Whose results are meant.
        root: Root of the suite.

    Raises:
        UserError: It is neither.
    """
    # Git first: a folder can be written as ./name, and a branch has no other spelling.
    if name == WORKING_TREE:
        return working_tree(profile, root)
    git = Git(root)
    if commit := git.find(name):
        return CommitRevision(name, commit, git)
    folder = root / name
    if (folder / SCORES).is_file():
        above = folder.resolve().parent
        owner = above.parent if above.name == "results" else None
        return FolderRevision(name, f"folder {name}", owner, folder, profile)
    if (folder / "results").is_dir():
        results = folder / "results" / profile
        return FolderRevision(name, f"folder {name}", folder, results, profile)
    if folder.is_dir():
        raise UserError(f"{name}: this folder has neither {SCORES} nor results/")
    raise UserError(
        f"{name!r} is neither a commit, tag or branch of this repository nor a folder with results"
    )


def working_tree(profile: str, root: Path) -> Revision:
    """The files on disk, committed or not."""
    head = Git(root).find("HEAD")
    title = f"the working tree (on {head.short})" if head else "the working tree"
    return FolderRevision(WORKING_TREE, title, root, root / "results" / profile, profile)


def last_change(profile: str, root: Path) -> Revision:
    """The last commit that changed the scores of a profile.

    Raises:
        UserError: No commit has any.
    """
    git = Git(root)
    path = f"results/{profile}/{SCORES}"
    # Of the scores alone: tables and pages are rendered again without a new result.
    commits = git.log("-1", "HEAD", paths=[path])
    if not commits:
        raise UserError(f"{path}: no commit has it; commit results first, or name two revisions")
    return CommitRevision(commits[0].short, commits[0], git)
