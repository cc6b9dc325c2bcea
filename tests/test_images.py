"""Image files: every ordinary mode is read, every damaged file is refused by name."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageFile

from faithdiff.data import images
from faithdiff.data.images import list_images, read_image, sha256_file, write_png
from faithdiff.errors import ImageError, RunError, UserError


def _picture(height: int = 24, width: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@settings(deadline=None, max_examples=20)
@given(image=hnp.arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20), st.just(3))))
def test_png_round_trip_is_exact(
    image: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("png") / "image.png"
    write_png(image, path)
    back = read_image(path)
    assert back.dtype == np.uint8
    assert np.array_equal(back, image)


def test_equal_images_give_equal_bytes_and_no_litter(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        write_png(_picture(), tmp_path / "new" / name)
    first, second = (tmp_path / "new" / name for name in ("a.png", "b.png"))
    assert first.read_bytes() == second.read_bytes()
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a.png", "b.png"]
    assert first.stat().st_mode & 0o444 == 0o444


def test_write_replaces_an_older_file(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(b"old")
    write_png(_picture(), path)
    assert np.array_equal(read_image(path), _picture())


@pytest.mark.parametrize("stage", ["fsync", "replace"])
def test_full_disk_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "image.png"
    path.write_bytes(b"old")
    monkeypatch.setattr(images.os, stage, full)
    with pytest.raises(RunError, match=r"image\.png.*No space left on device"):
        write_png(_picture(), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_really_full_device_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def on_full_device(**_: object) -> tuple[int, str]:
        name = tmp_path / "temporary"
        name.touch()
        return os.open("/dev/full", os.O_WRONLY), str(name)

    monkeypatch.setattr(images.tempfile, "mkstemp", on_full_device)
    with pytest.raises(RunError, match="No space left on device"):
        write_png(_picture(), tmp_path / "image.png")
    assert list(tmp_path.iterdir()) == []


def test_write_below_a_file_is_a_run_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"file/image\.png: cannot be written"):
        write_png(_picture(), tmp_path / "file" / "image.png")


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))]
)
def test_write_refuses_other_arrays(image: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="uint8"):
        write_png(image, tmp_path / "image.png")
    assert list(tmp_path.iterdir()) == []


def test_grey_is_repeated(tmp_path: Path) -> None:
    grey = _picture()[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert np.array_equal(read_image(tmp_path / "grey.png"), np.stack([grey] * 3, axis=2))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_grey_keeps_its_high_byte(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"deep.{suffix}")
    image = read_image(tmp_path / f"deep.{suffix}")
    assert image[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_sixteen_bit_colour_is_reduced_to_eight(tmp_path: Path) -> None:
    values = np.array([[[0, 32768, 65535]]], np.uint16)  # OpenCV writes BGR
    cv2.imwrite(str(tmp_path / "deep.png"), values)
    assert read_image(tmp_path / "deep.png").tolist() == [[[255, 128, 0]]]


def test_float_grey_is_taken_from_zero_to_one(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32)).save(tmp_path / "float.tif")
    assert read_image(tmp_path / "float.tif")[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("value", [-0.5, 2.0, float("nan")])
def test_float_grey_beyond_that_is_refused(tmp_path: Path, value: float) -> None:
    Image.fromarray(np.array([[0.0, value]], np.float32)).save(tmp_path / "wide.tif")
    with pytest.raises(ImageError, match=r"wide\.tif: grey values"):
        read_image(tmp_path / "wide.tif")


def test_transparency_lies_over_white(tmp_path: Path) -> None:
    pixels = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 128]]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "clear.png")
    image = read_image(tmp_path / "clear.png")
    assert image[0, 0].tolist() == [255, 0, 0]
    assert image[0, 1].tolist() == [255, 255, 255]
    assert np.abs(image[0, 2].astype(int) - 127).max() <= 1


def test_palette_with_a_transparent_entry(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    picture.putpalette([10, 20, 30, 200, 100, 50] + [0] * 762)
    picture.putdata([0, 1])
    picture.save(tmp_path / "palette.png", transparency=0)
    assert read_image(tmp_path / "palette.png").tolist() == [[[255, 255, 255], [200, 100, 50]]]


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / "print.tif")
    assert read_image(tmp_path / "print.tif")[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(("tag", "turns"), [(1, 0), (8, 1), (3, 2), (6, 3)])
def test_exif_rotation_is_applied(tmp_path: Path, tag: int, turns: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = tag
    Image.fromarray(_picture()).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "turned.png"), np.rot90(_picture(), turns))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tif"])
@pytest.mark.parametrize("share", [0.9, 0.5, 0.05])
def test_truncated_files_are_named(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(_picture(96, 96)).save(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ImageError, match=rf"cut\.{suffix}"):
        read_image(path)


def test_truncation_is_seen_even_where_pillow_was_told_to_tolerate_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pyiqa sets this flag for the whole process when it is imported."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    path = tmp_path / "cut.jpg"
    Image.fromarray(_picture(96, 96)).save(path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ImageError, match=r"cut\.jpg.*truncated"):
        read_image(path)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


@settings(deadline=None, max_examples=60)
@given(where=st.integers(8, 2000), value=st.integers(0, 255), cut=st.booleans())
def test_damage_is_refused_or_harmless(
    where: int, value: int, cut: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever a flipped byte does, no exception but ImageError may come out."""
    stream = io.BytesIO()
    Image.fromarray(_picture()).save(stream, format="PNG")
    content = bytearray(stream.getvalue())
    content[where % len(content)] = value
    path = tmp_path_factory.mktemp("damaged") / "damaged.png"
    path.write_bytes(bytes(content[:where]) if cut else bytes(content))
    outcome: object
    try:
        outcome = read_image(path).shape[2]
    except ImageError as error:
        outcome = str(path) in str(error)
    assert outcome in (3, True)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty"), (b"hello, I am text\n" * 9, "not an image"), (None, "No such file")],
)
def test_no_image_at_all(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "what.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageError, match=rf"what\.png.*{reason}"):
        read_image(path)


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be read"):
        read_image(tmp_path)


@pytest.mark.parametrize("side", [16_000, 40_000])
def test_bombs_are_refused_before_they_unfold(tmp_path: Path, side: int) -> None:
    """The larger one is over Pillow's own limit, the smaller one only over ours."""
    path = tmp_path / "bomb.png"
    Image.new("1", (side, 1)).save(path)
    content = bytearray(path.read_bytes())
    content[20:24] = side.to_bytes(4, "big")  # the height in IHDR
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"bomb\.png.*reduce"):
        read_image(path)


def test_listing_is_sorted_and_selective(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "c.webp", "notes.txt", "captions.csv", ".hidden.png"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["a.JPG", "b.png", "c.webp"]


def test_listing_refuses_shared_stems(tmp_path: Path) -> None:
    for name in ("cat.jpg", "cat.png", "dog.png"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"cat\.jpg and cat\.png share"):
        list_images(tmp_path)


def test_listing_refuses_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        list_images(tmp_path / "nowhere")
    (tmp_path / "readme.md").touch()
    with pytest.raises(UserError, match="holds no image"):
        list_images(tmp_path)


def test_sha256_is_that_of_the_content(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(content)
    assert sha256_file(tmp_path / "file") == hashlib.sha256(content).hexdigest()
