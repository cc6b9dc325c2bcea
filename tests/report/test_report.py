"""Tables: which rows are marked, compared, and what each cell says."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shared import ROOT
from shared.scores import AWKWARD, IMAGES, load_rows, make_scores, with_report

from faithdiff.config import Profile
from faithdiff.errors import UserError
from faithdiff.report.cells import Cell, Table, number
from faithdiff.report.published import published_for
from faithdiff.report.render import to_markdown
from faithdiff.report.scores import KEY
from faithdiff.report.statistics import Draws, estimate
from faithdiff.report.tables import ablation_table, load_scores, main_table, write_tables
from faithdiff.study.layout import Layout

PAPER = ROOT / "results" / "paper"


def cells(table: Table) -> Iterator[tuple[tuple[str, str, str], Cell]]:
    for block in table.blocks:
        for row in block.rows:
            for cell, column in zip(row.cells, table.columns, strict=True):
                yield (block.name, row.method or row.label, column.metric), cell


@given(shift=st.floats(0, 1.5), noise=st.floats(0.05, 1.0), seed=st.integers(0, 99))
@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_only_a_significantly_better_best_is_bold(
    profile: Profile, shift: float, noise: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rows = ["bicubic", "frozen", "separate", "faithdiff"]
    profile = with_report(profile, main=rows)
    scores = make_scores(
        profile, lambda m, metric, i: i + shift * (m == "faithdiff") + noise * rng.normal()
    )
    table = main_table(scores, profile, paper=PAPER)
    means = scores.groupby(["dataset", "level", "metric", "method"])["value"].mean()
    for (dataset, level, metric), block, c in (
        ((b.datasets[0], b.levels[0], column.metric), b, c)
        for b in table.blocks
        for c, column in enumerate(table.columns)
    ):
        marks = {row.method: row.cells[c].mark for row in block.rows}
        assert marks.pop("bicubic") == ""  # it is no part of the controlled comparison
        own = means[dataset, level, metric][list(marks)]
        order = own.sort_values(ascending=not table.columns[c].higher_is_better).index
        best = next(row.cells[c] for row in block.rows if row.method == order[0]).comparison
        assert best is not None
        assert best.other == order[1]
        significant = not (best.low <= 0 <= best.high) and best.p_holm < 0.05
        expected = ("best", "second") if significant else ("tie", "tie")
        assert tuple(marks[method] for method in order[:2]) == expected
        printed = {method: number(mean, table.columns[c]) for method, mean in own.items()}
        for method in order[2:]:  # a mean that prints like the runner-up's has its mark
            assert marks[method] == (expected[1] if printed[method] == printed[order[1]] else "")


def test_a_clear_winner_is_bold_and_a_tie_is_not(profile: Profile) -> None:
    table = main_table(make_scores(profile), profile, paper=PAPER)
    marks = {key: cell.mark for key, cell in cells(table)}
    assert all(marks[key] == "best" for key in marks if key[1:] == ("faithdiff", "psnr"))
    assert not any(mark == "best" for key, mark in marks.items() if key[2] == "lpips")
    assert re.search(r"\| FaithDiff \| \*\*2\d\.\d\d\*\* \|", to_markdown(table))


@pytest.mark.parametrize("lead", [0.0, 2.0])
def test_rows_that_print_alike_share_the_mark(profile: Profile, lead: float) -> None:
    profile = with_report(profile, main=["frozen", "separate", "faithdiff"])

    def value(method: str, metric: str, image: int) -> float:
        # Below what is printed, and not significant.
        hidden = 1e-4 * (method == "separate") * (1 if image % 2 else -0.9)
        return 20 + 0.1 * image + hidden + lead * (method == "faithdiff")

    table = main_table(make_scores(profile, value), profile, paper=PAPER)
    assert "prints the same get the same mark" in table.caption
    marks = {key[1]: cell.mark for key, cell in cells(table) if key[2] == "psnr"}
    runner_up = "second" if lead else "tie"
    assert marks == {
        "frozen": runner_up,
        "separate": runner_up,
        "faithdiff": "best" if lead else "tie",
    }
    line = next(line for line in to_markdown(table).splitlines() if AWKWARD[:4] in line)
    assert line.split(" | ")[1].startswith("<ins>")


def test_equal_methods_tie(profile: Profile) -> None:
    table = main_table(make_scores(profile, lambda *_: 1.0), profile, paper=PAPER)
    assert {cell.mark for _, cell in cells(table)} == {"tie", ""}


@pytest.mark.parametrize(
    ("status", "rows", "printed"),
    [
        ("unavailable: weights are missing; run `faithdiff fetch x`", slice(None), "n/a"),
        ("unavailable: too small", slice(0, 1), "n/a"),
        ("failed: out of memory", slice(0, 3), f"failed 3/{IMAGES}"),
        (None, slice(0, 2), f"missing 2/{IMAGES}"),
        (None, slice(None), "not run"),
    ],
)
def test_a_cell_that_lacks_images_says_why_and_never_a_mean(
    profile: Profile, status: str | None, rows: slice, printed: str
) -> None:
    scores = make_scores(profile)
    hit = scores.query(
        "method == 'frozen' and metric == 'psnr' and dataset == 'Photos' and level == 'I'"
    ).index[rows]
    if status is None:
        scores = scores.drop(index=hit)
    else:
        scores.loc[hit, ["status", "value"]] = [status, np.nan]
    table = main_table(scores, profile, paper=PAPER)
    cell = dict(cells(table))["Photos, Level I", "frozen", "psnr"]
    assert np.isnan(cell.mean)
    assert cell.mark == ""
    line = next(line for line in to_markdown(table).splitlines() if line.startswith("| 50%"))
    assert f" {printed}<sup>1</sup> " in line
    if status is not None:
        assert status.split(": ", 1)[1] in to_markdown(table)
    others = [cell for key, cell in cells(table) if key[1:] != ("frozen", "psnr")]
    assert all(other.status == "ok" for other in others)


def test_several_seeds_are_averaged_per_image_first(profile: Profile) -> None:
    many = make_scores(profile, seeds=(0, 1, 2))
    keys = [name for name in KEY if name != "seed"]
    averaged = many.assign(value=many.groupby(keys)["value"].transform("mean")).query("seed == 0")
    some, one = (main_table(load_rows(frame), profile, paper=PAPER) for frame in (many, averaged))
    for (key, a), (_, b) in zip(cells(some), cells(one), strict=True):
        assert a.mean == pytest.approx(b.mean), key
        assert (a.usable, a.seeds) == (IMAGES, (0, 1, 2))
    assert "3 trainings, averaged per picture" in some.caption
    assert "trainings" not in one.caption


def test_a_seed_that_lacks_an_image_spoils_the_cell(profile: Profile) -> None:
    scores = make_scores(profile, seeds=(0, 1))
    gone = scores.query("method == 'bicubic' and metric == 'psnr' and seed == 1").index[0]
    statuses = [
        c.status for _, c in cells(main_table(scores.drop(index=gone), profile, paper=PAPER))
    ]
    assert statuses.count("incomplete") == 1


def test_published_rows_are_found_by_their_names_only() -> None:
    rows = published_for("DIV2K-Val", "I", "faithdiff-repo", PAPER)
    assert rows["FaithDiff"]["musiq"] == 66.53
    assert published_for("DIV2K-Val", "I", "ycbcr", PAPER) == {}
    assert published_for("Photos", "I", "faithdiff-repo", PAPER) == {}
    with pytest.raises(UserError, match="nowhere"):
        published_for("DIV2K-Val", "I", "faithdiff-repo", Path("nowhere"))


def test_published_rows_appear_where_the_names_match(profile: Profile) -> None:
    assert "not comparable" in main_table(make_scores(profile), profile, paper=PAPER).caption
    photos = profile.data.test["Photos"]
    data = profile.data.model_copy(update={"test": {"DIV2K-Val": photos}})
    like_paper = profile.model_copy(update={"data": data})
    scores = make_scores(like_paper).replace({"protocol": {"ycbcr": "faithdiff-repo"}})
    table = main_table(scores, like_paper, "faithdiff-repo", PAPER)
    assert "*FaithDiff (published)* | 24.29 |" in to_markdown(table)
    assert "not comparable" not in table.caption
    assert not any(cell.mark for key, cell in cells(table) if "published" in key[1])


@pytest.mark.parametrize("file", sorted(PAPER.glob("*.csv")), ids=lambda path: path.name)
def test_every_published_row_has_a_source_and_a_confidence(file: Path) -> None:
    rows = pd.read_csv(file, keep_default_na=False)
    assert len(rows)
    assert (rows["source"] != "").all()
    assert rows["confidence"].isin(["high", "medium", "low"]).all()
    assert (rows.loc[rows["confidence"] == "low", "note"] != "").all()


def test_the_ablation_compares_each_row_with_the_first(profile: Profile) -> None:
    scores = make_scores(profile)
    found = dict(cells(ablation_table(scores, profile)))
    wide = scores.pivot_table(
        "value", ["metric", "dataset", "level", "image"], "method", aggfunc="mean"
    )
    for (block, method, metric), cell in found.items():
        rows = wide.loc[metric]
        if block != "All levels":
            rows = rows.xs(block.removeprefix("Level "), level="level")
        assert cell.mean == pytest.approx(rows[method].mean())
        if method == "faithdiff":
            assert cell.comparison is None
            continue
        assert cell.comparison is not None
        assert cell.comparison.mean == pytest.approx((rows[method] - rows["faithdiff"]).mean())
        assert cell.comparison.low <= cell.comparison.mean <= cell.comparison.high
    assert found["All levels", "frozen", "heldout_loss"].expected == IMAGES  # half of two sets
    assert found["All levels", "frozen", "psnr"].comparison.significant  # type: ignore[union-attr]


def test_the_unit_of_pairing_is_the_picture_not_its_levels_or_crops(profile: Profile) -> None:
    scores = make_scores(profile)
    key = ("All levels", "frozen", "psnr")
    wide = dict(cells(ablation_table(scores, profile)))[key]
    # A second level that repeats the first adds no picture, so it must not narrow the interval.
    psnr = scores.query("metric == 'psnr' and level == 'I' and method in ('frozen', 'faithdiff')")
    pair = psnr.pivot(index=["dataset", "image"], columns="method", values="value")
    values = (pair["frozen"] - pair["faithdiff"]).to_numpy()[None]
    one = estimate(values, Draws(800, 0, ("any",)))
    assert wide.comparison is not None
    assert wide.comparison.high - wide.comparison.low == pytest.approx(one.high - one.low, rel=0.15)
    # Nor do crops: here two of each photograph.
    halved = scores.assign(picture=(scores["image"].astype(int) // 2).astype(str))
    cropped = dict(cells(ablation_table(halved, profile)))[key]
    assert (wide.pictures, wide.usable) == (2 * IMAGES, 2 * IMAGES)
    assert (cropped.pictures, cropped.usable) == (IMAGES, 2 * IMAGES)
    assert cropped.mean == pytest.approx(wide.mean)
    assert cropped.high - cropped.low > wide.high - wide.low
    assert f"n = {IMAGES}, " in ablation_table(halved, profile).caption


def test_each_row_of_the_main_table_is_tested_against_the_reference(profile: Profile) -> None:
    scores = make_scores(profile)
    found = dict(cells(main_table(scores, profile, paper=PAPER)))
    psnr = scores.query("metric == 'psnr' and dataset == 'Photos' and level == 'I'")
    means = psnr.groupby("method")["value"].mean()
    cell = found["Photos, Level I", "bicubic", "psnr"]
    assert cell.against is not None
    assert cell.against.other == "faithdiff"
    assert cell.against.mean == pytest.approx(means["bicubic"] - means["faithdiff"])
    assert cell.against.significant
    tests = [c.against for _, c in cells(main_table(scores, profile, paper=PAPER)) if c.against]
    assert len(tests) == 2 * 2 * 2 * 2  # sets, levels, metrics, rivals
    # Corrected over the two rivals of a column, and not over the table.
    column = [found["Photos, Level I", name, "psnr"].against for name in ("bicubic", "frozen")]
    assert min(t.p for t in column) * 2 == pytest.approx(min(t.p_holm for t in column))
    assert found["Photos, Level I", "faithdiff", "psnr"].against is None
    other = profile.model_copy(
        update={"report": profile.report.model_copy(update={"reference": "bicubic"})}
    )
    swapped = dict(cells(main_table(scores, other, paper=PAPER)))
    against = swapped["Photos, Level I", "faithdiff", "psnr"].against
    assert against is not None
    assert against.mean == pytest.approx(-cell.against.mean)


def test_the_spread_of_trainings_enters_interval_and_star(profile: Profile) -> None:
    rng = np.random.default_rng(1)
    shift = {(m, s): rng.normal(0, 3) for m in ("faithdiff", "frozen") for s in range(3)}
    scores = make_scores(profile, seeds=(0, 1, 2))
    agreed = dict(cells(ablation_table(scores, profile)))["All levels", "frozen", "psnr"]
    moved = [shift.get((m, s), 0) for m, s in zip(scores["method"], scores["seed"], strict=True)]
    varied = dict(cells(ablation_table(scores.assign(value=scores["value"] + moved), profile)))
    cell = varied["All levels", "frozen", "psnr"]
    assert agreed.comparison is not None and cell.comparison is not None
    assert agreed.comparison.significant and not cell.comparison.significant
    assert (cell.seeds, cell.comparison.trainings) == ((0, 1, 2), 3)
    own = [shift["frozen", seed] + 0.01 * seed for seed in range(3)]
    assert cell.seed_sd == pytest.approx(np.std(own, ddof=1))


def test_a_caption_says_where_no_difference_could_be_significant(profile: Profile) -> None:
    few = make_scores(profile).query("image < '0005'")
    assert "few pictures limit p, before the correction, to 0.062 at n = 5" in (
        main_table(load_rows(few), profile, paper=PAPER).caption
    )
    assert "limit p" not in main_table(make_scores(profile), profile, paper=PAPER).caption


def test_tables_do_not_depend_on_the_order_of_the_rows(profile: Profile, made_up: Layout) -> None:
    file = made_up.results / "scores.csv"
    before = {path: path.read_bytes() for path in write_tables(profile, made_up)}
    assert {path.name for path in before} == {
        f"{table}.{suffix}"
        for table in ("main", "ablation", "cost")
        for suffix in ("md", "tex", "csv", "cells.json")
    }
    scores = pd.read_csv(file, dtype=str, keep_default_na=False)
    scores.sample(frac=1, random_state=5).to_csv(file, index=False)
    assert {path: path.read_bytes() for path in write_tables(profile, made_up)} == before


def test_every_cell_leads_back_to_its_rows(profile: Profile, made_up: Layout) -> None:
    write_tables(profile, made_up)
    for name in ("main", "ablation"):
        sidecar = json.loads((made_up.results / "tables" / f"{name}.cells.json").read_text())
        scores = load_scores(Path(sidecar["scores"]))
        tidy = pd.read_csv(made_up.results / "tables" / f"{name}.csv")
        assert len(sidecar["cells"]) == len(tidy)
        for cell in sidecar["cells"].values():
            rows = scores[
                (scores["method"] == cell["method"])
                & (scores["metric"] == cell["metric"])
                & (scores["protocol"] == cell["protocol"])
                & scores["dataset"].isin(cell["datasets"])
                & scores["level"].isin(cell["levels"])
                & scores["seed"].isin(cell["seeds"])
            ]
            images = sidecar["images"][f"{cell['protocol']}/{cell['metric']}"]
            places = set(zip(rows["dataset"] + "/" + rows["level"], rows["image"], strict=True))
            wanted = {
                (f"{dataset}/{level}", image)
                for dataset, level in itertools.product(cell["datasets"], cell["levels"])
                for image in images[f"{dataset}/{level}"]
            }
            assert places == wanted
            assert rows["value"].mean() == pytest.approx(cell["mean"], rel=1e-12)
        assert tidy["mean"].to_list() == [cell["mean"] for cell in sidecar["cells"].values()]
