"""config/claims.yaml: what ships, and what is refused."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import yaml
from shared import ROOT
from shared.claims import CLAIM, MATTERS, SHIPPED, claim

from faithdiff.claims.schema import Claims, GainTest, ValueTest, load_claims
from faithdiff.config import parse
from faithdiff.errors import ConfigError


def test_the_shipped_claims_print_what_results_paper_holds() -> None:
    with (ROOT / "results/paper/table1.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    printed = {
        (r["dataset"], r["level"], r["method"], r["metric"]): (r["value"], r["protocol"])
        for r in rows
    }
    claimed = {
        (c.data.datasets[0], c.data.levels[0], c.test.method, e.metric): (e.printed, c.protocol)
        for c in load_claims(SHIPPED).claims
        if isinstance(c.test, ValueTest)
        for e in c.expect
    }
    assert claimed == printed


def test_every_known_difference_and_time_of_the_paper_is_claimed() -> None:
    by_id = {c.id: c for c in load_claims(SHIPPED).claims}
    with (ROOT / "results/paper/differences.csv").open(newline="", encoding="utf-8") as stream:
        known = {
            r["metric"]: float(r["difference"]) for r in csv.DictReader(stream) if r["difference"]
        }
    assert {e.metric: e.value for e in by_id["unleashed-over-frozen"].expect} == known
    with (ROOT / "results/paper/efficiency.csv").open(newline="", encoding="utf-8") as stream:
        first = next(csv.DictReader(stream))
    assert by_id["seconds-1024"].expect[0].printed == first["seconds_low"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"expect": [{"metric": "psnr"}]}, "printed with within, or rule"),
        ({"expect": [{"metric": "psnr", "printed": "24.3"}]}, "belong together"),
        ({"expect": [{"metric": "psnr", "printed": "24.3", "within": 0.01}]}, "finer than 24.3"),
        ({"expect": [{"metric": "psnr", "printed": "about 24", "within": 1}]}, "printed"),
        ({"expect": []}, "expect"),
        ({"beside": ["psnr"]}, "named twice"),
        ({"kind": "published"}, "datasets and levels"),
        ({"test": {"kind": "value", "method": "faithdiff"}}, "direction needs a gain"),
        ({"kind": "rumour"}, "is not one of 'published', 'mechanism'"),
        ({"weight": 1}, "unknown key"),
    ],
)
def test_a_claim_that_cannot_be_tested_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        claim(**changes)


def test_two_claims_of_one_id_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "claims.yaml"
    file.write_text(
        yaml.safe_dump({"matters": MATTERS, "claims": [CLAIM, CLAIM]}), encoding="utf-8"
    )
    with pytest.raises(ConfigError, match="'claim' occurs twice"):
        load_claims(file)
    assert Claims.model_validate({"matters": MATTERS, "claims": [CLAIM]}).claims[0].id == "claim"


def test_a_direction_needs_to_say_what_matters() -> None:
    silent = {**CLAIM, "expect": [{"metric": "niqe", "rule": "better"}]}
    with pytest.raises(ConfigError, match="claim: say in `matters` which gain in niqe matters"):
        parse({"matters": {"psnr": 0.1}, "claims": [silent]}, Claims, "test")
    own = {**CLAIM, "matters": {"psnr": 0.2}}
    found = Claims.model_validate({"matters": {"psnr": 0.1}, "claims": [own]})
    assert found.matters_of(found.claims[0], "psnr") == 0.2


def test_every_shipped_mechanism_has_a_surrogate_path_and_names_methods_of_some_profile() -> None:
    shipped = load_claims(SHIPPED)
    for each in shipped.claims:
        for expect in each.expect:
            if each.kind != "published" and expect.metric != "psnr":
                assert shipped.surrogates_of(each, expect.metric)
            if each.kind == "published":
                assert not shipped.surrogates_of(each, expect.metric)
    tests = {c.id: c.test for c in shipped.claims}
    price = tests["psnr-is-the-price"]
    assert isinstance(price, GainTest)
    assert set(price.over) == {"diffbir", "supir", "seesr", "realesrgan"}
