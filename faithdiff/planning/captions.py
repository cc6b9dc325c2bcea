"""How many captions a model has to write for a study, for `faithdiff plan`."""

from __future__ import annotations

from collections.abc import Iterator

from faithdiff.config import Dataset, FolderSet, Profile, parts_of
from faithdiff.planning.disk import images_in


def captions_asked(profile: Profile) -> dict[str, int | None]:
    """Captions by dataset; None for a set that cannot be counted before it is here.

    Images to learn from are described once, or crop by crop; test images at each level.
    """
    asked: dict[str, int | None] = {}
    for name, dataset in profile.used_datasets.items():
        if dataset.asks:
            counts = [_of(part) for part in _folders(dataset)]
            levels = len(profile.data.levels_of(name)) if name in profile.data.test else 1
            known = [count for count in counts if count is not None]
            asked[name] = levels * sum(known) if len(known) == len(counts) else None
    return asked


def captions_lines(profile: Profile) -> Iterator[str]:
    """The part of a plan; nothing where no caption is written."""
    asked, config = captions_asked(profile), profile.captioner
    if not asked:
        return
    yield "\n## Captions\n\n| set | to be written |\n|---|--:|"
    for name, count in asked.items():
        yield f"| {name} | {'not there yet' if count is None else f'{count:,}'} |"
    bits = config.quantise or config.precision
    yield (
        f"\n{config.batch_size} at once in each of {config.processes} processes, {bits}, "
        f"{config.max_tokens} tokens at most; equal images are described once."
    )


def _folders(dataset: Dataset) -> list[FolderSet]:
    parts = parts_of(dataset).values()
    return [part for part in parts if isinstance(part, FolderSet) and part.asks]


def _of(part: FolderSet) -> int | None:
    found = images_in(part)
    if found is None:
        return None
    return found.files if part.described == "image" else found.crops
