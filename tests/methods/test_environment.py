"""How each tool makes an environment of a method: the commands, on fakes of the tools."""

from __future__ import annotations

from pathlib import Path

import pytest

from faithdiff.methods.external import environment
from faithdiff.methods.external.environment import Environment

LOCK = """numpy==1.26.4
    # via torch
setuptools==80.9.0
    # via -r x.in
six==1.17.0
torch @ https://example.org/torch-2.0.1%2Bcu118-cp310-cp310-linux_x86_64.whl
"""


def commands(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: str, *tools: str
) -> list[list[str]]:
    """What is called to make an environment of a file where these tools are installed."""
    called: list[list[str]] = []
    monkeypatch.setattr(environment, "_call", called.append)
    monkeypatch.setattr(
        environment.shutil, "which", lambda tool: f"/bin/{tool}" if tool in tools else None
    )
    (tmp_path / file).write_text(LOCK if file.endswith(".lock") else "six\n")
    Environment(tmp_path / file, "3.10", tmp_path / "made").make()
    return called


@pytest.mark.parametrize(
    ("file", "tool"),
    [("a.txt", "uv"), ("a.txt", "python3.10"), ("a.yml", "micromamba"), ("a.yml", "conda")],
)
def test_setuptools_with_pkg_resources_however_it_is_made(
    file: str, tool: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    called = commands(monkeypatch, tmp_path, file, tool)
    assert any(command[-1] == "setuptools<81" and "install" in command for command in called)


@pytest.mark.parametrize("tool", ["uv", "python3.10"])
def test_a_lock_is_installed_as_it_is_after_what_builds_its_sources(
    tool: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, first, rest = commands(monkeypatch, tmp_path, "a.lock", tool)
    wheel = "https://example.org/torch-2.0.1%2Bcu118-cp310-cp310-linux_x86_64.whl"
    assert first[first.index("--constraint") + 2 :] == [
        "numpy==1.26.4",
        "setuptools==80.9.0",
        f"torch @ {wheel}",
    ]
    assert {"--no-deps", "--no-build-isolation"} <= set(rest)
    assert rest[-2:] == ["-r", str(tmp_path / "a.lock")]
