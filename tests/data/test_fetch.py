"""All that a profile needs, over loopback: archives, folders of files, sets placed by hand."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared import ROOT
from shared.loopback import running
from typer.testing import CliRunner

from faithdiff import cli
from faithdiff.data import fetch as fetching
from faithdiff.data.artifacts import Artifact, load_artifacts
from faithdiff.data.fetch import fetch_all
from faithdiff.data.unpack import MARKER, marker, unpack
from faithdiff.errors import FaithDiffError, RunError, UserError

FILES = {"set/a.png": b"a" * 3000, "set/deep/b.png": b"b" * 50, "readme.txt": b"hello"}


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and its address on the loopback interface."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    with running(server):
        yield folder, f"http://127.0.0.1:{server.server_address[1]}"


def zipped(path: Path, files: dict[str, bytes] = FILES) -> str:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tarred(path: Path, files: dict[str, bytes] = FILES, mode: Literal["w:gz", "w"] = "w:gz") -> str:
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def content(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and file.name != MARKER
    }


def artifact(address: str, **changes: Any) -> Artifact:
    fields = {
        "name": "images",
        "address": address,
        "root": "data",
        "path": "images.zip",
        "unpack": "Images",
        "unpacked_mb": 1,
        "sha256": None,
        "size_mb": 0.01,
        "licence": "CC0",
        "profiles": ["mini"],
    }
    return Artifact.model_validate(fields | changes)


def bring(*items: Artifact, root: Path) -> list[str]:
    said: list[str] = []
    fetch_all(items, root / "weights", root / "raw", said.append)
    return said


PACKS = [
    ("images.zip", zipped),
    ("images.tar.gz", tarred),
    ("images.tar", partial(tarred, mode="w")),
]


@pytest.mark.parametrize(("name", "pack"), PACKS)
def test_an_archive_is_fetched_unpacked_and_never_again(
    served: tuple[Path, str], tmp_path: Path, name: str, pack: Callable[[Path], str]
) -> None:
    folder, address = served
    sha256 = pack(folder / name)
    item = artifact(f"{address}/{name}", path=name, sha256=sha256)
    said = bring(item, root=tmp_path)
    assert "fetching 1 files, about 0.00 GB" in said[1]
    assert content(tmp_path / "raw" / "Images") == FILES
    assert marker(tmp_path / "raw" / "Images")["sha256"] == sha256
    assert not (tmp_path / "raw" / name).exists()  # the archive has served
    (folder / name).unlink()  # nothing is asked of the server again
    assert bring(item, root=tmp_path)[0].startswith("1 of 1 files are in")


def test_a_fetch_that_ended_before_unpacking_goes_on(
    served: tuple[Path, str], tmp_path: Path
) -> None:
    (tmp_path / "raw").mkdir()
    sha256 = zipped(tmp_path / "raw" / "images.zip")
    (tmp_path / "raw" / ".Images.unpacking").mkdir()  # of the killed run
    bring(artifact(f"{served[1]}/none.zip", sha256=sha256), root=tmp_path)
    assert content(tmp_path / "raw" / "Images") == FILES
    assert not list(tmp_path.rglob("*.unpacking"))


def test_a_newer_archive_replaces_what_an_older_one_unpacked(
    served: tuple[Path, str], tmp_path: Path
) -> None:
    folder, address = served
    bring(artifact(f"{address}/images.zip", sha256=zipped(folder / "images.zip")), root=tmp_path)
    newer = zipped(folder / "images.zip", {"c.png": b"c"})
    bring(artifact(f"{address}/images.zip", sha256=newer), root=tmp_path)
    assert content(tmp_path / "raw" / "Images") == {"c.png": b"c"}


def test_a_missing_gated_set_says_where_to_put_it_after_all_else_came(
    served: tuple[Path, str], tmp_path: Path
) -> None:
    folder, address = served
    zipped(folder / "images.zip")
    free = artifact(f"{address}/images.zip")
    gated = artifact(
        "http://example.org/form", name="real", path="real.zip", unpack="Real", size_mb=None,
        gated=True, how="fill in the form.",
    )  # fmt: skip
    with pytest.raises(UserError) as error:
        bring(gated, free, root=tmp_path)
    said = str(error.value)
    for part in ("real: ", "fill in the form.", "http://example.org/form", "(CC0)"):
        assert part in said
    assert str(tmp_path / "raw" / "real.zip") in said
    assert str(tmp_path / "raw" / "Real") in said
    assert content(tmp_path / "raw" / "Images") == FILES
    zipped(tmp_path / "raw" / "real.zip")
    bring(gated, free, root=tmp_path)
    assert content(tmp_path / "raw" / "Real") == FILES
    assert (tmp_path / "raw" / "real.zip").exists()  # placed by hand: not ours to delete


def test_images_placed_by_hand_are_taken_as_they_are(tmp_path: Path) -> None:
    gated = artifact("http://example.org", size_mb=None, gated=True, how="ask.")
    (tmp_path / "raw" / "Images").mkdir(parents=True)
    assert bring(gated, root=tmp_path)[0].startswith("1 of 1")


def test_a_disk_that_is_too_small_stops_it_before_the_first_byte(
    served: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = served
    zipped(folder / "images.zip")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda _: usage._replace(free=3_000_000_000))
    item = artifact(f"{address}/images.zip", size_mb=2000, unpacked_mb=4000)
    with pytest.raises(UserError, match=r"4\.00 GB are needed there .* 3\.00 GB are free"):
        bring(item, root=tmp_path)
    assert not (tmp_path / "raw").exists()
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda _: usage._replace(free=5_000_000_000))
    bring(item, root=tmp_path)


def test_the_files_of_a_folder_keep_their_paths_and_mirrors(
    served: tuple[Path, str], tmp_path: Path
) -> None:
    folder, address = served
    (folder / "model" / "unet").mkdir(parents=True)
    (folder / "model" / "config.json").write_bytes(b"{}")
    (folder / "model" / "unet" / "a+b.bin").write_bytes(b"12345")
    listed = tmp_path / "artifacts.json"
    part = {"sha256": None, "size_mb": 0.001}
    listed.write_text(
        json.dumps(
            {
                "folders": [
                    {
                        "name": "model",
                        "address": f"{address}/gone/",
                        "mirrors": [f"{address}/model"],
                        "path": "model",
                        "licence": "MIT",
                        "profiles": ["mini"],
                        "files": [part | {"path": "config.json"}, part | {"path": "unet/a+b.bin"}],
                    }
                ]
            }
        )
    )
    items = load_artifacts(listed)
    assert list(items) == ["model/config.json", "model/unet/a+b.bin"]
    bring(*items.values(), root=tmp_path)
    assert (tmp_path / "weights" / "model" / "unet" / "a+b.bin").read_bytes() == b"12345"


def test_the_command_fetches_what_the_profile_lists(
    served: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = served
    shutil.copytree(ROOT / "config", tmp_path / "config")
    item = artifact(f"{address}/images.zip", sha256=zipped(folder / "images.zip"), profiles=["lab"])
    listed = tmp_path / "config" / "artifacts.yaml"
    listed.write_text(json.dumps({"artifacts": [item.model_dump(mode="json")]}))
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli.app, ["fetch", "--profile", "lab"])
    assert result.exit_code == 0, result.output
    assert content(tmp_path / "data" / "raw" / "Images") == FILES
    with pytest.raises(UserError, match="give one of them"):
        cli.fetch(["lpips"], "lab")
    with pytest.raises(FaithDiffError, match=r"config/none\.yaml"):
        cli.fetch(None, "none")


# --- archives -------------------------------------------------------------------------------------


def evil_zip(path: Path, name: str, mode: int = 0) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("good.png", b"good")
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        archive.writestr(info, b"/etc/passwd")


def evil_tar(path: Path, name: str, kind: bytes = tarfile.REGTYPE) -> None:
    with tarfile.open(path, "w") as archive:
        good = tarfile.TarInfo("good.png")
        good.size = 4
        archive.addfile(good, io.BytesIO(b"good"))
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)


NAMES = ["../evil.png", "/tmp/evil.png", "a/../../evil.png", "a\\..\\evil.png", "C:evil.png"]
EVIL: list[Callable[[Path], None]] = [
    *(partial(evil_zip, name=name) for name in NAMES),
    *(partial(evil_tar, name=name) for name in NAMES),
    partial(evil_zip, name="link", mode=stat.S_IFLNK | 0o777),
    partial(evil_zip, name="fifo", mode=stat.S_IFIFO | 0o777),
    *(
        partial(evil_tar, name="odd", kind=kind)
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)
    ),
    partial(evil_zip, name="good.png"),  # the same name twice
]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("make", EVIL)
def test_an_evil_archive_is_refused_as_a_whole(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    make(home / "evil.bin")
    with pytest.raises(UserError, match="refused"):
        unpack(home / "evil.bin", home / "Images", "0" * 64, 1)
    assert [file.name for file in tmp_path.rglob("*")] == ["home", "evil.bin"]


def test_a_bomb_is_refused_by_what_it_states_and_by_what_it_holds(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.zip"
    zipped(bomb, {"zeros.png": bytes(3_000_000)})
    assert bomb.stat().st_size < 10_000
    with pytest.raises(UserError, match="unpacks to more than 2 MB"):
        unpack(bomb, tmp_path / "Images", "0" * 64, 2)
    lying = bytearray(bomb.read_bytes())
    true, false = (3_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little")
    bomb.write_bytes(bytes(lying).replace(true, false))
    with pytest.raises(FaithDiffError):  # larger than it states, or a wrong checksum
        unpack(bomb, tmp_path / "Images", "0" * 64, 2)
    assert [file.name for file in tmp_path.iterdir()] == ["bomb.zip"]


def test_a_zip_whose_entries_lie_before_its_start_is_named_as_corrupted(tmp_path: Path) -> None:
    archive = tmp_path / "images.zip"
    zipped(archive)
    data = bytearray(archive.read_bytes())
    end = data.rindex(b"PK\5\6") + 16  # where the offset of the directory stands
    offset = int.from_bytes(data[end : end + 4], "little")
    data[end : end + 4] = (offset + 90).to_bytes(4, "little")
    archive.write_bytes(data)
    with pytest.raises(RunError, match=rf"^{re.escape(str(archive))}: is corrupted"):
        unpack(archive, tmp_path / "Images", "0" * 64, 1)


@pytest.mark.parametrize("pack", [pack for _, pack in PACKS])
@settings(max_examples=40, deadline=None)
@given(cut=st.integers(1, 400), data=st.data())
def test_a_corrupted_archive_is_one_message_and_leaves_nothing(
    pack: Callable[[Path], str],
    cut: int,
    data: st.DataObject,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    home = tmp_path_factory.mktemp("corrupted")
    archive = home / "images.bin"
    pack(archive)
    whole = archive.read_bytes()
    if data.draw(st.booleans()):
        archive.write_bytes(whole[: max(len(whole) - cut, 0)])
    else:
        place = data.draw(st.integers(0, len(whole) - 1))
        archive.write_bytes(whole[:place] + bytes([whole[place] ^ 0x5A]) + whole[place + 1 :])
    failure = ""
    try:
        unpack(archive, home / "Images", "0" * 64, 1)
    except FaithDiffError as error:
        failure = str(error)
    if failure:
        assert str(archive) in failure
        assert [file.name for file in home.iterdir()] == ["images.bin"]
    else:  # the corruption lay where nothing is read or checked: a date, a pixel of a plain tar
        assert sorted(map(len, content(home / "Images").values())) == [5, 50, 3000]


def test_a_web_page_in_place_of_an_archive_is_said(tmp_path: Path) -> None:
    page = tmp_path / "images.zip"
    page.write_text("<html>sign in</html>")
    with pytest.raises(RunError, match="neither a zip nor a tar archive"):
        unpack(page, tmp_path / "Images", "0" * 64, 1)
