"""Reading and writing image files: any ordinary format in, uint8 sRGB arrays within, PNG out.

Whatever a user's folder holds is either turned into ``(H, W, 3)`` uint8 RGB or refused with the
file's name; what a file holds besides, or holds otherwise, is said. A picture that is written is
complete or absent, never half there.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import tempfile
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile, ImageOps, PngImagePlugin, UnidentifiedImageError

from faithdiff.data.picture_fields import lost, misread, unread, white_is_zero
from faithdiff.errors import ImageError, UserError
from faithdiff.study.files import gone, lfs_pointer, printable, unreadable, unwritable

# Formats whose header Pillow knows, and whose pixels it does not decode or leaves to a program that
# it starts (PostScript).
NO_PIXELS = frozenset({"BUFR", "EMF", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"})
_CHANNELS = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # Pillow's mode, by a profile's space
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
SAME_COLOUR = 1  # of 255: sRGB profiles differ from each other by rounding
# Four times 8K video; a larger one is a mistake or an attack, and would not fit a GPU anyway.
MAX_PIXELS = 4 * 7680 * 4320
# Bytes of the texts of a PNG, which may be a thousand times as many as in the file.
_MAX_TEXT = 1 << 27


@dataclass(frozen=True)
class Reading:
    """A picture as it was read.

    Attributes:
        pixels: ``(H, W, 3)`` uint8 sRGB.
        changes: What is not in the pixels as it is in the file, in words; mostly nothing.
    """

    pixels: NDArray[np.uint8]
    changes: tuple[str, ...] = ()


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Read an image file as ``(H, W, 3)`` uint8 sRGB; see :func:`read_picture`."""
    return read_picture(path).pixels


def read_result(path: str | Path) -> NDArray[np.uint8]:
    """Read a restored image: as :func:`read_image`, of any size.

    It is several times as large as its LQ image, and was in memory before.
    """
    return read_picture(path, max_pixels=None).pixels


def read_picture(
    path: str | Path, convert_colours: bool = True, max_pixels: int | None = MAX_PIXELS
) -> Reading:
    """Read the first frame of an image file as ``(H, W, 3)`` uint8 sRGB, and say what was changed.

    EXIF rotation is applied. Colours are converted from the embedded ICC profile; values without
    one are taken as sRGB. Transparency is laid over white, as a page shows it. Grey is repeated in
    all channels, 16 bits keep their high byte, floating-point grey is taken as ``[0, 1]`` (a wider
    range is refused).

    Args:
        convert_colours: False: take the stored values, whatever the profile says.
        max_pixels: Larger ones are refused; None: none is.

    Raises:
        ImageError: The file is missing, empty, truncated, no image, or too large.
        RunError: Its disk or network mount does not answer.
    """
    path = Path(path)
    try:
        if path.stat().st_size == 0:
            raise ImageError(f"{path}: the file is empty (0 bytes); copy or make it again")
        with _strict_decoding(max_pixels), Image.open(path) as picture:
            if picture.format in NO_PIXELS:
                raise ImageError(
                    f"{path}: {picture.format} is no format of pixels; save it as PNG or JPEG"
                )
            _check_area(path, picture, max_pixels)
            if wrong := misread(picture):
                raise ImageError(f"{path}: {wrong}")
            changes = tuple(lost(picture))
            icc = picture.info.get("icc_profile") if convert_colours else None
            negative = white_is_zero(picture)
            rgb, more = _to_rgb(path, ImageOps.exif_transpose(picture), icc, negative)
            return Reading(np.array(rgb, np.uint8), (*changes, *more))
    except UnidentifiedImageError as error:
        said = lfs_pointer(path) or unread(path) or "not an image in a known format"
        raise ImageError(f"{path}: {said}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path}: {error}; reduce it first") from error
    # What Pillow's decoders raise for a corrupted file, by format.
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        # Not for the fault of a mount would anybody want a picture to be skipped or made again.
        if isinstance(error, OSError) and (found := gone(error, path)):
            raise found from error
        why = error.strerror if isinstance(error, OSError) else None
        raise ImageError(f"{path}: cannot be read: {why or error}") from error


@contextmanager
def _strict_decoding(max_pixels: int | None) -> Iterator[None]:
    """Let truncated files fail, and silence the size warning that our own limit replaces.

    pyiqa switches on Pillow's tolerance at import, which turns missing pixels to grey unnoticed.
    Long texts and profiles of a PNG are let through: programs that generate pictures write their
    whole workflow into them.
    """
    tolerant, bomb = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
    limits = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    Image.MAX_IMAGE_PIXELS = None if max_pixels is None else bomb
    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = _MAX_TEXT
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = tolerant, bomb
        PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = limits


def _check_area(path: Path, picture: Image.Image, limit: int | None) -> None:
    if limit is not None and picture.width * picture.height > limit:
        raise ImageError(
            f"{path}: {picture.width} x {picture.height} px is over the limit of {limit} px; "
            "reduce or crop it first"
        )


