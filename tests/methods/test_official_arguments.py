"""Official baselines: their definitions, and their command lines against those of the scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from shared import ROOT
from shared.official import CLASSES, SCALE, TABLE

from baselines.official.definition import load_definition
from baselines.official.runner import Official
from faithdiff import compat as compat
from faithdiff.data.artifacts import load_artifacts
from faithdiff.errors import ConfigError
from faithdiff.methods.external.command import Task
from faithdiff.methods.method import Item


def adapter(method: str, **settings: Any) -> Official:
    module, _, name = CLASSES[method].partition(":")
    made = getattr(__import__(module, fromlist=[name]), name)(settings, f"x: baselines.{method}")
    assert isinstance(made, Official)
    return made


def task(tmp: Path = Path("work")) -> Task:
    item = Item("one", Path("one.png"), "", "a cat", 2**62, "key")
    return Task(tmp, [item], item.seed, SCALE)


def fits(arguments: list[str], table: dict[str, Any]) -> str:
    """Why a command line is none of the script's; empty if it is."""
    left = list(arguments)
    while left:
        name = left.pop(0).removeprefix("--")
        if name not in table:
            return f"no argument {name}"
        if table[name]["type"] == "flag":
            continue
        value = left.pop(0)
        try:
            {"int": int, "float": float, "str": str}[table[name]["type"]](value)
        except ValueError:
            return f"{name}: {value} is no {table[name]['type']}"
        if "choices" in table[name] and value not in table[name]["choices"]:
            return f"{name}: {value} is none of its choices"
    return ""


@pytest.mark.parametrize("method", CLASSES)
def test_every_argument_is_one_of_the_script(method: str) -> None:
    assert fits(adapter(method).arguments(task()), TABLE[method]) == ""


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--g_start", "1"], "no argument g_start"),
        (["--steps", "4.5"], "steps: 4.5 is no int"),
        (["--sampler", "euler"], "sampler: euler is none of its choices"),
    ],
)
def test_the_table_refuses(arguments: list[str], problem: str) -> None:
    assert fits(arguments, TABLE["diffbir"]) == problem


@pytest.mark.parametrize("method", CLASSES)
def test_every_setting_can_be_passed_and_a_misspelt_one_is_refused(method: str) -> None:
    definition, _ = load_definition(method, None)
    with pytest.raises(ConfigError, match="unknown key"):
        adapter(method, stepz=3)
    assert adapter(method).per in ("image", "folder")
    assert definition.method == method


@pytest.mark.parametrize("method", CLASSES)
def test_definitions_name_known_weights_and_a_lock(method: str) -> None:
    definition, file = load_definition(method, None)
    artifacts = load_artifacts(ROOT / "config" / "artifacts.yaml")
    found = definition.weights(artifacts)
    for wanted in definition.artifacts:
        assert any(name == wanted or name.startswith(f"{wanted}/") for name in found), wanted
    assert (file.parent / definition.requirements).is_file()


def test_seeds_fit_every_script_and_can_be_fixed() -> None:
    line = adapter("diffbir").arguments(task())
    assert 0 <= int(line[line.index("--seed") + 1]) < 2**31
    line = adapter("diffbir", fixed_seed=231).arguments(task())
    assert line[line.index("--seed") + 1] == "231"


def test_supir_takes_the_captions_of_the_study() -> None:
    line = adapter("supir").arguments(task())
    assert line[line.index("--a_prompt") + 1].startswith("a catCinematic")
    assert "--no_llava" in line
    asked = adapter("supir", captions="llava")
    assert "--no_llava" not in asked.arguments(task())
    assert asked.per == "folder"
    assert "llava: give its folder" in asked.more_needs()[0]
    assert "cannot go with captions: given" in adapter("supir", per="folder").more_needs()[0]
