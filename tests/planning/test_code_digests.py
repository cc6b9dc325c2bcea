"""Digests of code are remembered between plans, and never outlive the sources that they are of."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from shared import ROOT

from faithdiff.planning import code_digests
from faithdiff.planning.code_digests import KEPT, code_digest
from faithdiff.study import provenance

JOB = Path("suite/job.py")


def forget() -> None:
    """As another process begins: it knows what is on disk."""
    for cached in (provenance._parsed, provenance._tree, provenance._imports):
        cached.cache_clear()
    for kept in (code_digests.code_digest, code_digests._state, code_digests._kept):
        kept.cache_clear()


@pytest.fixture
def parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The modules whose closures were parsed, of a small suite where Snakemake has run."""
    monkeypatch.chdir(tmp_path)
    for module in (provenance, code_digests):
        monkeypatch.setattr(module, "ROOT", tmp_path)
        monkeypatch.setattr(module, "PACKAGES", ("suite",))
    KEPT.parent.mkdir()
    JOB.parent.mkdir()
    JOB.write_text("from suite import late\n", encoding="utf-8")
    found: list[str] = []
    whole = provenance.code_digest

    def digest(*modules: str) -> str:
        found.extend(modules)
        return whole(*modules)

    monkeypatch.setattr(provenance, "code_digest", digest)
    forget()
    yield found
    forget()


def test_the_next_plan_parses_nothing(parsed: list[str]) -> None:
    first = code_digest("suite.job")
    forget()
    assert code_digest("suite.job") == first == provenance.code_digest("suite.job")
    assert parsed == ["suite.job"] * 2  # by the first plan, and by the line above


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("suite/job.py", "from suite import other\n"),
        # What was a name of the package is a module now: no file of the closure has changed.
        ("suite/late.py", "VERSION = 2\n"),
        # A folder of the suite that is a link to somewhere else.
        ("elsewhere/linked.py", "VERSION = 2\n"),
    ],
)
def test_a_change_of_the_sources_is_seen(parsed: list[str], name: str, text: str) -> None:
    JOB.write_text("from suite import late\nfrom suite.own import linked\n", encoding="utf-8")
    Path("elsewhere").mkdir()
    Path("elsewhere", "linked.py").write_text("VERSION = 1\n", encoding="utf-8")
    Path("suite", "own").symlink_to(Path("elsewhere").absolute())
    before = code_digest("suite.job")
    Path(name).write_text(text, encoding="utf-8")
    forget()
    assert code_digest("suite.job") != before
    assert code_digest("suite.job") == provenance.code_digest("suite.job")


def test_what_is_saved_while_it_is_parsed_is_not_remembered(
    parsed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    as_it_was = JOB.read_text(encoding="utf-8")
    right = code_digest("suite.job")
    KEPT.unlink()
    forget()
    whole = provenance.code_digest

    def edited(*modules: str) -> str:
        JOB.write_text("from suite import other\n", encoding="utf-8")
        return whole(*modules)

    with monkeypatch.context() as patch:
        patch.setattr(provenance, "code_digest", edited)
        assert code_digest("suite.job") != right
    JOB.write_text(as_it_was, encoding="utf-8")  # the edit is taken back before the next plan
    forget()
    assert code_digest("suite.job") == right


def test_a_link_of_an_editor_is_no_source(parsed: list[str]) -> None:
    before = code_digest("suite.job")
    Path("suite/.#job.py").symlink_to("somebody@elsewhere.4711")
    forget()
    assert code_digest("suite.job") == before


@pytest.mark.parametrize("content", ["", "[]", '{"sources": 1}', '{"digests": {}}', "\xff"])
def test_a_corrupted_record_is_written_again(parsed: list[str], content: str) -> None:
    before = code_digest("suite.job")
    whole = KEPT.read_text(encoding="utf-8")
    KEPT.write_text(content, encoding="latin-1")
    forget()
    assert code_digest("suite.job") == before
    assert KEPT.read_text(encoding="utf-8") == whole


def test_modules_outside_of_the_suite_are_never_remembered(parsed: list[str]) -> None:
    Path("own.py").write_text("import suite.job\n", encoding="utf-8")
    before = code_digest("suite.job", "own")
    Path("own.py").write_text("import suite.late\n", encoding="utf-8")
    forget()
    assert code_digest("suite.job", "own") != before
    assert not KEPT.exists()


def test_nothing_is_written_where_snakemake_never_ran(parsed: list[str]) -> None:
    KEPT.parent.rmdir()
    code_digest("suite.job")
    assert not KEPT.parent.exists()


def test_what_is_remembered_is_the_digest_by_its_modules(parsed: list[str]) -> None:
    found = code_digest("suite.job")
    assert json.loads(KEPT.read_bytes())["digests"] == {"suite.job": found}


def test_a_plan_loads_no_library_that_jobs_compute_with() -> None:
    """Each takes from a third of a second to several, at every `snakemake -n`."""
    lines = (ROOT / "workflow/common.smk").read_text(encoding="utf-8").splitlines()
    program = "\n".join(
        [
            *(line for line in lines if line.startswith("from faithdiff.")),
            "from faithdiff.data.scenes.words import font_files",
            "assert all(file.is_file() for file in font_files().values())",
            "import sys",
            "heavy = {'torch', 'diffusers', 'pyiqa', 'basicsr', 'matplotlib', 'scipy'}",
            "assert not heavy & set(sys.modules), heavy & set(sys.modules)",
        ]
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
