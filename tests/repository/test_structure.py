"""The rooms of the code: few, each with a sentence that says what it is for, imports one way."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from shared import ROOT

# A room imports from those before it. Checked on every import, those inside functions included.
ROOMS = (
    "study", "config", "data", "degrade", "models", "methods", "restore", "train", "score",
    "report", "claims", "audit", "page", "tracking", "planning", "cli",
)  # fmt: skip
SHARED = {"errors", "compat"}  # single modules that any room may use


def imports(file: Path) -> Iterator[str]:
    """Modules of the suite that a file imports when it runs: types alone are left out."""
    tree = ast.parse(file.read_bytes())
    for node in list(ast.walk(tree)):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "faithdiff":
            yield from (f"faithdiff.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_the_rooms_are_those_of_the_list() -> None:
    inside = {path.stem for path in (ROOT / "faithdiff").iterdir() if path.suffix in ("", ".py")}
    files = {"__init__", "__main__", "__pycache__"}
    assert inside - files - SHARED == {*ROOMS} and len(ROOMS) <= 16


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_it_is_for_and_imports_from_earlier_ones(room: str) -> None:
    folder = ROOT / "faithdiff" / room
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_bytes()))
    assert text and 20 < len(text.splitlines()[0]) < 100
    allowed = {*ROOMS[: ROOMS.index(room) + 1], *SHARED, "__version__"}
    for file in folder.rglob("*.py"):
        for module in imports(file):
            root, _, rest = module.partition(".")
            assert root != "baselines", f"{file} imports {module}"
            if root == "faithdiff" and rest:
                assert rest.split(".")[0] in allowed, f"{file} imports {module}"


def test_a_class_name_means_one_thing() -> None:
    places: dict[str, list[str]] = {}
    for file in [*ROOT.glob("faithdiff/**/*.py"), *ROOT.glob("baselines/**/*.py")]:
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_tests_stand_in_the_room_of_what_they_test() -> None:
    """Beside the rooms: the whole workflow, faults, and the files of the repository."""
    beside = {"baselines", "workflow", "faults", "repository", "shared"}
    tests = ROOT / "tests"
    assert {file.parent.name for file in tests.rglob("*.py")} - {"tests"} <= {*ROOMS, *beside}
    assert [file.name for file in tests.glob("*.py")] == ["conftest.py"]
