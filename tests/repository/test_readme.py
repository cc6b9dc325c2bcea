"""The numbers and verdicts in README and in the guide are those of the committed results."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from shared import ROOT
from shared.committed import committed

from faithdiff.claims.schema import load_claims
from faithdiff.methods.method import Study
from faithdiff.train.cost import last_stage

README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs" / "reading-the-results.md").read_text(encoding="utf-8")
Claims = dict[str, dict[str, Any]]


def part(name: str, page: str = README) -> tuple[str, str]:
    """Profile and content of a part of a page that is marked by comments."""
    found = re.search(rf"<!-- {name}: ([\w-]+).*? -->\n(.*?)<!-- /{name} -->", page, re.DOTALL)
    assert found is not None, f"the page has no part {name}"
    return found[1], found[2]


def claims_of(profile: str) -> Claims:
    claims = json.loads(committed(f"results/{profile}/claims.json"))["claims"]
    return {claim["id"]: claim for claim in claims}


def test_conclusions_are_the_verdicts_of_their_claims() -> None:
    profile, text = part("conclusions")
    claims, bullets = claims_of(profile), re.split(r"(?m)^- ", text)[1:]
    assert len(bullets) >= 5
    for bullet in bullets:
        named = re.search(r"<!-- ([\w-]+) -->\s*$", bullet)
        assert named, bullet
        claim = claims[named[1]]
        expected = [claim["verdict"], claim.get("second")]
        assert re.findall(r"\*\*([^*]+)\*\*", bullet) == [v for v in expected if v], bullet
        texts = " ".join(m["text"] for m in claim["measured"])
        for number in re.findall(r"[+−][\d.]+ \[[^]]+\]", bullet):
            assert number in texts, bullet


def test_numbers_of_the_guide_are_those_of_the_claims() -> None:
    curves, rest = GUIDE.partition("## Beyond one point")[2].partition("## What differs")[::2]
    profile, _ = part("gains", GUIDE)
    known = {m["text"] for claim in claims_of(profile).values() for m in claim["measured"]}
    of_claims = differences(GUIDE.replace(curves, ""))
    assert rest and of_claims and of_claims <= known
    tables = set(re.findall(r"\(\.\./(results/[\w/-]+/curve-[\w-]+\.md)\)", curves))
    in_tables = {text for file in tables for text in differences(committed(file))}
    assert len(tables) >= 6 and differences(curves) and differences(curves) <= in_tables
    means = re.findall(r"(?<![\d.])\.\d{4}\b", curves)
    text = " ".join(map(committed, tables))
    assert len(means) > 10 and [mean for mean in means if f" 0{mean}" not in text] == []


def test_operations_that_the_guide_compares_are_the_counted_ones() -> None:
    guide = " ".join(GUIDE.split())
    study = Study.load(Path("config/mini-curves.yaml"))
    counts = {name: last_stage(study, name) for name in ("faithdiff", "frozen", "supir")}
    frozen, supir = (round(100 * counts[n] / counts["faithdiff"]) for n in ("frozen", "supir"))
    assert (
        f"an update of the frozen prior costs {frozen} % of one of FaithDiff, "
        f"one of SUPIR (controlled) {supir} %" in guide
    )


def differences(page: str) -> set[str]:
    """Differences with their intervals, as a page says them."""
    plain = page.replace("\\", "")
    return {" ".join(text.split()) for text in re.findall(r"[+−][\d.]+\*?\s\[[^]]+\]", plain)}


def test_gains_are_those_of_the_claims() -> None:
    profile, text = part("gains", GUIDE)
    head, _, *rows = [re.split(r" *\| *", line.strip("| ")) for line in text.split("\n") if line]
    labels = {"ST-LPIPS": "st-lpips", "PIQE": "piqe", "PSNR, dB": "psnr"}
    labels["held-out loss"] = "heldout_loss"
    claims = claims_of(profile).values()
    known: dict[tuple[str, str], set[str]] = {}
    updates: dict[str, set[str]] = {}
    for claim in claims:
        for m in claim["measured"]:
            known.setdefault((m["contrast"], m["metric"]), set()).add(m["text"])
        for each in claim["contrasts"]:
            for label, count in each["updates"].items():
                updates.setdefault(label, set()).add(str(count))
    assert len(rows) >= 8 and head[0] == "FaithDiff over"
    for label, count, *gains in rows:
        assert updates[label] == {count}
        for title, gain in zip(head[2:], gains, strict=True):
            measured = known.get((f"FaithDiff over {label}", labels[title]), {"–"})
            assert measured == {gain}, (label, title)


def test_numbers_of_pictures_are_those_of_the_claims() -> None:
    profile, _ = part("gains", GUIDE)
    measured = [m for claim in claims_of(profile).values() for m in claim["measured"] if m["n"]]
    pictures = {m["n"] for m in measured if m["metric"] == "st-lpips"}
    losses = {m["n"] for m in measured if m["metric"] == "heldout_loss"}
    said = re.search(r"n = (\d+) source pictures \((\d+) for the held-out", GUIDE)
    assert said and ({int(said[1])}, {int(said[2])}) == (pictures, losses)


def test_the_costs_of_the_runs_are_those_of_their_manifests() -> None:
    runs = re.findall(r"<!-- run: ([\w-]+) -->(.*?)<!-- /run -->", README)
    assert runs
    for profile, said in runs:
        total = json.loads(committed(f"results/{profile}/manifest.json"))["total"]
        assert said == (
            f"{total['jobs']} jobs, {total['seconds']:,.0f} job-seconds, "
            f"{total['peak_memory_mb']:,.0f} MB at most per job"
        )


def test_the_table_is_that_of_the_results() -> None:
    profile, table = part("table")
    whole = committed(f"results/{profile}/tables/main.md")
    assert "FaithDiff" in table and table.strip() in whole


def test_the_guide_to_the_results_names_every_claim_of_the_small_study() -> None:
    small = [c.id for c in load_claims(ROOT / "config/claims.yaml").claims if c.kind != "published"]
    assert small and [name for name in small if f"`{name}`" not in GUIDE] == []


@pytest.mark.parametrize(
    "page",
    [
        str(p.relative_to(ROOT))
        for at in ("*.md", "config/*.md", "docs/*.md")
        for p in ROOT.glob(at)
    ],
)
def test_links_and_pictures_lead_somewhere(page: str) -> None:
    file = ROOT / page
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", file.read_text(encoding="utf-8")):
        assert (file.parent / target).exists(), f"{page}: {target}"


def test_the_profiles_of_the_table_are_those_of_config() -> None:
    page = (ROOT / "config" / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?m)^\| `([\w-]+)`", page))
    for file in (ROOT / "config").glob("*.yaml"):
        if "profile" in yaml.safe_load(file.read_text(encoding="utf-8")):
            assert file.stem in named
