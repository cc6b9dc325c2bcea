"""Revisions: what a name of one means, and that nothing is checked out."""

from __future__ import annotations

import shutil

import pytest
from shared.audited import World, cell


def test_by_default_the_last_change_is_compared_with_the_working_tree(world: World) -> None:
    found = world.audit()
    assert found.old.title.endswith("Results of a worse baseline")
    assert found.new.title.startswith("the working tree")
    assert {change.verdict for change in found.comparison.changes} == {"identical", "no value"}
    assert found.exit_code == 0
    assert found.why.statement == "No value changed, so there is nothing to explain."


@pytest.mark.parametrize(
    ("old", "new"), [("first", "sharper"), ("HEAD~6", "HEAD~2"), ("first", "results-of-then")]
)
def test_tags_expressions_and_folders_name_the_same_results(
    other: World, old: str, new: str
) -> None:
    other.git("worktree", "add", "--quiet", "../then", "sharper")
    shutil.copytree(other.root / "../then/results/tiny", other.root / "results-of-then")
    found = other.audit(old, new)
    assert cell(found, "faithdiff", "psnr").verdict == "better"
    assert cell(found, "faithdiff", "psnr").difference == pytest.approx(3.0967, abs=1e-3)
    # A root of the suite in another folder is the same again.
    assert other.audit("../then", "sharper").exit_code == 0


def test_nothing_is_checked_out(world: World) -> None:
    before = world.git("status", "--porcelain"), world.git("rev-parse", "HEAD")
    world.audit("first", "worse")
    assert (world.git("status", "--porcelain"), world.git("rev-parse", "HEAD")) == before
