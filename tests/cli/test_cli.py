"""The command line: help that helps, and one clear message with exit code 2 for a user's error."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from shared import ROOT
from typer.testing import CliRunner

from faithdiff import cli
from faithdiff.cli.terminal import write_on_any_terminal

COMMANDS = sorted(typer.main.get_command(cli.app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example_of_itself(command: str) -> None:
    result = CliRunner().invoke(cli.app, [command, "--help"])
    assert result.exit_code == 0
    assert f"Example: faithdiff {command}" in " ".join(result.output.split())


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; import faithdiff.cli; "
        "print(sorted({'torch', 'diffusers', 'pandas', 'pyiqa', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["train", "--method", "frozn"],
            "'frozn' is not one of realesrgan, diffbir, ",
        ),
        (["prepare", "--dataset", "Photo"], "'Photo' is not one of Photos, Scenes, train, prior"),
        (["degrade", "--dataset", "Photos", "--level", "IV"], "'IV' is not one of I, II, III"),
        (["score", "--method", "bicubc"], "'bicubc' is not one of bicubic, realesrgan-x4plus"),
        (["score", "--method", "bicubic", "--config", "config/none.yaml"], "config/none.yaml"),
        (["fetch", "--weights", "lpip"], "--weights: 'lpip' is not one of psnr, ssim"),
        (
            ["fetch", "--dataset", "prior", "--weights", "lpips"],
            "--dataset fetches photographs alone",
        ),
        (["tables", "--config", "mini"], "mini: cannot be read (No such file or directory); did"),
        (["tables", "--config", "lab.yaml"], "did you mean config/lab.yaml?"),
        (
            ["explain", "main", "FaithDiff", "PSNR", "--config", "config/lab.yaml"],
            "--config: is no option of faithdiff explain; give --profile lab\n",
        ),
        (["audit", "--config", "profile=lab"], "faithdiff audit; give --profile lab\n"),
        (["audit", "-c", "--metric", "PSNR"], "-c: is no option of faithdiff audit; give --pro"),
        (["audit", "--config=config/lab.yaml"], "faithdiff audit; give --profile lab\n"),
        (
            ["tables", "--profile", "lab"],
            "--profile: is no option of faithdiff tables; give --config config/lab.yaml\n",
        ),
    ],
)
def test_user_errors_exit_with_2_and_one_message(
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["faithdiff", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--output", "", "a.png"], "--output: has an empty word"),
        (["--output=", "a.png"], "--output: has an empty word"),
        (["--output", "out", ""], "restore: has an empty word"),
        (["--progressive", "", "--output", "out"], "restore: has an empty word"),
        (["--output", "out", "-a.png"], "-a.png: is taken for an option; the file of this name is"),
        (["--output", "out", "--caption", "", "b.png"], "none/run.json: is missing"),
        (["--output", "out", "--", "-a.png"], "none/run.json: is missing"),
    ],
)
def test_words_that_would_be_taken_for_something_else_are_refused(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-a.png").touch()
    monkeypatch.setattr(sys, "argv", ["faithdiff", "restore", "--checkpoint", "none", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert said in capsys.readouterr().err
    assert [file.name for file in Path().iterdir()] == ["-a.png"]


def test_commands_that_the_documentation_names_exist() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    named = set(re.findall(r"\bfaithdiff ([a-z][a-z-]+)", text)) & set(
        re.findall(r"(?m)(?:^|&& )faithdiff ([a-z][a-z-]+)", text)
    )
    assert {"restore", "fetch", "tables", "figures"} <= named <= set(COMMANDS)
    targets = set(re.findall(r"(?m)^make ([a-z-]+)", text))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets
    assert all(re.search(rf"(?m)^{target}:", makefile) for target in targets)


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("ascii", r"PSNR ^ -2.15 +-0.1, caf\xe9 \u5b57 \udce9"),
        ("latin-1", r"PSNR ^ -2.15 ±0.1, café \u5b57 \udce9"),
        ("utf-8", r"PSNR ↑ −2.15 ±0.1, café 字 \udce9"),
    ],
)
def test_a_terminal_shows_what_it_can(encoding: str, shown: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    write_on_any_terminal(stream)
    print("PSNR ↑ −2.15 ±0.1, café 字 \udce9", file=stream, end="", flush=True)
    assert stream.buffer.getvalue().decode(encoding) == shown


def test_the_command_line_prints_its_tables_on_an_ascii_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["faithdiff", "table", "main"])
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code in (None, 0)
    sys.stdout.flush()
    assert b"PSNR ^" in sys.stdout.buffer.getvalue()
