"""Brings all that a profile needs from outside: files, folders of files, packed image sets.

Says first what it will take, checks that it fits, and then works off the list; a dead address does
not keep the rest from coming. Sets that only a person can get are taken where that person puts
them. The last message lists what is missing, and how to get each.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from faithdiff.data.artifacts import Artifact, check, gigabytes, lacking, record
from faithdiff.data.download import Progress, fetch, here, part_of
from faithdiff.data.hub import Hub
from faithdiff.data.unpack import marker, unpack
from faithdiff.errors import FaithDiffError, RunError, UserError
from faithdiff.study.progress import ProgressBar

RAW = Path("data/raw")  # image sets from outside, as they were published
_SPARE = 1.02  # file systems need a little more than the sum of the files


@dataclass
class _Item:
    """An artifact with what is known of it here."""

    artifact: Artifact
    root: Path
    found: str  # of the file: ok, missing, corrupt: <why>
    sha256: str
    unpacked: bool
    hub: Hub

    @property
    def done(self) -> bool:
        return self.unpacked or (self.found == "ok" and self.artifact.unpack is None)

    @property
    def to_fetch(self) -> bool:
        return not self.done and self.found != "ok" and not self._by_a_person

    @property
    def by_hand(self) -> bool:
        return not self.done and self.found != "ok" and self._by_a_person

    @property
    def _by_a_person(self) -> bool:
        if self.artifact.gated:
            return not any(map(self.hub.opens, self.artifact.addresses))
        return self.artifact.package is not None


def fetch_all(
    artifacts: Iterable[Artifact],
    weights: Path,
    data: Path = RAW,
    say: Callable[[str], None] = ProgressBar.write,  # keeps the line of progress whole
    hub: Hub | None = None,
) -> None:
    """Fetch and unpack what is missing or corrupt; says first how many GB it will take.

    Args:
        artifacts: What is wanted.
        weights: Root of the artifacts whose `root` is weights.
        data: Root of those whose `root` is data.
        say: Receives the lines for the person who waits.
        hub: How the Hugging Face hub is reached; None: as the environment says.

    Raises:
        RunError: Downloads failed; what had arrived is kept for the next try.
        UserError: The disk is too small, archives are refused, or files are missing that a person
            must place or install. Either names all that is missing, after all else was fetched.
    """
    hub, roots = hub or Hub.of_environment(), {"weights": weights, "data": data}
    items = [_look(artifact, roots, hub) for artifact in artifacts]
    packaged = [item for item in items if item.artifact.package]
    fetched = [item for item in items if not item.artifact.package]
    for item in fetched:
        if item.found == "ok":
            record(item.artifact, item.root, item.sha256)
    todo = [item for item in fetched if item.to_fetch]
    if fetched:
        done = sum(item.done for item in fetched)
        say(f"{done} of {len(fetched)} files are in {weights} and {data} already")
    if came := [item.artifact.name for item in packaged if item.done]:
        say(f"installed with a package, nothing to fetch: {', '.join(came)}")
    if todo:
        total = gigabytes(item.artifact for item in todo)
        say(f"fetching {len(todo)} files, about {total:.2f} GB, into {weights} and {data}")
    _check_space(items)
    failed: list[FaithDiffError] = []
    progress = Progress(sum(item.artifact.megabytes for item in todo) * 1e6) if todo else None
    for item in items:
        try:
            _bring(item, say, progress)
        except FaithDiffError as error:
            failed.append(error)
            say(f"{item.artifact.name}: failed; going on with the rest")
    if progress is not None:
        progress.close()
    lines = [*map(str, failed), *(_instruction(item) for item in items if item.by_hand)]
    if lines:
        if len(items) > 1:
            say(f"{len(lines)} of {len(items)} files are missing:")
        kind = RunError if any(isinstance(error, RunError) for error in failed) else UserError
        raise kind("\n".join(lines))


def _look(artifact: Artifact, roots: Mapping[str, Path], hub: Hub) -> _Item:
    root = roots[artifact.root]
    if (folder := artifact.folder(root)) and folder.is_dir():
        kept = marker(folder)
        # Without a marker a person filled it. A hash that does not fit means a newer archive.
        if not kept or str(kept.get("sha256")) == (artifact.sha256 or kept.get("sha256")):
            return _Item(artifact, root, "unpacked", "", True, hub)
    return _Item(artifact, root, *check(artifact, root), False, hub)


def _check_space(items: list[_Item]) -> None:
    """Refuse before the first byte what would fill a disk with the last."""
    needs: dict[int, tuple[Path, float]] = {}
    for item in items:
        if item.done or item.by_hand:
            continue
        place = _existing(item.artifact.file(item.root).parent)
        device = place.stat().st_dev
        came = here(part_of(item.artifact, item.root)) / 1e6
        needed = max(item.artifact.megabytes - came, 0.0) if item.to_fetch else 0.0
        if item.artifact.unpack is not None:
            needed += item.artifact.megabytes  # images hardly shrink in an archive
        needs[device] = (place, needs.get(device, (place, 0.0))[1] + needed)
    for place, needed in needs.values():
        free = shutil.disk_usage(place).free / 1e6
        if free < needed * _SPARE:
            raise UserError(
                f"{place}: {needed / 1000:.2f} GB are needed there (archives and what they unpack "
                f"to), {free / 1000:.2f} GB are free; free some, or link the folder to another "
                "disk. Nothing was fetched"
            )


def _existing(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def _bring(item: _Item, say: Callable[[str], None], progress: Progress | None) -> None:
    artifact, fetched = item.artifact, item.to_fetch
    if item.done or item.by_hand:
        return
    if fetched:
        say(f"{artifact.name}: {artifact.address} ({artifact.licence})")
        fetch(artifact, item.root, hub=item.hub, progress=progress)
        item.found, item.sha256 = check(artifact, item.root)
    if folder := artifact.folder(item.root):
        assert artifact.unpacked_mb is not None
        archive = artifact.file(item.root)
        unpack(archive, folder, item.sha256, artifact.unpacked_mb)
        item.unpacked = True
        if fetched:  # an archive that a person placed is theirs to delete
            archive.unlink()
        say(f"{artifact.name}: unpacked into {folder}")


def _instruction(item: _Item) -> str:
    artifact, file = item.artifact, item.artifact.file(item.root)
    if artifact.package:
        return f"{artifact.name}: {lacking([(artifact, item.found)], '')}"
    folder = artifact.folder(item.root)
    place = f"put it at {file}"
    if folder:
        place += f" (it will be unpacked into {folder}), or its images into {folder} yourself"
    wrong = "" if item.found == "missing" else f" What is there is {item.found}."
    return (
        f"{artifact.name}: is fetched by hand: {artifact.how} From {artifact.address}; {place}; "
        f"then run the same command again.{wrong} ({artifact.licence})"
    )
