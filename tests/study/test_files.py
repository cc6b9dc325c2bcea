"""What the machine refuses is said with its cause and the way out, and never as a traceback."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from faithdiff import cli
from faithdiff.audit.command import deliver
from faithdiff.audit.git import Git
from faithdiff.audit.printing import write_pictures
from faithdiff.audit.results import load_results
from faithdiff.audit.revision import WORKING_TREE, find_revision
from faithdiff.claims.schema import load_claims
from faithdiff.config import load_profile
from faithdiff.data.captions import read_captions
from faithdiff.data.images import write_png
from faithdiff.degrade.levels import load_levels
from faithdiff.errors import (
    CheckpointError,
    ConfigError,
    CorruptedError,
    FaithDiffError,
    RunError,
    UserError,
)
from faithdiff.planning.overrides import profile_file
from faithdiff.report.costs import load_costs
from faithdiff.report.published import published_for
from faithdiff.report.scores import load_scores
from faithdiff.report.training import _logs
from faithdiff.study.checksums import append_row, read_checked, write_summed
from faithdiff.study.files import left_by_git, lfs_pointer, of_surroundings, write_text_atomic
from faithdiff.study.locks import claimed, forget_killed_runs

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.fixture
def read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which every change is refused, as on a read-only mount; root's own, too."""

    def refuse(change: str) -> Callable[..., object]:
        original = getattr(os, change)

        def refused(path: object, *rest: object, **more: object) -> object:
            writes = change != "open" or bool(rest and int(rest[0]) & (os.O_WRONLY | os.O_RDWR))
            file = Path(os.fsdecode(path))  # type: ignore[arg-type]
            if writes and tmp_path in file.absolute().parents:
                if change == "mkdir" and file.is_dir():
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), file)
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(file))
            return original(path, *rest, **more)

        return refused

    for change in ("mkdir", "unlink", "replace", "rename", "open", "remove"):
        monkeypatch.setattr(os, change, refuse(change))
    real = Path.open

    def open_(self: Path, mode: str = "r", *rest: object, **more: object) -> object:
        if set(mode) & set("wax+") and tmp_path in self.absolute().parents:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))
        return real(self, mode, *rest, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", open_)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def hold(file: Path) -> None:
    with claimed(file, "work"):
        pass


@pytest.mark.parametrize(
    "write",
    [
        lambda file: write_text_atomic("x", file),
        lambda file: write_summed("x", file),
        lambda file: append_row(["x"], file),
        lambda file: write_png(np.zeros((2, 2, 3), np.uint8), file),
        lambda file: deliver("x", file, print),
        lambda file: write_pictures([], file),
        lambda file: hold(file),
        lambda file: forget_killed_runs(file),  # `snakemake --dry-run`
    ],
)
def test_a_read_only_mount_is_named_with_the_way_out(
    read_only: Path, write: Callable[[Path], object]
) -> None:
    with pytest.raises(FaithDiffError, match=r"Read-only file system; it is mounted read-only"):
        write(read_only / "results" / "file")


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT])
def test_what_a_verb_did_not_expect_is_no_traceback(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise OSError(number, os.strerror(number), "results/mini/a file")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith(f"faithdiff: results/mini/a file: {os.strerror(number)}; ")
    assert "free some space" in said or "copy the study" in said


def test_a_fault_of_the_suite_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(OSError, match="Bad file descriptor"):
        cli.main()


def test_no_folder_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc"])
    with pytest.raises(FileNotFoundError) as caught:
        tempfile._get_default_tempdir()  # type: ignore[attr-defined]
    assert "TMPDIR" in str(of_surroundings(caught.value))


def test_a_file_in_the_way_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    with pytest.raises(RunError, match="a file has the name of a folder: rename or remove it"):
        write_text_atomic("x", tmp_path / "results" / "mini" / "file")


# --- another folder -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "read",
    [
        lambda: load_profile(Path("config/mini.yaml")),
        lambda: load_scores(Path("results/mini/scores.csv")),
        lambda: load_costs(Path("results/mini/cost.csv")),
        lambda: published_for("Photos", "II", "ycbcr"),
        lambda: profile_file(None),
        lambda: load_results(find_revision(WORKING_TREE, "mini", Path()), "mini"),
        lambda: Git(Path()).log("-1"),
    ],
)
def test_from_another_folder_the_folder_is_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[], object]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ConfigError, UserError)) as caught:
        read()
    said = f"{tmp_path} is not the root of the suite"
    assert re.search(rf"[;:] {re.escape(said)}", str(caught.value))  # before any advice
    (tmp_path / "config").mkdir()
    with pytest.raises((ConfigError, UserError)) as caught:
        read()
    assert "root of the suite" not in str(caught.value)


