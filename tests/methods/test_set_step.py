"""A method's own way to restore a test set, and the rule that a method is asked and not its class.

External methods are tested beside this: commands and given outputs in test_own.py, published
systems in test_official_baselines.py.
"""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from shared import ROOT
from shared.pictures import picture, save
from shared.small_set import DATA, save_lq

from baselines import bicubic
from faithdiff import cli
from faithdiff.data.images import read_image
from faithdiff.errors import UserError
from faithdiff.methods.method import Method, SetToRestore, Study
from faithdiff.methods.registry import find_method
from faithdiff.planning.workload import OUTSIDE
from faithdiff.restore.contract import check_method, kept, table
from faithdiff.study.files import write_text_atomic

NAMES = ("one", "two")
SIDE = 12


class Repeating(bicubic.Bicubic):
    """A whole set at a time: each pixel `scale` times in both directions; a dark image fails."""

    __module__ = bicubic.__name__  # results are keyed by the code of a module of the suite
    whole_sets = True
    asked: list[list[str]] = []  # noqa: RUF012 - of all instances: a command makes its own

    def restore_set(self, wanted: SetToRestore) -> dict[str, str]:
        self.asked.append([item.name for item in wanted.missing])
        failures = {}
        scale = wanted.study.profile.data.scale
        for item in wanted.missing:
            lq = read_image(item.lq)
            if not lq.any():
                failures[item.name] = "all black"
                continue
            wanted.keep(item, lq.repeat(scale, 0).repeat(scale, 1))
        return failures

    load = Method.load


class Announced(bicubic.Bicubic):
    """In this process, and more around it."""

    __module__ = bicubic.__name__

    def restore_set(self, wanted: SetToRestore) -> dict[str, str]:
        print("begins", wanted.place.dataset)
        return wanted.in_process()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "config", "config")
    for own in (Repeating, Announced):
        monkeypatch.setattr(bicubic, own.__name__, own, raising=False)
    Repeating.asked.clear()
    return tmp_path


def study_with(own: type[Method], **more: Any) -> Study:
    """A study whose method `mine` is the class, with one prepared test set."""
    mine = {"label": "Mine", "implementation": f"baselines.bicubic:{own.__name__}"}
    profile = {
        "extends": "mini.yaml",
        "profile": "own",
        "data": DATA,
        "baselines": {"mine": mine},
        **more,
    }
    write_text_atomic(yaml.safe_dump(profile), Path("config/own.yaml"))
    study = Study.load(Path("config/own.yaml"))
    save_lq(study, NAMES, SIDE)
    return study


def restore(study: Study) -> dict[str, Any]:
    """`faithdiff restore-sets` with the method; the manifest."""
    cli.restore_sets("mine", 0, study.file)
    file = study.layout.restoration("mine", 0, "Set", "II") / "manifest.json"
    manifest: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return manifest


def test_a_method_restores_a_set_in_its_own_way_and_resumes(place: Path) -> None:
    study = study_with(Repeating)
    black = study.layout.lq("Set", "II") / "two.png"
    save(0 * picture(0, SIDE), black)
    manifest = restore(study)
    assert manifest["made"] == 1
    assert manifest["images"]["two"]["failed"] == "all black"
    lq = read_image(study.layout.lq("Set", "II") / "one.png")
    scale = study.profile.data.scale
    out = study.layout.restoration("mine", 0, "Set", "II") / "one.png"
    assert np.array_equal(read_image(out)[::scale, ::scale], lq)
    save(picture(1, SIDE), black)
    assert restore(study)["made"] == 1
    assert restore(study)["made"] == 0
    assert Repeating.asked == [["one", "two"], ["two"]]


def test_its_images_are_not_dealt_out_to_shards(place: Path) -> None:
    study = study_with(Repeating, shards=2)
    with pytest.raises(UserError, match="mine: restores whole test sets; leave out --shard"):
        cli.restore_sets("mine", 0, study.file, shard="1/2")
    assert restore(study)["made"] == 2


def test_it_restores_no_single_image(place: Path) -> None:
    study = study_with(Repeating)
    with pytest.raises(UserError, match="Repeating restores whole test sets"):
        find_method(study, "mine").load(study, Path())


def test_it_keeps_the_contract(place: Path) -> None:
    findings = check_method(study_with(Repeating), "mine")
    assert kept(findings), table("mine", findings)
    assert [f.point for f in findings if f.outcome == "not checked"] == ["range"]


def test_the_default_can_be_wrapped(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = study_with(Announced)
    manifest = restore(study)
    assert manifest["made"] == 2
    assert "begins Set" in capsys.readouterr().out
    assert kept(check_method(study, "mine"))


# --- Structure ------------------------------------------------------------------------------------


def classes() -> dict[str, tuple[str, ast.ClassDef]]:
    """Classes of the suite by name, each with its module."""
    found = {}
    for file in [*ROOT.glob("faithdiff/**/*.py"), *ROOT.glob("baselines/**/*.py")]:
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.ClassDef):
                found[node.name] = (module, node)
    return found


def kinds(name: str, known: dict[str, tuple[str, ast.ClassDef]]) -> set[str]:
    """A class and all classes of the suite that it is one of."""
    bases = known[name][1].bases
    # A generic base is written with brackets: ControlledMethod["SUPIRDesign"].
    plain = [base.value if isinstance(base, ast.Subscript) else base for base in bases]
    names = {base.id for base in plain if isinstance(base, ast.Name)} & known.keys()
    return {name}.union(*(kinds(base, known) for base in names))


def test_no_caller_asks_for_the_class_of_a_method() -> None:
    known = classes()
    methods = {name for name in known if "Method" in kinds(name, known)}
    assert {"Outputs", "Official", "SUPIR", "VariantMethod"} <= methods
    asked = []
    for file in [*ROOT.glob("faithdiff/**/*.py"), *ROOT.glob("baselines/**/*.py")]:
        for node in ast.walk(ast.parse(file.read_bytes())):
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            if called and node.func.id in ("isinstance", "issubclass"):
                about = {each.id for each in ast.walk(node.args[1]) if isinstance(each, ast.Name)}
                if about & methods:
                    asked.append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert asked == []


def test_the_plan_finds_every_method_that_takes_whole_sets() -> None:
    """It looks at methods of some modules only, since others import torch."""
    known = classes()
    for name, (module, _) in known.items():
        says = [known[kind][1] for kind in kinds(name, known) if kind != "Method"]
        lines = {ast.unparse(line) for each in says for line in each.body}
        if lines & {"whole_sets = True", "prepared = True", "stops_without_needs = True"}:
            assert module.startswith(OUTSIDE), f"{module}.{name}: add its module to OUTSIDE"
