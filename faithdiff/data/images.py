"""Reading and writing image files: any ordinary format in, uint8 RGB arrays within, PNG out.

Whatever a user's folder holds is either turned into ``(H, W, 3)`` uint8 RGB or refused with the
file's name; a picture that is written is complete or absent, never half there.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from faithdiff.errors import ImageError, UserError
from faithdiff.files import lfs_pointer, unwritable

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Four times 8K video; a larger one is a mistake or an attack, and would not fit a GPU anyway.
MAX_PIXELS = 4 * 7680 * 4320


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Read the first frame of an image file as ``(H, W, 3)`` uint8 RGB.

    EXIF rotation is applied. Transparency is laid over white, as a page shows it. Grey is repeated
    in all channels, 16-bit grey keeps its high byte, floating-point grey is taken as ``[0, 1]``
    (a wider range is refused), CMYK and other colour spaces are converted without a profile.

    Raises:
        ImageError: The file is missing, empty, truncated, no image, or larger than ``MAX_PIXELS``.
    """
    path = Path(path)
    try:
        if path.stat().st_size == 0:
            raise ImageError(f"{path}: the file is empty (0 bytes); copy or make it again")
        with _strict_decoding(), Image.open(path) as picture:
            _check_area(path, picture)
            return _to_rgb(path, ImageOps.exif_transpose(picture))
    except UnidentifiedImageError as error:
        said = lfs_pointer(path) or "not an image in a known format"
        raise ImageError(f"{path}: {said}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path}: {error}; reduce it first") from error
    # Pillow's decoders answer damage with any of these, by format.
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise ImageError(f"{path}: cannot be read: {error}") from error


@contextmanager
def _strict_decoding() -> Iterator[None]:
    """Let truncated files fail, and silence the size warning that our own limit replaces.

    pyiqa switches on Pillow's tolerance at import, which turns missing pixels to grey unnoticed.
    """
    tolerant = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = tolerant


def _check_area(path: Path, picture: Image.Image) -> None:
    if picture.width * picture.height > MAX_PIXELS:
        raise ImageError(
            f"{path}: {picture.width} x {picture.height} px is over the limit of {MAX_PIXELS} px; "
            "reduce or crop it first"
        )


def _to_rgb(path: Path, picture: Image.Image) -> NDArray[np.uint8]:
    if picture.mode == "F" or picture.mode.startswith("I"):
        grey = _to_grey(path, picture)
        return np.repeat(grey[..., None], 3, axis=2)
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        page = Image.new("RGBA", layer.size, "white")
        picture = Image.alpha_composite(page, layer)
    return np.array(picture.convert("RGB"), np.uint8)


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
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
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
        read_image(path)
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


def list_images(folder: str | Path) -> list[Path]:
    """List the image files of a folder, by their suffix, sorted by name; sub-folders are skipped.

    Raises:
        UserError: The folder is missing or holds no image, or two files differ only in suffix
            (results are named after the stem, so one would overwrite the other).
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give one that holds images")
    paths = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")
    )
    if not paths:
        known = ", ".join(sorted(SUFFIXES))
        raise UserError(f"{folder}: holds no image; known suffixes are {known}")
    seen: dict[str, Path] = {}
    for path in paths:
        if path.stem in seen:
            raise UserError(
                f"{folder}: {seen[path.stem].name} and {path.name} share the name {path.stem!r}, "
                "and results are stored by it; rename one of them"
            )
        seen[path.stem] = path
    return paths


def sha256_file(path: str | Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
