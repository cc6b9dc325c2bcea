"""What made a result: code, config, weights, packages, hardware, commit.

A rule is rerun when the code that it imports changes: :func:`code_digest` hashes the syntax trees
of a module and of all modules of the suite that it imports, without comments and docstrings, so
that a fix reruns what depends on it and a comment reruns nothing.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypedDict

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("faithdiff", "baselines")
CONFIGS = ("config.json", "scheduler_config.json", "tokenizer.json", "vocab.json", "merges.txt")


def code_digest(*modules: str) -> str:
    """Hash the import closure of modules, e.g. ``code_digest("faithdiff.restore.run")``."""
    sha = hashlib.sha256()
    for name in sorted(closure(*modules)):
        sha.update(f"{name}\n{_tree(name)}\n".encode())
    return sha.hexdigest()[:16]


def closure(*modules: str) -> set[str]:
    """Modules of the suite reachable by imports, those inside functions included.

    Raises:
        ModuleNotFoundError: A named module has no file in the suite.
    """
    # By the sources, and nothing is imported: a plan asks for this often, and torch takes seconds.
    found: set[str] = set()
    queue = list(modules)
    while queue:
        name = queue.pop()
        if name not in found:
            found.add(name)
            queue.extend(_imports(name))
    return found


def _file(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@functools.cache
def _parsed(module: str) -> ast.Module:
    file = _file(module)
    if file is None:
        raise ModuleNotFoundError(f"{module} is not a module of the suite")
    return ast.parse(file.read_bytes())


@functools.cache
def _tree(module: str) -> str:
    return stripped(_parsed(module))


def stripped(tree: ast.Module) -> str:
    """Write a syntax tree without comments and docstrings: equal texts do the same.

    Removes the docstrings from `tree` itself.
    """
    for node in _statements(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:]
    # Python 3.12 has this field and 3.11 has not: a digest must not depend on the interpreter.
    return ast.dump(tree).replace(", type_params=[]", "")


@functools.cache
def _imports(module: str) -> frozenset[str]:
    return frozenset(n for n in imported(_parsed(module)) if n.startswith(PACKAGES) and _file(n))


def imported(tree: ast.Module) -> set[str]:
    """Names that may be modules that a syntax tree imports, parent packages included."""
    names: set[str] = set()
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names | {name.rpartition(".")[0] for name in names}


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """A module and all statements in it; `ast.walk` would look at each expression, too."""
    queue: list[ast.AST] = [tree]
    while queue:
        node = queue.pop()
        yield node
        # What holds statements: bodies, and the handlers and cases that have bodies of their own.
        for name in ("body", "orelse", "finalbody", "handlers", "cases"):
            inside = getattr(node, name, ())
            if isinstance(inside, list):  # the body of a lambda is an expression
                queue += inside


def file_digest(file: Path) -> str:
    """sha256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def folder_digest(folder: Path, digest_of: Callable[[Path], str | None] = file_digest) -> str:
    """Hash the weights and configs below a folder; logs beside them do not count."""
    sha = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        # By relative path: the same weights in another folder are the same.
        if file.suffix == ".safetensors" or file.name in CONFIGS:
            sha.update(f"{file.relative_to(folder).as_posix()} {digest_of(file)}\n".encode())
    return sha.hexdigest()


def packages() -> dict[str, str]:
    """Versions of all installed packages."""
    # All, not those of requirements.lock: what a person installed beside them may be what differs.
    found = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


class HardwareFacts(TypedDict):
    """A machine, as records of jobs have it."""

    # A mapping, not an object with attributes: jobs write it into JSON as it is.
    processor: str
    cores: int | None
    memory_gib: float
    gpus: list[str]
    system: str
    python: str
    torch: str


def hardware() -> HardwareFacts:
    """The machine that does the work: processor, cores, memory, GPUs."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpus": [torch.cuda.get_device_name(index) for index in range(count)],
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


class CodeState(TypedDict):
    """The code that made a result: its commit, and whether it is all of it."""

    commit: str | None  # None: this is no clone, or git is not there
    dirty: bool | None


def commit() -> CodeState:
    """The commit of the checkout and whether tracked files differ from it."""
    head = _git("rev-parse", "HEAD")
    if head is None:
        return {"commit": None, "dirty": None}
    # Results are what a run writes: they do not make the code that wrote them dirty.
    status = _git(
        "status", "--porcelain", "--untracked-files=no", "--", ".", ":!results", ":!dvc.lock"
    )
    return {"commit": head, "dirty": bool(status)}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
        )
    # A copy without git can run the study; its records then name no commit.
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
