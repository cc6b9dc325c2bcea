"""Restores a person's own pictures, whole and of any size, with a trained checkpoint.

Large pictures go through overlapping latent tiles (restore/tiling.py). Everything that can be wrong
with the inputs is found before the first picture is restored; a run that was killed goes on after
the last finished picture.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from faithdiff.config import digest
from faithdiff.data.images import (
    read_image,
    read_picture,
    read_result,
    sha256_file,
    write_png,
)
from faithdiff.data.listing import ALIKE, Notes, scan, spelt_alike
from faithdiff.errors import (
    FaithDiffError,
    ImageError,
    NotFiniteError,
    RunError,
    TooLargeError,
    UserError,
)
from faithdiff.methods.method import Method, Restorer
from faithdiff.methods.registry import find_method
from faithdiff.restore.arrays import to_image, to_tensor
from faithdiff.restore.choices import Choices, Chosen, chosen_study
from faithdiff.restore.enlarge import enlarge
from faithdiff.restore.memory import restore_in_memory
from faithdiff.restore.picture_captions import picture_captions
from faithdiff.restore.picture_record import (
    RECORD,
    Record,
    Result,
    check_choice,
    check_ours,
    is_done,
    is_result,
    read_record,
    write_record,
)
from faithdiff.restore.run import describe
from faithdiff.restore.tile_sizes import free_memory
from faithdiff.study.files import printable
from faithdiff.study.progress import ProgressBar
from faithdiff.study.provenance import code_digest

SMALLEST = 8  # pixels: below it there is nothing to see, and a UNet has no pixel left to halve
BESIDE = "side-by-side"  # folder in the output
LEAST_BYTES = 24  # of memory for a pixel of a result: the enlarged picture and the restored one
IN_OPTIONS = (
    "--precision bf16, --vae-tile auto, a smaller --tile and, with a GPU, --offload need less"
)
ONE_FAILS = (TooLargeError, NotFiniteError)  # where the next picture may be restored


@dataclass(frozen=True)
class PictureFile:
    """A picture that can be restored, the file of its result, and its pixels."""

    file: Path
    target: Path
    pixels: int

    @property
    def beside(self) -> Path:
        """The file of the picture beside its result."""
        return self.target.parent / BESIDE / self.target.name


@dataclass(frozen=True)
class Picture(PictureFile):
    """A picture to restore, its caption, and the key of its result."""

    caption: str
    key: str


def restore_pictures(checkpoint: Path, inputs: list[Path], output: Path, choices: Choices) -> None:
    """Write ``output/<stem>.png`` for each picture, and ``output/side-by-side/`` where asked.

    A picture that does not fit into memory, or whose result is not finite, fails alone; the error
    names it after all others.

    Args:
        checkpoint: Folder that ``faithdiff train`` wrote; its ``run.json`` has the settings.
        inputs: Pictures, or folders of pictures; sub-folders are not read. What was skipped, or is
            read otherwise than it is in its file, is printed in one line.
        output: Made where missing. A result of the same picture and settings is kept; one that
            another checkpoint or other settings made is replaced only where that was asked for.
        choices: What is asked for.

    Raises:
        ImageError: Names every picture that cannot be read or is too small; nothing is restored.
        UserError: An input is missing, two results would have one name, one would take the place of
            an input, of a file that this command did not write or of a result of other settings,
            or a choice is not possible.
        CheckpointError: The checkpoint or the prior is missing or corrupted.
        TooLargeError: Names the pictures that did not fit into memory.
        RunError: Names these and those whose results were not finite.
    """
    chosen = chosen_study(checkpoint, choices)
    method = find_method(chosen.study, chosen.method)
    if chosen.offload_to is not None and not method.offloads:
        raise UserError(
            f"--offload: {chosen.method} keeps its networks on one device; FaithDiff and its "
            "variants can be offloaded. Leave it out"
        )
    settings, made = _decisive(chosen, method, checkpoint, choices)
    done = read_record(output)
    sources = _sources(inputs, output, done)
    captions = picture_captions(choices.caption, [s.file for s in sources], chosen.captioned)
    pictures = [_picture(source, captions[source.file], settings) for source in sources]
    failures = _too_large(pictures, done, output, chosen)
    pictures = [picture for picture in pictures if picture not in failures]
    todo = {p for p in pictures if not is_done(p.target, p.key, done, output)}
    beside = {p for p in pictures if p in todo or not is_done(p.beside, p.key, done, output)}
    beside = beside if choices.side_by_side else set()
    targets = [file for p in pictures for file in _targets(p, todo, beside)]
    check_ours(targets, done, output)
    if not choices.overwrite:
        check_choice(targets, done, output, made)
    for why in failures.values():
        print(f"failed, the others go on: {why}", flush=True)
    if len(todo) < len(pictures):
        print(f"{len(pictures) - len(todo)} of {len(pictures)} pictures are restored already")
    restorer = method.load(chosen.study, checkpoint) if todo else None
    if restorer is not None and chosen.offload_to is not None:
        restorer.offload(chosen.offload_to)
    with _Bar(todo) as bar:
        for picture in pictures:
            try:
                # After every file: a run that ends early loses the one that it is at, and the next
                # one knows all others for its own.
                if picture in todo and restorer is not None:
                    _restore(restorer, picture, chosen, choices, bar)
                    write_record(picture.target, {**made, "key": picture.key}, done, output)
                if picture in beside:
                    _write_beside(picture, chosen)
                    write_record(picture.beside, {**made, "key": picture.key}, done, output)
            except ONE_FAILS as error:
                bar.say(f"failed, the others go on: {error}")
                failures[picture] = error
    if failures:
        raise _failed(list(failures.values()), len(sources))


def _decisive(
    chosen: Chosen, method: Method, checkpoint: Path, choices: Choices
) -> tuple[str, Result]:
    """A digest of all that decides a result beside its picture, and what the record says of it."""
    # One digest over all of it: a picture is made again when any of it changes, and never when only
    # its file was touched.
    identity = describe(chosen.study, method, chosen.method, checkpoint)
    code = code_digest(read_picture.__module__)
    # Without the code: an update of the suite makes results again, and is nobody's choice.
    chose = {key: value for key, value in identity.items() if key != "code"}
    choice = digest(chose, chosen.passes, choices.seed, choices.caption)
    made: Result = {"choice": choice, "made_by": choices.typed(checkpoint)}
    return digest(identity, chosen.passes, choices.seed, code), made


def _failed(errors: Sequence[Exception], asked: int) -> RunError:
    """One error for all pictures that failed; of its own kind where memory was what lacked."""
    kind = TooLargeError if all(isinstance(e, TooLargeError) for e in errors) else RunError
    reasons = "\n".join(map(str, errors))
    return kind(f"{len(errors)} of {asked} were not restored:\n{reasons}")


def _too_large(
    pictures: list[Picture], done: Record, output: Path, chosen: Chosen
) -> dict[Picture, FaithDiffError]:
    """Pictures whose results cannot fit into memory, whatever is tried.

    Linux would grant the memory at first, and end the process without a word when it is used.
    """
    factor, free = int(np.prod(chosen.passes)), free_memory(torch.device("cpu"))
    found: dict[Picture, FaithDiffError] = {}
    for picture in pictures:
        needed = LEAST_BYTES * picture.pixels * factor**2
        if needed > free and not is_done(picture.target, picture.key, done, output):
            found[picture] = TooLargeError(
                f"{picture.file}: its {picture.pixels / 1e6:,.0f} megapixels become "
                f"{picture.pixels * factor**2 / 1e6:,.0f}, for which {needed / 1e9:,.0f} GB of "
                f"memory are needed at least; {free / 1e9:,.0f} GB are free here; crop it, or give "
                "a smaller --scale"
            )
    return found


def _targets(picture: Picture, todo: set[Picture], beside: set[Picture]) -> list[Path]:
    """The files that are to be written of a picture."""
    return [picture.target] * (picture in todo) + [picture.beside] * (picture in beside)


def _files(inputs: list[Path], output: Path, done: Record, notes: Notes) -> list[Path]:
    """All pictures of the inputs, each once, in the order given; but none that we made there.

    Two names of one picture (links) are two results, as they are in a test set.
    """
    files: dict[tuple[Path, str], Path] = {}
    for given in inputs:
        if not given.exists():
            address = ":/" in str(given)
            advice = "; download the picture first, and give its file" if address else ""
            raise UserError(f"{given}: no such file or folder{advice}")
        found = [given]
        if given.is_dir():
            listing = scan(given)
            found = listing.images or [*listing.by_name().values()]  # which says that it is empty
            ours = [each for each in listing.skipped if each[0].name == RECORD]
            notes.skip(replace(listing, skipped=[s for s in listing.skipped if s not in ours]))
        for file in found:
            if is_result(file, output, done):
                notes.add("skipped, result of an earlier call", file.name)
            else:
                files.setdefault((file.resolve(), file.stem), file)
    if not files:
        raise UserError(
            f"{output}: all pictures given are results of `faithdiff restore` there; to restore "
            "them once more give another --output"
        )
    return list(files.values())


def _sources(inputs: list[Path], output: Path, done: Record) -> list[PictureFile]:
    """Give each picture its result's name; refuse names that clash and pictures that are broken.

    Says what is skipped, and what is read otherwise than it is in its file.
    """
    notes = Notes()
    files = _files(inputs, output, done, notes)
    if output.exists() and not output.is_dir():
        raise UserError(f"{output}: is a file; give a folder for the results")
    given = {file.resolve() for file in files}
    taken: dict[str, Path] = {}
    broken, sources = [], []
    for file in files:
        target = output / f"{file.stem}.png"
        other = taken.setdefault(spelt_alike(file.stem), file)
        if other is not file:
            here = "" if other.stem == file.stem else f" on many disks ({ALIKE})"
            raise UserError(
                f"{other} and {file} would both become {target.name}{here}; rename one, or restore "
                "them into two folders"
            )
        if target.resolve() in given:
            raise UserError(
                f"{target}: is an input and would be overwritten; give another --output"
            )
        try:
            sources.append(PictureFile(file, target, _pixels(file, notes)))
        except ImageError as error:
            broken.append(str(error))
    # All of them in one message: whoever restores a folder overnight wants to mend it once.
    if broken:
        raise ImageError("\n".join(broken))
    if said := notes.line():
        print(f"restore: {said}", flush=True)
    return sources


def _pixels(file: Path, notes: Notes) -> int:
    """The size of a picture; it is decoded in full, as a cut file has a sound header."""
    read = read_picture(file)
    for change in read.changes:
        notes.add(change, file.name)
    height, width = read.pixels.shape[:2]
    if min(height, width) < SMALLEST:
        raise ImageError(
            f"{file}: {width} x {height} px; each side must have {SMALLEST} px at least"
        )
    return height * width


def _picture(source: PictureFile, caption: str, settings: str) -> Picture:
    key = digest(settings, caption, sha256_file(source.file))
    return Picture(source.file, source.target, source.pixels, caption, key)


class _Bar:
    """One bar over all pictures, by their pixels: its time left is that of the whole call."""

    def __init__(self, pictures: set[Picture]) -> None:
        total = sum(picture.pixels for picture in pictures)
        self._number, self._count, self._done = 0, len(pictures), 0
        self._bar = ProgressBar(
            total=total,
            disable=not pictures,
            mininterval=0.5,
            bar_format="{desc}{percentage:3.0f}%|{bar}| {elapsed} so far, {remaining} left",
        )

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def begin(self, picture: Picture) -> Callable[[float], None]:
        """Start with a picture; what is returned is told which share of it is done."""
        self._number += 1
        self._bar.set_description(f"[{self._number}/{self._count}] {picture.file.name}")
        before, self._done = self._done, self._done + picture.pixels
        self._bar.update(before - self._bar.n)
        return lambda share: self._move(before + share * picture.pixels)

    def _move(self, place: float) -> None:
        self._bar.update(place - self._bar.n)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._bar.write(line, file=sys.stdout)


def _restore(
    restorer: Restorer, picture: Picture, chosen: Chosen, choices: Choices, bar: _Bar
) -> None:
    """Restore a picture in all its passes, and write the result."""
    image = to_tensor(read_image(picture.file))
    sizes, begun, tell = [image.shape], time.perf_counter(), bar.begin(picture)
    # A pass takes as long as its result has pixels.
    shares = np.cumsum([0, *(scale ** (2 * n) for n, scale in enumerate(chosen.passes))])
    for number in range(len(chosen.passes)):
        first, last = (float(shares[number + k] / shares[-1]) for k in (0, 1))

        def show(done: int, total: int, first: float = first, last: float = last) -> None:
            tell(first + (last - first) * done / total)

        restorer.progress = show
        captions, seeds, title = [picture.caption], [choices.seed], str(picture.file)
        image = restore_in_memory(restorer, image, captions, seeds, title, IN_OPTIONS)
        if not torch.isfinite(image).all():
            raise NotFiniteError(
                f"{picture.file}: the restored image holds NaN or infinity; --precision fp32 or "
                "bf16 helps where fp16 overflows"
            )
        sizes.append(image.shape)
    tell(1.0)
    write_png(to_image(image[0]), picture.target)
    shown = " -> ".join(f"{shape[-1]} x {shape[-2]}" for shape in sizes)
    seconds = time.perf_counter() - begun
    bar.say(f"{printable(picture.target)}: {shown} px in {seconds:.1f} s")


def _write_beside(picture: Picture, chosen: Chosen) -> None:
    """Write the enlarged picture and its result as one image."""
    scale = int(np.prod(chosen.passes))
    enlarged = to_image(enlarge(to_tensor(read_image(picture.file)), scale)[0])
    write_png(np.concatenate([enlarged, read_result(picture.target)], axis=1), picture.beside)
