"""Captions: read from files, or written by a model that is asked once for each image.

The released code trains and restores with the answers of LLaVA, shortened (:func:`shorten`):
training captions describe the HQ image, test captions the LQ image.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from faithdiff.errors import UserError
from faithdiff.study.checksums import (
    append_row,
    check_summed,
    read_rows,
    sum_file,
    write_summed,
)
from faithdiff.study.files import CSV_END, read_text, unix_lines

CAPTIONS = "captions.csv"
COLUMNS = frozenset({"name", "caption"})
Ask = Callable[[list[Path]], list[str]]  # images -> their answers, as they came


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


@dataclass(frozen=True)
class Captions:
    """Captions that lie beside images, and the files that they were read from."""

    by_name: dict[str, str] = field(default_factory=dict)
    files: frozenset[Path] = frozenset()


def file_captions(folder: Path, files: Mapping[str, Path]) -> Captions:
    """Captions that lie beside images, by name; of an image without one there is no entry.

    ``captions.csv`` (columns name, caption) speaks for all; else ``<image>.txt`` is taken word by
    word, and ``<image>.json`` (key `caption`), which the released script writes, is shortened.

    Args:
        files: All images of the folder by name, also those that a set leaves out.

    Raises:
        UserError: A file has another form or encoding, or the table names something else than these
            images.
    """
    table = folder / CAPTIONS
    if table.is_file():
        return Captions(_of_images(table, files), frozenset({table, sum_file(table)}))
    found: dict[str, str] = {}
    read: set[Path] = set()
    for name, file in files.items():
        plain, raw = file.with_suffix(".txt"), file.with_suffix(".json")
        if plain.is_file():
            found[name] = read_text(plain).strip()
            read.add(plain)
        elif raw.is_file():
            found[name] = shorten(_answer(raw))
            read.add(raw)
    return Captions(found, frozenset(read))


def _of_images(table: Path, files: Mapping[str, Path]) -> dict[str, str]:
    """The captions of a table, each of which must belong to an image."""
    # The same letters may be written by other code points in a file's name (macOS) than in a text.
    known = {unicodedata.normalize("NFC", name): name for name in files}
    found: dict[str, str] = {}
    for name, caption in read_captions(table).items():
        image = name if name in files else known.get(unicodedata.normalize("NFC", name))
        if image is None:
            raise UserError(
                f"{table}: {name!r} is the name of no image{closest(name, files)}; names are those "
                "of the images without their ending; correct or remove the row"
            )
        if image in found:
            raise UserError(f"{table}: names {image!r} more than once, in other code points")
        found[image] = caption
    return found


def strays(folder: Path, read: Collection[Path], others: Iterable[Path]) -> list[Path]:
    """Files that look like captions of the folder's images and are none: a name that fits no image.

    Args:
        read: The files that captions were read from.
        others: The files of the folder that are no images.
    """
    kinds = {".txt", ".json", ".csv"}
    return [f for f in others if f.suffix.lower() in kinds and f not in read and f.parent == folder]


def closest(name: str, names: Iterable[str]) -> str:
    """Name what is most like a misspelt name, for the middle of a message."""
    folded = {known.casefold(): known for known in names}
    stem = Path(name).stem.casefold()
    found = [stem] if stem in folded else difflib.get_close_matches(name.casefold(), folded, 1)
    return f" (did you mean {folded[found[0]]!r}?)" if found else ""


def _answer(file: Path) -> str:
    try:
        answer = json.loads(read_text(file))["caption"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{file}: is not a JSON object with a key 'caption'") from None
    if not isinstance(answer, str):
        raise UserError(f"{file}: caption: must be a text, not {json.dumps(answer)[:40]}")
    # JSON can spell half of a character, which no file can hold.
    return answer.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def read_captions(file: Path) -> dict[str, str]:
    """Read a table of captions by name.

    Raises:
        UserError: It is missing, lacks a column, names an image twice, or is not UTF-8.
    """
    line = 1
    try:
        check_summed(file)
        text = read_text(file)
        rows = csv.DictReader(
            io.StringIO(text, newline=""), delimiter=_separator(text), strict=True
        )
        columns = rows.fieldnames or []
        if not set(columns) >= COLUMNS:
            raise UserError(
                f"{file}: needs the columns name,caption, has {','.join(columns)}; its first line "
                "must be: name,caption"
            )
        if len(set(columns)) < len(columns):
            raise UserError(f"{file}: has a column twice: {','.join(columns)}; remove one")
        captions: dict[str, str] = {}
        for row in rows:
            line = rows.line_num + 1
            # csv's own: fields beyond the head are under None, those that lack are None.
            if None in row or None in row.values():
                raise UserError(
                    f"{file}: line {rows.line_num}: has not {len(columns)} fields as its head has; "
                    'put a caption with commas into quotes ("...")'
                )
            if row["name"] in captions:
                raise UserError(f"{file}: names {row['name']!r} more than once")
            captions[row["name"]] = row["caption"]
    except OSError:
        raise UserError(f"{file}: is missing; make it with: faithdiff caption") from None
    except csv.Error as error:
        raise UserError(
            f"{file}: is not a table: {error} (from line {line} on); is a quote never closed?"
        ) from None
    return captions


def _separator(text: str) -> str:
    """What stands between name and caption: spreadsheets write semicolons or tabs, too.

    Told by the first line alone: a caption may hold any of them.
    """
    head = text.partition("\n")[0].strip()
    found = (mark for mark in ";\t" if set(head.replace('"', "").split(mark)) >= COLUMNS)
    return next(found, ",")


def write_captions(captions: Mapping[str, str], file: Path) -> None:
    """Write a table of captions, sorted by name."""
    table = pd.DataFrame(sorted(captions.items()), columns=["name", "caption"])
    write_summed(unix_lines(table.to_csv(index=False, lineterminator=CSV_END)), file)


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
    at_once: int = 1,
    show: Callable[[Iterable[str]], Iterable[str]] = iter,
) -> dict[str, str]:
    """Captions of images by name; the model is loaded only if an answer is not in the cache.

    Args:
        files: Images by name.
        hashes: sha256 of each; images that share one are asked about once.
        settings: Digest of the model and of how it is asked.
        cache: Answers of earlier runs; grows.
        asker: Loads the model.
        at_once: Images that it is asked about together; a killed job loses their answers.
        show: Wraps the names that are asked for, to show progress.
    """
    one_of = {hashes[name]: name for name in sorted(files, reverse=True)}
    todo = sorted(n for sha256, n in one_of.items() if cache.get(sha256, settings) is None)
    ask = asker() if todo else None
    waiting: list[str] = []
    for number, name in enumerate(show(todo), 1):
        waiting.append(name)
        if len(waiting) == at_once or number == len(todo):
            assert ask is not None
            answers = ask([files[each] for each in waiting])
            for each, answer in zip(waiting, answers, strict=True):
                cache.put(hashes[each], settings, answer)
            waiting = []
    return {name: shorten(cache.get(hashes[name], settings) or "") for name in files}
