"""A headless Chromium, driven through chromedriver's own protocol: nothing to install in Python."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
DRIVER = shutil.which("chromedriver")


class Browser:
    """One window; a context manager."""

    def __init__(self, width: int = 1280, height: int = 1000) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._url = f"http://127.0.0.1:{port}"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._driver = subprocess.Popen([str(DRIVER), f"--port={port}"], **quiet)  # type: ignore[call-overload]
        try:
            self._wait()
            arguments = ["--headless=new", "--no-sandbox", "--disable-gpu"]
            arguments.append(f"--window-size={width},{height}")
            options = {"binary": CHROMIUM, "args": arguments}
            wanted = {"goog:loggingPrefs": {"browser": "ALL"}, "goog:chromeOptions": options}
            made = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        except BaseException:
            self._driver.terminate()
            self._driver.wait()
            raise
        self._session = f"/session/{made['sessionId']}"

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        try:
            self._call("DELETE", self._session)
        finally:
            self._driver.terminate()
            self._driver.wait()

    def open(self, page: Path) -> None:
        self._call("POST", f"{self._session}/url", {"url": page.resolve().as_uri()})

    def js(self, code: str, *arguments: object) -> Any:
        """Run a function body in the page and return its value."""
        body = {"script": code, "args": list(arguments)}
        return self._call("POST", f"{self._session}/execute/sync", body)

    def keys(self, *names: str) -> None:
        """Press keys, one after the other, wherever the focus is."""
        pressed = [{"type": kind, "value": name} for name in names for kind in ("keyDown", "keyUp")]
        actions = [{"type": "key", "id": "keyboard", "actions": pressed}]
        self._call("POST", f"{self._session}/actions", {"actions": actions})

    def drag(self, x: int, y: int, to_x: int, to_y: int) -> None:
        """Press at a point of the window, move, and let go."""
        moves: list[dict[str, Any]] = [
            {"type": "pointerMove", "duration": 0, "x": x, "y": y},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerMove", "duration": 50, "x": to_x, "y": to_y},
            {"type": "pointerUp", "button": 0},
        ]
        mouse = {"type": "pointer", "id": "mouse", "actions": moves}
        self._call("POST", f"{self._session}/actions", {"actions": [mouse]})

    def choose(self, selector: str, value: str) -> None:
        """Set a control, as a person would."""
        code = """const e = document.querySelector(arguments[0]);
            e.value = arguments[1]; e.dispatchEvent(new Event('input'))"""
        self.js(code, selector, value)

    def text(self, selector: str) -> str:
        """What an element says."""
        return str(self.js("return document.querySelector(arguments[0]).innerText", selector))

    def box(self, selector: str) -> tuple[int, int, int]:
        """Left, top and width of an element in the window."""
        code = """const b = document.querySelector(arguments[0]).getBoundingClientRect();
            return [b.x, b.y, b.width]"""
        x, y, width = map(int, self.js(code, selector))
        return x, y, width

    def devtools(self, command: str, **parameters: object) -> Any:
        body = {"cmd": command, "params": parameters}
        return self._call("POST", f"{self._session}/goog/cdp/execute", body)

    def until(self, code: str, seconds: float = 20.0) -> Any:
        """Wait until a function body returns something true, and return it."""
        end = time.monotonic() + seconds
        while not (value := self.js(code)):
            if time.monotonic() > end:
                raise AssertionError(f"never true: {code}")
            time.sleep(0.05)
        return value

    def log(self) -> list[dict[str, Any]]:
        """What the console has said since the last call."""
        found: list[dict[str, Any]] = self._call(
            "POST", f"{self._session}/se/log", {"type": "browser"}
        )
        return found

    def screenshot(self) -> bytes:
        return base64.b64decode(self._call("GET", f"{self._session}/screenshot"))

    def _wait(self) -> None:
        for _ in range(300):
            try:
                self._call("GET", "/status")
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
            else:
                return
        raise AssertionError("chromedriver does not answer")

    def _call(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        head = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._url + path, data, head, method=method)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]
