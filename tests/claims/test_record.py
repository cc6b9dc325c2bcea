"""claims.json as it is read: every committed one, older words, and what is no such file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from shared import ROOT

from faithdiff.claims.record import read_claims
from faithdiff.errors import UserError

FILES = sorted((ROOT / "results").glob("*/claims.json"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.parent.name)
def test_a_committed_file_is_read_whole(file: Path) -> None:
    content = file.read_bytes()
    record = read_claims(content, str(file))
    assert json.loads(json.dumps(record.model_dump())) == json.loads(content)
    assert sum(record.verdicts.values()) == len(record.claims)


def test_the_words_of_earlier_results_are_those_of_today() -> None:
    text = FILES[0].read_text("utf-8")
    older = text.replace("by a surrogate", "by a proxy")
    assert older != text
    then, now = (read_claims(each.encode(), "claims.json") for each in (older, text))
    assert then.verdicts == now.verdicts
    assert [(c.verdict, c.second) for c in then.claims] == [
        (c.verdict, c.second) for c in now.claims
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "Invalid JSON"),
        (b"[]", "corrupted"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
    ],
)
def test_another_content_is_a_users_error_that_names_the_file(content: bytes, said: str) -> None:
    with pytest.raises(UserError, match=f"^results/mini/claims.json: .*{said}"):
        read_claims(content, "results/mini/claims.json")


def test_an_edited_verdict_is_named_by_its_place() -> None:
    content = json.loads(FILES[0].read_bytes())
    content["claims"][1]["verdict"] = "proven"
    with pytest.raises(UserError, match=r"claims: 1: verdict: .*faithdiff claims"):
        read_claims(json.dumps(content).encode(), "claims.json")
