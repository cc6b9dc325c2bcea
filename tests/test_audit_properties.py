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
from scipy import stats

from faithdiff.audit.compare import Comparison, compare
from faithdiff.audit.match import Selection, describe_cells, match_rows
from faithdiff.audit.ranks import overtakings
from faithdiff.audit.resampling import resample
from faithdiff.audit.results import Results
from faithdiff.audit.revision import Revision
from faithdiff.report.cells import Column
from faithdiff.report.scores import COLUMNS, KEY
from faithdiff.report.statistics import paired_bootstrap, sign_flip_test

ROOT = Path(__file__).resolve().parent.parent
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


def compared(old: pd.DataFrame, new: pd.DataFrame) -> Comparison:
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
        head = ("made-up", method, "", 0, dataset, level, f"{image}", metric, protocol)
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
        ("mini", method, "", 0, dataset, level, f"{image:04}", metric, "ycbcr")
        for method, dataset, level, image, metric in itertools.product(
            methods, ("Photos", "Scenes"), ("I", "II", "III"), range(250), metrics
        )
    ]
    table = pd.DataFrame(rows, columns=COLUMNS[:9]).assign(
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


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 9), st.integers(0, 99))
def test_exact_sign_flips_agree_with_scipy(images: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(0.3, 1, (images, 3))
    found = resample(values, "test", n=1000)
    for i in range(3):
        reference = sign_flip_test(values[:, i], 1000, np.random.default_rng(0))
        assert np.isclose(found.p[i], reference)


def test_sampled_statistics_agree_with_those_of_the_tables() -> None:
    values = np.random.default_rng(5).normal(0.15, 1, (60, 4))
    found = resample(values, "test")
    for i in range(4):
        rng = np.random.default_rng(i)
        low, high = paired_bootstrap(values[:, i], 10_000, rng)
        assert abs(found.low[i] - low) < 0.02
        assert abs(found.high[i] - high) < 0.02
        assert abs(found.p[i] - sign_flip_test(values[:, i], 10_000, rng)) < 0.02


def test_intervals_hold_the_true_mean_about_as_often_as_they_say() -> None:
    draws = np.random.default_rng(1).normal(2.0, 1.0, (40, 400))
    found = resample(draws, "coverage", n=2000)
    held = int(((found.low <= 2) & (found.high >= 2)).sum())
    # 400 intervals of 95 %: a binomial count; percentile intervals of 40 values are a bit short.
    assert stats.binom.cdf(held, 400, 0.90) > 1e-4
    assert stats.binom.sf(held - 1, 400, 0.99) > 1e-4
