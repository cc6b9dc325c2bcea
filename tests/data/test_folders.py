"""Image folders as datasets: crops, scores, sizes, mixtures; always the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from shared import ROOT
from shared.pictures import pixels

from faithdiff.config import MIN_SIDE, Data, FolderSet, MixtureSet, PhotoSet, SceneSet, load_profile
from faithdiff.data.datasets import (
    SOURCES,
    changed_sources,
    prepare_dataset,
    read_index,
    source_hashes,
)
from faithdiff.data.folders import sources
from faithdiff.data.images import read_image, write_png
from faithdiff.data.listing import Notes
from faithdiff.degrade.dataset import degrade_dataset
from faithdiff.degrade.levels import load_choices
from faithdiff.errors import ImageError, UserError


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Three images of different sizes, the last smaller than any crop below."""
    folder = tmp_path / "raw"
    for name, (height, width) in {"a": (90, 120), "b": (70, 64), "c": (40, 200)}.items():
        write_png(pixels(height, width, ord(name)), folder / f"{name}.png")
    return folder


def folder_set(path: Path, **changes: Any) -> FolderSet:
    return FolderSet.model_validate({"source": "folder", "path": path, **changes})


def prepared(config: FolderSet | MixtureSet, out: Path, **options: Any) -> dict[str, bytes]:
    prepare_dataset(config, "train", 1, out, **options)
    return {file.name: file.read_bytes() for file in sorted((out / "hq").iterdir())}


def test_counted_crops_are_parts_of_their_image_and_named_after_it(
    raw: Path, tmp_path: Path
) -> None:
    config = folder_set(raw, crops={"size": 64, "count": 3}, licence="CC0")
    made = prepared(config, tmp_path / "out")
    assert list(made) == [f"{name}-{k}.png" for name in "ab" for k in range(3)]  # c is too small
    index = read_index(tmp_path / "out")
    assert list(index["name"]) == [name.removesuffix(".png") for name in made]
    assert set(index["licence"]) == {"CC0"}
    for row in index.itertuples():
        assert (row.width, row.height) == ("64", "64")
        file, place = str(row.source).split(", 64 px from ")
        left, top = map(int, place.split(","))
        whole, part = read_image(raw / file), read_image(tmp_path / "out/hq" / f"{row.name}.png")
        assert np.array_equal(whole[top : top + 64, left : left + 64], part)
    places = set(index["source"][:3])
    assert len(places) > 1


def test_crops_do_not_depend_on_workers_order_or_company(raw: Path, tmp_path: Path) -> None:
    config = folder_set(raw, crops={"size": 64, "count": 2}, resize=[64, 80])
    whole = prepared(config, tmp_path / "one")
    assert prepared(config, tmp_path / "two", workers=2) == whole
    (raw / "a.png").unlink()
    left = prepared(config, tmp_path / "three")
    assert left == {name: data for name, data in whole.items() if name.startswith(("b", "c"))}


def test_a_grid_of_crops_covers_the_image(raw: Path, tmp_path: Path) -> None:
    config = folder_set(raw, crops={"size": 40, "stride": 40})
    made = prepared(config, tmp_path / "out")
    covered = np.zeros((90, 120), bool)
    index = read_index(tmp_path / "out")
    for source in index["source"][index["name"].str.startswith("a-")]:
        left, top = map(int, source.partition("from ")[2].split(","))
        covered[top : top + 40, left : left + 40] = True
    assert covered.all()
    assert sum(name.startswith("c-") for name in made) == 5  # 200 x 40


def test_resizing_draws_the_shorter_side_and_keeps_the_shape(raw: Path, tmp_path: Path) -> None:
    prepared(folder_set(raw, resize=[30, 36]), tmp_path / "out")
    for name, (height, width) in {"a": (90, 120), "c": (40, 200)}.items():
        image = read_image(tmp_path / "out/hq" / f"{name}.png")
        assert 30 <= image.shape[0] <= 36
        assert image.shape[1] / image.shape[0] == pytest.approx(width / height, rel=0.03)


