"""Properties of the audit's verdicts, on score tables that hypothesis makes up."""

from __future__ import annotations

import itertools
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared import ROOT

from faithdiff.audit.compare import CellChanges, compare
from faithdiff.audit.match import Selection, describe_cells, match_rows
from faithdiff.audit.ranks import overtakings
from faithdiff.audit.resampling import resample
from faithdiff.audit.results import Results
from faithdiff.audit.revision import Revision
from faithdiff.report.cells import Column
from faithdiff.report.scores import COLUMNS, KEY
from faithdiff.report.statistics import Draws, estimate

METRICS = {
    ("psnr", "ycbcr"): Column("psnr", "ycbcr", "PSNR", "dB", 2, higher_is_better=True),
    ("gmsd", "ycbcr"): Column("gmsd", "ycbcr", "GMSD", "", 4, higher_is_better=False),
}
FLIPPED = {
    "better": "worse", "worse": "better", "added": "removed", "removed": "added",
    "newly failing": "newly working", "newly working": "newly failing",
}  # fmt: skip


class Nowhere(Revision):
    """A revision without files."""

    def __init__(self) -> None:
        self.name = self.title = "nowhere"

    def read(self, path: str) -> bytes | None:
        return None

    def names(self, folder: str) -> list[str]:
        return []

    def place(self, path: str) -> str:
        return path


def results(scores: pd.DataFrame) -> Results:
    ordered = scores.sort_values(KEY, ignore_index=True)
    return Results(Nowhere(), "made-up", ordered, {}, {}, {})


def compared(old: pd.DataFrame, new: pd.DataFrame) -> CellChanges:
    rows = match_rows(results(old), results(new), Selection())
    return compare(rows, describe_cells(rows, {}), METRICS)


def table(
    values: np.ndarray, methods: list[str], bad: set[tuple[str, str]], images: int
) -> pd.DataFrame:
    """Rows of all methods; `bad` pairs of method and metric failed, or have another protocol."""
    rows = []
    places = itertools.product(methods, ("A", "B"), ("I", "II"), range(images), METRICS)
    for i, (method, dataset, level, image, (metric, protocol)) in enumerate(places):
        failed = (method, metric) in bad
        digest = "other" if (method, f"{metric}!") in bad else "same"
        value, status = (np.nan, "failed: why") if failed else (values[i % len(values)], "ok")
        head = ("made-up", method, "", 0, dataset, level, f"{image}", f"{image}", metric, protocol)
        rows.append((*head, value, status, "r", "h", digest))
    return pd.DataFrame(rows, columns=COLUMNS)


@st.composite
def tables(draw: st.DrawFn) -> tuple[pd.DataFrame, pd.DataFrame]:
    images = draw(st.integers(2, 6))
    names = ["one", "two", "three"]
    sides = []
    for _ in range(2):
        methods = draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
        shift = draw(st.sampled_from([0.0, 0.5, -0.5]))
        seed = draw(st.integers(0, 3))
        values = np.random.default_rng(seed).normal(20, 1, 96).round(3) + shift
        flaws = st.tuples(st.sampled_from(names), st.sampled_from(["psnr", "psnr!", "gmsd"]))
        bad = draw(st.sets(flaws, max_size=2))
        sides.append(table(values, methods, bad, images))
    return sides[0], sides[1]


