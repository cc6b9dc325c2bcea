"""What tables leave out, set apart and print beside a number; the figures that go with it."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from shared import ROOT
from shared.printed import Cells, compile_latex
from shared.scores import IMAGES, make_scores, with_report

from faithdiff.config import Baseline, HeldOut, PhotoSet, Profile, load_profile
from faithdiff.data.photos import PHOTOS
from faithdiff.report.cells import TITLES, Row, Table
from faithdiff.report.groups import contenders, group_of, in_groups
from faithdiff.report.heldout import heldout_figure
from faithdiff.report.html import to_html
from faithdiff.report.latex import to_latex
from faithdiff.report.measured import counted, unmeasured
from faithdiff.report.panels import box_of, detailed_box, panels_figure
from faithdiff.report.records import to_cells, to_csv
from faithdiff.report.render import to_markdown
from faithdiff.report.style import method_styles
from faithdiff.report.tables import ablation_table, main_table, metric_columns
from faithdiff.report.tradeoff import tradeoff_figure
from faithdiff.study.layout import Layout

PAPER = ROOT / "results" / "paper"
PRINTERS: tuple[Callable[[Table], str], ...] = (
    to_markdown, to_latex, to_html, to_csv, to_cells
)  # fmt: skip
needs_latex = pytest.mark.skipif(
    shutil.which("pdflatex") is None,
    reason="NOT RUN: LaTeX is not compiled; install Debian's texlive-latex-base",
)


def lacking(scores: pd.DataFrame, metric: str, why: str) -> pd.DataFrame:
    """The scores of a study in which nobody could measure a metric."""
    own = scores["metric"] == metric
    return scores.assign(
        value=scores["value"].mask(own), status=scores["status"].mask(own, f"unavailable: {why}")
    )


def needs(metric: str) -> str:
    return f"needs {metric}.pth (5 MB); run: faithdiff fetch --weights {metric}"


@pytest.fixture
def broad(profile: Profile, tmp_path: Path) -> Profile:
    """Also a published system, a second sampler, and the metrics of the default study."""
    mini = load_profile(ROOT / "config" / "mini.yaml")
    protocols = yaml.safe_load((ROOT / "config" / "protocols.yaml").read_text("utf-8"))
    defined = protocols["protocols"]["ycbcr"]["metrics"]
    stand_in = {**defined["lpips"], "network": "stlpips", "label": "ST-LPIPS"}
    defined.setdefault("st-lpips", stand_in)
    (tmp_path / "protocols.yaml").write_text(yaml.safe_dump(protocols), encoding="utf-8")
    published = Baseline(label="Real-ESRGAN (published)", implementation="a:B", published=True)
    names = ("supir", "supir-own")
    baselines = {
        "realesrgan-x4plus": published,
        "bicubic": mini.baselines["bicubic"],
        **{name: mini.baselines[name] for name in names},
    }
    metrics = ["psnr", "ssim", "st-lpips", "lpips", "musiq", "clipiqa+"]
    changes = {"protocols_file": tmp_path / "protocols.yaml", "metrics": metrics}
    score = profile.score.model_copy(update=changes)
    main = ["faithdiff", "realesrgan-x4plus", "supir", "supir-own", "bicubic"]
    wider = profile.model_copy(update={"baselines": baselines, "score": score})
    return with_report(wider, main=main, bootstrap=4096)  # all signs of 12 images


def broad_scores(broad: Profile, seeds: tuple[int, ...] = (0,)) -> pd.DataFrame:
    """The published system has the best of every metric; FaithDiff is ahead of the controlled."""

    def value(method: str, metric: str, image: int) -> float:
        ahead = {"realesrgan-x4plus": 2.0, "faithdiff": 1.0}.get(method, 0.0)
        noise = np.random.default_rng([image, len(method), len(metric)]).normal()
        sign = -0.1 if metric in ("st-lpips", "lpips", "heldout_loss") else 1.0
        return 20 + sign * (ahead + 0.05 * noise) + 0.1 * image

    return make_scores(broad, value, seeds)


# --- what was not measured ----------------------------------------------------------------------


def test_no_table_prints_a_column_that_nobody_could_measure(broad: Profile) -> None:
    scores = broad_scores(broad)
    whole = main_table(scores, broad, paper=PAPER)
    for metric in ("lpips", "musiq", "clipiqa+"):
        scores = lacking(scores, metric, needs(metric))
    command = "faithdiff fetch --weights lpips --weights musiq --weights clipiqa+"
    for table in (main_table(scores, broad, paper=PAPER), ablation_table(scores, broad)):
        kept = [column.metric for column in table.columns if column.metric != "heldout_loss"]
        assert kept == ["psnr", "ssim", "st-lpips"]
        assert table.unmeasured == (
            f"Not measured: LPIPS, MUSIQ, CLIPIQA+ (`{command}`, then `snakemake --cores all`)."
        )
        assert not table.footnotes
        for text in map(lambda printer, t=table: printer(t), PRINTERS):
            assert "n/a" not in text
            assert "MUSIQ ↑" not in text and "|musiq" not in text
        assert to_markdown(table).count(command) == 1
        assert to_latex(table).count("faithdiff fetch") == 1
    assert [column.metric for column in whole.columns] == broad.score.metrics  # once measured
    assert whole.unmeasured == ""


def test_a_metric_that_one_method_lacks_keeps_its_column(broad: Profile) -> None:
    scores = broad_scores(broad)
    own = (scores["method"] == "supir") & (scores["metric"] == "musiq")
    scores.loc[own, ["status", "value"]] = [f"unavailable: {needs('musiq')}", np.nan]
    table = main_table(scores, broad, paper=PAPER)
    assert "musiq" in [column.metric for column in table.columns] and not table.unmeasured
    assert "n/a<sup>1</sup>" in to_markdown(table)


def test_published_numbers_keep_the_column_of_a_metric_that_we_lack(broad: Profile) -> None:
    photos = broad.data.test["Photos"]
    data = broad.data.model_copy(update={"test": {"DIV2K-Val": photos}})
    protocols = ["faithdiff-repo"]
    score = broad.score.model_copy(update={"metrics": ["psnr", "musiq"], "protocols": protocols})
    like_paper = broad.model_copy(update={"data": data, "score": score})
    scores = broad_scores(like_paper).replace({"protocol": {"ycbcr": "faithdiff-repo"}})
    scores = lacking(scores, "musiq", needs("musiq"))
    table = main_table(scores, like_paper, "faithdiff-repo", PAPER)
    assert [column.metric for column in table.columns] == ["psnr", "musiq"]
    assert "*Quoted from the paper*" in to_markdown(table)


def test_the_sentence_names_each_way_out_once() -> None:
    package = "needs weights of stlpips-pytorch 0.1; run: pip install stlpips-pytorch==0.1"
    small = "needs 192 px on the shorter side, the image has 128"
    reasons = {"LPIPS": needs("lpips"), "ST-LPIPS": package, "NIQE": small, "MUSIQ": needs("musiq")}
    assert unmeasured(reasons) == (
        "Not measured: LPIPS, MUSIQ (`faithdiff fetch --weights lpips --weights musiq`, then "
        "`snakemake --cores all`); ST-LPIPS (`pip install stlpips-pytorch==0.1`, then "
        f"`snakemake --cores all`); NIQE ({small})."
    )
    both = {"LPIPS": f"{needs('lpips')}; {package}"}
    assert unmeasured(both) == (
        "Not measured: LPIPS (`faithdiff fetch --weights lpips`, then `snakemake --cores all`); "
        "LPIPS (`pip install stlpips-pytorch==0.1`, then `snakemake --cores all`)."
    )
    assert unmeasured({}) == ""


@needs_latex
def test_a_study_without_any_learned_metric_ends_with_clear_tables(
    broad: Profile, tmp_path: Path
) -> None:
    scores = broad_scores(broad)
    for metric in broad.score.metrics[2:]:
        scores = lacking(scores, metric, needs(metric))
    table = main_table(scores, broad, paper=PAPER)
    assert [column.label for column in table.columns] == ["PSNR", "SSIM"]
    assert "ST-LPIPS, LPIPS, MUSIQ, CLIPIQA+ (" in table.unmeasured
    assert "surrogate" not in table.caption  # there is no such column
    assert tradeoff_figure(broad, table) is None
    compile_latex([to_latex(table)], tmp_path)


def test_a_table_without_one_measured_metric_still_says_why(broad: Profile) -> None:
    only = broad.score.model_copy(update={"metrics": ["musiq"]})
    profile = broad.model_copy(update={"score": only})
    scores = lacking(broad_scores(profile), "musiq", needs("musiq"))
    table = main_table(scores, profile, paper=PAPER)
    assert table.columns == ()
    for printer in PRINTERS:
        text = printer(table)
        assert "faithdiff fetch" in text or printer is to_csv
    assert to_csv(table).startswith("block,datasets,levels,method,label,group,updates,metric")


def test_values_are_counted_metric_by_metric(broad: Profile) -> None:
    scores = lacking(broad_scores(broad), "lpips", needs("lpips"))
    failed = scores.index[scores["metric"] == "ssim"][:3]
    scores.loc[failed, ["status", "value"]] = ["failed: out of memory", np.nan]
    counts, line = counted(scores, metric_columns(broad))
    places = len(broad.methods) * len(broad.data.places) * IMAGES
    assert counts[:2] == [f"PSNR {places} of {places}", f"SSIM {places - 3} of {places}"]
    assert not any(count.startswith("LPIPS") for count in counts)
    assert line.startswith("Not measured: LPIPS (`faithdiff fetch --weights lpips`")


# --- published systems apart --------------------------------------------------------------------


def test_a_published_system_stands_apart_and_is_never_marked(broad: Profile) -> None:
    table = main_table(broad_scores(broad), broad, paper=PAPER)
    order = ["bicubic", "realesrgan-x4plus", "faithdiff", "supir", "supir-own"]
    for block in table.blocks:
        assert [row.method for row in block.rows] == order
        groups = [row.group for row in block.rows]
        assert groups == ["", "published", "controlled", "controlled", "controlled"]
        for c, column in enumerate(table.columns):
            means = {row.method: row.cells[c].mean for row in block.rows}
            best = max if column.higher_is_better else min
            assert best(means, key=lambda name: means[name]) == "realesrgan-x4plus"
            marks = {row.method: row.cells[c].mark for row in block.rows}
            assert marks["realesrgan-x4plus"] == marks["bicubic"] == ""
            assert marks["faithdiff"] == "best"
    assert "best of the controlled rows" in table.caption


def test_the_rule_between_the_groups_is_printed_in_every_format(broad: Profile) -> None:
    table = main_table(broad_scores(broad), broad, paper=PAPER)
    markdown = to_markdown(table).splitlines()
    published, controlled = TITLES["published"], TITLES["controlled"]
    lines = [markdown.index(f"| *{title}* |" + "  |" * 6) for title in (published, controlled)]
    assert markdown[lines[0] - 1].startswith("| Bicubic |")
    assert lines[1] == lines[0] + 2 and markdown[lines[1] + 1].startswith("| FaithDiff |")
    latex = to_latex(table)
    for title in (published, controlled):
        line = rf"\midrule{chr(10)}\multicolumn{{7}}{{@{{}}l}}{{\emph{{{title}}}}} \\"
        assert latex.count(line) == len(table.blocks)
    rows = [[text.strip() for text in row] for row in Cells(to_html(table)).rows]
    assert rows.count([published]) == rows.count([controlled]) == len(table.blocks)
    records = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert {r["method"] for r in records if r["group"] == "published"} == {"realesrgan-x4plus"}
    assert json.loads(to_cells(table))["groups"] == {
        "published": published, "controlled": controlled,
    }  # fmt: skip


def test_rows_of_one_group_have_no_rule(broad: Profile) -> None:
    alone = with_report(broad, main=["bicubic", "supir", "faithdiff"])
    text = to_markdown(main_table(broad_scores(alone), alone, paper=PAPER))
    assert not any(title in text for title in TITLES.values())


def test_groups_of_a_study_of_published_weights(broad: Profile) -> None:
    faithdiff = broad.variants["faithdiff"].model_copy(update={"weights": Path("FaithDiff.bin")})
    released = broad.model_copy(update={"variants": {**broad.variants, "faithdiff": faithdiff}})
    rows = ["bicubic", "realesrgan-x4plus", "faithdiff"]
    assert [group_of(released, name) for name in rows] == ["", "published", "published"]
    assert contenders(released, rows) == rows  # nothing was trained here: all are compared
    assert in_groups(broad, ["supir-own", "realesrgan-x4plus", "bicubic"]) == [
        "bicubic", "realesrgan-x4plus", "supir-own",
    ]  # fmt: skip


def test_st_lpips_is_called_a_surrogate(broad: Profile) -> None:
    scores = broad_scores(broad)
    for table in (main_table(scores, broad, paper=PAPER), ablation_table(scores, broad)):
        assert "ST-LPIPS is a surrogate for LPIPS" in table.caption


# --- beside a number ----------------------------------------------------------------------------


def spread_table(table: Table) -> Table:
    """The table of several trainings, as far as FaithDiff is concerned."""

    def spread(row: Row) -> Row:
        cells = (replace(cell, seed_sd=0.12345) for cell in row.cells)
        return replace(row, cells=tuple(cells)) if row.method == "faithdiff" else row

    blocks = [replace(b, rows=tuple(map(spread, b.rows))) for b in table.blocks]
    return replace(table, blocks=tuple(blocks))


def test_the_spread_over_trainings_stands_beside_the_mean(broad: Profile) -> None:
    table = spread_table(main_table(broad_scores(broad), broad, paper=PAPER))
    (line, *_) = [x for x in to_markdown(table).splitlines() if x.startswith("| FaithDiff")]
    assert re.match(
        r"\| FaithDiff \| \*\*\d\d\.\d\d ± 0\.12\*\* \| \*\*\d\d\.\d{4} ± 0\.1235", line
    )
    assert "±" not in next(x for x in to_markdown(table).splitlines() if x.startswith("| Bicubic"))
    latex = to_latex(table)
    assert r"{\tiny $\pm$ 0.12}" in latex and "±" not in latex
    records = csv.DictReader(io.StringIO(to_csv(table)))
    assert next(r for r in records if r["method"] == "faithdiff")["printed"].endswith("± 0.12")


def test_several_seeds_print_their_spread(broad: Profile) -> None:
    scores = broad_scores(broad, seeds=(0, 1, 2))  # each 0.01 above the one before
    table = main_table(scores, broad, paper=PAPER)
    assert "± 0.0100" in to_markdown(table)
    for row in (row for block in table.blocks for row in block.rows):
        trained = broad.updates_of(row.method) is not None
        spreads = [cell.seed_sd for cell in row.cells]
        assert spreads == pytest.approx([0.01 if trained else math.nan] * len(spreads), nan_ok=True)
    assert "±" not in to_markdown(main_table(broad_scores(broad), broad, paper=PAPER))


def test_a_star_marks_a_significant_difference_to_the_reference(broad: Profile) -> None:
    table = main_table(broad_scores(broad), with_report(broad, reference="faithdiff"), paper=PAPER)
    text = to_markdown(table)
    assert re.search(r"\| Real-ESRGAN \(published\) \| \d\d\.\d\d\\\* \|", text)
    assert not re.search(r"\| FaithDiff .*\\\*", text)
    assert "significantly different from FaithDiff by the same rule" in table.caption
    assert re.search(r"\d\{\*\} &", to_latex(table))


def test_budgets_stand_beside_the_rows_of_the_ablation(broad: Profile) -> None:
    longer = broad.variants["separate"].model_copy(update={"budget": 2.0})
    profile = broad.model_copy(update={"variants": {**broad.variants, "separate": longer}})
    scores = broad_scores(profile)
    table = ablation_table(scores, profile)
    assert table.heads[:2] == ("Method", "updates")
    expected = {name: profile.updates_of(name) for name in profile.report.ablation}
    assert expected["separate"] == 2 * (expected["faithdiff"] or 0) > 0
    assert {row.method: row.updates for row in table.blocks[0].rows} == expected
    assert f"| FaithDiff | {expected['faithdiff']:,} |" in to_markdown(table)
    assert all(cell["updates"] for cell in json.loads(to_cells(table))["cells"].values())
    assert "updates" not in main_table(scores, profile, paper=PAPER).heads


@needs_latex
def test_the_latex_of_groups_spreads_and_budgets_compiles(broad: Profile, tmp_path: Path) -> None:
    frozen = broad.variants["frozen"].model_copy(update={"label": "frozen prior"})
    broad = broad.model_copy(update={"variants": {**broad.variants, "frozen": frozen}})
    scores = lacking(broad_scores(broad), "musiq", needs("musiq"))
    tables = (main_table(scores, broad, paper=PAPER), ablation_table(scores, broad))
    log = compile_latex([to_latex(spread_table(table)) for table in tables], tmp_path)
    assert not re.findall(r"Overfull \\hbox \((.*?)pt too wide\)", log), log


# --- perception against distortion --------------------------------------------------------------


def test_the_tradeoff_has_a_mark_for_each_method_and_level(broad: Profile) -> None:
    scores = lacking(broad_scores(broad), "lpips", needs("lpips"))
    table = main_table(scores, broad, paper=PAPER)
    figure = tradeoff_figure(broad, table)
    assert figure is not None and len(figure.axes) == len(broad.data.test)
    names = [column.metric for column in table.columns]
    for axes, dataset in zip(figure.axes, broad.data.test, strict=True):
        assert axes.yaxis_inverted() and axes.get_ylabel().startswith("ST-LPIPS")
        marks = {
            (float(line.get_xdata()[0]), float(np.asarray(line.get_ydata())[0]))  # type: ignore[index]
            for line in axes.lines
            if line.get_marker() != "None" and len(line.get_xdata()) == 1  # type: ignore[arg-type]
        }
        wanted = {
            (row.cells[names.index("psnr")].mean, row.cells[names.index("st-lpips")].mean)
            for block in table.blocks
            if block.group == dataset
            for row in block.rows
        }
        assert marks == wanted
    measured = tradeoff_figure(broad, main_table(broad_scores(broad), broad, paper=PAPER))
    assert measured is not None and measured.axes[0].get_ylabel().startswith("LPIPS")


def test_the_tradeoff_names_what_has_no_result(broad: Profile) -> None:
    scores = broad_scores(broad)
    lost = (scores["method"] == "supir") & (scores["level"] == "II") & (scores["metric"] == "psnr")
    scores.loc[lost, ["status", "value"]] = ["failed: out of memory", np.nan]
    figure = tradeoff_figure(broad, main_table(scores, broad, paper=PAPER))
    assert figure is not None
    assert "no result: SUPIR (controlled), Level II" in figure.axes[0].get_title()


def test_two_samplers_of_the_same_weights_share_a_colour() -> None:
    styles = method_styles(load_profile(ROOT / "config" / "mini-seeds.yaml"))
    assert styles["supir"].colour == styles["supir-own"].colour
    looks = [(style.colour, style.marker) for style in styles.values()]
    assert len(set(looks)) == len(looks)


# --- the held-out loss over the timesteps -------------------------------------------------------


def with_curve(scores: pd.DataFrame, timesteps: tuple[int, ...]) -> pd.DataFrame:
    own = scores[scores["metric"] == "heldout_loss"]
    parts = [
        own.assign(
            metric=f"heldout_loss@{t}",
            value=own["value"] + (own["method"] == "frozen") * (t - 400) / 1000.0,
        )
        for t in timesteps
    ]
    return pd.concat([scores, *parts], ignore_index=True)


def test_the_heldout_figure_draws_the_paired_difference_at_each_timestep(broad: Profile) -> None:
    scores = broad_scores(broad)
    assert heldout_figure(broad, scores) is None
    timesteps = (49, 199, 850)
    curve = with_curve(scores, timesteps)
    figure = heldout_figure(broad, curve)
    assert isinstance(figure, Figure) and len(figure.axes) == 2  # frozen and separate
    line = next(li for li in figure.axes[0].lines if len(li.get_xdata()) == 3)  # type: ignore[arg-type]
    assert list(line.get_xdata()) == list(timesteps)  # type: ignore[arg-type]
    for t, drawn in zip(timesteps, np.asarray(line.get_ydata()), strict=True):  # type: ignore[arg-type]
        rows = curve[curve["metric"] == f"heldout_loss@{t}"]
        means = rows.groupby("method")["value"].mean()
        assert drawn == pytest.approx(means["frozen"] - means["faithdiff"])


def test_the_shaded_timesteps_are_those_that_the_curve_did_not_ask_for(broad: Profile) -> None:
    asked = broad.training.model_copy(update={"heldout": HeldOut(curve=[850], images=1)})
    profile = broad.model_copy(update={"training": asked})
    figure = heldout_figure(profile, with_curve(broad_scores(broad), (49, 199, 850)))
    assert isinstance(figure, Figure)
    (span,) = [p for p in figure.axes[0].patches if isinstance(p, Rectangle)]
    assert (span.get_x(), span.get_x() + span.get_width()) == (49, 199)


# --- panels -------------------------------------------------------------------------------------


def test_the_focus_of_every_photograph_lies_inside_it() -> None:
    for photo in PHOTOS:
        assert photo.focus is not None, photo.name
        left, top, side = photo.focus
        assert left >= 0 and top >= 0 and side >= 0.2 and max(left, top) + side <= 1, photo.name


def test_panels_enlarge_the_focus_of_a_photograph_and_else_the_detail(profile: Profile) -> None:
    hq = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    face = next(photo for photo in PHOTOS if photo.name == "astronaut_face")
    assert isinstance(profile.data.test["Photos"], PhotoSet) and face.focus is not None
    left, top, side = (round(128 * share) for share in face.focus)
    assert box_of(profile, "Photos", "astronaut_face", hq) == (top, left, side)
    assert box_of(profile, "Scenes", "astronaut_face", hq) == detailed_box(hq)
    assert box_of(profile, "Photos", "0001", hq) == detailed_box(hq)


def test_panels_print_psnr_and_the_perceptual_metric(broad: Profile, made_up: Layout) -> None:
    for method in ("supir", "realesrgan-x4plus"):
        for name in ("0000", "0001"):
            source = made_up.restoration("frozen", 0, "Scenes", "II") / f"{name}.png"
            target = made_up.restoration(method, 0, "Scenes", "II") / f"{name}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    figure = panels_figure(broad, made_up, broad_scores(broad), "Scenes", "II")
    titles = [axes.get_title().replace("\n", " ") for axes in figure.axes if axes.get_title()]
    assert titles == [
        *("LQ", "Bicubic", "Real-ESRGAN (published)", "FaithDiff", "SUPIR (controlled)", "HQ")
    ]  # a second sampler has no column
    captions = [axes.get_xlabel() for axes in figure.axes if axes.get_xlabel()]
    assert len(captions) == 8
    assert all(re.fullmatch(r"\d\d\.\d\d dB\n\d\d\.\d{3} ST-LPIPS", text) for text in captions)
