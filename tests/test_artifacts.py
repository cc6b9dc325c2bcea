"""Files from outside, over a server on the loopback interface."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from faithdiff.data.artifacts import (
    Artifact,
    fetch,
    fetch_all,
    load_artifacts,
    quick_state,
    select,
    state,
)
from faithdiff.errors import ConfigError, RunError

BODY = bytes(range(256)) * 40
SHA256 = hashlib.sha256(BODY).hexdigest()
SHIPPED = Path(__file__).parents[1] / "config" / "artifacts.yaml"


class Server(ThreadingHTTPServer):
    """Serves BODY; `cut` bytes of it at most per answer, and ranges if `ranges`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.cut, self.ranges = len(BODY), True
        self.requests: list[str | None] = []  # the Range header of each

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/weights.pth"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.requests.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if not self.server.ranges:
            start = 0
        if start >= len(BODY):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(BODY) - start))
        self.end_headers()
        self.wfile.write(BODY[start : start + self.server.cut])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(timeout=5)


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
    assert quick_state(artifact(), tmp_path) == f"size:{len(BODY)}"
    fetch(artifact(), tmp_path)  # the address answers nothing
    assert quick_state(artifact(), tmp_path) == SHA256


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
    with pytest.raises(RunError, match=r"weights: http://127.0.0.1:9/.*run the same command again"):
        fetch(artifact(), tmp_path)


def test_damage_after_the_first_fetch_is_seen_without_a_published_hash(
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
    assert ("fetching 1 files, about 0.25 GB, into " + str(tmp_path), 0) in said
    assert set(json.loads((tmp_path / "recorded.json").read_text())) == {"weights", "here"}


def test_the_shipped_list_names_each_file_by_its_own_hash() -> None:
    artifacts = load_artifacts(SHIPPED)
    assert {"alexnet", "lpips-alex", "musiq-koniq", "clip-rn50"} <= set(artifacts)
    for item in artifacts.values():
        start = item.sha256_prefix or item.sha256
        assert start is not None
        assert start in item.path.name or start in item.address


def test_a_list_with_mistakes_is_refused(tmp_path: Path) -> None:
    entry = artifact().model_dump(mode="json")
    file = tmp_path / "artifacts.yaml"
    file.write_text(json.dumps({"artifacts": [entry, entry]}))
    with pytest.raises(ConfigError, match="'weights' comes twice"):
        load_artifacts(file)
    file.write_text(json.dumps({"artifacts": [entry | {"path": "../weights.pth"}]}))
    with pytest.raises(ConfigError, match="leaves the folder"):
        load_artifacts(file)
    with pytest.raises(ConfigError, match="no artifact is named 'other'"):
        select({"weights": artifact()}, ["other"])