def _to_rgb(
    path: Path, picture: Image.Image, icc: bytes | None, negative: bool
) -> tuple[Image.Image, tuple[str, ...]]:
    """The picture in mode RGB, and what was changed for it."""
    if picture.mode == "F" or picture.mode.startswith("I"):
        grey = _to_grey(path, picture)
        clear = picture.info.get("transparency")  # of a PNG: the one value of 16 bits that is
        opaque = None if clear is None else np.asarray(np.asarray(picture) != clear, np.uint8) * 255
        picture = Image.fromarray(255 - grey if negative else grey)
        if opaque is not None:
            picture = Image.merge("LA", (picture, Image.fromarray(opaque)))
    if not picture.has_transparency_data:
        rgb, note = _to_srgb(picture, icc)
        return rgb, (note,) if note else ()
    layer = picture.convert("RGBA")
    rgb, note = _to_srgb(layer.convert("L" if picture.mode == "LA" else "RGB"), icc)
    alpha = layer.getchannel("A")
    rgb.putalpha(alpha)
    page = Image.new("RGBA", layer.size, "white")
    laid = "transparency laid on white" if alpha.getextrema() != (255, 255) else ""
    return Image.alpha_composite(page, rgb).convert("RGB"), tuple(filter(None, (note, laid)))


def _to_srgb(picture: Image.Image, icc: bytes | None) -> tuple[Image.Image, str]:
    """The picture in mode RGB, converted from its colour profile; and what is to be said of it."""
    plain = picture.convert("RGB")
    if picture.mode == "LAB":  # colours by themselves: a profile has nothing to add
        return plain, "converted from Lab to sRGB"
    if not icc:
        return plain, "CMYK without a colour profile" if picture.mode == "CMYK" else ""
    name, mode, transform = _profile(icc)
    if not name:
        return plain, "its colour profile is corrupted and was ignored"
    # What Pillow converts without a formula of its own for colours: from grey, palette, YCbCr.
    near = {"RGB": picture.mode != "CMYK", "L": picture.mode in ("1", "L"), "CMYK": False}
    if mode != picture.mode and not near.get(mode):
        return plain, f"its profile ({name}) is not of {picture.mode} and was ignored"
    if transform is None:
        return plain, ""
    converted = ImageCms.applyTransform(picture.convert(mode), transform)
    assert converted is not None  # None: only where it works in place
    return converted, f"converted from {name} to sRGB"


@functools.lru_cache(maxsize=16)
def _profile(icc: bytes) -> tuple[str, str, ImageCms.ImageCmsTransform | None]:
    """Name of an ICC profile, mode of the pictures it is for, and the way to sRGB.

    All are empty for a profile that cannot be read. There is no way for one that is sRGB already,
    by whatever name: pictures keep their values.
    """
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        mode = _CHANNELS.get(profile.profile.xcolor_space.strip(), "")
        name = printable(ImageCms.getProfileDescription(profile).strip()[:60])
        name = name or "an unnamed profile"
        if not mode:
            return name, "", None
        transform = ImageCms.buildTransform(
            profile,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return "", "", None
    if mode == "CMYK":
        return name, mode, transform
    levels = np.linspace(0, 255, 17).astype(np.uint8)
    grid = np.stack(np.meshgrid(*[levels] * len(mode)), axis=-1).reshape(17, -1, len(mode))
    colours = Image.fromarray(grid if mode == "RGB" else grid[..., 0])
    converted = ImageCms.applyTransform(colours, transform)
    moved = np.asarray(converted, np.int16) - np.asarray(colours.convert("RGB"), np.int16)
    return name, mode, transform if np.abs(moved).max() > SAME_COLOUR else None


def _to_grey(path: Path, picture: Image.Image) -> NDArray[np.uint8]:
    """Reduce 16-bit and floating-point grey to 8 bits; Pillow's own conversion would clip it."""
    values = np.asarray(picture)
    low, high, limit = values.min(), values.max(), 1.0 if picture.mode == "F" else 65535
    if not (low >= 0 and high <= limit):
        raise ImageError(
            f"{path}: grey values from {low} to {high} lie outside [0, {limit}]; "
            "save it with 8 or 16 bits per channel"
        )
    if picture.mode == "F":
        return np.asarray(np.rint(values * 255.0), np.uint8)
    return np.asarray(values.astype(np.int64) >> 8, np.uint8)


def write_png(image: NDArray[np.uint8], path: str | Path) -> None:
    """Write ``(H, W, 3)`` uint8 RGB as a PNG; equal images give equal bytes.

    The file appears under its name only when complete: a temporary one beside it is synced to disk
    and then renamed. Missing parent folders are made.

    Raises:
        ValueError: ``image`` has another shape or type.
        RunError: The disk is full, or the folder cannot be written to.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected (H, W, 3) uint8, got {image.shape} {image.dtype}")
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # mkstemp names cannot clash between processes that write the same picture.
        # Cut, or a name that is as long as the file system allows could not be written.
        cut = f".{path.name[:40]}."
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=cut, suffix=".tmp")
        temporary = Path(name)
        with os.fdopen(handle, "wb") as stream:
            Image.fromarray(image).save(stream, format="PNG", compress_level=6)
            stream.flush()
            os.fchmod(stream.fileno(), 0o644)  # mkstemp makes files that only their owner reads
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        # After a successful rename there is nothing left under this name.
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def png_is_whole(path: Path) -> bool:
    """Whether a PNG decodes and each of its bytes is vouched for by the checksum of its chunk.

    A decoder stops at the last pixel; a bit that flipped behind it would change the file's hash.
    """
    try:
        data = path.read_bytes()
        read_result(path)
    except (OSError, ImageError):
        return False
    place, kind = len(_SIGNATURE), b""
    while kind != b"IEND" and place + 12 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        kind = data[place + 4 : place + 8]
        if zlib.crc32(data[place + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            return False
        place = end
    return data.startswith(_SIGNATURE) and kind == b"IEND" and place == len(data)


def sha256_file(path: str | Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits.

    Raises:
        UserError: It cannot be read, or is gone.
        RunError: So it is, and the disk or mount is to blame.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise gone(error, path) or UserError(unreadable(path, error)) from error