# --- Git LFS --------------------------------------------------------------------------------------


def test_a_pointer_is_known_by_how_it_begins(tmp_path: Path) -> None:
    file = tmp_path / "weights.bin"
    assert lfs_pointer(file) == ""
    file.write_bytes(b"PK\x03\x04")
    assert lfs_pointer(file) == ""
    file.write_bytes(POINTER)
    assert "git lfs pull" in lfs_pointer(file)


@pytest.mark.parametrize("name", ["FaithDiff.bin", "FaithDiff.safetensors"])
def test_a_pointer_in_place_of_weights_is_named(tmp_path: Path, name: str) -> None:
    from faithdiff.models.official import read_state

    (tmp_path / name).write_bytes(POINTER)
    with pytest.raises(CheckpointError, match=rf"{name}: is a pointer of Git LFS.*git lfs pull"):
        read_state(tmp_path / name)


@pytest.mark.parametrize("content", [b"<html>please log in</html>", b"\x80\x02x", b""])
def test_no_weights_are_not_told_by_how_they_would_be_read(tmp_path: Path, content: bytes) -> None:
    from faithdiff.models.official import read_state

    (tmp_path / "FaithDiff.bin").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"is no archive of torch\.save; get it again"):
        read_state(tmp_path / "FaithDiff.bin")


@pytest.mark.parametrize("read", [load_scores, load_costs, load_levels, read_checked])
def test_a_pointer_in_place_of_a_table_or_a_text_is_named(
    tmp_path: Path, read: Callable[[Path], object]
) -> None:
    file = tmp_path / "file"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n")
    with pytest.raises((UserError, CorruptedError), match=r"file: is a pointer of Git LFS"):
        read(file)


def test_a_prior_cloned_without_its_large_files(tmp_path: Path) -> None:
    from faithdiff.models.prior import load_prior

    for part in ("vae", "unet"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text("{}")
    file = tmp_path / "unet" / "model.safetensors"
    file.write_bytes(POINTER)
    with pytest.raises(CheckpointError, match=rf"{file}: is a pointer of Git LFS"):
        load_prior(tmp_path)


# --- Merges and spreadsheets ----------------------------------------------------------------------

MERGING = "a: 1\n<<<<<<< HEAD\nb: 2\n=======\nb: 3\n>>>>>>> theirs\n"


@pytest.mark.parametrize(
    "read",
    [
        load_scores,
        load_costs,
        load_levels,
        load_profile,
        load_claims,
        read_checked,
        read_captions,
        lambda file: _logs(file, 0),
    ],
)
def test_both_sides_of_a_merge_are_no_file(tmp_path: Path, read: Callable[[Path], object]) -> None:
    file = tmp_path / "a file"
    file.write_text(MERGING)
    said = rf"{file}: holds both sides of a merge .*line 2: <<<<<<< HEAD.*--ours '{file}'"
    with pytest.raises((UserError, ConfigError, CorruptedError), match=said):
        read(file)


def test_a_title_that_is_underlined_is_no_merge() -> None:
    assert left_by_git(b"Title\n=======\n\n<<<<<<<\n> <<<<<<< quoted\n", "a.txt") == ""


@pytest.mark.parametrize("read", [load_scores, load_costs, lambda file: _logs(file, 0)])
@pytest.mark.parametrize("table", ["a;b\n1,5;2\n", "a\tb\n1,5\t2\n", "\ufeffa;b\r\n1,5;2\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_results_that_a_spreadsheet_saved_are_refused(
    tmp_path: Path, read: Callable[[Path], object], table: str, encoding: str
) -> None:
    file = tmp_path / "scores.csv"
    file.write_text(table, encoding)
    with pytest.raises(UserError, match=r"scores\.csv: was saved by another program.*collect"):
        read(file)
