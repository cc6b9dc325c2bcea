"""Tables and figures from a made-up ``scores.csv``: what is bold, and what is not a number."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image
from scipy import stats
from shared import ROOT
from shared.scores import AWKWARD, IMAGES, load_rows, make_scores, with_report

from faithdiff.config import Profile, load_profile
from faithdiff.data.images import write_png
from faithdiff.errors import ImageError, UserError
from faithdiff.methods.method import Study
from faithdiff.report.cells import Cell, Table, number
from faithdiff.report.figures import write_figures
from faithdiff.report.html import to_html
from faithdiff.report.latex import latex_escape, latex_head, to_latex
from faithdiff.report.panels import detailed_box, levels_figure, panel_level, panels_figure
from faithdiff.report.published import published_for
from faithdiff.report.render import to_markdown
from faithdiff.report.scores import KEY
from faithdiff.report.statistics import Draws, estimate
from faithdiff.report.style import RC, WIDTH, method_styles, save
from faithdiff.report.tables import ablation_table, load_scores, main_table, write_tables
from faithdiff.report.training import training_figure
from faithdiff.study.layout import Layout

PAPER = ROOT / "results" / "paper"


def cells(table: Table) -> Iterator[tuple[tuple[str, str, str], Cell]]:
    for block in table.blocks:
        for row in block.rows:
            for cell, column in zip(row.cells, table.columns, strict=True):
                yield (block.name, row.method or row.label, column.metric), cell


# --- scores.csv ---------------------------------------------------------------------------------


def test_a_score_file_survives_the_round_trip(profile: Profile, tmp_path: Path) -> None:
    scores = make_scores(profile)
    scores.to_csv(tmp_path / "scores.csv", index=False)
    pd.testing.assert_frame_equal(load_scores(tmp_path / "scores.csv"), scores)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: f.drop(columns="status"), "has no column status"),
        (lambda f: pd.concat([f, f.iloc[[3]]]), "occurs twice"),
        (lambda f: f.assign(status="fine"), "status is 'fine'"),
        (lambda f: f.assign(status="failed: "), "status is 'failed: '"),
        (lambda f: f.assign(value="inf"), "value is 'inf', not a finite number"),
        (lambda f: f.assign(value=""), "value is ''"),
        (lambda f: f.assign(seed="first"), "seed is 'first'"),
        (lambda f: f.assign(picture=""), "picture is empty"),
    ],
)
def test_a_corrupted_score_file_is_named(
    profile: Profile,
    tmp_path: Path,
    spoil: Callable[[pd.DataFrame], pd.DataFrame],
    message: str,
) -> None:
    file = tmp_path / "scores.csv"
    spoil(make_scores(profile)).to_csv(file, index=False)
    with pytest.raises(UserError, match=re.escape(str(file))) as caught:
        load_scores(file)
    assert message in str(caught.value)


def test_a_missing_or_empty_score_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    for name in ("absent.csv", "empty.csv"):
        with pytest.raises(UserError, match=name):
            load_scores(tmp_path / name)


# --- the main table -----------------------------------------------------------------------------


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


# --- published numbers --------------------------------------------------------------------------


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


# --- the ablation table -------------------------------------------------------------------------


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


# --- printing -----------------------------------------------------------------------------------


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


def test_special_characters_are_escaped_in_latex(profile: Profile) -> None:
    text = latex_escape(AWKWARD)
    assert not re.search(r"(?<!\\)[%&#_]|--|[<>|\"]", text)
    assert text.count(r"\$") == 1
    for table in (main_table(make_scores(profile), profile, paper=PAPER),):
        assert text in to_latex(table)
    assert latex_escape("run `a_b --c` now") == r"run \texttt{a\_b -{}-c} now"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="NO pdflatex: LaTeX is NOT compiled")
def test_latex_compiles_with_booktabs_alone(profile: Profile, tmp_path: Path) -> None:
    scores = make_scores(profile)
    lost = scores.query("method == 'separate' or (method == 'bicubic' and level == 'II')").index
    scores.loc[lost, ["status", "value"]] = [f"failed: {AWKWARD} `{AWKWARD}`", np.nan]
    body = to_latex(main_table(scores, profile, paper=PAPER))
    body += to_latex(ablation_table(scores, profile))
    compile_article(rf"\usepackage{{booktabs}}\begin{{document}}{body}", tmp_path)


def compile_article(content: str, folder: Path) -> None:
    document = rf"\documentclass{{article}}{content}\end{{document}}"
    (folder / "t.tex").write_text(document, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    run = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    assert run.returncode == 0, run.stdout.decode(errors="replace")[-2000:]


LABEL = "A & B < 50 %, $x_{1$ ~é~ α ≤ 2 → 字"  # as people write them


def test_a_label_is_text_in_every_format(profile: Profile, tmp_path: Path) -> None:
    variants = dict(profile.variants)
    variants["frozen"] = variants["frozen"].model_copy(update={"label": LABEL})
    profile = profile.model_copy(update={"variants": variants})
    table = main_table(make_scores(profile), profile, paper=PAPER)
    assert r"| A \& B \< 50 %, \$x\_{1\$ \~é\~ α ≤ 2 → 字 |" in to_markdown(table)
    assert '<th scope="row">A &amp; B &lt; 50 %, $x_{1$ ~é~ α ≤ 2 → 字</th>' in to_html(table)
    latex = to_latex(table)
    assert r"A \& B \textless{} 50 \%, \$x\_\{1\$" in latex and r"$\alpha$ $\leq$ 2" in latex
    assert latex.splitlines()[2] == "% pdflatex has no 字: lualatex and a font that has them."
    with matplotlib.rc_context(RC):
        figure = Figure()
        figure.text(0, 0, LABEL.replace("字", ""))
        save(figure, tmp_path / "label")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="NO pdflatex: LaTeX is NOT compiled")
def test_pdflatex_prints_what_is_not_said_to_be_beyond_it(tmp_path: Path) -> None:
    text = latex_escape("ünï ß ő – “q” ‘s’ … € † • × → ≤ ≥ ≈ ≠ ∞ µ α λ ω − ± ° ² ½ ÷")
    assert not [line for line in latex_head("x", text) if "pdflatex has no" in line]
    compile_article(rf"\begin{{document}}{text} \textbf{{{text}}}", tmp_path)


# --- figures ------------------------------------------------------------------------------------


def test_every_figure_is_written(profile: Profile, made_up: Layout) -> None:
    found = write_figures(Study(profile, Path("config/mini.yaml"), made_up))
    panels = [f"panels-{name}-{panel_level(profile, name)}" for name in profile.data.test]
    names = ["levels", *panels, "ablation", "training", "perception-distortion"]
    folder = made_up.results / "figures"
    assert set(found) == {folder / f"{n}.{s}" for n in names for s in ("png", "pdf")}
    assert set(found) == set(folder.iterdir())
    for path in found:
        if path.suffix == ".pdf":
            content = path.read_bytes()
            assert b"CreationDate" not in content
            assert b"/CIDFontType2" in content  # TrueType, not Type 3
            fonts = content.count(b"/Type /FontDescriptor")
            assert fonts and content.count(b"/FontFile2") == fonts  # each is embedded
            (width,) = re.findall(rb"/MediaBox \[ 0 0 ([\d.]+)", content)
            assert float(width) <= 72 * WIDTH + 0.1  # fits the text width of a paper
            continue
        with Image.open(path) as picture:
            assert min(picture.size) > 200
            assert np.asarray(picture.convert("L")).std() > 10


def test_equal_figures_give_equal_bytes(profile: Profile, made_up: Layout) -> None:
    def draw(name: str) -> list[bytes]:
        with matplotlib.rc_context(RC):
            return [path.read_bytes() for path in save(levels_figure(profile, made_up), Path(name))]

    assert draw("one") == draw("two")


def test_a_missing_restoration_is_named(profile: Profile, made_up: Layout) -> None:
    file = made_up.restoration("frozen", 0, "Scenes", "II") / "0001.png"
    file.unlink()
    with pytest.raises(ImageError, match=re.escape(str(file))):
        panels_figure(profile, made_up, make_scores(profile), "Scenes", "II")


def test_a_restoration_of_another_size_is_refused(profile: Profile, made_up: Layout) -> None:
    file = made_up.restoration("frozen", 0, "Scenes", "II") / "0001.png"
    write_png(np.zeros((48, 60, 3), np.uint8), file)
    with pytest.raises(ImageError, match="is 60 x 48, not 64 x 48 px"):
        panels_figure(profile, made_up, make_scores(profile), "Scenes", "II")


def test_a_restoration_that_failed_is_drawn_as_failed(profile: Profile, made_up: Layout) -> None:
    (made_up.restoration("frozen", 0, "Scenes", "II") / "0001.png").unlink()
    scores = make_scores(profile)
    hit = (scores["method"] == "frozen") & (scores["image"] == "0001") & (scores["level"] == "II")
    scores.loc[hit, ["status", "value"]] = ["failed: out of memory", np.nan]
    figure = panels_figure(profile, made_up, scores, "Scenes", "II")
    assert [text.get_text() for axes in figure.axes for text in axes.texts] == ["failed"] * 2
    captions = [axes.get_xlabel() for axes in figure.axes if axes.get_xlabel()]
    assert captions.count("n/a") == 1
    assert len(captions) == 6  # three methods, two images


def test_a_study_that_trained_nothing_has_no_training_figure(
    profile: Profile, made_up: Layout
) -> None:
    assert len(training_figure(profile, made_up).axes) == 3  # type: ignore[union-attr]
    (made_up.results / "training.csv").unlink()
    assert training_figure(profile, made_up) is None


def test_a_method_looks_the_same_in_every_figure_and_unlike_the_others() -> None:
    styles = method_styles(load_profile(ROOT / "config" / "mini.yaml"))
    looks = [(style.colour, style.marker) for style in styles.values()]
    assert len(set(looks)) == len(looks)
    assert styles["faithdiff"].colour == "#D55E00"


@given(st.integers(4, 70), st.integers(4, 70), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_the_enlarged_box_lies_inside_the_image(height: int, width: int, seed: int) -> None:
    hq = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    top, left, side = detailed_box(hq)
    assert 0 <= top <= height - side
    assert 0 <= left <= width - side
    assert side >= 1


def test_the_enlarged_box_finds_the_detail() -> None:
    hq = np.full((64, 96, 3), 90, np.uint8)
    hq[40:56, 70:86] = np.random.default_rng(0).integers(0, 256, (16, 16, 3))
    top, left, side = detailed_box(hq)
    assert (side, abs(top - 40) <= 2, abs(left - 70) <= 2) == (16, True, True)
    assert stats.entropy(np.bincount(hq[top : top + side, left : left + side].ravel())) > 3
