"""Commands and paths of README, docs/ and ``--help`` exist (test_documented.py runs them)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from shared import ROOT
from shared.documented import PAGES, in_blocks, in_text, program

from faithdiff.data.artifacts import load_artifacts
from faithdiff.data.photographs import PHOTOGRAPHS

# As readers put them in place of names of their own.
PLACEHOLDERS = re.compile(r"\[[A-Z]+\]|<name>|\.\.\.")
BLOCKS = [each for each in in_blocks() if each.line.startswith("faithdiff ")]


def walk(words: list[str]) -> tuple[Any, list[str]]:
    """The command that words name, and the words that are left for it."""
    command = program()
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    return command, words


@pytest.mark.parametrize("line", sorted({each.line for each in [*BLOCKS, *in_text()]}))
def test_every_command_has_the_options_that_are_written(line: str) -> None:
    plain = PLACEHOLDERS.sub("", line)
    command, rest = walk(plain.split()[1:])
    assert not hasattr(command, "commands") or rest == [], f"no such command: {rest[:1]}"
    known = {name for p in getattr(command, "params", []) for name in (*p.opts, *p.secondary_opts)}
    written = {word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
    assert written <= known | {"--help"}


@pytest.mark.parametrize("page", PAGES)
def test_profiles_that_a_page_names_are_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    own = {"mine", "real"}  # a reader's
    for name in re.findall(r"config/([\w-]+)\.yaml", text):
        assert name in own or (ROOT / "config" / f"{name}.yaml").is_file(), name
    for name in re.findall(r"(?:--config|--profile) (?:profile=)?([a-z][\w-]*)\b(?![/.=])", text):
        assert name in own or (ROOT / "config" / f"{name}.yaml").is_file(), name


def filled() -> set[str]:
    """Every file and folder that `faithdiff fetch` fills, and those above it."""
    found: set[str] = set()
    for artifact in load_artifacts(ROOT / "config" / "artifacts.yaml").values():
        if not artifact.package:
            root = Path({"weights": "weights", "data": "data/raw"}[artifact.root])
            for path in (artifact.file(root), artifact.folder(root) or root):
                found |= {path.as_posix(), *(parent.as_posix() for parent in path.parents)}
    return found


def test_paths_of_weights_and_sets_are_those_that_fetch_fills() -> None:
    texts = {page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
    texts["--help"] = "\n".join(each.line for each in BLOCKS if each.page == "--help")
    texts |= {f.name: f.read_text(encoding="utf-8") for f in (ROOT / "config").glob("*.yaml")}
    del texts["artifacts.yaml"]
    places = filled() | {PHOTOGRAPHS.as_posix()}
    unpacked = [a.unpack for a in load_artifacts(ROOT / "config/artifacts.yaml").values()]
    inside = tuple(f"data/raw/{folder.as_posix()}/" for folder in unpacked if folder)
    seen = 0
    for name, text in texts.items():
        for path in re.findall(r"(?<![\w/.])(?:weights|prior|data/raw)/[\w./+-]*\w", text):
            seen += 1
            there = path in places or (ROOT / path).exists() or path.startswith(inside)
            assert there or path.startswith("data/raw/shard-NN"), f"{name}: {path}"
    assert seen > 20