def test_scores_choose_images_and_limit_bounds_them(raw: Path, tmp_path: Path) -> None:
    scores = tmp_path / "scores.csv"
    scores.write_text("a.png,0.9\nb.png,0.72\nc.png,0.73\n")
    config = folder_set(raw, quality={"scores": scores, "above": 0.72})
    assert [source.name for source in sources(config)] == ["a", "c"]
    scores.write_bytes(b"\xef\xbb\xbf" + scores.read_bytes())  # as Excel saves it
    config = folder_set(raw, quality={"scores": scores, "above": 0.72}, limit=1)
    assert [source.name for source in sources(config)] == ["a"]


@pytest.mark.parametrize(
    "text",
    [
        "a.png;0,9\r\nb.png;0,72\r\nc.png;0,73\r\n",
        "name;score\na.png;0,9\nb.png;0,72\nc.png;1\n",
        "a.png\t9e-1\nb.png\t0.72\nc.png\t0,73\n",
        "name,score\na.png,0.9\nb.png,0.72\nc.png,0.73\n",
    ],
)
def test_scores_are_read_as_a_spreadsheet_saves_them(raw: Path, tmp_path: Path, text: str) -> None:
    scores = tmp_path / "scores.csv"
    scores.write_bytes(b"\xef\xbb\xbf" + text.encode())
    config = folder_set(raw, quality={"scores": scores, "above": 0.72})
    assert [source.name for source in sources(config)] == ["a", "c"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"scores.csv: is missing, .* faithdiff fetch --profile paper"),
        ("a.png,0.9\n", "has no score for b.png"),
        ("a.png|0.9\n", "is not made of lines"),
        ("a.png;0,9\nb.png 1\n", "is not made of lines|has no score for a.png"),
        ("a.png,0\nb.png,0\nc.png,0\n", "no image scores above 0.72"),
        ("a.png,1\nB.png,1\nc.png,1\n", r"no score for b.png .*did you mean 'B.png'"),
        ("a.png,1\nb.png,1\nc.png,nan\n", "'c.png' has nan"),
        ("a.png,1\nb.png,1\nc.png,1\na.png,0\n", "'a.png' has 1 and 0; give one"),
        (b"caf\xe9.png,1\n", r"is not UTF-8 \(byte 0xe9 in line 1\); save it as UTF-8"),
    ],
)
def test_scores_that_do_not_serve_are_refused(
    raw: Path, tmp_path: Path, text: str | bytes | None, message: str
) -> None:
    scores = tmp_path / "scores.csv"
    if text is not None:
        scores.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message):
        sources(folder_set(raw, quality={"scores": scores, "above": 0.72}))


