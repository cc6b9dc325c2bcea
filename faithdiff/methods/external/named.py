"""The files that a command line names: in its words, in a script for a shell, by an import.

A command is restored again when such a file changes. What a line only seems to name is told, so
that a person can say it under `depends`.
"""

from __future__ import annotations

import ast
import functools
import re
import shlex
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from faithdiff.study.provenance import imported

# Scripts, settings and weights: a word that ends so is a file, there or not.
_ENDINGS = (
    *("py", "pyc", "sh", "bash", "pl", "r", "jl", "lua", "m", "js", "rb", "jar", "exe", "so"),
    *("yaml", "yml", "json", "toml", "ini", "cfg", "conf", "txt", "csv", "param", "xml"),
    *("pt", "pth", "bin", "ckpt", "safetensors", "onnx", "pkl", "npy", "npz", "h5", "engine"),
)
_SEEMS = re.compile(rf"[^\s'\"=:,;|&<>()`]+\.(?:{'|'.join(_ENDINGS)})(?![\w.])", re.IGNORECASE)
_SHELL = (".sh", ".bash")
# What a command writes would change with each run.
_WRITTEN = re.compile(r"(?:[&\d]?>{1,2}|\btee(?:\s+-a)?\s)\s*[^\s;&|'\"]+")


@dataclass(frozen=True)
class Named:
    """What a command names.

    Attributes:
        files: That exist, those that its Python scripts import from beside them included.
        unseen: Words that seem to name a file and lead to none.
        folders: That exist; what of them is read cannot be told.
    """

    files: list[Path]
    unseen: list[str]
    folders: list[Path]


def named_in(command: str) -> Named:
    """Find the files of a command, whose placeholders in braces are still there."""
    files: dict[Path, None] = {}
    folders: dict[Path, None] = {}
    unseen: dict[str, None] = {}
    inner: dict[str, None] = {}  # of Python scripts
    texts = [command]
    while texts:
        text = _WRITTEN.sub(" ", texts.pop())
        words = list(dict.fromkeys(_words(text)))
        folders |= dict.fromkeys(Path(w) for w in words if _is_dir(w))
        # `cd tools && python run.py`: a name may be meant from a folder that is named, too.
        found = {word: file for word in words if (file := _file(word, [Path(), *folders]))}
        modules = [file for name in re.findall(r"-m\s+([\w.]+)", text) for file in _module(name)]
        for file in [*found.values(), *modules]:
            for each in _with_imports(file):
                if each not in files and _language(each) == "shell":
                    texts.append(each.read_text(encoding="utf-8", errors="replace"))
                files[each] = None
                if _language(each) == "python":
                    stat = each.stat()
                    inner |= dict.fromkeys(_texts(each, stat.st_size, stat.st_mtime_ns))
        missing = [word for word in _SEEMS.findall(text) if "{" not in word]
        unseen |= dict.fromkeys(w for w in missing if not any(f.endswith(w) for f in found))
    known, places = {file.resolve() for file in files}, {Path(), *(file.parent for file in files)}
    unseen |= dict.fromkeys(t for t in inner if not any((p / t).resolve() in known for p in places))
    inside = {parent for file in files for parent in file.parents}
    return Named(sorted(files), list(unseen), [f for f in folders if f not in inside])


def _words(text: str) -> Iterator[str]:
    """Words of a shell line, those within quoted lines and behind a ``=`` as well."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:  # a quote without its other half: a script may hold one in a comment
        words = re.split(r"[\s;&|()<>'\"`]+", text)
    for word in words:
        yield word
        if "=" in word:
            yield word.partition("=")[2]
        if word != text and re.search(r"[\s;&|()<>'\"`]", word):
            yield from _words(word)


def _file(word: str, folders: Iterable[Path]) -> Path | None:
    """The file that a word names from one of the folders."""
    try:
        return next((folder / word for folder in folders if (folder / word).is_file()), None)
    except (OSError, ValueError):  # too long for a name
        return None


def _is_dir(word: str) -> bool:
    try:
        return bool(word) and Path(word).is_dir() and Path(word).resolve() != Path.cwd()
    except (OSError, ValueError):
        return False


def _module(name: str, folder: Path = Path()) -> list[Path]:
    """The files of a Python module below a folder; none for what is installed."""
    path = folder.joinpath(*name.split("."))
    files = (path.with_name(f"{path.name}.py"), path / "__init__.py", path / "__main__.py")
    return [file for file in files if file.is_file()]


def _with_imports(script: Path) -> list[Path]:
    """A file and, of a Python script, what it imports from its own folder."""
    found, queue = list[Path](), [script]
    while queue:
        file = queue.pop()
        if file in found:
            continue
        found.append(file)
        if _language(file) == "python":
            stat = file.stat()
            names = sorted(_imports(file, stat.st_size, stat.st_mtime_ns))
            # From beside the script, as Python looks first, or beside the importing module.
            for folder in {script.parent, file.parent}:
                queue += [module for name in names for module in _module(name, folder)]
    return found


def _language(file: Path) -> str:
    """The language of a script, by its suffix, or by its first line where it has none."""
    if file.suffix:
        return {".py": "python", **dict.fromkeys(_SHELL, "shell")}.get(file.suffix, "")
    with suppress(OSError), file.open("rb") as stream:
        first = stream.readline(200)
        if first.startswith(b"#!"):
            return "python" if b"python" in first else "shell" if b"sh" in first else ""
    return ""


def _parsed(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):  # Python will say so
        return ast.Module(body=[], type_ignores=[])


@functools.lru_cache(maxsize=4096)
def _texts(file: Path, _size: int, _time: int) -> frozenset[str]:
    """Texts in a Python script that lead to a file of settings or weights.

    They are asked for, and not taken: a script may write such a file as well as read it.
    """
    texts = (n.value for n in ast.walk(_parsed(file)) if isinstance(n, ast.Constant))
    named = {text for text in texts if isinstance(text, str) and _SEEMS.fullmatch(text)}
    return frozenset(text for text in named if _file(text, [Path(), file.parent]))


@functools.lru_cache(maxsize=4096)  # a plan asks several times; a script may import a whole suite
def _imports(file: Path, _size: int, _time: int) -> frozenset[str]:
    tree = _parsed(file)
    relative = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
        for name in (node.module or "", *(alias.name for alias in node.names))
    }
    return frozenset(name for name in imported(tree) | relative if name)
