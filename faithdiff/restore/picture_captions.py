"""Captions of a person's own pictures: one for all, those beside the pictures, or LLaVA's."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path

import torch

from faithdiff.data.captions import file_captions
from faithdiff.data.images import sha256_file
from faithdiff.data.listing import scan
from faithdiff.errors import CheckpointError, UserError
from faithdiff.methods.method import Study
from faithdiff.models.captioning import captioner

FILE, LLAVA = "file", "llava"  # words that are no caption of their own


def picture_captions(asked: str, pictures: Sequence[Path], study: Study) -> dict[Path, str]:
    """The caption of each picture, as ``--caption`` asks for it.

    Args:
        asked: ``file``, ``llava``, or the caption of all pictures.
        pictures: All of them whole.
        study: Its section `captioner` says which model is asked, and how.

    Raises:
        UserError: A picture has no caption beside it, or a file of captions is of another form.
        CheckpointError: The captioner is missing.
    """
    if asked == FILE:
        return _beside(pictures)
    if asked != LLAVA:
        return dict.fromkeys(pictures, asked)
    files = {str(file): file for file in pictures}
    hashes = {name: sha256_file(file) for name, file in files.items()}
    try:
        answers = captioner(study.profile, study.layout, clean=True)(files, hashes)
    except CheckpointError as error:
        raise CheckpointError(f"--caption {LLAVA}: {error}") from None
    # Its 26 GB must be gone before the networks that restore are loaded.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return {file: answers[name] for name, file in files.items()}


def _beside(pictures: Sequence[Path]) -> dict[Path, str]:
    found: dict[Path, str] = {}
    for folder in dict.fromkeys(file.parent for file in pictures):
        # All images of the folder: a table may have captions of those that are not restored.
        inside = scan(folder).by_name()
        captions = file_captions(folder, inside).by_name
        of = {file: captions[name] for name, file in inside.items() if name in captions}
        found |= {file: of[file] for file in pictures if file in of}
    if missing := [file for file in pictures if file not in found]:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise UserError(
            f"--caption {FILE}: {missing[0]}{more} has no caption; write it into "
            f"{missing[0].with_suffix('.txt')}, or into a captions.csv (name,caption) beside it"
        )
    return found
