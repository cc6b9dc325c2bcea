"""`make bench-peers`: what it measures runs, and docs/benchmark.md holds what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from shared import ROOT

from faithdiff.errors import RunError, UserError
from faithdiff.methods.method import Study
from faithdiff.planning.peers.pixels import degradation
from faithdiff.planning.peers.record import (
    BEGIN,
    END,
    PEERS,
    PeerRecord,
    SideBySide,
    command_seconds,
    duration,
    in_turns,
    write,
)
from faithdiff.planning.peers.tables import audits

ONE = SideBySide(
    kind=PEERS, what="a sum", ours="here", theirs="there", ours_seconds=0.01, theirs_seconds=0.02,
    agreement="equal", note="why",
)  # fmt: skip


def test_the_page_is_written_from_the_record() -> None:
    measured = PeerRecord.read(ROOT / "docs" / "benchmark.json")
    page = (ROOT / "docs" / "benchmark.md").read_text("utf-8")
    assert f"{BEGIN}\n{measured.page()}\n{END}" in page


def test_only_the_section_of_the_page_is_written(tmp_path: Path) -> None:
    page, record = tmp_path / "page.md", tmp_path / "record.json"
    measured = PeerRecord(machine="one", repetitions=3, packages={"a": "1"}, comparisons=[ONE])
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", "utf-8")
    write(measured, record, page)
    text = page.read_text("utf-8")
    assert text.startswith(f"before\n{BEGIN}\n") and text.endswith(f"{END}\nafter\n")
    assert "old" not in text
    assert "| a sum | here, 10 ms | there, 20 ms | 2.00 | equal | why |" in text
    assert PeerRecord.read(record) == measured
    page.write_text("no section", "utf-8")
    with pytest.raises(UserError, match="has no section between"):
        write(measured, record, page)


def test_what_was_not_run_has_no_ratio() -> None:
    assert "| there | not run |" in ONE.model_copy(update={"theirs_seconds": None}).row()


def test_ways_are_timed_in_turns() -> None:
    called: list[int] = []
    spent = in_turns([lambda: called.append(0), lambda: called.append(1)], 2)
    assert called == [0, 1] * 3
    assert all(seconds >= 0 for seconds in spent)
    assert (duration(0.0123), duration(2.5)) == ("12.3 ms", "2.5 s")


def test_a_command_that_did_not_do_its_work_is_an_error(tmp_path: Path) -> None:
    assert command_seconds(["echo", "all of it"], tmp_path, "all of it") >= 0
    with pytest.raises(RunError, match="echo ended with 0"):
        command_seconds(["echo", "nothing"], tmp_path, "all of it")


def test_a_few_numbers_are_compared_by_audit_and_dvc(tmp_path: Path) -> None:
    found = list(audits(1, 2, tmp_path, ROOT, asv=None))
    assert [one.theirs_seconds is None for one in found] == [False, True]


def test_an_image_is_degraded_by_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (found,) = degradation(Study.whole(Path("config/mini.yaml")), 1, 1, tmp_path)
    assert found.ours_seconds > 0
    assert found.theirs_seconds is not None
