"""Files from outside, over a server on the loopback interface."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from shared import ROOT
from shared.loopback import running

from faithdiff.data.artifacts import (
    Artifact,
    check_shipped,
    load_artifacts,
    needed_by,
    quick_state,
    select,
    state,
)
from faithdiff.data.download import fetch
from faithdiff.data.fetch import fetch_all
from faithdiff.errors import CheckpointError, ConfigError, RunError

BODY = bytes(range(256)) * 40
SHA256 = hashlib.sha256(BODY).hexdigest()
SHIPPED = ROOT / "config" / "artifacts.yaml"


class Server(ThreadingHTTPServer):
    """Serves BODY; `cut` bytes of it at most per answer, and ranges if `ranges`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.cut, self.ranges, self.etag = len(BODY), True, '"1"'
        self.requests: list[str | None] = []  # the Range header of each

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/weights.pth"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.requests.append(wanted)
        if self.path in ("/gone", "/moved", "/page"):
            self._no_file()
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        changed = self.headers.get("If-Range", self.server.etag) != self.server.etag
        if changed or not self.server.ranges:
            start = 0
        if start >= len(BODY):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(BODY) - start))
        self.send_header("ETag", self.server.etag)
        self.end_headers()
        self.wfile.write(BODY[start : start + self.server.cut])

    def _no_file(self) -> None:
        if self.path != "/page":
            self.send_error({"/gone": 410, "/moved": 404}[self.path])
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(b"<html>please sign in</html>")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with running(Server()) as server:
        yield server


def artifact(address: str = "http://127.0.0.1:9/weights.pth", **changes: Any) -> Artifact:
    fields = {
        "name": "weights",
        "address": address,
        "path": "hub/weights.pth",
        "sha256": SHA256,
        "sha256_prefix": None,
        "size_mb": 0.01,
        "licence": "MIT",
        "profiles": ["mini"],
    }
    return Artifact.model_validate(fields | changes)


def place(root: Path, data: bytes, name: str = "hub/weights.pth") -> Path:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file


def test_fetch_writes_verifies_and_records(server: Server, tmp_path: Path) -> None:
    item = artifact(server.address, sha256=None)
    assert state(item, tmp_path) == quick_state(item, tmp_path) == "missing"
    file = fetch(item, tmp_path)
    assert file.read_bytes() == BODY
    assert not list(tmp_path.rglob("*.part"))
    assert state(item, tmp_path) == "ok"
    assert quick_state(item, tmp_path) == SHA256


def test_fetch_uses_no_network_for_a_good_file(tmp_path: Path) -> None:
    place(tmp_path, BODY)
    fetch(artifact(), tmp_path)  # the address answers nothing
    assert quick_state(artifact(), tmp_path) == SHA256


def test_a_plan_sees_another_file_of_the_same_size(tmp_path: Path) -> None:
    other = bytes(reversed(BODY))
    for listed in (artifact(), artifact(sha256=None)):
        place(tmp_path, BODY)
        assert quick_state(listed, tmp_path) == SHA256
        place(tmp_path, other)
        assert quick_state(listed, tmp_path) == hashlib.sha256(other).hexdigest()


def test_a_cut_transfer_resumes_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.cut = 3000
    item = artifact(server.address)
    with pytest.raises(RunError, match=f"ended after 3000 of {len(BODY)} bytes.*resume"):
        fetch(item, tmp_path)
    assert state(item, tmp_path) == "missing"
    server.cut = len(BODY)
    fetch(item, tmp_path)
    assert server.requests == [None, "bytes=3000-"]
    assert state(item, tmp_path) == "ok"


def test_a_server_without_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    place(tmp_path, b"junk" * 100, "hub/weights.pth.part")
    assert fetch(artifact(server.address), tmp_path).read_bytes() == BODY


def test_a_complete_part_is_only_verified(server: Server, tmp_path: Path) -> None:
    place(tmp_path, BODY, "hub/weights.pth.part")
    assert fetch(artifact(server.address), tmp_path).read_bytes() == BODY


