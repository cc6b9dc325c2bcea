"""What may explain a change: weights, config, code and the commits between."""

from __future__ import annotations

import json

import pytest
from shared.audited import World, write

from faithdiff.audit.code import TABLE, code_change
from faithdiff.audit.git import Git
from faithdiff.study.checksums import with_checksum

METHODS = {"restore_denoiser": {"variants": "faithdiff.train.variants"}}


def test_why_names_weights_config_code_and_the_commits_between(world: World) -> None:
    why = world.audit("first", "sharper").why
    explaining = {(d.kind, d.what) for d in why.explaining}
    assert ("weights", "faithdiff/seed0") in explaining
    assert ("config", "restore.guidance_scale") in explaining
    assert ("code", "rule restore_denoiser (variants)") in explaining
    assert [d.kind for d in why.explaining] == sorted(
        (d.kind for d in why.explaining), key=why.kinds.index
    )
    # The baseline has other weights, too, but its scores did not change.
    assert ("weights", "realesrgan/seed0") not in explaining
    assert any(d.what == "realesrgan/seed0" for d in why.differences)
    modules = {d.remark for d in why.explaining if d.what == "rule restore_denoiser (variants)"}
    assert modules == {"faithdiff.restore.colour"}
    # The commit that only wrote a comment touched the file, too: git cannot tell.
    assert [c.subject for c in why.commits][:1] == ["Stronger colour fix"]
    assert any(line.startswith("faithdiff: 48 of 48 restored images") for line in why.entry)


def test_a_comment_alone_explains_nothing(world: World) -> None:
    assert world.git("diff", "--stat", "HEAD~6", "HEAD~5", "--", "faithdiff")
    source = Git(world.root).read_all("HEAD~5", "faithdiff/restore")
    assert b"# why" in source["faithdiff/restore/colour.py"]
    assert code_change(Git(world.root), "HEAD~6", "HEAD~5", METHODS).rules == []
    changed = code_change(Git(world.root), "HEAD~5", "HEAD~4", METHODS).rules
    assert "restore_denoiser (variants)" in {rule.name for rule in changed}


def test_if_nothing_that_can_explain_it_differs_it_says_so(world: World) -> None:
    # The baseline got worse, and nothing recorded says why.
    why = world.audit("sharper", "worse").why
    assert why.changed == ("realesrgan",)
    assert why.statement == (
        "Nothing differs that can explain it: data, degradation, weights, config, code, "
        "packages, hardware and seeds are the same."
    )


def test_what_could_not_be_compared_is_not_called_the_same(other: World) -> None:
    file = other.root / "results/tiny/manifest.json"
    manifest = json.loads(file.read_text("utf-8"))
    write(file, with_checksum(manifest | {"commit": "0" * 40}))
    why = other.audit("sharper").why
    assert "code (NEW was made at 000000000, which this clone does not have)" in why.statement
    assert "code," not in why.statement.partition("Not compared")[0]
    file.unlink()
    found = other.audit("sharper")
    assert any("no manifest.json" in note for note in found.notes)
    assert found.why.statement.startswith("Nothing that could explain it was compared")
    assert "weights (NEW has no manifest.json)" in found.why.statement


def test_each_commit_is_read_by_its_own_table_of_rules(other: World) -> None:
    # A rule that only this commit has, of a module that is not in today's table.
    other.edit(TABLE, "RULES = (", 'RULES = (\n    Rule(name="odd", purpose="", modules=("odd",)),')
    write(other.root / "faithdiff/odd.py", "ODD = 1\n")
    other.edit(TABLE, '"odd",)', '"faithdiff.odd",)')
    before = other.commit("A rule of its own")
    write(other.root / "faithdiff/odd.py", "ODD = 2\n")
    after = other.commit("The rule does something else")
    changed = code_change(Git(other.root), before, after, METHODS).rules
    assert [(rule.name, rule.modules) for rule in changed] == [("odd", ("faithdiff.odd",))]


@pytest.mark.parametrize("table", [None, "RULES = tuple(range(3))\n"])
def test_a_commit_without_a_table_is_read_by_the_one_of_today(
    other: World, table: str | None
) -> None:
    file = other.root / TABLE
    file.unlink() if table is None else file.write_text(table, "utf-8")
    before = other.commit("Before there was a table")
    other.edit("faithdiff/restore/colour.py", "STRENGTH = 2", "STRENGTH = 3")
    after = other.commit("Stronger still")
    changed = code_change(Git(other.root), before, after, METHODS).rules
    # A training draws restored images on its way, so it imports the colour fix, too.
    assert {rule.name for rule in changed} == {
        *("pretrain_alignment", "train_variant", "restore_denoiser (variants)"),
    }
