"""Restores a person's own pictures, whole and of any size, with a trained checkpoint.

Large pictures go through overlapping latent tiles (restore/tiling.py). Everything that can be wrong
with the inputs is found before the first picture is restored; a run that was killed goes on after
the last finished picture.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias, TypedDict

import torch

from faithdiff.config import Profile, Restore, digest, parse
from faithdiff.config.checks import least_steps, lowest, settings_of_sampler
from faithdiff.data.images import Notes, read_image, read_picture, scan, sha256_file, write_png
from faithdiff.errors import CheckpointError, ImageError, RunError, UserError
from faithdiff.methods.method import Restorer, Study
from faithdiff.methods.registry import find_method
from faithdiff.restore.arrays import to_image, to_tensor
from faithdiff.restore.memory import restore_in_memory
from faithdiff.restore.run import describe
from faithdiff.study.checkpoints import RUN
from faithdiff.study.files import printable, write_text_atomic
from faithdiff.study.layout import Layout
from faithdiff.study.progress import ProgressBar
from faithdiff.study.provenance import code_digest

SMALLEST = 8  # pixels: below it there is nothing to see, and a UNet has no pixel left to halve
RECORD = "restored.json"  # beside the results: the key of each, so that none is made twice


class Result(TypedDict, total=False):
    """A result in the record: the key of picture and settings, and the hash of the file."""

    key: str
    sha256: str


Record: TypeAlias = dict[str, Result]  # by the name of the file


@dataclass(frozen=True)
class Picture:
    """A picture to restore: where it lies, where its result goes, and the key of the result."""

    source: Path
    target: Path
    key: str


def restore_pictures(
    checkpoint: Path,
    inputs: list[Path],
    output: Path,
    caption: str,
    seed: int,
    changes: Mapping[str, object],
) -> None:
    """Write ``output/<stem>.png`` for each picture.

    Args:
        checkpoint: Folder that ``faithdiff train`` wrote; its ``run.json`` has the settings.
        inputs: Pictures, or folders of pictures; sub-folders are not read. What was skipped, or is
            read otherwise than it is in its file, is printed in one line.
        output: Made where missing. A result of the same picture and settings is kept.
        caption: What the pictures show; may be empty.
        seed: Of the noise, the same for each picture.
        changes: Settings of the profile's section `restore` to replace.

    Raises:
        ImageError: Names every picture that cannot be read or is too small; nothing is restored.
        UserError: An input is missing, two results would have one name, or one would take the place
            of an input or of a file that this command did not write.
        CheckpointError: The checkpoint or the prior is missing or corrupted.
        ConfigError: A change is not allowed.
    """
    study, name = _study(checkpoint, changes)
    method = find_method(study, name)
    # One digest over all that decides a result: a picture is made again when any of it changes, and
    # never when only its file was touched.
    identity = describe(study, method, name, checkpoint)
    settings = digest(identity, caption, seed, code_digest(read_picture.__module__))
    done, notes = _read_record(output), Notes()
    pictures = list(_plan(_files(inputs, output, done, notes), output, settings, notes))
    if said := notes.line():
        print(f"restore: {said}", flush=True)
    todo = [p for p in pictures if not _is_done(p, done)]
    _check_ours(todo, done, output)
    if len(todo) < len(pictures):
        print(f"{len(pictures) - len(todo)} of {len(pictures)} pictures are restored already")
    restorer = method.load(study, checkpoint) if todo else None
    for number, picture in enumerate(todo, 1):
        assert restorer is not None
        _restore(restorer, picture, caption, seed, f"[{number}/{len(todo)}] {picture.source.name}")
        done[picture.target.name] = {"key": picture.key, "sha256": sha256_file(picture.target)}
        # After every picture: a run that is killed loses the picture that it is at, and no other.
        write_text_atomic(json.dumps(done, indent=1) + "\n", output / RECORD)


def _study(checkpoint: Path, changes: Mapping[str, object]) -> tuple[Study, str]:
    """The study that made a checkpoint, with its restoration settings changed; and its method."""
    file = checkpoint / RUN
    try:
        run = json.loads(file.read_text(encoding="utf-8"))
        name, resolved = str(run["method"]), run["profile"]
    except OSError:
        raise CheckpointError(
            f"{file}: is missing; give a folder that `faithdiff train` wrote, such as "
            "checkpoints/mini/faithdiff/seed0"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file}: is corrupted ({error!r}); train the method again") from None
    profile = parse(resolved, Profile, f"{file}: profile")
    settings = parse({**profile.restore.model_dump(), **changes}, Restore, "restore")
    _check_steps(profile.model_copy(update={"restore": settings}), name)
    # A checkpoint from a machine with a GPU restores on one without, only slower.
    device = profile.device if torch.cuda.is_available() else "cpu"
    profile = profile.model_copy(update={"restore": settings, "device": device})
    study = Study(profile, file, Layout(profile.profile))
    if name in profile.variants and not study.prior_folder.is_dir():
        raise CheckpointError(
            f"{study.prior_folder}: the prior of {checkpoint} is missing; run from the folder "
            "where it was trained, usually the root of the repository"
        )
    return study, name


def _check_steps(profile: Profile, method: str) -> None:
    """Refuse fewer steps than the start from the LQ image allows, before anything is loaded."""
    restore = settings_of_sampler(profile, method)
    least = least_steps(restore) if method in profile.on_prior else 1
    if restore.steps < least:
        raise UserError(
            f"--steps {restore.steps}: too few; give {least} or more: the LQ image enters at "
            f"timestep {restore.start_timestep}, as the checkpoint was made for, and the lowest "
            f"that {restore.steps} steps visit is {lowest(restore.steps, restore)}"
        )


def _files(inputs: list[Path], output: Path, done: Record, notes: Notes) -> list[Path]:
    """All pictures of the inputs, each once, in the order given; but none that we made there.

    Two names of one picture (links) are two results, as they are in a test set.
    """
    files: dict[tuple[Path, str], Path] = {}
    for given in inputs:
        if not given.exists():
            raise UserError(f"{given}: no such file or folder")
        found = [given]
        if given.is_dir():
            listing = scan(given)
            found = listing.images or [*listing.by_name().values()]  # which says that it is empty
            ours = [each for each in listing.skipped if each[0].name == RECORD]
            notes.skip(replace(listing, skipped=[s for s in listing.skipped if s not in ours]))
        for file in found:
            if _is_result(file, output, done):
                notes.add("skipped, result of an earlier call", file.name)
            else:
                files.setdefault((file.resolve(), file.stem), file)
    if not files:
        raise UserError(
            f"{output}: all pictures given are results of `faithdiff restore` there; to restore "
            "them once more give another --output"
        )
    return list(files.values())


def _is_result(file: Path, output: Path, done: Record) -> bool:
    """Whether a file is what an earlier call wrote into the output folder."""
    if file.name not in done or file.parent.resolve() != output.resolve():
        return False
    return file.is_file() and sha256_file(file) == done[file.name].get("sha256")


def _plan(files: list[Path], output: Path, settings: str, notes: Notes) -> Iterator[Picture]:
    """Give each picture its result's name; refuse names that clash and pictures that are broken."""
    if output.exists() and not output.is_dir():
        raise UserError(f"{output}: is a file; give a folder for the results")
    inputs = {file.resolve() for file in files}
    taken: dict[str, Path] = {}
    broken = []
    for file in files:
        target = output / f"{file.stem}.png"
        if file.stem in taken:
            raise UserError(
                f"{taken[file.stem]} and {file} would both become {target.name}; rename one, or "
                "restore them into two folders"
            )
        if target.resolve() in inputs:
            raise UserError(
                f"{target}: is an input and would be overwritten; give another --output"
            )
        taken[file.stem] = file
        if problem := _problem(file, notes):
            broken.append(problem)
        elif not broken:
            yield Picture(file, target, digest(settings, sha256_file(file)))
    # All of them in one message: whoever restores a folder overnight wants to mend it once.
    if broken:
        raise ImageError("\n".join(broken))


