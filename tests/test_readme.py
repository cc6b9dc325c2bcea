"""README's numbers are those of the committed results, and its conclusions follow from them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from faithdiff.claims.schema import load_claims

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONCLUSIONS = re.search(
    r"<!-- conclusions: ([\w-]+) -->\n(.*?)<!-- /conclusions -->", README, re.DOTALL
)
BULLETS = re.split(r"(?m)^- ", CONCLUSIONS[2])[1:] if CONCLUSIONS else []


def claims_of(bullet: str) -> list[dict[str, Any]]:
    """The claims that a bullet names in the comment at its end."""
    assert CONCLUSIONS is not None
    file = ROOT / "results" / CONCLUSIONS[1] / "claims.json"
    known = {claim["id"]: claim for claim in json.loads(file.read_text(encoding="utf-8"))["claims"]}
    named = re.search(r"<!-- ([\w-]+(?:, [\w-]+)*) -->\s*$", bullet)
    assert named, bullet
    return [known[name] for name in named[1].split(", ")]


def test_there_are_conclusions() -> None:
    assert len(BULLETS) >= 5


@pytest.mark.parametrize("bullet", BULLETS)
def test_a_conclusion_has_the_verdict_and_the_numbers_of_its_claims(bullet: str) -> None:
    claims = claims_of(bullet)
    assert re.findall(r"\*\*([^*]+)\*\*", bullet) == [claim["verdict"] for claim in claims]
    numbers = re.findall(r"[+−]?[\d.]+ \[[^\]]+\]", " ".join(bullet.split()))
    measured = [m for claim in claims for m in claim["measured"]]
    assert numbers and set(numbers) <= {m["text"] for m in measured}
    counts = {int(n) for n in re.findall(r"n = (\d+)", bullet)}
    assert counts and counts <= {m["n"] for m in measured}


@pytest.mark.parametrize(
    ("profile", "block", "table"),
    re.findall(r"<!-- table: ([\w-]+), (.+?) -->\n(.*?)\n+<!-- /table -->", README, re.DOTALL),
)
def test_a_table_is_that_of_the_results(profile: str, block: str, table: str) -> None:
    whole = (ROOT / "results" / profile / "tables" / "main.md").read_text(encoding="utf-8")
    assert table.startswith(f"**{block}**") and table in whole


def test_the_guide_to_the_results_names_every_claim_of_the_small_study() -> None:
    guide = (ROOT / "docs" / "reading-the-results.md").read_text(encoding="utf-8")
    small = [c.id for c in load_claims(ROOT / "config/claims.yaml").claims if c.kind != "published"]
    assert small and [name for name in small if f"`{name}`" not in guide] == []


def test_pictures_of_readme_exist() -> None:
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (ROOT / picture).is_file(), picture


def test_the_profiles_of_the_table_are_those_of_config() -> None:
    named = set(re.findall(r"(?m)^\| `([\w-]+)`", README))
    files = {
        p.stem
        for p in (ROOT / "config").glob("*.yaml")
        if "profile" in yaml.safe_load(p.read_text())
    }
    assert files <= named
