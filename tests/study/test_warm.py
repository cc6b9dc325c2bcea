"""Jobs forked from a warm process behave as processes of their own."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import typer
from shared import ROOT

from faithdiff.cli import app
from faithdiff.study import warm
from faithdiff.study.provenance import closure

# A warm process whose children do what their first argument says, and a command that asks it.
SERVER = """
import sys, time
from pathlib import Path
from faithdiff.study import warm
child = warm.serve(Path(sys.argv[1]))
child.do(lambda: exec(sys.argv[1]))
"""
COMMAND = """
import sys
from faithdiff.study import warm
code = warm.ask()
sys.exit("by itself" if code is None else code)
"""
# Of one phase of a test: what both processes have is the environment of neither.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    address = tmp_path / "warm" / "socket"
    address.parent.mkdir()
    command = [sys.executable, "-c", SERVER, str(address)]
    environment = {**ENVIRONMENT, "PYTHONPATH": str(ROOT), warm.VARIABLE: str(address)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment) as process:
        _wait_for(address.exists)
        yield process
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=30) == 0
    assert not address.parent.exists()


@pytest.fixture
def start(server: "subprocess.Popen[bytes]", tmp_path: Path) -> Iterator[Start]:
    started = []

    def run(
        work: str, on_ctrl_c: signal.Handlers = signal.SIG_DFL, **more: str
    ) -> "subprocess.Popen[str]":
        known = {"PYTHONPATH": str(ROOT), warm.VARIABLE: str(tmp_path / "warm" / "socket")}
        command = [sys.executable, "-c", COMMAND, work]
        process = subprocess.Popen(
            command,
            env={**ENVIRONMENT, **known, **more},
            cwd=tmp_path,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, on_ctrl_c),
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def _wait_for(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("work", "code", "out", "err"),
    [
        ("print('done')", 0, "done\n", ""),
        ("sys.exit(75)", 75, "", ""),
        ("sys.exit()", 0, "", ""),
        ("1 / 0", 1, "", "ZeroDivisionError"),
        ("print(sys.stdin.read())", 0, "typed\n", ""),
        ("print(Path.cwd().name)", 0, "test_", ""),
        ("import atexit; atexit.register(print, 'last')", 0, "last\n", ""),
        ("import os; os.kill(os.getpid(), 9)", warm.KILLED, "", "was killed"),
    ],
)
def test_a_child_ends_as_a_process_of_its_own(
    start: Start, work: str, code: int, out: str, err: str
) -> None:
    process = start(work)
    printed, errors = process.communicate("typed", timeout=60)
    assert process.returncode == code, errors
    assert printed.startswith(out)
    assert err in errors


def test_a_child_has_the_environment_of_its_command(start: Start) -> None:
    work = f"import os; print(os.environ[{warm.LOG!r}])"
    printed, _ = start(work, **{warm.LOG: "logs/a.log"}).communicate(timeout=60)
    assert printed == "logs/a.log\n"


def test_another_environment_is_refused(start: Start) -> None:
    # Modules may have read the variable while they were imported for the first command.
    assert start("print('done')").communicate(timeout=60) == ("done\n", "")
    process = start("print('done')", HF_HOME="elsewhere")
    printed, errors = process.communicate(timeout=60)
    assert (printed, errors) == ("", "by itself\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_the_child(start: Start, number: signal.Signals) -> None:
    work = (
        "import signal; signal.signal({0}, lambda *_: sys.exit(7)); print('up', flush=True); "
        "time.sleep(60)"
    )
    process = start(work.format(int(number)))
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(number)
    assert process.wait(timeout=30) == 7


def test_a_signal_that_the_command_ignores_does_not_reach_the_child(start: Start) -> None:
    process = start("print('up', flush=True); time.sleep(1); print('done')", signal.SIG_IGN)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[0] == "done\n" and process.returncode == 0


def test_a_child_dies_with_its_command(start: Start, tmp_path: Path) -> None:
    process = start("import os; print(os.getpid(), flush=True); time.sleep(60)")
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.kill()
    _wait_for(lambda: not Path("/proc", str(child), "cmdline").exists())


def test_what_is_imported_for_a_verb_is_there_and_the_verb_is_known() -> None:
    # A name that is wrong here would only make each job start by itself, and nobody would see it.
    group = typer.main.get_command(app)
    for verb, modules in warm._IMPORTS.items():
        assert verb in group.commands  # type: ignore[attr-defined]
        assert closure(*modules)  # raises where one is missing


def test_without_a_warm_process_a_command_runs_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(warm.VARIABLE, str(tmp_path / "gone"))
    assert warm.ask() is None
    monkeypatch.delenv(warm.VARIABLE)
    assert warm.ask() is None


def test_an_edited_module_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    states: dict[str, tuple[int, int]] = {}
    monkeypatch.setattr(warm, "_states", states)
    assert warm._unchanged()
    assert warm._unchanged()
    states[warm.__file__] = (0, 0)
    assert not warm._unchanged()


def test_the_command_line_answers_alike_when_it_is_forked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    command = [sys.executable, "-m", "faithdiff", "collect", "--config", "config/none.yaml"]
    alone = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    monkeypatch.setattr(warm, "_held", held := [])
    monkeypatch.setenv(warm.VARIABLE, "")
    warm.start()
    address = Path(os.environ[warm.VARIABLE])
    _wait_for(address.exists)
    try:
        forked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    finally:
        held[0].stdin.close()
        held[0].wait()
    assert alone.returncode == 2
    assert (alone.returncode, alone.stdout, alone.stderr) == (
        forked.returncode,
        forked.stdout,
        forked.stderr,
    )


def test_the_code_of_another_folder_is_not_run(start: Start, tmp_path: Path) -> None:
    # Two copies of the suite, one environment: a job alone takes what is installed.
    for package in ("faithdiff", "faithdiff/study"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "faithdiff/study/warm.py").write_bytes(Path(warm.__file__).read_bytes())
    # The command is run in that folder, and finds its copy first.
    printed, errors = start("print('done')").communicate(timeout=60)
    assert (printed, errors) == ("", "by itself\n")


def test_the_current_folder_does_not_come_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "faithdiff").mkdir()
    (tmp_path / "faithdiff" / "__init__.py").touch()
    (tmp_path / "faithdiff" / "__main__.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    _start_and_end(monkeypatch)


@pytest.mark.parametrize("length", [20, 120])
def test_temporary_folders_with_long_names_serve(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, length: int
) -> None:
    folder = tmp_path / ("x" * length)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    _start_and_end(monkeypatch)
    assert not list(folder.iterdir())


def _start_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start a warm process, wait until it listens, and let it end by closing its input."""
    monkeypatch.setattr(warm, "_held", held := [])
    monkeypatch.setenv(warm.VARIABLE, "")
    warm.start()
    address = Path(os.environ[warm.VARIABLE])
    _wait_for(lambda: address.exists() or held[0].poll() is not None)
    held[0].stdin.close()
    assert held[0].wait() == 0
    assert not address.parent.exists()


@pytest.mark.parametrize("failing", [(tempfile, "mkdtemp"), (subprocess, "Popen")])
def test_what_cannot_be_started_is_said_and_not_needed(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    failing: tuple[ModuleType, str],
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*failing, refuse)
    monkeypatch.delenv(warm.VARIABLE, raising=False)
    warm.start()
    assert warm.VARIABLE not in os.environ
    assert "No space left" in capfd.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_closed_terminal_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    address = tmp_path / "warm" / "socket"
    address.parent.mkdir()
    environment = {**ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SERVER, str(address)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        env=environment,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # these tests may be under nohup
    ) as process:
        _wait_for(address.exists)
        process.send_signal(number)
        assert process.wait(timeout=30) == 128 + number
    assert not address.parent.exists()
