"""The report page as a file: what it holds, and what it must not."""

from __future__ import annotations

import csv
import html
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from shared import ROOT
from shared.report_page import EVIL, METHODS, MINI, NAMES

from faithdiff.audit.results import load_results
from faithdiff.audit.revision import WORKING_TREE, find_revision, working_tree
from faithdiff.data.images import write_png
from faithdiff.errors import UserError
from faithdiff.methods.method import Study
from faithdiff.page import embedded as embedding
from faithdiff.page.build import _environment, write_page
from faithdiff.page.content import page_content
from faithdiff.page.embedded import embedded
from faithdiff.page.parts import page_digest
from faithdiff.page.pictures import EXACT, WHOLE, Album, _box, _cut
from faithdiff.report.costs import cost_table, load_costs
from faithdiff.report.render import write_table
from faithdiff.score.costs import COST_COLUMNS


class Elements(HTMLParser):
    """Start tags with their attributes, and what the data element holds."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data = ""
        self._in_data = False
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        self._in_data = dict(attributes).get("id") == "data"

    def handle_endtag(self, tag: str) -> None:
        self._in_data = False

    def handle_data(self, data: str) -> None:
        self.data += data if self._in_data else ""


@pytest.fixture(scope="module")
def parsed(page: Path) -> Elements:
    return Elements(page.read_text(encoding="utf-8"))


def test_the_page_is_one_folder_below_a_megabyte_without_its_pictures(page: Path) -> None:
    files = [file for file in page.parent.iterdir() if file.is_file()]
    assert {file.name for file in files} == {"index.html", "page.css", "page.js", "explorer.js"}
    assert sum(file.stat().st_size for file in files) < 1_000_000


def test_nothing_of_it_comes_from_the_network(page: Path, parsed: Elements) -> None:
    for _, attributes in parsed.tags:
        for name in ("src", "href"):
            target = attributes.get(name) or ""
            assert not re.match(r"(?i)(\w+:)?//", target)
            if target and target[0] != "#" and not target.startswith("data:"):
                assert (page.parent / target).is_file(), target
    scripts = "".join(
        (page.parent / name).read_text("utf-8") for name in ("page.js", "explorer.js")
    )
    assert not re.search(r"fetch\(|XMLHttpRequest|innerHTML|insertAdjacentHTML|\beval\(", scripts)
    assert "url(" not in (page.parent / "page.css").read_text(encoding="utf-8")


def test_names_from_data_are_text(page: Path, parsed: Elements) -> None:
    assert not any("onerror" in attributes for _, attributes in parsed.tags)
    text = page.read_text(encoding="utf-8")
    assert EVIL not in text and html.escape(EVIL, quote=True).replace("&#x27;", "&#39;") in text
    assert EVIL in {cell["label"] for cell in json.loads(parsed.data)["cells"].values()}


def test_every_number_of_every_table_can_be_explained(parsed: Elements) -> None:
    data = json.loads(parsed.data)
    keys = [attributes["data-key"] for _, attributes in parsed.tags if "data-key" in attributes]
    assert len(keys) == len(set(keys)) == len(data["cells"]) > 250
    for cell in (data["cells"][key] for key in keys if key):
        values = data["values"].get(f"{cell['method']}|0|{cell['metric']}|{cell['protocol']}")
        assert cell["facts"] and cell["commands"]
        if "mean" in cell and cell["protocol"] != "cost":  # costs are no scores of images
            own = [
                (place[0], place[2], value)
                for place, value in zip(data["places"], values, strict=True)
                if value is not None and place[0] in cell["datasets"] and place[1] in cell["levels"]
            ]
            mean = pd.DataFrame(own).groupby([0, 1])[2].mean().mean()
            assert mean == pytest.approx(cell["mean"], rel=1e-5)


def test_its_first_lines_count_what_was_measured_of_each_metric(page: Path) -> None:
    text = html.unescape(page.read_text(encoding="utf-8"))
    header = text[text.index("<header>") : text.index("</header>")]
    scores = pd.read_csv(page.parent.parent / "scores.csv", dtype=str, keep_default_na=False)
    own = scores[(scores["metric"] == "psnr") & (scores["protocol"] == "ycbcr")]
    assert f"Values measured: PSNR {len(own):,} of {len(own):,}, SSIM" in header
    command = "faithdiff fetch --weights lpips --weights musiq --weights clipiqa+"
    if scores.loc[scores["metric"] == "lpips", "status"].str.startswith("unavailable").all():
        assert f"Not measured: LPIPS, MUSIQ, CLIPIQA+ (<code>{command}</code>, then" in header
        assert text.count(command) >= 3  # and below both tables
        cells = re.findall(r'data-key="(?:main|ablation)\|[^>]*>([^<]*)', text)
        assert cells and "n/a" not in cells


def test_groups_of_methods_stand_apart(page: Path, parsed: Elements) -> None:
    main = json.loads((page.parent.parent / "tables/main.cells.json").read_text("utf-8"))
    rows = [a["data-group"] for tag, a in parsed.tags if tag == "tr" and "data-group" in a]
    assert set(rows) == set(main["groups"].values())
    assert main["caption"].split(".")[0] in html.unescape(page.read_text(encoding="utf-8"))


def test_every_claim_has_its_verdict(page: Path, parsed: Elements) -> None:
    claims = json.loads((page.parent.parent / "claims.json").read_text(encoding="utf-8"))["claims"]
    shown = [a["data-text"] for _, a in parsed.tags if "data-text" in a]
    assert sorted(map(str, shown)) == sorted(claim["verdict"] for claim in claims)


def test_pictures_are_those_of_the_scores_and_the_rest_is_named(
    page: Path, parsed: Elements
) -> None:
    explorer = json.loads(parsed.data)["explorer"]
    assert set(explorer["images"]) == {f"Photos|I|{name}" for name in NAMES} | {
        f"Photos|{level}|{name}" for level in ("II", "III") for name in NAMES
    }
    assert set(explorer["images"]["Photos|I|photo0"]) == {"hq", "lq", *METHODS}
    assert any("Scenes" in text for text in explorer["missing"])
    assert any("frozen" in text for text in explorer["missing"])


def test_without_a_history_the_audit_says_why(page: Path) -> None:
    assert "There is nothing to compare with" in page.read_text(encoding="utf-8")


def test_another_image_than_the_scores_name_is_not_shown(page: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(page.parents[3], root)
    changed = root / "restored/mini/faithdiff/seed0/Photos/I/photo0.png"
    write_png(np.zeros((32, 32, 3), np.uint8), changed)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        data = json.loads(Elements(write_page(Study.load(MINI), Path()).read_text("utf-8")).data)
    assert "faithdiff" not in data["explorer"]["images"]["Photos|I|photo0"]
    assert any(
        "photo0.png: is not the image that scores.csv names" in t
        for t in data["explorer"]["missing"]
    )


def test_a_table_of_other_scores_leaves_the_page_as_it_was(page: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(page.parents[3], root)
    cells = root / "results/mini/tables/main.cells.json"
    cells.write_text(re.sub(r'"mean": 2', '"mean": 3', cells.read_text("utf-8")), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        with pytest.raises(UserError, match="faithdiff tables"):
            write_page(Study.load(MINI), Path())
    assert (root / "results/mini/report/index.html").read_bytes() == page.read_bytes()
    assert not list((root / "results/mini").glob(".*"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{\n<<<<<<< HEAD\n=======\n>>>>>>> other\n}", "both sides of a merge"),
        ("[]", "Input should be an object.*faithdiff claims"),
        ('{"a": 1}', "profile: Field required.*faithdiff claims"),
    ],
)
def test_claims_that_cannot_be_read_are_named(tmp_path: Path, content: str, said: str) -> None:
    folder = tmp_path / "results/mini"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "results/mini/scores.csv", folder)
    (folder / "claims.json").write_text(content)
    results = load_results(working_tree("mini", tmp_path), "mini")
    with pytest.raises(UserError, match=rf"claims\.json: .*{said}"):
        page_content(results, ROOT)


def test_the_costs_are_explained_by_their_own_file(page: Path, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(page.parents[3], root)
    study = Study.load(root / "config/mini.yaml")
    rows = [(m, 0, "unet 5", 5, 9, 0, 0.0, 4, 12.5, 0.5, None) for m in study.profile.methods]
    frame = pd.DataFrame(rows, columns=list(COST_COLUMNS))
    frame.to_csv(root / "results/mini/cost.csv", index=False)
    table = cost_table(load_costs(root / "results/mini/cost.csv"), study.profile)
    write_table(table, root / "results/mini/tables")
    results = load_results(find_revision(WORKING_TREE, "mini", root), "mini")
    data = embedded(results, root)
    cells = {key: cell for key, cell in data["cells"].items() if key.startswith("cost|")}
    assert cells["cost|Cost|faithdiff|seconds"]["by_seed"] == [[0, 12.5]]
    assert "cost|Cost|faithdiff|peak_memory_mb" not in cells  # measured of no method
    assert data["metrics"]["seconds|cost"] == "training s"
    shown = next(t for t in page_content(results, root).tables if t.name == "cost")
    assert "training s" in shown.columns and "GPU-hours" not in shown.columns
    assert shown.unmeasured.startswith("Not measured: GPU-hours (the profile runs on CPUs); ")
    assert ["parameters trained", "unet 5"] in data["facts"]


def test_a_number_quoted_from_the_paper_stands_beside_ours(page: Path, tmp_path: Path) -> None:
    """It has no rows, no budget and no explanation, and moves no column of those that have."""
    root = tmp_path / "root"
    shutil.copytree(page.parents[3], root)
    file = root / "results/mini/tables/main.csv"
    with file.open(encoding="utf-8", newline="") as stream:
        names = list(csv.DictReader(stream).fieldnames or ())
    quoted = {
        "block": "Photos, Level I", "datasets": "Photos", "levels": "I", "label": "SUPIR (paper)",
        "group": "quoted", "metric": "psnr", "protocol": "ycbcr", "higher_is_better": True,
        "printed": "25.09", "status": "published", "n": 0, "mean": 25.09,
    }  # fmt: skip
    with file.open("a", encoding="utf-8", newline="") as stream:
        csv.DictWriter(stream, names, restval="", lineterminator="\n").writerow(quoted)
    results = load_results(find_revision(WORKING_TREE, "mini", root), "mini")
    table = next(t for t in page_content(results, root).tables if t.name == "main")
    (row,) = (row for row in table.rows if row.label == "SUPIR (paper)")
    assert row.updates is None and row.block == "Photos, Level I"
    (cell,) = (cell for cell in row.cells if cell is not None)
    assert (cell.text, cell.value, cell.key) == ("25.09", 25.09, "")
    data = {**embedded(results, root), "explorer": {"images": {}, "labels": {}, "missing": []}}
    audit = {"title": "", "reason": "none", "sections": (), "movers": []}
    html = _environment().get_template("index.html.jinja")
    assert "<i>25.09</i>" in html.render(
        **vars(page_content(results, root)), figures=[], audit=audit, data={**data, "movers": []}
    )


def test_the_values_of_a_large_study_keep_the_page_light(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = load_results(find_revision(WORKING_TREE, "mini", page.parents[3]), "mini")
    whole = embedded(results, page.parents[3])
    monkeypatch.setattr(embedding, "MOST", 10_000)
    light = embedded(results, page.parents[3])
    assert len(json.dumps(light["values"])) < 13_000 < len(json.dumps(whole["values"]))
    left = set(whole["values"]) - set(light["values"])
    assert left and all("too many" in light["statuses"][key] for key in left)
    assert light["cells"].keys() == whole["cells"].keys()


def test_code_in_sentences_is_marked_and_the_rest_escaped() -> None:
    macro = (ROOT / "faithdiff/page/index.html.jinja").read_text("utf-8").splitlines()[0]
    printed = _environment().from_string(macro + "{{ code(text) }}")
    assert printed.render(text="run `a <b>` & go") == "run <code>a &lt;b&gt;</code> &amp; go"
    assert printed.render(text="one ` <") == "one ` &lt;"


def test_large_images_are_cut_alike_and_small_ones_stored_exactly(tmp_path: Path) -> None:
    large = np.zeros((800, 1200, 3), np.uint8)
    large[300:340:2, 900:940] = 255  # the only detail
    box = _box(large)
    cut, small = _cut(large, box), _cut(large[::4, ::4], box)
    assert max(cut.shape[:2]) <= WHOLE + 2 and cut.max() == 255
    assert abs(small.shape[0] * 4 - cut.shape[0]) <= 8
    album = Album(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (EXACT, EXACT, 3), dtype=np.uint8)
    with Image.open(tmp_path / album.add(noise)) as stored:
        assert np.array_equal(np.asarray(stored.convert("RGB")), noise)
    assert album.add(noise) == album.add(noise.copy()) and len(list(tmp_path.glob("images/*"))) == 1


def test_an_edit_of_the_page_is_an_edit_of_its_rule(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = page_digest()
    shutil.copytree(ROOT / "faithdiff/page", tmp_path / "page")
    monkeypatch.setattr("faithdiff.page.parts.HERE", tmp_path / "page")
    assert page_digest() == before
    (tmp_path / "page" / "page.css").write_text("body { color: red }", encoding="utf-8")
    assert page_digest() != before
