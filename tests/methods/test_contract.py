"""The contract of a method: kept by the suite's own, and every point of it can be broken.

``pytest tests/methods/test_contract.py --method NAME --profile config/mine.yaml`` tests any other.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from shared import ROOT

from faithdiff import cli
from faithdiff.errors import CheckpointError, FaithDiffError
from faithdiff.methods.method import Study
from faithdiff.restore.contract import ContractFinding, check_method, kept, table
from faithdiff.study.files import write_text_atomic

POINTS = [
    "names",
    "shape",
    "range",
    "determinism",
    "independence of order",
    "independence of the others",
    "resume",
    "refusal of a corrupted image",
]


def test_chosen_method(request: pytest.FixtureRequest) -> None:
    name = request.config.getoption("--method")
    if name is None:
        pytest.skip("no --method given")
    findings = check_method(Study.load(Path(request.config.getoption("--profile"))), name)
    assert kept(findings), table(name, findings)


@pytest.mark.parametrize("name", ["bicubic", "faithdiff"])
def test_methods_of_the_suite_keep_the_contract(study: Study, name: str) -> None:
    findings = check_method(study, name)
    assert [finding.point for finding in findings] == POINTS
    assert {finding.outcome for finding in findings} == {"kept"}, table(name, findings)


def test_a_trained_baseline_keeps_the_contract(study: Study) -> None:
    cli.train("realesrgan", config=study.file)
    findings = check_method(study, "realesrgan")
    assert {finding.outcome for finding in findings} == {"kept"}, table("realesrgan", findings)


def test_a_method_that_is_not_trained_cannot_be_checked(study: Study) -> None:
    with pytest.raises(CheckpointError, match="faithdiff train"):
        check_method(study, "separate")


# --- A command ------------------------------------------------------------------------------------

# What differs from one broken command to the next is how it makes an image.
SCRIPT = """
import random, sys
from pathlib import Path
from PIL import Image
lq, out, scale = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
files = sorted(lq.iterdir())
for number, file in enumerate(files):
    image = Image.open(file).convert("RGB")
    big = image.resize((scale * image.width, scale * image.height))
    {}
    big.save(out / file.name)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "config", "config")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path


def findings_of(body: str, **more: Any) -> dict[str, ContractFinding]:
    write_text_atomic(SCRIPT.format(body), Path("script.py"))
    command = f"'{sys.executable}' script.py {{lq}} {{out}} {{scale}}"
    profile = {
        "extends": "mini.yaml",
        "profile": "mine",
        "baselines": {"mine": {"label": "Mine", "command": command, **more}},
    }
    write_text_atomic(yaml.safe_dump(profile), Path("config/mine.yaml"))
    findings = check_method(Study.load(Path("config/mine.yaml")), "mine")
    return {finding.point: finding for finding in findings}


@pytest.mark.parametrize("per", ["folder", "image", "set"])
def test_a_good_command_keeps_the_contract(place: Path, per: str) -> None:
    found = findings_of("pass", per=per)
    assert [*found] == POINTS
    assert kept([*found.values()])
    assert (found["independence of order"].outcome == "not checked") == (per == "set")


@pytest.mark.parametrize(
    ("body", "broken"),
    [
        ("big = image", {"names"}),
        ("if number == 1: continue", {"names"}),
        (
            "big.putpixel((0, 0), tuple(random.randbytes(3)))",
            {"determinism", "independence of order", "independence of the others", "resume"},
        ),
        (
            "big.putpixel((0, 0), (number, 0, 0))",
            {"independence of the others", "resume"},
        ),
        (
            "big.putpixel((0, 0), (len(files), 0, 0))",
            {"independence of the others", "resume"},
        ),
    ],
)
def test_each_point_can_be_broken(place: Path, body: str, broken: set[str]) -> None:
    found = findings_of(body)
    assert {point for point, finding in found.items() if finding.outcome == "broken"} == broken


def test_the_log_of_a_command_that_fails_stays(
    place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found = findings_of("raise SystemExit('no such model')")
    assert found["names"].outcome == "broken"
    printed = capfd.readouterr()
    named = re.search(r"log in (\S+/log\.txt)", printed.out + printed.err)
    assert named is not None
    assert "no such model" in Path(named[1]).read_text("utf-8")
    assert kept([*findings_of("pass").values()])
    assert len([*(place / "temporary").iterdir()]) == 1


def test_a_call_for_each_image_mends_what_depends_on_the_others(place: Path) -> None:
    assert kept([*findings_of("big.putpixel((0, 0), (len(files), 0, 0))", per="image").values()])


# --- Given outputs, and the command line ----------------------------------------------------------


def test_given_outputs_are_checked_against_the_test_sets(
    study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.restore_sets("bicubic", 0, study.file)
    for dataset, level in study.profile.data.places:
        shutil.copytree(
            study.layout.restoration("bicubic", 0, dataset, level), Path("mine", dataset, level)
        )
    Path("data/test").rename("data/own")
    mine = {"label": "Mine", "outputs": "mine"}
    own = {"extends": "test.yaml", "profile": "own", "baselines": {"mine": mine}}
    write_text_atomic(yaml.safe_dump(own), Path("config/own.yaml"))
    loaded = Study.load(Path("config/own.yaml"))
    assert [f.outcome for f in check_method(loaded, "mine")] == ["kept", "not checked"]
    next(Path("mine").glob("*/*/*.png")).unlink()
    (broken, _) = check_method(loaded, "mine")
    assert (broken.outcome, "no image in mine/" in broken.note) == ("broken", True)


def test_the_command_exits_by_what_it_found(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as good:
        cli.method_check("bicubic")
    assert good.value.exit_code == 0
    assert "bicubic: keeps the contract" in capsys.readouterr().out
    findings_of("big = image")
    with pytest.raises(typer.Exit) as bad:
        cli.method_check("mine", Path("config/mine.yaml"))
    assert bad.value.exit_code == 1
    said = capsys.readouterr().out
    assert "size 24x24, not 96x96" in said
    assert "mine: BREAKS the contract" in said


def test_an_unknown_method_is_refused(place: Path) -> None:
    with pytest.raises(FaithDiffError, match="has no method 'none'"):
        cli.method_check("none")
