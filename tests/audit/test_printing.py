"""Reports as text, Markdown, JSON and HTML, and where they are written."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from shared.audited import World, run_main
from typer.testing import CliRunner

from faithdiff import cli
from faithdiff.audit.printing import to_html, to_markdown, to_terminal
from faithdiff.audit.sections import AuditSection, sections
from faithdiff.errors import UserError


@pytest.fixture(scope="module")
def printed(world: World) -> list[AuditSection]:
    return sections(world.audit("first", "worse"))


def test_markdown_is_a_comment_that_names_nobody(printed: list[AuditSection]) -> None:
    text = to_markdown(printed)
    assert len(text) < 65_536
    assert "| better | faithdiff | all sets and levels | PSNR ↑ |" in text
    assert "@someone" not in text
    assert re.search(r"#\d", text) is None
    for line in text.splitlines():
        if line.startswith("| "):
            assert line.count("|") in (7, 8, 9, 11), line


def test_markdown_beyond_the_limit_is_cut_and_says_so(printed: list[AuditSection]) -> None:
    long = [*printed, AuditSection("More", [], ("a", "b"), [("x" * 80, "y")] * 2000)]
    text = to_markdown(long)
    assert len(text) < 65_536
    assert "**Cut here**" in text[-400:]
    lines = re.search(r"(\d+) more lines", text)
    assert lines is not None
    assert int(lines.group(1)) + text.count("\n") > 2000
    assert len(to_markdown(long, limit=4_000)) < 4_000


def test_html_needs_nothing_beside_it_and_escapes_names(world: World) -> None:
    bad = AuditSection("<script>alert(1)</script>", ["a & b"], ("x",), [('"><img src=x>',)])
    text = to_html("t", [*sections(world.audit("first", "sharper", crops=True)), bad])
    assert "<script" not in text
    assert "<img src=x" not in text
    assert "a &amp; b" in text
    assert 'src="data:image/png;base64,' in text
    assert not re.search(r"""(?:src|href)="(?!data:)""", text)


def test_the_terminal_prints_no_control_characters() -> None:
    text = to_terminal([AuditSection("T", ["\x1b[31mred"], ("a",), [("x\x07",)])])
    assert "\x1b" not in text
    assert "\x07" not in text


def test_only_changed_leaves_out_the_rest(world: World) -> None:
    found = world.audit("first", "sharper")
    verdicts = {row[0] for row in sections(found, only_changed=True)[-1].rows}
    assert verdicts == {"better"}
    assert {row[0] for row in sections(found)[-1].rows} == {"better", "identical", "no value"}


@pytest.mark.parametrize("form", ["terminal", "markdown", "json", "html"])
def test_every_format_is_written_with_its_exit_code(
    world: World, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world.root)
    for arguments, code in ((["first", "sharper"], 0), (["sharper", "worse"], 1)):
        output = tmp_path / f"report.{form}"
        command = ["audit", *arguments, "--profile", "tiny", "--format", form, "--output",
                   str(output), "--pictures", str(tmp_path / "pictures")]  # fmt: skip
        result = CliRunner().invoke(cli.app, command)
        assert result.exit_code == code, result.output
        text = output.read_text("utf-8")
        assert "faithdiff" in text
        if form == "json":
            data = json.loads(text)
            assert data["exit_code"] == code
            assert {c["verdict"] for c in data["cells"]} >= {"identical", "no value"}
    assert form == "json" or list((tmp_path / "pictures").glob("*.png"))


def test_a_report_takes_the_place_of_a_report_alone(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world.root)
    output = tmp_path / "report"
    output.touch()  # as `mktemp` leaves it
    for form in ("terminal", "markdown", "json", "html", "terminal"):
        for more in (["first", "sharper"], ["--history", "2"]):
            call = ["audit", *more, "--profile", "tiny", "--format", form, "--output", str(output)]
            before = output.read_bytes()
            assert CliRunner().invoke(cli.app, call).exit_code == 0
            assert output.read_bytes() != before
    profile = Path("config/tiny.yaml")
    text = profile.read_bytes()
    result = CliRunner().invoke(cli.app, ["audit", "--profile", "tiny", "--output", str(profile)])
    assert isinstance(result.exception, UserError)
    assert "is no report that `faithdiff audit` wrote; give another" in str(result.exception)
    assert profile.read_bytes() == text


def test_a_report_that_cannot_be_written_is_no_regression(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["audit", "--profile", "tiny", "--output", "config/tiny.yaml/report.md"]
    assert "cannot be written" in run_main(command, world, monkeypatch, capsys)