@settings(max_examples=25, deadline=None)
@given(tables())
def test_swapping_old_and_new_mirrors_every_verdict(
    pair: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    there, back = compared(*pair), compared(*pair[::-1])
    assert len(there.changes) == len(back.changes)
    for a, b in zip(there.changes, back.changes, strict=True):
        assert (a.method, a.dataset, a.level, a.column) == (b.method, b.dataset, b.level, b.column)
        assert b.verdict == FLIPPED.get(a.verdict, a.verdict)
        np.testing.assert_equal(
            (a.old, a.new, a.low, a.high), (b.new, b.old, 0 - b.high, 0 - b.low)
        )
        np.testing.assert_equal((a.p, a.p_holm), (b.p, b.p_holm))


@settings(max_examples=15, deadline=None)
@given(tables())
def test_equal_tables_give_only_identical(pair: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    found = compared(pair[0], pair[0])
    assert {c.verdict for c in found.changes} <= {"identical", "no value"}
    assert overtakings(found.blocks, METRICS) == []


@settings(max_examples=15, deadline=None)
@given(tables(), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(
    pair: tuple[pd.DataFrame, pd.DataFrame], random: st.DataObject
) -> None:
    seed = random.randrange(2**32)  # type: ignore[attr-defined]
    shuffled = [side.sample(frac=1, random_state=seed) for side in pair]
    assert repr(compared(*pair).changes) == repr(compared(*shuffled).changes)


@settings(max_examples=15, deadline=None)
@given(tables())
def test_every_cell_of_either_side_gets_one_verdict(
    pair: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    cell = ["method", "dataset", "level", "metric", "protocol"]
    both = pd.concat(pair)[cell].drop_duplicates()
    found = [
        (c.method, c.dataset, c.level, c.column.metric, c.column.protocol)
        for c in compared(*pair).places
    ]
    assert len(found) == len(set(found))
    assert set(found) == set(both.itertuples(index=False, name=None))


# --- speed ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_large_study_is_audited_in_under_ten_seconds(tmp_path: Path) -> None:
    """10 methods, 6 places, 250 images, 8 metrics; CPU seconds, start-up and printing included."""
    rng = np.random.default_rng(0)
    metrics = ["psnr", "ssim", "ms_ssim", "gmsd", "fsim", "lpips", "musiq", "clipiqa+"]
    methods = [f"method{i}" for i in range(10)]
    rows = [
        ("mini", method, "", 0, dataset, level, f"{image:04}", f"{image:04}", metric, "ycbcr")
        for method, dataset, level, image, metric in itertools.product(
            methods, ("Photos", "Scenes"), ("I", "II", "III"), range(250), metrics
        )
    ]
    table = pd.DataFrame(rows, columns=COLUMNS[:10]).assign(
        value=rng.normal(20, 1, len(rows)), status="ok", restored_sha256="a" * 64,
        hq_sha256="b" * 64, protocol_sha256="c" * 16,
    )  # fmt: skip
    for side, shift in (("old", 0.0), ("new", 0.01)):
        (tmp_path / side).mkdir()
        moved = table["value"] + rng.normal(shift, 0.2, len(rows))
        table.assign(value=moved).to_csv(tmp_path / side / "scores.csv", index=False)
    code = "from faithdiff.cli import main; main()"
    command = [sys.executable, "-c", code, "audit", str(tmp_path / "old"), str(tmp_path / "new")]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode in (0, 1), done.stderr
    assert "480 cells" in done.stdout
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{len(rows):,} rows a side: {seconds:.1f} CPU seconds")
    assert seconds < 10


# --- the statistics, against those of the tables ------------------------------------------------


@pytest.mark.parametrize("pictures", [9, 60])
def test_intervals_and_tests_are_those_of_the_tables(pictures: int) -> None:
    values = np.random.default_rng(5).normal(0.15, 1, (pictures, 4))
    found = resample(values, "test")
    for i in range(4):
        table = estimate(values[:, i][None], Draws(10_000, 7, ("a table",)))
        close = 0.1 * (table.high - table.low)  # other draws
        assert found.low[i] == pytest.approx(table.low, abs=close)
        assert found.high[i] == pytest.approx(table.high, abs=close)
        assert found.p[i] == pytest.approx(table.p, abs=1e-12 if pictures < 20 else 0.02)


def test_crops_of_one_picture_are_no_new_pictures_for_the_audit() -> None:
    rng = np.random.default_rng(2)
    old = table(rng.normal(20, 1, 400), ["faithdiff"], set(), 12)
    new = old.assign(value=old["value"] + rng.normal(0.5, 0.5, len(old)))
    crops = new.assign(picture=(new["image"].astype(int) // 3).astype(str))
    # OLD does not say what its images were cut from: NEW does.
    one, other = compared(old, new), compared(old, crops)
    assert [c.n for c in one.overall] == [24, 24]
    assert [c.n for c in other.overall] == [8, 8]
    for a, b in zip(one.overall, other.overall, strict=True):
        assert (a.old, a.new) == pytest.approx((b.old, b.new))
        assert b.p > a.p