def test_a_mixture_prefixes_names_and_asks_of_each_part_its_own(raw: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_png(pixels(64, 64), other / "deep" / "er" / "a.png")
    (other / "deep" / "er" / "a.txt").write_text("A word.\n")
    config = MixtureSet.model_validate(
        {
            "source": "mixture",
            "parts": {
                "One": {"source": "folder", "path": raw, "captions": "llava", "limit": 1},
                "Two": {"source": "folder", "path": other, "recursive": True},
            },
        }
    )
    asked: list[list[str]] = []

    def captioner(files: Any, hashes: Any) -> dict[str, str]:
        asked.append(sorted(files))
        assert all(file.is_file() for file in files.values())
        return {name: f"asked: {hashes[name][:4]}" for name in files}

    made = prepared(config, tmp_path / "out", captioner=captioner)
    assert list(made) == ["One-a.png", "Two-deep-er-a.png"]
    assert asked == [["One-a"]]
    index = read_index(tmp_path / "out").set_index("name")
    assert index.loc["One-a", "caption"] == f"asked: {index.loc['One-a', 'sha256'][:4]}"
    assert index.loc["Two-deep-er-a", "caption"] == "A word."
    assert config.asks


def test_a_second_preparation_removes_crops_that_are_no_more(raw: Path, tmp_path: Path) -> None:
    prepared(folder_set(raw, crops={"size": 64, "count": 3}), tmp_path / "out")
    assert len(prepared(folder_set(raw, crops={"size": 64, "count": 1}), tmp_path / "out")) == 2


def test_images_that_are_all_too_small_are_said(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train: every image is smaller than a crop"):
        prepared(folder_set(raw, crops={"size": 500, "count": 1}), tmp_path / "out")
    assert not (tmp_path / "out/index.csv").exists()


def test_hq_images_are_cut_to_a_multiple_of_the_scale(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that what is restored from their LQ images has their size."""
    odd, even = pixels(95, 127), pixels(64, 64)
    write_png(odd, tmp_path / "raw/odd.png")
    write_png(even, tmp_path / "raw/even.png")
    out = tmp_path / "out"
    prepared(folder_set(tmp_path / "raw"), out, multiple=4)
    assert np.array_equal(read_image(out / "hq/odd.png"), odd[:92, :124])
    assert np.array_equal(read_image(out / "hq/even.png"), even)
    index = read_index(out).set_index("name")
    assert tuple(index.loc["odd", ["width", "height"]]) == ("124", "92")
    assert index.loc["odd", "source"] == "odd.png; 127 x 95 cut to 124 x 92 px"
    assert index.loc["even", "source"] == "even.png"
    assert capsys.readouterr().out == "prepare train: cut to a multiple of 4 px: odd.png\n"
    level = load_choices(ROOT / "config/levels.yaml")["II"]
    degrade_dataset(out / "hq", out / "index.csv", "II", level, 4, 1, "train", out / "lq", False)
    assert read_image(out / "lq/odd.png").shape[:2] == (92 // 4, 124 // 4)


def test_images_prepared_for_another_scale_are_not_degraded(tmp_path: Path) -> None:
    write_png(pixels(30, 32), tmp_path / "raw/a.png")
    out = tmp_path / "out"
    prepared(folder_set(tmp_path / "raw"), out, multiple=2)
    level = load_choices(ROOT / "config/levels.yaml")["II"]
    with pytest.raises(ImageError, match=r"a\.png: of 32 x 30 px, not multiples of the scale 4"):
        degrade_dataset(
            out / "hq", out / "index.csv", "II", level, 4, 1, "train", out / "lq", False
        )


def test_images_below_the_scale_or_what_is_made_of_them_are_refused_all_at_once(
    tmp_path: Path,
) -> None:
    """Before anything is trained, and not the first of them alone."""
    for name, size in {"thin": (3, 50), "small": (33, 31), "fits": (40, 40)}.items():
        write_png(pixels(*size), tmp_path / f"raw/{name}.png")
    with pytest.raises(
        ImageError, match=r"needs 32 .*: small\.png \(28 x 32 px\), thin\.png \(48 x"
    ):
        prepared(folder_set(tmp_path / "raw"), tmp_path / "out", multiple=4, least=32)
    assert not (tmp_path / "out/index.csv").exists()


def test_training_images_of_several_sizes_are_refused(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"one size; .* `crops` .*; found 120 x 90 px, "):
        prepared(folder_set(raw), tmp_path / "out", equal=True)


def test_a_profile_knows_what_its_images_need() -> None:
    mini = load_profile(ROOT / "config/mini.yaml")
    found = [mini.least_side(name) for name in ("Photos", "train", "prior")]
    assert found == [MIN_SIDE, 64, 64]
    assert mini.model_copy(update={"variants": {}, "baselines": {}}).least_side("train") == MIN_SIDE


def test_what_a_preparation_leaves_out_or_changes_is_said(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_png(pixels(64, 64), raw / "trip/d.png")
    Image.fromarray(pixels(64, 64)).save(raw / "e.jfif")
    Image.fromarray(pixels(64, 64)).convert("RGBA").save(raw / "f.png")
    clear = Image.new("RGBA", (64, 64), (9, 9, 9, 99))
    clear.save(raw / "g.tif", save_all=True, append_images=[clear, clear])
    for name in ("a.txt", "notes.txt", ".hidden"):
        (raw / name).write_text("a word")
    config = folder_set(raw, crops={"size": 64, "count": 1})
    made = prepared(config, tmp_path / "out", workers=2)
    assert {name[0] for name in made} == set("abefg")
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    for part in (
        "skipped, no caption of an image (they are captions.csv, <image>.txt or <image>.json): "
        "notes.txt;",  # a.txt is the caption of a
        "skipped, sub-folder: trip",
        "skipped, smaller than a crop: c.png",
        "without a caption: b.png, c.png, e.jfif and 2 more",
        "first of 3 frames: g.tif",
        "transparency laid on white: g.tif\n",
    ):
        assert part in said
    source = read_index(tmp_path / "out").set_index("name").loc["g-0", "source"]
    assert source == "g.tif, 64 px from 0,0; first of 3 frames; transparency laid on white"


def test_a_carriage_return_in_a_caption_is_no_end_of_a_row(raw: Path, tmp_path: Path) -> None:
    (raw / "a.txt").write_bytes(b"one\rtwo")
    prepared(folder_set(raw), tmp_path / "out")
    index = read_index(tmp_path / "out").set_index("name")
    assert list(index.index) == ["a", "b", "c"] and index.loc["a", "caption"] == "one\rtwo"


@pytest.mark.parametrize("name", ["aa.txt", "a.png.txt", "a.TXT", "Captions.csv", "caption.csv"])
def test_captions_that_belong_to_no_image_are_told_from_other_files(
    raw: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (raw / name).write_text("a street", encoding="utf-8")
    prepared(folder_set(raw), tmp_path / "out")
    assert "skipped, no caption of an image (they are captions.csv, " in capsys.readouterr().out
    prepared(folder_set(raw, captions="none"), tmp_path / "out")
    assert f"skipped, no format of images: {name}" in capsys.readouterr().out


def test_links_to_one_picture_are_images_of_their_own(raw: Path, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (raw / f"{name}.png").rename(tmp_path / f"{name}.png")
    for name in ("first", "second"):
        (raw / f"{name}.png").symlink_to(tmp_path / "a.png")
    (raw / "third.png").symlink_to(tmp_path / "none.png")
    (raw / "all").symlink_to(tmp_path)
    notes = Notes()
    found = sources(folder_set(raw, recursive=True), notes)
    assert [source.name for source in found] == ["first", "second"]
    assert notes.line() == (
        "skipped, link that leads nowhere: third.png; skipped, link to a folder: all"
    )


def test_real_world_images_are_prepared_as_lq(raw: Path, tmp_path: Path) -> None:
    Image.fromarray(pixels(20, 30)).save(raw / "d.jpg", quality=50)
    prepare_dataset(folder_set(raw, lq_only=True), "Real", 1, tmp_path / "out")
    found = sorted(file.name for file in (tmp_path / "out/lq/real").iterdir())
    assert found == ["a.png", "b.png", "c.png", "d.png"]
    assert not (tmp_path / "out/hq").exists()
    assert np.array_equal(read_image(tmp_path / "out/lq/real/d.png"), read_image(raw / "d.jpg"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crops": {"size": 8}}, "one of count and stride"),
        ({"crops": {"size": 8, "count": 1, "stride": 2}}, "one of count and stride"),
        ({"lq_only": True, "crops": {"size": 8, "count": 1}}, "taken as they are"),
        ({"resize": [9, 8]}, "9 is larger than 8"),
    ],
)
def test_contradictions_are_refused(raw: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        folder_set(raw, **changes)


def data(**changes: Any) -> Data:
    fields = {
        "scale": 4,
        "levels_file": "levels.yaml",
        "levels": ["I", "II"],
        "train_level": "I",
        "train": {"source": "scenes", "count": 1, "size": 64},
        "test": {
            "Scenes": {"source": "scenes", "count": 1, "size": 64},
            "Real": {"source": "folder", "path": "x", "lq_only": True, "scale": 2},
        },
    }
    return Data.model_validate(fields | changes)


def test_real_sets_have_one_level_and_may_have_a_scale() -> None:
    both = data()
    assert both.places == [("Scenes", "I"), ("Scenes", "II"), ("Real", "real")]
    assert (both.with_hq, both.real) == (["Scenes"], ["Real"])
    assert [both.multiple_of(name) for name in ("Scenes", "Real", "train", "prior")] == [4, 1, 4, 1]
    assert (both.scale_of("Scenes"), both.scale_of("Real"), both.scale_of("train")) == (4, 2, 4)
    real = {"source": "folder", "path": "x", "lq_only": True}
    for changes, message in (
        ({"levels": ["real"]}, "the level of sets with lq_only"),
        ({"test": {"Real": real}}, "one set with HQ images at least"),
        ({"train": real}, "lq_only and scale are of test sets"),
        ({"train": {"source": "mixture", "parts": {"A": real}}}, "train: A: lq_only"),
    ):
        with pytest.raises(ValidationError, match=message):
            data(**changes)


# --- What a set is made from ------------------------------------------------------------------


def test_a_set_is_told_apart_by_every_file_that_decides_it(raw: Path, tmp_path: Path) -> None:
    scores = tmp_path / "scores.csv"
    scores.write_text("a.png,1\nb.png,1\nc.png,1\n")
    config = folder_set(raw, quality={"scores": scores, "above": 0})
    seen = [source_hashes(config)]
    for file, content in {
        raw / "b.png": (raw / "a.png").read_bytes(),
        raw / "d.png": (raw / "a.png").read_bytes(),
        raw / "captions.csv": b"name,caption\na,a cat\n",
        raw / "b.txt": b"a dog",
        raw / "c.json": b'{"caption": "x"}',
        scores: b"a.png,0\n",
    }.items():
        file.write_bytes(content)
        seen.append(source_hashes(config))
    assert len({str(each) for each in seen}) == 7
    (raw / "below").mkdir()
    (raw / "below" / "e.png").write_bytes(b"x")
    assert source_hashes(config) == seen[-1]  # not read
    assert "below/e.png" in source_hashes(folder_set(raw, recursive=True))
    mixture = MixtureSet.model_validate({"source": "mixture", "parts": {"one": config}})
    assert "one/b.txt" in source_hashes(mixture)
    assert source_hashes(folder_set(tmp_path / "not-fetched")) == {}


def test_what_ships_is_told_apart_by_the_files_of_its_packages() -> None:
    photos = PhotoSet(source="photos", count=2, size=16)
    scenes = SceneSet(source="scenes", count=2, size=16)
    assert "astronaut.png" in source_hashes(photos)
    assert len(source_hashes(scenes)["DejaVuSans"]) == 64


def test_sources_that_changed_since_a_set_was_prepared_are_named(raw: Path, tmp_path: Path) -> None:
    config, out = folder_set(raw), tmp_path / "Set"
    prepared(config, out)
    assert changed_sources(config, out) == []
    (raw / "a.png").write_bytes((raw / "b.png").read_bytes())
    (raw / "b.png").unlink()
    (raw / "captions.csv").write_text("name,caption\na,a cat\n")
    assert changed_sources(config, out) == [
        "dataset Set: a.png: changed since prepared",
        "dataset Set: b.png: removed since prepared",
        "dataset Set: captions.csv: added since prepared",
    ]
    prepared(config, out)
    assert changed_sources(config, out) == []
    raw.rename(tmp_path / "elsewhere")  # a copy of the study alone
    assert changed_sources(config, out) == []
    (out / SOURCES).unlink()  # of an older version
    assert changed_sources(folder_set(tmp_path / "elsewhere"), out) == []
