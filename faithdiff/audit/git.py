"""What the audit asks of git: revisions, files of a commit, who touched what. Never a checkout."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from faithdiff.errors import UserError
from faithdiff.study.files import not_the_root

SHORT = 9  # hexadecimal digits of a commit that people read


@dataclass(frozen=True)
class Commit:
    """A commit as a reader knows it."""

    sha: str
    date: str
    subject: str

    @property
    def short(self) -> str:
        """The first digits of the hash."""
        return self.sha[:SHORT]

    def __str__(self) -> str:
        return f"{self.short} {self.subject}"


class Git:
    """The repository around a folder; paths are relative to that folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, revision: str) -> Commit | None:
        """The commit that a branch, tag, hash or expression such as ``HEAD~3`` names, or None."""
        # A name that git would take for an option is no revision.
        if not revision or revision.startswith("-"):
            return None
        found = self._try("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
        return self.log("-1", found.decode().strip())[0] if found else None

    def read(self, commit: str, path: str) -> bytes | None:
        """A file of a commit; None where the commit has none."""
        return self._try("cat-file", "blob", f"{commit}:./{path}")

    def names(self, commit: str, folder: str) -> list[str]:
        """Names of files and folders directly in a folder of a commit."""
        listed = self._try("ls-tree", "-z", "--name-only", f"{commit}:./{folder}") or b""
        return [name.decode() for name in listed.split(b"\0") if name]

    def read_all(self, commit: str, *folders: str) -> dict[str, bytes]:
        """All files of a commit below the folders, by path."""
        listed = self.run("ls-tree", "-r", "-z", commit, "--", *folders)
        entries = [entry.decode().split("\t", 1) for entry in listed.split(b"\0") if entry]
        paths = {path: meta.split()[2] for meta, path in entries if meta.split()[1] == "blob"}
        # One process for all files: the code of two commits is hundreds of them.
        asked = "".join(f"{oid}\n" for oid in paths.values())
        stream = self.run("cat-file", "--batch", given=asked.encode())
        return dict(zip(paths, _contents(stream), strict=True))

    def log(self, *arguments: str, paths: Iterable[str] = ()) -> list[Commit]:
        """Commits as ``git log`` lists them, newest first; only those that touched `paths`."""
        shape = "--format=%H%x1f%cs%x1f%s"
        out = self.run("log", shape, *arguments, "--", *paths).decode(errors="replace")
        # Not splitlines(): a subject may hold other characters that it takes for an end of line.
        return [Commit(*line.split("\x1f", 2)) for line in out.split("\n") if line]

    def run(self, *arguments: str, given: bytes | None = None) -> bytes:
        """Run git and return what it prints.

        Raises:
            UserError: Git is not installed, this is no repository, or git refuses.
        """
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=self.root, input=given, capture_output=True, check=True
            )
        except OSError as error:
            raise UserError(f"git cannot be started: {error.strerror}") from None
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode(errors="replace").strip().partition("\n")[0]
            if "not a git repository" in said:
                said = f"{self.root.absolute()} is no Git checkout, so it has no revisions; " + (
                    not_the_root() or "give two folders with results"
                )
            raise UserError(f"git {arguments[0]}: {said or 'failed'}") from None
        return done.stdout

    def _try(self, *arguments: str) -> bytes | None:
        try:
            return self.run(*arguments)
        except UserError:
            return None


def _contents(stream: bytes) -> list[bytes]:
    """Split the output of ``git cat-file --batch``: a head line with the size, then the bytes."""
    found, start = [], 0
    while start < len(stream):
        end = stream.index(b"\n", start)
        size = int(stream[start:end].split()[2])
        found.append(stream[end + 1 : end + 1 + size])
        start = end + size + 2
    return found
