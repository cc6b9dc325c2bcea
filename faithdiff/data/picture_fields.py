"""What the fields of an image file say of its pixels, beyond what Pillow makes of them.

Pillow reads some layouts otherwise than they are meant, and passes over some ways to state a colour
space. The former are refused or put right, the latter are said.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin

# Formats that are known by their first bytes.
_MAGIC = ("AVIF", "DDS", "GIF", "JPEG", "JPEG2000", "PNG", "PSD", "TIFF", "WEBP")
_SRGB = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)  # x, y of white, red, green, blue
_CICP = b"\0\0\0\x04cICP"  # length and name of a chunk that states the colour space by numbers
_CICP_SRGB = bytes([1, 13, 0, 1])
_RAW = "the raw data of a camera"
# Files that are taken for pictures and that Pillow has no decoder for: where what stands in them.
_OTHERS = (
    (4, re.compile(rb"ftyp(?:hei|hev|mif1|msf1)"), "a HEIC picture"),
    (4, re.compile(rb"ftypcrx|HEAPCCDR"), _RAW),
    (0, re.compile(rb"FUJIFILMCCD-RAW|IIU\0|IIRO|\0MRM|FOVb"), _RAW),
    (4, re.compile(rb"ftyp|moov|mdat|free"), "a film"),
    (0, re.compile(rb"\x1aE\xdf\xa3|RIFF....AVI ", re.DOTALL), "a film"),
    (0, re.compile(rb"\xff\x0a|\0\0\0\x0cJXL "), "a JPEG XL picture"),
    (0, re.compile(rb"v/1\x01"), "an OpenEXR picture"),
    (0, re.compile(rb"%PDF"), "a PDF document"),
    (0, re.compile(rb"PK\x03\x04|Rar!|7z\xbc\xaf"), "an archive"),
    (0, re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?<svg", re.IGNORECASE), "an SVG drawing"),
    (0, re.compile(rb"\s*<(?:!doctype )?html", re.IGNORECASE), "a web page"),
    (0, re.compile(rb"\x93NUMPY"), "an array of numpy"),
)
_REDUCED = 1  # of TIFF's field NewSubfileType: this is the preview of another picture in the file
_NEW_SUBFILE_TYPE, _DNG_VERSION = 254, 50706
_MINISWHITE, _SEPARATE, _SIGNED = 0, 2, 2  # values of TIFF fields


def lost(picture: Image.Image) -> Iterator[str]:
    """What decoding leaves behind, in words; before the pixels are loaded."""
    frames = getattr(picture, "n_frames", 1)
    if frames > 1 and picture.format != "PSD":  # whose frames are layers, and come merged
        yield f"first of {frames} frames"
    # Pillow names the layout of the stored bytes: RGB;16B is 16 bits, BGR;16 is 5 + 6 + 5.
    layouts = " ".join(str(tile.args) for tile in getattr(picture, "tile", ()))
    if picture.mode.startswith(("I", "F")) or re.search(r";16[BLN]", layouts):
        yield "reduced to 8 bits"
    if picture.format == "TIFF" and "X" in layouts:  # in a BMP X is padding
        yield "without its channels beyond the colours"
    gamma = picture.info.get("gamma")
    stated = picture.info.keys() & {"icc_profile", "srgb"}
    if gamma and not stated and abs(gamma - 1 / 2.2) > 0.02:
        yield f"taken as sRGB, its gamma of {gamma:g} is not applied"
    elif not stated and (space := _colour_space(picture)):
        yield f"taken as sRGB, its {space} not applied"


def _colour_space(picture: Image.Image) -> str:
    """Another colour space that is stated without a profile; empty where none is."""
    primaries = picture.info.get("chromaticity") or _SRGB
    if max(abs(x - y) for x, y in zip(primaries, _SRGB, strict=False)) > 0.01:
        return "primaries are"
    if isinstance(picture, PngImagePlugin.PngImageFile):
        # Pillow has no name for this chunk. It stands before the pixels.
        with Path(os.fsdecode(picture.filename)).open("rb") as stream:
            head = stream.read(1 << 16)
        before, found, after = head.partition(_CICP)
        if found and b"IDAT" not in before and after[:4] != _CICP_SRGB:
            return "colour space (cICP) is"
    if picture.format not in ("JPEG", "MPO", "TIFF"):
        return ""
    # Cameras state Adobe RGB by the name of a file format (DCF), and embed no profile.
    exif = picture.getexif().get_ifd(ExifTags.IFD.Interop)
    return "Adobe RGB (EXIF) is" if str(exif.get(1)).startswith("R03") else ""


def misread(picture: Image.Image) -> str:
    """Why the pixels that Pillow gives would be wrong; empty where they are not."""
    if not isinstance(picture, TiffImagePlugin.TiffImageFile):
        return ""
    fields = picture.tag_v2
    # The files of many cameras are TIFFs whose first image is a small preview.
    if _DNG_VERSION in fields or fields.get(_NEW_SUBFILE_TYPE, 0) & _REDUCED:
        return f"holds {_RAW} and a preview, which alone could be read; save it as TIFF or PNG"
    bits = max(fields.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
    if fields.get(TiffImagePlugin.PLANAR_CONFIGURATION) == _SEPARATE and bits > 8:
        return f"has {bits} bits in a plane for each channel; save it with interleaved channels"
    if bits == 8 and _SIGNED in fields.get(TiffImagePlugin.SAMPLEFORMAT, ()):
        return "has signed values; save it with unsigned ones"
    return ""


def white_is_zero(picture: Image.Image) -> bool:
    """Whether a TIFF of more than 8 bits counts from white, which Pillow leaves as it is."""
    if not isinstance(picture, TiffImagePlugin.TiffImageFile):
        return False
    kind = picture.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION)
    return kind == _MINISWHITE and picture.mode.startswith(("I", "F"))


def unread(path: Path) -> str:
    """What to say of a file that Pillow does not identify, by what it begins with."""
    Image.init()
    with path.open("rb") as stream:
        head = stream.read(256)
    for name in _MAGIC:
        accept = Image.OPEN[name][1] if name in Image.OPEN else None
        if accept and accept(head) is True:
            return (
                f"is a {name} file that Pillow cannot read: it is corrupted, or its layout is one "
                "that Pillow does not know; save it with 8 or 16 bits per channel"
            )
    for place, begins, what in _OTHERS:
        if begins.match(head, place):
            return f"is {what}, which cannot be read here; give a PNG, JPEG or TIFF made from it"
    return ""
