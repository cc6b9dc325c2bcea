"""Progress: a bar on a terminal, and lines in a file that a person can read afterwards."""

from __future__ import annotations

import io

import pytest

from faithdiff.study import progress
from faithdiff.study.progress import ProgressBar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def steps(file: io.StringIO) -> str:
    for _ in ProgressBar(range(20), "train", unit="step", file=file, mininterval=0):
        pass
    return file.getvalue()


def test_a_terminal_gets_a_bar() -> None:
    assert steps(Terminal()).count("\r") > 10


def test_a_log_file_gets_a_line_at_the_start_and_one_at_the_end() -> None:
    first, last = steps(io.StringIO()).splitlines()
    assert first.startswith("train:   0%") and last.startswith("train: 100%")


def test_a_long_work_says_so_from_time_to_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS", 0)
    text = steps(io.StringIO())
    assert "\r" not in text and len(text.splitlines()) > 10
