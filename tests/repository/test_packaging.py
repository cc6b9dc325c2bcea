"""The files that describe the environment say the same: pyproject, lock, conda, Makefile, CI."""

from __future__ import annotations

import ast
import functools
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from shared import ROOT

import faithdiff

PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT: dict[str, Any] = PYPROJECT["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
TARGETS = [
    "help",
    ".venv",
    "install",
    "reproduce",
    "test",
    "test-slow",
    "lint",
    "bench",
    "bench-peers",
    "gpu-check",
    "prior",
    "pull",
    "clean",
]


def lock_lines() -> list[str]:
    lines = (ROOT / "requirements.lock").read_text("utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def pins() -> dict[str, str]:
    return dict(line.split("==") for line in lock_lines())


@functools.cache
def providers() -> Mapping[str, list[str]]:
    return packages_distributions()


def declared(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def imported(folder: Path) -> set[str]:
    """Top-level names that the Python files below a folder import, anywhere in them."""
    names: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names.add(node.module.split(".")[0])
    own = {"faithdiff", "baselines", "tests", *(path.stem for path in folder.rglob("*.py"))}
    own |= {path.parent.name for path in folder.rglob("__init__.py")}
    return names - sys.stdlib_module_names - own


def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MAKE") and k != "MFLAGS"}
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        env=clean | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_lock_lines_are_exact_normalised_sorted_and_unique() -> None:
    for line in lock_lines():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*==[0-9][0-9a-z.]*", line), line
    names = [line.split("==")[0] for line in lock_lines()]
    assert names == sorted(set(names))


# Not installed by `make`: what is timed beside ours and never used, and what is of a GPU alone, and
# brings a CUDA of its own.
NOT_LOCKED = {"peers", "quantised"}


@pytest.mark.parametrize("group", ["dependencies", *sorted(EXTRAS.keys() - NOT_LOCKED)])
def test_every_direct_dependency_is_locked_within_its_bounds(group: str) -> None:
    requirements = PROJECT["dependencies"] if group == "dependencies" else EXTRAS[group]
    for text in requirements:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        assert requirement.specifier, f"{text}: no lower bound"
        assert name in pins(), f"{text}: not in requirements.lock"
        assert pins()[name] in requirement.specifier, f"{text}: the lock has {pins()[name]}"


def test_build_requirements_are_locked() -> None:
    # The build is not isolated, so these are the versions that build the suite and basicsr.
    for text in PYPROJECT["build-system"]["requires"]:
        requirement = Requirement(text)
        assert pins()[requirement.name] in requirement.specifier
    assert "wheel" in pins()


@pytest.mark.parametrize(
    ("folder", "groups"),
    [("faithdiff", []), ("baselines", []), ("tests", ["test"])],
)
def test_what_is_imported_is_declared(folder: str, groups: list[str]) -> None:
    known = declared(PROJECT["dependencies"]).union(*(declared(EXTRAS[g]) for g in groups))
    if folder == "tests":
        known.add("packaging")  # what pip, pytest and this file read requirements with
    own = {file.stem for file in (ROOT / folder).glob("*.py")} if folder == "tests" else set()
    undeclared = {
        name
        for name in imported(ROOT / folder) - own
        if not known & {canonicalize_name(d) for d in providers().get(name, [])}
    }
    assert not undeclared, f"{folder} imports {sorted(undeclared)}: declare them in pyproject.toml"


def test_conda_environment_follows_lock_and_project() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    plain = [item for item in environment["dependencies"] if isinstance(item, str)]
    versions = dict(item.split("=") for item in plain if "=" in item)
    assert f"{versions['python']}.0" in SpecifierSet(PROJECT["requires-python"])
    assert versions["setuptools"] == pins()["setuptools"]
    assert {"pip", "wheel", "make"} <= set(plain)
    (pip_section,) = (item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    assert pip_section == ["-r requirements.lock", "-e ."]
    assert environment["channels"][0] == "conda-forge"


def test_version_and_licence_agree_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert str(citation["version"]) == faithdiff.__version__
    assert citation["license"] == PROJECT["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text("utf-8")
    for name in PROJECT["license-files"]:
        assert (ROOT / name).is_file()


@pytest.mark.parametrize("target", TARGETS)
def test_make_knows_target(target: str) -> None:
    done = make("--dry-run", target, f"PYTHON={sys.executable}")
    assert done.returncode == 0, done.stderr


def test_help_lists_the_targets() -> None:
    listed = re.findall(r"^  make (\S+)", make("help").stdout, re.MULTILINE)
    assert sorted(listed) == sorted(TARGETS)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ('case "$1" in --version) echo Python 3.10.2;; *) exit 1;; esac', "is Python 3.10.2"),
        ('case "$2" in *ensurepip*) exit 1;; esac', "no venv or pip"),
        (None, "no '{path}' on this machine"),
    ],
)
def test_make_explains_an_unfit_python(tmp_path: Path, script: str | None, message: str) -> None:
    python = tmp_path / "some-python"
    if script is not None:
        python.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
        python.chmod(0o755)
    done = make(".venv", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}")
    assert done.returncode == 2
    assert message.format(path=python) in done.stderr
    assert "PYTHON=" in done.stderr  # says what to do
    assert not (tmp_path / "venv").exists()


def test_ci_run_is_executable_bash_and_ends_with_the_tests() -> None:
    path = ROOT / ".ci" / "run"
    assert os.access(path, os.X_OK)
    assert subprocess.run(["bash", "-n", path], check=False).returncode == 0
    steps = re.findall(r"^make .*? (\S+) \|\|", path.read_text("utf-8"), re.MULTILINE)
    assert steps == [".venv", "lint", "test-slow", "test"]


def test_no_tracked_file_names_a_package_registry() -> None:
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    # Which registry serves the packages is a matter of each machine's own pip and conda.
    hosts = ["pypi" + ".org", "python" + "hosted.org", "pytorch.org" + "/whl", "anaconda" + ".org"]
    options = ["--" + "index-url", "--extra-" + "index-url", "--find-" + "links"]
    # One build of torch is in no package registry: an address with its hash, as of an artifact.
    apart = {"baselines/official/seesr.in", "baselines/official/seesr.lock"}
    pattern = re.compile("|".join(map(re.escape, hosts + options)).encode())
    found = []
    for name in {*filter(None, listing.stdout.split("\0"))} - apart:
        path = ROOT / name
        if path.is_file() and pattern.search(path.read_bytes()):
            found.append(name)
    assert not found


def test_generated_folders_are_ignored_but_sources_are_not() -> None:
    generated = ["data/mini/x.png", "checkpoints/x", "restored/x", "weights/x", "logs/x", ".venv/x"]
    sources = [
        "faithdiff/data/scenes/render.py",
        "results/mini/scores.csv",
        "prior/mini/unet/x",
        ".ci/run",
    ]
    listing = subprocess.run(
        ["git", "check-ignore", *generated, *sources],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listing.returncode == 128:
        pytest.skip("not a git checkout")
    assert listing.stdout.split() == generated
