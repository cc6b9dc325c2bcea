"""What jobs read from outside the study: told apart by content, and read once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from faithdiff.data import outside
from faithdiff.data.outside import KEPT, contents, files_in
from faithdiff.study.provenance import file_digest


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are hashed, in a folder where Snakemake has run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(outside, "SETTLED", 0)
    KEPT.parent.mkdir()
    hashed: list[Path] = []

    def digest(file: Path) -> str:
        hashed.append(file)
        return file_digest(file)

    monkeypatch.setattr(outside, "file_digest", digest)
    return hashed


def forget() -> None:
    """As another process begins: it knows what is on disk."""
    outside._kept.cache_clear()


def test_a_file_is_read_once(read: list[Path]) -> None:
    file = Path("picture.png")
    file.write_bytes(b"one")
    first = contents([file])
    assert first == {file: file_digest(file)}
    forget()
    assert contents([file]) == first
    assert read == [file]


def test_what_fetch_has_hashed_is_not_read_by_the_plan(read: list[Path]) -> None:
    file = Path("weights.safetensors")
    file.write_bytes(b"one")
    outside.remember(file, "elsewhere nothing plans")
    Path("Snakefile").touch()
    outside.remember(file, file_digest(file))
    forget()
    assert contents([file]) == {file: file_digest(file)}
    assert read == []
    file.write_bytes(b"two")
    forget()
    assert contents([file]) == {file: file_digest(file)} and read == [file]


@pytest.mark.parametrize("how", ["in place", "renamed", "times set back"])
def test_another_content_of_the_same_size_is_seen(read: list[Path], how: str) -> None:
    file, other = Path("picture.png"), Path("other.png")
    file.write_bytes(b"one")
    before, stat = contents([file])[file], file.stat()
    other.write_bytes(b"two")
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    if how == "renamed":
        other.replace(file)
    else:
        file.write_bytes(b"two")
    if how == "times set back":
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    forget()
    assert contents([file])[file] == outside.file_digest(file) != before


def test_other_times_are_the_same_content(read: list[Path]) -> None:
    file = Path("picture.png")
    file.write_bytes(b"one")
    before = contents([file])
    os.utime(file, (1, 1))
    shutil.copyfile(file, "copy.png")
    Path("copy.png").replace(file)
    assert contents([file]) == before


def test_what_is_not_there_or_cannot_be_read_does_not_stop_a_plan(read: list[Path]) -> None:
    Path("folder").mkdir()
    found = contents([Path("gone.png"), Path("folder")])
    assert found == {Path("gone.png"): "missing", Path("folder"): "cannot be read: Is a directory"}


@pytest.mark.parametrize("kept", [b"no json", b"[]", b'{"/a": 3}', b'{"/a": ["x", 1]}'])
def test_a_corrupted_memory_is_no_memory(read: list[Path], kept: bytes) -> None:
    file = Path("picture.png")
    file.write_bytes(b"one")
    KEPT.write_bytes(kept)
    forget()
    assert contents([file]) == {file: file_digest(file)}


def test_nothing_is_remembered_where_it_cannot_be_written(read: list[Path]) -> None:
    file = Path("picture.png")
    file.write_bytes(b"one")
    KEPT.mkdir()  # in the way of the file
    assert contents([file]) == {file: file_digest(file)}


def test_files_in_a_folder(tmp_path: Path) -> None:
    for name in ("a/b.py", "a/__pycache__/b.pyc", ".hidden/c", "d"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert files_in(tmp_path) == [tmp_path / "a/b.py", tmp_path / "d"]
    assert files_in(tmp_path / "d") == [tmp_path / "d"]
    (tmp_path / "far").mkdir()
    (tmp_path / "far/e").touch()
    (tmp_path / "a/far").symlink_to("../far")
    (tmp_path / "a/back").symlink_to("..")
    assert files_in(tmp_path / "a") == [tmp_path / "a/b.py", tmp_path / "a/far/e"]


@pytest.mark.parametrize("turned", [False, True])
def test_a_folder_behind_two_links_has_one_name_on_every_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turned: bool
) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far/e").touch()
    for name in ("a/one", "a/two"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "link").symlink_to(tmp_path / "far")
    walk = os.walk

    def listed(top: Path, followlinks: bool) -> Iterator[tuple[str, list[str], list[str]]]:
        for place, folders, files in walk(top, followlinks=followlinks):
            folders.sort(reverse=turned)
            yield str(place), folders, files

    monkeypatch.setattr(os, "walk", listed)
    assert files_in(tmp_path / "a") == [tmp_path / "a/one/link/e"]
