"""A person's own pictures: which are restored, kept, left alone or refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from shared.restoring import make_restorer

from faithdiff import cli
from faithdiff.data.images import read_image, write_png
from faithdiff.errors import CheckpointError, FaithDiffError, ImageError, UserError
from faithdiff.methods.method import Study
from faithdiff.restore.arrays import to_image, to_tensor
from faithdiff.restore.choices import Choices
from faithdiff.restore.picture_record import RECORD
from faithdiff.restore.pictures import restore_pictures

# diffusers' Euler scheduler
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def _gradient(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack(
        [rows * 255 // height, columns * 255 // width, (rows + columns) % 256], 2
    ).astype(np.uint8)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder as people have them."""
    folder = tmp_path / "meine Bilder"
    folder.mkdir()
    picture = Image.fromarray(_gradient(13, 21))
    picture.save(folder / "Über den Wolken (1).jpg")
    picture.convert("RGBA").save(folder / "with alpha.png")
    picture.convert("L").save(folder / "grey.png")
    picture.convert("P").save(folder / "palette.gif")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    picture.save(folder / "turned.jpeg", exif=exif)
    sixteen = (np.arange(13 * 21, dtype=np.uint16) * 200).reshape(13, 21)
    Image.fromarray(sixteen).save(folder / "sixteen.tif")
    (folder / "notes.txt").write_text("not a picture")
    return folder


def _own(study: Study, inputs: list[Path], output: Path, **changes: Any) -> None:
    checkpoint = study.layout.checkpoint("faithdiff", 0)
    overwrite = changes.pop("overwrite", False)
    choices = Choices(caption="a hill", seed=3, changes=changes, overwrite=overwrite)
    restore_pictures(checkpoint, inputs, output, choices)


def test_every_ordinary_picture_is_restored(study: Study, pictures: Path, tmp_path: Path) -> None:
    _own(study, [pictures], tmp_path / "out")
    sizes = {file.stem: read_image(file).shape for file in (tmp_path / "out").glob("*.png")}
    upright, turned = (4 * 13, 4 * 21, 3), (4 * 21, 4 * 13, 3)
    assert sizes == {
        "Über den Wolken (1)": upright,
        "with alpha": upright,
        "grey": upright,
        "palette": upright,
        "turned": turned,
        "sixteen": upright,
    }


def test_a_picture_is_restored_as_the_restorer_does(study: Study, tmp_path: Path) -> None:
    lq = _gradient(12, 10)
    write_png(lq, tmp_path / "a.png")
    _own(study, [tmp_path / "a.png"], tmp_path / "out", tile=16, tile_stride=8, steps=5)
    restorer = make_restorer(study, tile=16, tile_stride=8, steps=5)
    expected = to_image(restorer.restore(to_tensor(lq), ["a hill"], [3])[0])
    assert np.array_equal(read_image(tmp_path / "out" / "a.png"), expected)


