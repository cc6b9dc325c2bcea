"""What a network can do to a download; test_artifacts and test_fetch have the good transfers."""

from __future__ import annotations

import email.utils
import gc
import hashlib
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared.loopback import running

from faithdiff.data import download
from faithdiff.data.artifacts import Artifact, state
from faithdiff.data.download import fetch
from faithdiff.data.fetch import fetch_all
from faithdiff.errors import RunError

BODY = bytes(range(256)) * 40
SHA256 = hashlib.sha256(BODY).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Answers as the test says; by default as a good server does."""

    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.headers.get("Range"))
        self.server.answer(self)

    def good(self, cut: int | None = None, **headers: str) -> None:
        """The bytes asked for, up to `cut` of them; `headers` replace those of a good answer."""
        wanted = self.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if start >= len(BODY):
            self.send_error(416)
            return
        usual = {"Content-Length": str(len(BODY) - start), "ETag": '"1"'}
        if wanted:
            usual["Content-Range"] = f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"
        self.head(
            206 if wanted else 200, usual | {k.replace("_", "-"): v for k, v in headers.items()}
        )
        self.wfile.write(BODY[start:][:cut])

    def head(self, code: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, answer: Callable[[Handler], None]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer, self.scheme = answer, "http"
        self.asked: list[str | None] = []

    @property
    def address(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}/weights.pth"

    def handle_error(self, *_: Any) -> None:
        pass  # a client that hangs up is what some tests do


@contextmanager
def serving(
    answer: Callable[[Handler], None], context: ssl.SSLContext | None = None
) -> Iterator[Server]:
    server = Server(answer)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.scheme = "https"
    with running(server):
        yield server


def artifact(server: Server, **changes: Any) -> Artifact:
    fields = {
        "name": "weights", "address": server.address, "path": "hub/weights.pth", "sha256": SHA256,
        "size_mb": 0.01, "licence": "MIT", "profiles": ["mini"],
    }  # fmt: skip
    return Artifact.model_validate(fields | changes)


def final(root: Path) -> Path:
    return root / "hub/weights.pth"


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that a download would have slept."""
    slept: list[float] = []
    monkeypatch.setattr(download.time, "sleep", slept.append)
    return slept


