"""What `faithdiff verify` says of a study besides corruption, which tests/faults has."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import typer
import yaml
from shared import ROOT
from shared.pictures import pixels

from faithdiff import cli
from faithdiff.data.datasets import SOURCES
from faithdiff.data.images import write_png
from faithdiff.study.files import write_text_atomic

PROFILE = Path("config/own.yaml")


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of pictures, prepared as the test set `Set`."""
    monkeypatch.chdir(tmp_path)
    for part in ("config", "prior"):
        shutil.copytree(ROOT / part, part)
    data = {"test": {"Photos": None, "Scenes": None, "Set": {"source": "folder", "path": "raw"}}}
    write_text_atomic(
        yaml.safe_dump({"extends": "mini.yaml", "profile": "own", "data": data}), PROFILE
    )
    for seed, name in enumerate("ab"):
        write_png(pixels(32, 32, seed), Path("raw", f"{name}.png"))
    cli.prepare("Set", PROFILE)
    return tmp_path


def verified(capsys: pytest.CaptureFixture[str], repair: bool = False) -> tuple[str, int]:
    capsys.readouterr()
    with pytest.raises(typer.Exit) as left:
        cli.verify(PROFILE, repair)
    return capsys.readouterr().out, left.value.exit_code


def test_a_replaced_source_picture_is_named(
    prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said, code = verified(capsys)
    assert "0 corrupted" in said and "changed" not in said
    assert code == 0
    Path("raw/a.png").write_bytes(Path("raw/b.png").read_bytes())
    for repair in (False, True):  # there is nothing to remove: the next run prepares it again
        said, code = verified(capsys, repair)
        assert "dataset Set: a.png: changed since prepared; `snakemake" in said
        assert "0 corrupted, 1 changed since prepared" in said
        assert code == 1
    assert Path("data/own/Set/index.csv").is_file()
    cli.prepare("Set", PROFILE)
    assert verified(capsys)[1] == 0


def test_a_corrupted_record_of_the_sources_is_corruption(
    prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path("data/own/Set", SOURCES)
    file.write_text(file.read_text().replace("a.png", "c.png"))
    said, code = verified(capsys)
    assert f"{file}: is corrupted" in said and "prepare --config config/own.yaml" in said
    assert code == 1
    assert verified(capsys, repair=True)[1] == 0
    assert not Path("data/own/Set/index.csv").exists()  # so that a run prepares the set again


def test_in_a_copy_without_git_the_rest_is_checked(
    prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / ".dvc", ".dvc", ignore=shutil.ignore_patterns("cache", "tmp"))
    shutil.copy(ROOT / "dvc.lock", "dvc.lock")
    said, code = verified(capsys)
    assert "DVC's cache: not checked: this folder is not a Git checkout" in said
    assert "0 corrupted" in said
    assert code == 0
    image = Path("data/own/Set/hq/a.png")
    image.write_bytes(image.read_bytes()[:-1])
    said, code = verified(capsys)
    assert f"{image}: is corrupted" in said
    assert code == 1
