"""Large files by several connections, gated files by a token, and the rest after a dead address."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from shared.loopback import running

from faithdiff.data import ranges
from faithdiff.data.artifacts import Artifact
from faithdiff.data.download import fetch
from faithdiff.data.fetch import fetch_all
from faithdiff.data.hub import HUB, Hub
from faithdiff.errors import RunError, UserError

BODY = bytes(range(251)) * 50
SHA256 = hashlib.sha256(BODY).hexdigest()
TOKEN = "secret"


class Handler(BaseHTTPRequestHandler):
    """Gives ranges of one file; what is below /gated/ to those who show the token."""

    server: Server

    def do_GET(self) -> None:
        wanted, token = self.headers.get("Range"), self.headers.get("Authorization")
        self.server.asked.append((self.path, wanted, token))
        if self.path.startswith("/gone"):
            self.head(404)
        elif "/gated/" not in self.path:
            self.file(wanted)
        elif token == f"Bearer {TOKEN}":
            self.head(302, Location=f"{self.server.other}/file")
        else:
            self.head(401)

    def file(self, wanted: str | None) -> None:
        known = self.headers.get("If-Range") in (None, self.server.etag)
        if wanted is None or not known:
            size = len(BODY)
            self.head(200, Content_Length=size, ETag=self.server.etag, Accept_Ranges="bytes")
            self.wfile.write(BODY)
            if self.server.changes:
                self.server.etag = '"2"'
            return
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start, end = int(first), int(last or len(BODY) - 1) + 1
        if start in self.server.fail_at:
            self.head(404)
            return
        sent = f"bytes {start}-{end - 1}/{len(BODY)}"
        self.head(206, Content_Length=end - start, Content_Range=sent, ETag=self.server.etag)
        self.wfile.write(BODY[start:end])

    def head(self, code: int, **headers: Any) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str | None, str | None]] = []
        self.etag, self.other = '"1"', ""
        self.fail_at: set[int] = set()
        self.changes = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: Any) -> None:
        pass  # a client that has enough hangs up


@contextmanager
def serving() -> Iterator[Server]:
    with running(Server()) as server:
        yield server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(ranges, "SEGMENT", 1000)
    with serving() as found:
        yield found


def artifact(address: str, **changes: Any) -> Artifact:
    fields = {
        "name": "weights", "address": address, "path": "w/weights.pth", "sha256": SHA256,
        "size_mb": 0.01, "licence": "MIT", "profiles": ["mini"],
    }  # fmt: skip
    return Artifact.model_validate(fields | changes)


def left(root: Path) -> set[str]:
    return {file.name for file in root.rglob("*") if file.is_file()}


def test_a_large_file_comes_in_ranges_and_is_whole(server: Server, tmp_path: Path) -> None:
    assert fetch(artifact(f"{server.address}/file"), tmp_path).read_bytes() == BODY
    asked = [wanted for _, wanted, _ in server.asked]
    assert asked[0] is None and set(asked[1:]) == {
        f"bytes={begin}-{min(begin + 1000, len(BODY)) - 1}"
        for begin in range(1000, len(BODY), 1000)
    }
    assert left(tmp_path) == {"weights.pth", "recorded.json"}


def test_a_range_that_fails_leaves_no_file_and_the_next_call_asks_for_the_rest(
    server: Server, tmp_path: Path
) -> None:
    item = artifact(f"{server.address}/file")
    server.fail_at = {5000}
    with pytest.raises(RunError, match=r"404.*run the same command again to resume"):
        fetch(item, tmp_path)
    assert (tmp_path / "w/weights.pth.part").read_bytes() == BODY[:5000]
    beside = {f.name: f.read_bytes() for f in tmp_path.glob("w/*.part.?000")}
    assert "weights.pth.part.5000" not in beside and "weights.pth" not in left(tmp_path)
    server.fail_at, before = set(), len(server.asked)
    assert fetch(item, tmp_path).read_bytes() == BODY
    again = [wanted for _, wanted, _ in server.asked[before:]]
    assert again[0] == "bytes=5000-"
    kept = [int(name.rpartition(".")[2]) for name, data in beside.items() if len(data) == 1000]
    assert not any(f"bytes={begin}-{begin + 999}" in again for begin in kept)
    assert left(tmp_path) == {"weights.pth", "recorded.json"}


def test_ranges_of_two_versions_are_never_joined(server: Server, tmp_path: Path) -> None:
    server.changes = True
    with pytest.raises(RunError, match="did it change"):
        fetch(artifact(f"{server.address}/file", sha256=None), tmp_path)
    assert "weights.pth" not in left(tmp_path)
    server.changes = False
    assert fetch(artifact(f"{server.address}/file", sha256=None), tmp_path).read_bytes() == BODY


def test_the_rest_comes_after_a_dead_address_and_the_end_lists_what_is_missing(
    server: Server, tmp_path: Path
) -> None:
    said: list[str] = []
    items = [
        artifact(f"{server.address}/gone", name="dead", path="w/dead.pth"),
        artifact(f"{server.address}/form", name="form", path="w/form", gated=True, how="ask."),
        artifact(f"{server.address}/file"),
    ]
    with pytest.raises(RunError) as error:
        fetch_all(items, tmp_path, tmp_path / "raw", said.append, Hub())
    assert (tmp_path / "w/weights.pth").read_bytes() == BODY
    message = str(error.value)
    assert (
        "dead: its address fails" in message and f"put it at {tmp_path / 'w/dead.pth'}" in message
    )
    assert "form: is fetched by hand: ask." in message
    assert said[-1] == "2 of 3 files are missing:"


def test_a_token_opens_gated_files_and_no_other_host_sees_it(
    server: Server, tmp_path: Path
) -> None:
    gated = artifact(f"{HUB}/org/gated/resolve/main/f", gated=True, how="accept the terms.")
    with serving() as storage:
        server.other = storage.address
        with pytest.raises(UserError, match="by hand: accept the terms"):
            fetch_all([gated], tmp_path, tmp_path, lambda _: None, Hub(server.address))
        assert server.asked == []
        fetch_all([gated], tmp_path, tmp_path, lambda _: None, Hub(server.address, TOKEN))
        assert server.asked[0] == ("/org/gated/resolve/main/f", None, f"Bearer {TOKEN}")
        assert storage.asked and all(token is None for _, _, token in storage.asked)
    assert (tmp_path / "w/weights.pth").read_bytes() == BODY
    elsewhere = artifact(f"{server.address}/file", path="w/other.pth")
    fetch(elsewhere, tmp_path, hub=Hub("http://127.0.0.1:9", TOKEN))
    assert server.asked[-1][2] is None


def test_a_refusal_by_the_hub_says_where_to_accept_the_terms(
    server: Server, tmp_path: Path
) -> None:
    gated = artifact(f"{HUB}/org/gated/resolve/main/f")
    with pytest.raises(RunError, match=r"401.*accept its terms at .*/org/gated with .*HF_TOKEN"):
        fetch(gated, tmp_path, hub=Hub(server.address))


def test_endpoint_and_token_are_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub = Hub.of_environment()
    assert hub == Hub("https://mirror.example", TOKEN) and TOKEN not in repr(hub)
    assert hub.address(f"{HUB}/a/b") == "https://mirror.example/a/b"
    assert hub.address("https://example.org/a") == "https://example.org/a"
