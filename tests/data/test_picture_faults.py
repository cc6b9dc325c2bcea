"""Pictures as people bring them: other formats, raw data, long texts, disks that fail half way."""

from __future__ import annotations

import errno
import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, PngImagePlugin
from shared.pictures import pixels

from faithdiff.data import images
from faithdiff.data.images import (
    png_is_whole,
    read_image,
    read_picture,
    read_result,
    sha256_file,
    write_png,
)
from faithdiff.errors import ImageError, RunError, UserError


def smooth() -> Image.Image:
    y, x = np.mgrid[:24, :40]
    return Image.fromarray(np.stack([60 + 3 * x, 80 + 4 * y, 90 + x + y], -1).astype(np.uint8))


def test_lab_is_converted_and_that_is_said(tmp_path: Path) -> None:
    lab = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    ImageCms.applyTransform(smooth(), ImageCms.buildTransform(lab[1], lab[0], "RGB", "LAB")).save(
        tmp_path / "lab.tif"
    )  # type: ignore[union-attr]
    read = read_picture(tmp_path / "lab.tif")
    # 8 bits of a and b are coarser than 8 bits of red, green and blue.
    assert np.abs(read.pixels.astype(int) - np.asarray(smooth())).mean() < 1
    assert read.changes == ("converted from Lab to sRGB",)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def with_chunk(file: Path, name: bytes, data: bytes) -> None:
    content = file.read_bytes()
    place = content.index(b"IDAT") - 4
    file.write_bytes(content[:place] + chunk(name, data) + content[place:])


def test_a_transparent_value_of_sixteen_bits_is_laid_on_white(tmp_path: Path) -> None:
    grey = np.full((4, 6), 40_000, np.uint16)
    grey[0] = 40_001  # the same as the others in 8 bits
    Image.fromarray(grey).save(tmp_path / "grey.png")
    with_chunk(tmp_path / "grey.png", b"tRNS", struct.pack(">H", 40_001))
    read = read_picture(tmp_path / "grey.png")
    assert (read.pixels[0] == 255).all() and (read.pixels[1:] == 40_000 >> 8).all()
    assert "transparency laid on white" in read.changes


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"zTXt", b"prompt\0\0" + zlib.compress(b"a" * 3_000_000)),
        (b"iTXt", b"prompt\0\1\0\0\0" + zlib.compress(b"a" * 3_000_000)),
        (b"tEXt", b"workflow\0" + b"a" * 3_000_000),
    ],
)
def test_a_workflow_in_the_texts_of_a_png_is_no_hindrance(
    tmp_path: Path, name: bytes, text: bytes
) -> None:
    limits = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
    write_png(np.asarray(smooth()), tmp_path / "made.png")
    with_chunk(tmp_path / "made.png", name, text)
    assert (read_image(tmp_path / "made.png") == np.asarray(smooth())).all()
    assert limits == (PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY)


@pytest.mark.parametrize(
    ("begins", "said"),
    [
        (b"\0\0\0\x18ftypheic", "is a HEIC picture"),
        (b"\0\0\0\x18ftypcrx ", "is the raw data of a camera"),
        (b"FUJIFILMCCD-RAW 0201", "is the raw data of a camera"),
        (b"\0\0\0\x20ftypisom", "is a film"),
        (b"RIFF\n\0\0\0AVI LIST", "is a film"),
        (b"\xff\x0a\xfa\x7f", "is a JPEG XL picture"),
        (b"v/1\x01\2\0\0\0", "is an OpenEXR picture"),
        (b"%PDF-1.7", "is a PDF document"),
        (b"PK\x03\x04", "is an archive"),
        (b'<?xml version="1.0"?>\n<svg xmlns', "is an SVG drawing"),
        (b"\n<!DOCTYPE html>", "is a web page"),
        (b"\x93NUMPY\1\0", "is an array of numpy"),
        (b"nothing that is known", "not an image in a known format"),
    ],
)
def test_a_file_that_is_no_picture_is_told_for_what_it_is(
    tmp_path: Path, begins: bytes, said: str
) -> None:
    (tmp_path / "IMG_1.jpg").write_bytes(begins + bytes(64))
    with pytest.raises(ImageError, match=rf"IMG_1\.jpg: {said}"):
        read_image(tmp_path / "IMG_1.jpg")


@pytest.mark.parametrize(
    "fields",
    [{"subfiletype": 1}, {"extratags": [(50706, 1, 4, (1, 4, 0, 0), True)]}],
)
def test_the_preview_in_a_raw_file_is_not_taken_for_the_picture(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    tifffile.imwrite(tmp_path / "DSC_1.NEF", pixels(12, 16), photometric="rgb", **fields)
    with pytest.raises(ImageError, match=r"DSC_1\.NEF: holds the raw data of a camera and a prev"):
        read_image(tmp_path / "DSC_1.NEF")


def test_a_plain_tiff_is_no_raw_file(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "scan.tif", pixels(12, 16), photometric="rgb", subfiletype=0)
    assert (read_image(tmp_path / "scan.tif") == pixels(12, 16)).all()


# --- Large ----------------------------------------------------------------------------------------


def test_a_result_may_be_larger_than_a_picture_that_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images.read_picture, "__defaults__", (True, 100))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)  # Pillow refuses twice as many
    write_png(pixels(12, 16), tmp_path / "large.png")
    with pytest.raises(ImageError, match=r"large\.png: .*(limit|exceeds).*reduce"):
        read_image(tmp_path / "large.png")
    assert (read_result(tmp_path / "large.png") == pixels(12, 16)).all()
    assert png_is_whole(tmp_path / "large.png")
    assert Image.MAX_IMAGE_PIXELS == 40


# --- Disks that fail ------------------------------------------------------------------------------


class Failing(io.BytesIO):
    """A file whose mount vanishes after so many bytes."""

    def __init__(self, file: Path, whole: int, number: int) -> None:
        super().__init__(file.read_bytes())
        self._left, self._number = whole, number

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self._left -= len(data)
        if self._left < 0:
            raise OSError(self._number, os.strerror(self._number))
        return data


@pytest.mark.parametrize("whole", [0, 200, 2000])
@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOTCONN])
@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
def test_a_mount_that_vanishes_while_reading_is_no_fault_of_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: int, number: int, suffix: str
) -> None:
    file = tmp_path / f"one.{suffix}"
    Image.fromarray(pixels(40, 60)).save(file)
    opened: Callable[..., Image.Image] = Image.open

    def failing(path: Path) -> Image.Image:
        picture = opened(Failing(path, whole, number))
        picture.filename = str(path)
        return picture

    monkeypatch.setattr(images.Image, "open", failing)
    with pytest.raises(RunError, match=rf"one\.{suffix}: .*; its disk or network mount") as caught:
        read_image(file)
    assert "run the same command again" in str(caught.value)


def test_a_file_that_is_gone_when_it_is_hashed_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.png: cannot be read \(No such file"):
        sha256_file(tmp_path / "gone.png")


def test_a_mount_that_vanishes_while_hashing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(*_: object) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    write_png(pixels(4, 4), tmp_path / "one.png")
    monkeypatch.setattr(images.hashlib, "file_digest", stale)
    with pytest.raises(RunError, match=r"one\.png: .*; its disk or network mount does not answer"):
        sha256_file(tmp_path / "one.png")
