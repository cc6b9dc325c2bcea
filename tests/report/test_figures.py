"""Figures of a study."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import font_manager
from matplotlib.figure import Figure
from PIL import Image
from scipy import stats
from shared import ROOT
from shared.scores import make_scores, with_report

from faithdiff.config import Profile, load_profile
from faithdiff.data.images import write_png
from faithdiff.errors import ImageError
from faithdiff.methods.method import Study
from faithdiff.report.figures import ablation_figure, write_figures
from faithdiff.report.html import to_html
from faithdiff.report.latex import to_latex
from faithdiff.report.panels import detailed_box, levels_figure, panel_level, panels_figure
from faithdiff.report.render import to_markdown
from faithdiff.report.style import RC, WIDTH, method_styles, save
from faithdiff.report.tables import ablation_table, main_table
from faithdiff.report.training import training_figure
from faithdiff.study.layout import Layout


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


def test_a_study_of_images_that_are_not_to_be_passed_on_shows_none(
    profile: Profile, made_up: Layout
) -> None:
    profile = with_report(profile, panel_images=0)
    found = write_figures(Study(profile, Path("config/mini.yaml"), made_up))
    names = {path.stem for path in found}
    assert "ablation" in names and not [n for n in names if n.startswith(("levels", "panels"))]


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


@pytest.mark.filterwarnings("error")
def test_a_very_long_label_leaves_the_axes_their_room(profile: Profile, tmp_path: Path) -> None:
    label = "frozen lr1e-4 bs32 crop512 wd0.01 ema0.999 steps40000 warmup500 " * 3
    frozen = profile.variants["frozen"].model_copy(update={"label": label})
    profile = profile.model_copy(update={"variants": {**profile.variants, "frozen": frozen}})
    scores = make_scores(profile)
    with matplotlib.rc_context(RC):
        figure = ablation_figure(profile, ablation_table(scores, profile))
        assert figure is not None
        save(figure, tmp_path / "ablation")  # matplotlib warns where nothing is left for the axes
    assert min(axes.get_position().width for axes in figure.axes) > 0.1
    assert label in to_markdown(main_table(scores, profile)).replace("\\", "")  # whole in tables


def test_twenty_methods_and_one(profile: Profile, tmp_path: Path) -> None:
    """Every table and figure is made, and of a table of one row nothing is called the best."""
    bicubic = profile.baselines["bicubic"]
    many = {f"own-{i}": bicubic.model_copy(update={"label": f"Own {i}"}) for i in range(20)}
    wide = with_report(
        profile.model_copy(update={"baselines": {**profile.baselines, **many}}),
        main=["bicubic", *many], ablation=["faithdiff", *many],
    )  # fmt: skip
    scores = make_scores(wide)
    table = main_table(scores, wide)
    assert [row.method for row in table.blocks[0].rows] == ["bicubic", *many]
    for text in (to_latex(table), to_markdown(table), to_html(table)):
        assert all(f"Own {i}" in text for i in range(20))
    with matplotlib.rc_context(RC):
        figure = ablation_figure(wide, ablation_table(scores, wide))
        assert figure is not None
        save(figure, tmp_path / "ablation")
    alone = with_report(profile, main=["faithdiff"], ablation=["faithdiff"])
    table = main_table(make_scores(alone), alone)
    assert {cell.mark for block in table.blocks for row in block.rows for cell in row.cells} == {""}
    assert ablation_figure(alone, ablation_table(make_scores(alone), alone)) is None


def titled(text: str) -> Figure:
    figure = Figure(figsize=(3, 2), layout="constrained")
    figure.subplots().set_title(text)
    return figure


@pytest.mark.filterwarnings("error")
def test_letters_that_no_font_has_are_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = [f for f in font_manager.fontManager.ttflist if f.name == "DejaVu Sans"]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)
    with matplotlib.rc_context(RC):
        save(titled("平均 & Средний"), tmp_path / "figure")
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "figure: no font here has 均平: boxes are drawn instead; install one" in said


@pytest.mark.filterwarnings("error")
def test_letters_of_another_font_are_drawn_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figure, plain = titled("Clock ⌚"), titled("Clock")
    own = figure.axes[0].title.get_fontfamily()
    with matplotlib.rc_context(RC):
        save(figure, tmp_path / "figure")
        save(plain, tmp_path / "plain")
    assert capsys.readouterr().out == ""
    assert figure.axes[0].title.get_fontfamily()[0] == "DejaVu Sans"
    assert plain.axes[0].title.get_fontfamily() == own  # nothing changes without need
