"""Captions: read from files, or written by a model that is asked once for each image.

The released code trains and restores with the answers of LLaVA, shortened (:func:`shorten`):
training captions describe the HQ image, test captions the LQ image.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pandas as pd

from faithdiff.errors import UserError
from faithdiff.integrity import append_row, check_summed, read_rows, write_summed

CAPTIONS = "captions.csv"
Ask = Callable[[Path], str]  # an image -> the answer, as it came


def shorten(answer: str) -> str:
    """Make a caption of an answer, as the released code does in training and test alike.

    The first three words go ("The image features"), the next gets a capital, two sentences stay.
    An answer of two sentences or fewer ends in two full stops: so do the captions that the
    released weights were trained with. Where nothing is left, the caption is empty.
    """
    words = answer.split()[3:]
    if not words:
        return ""
    text = " ".join([words[0].capitalize(), *words[1:]])
    return ". ".join(text.split(". ")[:2]) + "."


def file_captions(folder: Path, files: Mapping[str, Path]) -> dict[str, str]:
    """Captions that lie beside images, by name; of an image without one there is no entry.

    ``captions.csv`` (columns name, caption) speaks for all; else ``<image>.txt`` is taken word by
    word, and ``<image>.json`` (key `caption`), which the released script writes, is shortened.

    Raises:
        UserError: A file has another form.
    """
    table = folder / CAPTIONS
    if table.is_file():
        return read_captions(table)
    found = {}
    for name, file in files.items():
        plain, raw = file.with_suffix(".txt"), file.with_suffix(".json")
        if plain.is_file():
            found[name] = plain.read_text(encoding="utf-8").strip()
        elif raw.is_file():
            found[name] = shorten(_answer(raw))
    return found


def _answer(file: Path) -> str:
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["caption"])
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{file}: is not a JSON object with a key 'caption'") from None


def read_captions(file: Path) -> dict[str, str]:
    """Read a table of captions by name.

    Raises:
        UserError: It is missing, or lacks a column.
    """
    try:
        check_summed(file)
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    except OSError:
        raise UserError(f"{file}: is missing; make it with: faithdiff caption") from None
    except ValueError as error:
        raise UserError(f"{file}: is not a table: {error}") from None
    if not {"name", "caption"} <= set(table.columns):
        raise UserError(f"{file}: needs the columns name,caption, has {','.join(table.columns)}")
    return dict(zip(table["name"], table["caption"], strict=True))


def write_captions(captions: Mapping[str, str], file: Path) -> None:
    """Write a table of captions, sorted by name."""
    table = pd.DataFrame(sorted(captions.items()), columns=["name", "caption"])
    write_summed(table.to_csv(index=False, lineterminator="\n"), file)


class AnswerCache:
    """Answers of earlier runs, by the hash of the image and of all else that decides them.

    A CSV that only grows, a line for each answer as it comes, so that a killed job loses one.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._answers: dict[tuple[str, str], str] = {}
        if file.is_file():
            self._answers = {(row[0], row[1]): row[2] for row in read_rows(file) if len(row) == 3}

    def get(self, image: str, settings: str) -> str | None:
        return self._answers.get((image, settings))

    def put(self, image: str, settings: str, answer: str) -> None:
        """Keep an answer, on disk at once; it becomes one line."""
        answer = " ".join(answer.split())
        self._answers[image, settings] = answer
        append_row((image, settings, answer), self._file)


def ask_all(
    files: Mapping[str, Path],
    hashes: Mapping[str, str],
    settings: str,
    cache: AnswerCache,
    asker: Callable[[], Ask],
    show: Callable[[Iterable[str]], Iterable[str]] = iter,
) -> dict[str, str]:
    """Captions of images by name; the model is loaded only if an answer is not in the cache.

    Args:
        files: Images by name.
        hashes: sha256 of each.
        settings: Digest of the model and of how it is asked.
        cache: Answers of earlier runs; grows.
        asker: Loads the model.
        show: Wraps the names that are asked for, to show progress.
    """
    todo = [name for name in sorted(files) if cache.get(hashes[name], settings) is None]
    ask = asker() if todo else None
    for name in show(todo):
        assert ask is not None
        if cache.get(hashes[name], settings) is None:  # two names may share an image
            cache.put(hashes[name], settings, ask(files[name]))
    return {name: shorten(cache.get(hashes[name], settings) or "") for name in files}
