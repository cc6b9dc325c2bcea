"""Commands that hang, leave children behind, ask, or print without end; outputs of other names."""

from __future__ import annotations

import os
import sys
import time
import tracemalloc
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from shared.pictures import pixels

from faithdiff.data.images import write_png
from faithdiff.errors import UserError
from faithdiff.methods.external import process
from faithdiff.methods.external.process import Call, Ended, run
from faithdiff.methods.external.results import images_in, other_files, strangers, take
from faithdiff.methods.method import Item


def ran(folder: Path, python: str, minutes: float | None = None) -> Ended:
    words = [sys.executable, "-c", python]
    return run(Call(words, folder, os.environ, folder / "log.txt", minutes))


def test_a_command_that_hangs_is_ended_after_its_limit(tmp_path: Path) -> None:
    begun = time.monotonic()
    ended = ran(tmp_path, "import time; print('loading', flush=True); time.sleep(60)", 0.01)
    assert time.monotonic() - begun < 10
    assert str(ended) == "ended after its limit of 0.01 minutes: loading"
    assert not ended.left_behind


def test_a_command_that_is_silent_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(process, "_SILENT", 0.1)
    monkeypatch.setattr(process, "_LOOK", 0.05)
    assert ran(tmp_path, "import time; time.sleep(0.5)").code == 0
    said = capsys.readouterr().out
    assert "has printed nothing for" in said and "`minutes`" in said and "log.txt" in said


def test_children_that_outlive_a_command_are_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_GRACE", 0.1)
    child = "import time; time.sleep(60)"
    ended = ran(
        tmp_path,
        f"import subprocess as s, sys; print(s.Popen([sys.executable, '-c', {child!r}]).pid)",
    )
    assert (ended.code, ended.left_behind) == (0, True)
    state = Path("/proc", ended.last_line, "stat")
    deadline = time.monotonic() + 5
    while state.exists() and " Z " not in state.read_text() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not state.exists() or " Z " in state.read_text()


def test_children_that_end_by_themselves_are_nothing_to_tell(tmp_path: Path) -> None:
    child = "import time; time.sleep(0.3)"
    ended = ran(
        tmp_path, f"import subprocess as s, sys; s.Popen([sys.executable, '-c', {child!r}])"
    )
    assert (ended.code, ended.left_behind) == (0, False)


@pytest.mark.parametrize("asks", ["input('Overwrite? ')", "open('/dev/tty')"])
def test_a_command_that_asks_fails_at_once_and_says_why(tmp_path: Path, asks: str) -> None:
    ended = ran(tmp_path, asks)
    assert ended.code == 1
    assert str(ended).startswith("it can ask nothing, as it has no terminal: exit code 1: ")


def test_of_a_log_without_end_the_last_line_is_told(tmp_path: Path) -> None:
    tracemalloc.start()
    ended = ran(tmp_path, "for _ in range(300): print('x' * 100_000); \nprint('out of memory')")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "log.txt").stat().st_size > 30_000_000
    assert ended.last_line == "out of memory"
    assert peak < 5_000_000


# --- Outputs --------------------------------------------------------------------------------------


def items(folder: Path, *names: str) -> list[Item]:
    for number, name in enumerate(names):
        write_png(pixels(6, 8, number), folder / "lq" / f"{name}.png")
    return [Item(name, folder / "lq" / f"{name}.png", "", "", 0, name) for name in names]


@pytest.mark.parametrize("pattern", ["{}_out", "restored-{}"])
def test_what_every_output_has_more_in_its_name_is_told(tmp_path: Path, pattern: str) -> None:
    asked = items(tmp_path, "1", "12", "cat")
    for item in asked:
        write_png(pixels(12, 16), tmp_path / "out" / f"{pattern.format(item.name)}.png")
    said = strangers(images_in(tmp_path / "out", asked), asked)
    assert "(3 such)" in said and repr(pattern.format("")) in said


def test_a_misspelt_output_is_told_with_the_closest_name(tmp_path: Path) -> None:
    asked = items(tmp_path, "baboon", "zebra")
    write_png(pixels(12, 16), tmp_path / "out" / "babon.png")
    write_png(pixels(12, 16), tmp_path / "out" / "zebra.png")
    assert "(did you mean 'baboon'?)" in strangers(images_in(tmp_path / "out", asked), asked)


@pytest.mark.parametrize(("given", "form"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_in_other_code_points_are_the_same(tmp_path: Path, given: str, form: str) -> None:
    asked = items(tmp_path, unicodedata.normalize(given, "Zürich é"))  # type: ignore[arg-type]
    write_png(pixels(12, 16), tmp_path / "out" / f"{unicodedata.normalize(form, 'Zürich é')}.png")  # type: ignore[arg-type]
    found = images_in(tmp_path / "out", asked)
    assert strangers(found, asked) == ""
    assert take(found, asked, 2, lambda *_: None, "absent") == {}


def test_outputs_in_a_folder_or_format_of_their_own_are_told(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_png(pixels(12, 16), out / "results" / "cat.png")
    assert other_files(out).startswith("; but results/cat.png (1 such): results belong directly")
    (out / "cat.npy").write_bytes(b"numbers")
    assert other_files(out) == "; but cat.npy (no format of images)"


def test_two_outputs_of_one_image_are_refused_by_name(tmp_path: Path) -> None:
    asked = items(tmp_path, "cat")
    for suffix in ("png", "webp"):
        write_png(pixels(12, 16), tmp_path / "out" / f"cat.{suffix}")
    with pytest.raises(UserError, match=r"cat\.png and cat\.webp share the name 'cat'"):
        images_in(tmp_path / "out", asked)


def test_one_colour_throughout_is_told_and_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = items(tmp_path, "cat", "dog", "sky")
    for item in asked:
        write_png(np.zeros((12, 16, 3), np.uint8), tmp_path / "out" / f"{item.name}.png")
    write_png(np.full((6, 8, 3), 7, np.uint8), asked[2].lq)  # it has one colour from the start
    kept: list[str] = []
    found = images_in(tmp_path / "out", asked)
    assert take(found, asked, 2, lambda item, _: kept.append(item.name), "absent") == {}
    assert kept == ["cat", "dog", "sky"]
    assert "cat.png (and 1 more): has one colour" in capsys.readouterr().err
