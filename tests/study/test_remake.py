"""The command that makes a file again: named for each place of the layout, and one that exists."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import typer

from faithdiff.cli import app
from faithdiff.study.layout import Layout
from faithdiff.study.remake import command_for

LAYOUT = Layout("lab")
RESTORATION = LAYOUT.restoration("frozen", 2, "Photos", "II")
COMMANDS = [
    (LAYOUT.dataset("Photos") / "index.csv", "prepare --dataset Photos"),
    (LAYOUT.dataset("Photos") / "hq/a.png", "prepare --dataset Photos"),
    (LAYOUT.dataset("Own") / "lq/real/a.png", "prepare --dataset Own"),
    (LAYOUT.lq("Photos", "II") / "a.png", "degrade --dataset Photos --level II"),
    (LAYOUT.lq("Own", "real") / "degradation.jsonl", "degrade --dataset Own --level real"),
    (LAYOUT.captions("Photos", "II"), "caption --dataset Photos --level II"),
    (LAYOUT.train_cache, "cache"),
    (LAYOUT.trained_prior / "unet/config.json", "train-prior"),
    (LAYOUT.stage1("released", 1) / "run.json", "pretrain --recipe released --seed 1"),
    (LAYOUT.checkpoint("frozen", 2), "train --method frozen --seed 2"),
    (RESTORATION / "manifest.json", "restore-sets --method frozen --seed 2"),
    (LAYOUT.restored("frozen", 2) / "scores.csv", "score --method frozen --seed 2"),
    (LAYOUT.restored("frozen", 2) / "scores.csv.sha256", "score --method frozen --seed 2"),
    (LAYOUT.restored("frozen", 2) / "heldout.csv", "heldout --method frozen --seed 2"),
    (LAYOUT.results / "scores.csv", "collect"),
    (LAYOUT.results / "cost.csv", "collect"),
    (LAYOUT.results / "claims.md", "claims"),
    (LAYOUT.results / "tables/main.md", "tables"),
    (LAYOUT.results / "figures/levels.png", "figures"),
    (LAYOUT.results / "manifest.json", "manifest"),
    (LAYOUT.results / "report/index.html", "report"),
]


@pytest.mark.parametrize(("file", "wanted"), COMMANDS, ids=lambda each: str(each))
def test_each_place_of_the_layout_has_its_command(file: Path, wanted: str) -> None:
    verb, _, options = wanted.partition(" ")
    command = f"faithdiff {verb} --config config/lab.yaml{f' {options}' if options else ''}"
    assert command_for(file) == command
    assert command_for(Path.cwd() / file) == command  # named from anywhere


@pytest.mark.parametrize(
    "file",
    [LAYOUT.results / "notes.txt", LAYOUT.restored("frozen", 2).parent, Path("data/lab")],
    ids=str,
)
def test_what_has_no_command_of_its_own_is_made_by_the_study(file: Path) -> None:
    assert command_for(file) == "snakemake --cores all --config profile=lab"


def test_a_file_of_no_study_is_made_by_the_default_one() -> None:
    assert command_for(Path("x")) == "snakemake --cores all --config profile=mini"


@pytest.mark.parametrize("wanted", sorted({wanted for _, wanted in COMMANDS}))
def test_the_command_line_knows_it(wanted: str) -> None:
    verb, *rest = shlex.split(wanted)
    group = typer.main.get_command(app)
    command = group.commands[verb]  # type: ignore[attr-defined]
    known = {name for parameter in command.params for name in parameter.opts}
    assert {"--config", *(word for word in rest if word.startswith("--"))} <= known