# --- Cut, slow, of the wrong length ---------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, len(BODY) - 1), min_size=1, max_size=4))
def test_cut_at_any_byte_any_number_of_times_it_is_whole_in_the_end(
    cuts: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root, left, said = tmp_path_factory.mktemp("cut"), list(cuts), []
    with serving(lambda handler: handler.good(left.pop() if left else None)) as server:
        for _ in range(len(cuts) + 1):
            try:
                fetch(artifact(server), root)
            except RunError as error:
                said.append(str(error))
                assert not final(root).exists()
        assert final(root).read_bytes() == BODY
    assert all("run the same command again" in message for message in said)
    left_over = {file.name for file in root.rglob("*") if file.is_file()}
    assert left_over == {"weights.pth", "recorded.json"}


def test_a_chunked_answer_that_breaks_off_is_no_file(tmp_path: Path) -> None:
    def chunked(handler: Handler) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.head(200, {"Transfer-Encoding": "chunked"})
        handler.wfile.write(b"800\r\n" + BODY[:0x800] + b"\r\n400\r\n" + BODY[:0x100])
        handler.close_connection = True

    with serving(chunked) as server, pytest.raises(RunError, match="again to resume"):
        fetch(artifact(server, sha256=None), tmp_path)
    assert not final(tmp_path).exists()


def test_a_drip_ends_with_a_message_and_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_WINDOW", 0.3)

    def drip(handler: Handler) -> None:
        handler.head(200, {"Content-Length": str(len(BODY)), "ETag": '"1"'})
        for byte in BODY:
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()
            time.sleep(0.02)

    with serving(drip) as server:
        begun = time.monotonic()
        with pytest.raises(RunError, match=r"less than 100 bytes/s for 0\.3 s; .*again to resume"):
            fetch(artifact(server), tmp_path)
        assert time.monotonic() - begun < 5
        assert not final(tmp_path).exists()
        server.answer = Handler.good
        fetch(artifact(server), tmp_path)
        assert server.asked[1] is not None and server.asked[1] > "bytes=0-"
    assert final(tmp_path).read_bytes() == BODY


def test_a_server_that_goes_silent_is_given_up(tmp_path: Path) -> None:
    silent = threading.Event()

    def half(handler: Handler) -> None:
        handler.good(5000)
        handler.wfile.flush()
        silent.wait(20)

    def opener(request: urllib.request.Request) -> Any:
        return urllib.request.urlopen(request, timeout=0.3)

    with serving(half) as server:
        with pytest.raises(RunError, match="timed out; run the same command again to resume"):
            fetch(artifact(server), tmp_path, opener)
        silent.set()
        assert not final(tmp_path).exists()
        server.answer = Handler.good
        fetch(artifact(server), tmp_path)
        assert server.asked == [None, "bytes=5000-"]
    assert final(tmp_path).read_bytes() == BODY


@pytest.mark.parametrize("length", [str(len(BODY) - 100), "nonsense", "-5", ""])
def test_a_wrong_length_never_makes_a_wrong_file(tmp_path: Path, length: str) -> None:
    with serving(lambda handler: handler.good(Content_Length=length)) as server:
        if length.isdigit():
            with pytest.raises(RunError, match=f"expected {SHA256}; deleted"):
                fetch(artifact(server), tmp_path)
            assert not [file for file in tmp_path.rglob("*") if file.is_file()]
        else:  # to the end of the connection; the hash decides
            assert fetch(artifact(server), tmp_path).read_bytes() == BODY


def test_a_length_beyond_the_content_is_a_transfer_that_ended_early(tmp_path: Path) -> None:
    said = f"ended after {len(BODY)} of {len(BODY) + 9} bytes"
    with (
        serving(lambda handler: handler.good(Content_Length=str(len(BODY) + 9))) as server,
        pytest.raises(RunError, match=said),
    ):
        fetch(artifact(server), tmp_path)
    assert state(artifact(server), tmp_path) == "missing"


def test_another_range_than_asked_for_is_not_appended(tmp_path: Path) -> None:
    with serving(lambda handler: handler.good(3000)) as server:
        with pytest.raises(RunError):
            fetch(artifact(server, sha256=None), tmp_path)
        other = f"bytes 5000-{len(BODY) - 1}/{len(BODY)}"
        server.answer = lambda handler: handler.good(Content_Range=other)
        with pytest.raises(
            RunError, match=r"sends 'bytes 5000-.* where bytes 3000- were asked for"
        ):
            fetch(artifact(server, sha256=None), tmp_path)
        assert not final(tmp_path).exists()
        server.answer = Handler.good
        assert fetch(artifact(server, sha256=None), tmp_path).read_bytes() == BODY


# --- Answers that are no file ---------------------------------------------------------------------


def answers(*codes: int, **headers: str) -> Callable[[Handler], None]:
    """These codes in turn, then the file."""
    left = list(codes)

    def answer(handler: Handler) -> None:
        if left:
            handler.head(left.pop(0), {k.replace("_", "-"): v for k, v in headers.items()})
        else:
            handler.good()

    return answer


def test_too_many_requests_waits_as_long_as_it_is_told(tmp_path: Path) -> None:
    with serving(answers(429, Retry_After="1")) as server:
        begun = time.monotonic()
        assert fetch(artifact(server), tmp_path).read_bytes() == BODY
        assert 0.9 < time.monotonic() - begun < 5
        assert len(server.asked) == 2


def test_a_date_to_come_back_at_is_understood(tmp_path: Path, waits: list[float]) -> None:
    soon = email.utils.formatdate(time.time() + 30, usegmt=True)
    with serving(answers(503, Retry_After=soon)) as server:
        fetch(artifact(server), tmp_path)
    assert len(waits) == 1 and 20 < waits[0] <= 31


def test_a_long_wait_is_left_to_the_person(tmp_path: Path, waits: list[float]) -> None:
    with serving(answers(429, 429, Retry_After="86400")) as server:
        with pytest.raises(RunError, match=r"HTTP Error 429.*Retry-After: 86400") as error:
            fetch(artifact(server), tmp_path)
        assert len(server.asked) == 1
    assert waits == [] and "run the same command again" in str(error.value)
    assert not final(tmp_path).exists()


@pytest.mark.parametrize("code", [500, 502, 503, 504])
def test_a_server_that_recovers_is_asked_again(
    tmp_path: Path, waits: list[float], code: int
) -> None:
    with serving(answers(code, code, code)) as server:
        assert fetch(artifact(server), tmp_path).read_bytes() == BODY
    assert waits == [1, 2, 4]


def test_a_server_that_does_not_recover_is_named(tmp_path: Path, waits: list[float]) -> None:
    with serving(lambda handler: handler.head(500, {})) as server:
        with pytest.raises(RunError) as error:
            fetch(artifact(server), tmp_path)
        assert len(server.asked) == 5
    assert f"{server.address}: answers HTTP Error 500" in str(error.value)
    assert f"put it at {final(tmp_path)}" in str(error.value)


def test_a_missing_file_is_not_asked_for_again(tmp_path: Path, waits: list[float]) -> None:
    with serving(lambda handler: handler.head(404, {})) as server:
        with pytest.raises(RunError, match="HTTP Error 404"):
            fetch(artifact(server), tmp_path)
        assert len(server.asked) == 1 and waits == []


# urllib leaves the connection to the garbage collector where it cannot parse the redirect.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "target", ["/weights.pth", "/other", "file:///etc/passwd", "ftp://x/", "//["]
)
def test_redirects_that_lead_nowhere_are_one_message(tmp_path: Path, target: str) -> None:
    with (
        serving(lambda handler: handler.head(302, {"Location": target})) as server,
        pytest.raises(RunError) as error,
    ):
        fetch(artifact(server), tmp_path)
    gc.collect()
    lines = str(error.value).splitlines()
    assert len(lines) == 3 and lines[1].startswith(f"  {server.address}: ")
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_a_redirect_to_the_file_is_followed_and_resumed(tmp_path: Path) -> None:
    cut = [4000, None]

    def moved(handler: Handler) -> None:
        if handler.path == "/weights.pth":
            handler.head(301, {"Location": "/elsewhere"})
        else:
            handler.good(cut.pop(0))

    with serving(moved) as server:
        with pytest.raises(RunError, match="ended after 4000"):
            fetch(artifact(server), tmp_path)
        assert fetch(artifact(server), tmp_path).read_bytes() == BODY
        assert server.asked[-1] == "bytes=4000-"