@pytest.mark.parametrize("expected", [{"sha256": "0" * 64}, {"sha256_prefix": "00000000"}])
def test_wrong_bytes_never_get_the_final_name(
    server: Server, tmp_path: Path, expected: dict[str, str]
) -> None:
    item = artifact(server.address, **({"sha256": None} | expected))
    with pytest.raises(RunError, match=SHA256):
        fetch(item, tmp_path)
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_a_dead_address_says_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(RunError) as error:
        fetch(artifact(), tmp_path)
    said = str(error.value)
    assert re.match(r"weights: its address fails, and no mirror is known:\n  http://127", said)
    assert f"put it at {tmp_path / 'hub/weights.pth'}" in said
    assert "Without a network, run the same command again" in said


def test_a_host_that_no_one_knows_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(
        RunError, match=r"host\.invalid/w\.pth: .*(not known|resolution|No address)"
    ):
        fetch(artifact("http://host.invalid/w.pth"), tmp_path)
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_vanished_addresses_are_named_together_and_the_next_mirror_serves(
    server: Server, tmp_path: Path
) -> None:
    base = server.address.removesuffix("/weights.pth")
    dead = [f"{base}/gone", f"{base}/moved", f"{base}/page"]
    with pytest.raises(RunError) as error:
        fetch(artifact(dead[0], mirrors=dead[1:]), tmp_path)
    said = str(error.value).splitlines()
    assert said[0] == "weights: its address and its mirrors fail:"
    assert said[1].startswith(f"  {dead[0]}: answers HTTP Error 410")
    assert said[2].startswith(f"  {dead[1]}: answers HTTP Error 404")
    assert said[3] == f"  {dead[2]}: answers with a web page in place of the file"
    item = artifact(dead[0], mirrors=[*dead[1:], server.address])
    assert fetch(item, tmp_path).read_bytes() == BODY


def test_bytes_of_two_addresses_are_never_joined(server: Server, tmp_path: Path) -> None:
    server.cut = 3000
    item = artifact(server.address, sha256=None)
    with pytest.raises(RunError, match="ended after 3000"):
        fetch(item, tmp_path)
    server.cut = len(BODY)
    other = artifact(server.address + "?mirror", sha256=None)
    assert fetch(other, tmp_path).read_bytes() == BODY
    assert server.requests == [None, None]  # nothing of the first address was built upon


def test_a_file_that_changed_between_two_tries_is_fetched_whole(
    server: Server, tmp_path: Path
) -> None:
    server.cut = 3000
    with pytest.raises(RunError, match="ended after 3000"):
        fetch(artifact(server.address), tmp_path)
    server.cut, server.etag = len(BODY), '"2"'
    assert fetch(artifact(server.address), tmp_path).read_bytes() == BODY


def test_a_killed_fetch_leaves_no_final_name_and_resumes(server: Server, tmp_path: Path) -> None:
    """A process of its own, killed with half of the bytes on disk."""
    half = threading.Event()

    class Slow(Handler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(BODY)))
            self.send_header("ETag", '"1"')
            self.end_headers()
            self.wfile.write(BODY[:5000])
            self.wfile.flush()
            half.wait(30)

    server.RequestHandlerClass = Slow
    listed = tmp_path / "artifacts.json"
    listed.write_text(json.dumps({"artifacts": [artifact(server.address).model_dump(mode="json")]}))
    code = (
        "import sys; from pathlib import Path; from faithdiff.data import artifacts, download;"
        "download._BLOCK = 100;"
        "item = artifacts.load_artifacts(Path(sys.argv[1]))['weights'];"
        "download.fetch(item, Path(sys.argv[2]))"
    )
    root = tmp_path / "root"
    process = subprocess.Popen([sys.executable, "-c", code, str(listed), str(root)])
    part = root / "hub/weights.pth.part"
    deadline = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size >= 4096) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait(10)
    half.set()
    assert not (root / "hub/weights.pth").exists()
    had = part.stat().st_size
    assert 0 < had < len(BODY)
    server.RequestHandlerClass = Handler
    assert fetch(artifact(server.address), root).read_bytes() == BODY
    assert server.requests == [f"bytes={had}-"]


def test_corruption_after_the_first_fetch_is_seen_without_a_published_hash(
    server: Server, tmp_path: Path
) -> None:
    item = artifact(server.address, sha256=None)
    file = fetch(item, tmp_path)
    file.write_bytes(BODY[:-1] + b"?")
    assert state(item, tmp_path).startswith("corrupt: sha256")
    fetch(item, tmp_path)
    assert state(item, tmp_path) == "ok"


