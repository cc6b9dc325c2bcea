"""Verdicts of an audit: better, worse, identical, not comparable, tolerated."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from dvc.repo import Repo
from shared.audited import IMAGES, World, cell, realesrgan_worse, write

from faithdiff.audit.tolerance import parse_tolerance
from faithdiff.errors import UserError
from faithdiff.study.checksums import with_checksum


def test_a_gain_is_better_and_the_rest_identical(world: World) -> None:
    found = world.audit("first", "sharper")
    gain = cell(found, "faithdiff", "psnr")
    assert gain.verdict == "better"
    assert gain.low < gain.difference < gain.high
    assert gain.p_holm < 0.05
    assert gain.n == 2 * IMAGES
    assert cell(found, "bicubic", "psnr").verdict == "identical"
    assert cell(found, "faithdiff", "gmsd").verdict == "identical"
    assert cell(found, "faithdiff", "lpips", "Photos", "I").verdict == "no value"
    assert found.exit_code == 0


def test_a_loss_is_a_regression_unless_it_is_tolerated(world: World) -> None:
    found = world.audit("sharper", "worse")
    assert {(c.method, c.column.metric) for c in found.regressions} == {("realesrgan", "psnr")}
    assert found.exit_code == 1
    assert "regressed" in found.conclusion
    for accepted, code in (("0.5", 0), ("0.3", 1), ("5%", 0), ("psnr=0.5", 0), ("gmsd=9", 1)):
        tolerated = replace(found, tolerance=parse_tolerance([accepted]))
        assert tolerated.exit_code == code, accepted
        assert ("worse within the tolerance" in tolerated.conclusion) == (code == 0)


def test_a_tolerance_names_a_metric_as_the_tables_do(world: World) -> None:
    accepted = world.audit("sharper", "worse", tolerance=parse_tolerance(["PSNR=0.5"]))
    assert accepted.exit_code == 0
    with pytest.raises(UserError, match=r"--tolerance: 'pnsr' is not one of .*psnr"):
        world.audit("sharper", "worse", tolerance=parse_tolerance(["pnsr=0.5"]))


@pytest.mark.parametrize("text", ["much", "-1", "psnr", "psnr=", "=1", "1%%", "psnr=1=2"])
def test_a_tolerance_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--tolerance"):
        parse_tolerance([text])


def test_the_selection_takes_names_and_labels(world: World) -> None:
    found = world.audit("first", "sharper", methods=("Real-ESRGAN (controlled)", "FAITHDIFF"),
                        metrics=("PSNR",), protocols=("all",))  # fmt: skip
    assert {c.method for c in found.comparison.changes} == {"realesrgan", "faithdiff"}
    assert {c.column.metric for c in found.comparison.changes} == {"psnr"}
    assert {c.column.protocol for c in found.comparison.changes} == {"ycbcr", "faithdiff-repo"}
    with pytest.raises(UserError, match=r"--method: 'swinir' is not one of bicubic"):
        world.audit("first", "sharper", methods=("swinir",))


@pytest.mark.parametrize(
    ("column", "value", "place", "said"),
    [
        ("protocol_sha256", "another", {"metric": "psnr"}, "protocol"),
        ("hq_sha256", "another", {"dataset": "Photos"}, "HQ images"),
    ],
)
def test_other_digests_are_not_comparable(
    other: World, column: str, value: str, place: dict[str, str], said: str
) -> None:
    scores = other.scores()
    chosen = (scores[list(place)] == list(place.values())).all(axis=1)
    scores.loc[chosen & (scores["status"] == "ok"), column] = value
    scores.to_csv(other.root / "results/tiny/scores.csv", index=False)
    changes = other.audit().comparison.places
    met = {c.place for c in changes if c.verdict == "not comparable"}
    notes = {c.note for c in changes if c.verdict == "not comparable"}
    assert all(note.startswith(said) for note in notes)
    assert met == {"Photos, I", "Photos, II"} if "dataset" in place else len(met) == 4


@pytest.mark.parametrize(("part", "said"), [("index.csv", "data"), ("degradation", "degradation")])
def test_other_data_is_not_comparable_and_is_named(other: World, part: str, said: str) -> None:
    file = other.root / "results/tiny/manifest.json"
    manifest = json.loads(file.read_text("utf-8"))
    if part == "index.csv":
        manifest["data"]["Photos"]["index.csv"] = "0" * 64
    else:
        manifest["data"]["Photos"]["degradation.jsonl"]["II"] = "0" * 64
    write(file, with_checksum(manifest))
    found = other.audit()
    met = [c for c in found.comparison.places if c.verdict == "not comparable"]
    assert {c.place for c in met} == ({"Photos, I", "Photos, II"} if said == "data"
                                      else {"Photos, II"})  # fmt: skip
    assert all(c.note.startswith(said) and "Photos" in c.note for c in met)
    # Cells over everything would mix both kinds: there are none left.
    assert found.comparison.overall == []


def test_cells_that_come_go_fail_and_recover(other: World) -> None:
    scores = other.scores()
    lost = (scores["method"] == "separate") & (scores["metric"] == "psnr")
    scores = scores[scores["method"] != "realesrgan"]
    scores.loc[lost, ["value", "status"]] = ["", "failed: NaN"]
    back = (scores["metric"] == "lpips") & (scores["method"] == "bicubic")
    scores.loc[back, ["value", "status"]] = ["0.5", "ok"]
    scores.to_csv(other.root / "results/tiny/scores.csv", index=False)
    found = other.audit()
    assert cell(found, "realesrgan", "psnr", "Photos", "I").verdict == "removed"
    assert cell(found, "separate", "psnr", "Photos", "I").verdict == "newly failing"
    assert cell(found, "separate", "psnr", "Photos", "I").note == "failed: NaN"
    assert cell(found, "bicubic", "lpips", "Scenes", "II").verdict == "newly working"
    assert found.exit_code == 1
    mirrored = other.audit(".", "HEAD")
    assert cell(mirrored, "realesrgan", "psnr", "Photos", "I").verdict == "added"
    assert cell(mirrored, "separate", "psnr", "Photos", "I").verdict == "newly working"


def test_only_seeds_of_both_are_compared(other: World) -> None:
    other.run(realesrgan_worse, weights="sharper", seeds=(0, 1))
    found = other.audit()
    assert cell(found, "faithdiff", "psnr").verdict == "identical"
    assert "faithdiff: seeds 0 in OLD, 0, 1 in NEW; compared over 0" in found.notes


def test_means_agree_with_dvc_metrics_diff(world: World) -> None:
    with Repo(str(world.root)) as repo:
        said = repo.metrics.diff("first", "worse")["diff"]
    metrics = next(iter(said.values()))
    changes = world.audit("first", "worse", protocols=("all",)).comparison.places
    ours = {
        f"{c.method}.{c.dataset}.{c.level}.{c.column.metric}@{c.column.protocol}": c
        for c in changes
        if c.verdict in ("better", "worse", "changed but not significant")
    }
    assert set(metrics) == set(ours)
    assert len(ours) == 16
    for path, change in ours.items():
        # summary.json has six decimals.
        assert metrics[path]["old"] == pytest.approx(change.old, abs=6e-7)
        assert metrics[path]["new"] == pytest.approx(change.new, abs=6e-7)
        assert metrics[path]["diff"] == pytest.approx(change.difference, abs=2e-6)
