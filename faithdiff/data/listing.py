"""Which files of a folder are images, what they are called, and what is said of all else."""

from __future__ import annotations

import functools
import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from faithdiff.data.images import NO_PIXELS
from faithdiff.errors import UserError
from faithdiff.study.files import gone, printable


@dataclass(frozen=True)
class Listing:
    """What a folder holds: images, and all else with the reason why it is none.

    Attributes:
        folder: The one that was listed.
        images: In the order of their paths.
        skipped: Files and sub-folders with the reason; hidden files are none unless they have the
            name of an image.
    """

    folder: Path
    images: list[Path]
    skipped: list[tuple[Path, str]]

    def by_name(self) -> dict[str, Path]:
        """The images by what their results are named after: ``<stem>``, ``<sub-folder>-<stem>``.

        Raises:
            UserError: There is no image, or two of them have one name.
        """
        if not self.images:
            inside = [str(path) for path, why in self.skipped if why == SUBFOLDER]
            hint = f"; its sub-folders ({', '.join(inside[:3])}) were not read" if inside else ""
            raise UserError(f"{self.folder}: holds no image in a format that Pillow reads{hint}")
        found: dict[str, Path] = {}
        taken: dict[str, Path] = {}
        for path in self.images:
            name = "-".join((*path.relative_to(self.folder).parts[:-1], path.stem))
            other = taken.setdefault(spelt_alike(name), path)
            if other is not path:
                both = " and ".join(str(p.relative_to(self.folder)) for p in (other, path))
                same = name in found
                share = (
                    f"share the name {name!r}" if same else f"are one name on many disks ({ALIKE})"
                )
                raise UserError(
                    f"{self.folder}: {both} {share}, and results are stored by it; rename one of "
                    "them"
                )
            found[name] = path
        return found


SUBFOLDER = "sub-folder"
ALIKE = "which do not tell upper from lower case, nor an accented letter from letter and accent"


def spelt_alike(name: str) -> str:
    """What is equal for names that macOS, Windows and many network disks take for one file."""
    # Letter by letter: as a whole, "ß" would become "ss", which no disk takes for the same.
    return unicodedata.normalize("NFC", "".join(map(str.lower, unicodedata.normalize("NFD", name))))


@functools.cache
def suffixes() -> frozenset[str]:
    """Suffixes of image files: of all formats whose pixels Pillow reads, with their dot."""
    known = Image.registered_extensions()
    return frozenset(s for s, f in known.items() if f in Image.OPEN and f not in NO_PIXELS)


def scan(folder: str | Path, recursive: bool = False) -> Listing:
    """List the image files of a folder by their suffix; and what else it holds, and why it is left.

    Args:
        recursive: Look into sub-folders, too; links to folders are not followed.

    Raises:
        UserError: The folder, or one in it, is missing or cannot be read.
        RunError: Its disk or network mount does not answer.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give one that holds images")
    found = Listing(folder, [], [])
    for place, folders, files in os.walk(folder, onerror=_refuse):
        folders.sort()
        for file in map(Path(place).joinpath, sorted(files)):
            if why := _no_image(file):
                found.skipped.append((file, why))
            elif file.suffix.lower() in suffixes():
                found.images.append(file)
        for inside in map(Path(place).joinpath, folders):
            if not recursive and not inside.name.startswith("."):
                found.skipped.append((inside, SUBFOLDER))
            elif inside.is_symlink():
                found.skipped.append((inside, "link to a folder"))
        if not recursive:
            break
    return found


def _refuse(error: OSError) -> None:
    place = Path(error.filename)
    raise gone(error, place) or UserError(f"{place}: cannot be read ({error.strerror})")


def _no_image(file: Path) -> str:
    """Why a file is no image; empty for one, and for hidden files that nobody would miss."""
    named = file.suffix.lower() in suffixes()
    if file.name.startswith("."):
        return "hidden" if named else ""
    if not named:
        return "no format of images"
    return "" if file.is_file() else "link that leads nowhere" if file.is_symlink() else "no file"


def list_images(folder: str | Path) -> list[Path]:
    """List the image files of a folder, by their suffix, sorted by name; sub-folders are skipped.

    Raises:
        UserError: The folder is missing or holds no image, or two files differ only in suffix
            (results are named after the stem, so one would overwrite the other).
    """
    return list(scan(folder).by_name().values())


class Notes:
    """What was skipped or changed while pictures were read, and why: one line at the end."""

    def __init__(self) -> None:
        self._names: dict[str, dict[str, None]] = {}

    def add(self, what: str, name: str | Path) -> None:
        """Note it of a file; the same of the same file counts once."""
        self._names.setdefault(what, {})[printable(name)] = None

    def skip(self, listing: Listing) -> None:
        """Note what a listing left out."""
        for path, why in listing.skipped:
            self.add(f"skipped, {why}", path.relative_to(listing.folder))

    def line(self) -> str:
        """Each reason with its files, a few by name; empty where there is nothing to say."""
        parts = []
        for what, names in self._names.items():
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            parts.append(f"{what}: {', '.join(list(names)[:3])}{more}")
        return "; ".join(parts)