def test_fetch_all_announces_gigabytes_before_it_starts(server: Server, tmp_path: Path) -> None:
    said: list[tuple[str, int]] = []
    items = [artifact(server.address, size_mb=250.0), artifact(name="here", path="hub/here.pth")]
    place(tmp_path, BODY, "hub/here.pth")
    fetch_all(items, tmp_path, say=lambda line: said.append((line, len(server.requests))))
    assert (f"fetching 1 files, about 0.25 GB, into {tmp_path} and data/raw", 0) in said
    assert set(json.loads((tmp_path / "recorded.json").read_text())) == {"weights", "here"}


def test_the_shipped_list_names_each_metric_file_by_its_own_hash() -> None:
    artifacts = load_artifacts(SHIPPED)
    assert {"alexnet", "lpips-alex", "musiq-koniq", "clip-rn50"} <= set(artifacts)
    for item in artifacts.values():
        if item.path.parts[0] == "hub":
            start = item.sha256_prefix or item.sha256
            assert start is not None
            assert start in item.path.name or start in item.address


def test_profiles_name_what_they_need() -> None:
    artifacts = load_artifacts(SHIPPED)
    released = {item.name for item in needed_by("released", artifacts)}
    paper = {item.name for item in needed_by("paper", artifacts)}
    unet = "realvisxl-v4/unet/diffusion_pytorch_model.fp16.safetensors"
    assert {"faithdiff", "div2k-val", "realdeg", unet, "musiq-koniq"} <= released
    assert {"div2k", "lsdir-shard-16", "ffhq-scores", unet} <= paper
    assert "faithdiff" not in paper and "div2k" not in released
    assert artifacts[unet].address.endswith(
        "RealVisXL_V4.0/resolve/main/unet/diffusion_pytorch_model.fp16.safetensors"
    )
    with pytest.raises(ConfigError, match=r"profile 'mine'; there are lab, mini, paper, released"):
        needed_by("mine", artifacts)


def test_no_two_artifacts_share_a_place() -> None:
    places = [(item.root, item.path) for item in load_artifacts(SHIPPED).values()]
    folders = [item.unpack for item in load_artifacts(SHIPPED).values() if item.unpack]
    assert len(set(places)) == len(places)
    assert len(set(folders)) == len(folders)


def test_a_list_with_mistakes_is_refused(tmp_path: Path) -> None:
    entry = artifact().model_dump(mode="json")
    file = tmp_path / "artifacts.yaml"
    file.write_text(json.dumps({"artifacts": [entry, entry]}))
    with pytest.raises(ConfigError, match="'weights' comes twice"):
        load_artifacts(file)
    file.write_text(json.dumps({"artifacts": [entry | {"path": "../weights.pth"}]}))
    with pytest.raises(ConfigError, match="leaves the folder"):
        load_artifacts(file)
    for change, message in (
        ({"unpack": "../set", "path": "a.zip", "unpacked_mb": 1}, "leaves the folder"),
        ({"unpack": "set", "unpacked_mb": 1}, "is no .zip"),
        ({"unpack": "set", "path": "a.zip"}, "unpacked_mb: is missing"),
        ({"gated": True}, "say under `how`"),
        ({"size_mb": None}, "only what a person fetches"),
        ({"mirrors": ["ftp://x/y"]}, "mirrors"),
    ):
        file.write_text(json.dumps({"artifacts": [entry | change]}))
        with pytest.raises(ConfigError, match=message):
            load_artifacts(file)
    with pytest.raises(ConfigError, match="no artifact is named 'other'"):
        select({"weights": artifact()}, ["other"])


def test_without_git_a_corrupted_prior_is_not_to_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A download as an archive has nothing to get it back from."""
    for part in ("config", "prior"):
        shutil.copytree(ROOT / part, tmp_path / part)
    monkeypatch.chdir(tmp_path)
    check_shipped(Path("prior/mini"))
    file = Path("prior/mini/unet/config.json")
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    with pytest.raises(CheckpointError, match=r"; this copy has no \.git .*from another copy"):
        check_shipped(Path("prior/mini"))
    Path(".git").mkdir()
    with pytest.raises(CheckpointError, match=r"git checkout -- prior/mini; if git changes"):
        check_shipped(Path("prior/mini"))
