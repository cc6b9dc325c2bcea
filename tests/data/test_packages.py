"""Photographs out of Debian packages, with an apt-get and a dpkg-deb of our own."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest
from shared import ROOT
from shared.photographs import photograph, write_list

from faithdiff import cli
from faithdiff.data.packages import fetch_photographs
from faithdiff.data.photographs import PHOTOGRAPHS, Photograph
from faithdiff.errors import RunError, UserError

OAK, ELM = b"the bytes of an oak", b"of an elm"
BUNDLE = b"header" + ELM + b"footer"
DPKG = '#!/bin/sh\nexec cat "$2"\n'  # a package of ours is the tar archive that it holds


def program(folder: Path, name: str, text: str) -> None:
    file = folder / name
    file.write_text(text)
    file.chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH whose apt-get gives a package of two files, and counts how often it was asked."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    deb = tmp_path / "mirror.deb"
    with tarfile.open(deb, "w") as archive:
        for path, content in (("./usr/share/oak.png", OAK), ("./usr/share/all.rcc", BUNDLE)):
            member = tarfile.TarInfo(path)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    program(bin_, "dpkg-deb", DPKG)
    program(
        bin_,
        "apt-get",
        f'#!/bin/sh\necho "$2" >> {tmp_path}/asked\ncp {deb} stamps_1%3a1.0-1_all.deb\n',
    )
    monkeypatch.setenv("PATH", f"{bin_}:/usr/bin:/bin")
    return tmp_path


def listed() -> list[Photograph]:
    oak = photograph("oak", sha256=hashlib.sha256(OAK).hexdigest())
    elm = photograph(
        "elm", path="usr/share/all.rcc", span="6+9", sha256=hashlib.sha256(ELM).hexdigest()
    )
    return [oak, elm]


def said(machine: Path, photos: list[Photograph], kind: type[Exception] = UserError) -> str:
    with pytest.raises(kind) as error:
        fetch_photographs(photos, machine / "out", say=lambda _: None)
    return str(error.value)


def test_files_and_parts_of_files_are_taken_once(machine: Path) -> None:
    out = machine / "out"
    fetch_photographs(listed(), out, say=lambda _: None)
    assert (out / "oak.png").read_bytes() == OAK and (out / "elm.webp").read_bytes() == ELM
    assert sorted(file.name for file in out.iterdir()) == ["elm.webp", "oak.png"]
    fetch_photographs(listed(), out, say=lambda _: None)
    assert (machine / "asked").read_text() == "stamps=1.0-1\n"
    (out / "oak.png").write_bytes(b"half of")  # as a kill left it
    fetch_photographs(listed(), out, say=lambda _: None)
    assert (out / "oak.png").read_bytes() == OAK


def test_parts_of_a_dataset_are_fetched_together(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(machine)
    oak, elm = listed()
    photos = [oak, dataclasses.replace(elm, part="validation")]
    files = str(write_list(machine / "list.csv", photos))
    of_packages = {"source": "packages", "files": files, "size": 64, "crops": 1}
    parts = {"seen": of_packages, "apart": {**of_packages, "part": "validation"}}
    own = {
        "extends": str(ROOT / "config/mini.yaml"),
        "profile": "own",
        "prior": {
            "training": {"data": {"source": "mixture", "parts": parts}, "held_out": ["apart"]}
        },
    }
    Path("own.yaml").write_text(json.dumps(own))  # which is YAML, too
    cli.fetch(dataset="prior", config=Path("own.yaml"))
    assert {file.name for file in PHOTOGRAPHS.iterdir()} == {"elm.webp", "oak.png"}
    assert (machine / "asked").read_text() == "stamps=1.0-1\n"  # once


def test_package_that_a_person_placed_is_taken_without_apt(machine: Path) -> None:
    (machine / "bin" / "apt-get").unlink()
    out = machine / "out"
    out.mkdir()
    (machine / "mirror.deb").rename(out / "stamps_1.0-1_all.deb")
    fetch_photographs(listed(), out, say=lambda _: None)
    assert (out / "oak.png").read_bytes() == OAK


def test_missing_programs_are_named(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(machine / "bin"))
    (machine / "bin" / "apt-get").rename(machine / "apt-get")
    text = said(machine, listed())
    assert "stamps 1.0-1 (for usr/share/" in text and "there is no apt-get" in text
    assert "snapshot archive" in text and str(machine / "out") in text


def test_other_version_and_unreachable_mirror_are_told_apart(machine: Path) -> None:
    apt = '#!/bin/sh\necho "E: {}" >&2\nexit 100\n'
    program(machine / "bin", "apt-get", apt.format("Version '1.0-1' for 'stamps' was not found"))
    text = said(machine, listed())
    assert "another version" in text and "snapshot archive" in text and "was not found" in text
    program(machine / "bin", "apt-get", apt.format("Failed to fetch http://deb: no route to host"))
    assert "once its mirror is reachable" in said(machine, listed(), RunError)


def test_wrong_and_missing_files_are_named(machine: Path) -> None:
    wrong = photograph("oak", sha256="a" * 64)
    text = said(machine, [wrong])
    assert "usr/share/oak.png (oak): sha256 is" in text and "aaaaaaaaaaaa" in text
    assert "snapshot archive" in text
    assert not list((machine / "out").iterdir())  # nothing unchecked stays
    assert "has no usr/share/ash.png (ash)" in said(machine, [photograph("ash")])


def test_torn_package_is_named(machine: Path) -> None:
    program(machine / "bin", "apt-get", "#!/bin/sh\necho torn > stamps_1.0-1_all.deb\n")
    assert "no whole Debian package" in said(machine, listed())
