"""Which files of a folder are images: names that clash, links, thousands of files."""

from __future__ import annotations

import errno
import os
import time
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from shared.pictures import pixels

from faithdiff.data.images import write_png
from faithdiff.data.listing import list_images, scan, spelt_alike
from faithdiff.errors import RunError, UserError
from faithdiff.study.files import write_text_atomic

CAFE = "Café"


def folder_of(place: Path, *names: str) -> Path:
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(b"any")
    if len(set(names)) > len([*place.rglob("*.*")]):
        pytest.skip("NOT TESTED: this file system takes the names for one")
    return place


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("Photo.png", "photo.png"),
        ("Photo.png", "PHOTO.jpg"),
        ("ÉTÉ.png", "été.png"),
        (*(unicodedata.normalize(form, f"{CAFE}.png") for form in ("NFC", "NFD")),),
        ("trip/one.png", "Trip-one.png"),
    ],
)
def test_names_that_some_disks_take_for_one_are_refused(tmp_path: Path, one: str, two: str) -> None:
    with pytest.raises(UserError) as caught:
        scan(folder_of(tmp_path, one, two), recursive=True).by_name()
    assert one in str(caught.value) and two in str(caught.value)
    assert "are one name on many disks" in str(caught.value) and "rename one" in str(caught.value)


def test_names_that_every_disk_tells_apart_are_two(tmp_path: Path) -> None:
    names = ["Strasse.png", "Straße.png", "it's.png", 'say "hi" $HOME.png', "🐱.png", "a b.png"]
    found = list_images(folder_of(tmp_path, *names))
    assert sorted(file.name for file in found) == sorted(names)


def test_a_name_is_spelt_in_one_way() -> None:
    spellings = {
        f(unicodedata.normalize(n, CAFE)) for n in ("NFC", "NFD") for f in (str, str.upper)
    }
    assert len(spellings) == 4 and len(set(map(spelt_alike, spellings))) == 1


def test_links_that_lead_around_or_nowhere_are_skipped(tmp_path: Path) -> None:
    folder_of(tmp_path, "one.png", "in/two.png")
    (tmp_path / "self.png").symlink_to("self.png")
    (tmp_path / "in/up").symlink_to("..")
    (tmp_path / "lost.png").symlink_to(tmp_path / "gone.png")
    found = scan(tmp_path, recursive=True)
    assert [file.name for file in found.images] == ["one.png", "two.png"]
    said = {path.name: why for path, why in found.skipped}
    assert said == {
        "lost.png": "link that leads nowhere",
        "self.png": "link that leads nowhere",
        "up": "link to a folder",
    }


def test_thousands_of_files_are_listed_at_once(tmp_path: Path) -> None:
    for number in range(10_000):
        os.close(os.open(tmp_path / f"{number:05}.png", os.O_CREAT))
    begun = time.process_time()
    assert len(scan(tmp_path).by_name()) == 10_000
    assert time.process_time() - begun < 5  # a second or less, mostly; a quadratic search: minutes


def test_a_name_as_long_as_the_disk_allows_can_be_written(tmp_path: Path) -> None:
    name = "x" * 251
    write_png(pixels(4, 4), tmp_path / f"{name}.png")
    write_text_atomic("of it", tmp_path / f"{name}.txt")
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"{name}.png", f"{name}.txt"]


def test_a_mount_that_vanishes_while_a_folder_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(place: Path, onerror: Callable[[OSError], None]) -> Iterator[None]:
        onerror(OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(place)))
        yield

    monkeypatch.setattr(os, "walk", stale)
    with pytest.raises(RunError, match="its disk or network mount does not answer"):
        scan(tmp_path)
