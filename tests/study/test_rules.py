"""The table of rules: sound in itself, and read from a commit without running it."""

from __future__ import annotations

from pathlib import Path

import pytest

from faithdiff.study import rules
from faithdiff.study.provenance import closure
from faithdiff.study.rules import BY_NAME, RULES, Rule, covers, makes_scores, read_rules


def test_a_rule_stands_after_those_that_it_reads_of() -> None:
    seen: set[str] = set()
    for rule in RULES:
        assert set(rule.after) <= seen, rule.name
        assert rule.purpose.endswith(".") and (not rule.resources or rule.resources in BY_NAME)
        assert rule.name not in seen
        seen.add(rule.name)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_the_modules_of_a_rule_exist(rule: Rule) -> None:
    found = closure(*rule.modules)  # raises where a module has no file
    assert {*rule.modules} <= found
    # Else an edit of the table would make every image again.
    assert not makes_scores(rule.name) or rules.__name__ not in found


def test_what_comes_after_the_scores_makes_none() -> None:
    after = [rule.name for rule in RULES if not makes_scores(rule.name)]
    assert after == ["tables", "figures", "claims", "manifest", "report", "version"]
    assert makes_scores("a rule of another commit")  # nobody can say that it did not


@pytest.mark.parametrize(
    ("setting", "path", "covered"),
    [
        ("training", "training.loss", True),
        ("training.loss", "training", True),  # the whole section differs: so may this
        ("training.heldout", "training.loss", False),
        ("recipes.*", "recipes.released.norm", True),
        ("baselines.*.settings", "baselines.supir.label", False),
        ("data.levels", "data.levels_file", False),
        ("*", "training.loss", False),  # of the manifest, which reads all and decides nothing
    ],
)
def test_a_setting_covers_what_is_below_it(setting: str, path: str, covered: bool) -> None:
    assert covers(setting, path) == covered


def test_the_table_is_read_from_its_source_as_data() -> None:
    assert read_rules(Path(rules.__file__).read_bytes()) == RULES
    other = b'RULES = (Rule(name="old", purpose="Did it.", modules=("a.b",), unheard_of=3),)'
    assert read_rules(other) == (Rule("old", "Did it.", modules=("a.b",)),)


@pytest.mark.parametrize(
    "source",
    [
        b"",
        b"RULES = [",
        b"RULES = 3",
        b"RULES = (print(),)",
        b'RULES = (Rule(purpose="It has no name."),)',
        b'RULES = (Rule(name=open("/dev/null").read()),)',
    ],
)
def test_what_is_no_table_is_not_run_and_not_believed(source: bytes) -> None:
    assert read_rules(source) is None or read_rules(source) == ()
