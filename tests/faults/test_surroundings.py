"""Another clock, home, locale, time zone, mask and folder: the small verbs give the same bytes."""

from __future__ import annotations

import inspect
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from shared import ROOT
from shared.corrupt import tree


def use_the_small_verbs() -> None:
    """In one process: starting takes longer than the work."""
    from pathlib import Path

    from faithdiff import cli

    file = Path("config/test.yaml")
    cli.prepare("Photos", file)
    cli.degrade("Photos", ["II"], file)
    cli.restore_sets("bicubic", config=file)
    checkpoint = Path("checkpoints/test/faithdiff/seed0")
    cli.restore([Path("data/test/Photos/lq/II")], checkpoint, Path("own"))
    cli.score("bicubic", config=file)
    cli.collect(file)
    cli.tables(file)
    cli.figures(file)


SCRIPT = f"""
import os, sys
os.umask(int(sys.argv[1], 8))
{inspect.getsource(use_the_small_verbs)}
use_the_small_verbs()
"""
MADE = ("data/test/Photos", "own", "restored/test/bicubic", "results/test")


def run(root: Path, mask: str = "022", **changes: str | None) -> dict[str, str]:
    """Run the verbs in a process of its own; what they made. None takes a variable away."""
    forget(root)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **changes}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, mask],
        cwd=root,
        env={key: value for key, value in environment.items() if value is not None},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return made(root)


def forget(root: Path) -> None:
    """Remove what the verbs make, except for the test set, which they complete."""
    for name in MADE[1:]:
        shutil.rmtree(root / name, ignore_errors=True)
    shutil.copytree(ROOT / "results/paper", root / "results/paper", dirs_exist_ok=True)


def made(root: Path) -> dict[str, str]:
    """Digests of what the verbs made."""
    found = {f"{name}/{file}": sha for name in MADE for file, sha in tree(root / name).items()}
    # Times: of a restoration, and in the costs that are made of them.
    return {
        name: sha
        for name, sha in found.items()
        if not name.endswith(("manifest.json", "restored.json")) and "cost" not in name
    }


@pytest.fixture(scope="module")
def reference(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("plain") / "study"
    shutil.copytree(finished, root)
    forget(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        use_the_small_verbs()  # in this process, which has imported what takes them seconds
    found = made(root)
    assert len(found) > 20 and any(name.startswith("own/") for name in found)
    return found


@pytest.fixture
def root(finished: Path, tmp_path: Path) -> Path:
    root = tmp_path / "study"
    shutil.copytree(finished, root)
    return root


def set_times(root: Path, seconds: float) -> None:
    for path in root.rglob("*"):
        os.utime(path, (seconds, seconds))


def test_all_of_it_at_once(reference: dict[str, str], finished: Path, tmp_path: Path) -> None:
    root = tmp_path / "a path with spaces & signs (1)"
    shutil.copytree(finished, root)
    set_times(root, time.time() + 10 * 365 * 86400)
    surroundings = {"HOME": None, "LC_ALL": "C", "LANG": None, "TZ": "Pacific/Chatham"}
    assert (
        run(root, mask="077", **surroundings, PYTHONUTF8="0", PYTHONCOERCECLOCALE="0") == reference
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"HOME": None, "XDG_CACHE_HOME": None, "MPLCONFIGDIR": None, "TORCH_HOME": None},
        {"HOME": "/dev/null/none"},
        {"LC_ALL": "C"},
        {"LC_ALL": "de_DE.UTF-8", "LANGUAGE": "de"},
        {"LC_ALL": "tr_TR.ISO-8859-9"},
        {"TZ": "Asia/Kathmandu"},
        {"TZ": "America/St_Johns"},
        {"PYTHONHASHSEED": "7"},
        {"COLUMNS": "20", "TERM": "dumb", "NO_COLOR": "1"},
    ],
    ids=lambda changes: ",".join(changes),
)
def test_environment(reference: dict[str, str], root: Path, changes: dict[str, str | None]) -> None:
    assert run(root, **changes) == reference


@pytest.mark.slow
@pytest.mark.parametrize("years", [-60, 20])
def test_files_of_another_time(reference: dict[str, str], root: Path, years: int) -> None:
    set_times(root, max(time.time() + years * 365 * 86400, 0))
    assert run(root) == reference


@pytest.mark.slow
def test_a_mask_that_hides_everything(reference: dict[str, str], root: Path) -> None:
    assert run(root, mask="077") == reference


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["with space", "ünïcode", "quote's", "semi;colon & more", "new\nline"]
)
def test_another_folder(
    reference: dict[str, str], finished: Path, tmp_path: Path, name: str
) -> None:
    shutil.copytree(finished, tmp_path / name)
    assert run(tmp_path / name) == reference


@pytest.fixture
def read_only(tmp_path: Path) -> Callable[[], Path]:
    def make() -> Path:
        home = tmp_path / "home"
        home.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "ro,size=4k", "tmpfs", str(home)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            pytest.skip(f"NOT TESTED with a read-only home: {error}")
        if done.returncode:
            pytest.skip(f"NOT TESTED with a read-only home: {done.stderr.strip()}")
        return home

    return make


@pytest.mark.slow
def test_a_home_that_cannot_be_written(
    reference: dict[str, str], root: Path, read_only: Callable[[], Path]
) -> None:
    home = read_only()
    try:
        taken_away = dict.fromkeys(("XDG_CACHE_HOME", "MPLCONFIGDIR", "TORCH_HOME", "HF_HOME"))
        assert run(root, HOME=str(home), **taken_away) == reference
        assert list(home.iterdir()) == []
    finally:
        subprocess.run(["umount", "--lazy", str(home)], check=True)
