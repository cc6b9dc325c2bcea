"""What decides a rerun: code without its comments, and the hashes of what was made."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from faithdiff.study import provenance
from faithdiff.study.provenance import closure, code_digest, commit, folder_digest

MODULES = {
    "suite/__init__.py": '"""A suite."""\n',
    "suite/job.py": '''"""Runs."""
from suite.models import shape
import suite.data.read as reader
import json, numpy


def run(size):
    """Run."""
    from suite import late  # only when it runs

    return late.work(shape.area(size), reader)
''',
    "suite/late.py": "def work(*parts):\n    return parts\n",
    "suite/apart.py": "NOT_IMPORTED = 1\n",
    "suite/models/__init__.py": "",
    "suite/models/shape.py": """from suite.constants import SCALE


def area(size):
    return SCALE * size**2
""",
    "suite/data/__init__.py": "",
    "suite/data/read.py": "class Reader:\n    depth = 8\n",
    "suite/constants.py": "SCALE = 4\n",
}
EVERYTHING = {
    "suite",
    "suite.job",
    "suite.late",
    "suite.models",
    "suite.models.shape",
    "suite.data",
    "suite.data.read",
    "suite.constants",
}


def forget() -> None:
    for cached in (provenance._parsed, provenance._tree, provenance._imports):
        cached.cache_clear()


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A small package in place of this one, and its digest after an edit."""
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    monkeypatch.setattr(provenance, "PACKAGES", ("suite",))
    for name, text in MODULES.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def digest_after(name: str = "suite/job.py", old: str = "", new: str = "") -> str:
        file = tmp_path / name
        text = file.read_text(encoding="utf-8")
        assert old in text
        file.write_text(text.replace(old, new, 1), encoding="utf-8")
        forget()
        return code_digest("suite.job")

    forget()
    yield digest_after
    forget()


def test_the_closure_follows_imports_inside_functions_too(suite: Callable[..., str]) -> None:
    assert closure("suite.job") == EVERYTHING


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("suite/job.py", '"""Runs."""', '"""Runs, and\n\ntells more of it."""'),
        ("suite/job.py", '    """Run."""\n', ""),
        ("suite/job.py", "# only when it runs", "# another comment"),
        ("suite/late.py", "def work", "# why\n\n\ndef work"),
        ("suite/data/read.py", "    depth = 8", '    """Reads."""\n\n    depth = 8'),
        ("suite/models/shape.py", "SCALE * size**2", "SCALE*(size ** 2)"),
        ("suite/apart.py", "1", "2"),
    ],
)
def test_comments_docstrings_layout_and_other_modules_rerun_nothing(
    suite: Callable[..., str], name: str, old: str, new: str
) -> None:
    assert suite(name, old, new) == suite()


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("suite/job.py", "area(size)", "area(2 * size)"),
        ("suite/late.py", "return parts", "return parts[0]"),
        ("suite/constants.py", "4", "2"),
        ("suite/data/read.py", "depth = 8", "depth = 16"),
        ("suite/models/__init__.py", "", "VERSION = 2\n"),
    ],
)
def test_code_reruns_what_imports_it(
    suite: Callable[..., str], name: str, old: str, new: str
) -> None:
    before = suite()
    assert suite(name, old, new) != before


def test_a_comment_then_code_then_back(suite: Callable[..., str]) -> None:
    before = suite()
    assert suite("suite/late.py", "return parts", "return parts[::-1]") != before
    assert suite("suite/late.py", "return parts[::-1]", "return parts  # as it was") == before


def test_a_module_that_is_not_there_is_named(suite: Callable[..., str]) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"suite\.gone is not a module of the suite"):
        code_digest("suite.gone")


def test_the_suite_itself_data_rules_do_not_read_the_model() -> None:
    """Changing the alignment must rerun training and restoration, and no data rule."""
    forget()
    assert "faithdiff.models.alignment" in closure("faithdiff.train.variants")
    for module in ("faithdiff.data.datasets", "faithdiff.degrade.dataset", "faithdiff.score.run"):
        assert not any(name.startswith("faithdiff.models") for name in closure(module)), module


def test_folder_digest_is_of_weights_and_configs(tmp_path: Path) -> None:
    unet = tmp_path / "unet"
    unet.mkdir()
    (unet / "model.safetensors").write_bytes(b"weights")
    (unet / "config.json").write_text("{}", encoding="utf-8")
    before = folder_digest(tmp_path)
    (tmp_path / "training.csv").write_text("step,loss\n", encoding="utf-8")
    (tmp_path / "run.json").write_text("{}", encoding="utf-8")
    assert folder_digest(tmp_path) == before
    (unet / "model.safetensors").write_bytes(b"weightz")
    assert folder_digest(tmp_path) != before
    (unet / "model.safetensors").write_bytes(b"weights")
    assert folder_digest(tmp_path) == before
    unet.rename(tmp_path / "vae")
    assert folder_digest(tmp_path) != before


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def test_commit_knows_a_dirty_tree_and_forgives_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    assert commit() == {"commit": None, "dirty": None}
    (tmp_path / "results").mkdir()
    for name in ("code.py", "results/scores.csv"):
        (tmp_path / name).write_text("1\n", encoding="utf-8")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    clean = commit()
    assert len(clean["commit"]) == 40
    assert clean["dirty"] is False
    (tmp_path / "results" / "scores.csv").write_text("2\n", encoding="utf-8")
    (tmp_path / "untracked.txt").write_text("2\n", encoding="utf-8")
    assert commit() == clean
    (tmp_path / "code.py").write_text("2\n", encoding="utf-8")
    assert commit() == {**clean, "dirty": True}


def test_packages_lists_what_is_installed() -> None:
    versions = provenance.packages()
    assert versions["pydantic"].startswith("2.")
    assert list(versions) == sorted(versions, key=str.lower)


def test_help_does_not_load_the_heavy_libraries() -> None:
    """Loading torch alone takes seconds; `--help` needs none of them."""
    program = (
        "import sys; sys.argv = ['faithdiff', '--help']\n"
        "from faithdiff.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'diffusers', 'pyiqa', 'basicsr', 'pandas', 'matplotlib', 'scipy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "restore-sets" in done.stdout