def test_one_file_that_fails_keeps_those_that_came(tmp_path: Path) -> None:
    with serving(lambda h: h.good() if h.path == "/weights.pth" else h.head(404, {})) as server:
        good = artifact(server)
        bad = artifact(server, name="bad", address=server.address + ".gone", path="hub/bad.pth")
        with pytest.raises(RunError, match=r"^bad: its address fails"):
            fetch_all([good, bad], tmp_path, tmp_path / "raw", lambda _: None)
    assert final(tmp_path).read_bytes() == BODY
    assert {file.name for file in tmp_path.rglob("*") if file.is_file()} == {
        "weights.pth", "recorded.json",
    }  # fmt: skip


# --- Certificates ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("days", "host", "said"),
    [(-1, "127.0.0.1", "expired"), (30, "example.org", "not valid for"), (30, None, "self-signed")],
)
def test_a_certificate_that_cannot_be_trusted_gives_no_file(
    tmp_path: Path, days: int, host: str | None, said: str
) -> None:
    file = certificate(tmp_path / "server.pem", days, host or "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    # Known as an authority, but in the last case: only what is wrong is wrong.
    client = ssl.create_default_context(cafile=str(file) if host else None)

    def opener(request: urllib.request.Request) -> Any:
        return urllib.request.urlopen(request, timeout=5, context=client)

    with serving(Handler.good, context) as server:
        with pytest.raises(RunError, match=rf"CERTIFICATE_VERIFY_FAILED.*{said}") as error:
            fetch(artifact(server), tmp_path, opener)
        assert server.asked == []
    assert f"put it at {final(tmp_path)}" in str(error.value)
    assert not list(tmp_path.rglob("*.pth*"))


def certificate(file: Path, days: int, host: str) -> Path:
    """A self-signed certificate with its key that ends in so many days."""
    pytest.importorskip("cryptography", reason="makes the certificate of the loopback server")
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    plain = host[0].isdigit()
    alias = x509.IPAddress(ipaddress.ip_address(host)) if plain else x509.DNSName(host)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(end - datetime.timedelta(days=60))
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName([alias]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file