def _problem(file: Path, notes: Notes) -> str | None:
    """What is wrong with a picture; it is decoded in full, as a cut file has a sound header."""
    try:
        read = read_picture(file)
    except ImageError as error:
        return str(error)
    for change in read.changes:
        notes.add(change, file.name)
    height, width = read.pixels.shape[:2]
    if min(height, width) < SMALLEST:
        return f"{file}: {width} x {height} px; each side must have {SMALLEST} px at least"
    return None


def _read_record(output: Path) -> Record:
    try:
        record = json.loads((output / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # without a record every picture is restored
    return record if isinstance(record, dict) else {}


def _is_done(picture: Picture, record: Record) -> bool:
    entry = record.get(picture.target.name, {})
    whole = picture.target.is_file() and sha256_file(picture.target) == entry.get("sha256")
    return whole and entry.get("key") == picture.key


def _check_ours(todo: list[Picture], done: Record, output: Path) -> None:
    """Refuse to write over files that are in the folder and not in its record."""
    others = [p.target for p in todo if p.target.exists() and p.target.name not in done]
    # A record that is there and cannot be read was written beside our own results.
    if others and (done or not (output / RECORD).exists()):
        more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
        raise UserError(
            f"{others[0]}{more}: is there already, and {output / RECORD} does not say that "
            "`faithdiff restore` wrote it; give another --output, or move it. Nothing was restored"
        )


def _restore(restorer: Restorer, picture: Picture, caption: str, seed: int, title: str) -> None:
    image = to_tensor(read_image(picture.source))
    begun = time.perf_counter()
    with ProgressBar(total=1, desc=title, unit="pass", mininterval=0.5) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        restorer.progress = show
        restored = restore_in_memory(restorer, image, [caption], [seed], str(picture.source))[0]
        passes = max(int(bar.n), 1)  # a method that does not report its passes is one
        show(passes, passes)
    if not torch.isfinite(restored).all():
        raise RunError(f"{picture.source}: the restored image holds NaN or infinity")
    write_png(to_image(restored), picture.target)
    sizes = " -> ".join(f"{tensor.shape[-1]} x {tensor.shape[-2]}" for tensor in (image, restored))
    print(f"{printable(picture.target)}: {sizes} px in {time.perf_counter() - begun:.1f} s")