def test_finished_pictures_are_kept_and_others_made_again(
    study: Study, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    _own(study, [pictures], out)
    before = {file.name: file.read_bytes() for file in out.glob("*.png")}
    (out / "grey.png").unlink()
    (out / "palette.png").write_bytes(b"cut")
    capsys.readouterr()
    _own(study, [pictures], out)
    text = capsys.readouterr().out
    assert "4 of 6 pictures are restored already" in text
    assert "grey.png" in text and "palette.png" in text and "sixteen.png" not in text
    assert {file.name: file.read_bytes() for file in out.glob("*.png")} == before
    write_png(_gradient(13, 21)[::-1], pictures / "turned.png")  # another picture of this name
    (pictures / "turned.jpeg").unlink()
    _own(study, [pictures], out)
    assert (out / "turned.png").read_bytes() != before["turned.png"]


def test_results_of_other_settings_are_replaced_only_when_asked(
    study: Study, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        write_png(_gradient(8, 8), tmp_path / "in" / f"{name}.png")
    out = tmp_path / "out"
    _own(study, [tmp_path / "in"], out)
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    with pytest.raises(UserError) as caught:
        _own(study, [tmp_path / "in"], out, guidance_scale=4.0)
    both = f"--checkpoint {study.layout.checkpoint('faithdiff', 0)} --caption 'a hill'"
    assert str(caught.value) == (
        f"{out}/a.png (and 1 more): was made by {both} --seed 3; this call has {both} --guidance "
        "4.0 --seed 3. Give another --output, or --overwrite to replace it. Nothing was restored"
    )
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    (out / "a.png").unlink()  # nothing is lost by what is not there
    _own(study, [tmp_path / "in/a.png"], out, guidance_scale=4.0)
    with pytest.raises(UserError, match=r"a\.png: was made by .* --guidance 4\.0 "):
        _own(study, [tmp_path / "in"], out)
    _own(study, [tmp_path / "in"], out, overwrite=True)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


def test_results_of_the_same_path_with_other_weights_are_kept(study: Study, tmp_path: Path) -> None:
    write_png(_gradient(8, 8), tmp_path / "a.png")
    _own(study, [tmp_path / "a.png"], tmp_path / "out")
    record = json.loads((tmp_path / "out" / RECORD).read_text())
    record["a.png"] |= {"key": "of others", "choice": "of others"}
    (tmp_path / "out" / RECORD).write_text(json.dumps(record))
    with pytest.raises(UserError, match="whose weights or settings were others then; this call"):
        _own(study, [tmp_path / "a.png"], tmp_path / "out")
    del record["a.png"]["choice"], record["a.png"]["made_by"]  # by an older version of the suite
    (tmp_path / "out" / RECORD).write_text(json.dumps(record))
    with pytest.raises(UserError, match="was made by settings that were not recorded; this call"):
        _own(study, [tmp_path / "a.png"], tmp_path / "out")


def test_an_address_is_no_picture(study: Study, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.png: no such file or folder; download the picture"):
        _own(study, [Path("https://example.org/a.png")], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_picture_of_somebody_else_is_not_written_over(study: Study, tmp_path: Path) -> None:
    photo, album = tmp_path / "holiday.jpg", tmp_path / "album"
    Image.fromarray(_gradient(8, 8)).save(photo)
    write_png(_gradient(9, 9), album / "holiday.png")
    before = (album / "holiday.png").read_bytes()
    with pytest.raises(UserError, match=r"album/holiday\.png: is there already.*another --output"):
        _own(study, [photo], album)
    assert (album / "holiday.png").read_bytes() == before
    (album / "holiday.png").rename(album / "mine.png")
    _own(study, [photo], album)
    _own(study, [photo], album, guidance_scale=4.0, overwrite=True)  # ours may be replaced
    assert (album / "mine.png").read_bytes() == before


def test_a_corrupted_record_only_costs_time(study: Study, tmp_path: Path) -> None:
    write_png(_gradient(8, 8), tmp_path / "a.png")
    _own(study, [tmp_path / "a.png"], tmp_path / "out")
    (tmp_path / "out" / RECORD).write_text("{")
    _own(study, [tmp_path / "a.png"], tmp_path / "out")
    assert list(json.loads((tmp_path / "out" / RECORD).read_text())) == ["a.png"]


@pytest.mark.parametrize("record", ["[1]", '{"a.png": "mine"}', "5"])
def test_a_record_of_somebody_else_is_left_alone(study: Study, tmp_path: Path, record: str) -> None:
    write_png(_gradient(8, 8), tmp_path / "a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / RECORD).write_text(record)
    with pytest.raises(UserError, match=r"restored\.json: is not what .*another --output"):
        _own(study, [tmp_path / "a.png"], tmp_path / "out")
    assert (tmp_path / "out" / RECORD).read_text() == record


def test_a_result_that_was_edited_is_left_alone(study: Study, tmp_path: Path) -> None:
    write_png(_gradient(8, 8), tmp_path / "a.png")
    _own(study, [tmp_path / "a.png"], tmp_path / "out")
    write_png(_gradient(20, 20), tmp_path / "out/a.png")  # cropped in another program
    edited = (tmp_path / "out/a.png").read_bytes()
    with pytest.raises(UserError, match=r"a\.png: was changed since .*another --output"):
        _own(study, [tmp_path / "a.png"], tmp_path / "out")
    assert (tmp_path / "out/a.png").read_bytes() == edited


def test_a_link_in_the_place_of_a_result_is_left_alone(study: Study, tmp_path: Path) -> None:
    write_png(_gradient(8, 8), tmp_path / "a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a.png").symlink_to("nowhere.png")
    with pytest.raises(UserError, match=r"a\.png: is there already"):
        _own(study, [tmp_path / "a.png"], tmp_path / "out")
    assert (tmp_path / "out/a.png").is_symlink()


def test_a_pointer_in_place_of_the_record_of_a_training(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
    with pytest.raises(CheckpointError, match=r"run\.json: is a pointer of Git LFS"):
        restore_pictures(tmp_path, [tmp_path], tmp_path / "out", Choices())


def test_all_broken_pictures_are_named_before_any_is_restored(
    study: Study, pictures: Path, tmp_path: Path
) -> None:
    whole = (pictures / "with alpha.png").read_bytes()
    (pictures / "cut off.png").write_bytes(whole[: len(whole) // 2])
    (pictures / "empty.png").write_bytes(b"")
    (pictures / "text.jpg").write_text("hello")
    write_png(_gradient(30, 5), pictures / "thin.png")
    with pytest.raises(ImageError) as caught:
        _own(study, [pictures], tmp_path / "out")
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    for name in ("cut off.png", "empty.png", "text.jpg", "thin.png: 5 x 30 px"):
        assert any(name in line for line in lines)
    assert not (tmp_path / "out").exists()


def test_results_never_collide(study: Study, tmp_path: Path) -> None:
    for name in ("a/one.png", "b/one.jpg", "c/two.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(_gradient(8, 8)).save(tmp_path / name)
    with pytest.raises(UserError, match=r"a/one\.png and .*b/one\.jpg would both become one\.png"):
        _own(study, [tmp_path / "a", tmp_path / "b/one.jpg"], tmp_path / "out")
    (tmp_path / "b/one.jpg").rename(tmp_path / "b/One.jpg")
    with pytest.raises(UserError, match=r"One\.jpg would both become One\.png on many disks"):
        _own(study, [tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    with pytest.raises(UserError, match=r"c/two\.png: is an input"):
        _own(study, [tmp_path / "c"], tmp_path / "c")
    # The same picture twice is one picture.
    _own(study, [tmp_path / "c", tmp_path / "c/two.png"], tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").glob("*.png")] == ["two.png"]


def test_what_is_skipped_or_read_otherwise_is_said_before(
    study: Study, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "trip").mkdir()
    (pictures / "grey.png").rename(pictures / "grey.ppm")  # a suffix, whatever the content
    (pictures / "again.png").symlink_to(pictures / "sixteen.tif")
    _own(study, [pictures], tmp_path / "out")
    said = capsys.readouterr().out.splitlines()[0]
    assert said == (
        "restore: skipped, no format of images: notes.txt; skipped, sub-folder: trip; "
        "reduced to 8 bits: again.png, sixteen.tif"
    )
    made = {file.stem: file.read_bytes() for file in (tmp_path / "out").glob("*.png")}
    assert len(made) == 7 and "grey" in made
    assert made["again"] == made["sixteen"]  # two names of one picture are two results


def test_restoring_twice_into_the_folder_of_the_pictures(
    study: Study, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("with alpha.png", "grey.png"):  # these would be written over
        (pictures / name).unlink()
    _own(study, [pictures], pictures)
    before = {file.name: file.read_bytes() for file in pictures.iterdir()}
    capsys.readouterr()
    _own(study, [pictures, pictures / "palette.png"], pictures)
    assert {file.name: file.read_bytes() for file in pictures.iterdir()} == before
    said = capsys.readouterr().out
    assert "skipped, result of an earlier call: palette.png, sixteen.png, turned.png and 1" in said
    assert "4 of 4 pictures are restored already" in said and "restored.json" not in said
    with pytest.raises(UserError, match=r"are results of .*give another --output"):
        _own(study, [pictures / "palette.png"], pictures)
    _own(study, [pictures / "palette.png"], pictures / "larger")
    assert read_image(pictures / "larger/palette.png").shape == (16 * 13, 16 * 21, 3)


def test_wrong_arguments_are_explained(study: Study, tmp_path: Path) -> None:
    write_png(_gradient(8, 8), tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    checkpoint, out = study.layout.checkpoint("faithdiff", 0), tmp_path / "out"

    def message(folder: Path, given: Path, output: Path = out, **changes: Any) -> str:
        with pytest.raises(FaithDiffError) as caught:
            restore_pictures(folder, [given], output, Choices(changes=changes))
        assert caught.value.exit_code == 2
        return str(caught.value)

    assert "no such file" in message(checkpoint, tmp_path / "none.png")
    assert "holds no image" in message(checkpoint, tmp_path / "empty")
    assert "is a file" in message(checkpoint, tmp_path / "a.png", tmp_path / "a.png")
    assert "--guidance: must be " in message(checkpoint, tmp_path / "a.png", guidance_scale=0.5)
    few = message(checkpoint, tmp_path / "a.png", steps=1)
    assert few.startswith("--steps 1: too few; give 2 or more: the LQ image enters at timestep 600")
    assert "run.json: is missing" in message(tmp_path, tmp_path / "a.png")
    stage1 = study.layout.stage1("released", 0)
    assert "has no method 'stage1-released'" in message(stage1, tmp_path / "a.png")
    study.layout.trained_prior.rename(tmp_path / "elsewhere")
    assert "root of the repository" in message(checkpoint, tmp_path / "a.png")
    (checkpoint / "run.json").write_text("{}")
    assert "is not of a method" in message(checkpoint, tmp_path / "a.png")
    (checkpoint / "run.json").write_text('{"method": "faithdiff", "seed": 0, "checksum": "0"}')
    assert "does not fit its checksum" in message(checkpoint, tmp_path / "a.png")


def test_a_baseline_restores_pictures(study: Study, pictures: Path, tmp_path: Path) -> None:
    cli.train("realesrgan", config=study.file)
    checkpoint = study.layout.checkpoint("realesrgan", 0)
    restore_pictures(checkpoint, [pictures / "grey.png"], tmp_path / "out", Choices())
    assert read_image(tmp_path / "out" / "grey.png").shape == (52, 84, 3)


def test_the_command_exits_with_two_and_no_traceback(
    study: Study,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (pictures / "cut off.png").write_bytes((pictures / "grey.png").read_bytes()[:50])
    checkpoint, out = study.layout.checkpoint("faithdiff", 0), tmp_path / "out"
    line = ["restore", "--checkpoint", checkpoint, pictures, "--output", out]
    monkeypatch.setattr(sys, "argv", ["faithdiff", *map(str, line)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "cut off.png" in said and "Traceback" not in said
    assert not out.exists()
