"""Image files: every ordinary mode is read, every corrupted file is refused by name."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import ExifTags, Image, ImageCms, ImageFile, PngImagePlugin

from faithdiff.data import images
from faithdiff.data.images import read_image, read_picture, sha256_file, write_png
from faithdiff.data.listing import list_images
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


# --- What a file holds besides -------------------------------------------------------------------


def _profile_of(photo: str) -> bytes:
    with Image.open(Path(skimage.__file__).parent / "data" / photo) as picture:
        return bytes(picture.info["icc_profile"])


def _grey_profile(gamma: float) -> bytes:
    """A small ICC profile: grey, with white at D50 and a power curve."""
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    place, tags = 128 + 4 + 2 * 12, b""
    for name, tag in ((b"kTRC", curve), (b"wtpt", white)):
        tags += name + struct.pack(">II", place, len(tag))
        place += len(tag)
    size = struct.pack(">I", place)
    head = size + bytes(4) + b"\x02\x40\0\0" + b"mntrGRAYXYZ " + bytes(12) + b"acsp" + bytes(28)
    return (head + white[8:]).ljust(128, b"\0") + struct.pack(">I", 2) + tags + curve + white


def test_colours_are_converted_from_their_profile(tmp_path: Path) -> None:
    wide = _profile_of("rocket.jpg")  # Adobe RGB
    picture = Image.fromarray(_picture())
    expected = ImageCms.profileToProfile(
        picture, io.BytesIO(wide), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert np.abs(np.int16(expected) - _picture()).max() > 15
    for name in ("wide.png", "wide.tif", "wide.webp"):
        picture.save(tmp_path / name, icc_profile=wide, **{"lossless": True} if "w" in name else {})
        read = read_picture(tmp_path / name)
        assert np.abs(np.int16(expected) - read.pixels).max() <= 1
        assert read.changes == ("converted from Adobe RGB (1998) to sRGB",)
    clear = picture.copy()
    clear.putalpha(128)
    clear.save(tmp_path / "clear.png", icc_profile=wide)
    read = read_picture(tmp_path / "clear.png")
    assert np.abs((np.int16(expected) + 255) // 2 - read.pixels).max() <= 2
    assert read.changes[1:] == ("transparency laid on white",)
    stored = read_picture(tmp_path / "wide.png", convert_colours=False)
    assert np.array_equal(stored.pixels, _picture()) and stored.changes == ()


def test_values_that_are_srgb_stay_as_they_are(tmp_path: Path) -> None:
    picture = Image.fromarray(_picture())
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for icc in (None, own, _profile_of("astronaut.png")):
        picture.save(tmp_path / "plain.png", icc_profile=icc)
        read = read_picture(tmp_path / "plain.png")
        assert np.array_equal(read.pixels, _picture()) and read.changes == ()
        picture.convert("L").save(tmp_path / "grey.png", icc_profile=icc)
        read = read_picture(tmp_path / "grey.png")
        assert np.array_equal(read.pixels[..., 1], picture.convert("L")) and read.changes == ()


def test_grey_is_converted_from_a_grey_profile(tmp_path: Path) -> None:
    values = np.array([[0, 55, 255]], np.uint8)
    Image.fromarray(values).save(tmp_path / "linear.png", icc_profile=_grey_profile(1))
    read = read_picture(tmp_path / "linear.png")
    # sRGB's curve: 12.92 x below 0.0031308, else 1.055 x^(1/2.4) - 0.055
    assert np.abs(np.int16(read.pixels[0, :, 0]) - [0, 128, 255]).max() <= 1
    assert read.changes == ("converted from an unnamed profile to sRGB",)
    clear = Image.fromarray(values)
    clear.putalpha(254)
    clear.save(tmp_path / "clear.png", icc_profile=_grey_profile(1))
    assert np.abs(np.int16(read_picture(tmp_path / "clear.png").pixels) - read.pixels).max() <= 1
    Image.fromarray(values.astype(np.uint16) * 257).save(
        tmp_path / "deep.png", icc_profile=_grey_profile(1)
    )
    deep = read_picture(tmp_path / "deep.png")
    assert np.array_equal(deep.pixels, read.pixels)
    assert deep.changes == ("reduced to 8 bits", *read.changes)


@pytest.mark.parametrize(
    ("mode", "icc", "said"),
    [
        ("RGB", b"no profile" * 20, ("its colour profile is corrupted and was ignored",)),
        (
            "RGB",
            _grey_profile(1),
            ("its profile (an unnamed profile) is not of RGB and was ignored",),
        ),
        (
            "CMYK",
            _grey_profile(1),
            ("its profile (an unnamed profile) is not of CMYK and was ignored",),
        ),
        ("CMYK", None, ("CMYK without a colour profile",)),
    ],
)
def test_a_profile_that_says_nothing_is_ignored_and_said(
    tmp_path: Path, mode: str, icc: bytes | None, said: tuple[str, ...]
) -> None:
    picture = Image.fromarray(_picture()).convert(mode)
    picture.save(tmp_path / "odd.tif", icc_profile=icc)
    read = read_picture(tmp_path / "odd.tif")
    assert np.array_equal(read.pixels, picture.convert("RGB")) and read.changes == said


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_of_several_frames_the_first_is_read_and_that_is_said(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "lime", "blue")]
    path = tmp_path / f"moving.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    read = read_picture(path)
    assert read.changes == ("first of 3 frames",)
    assert np.abs(read.pixels[0, 0] - np.int16([255, 0, 0])).max() <= 2


def test_sixteen_bits_and_an_odd_gamma_are_said(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "deep.png"), np.zeros((2, 2, 3), np.uint16))
    assert read_picture(tmp_path / "deep.png").changes == ("reduced to 8 bits",)
    for gamma, said in ((100_000, "taken as sRGB, its gamma of 1 is not applied"), (45_455, "")):
        info = PngImagePlugin.PngInfo()
        info.add(b"gAMA", gamma.to_bytes(4, "big"))
        Image.fromarray(_picture()).save(tmp_path / "gamma.png", pnginfo=info)
        read = read_picture(tmp_path / "gamma.png")
        assert "".join(read.changes) == said and np.array_equal(read.pixels, _picture())


def test_a_colour_space_that_is_stated_without_a_profile_is_said(tmp_path: Path) -> None:
    srgb = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
    display_p3 = (31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
    stated = {
        "primaries are": (b"cHRM", b"".join(n.to_bytes(4, "big") for n in display_p3)),
        "colour space (cICP) is": (b"cICP", bytes([9, 16, 0, 1])),  # BT.2020, PQ
        "": (b"cICP", bytes([1, 13, 0, 1])),
        "-": (b"cHRM", b"".join(n.to_bytes(4, "big") for n in srgb)),
    }
    for space, chunk in stated.items():
        info = PngImagePlugin.PngInfo()
        info.add(*chunk)
        Image.fromarray(_picture()).save(tmp_path / "stated.png", pnginfo=info)
        read = read_picture(tmp_path / "stated.png")
        said = f"taken as sRGB, its {space} not applied" if len(space) > 1 else ""
        assert "".join(read.changes) == said and np.array_equal(read.pixels, _picture())
    exif = Image.Exif()
    exif[ExifTags.IFD.Exif] = {0xA001: 0xFFFF, ExifTags.IFD.Interop: {1: "R03"}}
    Image.fromarray(_picture()).save(tmp_path / "camera.jpg", exif=exif)
    said = ("taken as sRGB, its Adobe RGB (EXIF) is not applied",)
    assert read_picture(tmp_path / "camera.jpg").changes == said


def test_what_pillow_reads_otherwise_than_it_is_meant_is_refused_or_put_right(
    tmp_path: Path,
) -> None:
    """TIFFs as microscopes and scanners write them."""
    deep = np.arange(24 * 40, dtype=np.uint16).reshape(24, 40) * 60
    tifffile.imwrite(tmp_path / "white.tif", deep, photometric="miniswhite")
    white = read_picture(tmp_path / "white.tif")
    assert np.array_equal(white.pixels[..., 0], 255 - (deep >> 8).astype(np.uint8))
    planes = np.stack([deep] * 3)
    tifffile.imwrite(tmp_path / "planes.tif", planes, photometric="rgb", planarconfig="separate")
    with pytest.raises(
        ImageError, match=r"planes\.tif: has 16 bits in a plane for each channel; s"
    ):
        read_picture(tmp_path / "planes.tif")
    tifffile.imwrite(tmp_path / "signed.tif", np.full((8, 8), -5, np.int8))
    with pytest.raises(ImageError, match=r"signed\.tif: has signed values; save it with unsigned"):
        read_picture(tmp_path / "signed.tif")
    five = np.dstack([_picture(), _picture()[..., :2]])
    tifffile.imwrite(tmp_path / "five.tif", five, photometric="rgb")
    read = read_picture(tmp_path / "five.tif")
    assert np.array_equal(read.pixels, _picture())
    assert read.changes == ("without its channels beyond the colours",)
    tifffile.imwrite(tmp_path / "float.tif", np.zeros((8, 8, 3), np.float32), photometric="rgb")
    with pytest.raises(
        ImageError, match=r"float\.tif: is a TIFF file that Pillow cannot read: .*8"
    ):
        read_picture(tmp_path / "float.tif")


def test_what_is_named_is_read_like_what_is_listed(tmp_path: Path) -> None:
    """One list of formats: each suffix of it is found in a folder, and PostScript in neither."""
    names = {
        "a.jfif": "JPEG",
        "b.ppm": "PPM",
        "c.jp2": "JPEG2000",
        "d.tga": "TGA",
        "e.AVIF": "AVIF",
    }
    for name, kind in names.items():
        Image.fromarray(_picture()).save(tmp_path / name, kind)
        assert read_image(tmp_path / name).shape == (24, 40, 3)
    Image.fromarray(_picture()).save(tmp_path / "f.eps")
    assert [path.name for path in list_images(tmp_path)] == [*names]
    with pytest.raises(ImageError, match=r"f\.eps: EPS is no format of pixels; save it as PNG"):
        read_image(tmp_path / "f.eps")


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
def test_corruption_is_refused_or_harmless(
    where: int, value: int, cut: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever a flipped byte does, no exception but ImageError may come out."""
    stream = io.BytesIO()
    Image.fromarray(_picture()).save(stream, format="PNG")
    content = bytearray(stream.getvalue())
    content[where % len(content)] = value
    path = tmp_path_factory.mktemp("corrupted") / "corrupted.png"
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
    (tmp_path / "trip").mkdir()
    with pytest.raises(UserError, match=r"holds no image .*its sub-folders \(.*trip\) were not"):
        list_images(tmp_path)
    with pytest.raises(UserError, match="holds no image"):
        list_images(tmp_path)


def test_sha256_is_that_of_the_content(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(content)
    assert sha256_file(tmp_path / "file") == hashlib.sha256(content).hexdigest()
