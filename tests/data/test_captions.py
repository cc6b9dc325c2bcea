"""Captions: shortened, read from files, and asked for once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from faithdiff.data.captions import (
    AnswerCache,
    Captions,
    ask_all,
    file_captions,
    read_captions,
    shorten,
    write_captions,
)
from faithdiff.errors import UserError
from faithdiff.models import captioner

GOLDEN = {
    # The published rule, worked out by hand: words 1 to 3 go, a capital, the first two sentences.
    "The image features a red car. It is parked. The sky is blue.": "A red car. It is parked.",
    "The image features a red car. It is parked.": "A red car. It is parked..",
    "The image is BLACK and white": "Black and white.",
    "In this photo, mr. Smith waves. He smiles. End.": "Mr. Smith waves.",
    "The image shows": "",
    "": "",
    "one two three four": "Four.",
    "The image features  two\nlines. Of text. And more": "Two lines. Of text.",
}


@pytest.mark.parametrize(("answer", "caption"), GOLDEN.items())
def test_shortening_is_the_published_one(answer: str, caption: str) -> None:
    assert shorten(answer) == caption


def test_captions_beside_images(tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.png" for name in "abc"}
    (tmp_path / "a.txt").write_text("As it is. Yes. No.\n")
    (tmp_path / "b.json").write_text(json.dumps({"caption": "The image shows it. So. It ends."}))
    assert file_captions(tmp_path, files).by_name == {"a": "As it is. Yes. No.", "b": "It. So."}
    (tmp_path / "captions.csv").write_text("name,caption\nc,from the table\n")
    assert file_captions(tmp_path, files).by_name == {"c": "from the table"}
    (tmp_path / "captions.csv").unlink()
    (tmp_path / "c.json").write_text("[]")
    with pytest.raises(UserError, match=r"c\.json: is not a JSON object with a key 'caption'"):
        file_captions(tmp_path, files)
    with pytest.raises(UserError, match="is missing; make it with: faithdiff caption"):
        read_captions(tmp_path / "captions.csv")


def captions_of(tmp_path: Path, content: bytes, *names: str) -> Captions:
    """What a table says of images of these names."""
    (tmp_path / "captions.csv").write_bytes(content)
    return file_captions(tmp_path, {name: tmp_path / f"{name}.png" for name in names})


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_table_of_another_program_has_no_byte_order_mark_in_it(
    tmp_path: Path, encoding: str
) -> None:
    text = 'name,caption\r\ncafé,"a café, ""open"""\r\n'
    assert captions_of(tmp_path, text.encode(encoding), "café").by_name == {
        "café": 'a café, "open"'
    }
    (tmp_path / "captions.csv").unlink()
    (tmp_path / "a.txt").write_bytes("a café".encode(encoding))
    assert file_captions(tmp_path, {"a": tmp_path / "a.png"}).by_name == {"a": "a café"}


@pytest.mark.parametrize(
    "text",
    ["name;caption\r\na;red, with a roof\r\n", '"name"\t"caption"\na\tred, with a roof\n',
     'caption;name\n"red, with a roof";a\n'],
)  # fmt: skip
def test_a_table_of_a_spreadsheet_may_have_other_separators(tmp_path: Path, text: str) -> None:
    assert captions_of(tmp_path, text.encode("utf-8-sig"), "a").by_name == {"a": "red, with a roof"}


@pytest.mark.parametrize("name", ["captions.csv", "a.txt", "a.json"])
@pytest.mark.parametrize(
    ("encoding", "guess"),
    [
        ("cp1252", "WINDOWS-1252"),
        ("utf-16-le", "UTF-16LE"),
        ("utf-16-be", "UTF-16BE"),
        ("utf-32", "UTF-32"),
    ],
)
def test_text_in_another_encoding_is_refused_with_the_way_out(
    tmp_path: Path, name: str, encoding: str, guess: str
) -> None:
    (tmp_path / name).write_bytes("name,caption\na,a café\n".encode(encoding))
    with pytest.raises(UserError, match=rf"{name}: is not UTF-8 \(.* in line .*iconv -f {guess} "):
        file_captions(tmp_path, {"a": tmp_path / "a.png"})


def test_a_row_that_belongs_to_no_image_is_refused_with_the_closest_name(tmp_path: Path) -> None:
    for row, hint in (
        ("kitchen.png", r"did you mean 'kitchen'\?"),
        ("kitchne", r"did you mean 'kitchen'\?"),
        ("Kitchen", r"did you mean 'kitchen'\?"),
        ("garden", "image; names are those"),
    ):
        text = f"name,caption\n{row},with a window\n".encode()
        with pytest.raises(UserError, match=rf"captions\.csv: '{row}' is the name of no .*{hint}"):
            captions_of(tmp_path, text, "kitchen", "hall")


def test_equal_letters_of_other_code_points_are_one_name(tmp_path: Path) -> None:
    decomposed = "cafe\N{COMBINING ACUTE ACCENT}"  # as macOS names files
    found = captions_of(tmp_path, "name,caption\ncafé,open\n".encode(), decomposed)
    assert found.by_name == {decomposed: "open"}
    rows = f"name,caption\ncafé,composed\n{decomposed},decomposed\n".encode()
    both = captions_of(tmp_path, rows, decomposed, "café")
    assert both.by_name == {"café": "composed", decomposed: "decomposed"}
    with pytest.raises(UserError, match=r"captions\.csv: names .* more than once, in other code"):
        captions_of(tmp_path, rows, "café")


@pytest.mark.parametrize("caption", ["null", "5", '["a"]'])
def test_an_answer_that_is_no_text_is_refused(tmp_path: Path, caption: str) -> None:
    (tmp_path / "a.json").write_text(f'{{"caption": {caption}}}', encoding="utf-8")
    with pytest.raises(UserError, match=r"a\.json: caption: must be a text, not "):
        file_captions(tmp_path, {"a": tmp_path / "a.png"})


def test_half_a_character_in_an_answer_is_no_obstacle(tmp_path: Path) -> None:
    text = '{"caption": "The image shows \\ud83d\\ude00 and \\ud800 here."}'
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    caption = file_captions(tmp_path, {"a": tmp_path / "a.png"}).by_name["a"]
    assert caption == "\N{GRINNING FACE} and \N{REPLACEMENT CHARACTER} here.."


def test_a_pointer_of_git_lfs_is_no_caption(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
    with pytest.raises(UserError, match=r"a\.txt: is a pointer of Git LFS"):
        file_captions(tmp_path, {"a": tmp_path / "a.png"})


@pytest.mark.parametrize("caption", ["one\rtwo", "one\r\ntwo", 'a "b",\u2028c', "\r"])
def test_a_caption_is_read_as_it_was_written(tmp_path: Path, caption: str) -> None:
    write_captions({"a\rb": caption, "c": ""}, tmp_path / "captions.csv")
    assert read_captions(tmp_path / "captions.csv") == {"a\rb": caption, "c": ""}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name|caption\na|b\n", r"needs the columns name,caption, has name\|caption"),
        ("name;caption\na;b;c\n", "line 2: has not 2 fields"),
        ("name,caption\na,red, with a roof\n", "line 2: has not 2 fields .* into quotes"),
        ("name,caption\na\n", "line 2: has not 2 fields"),
        ("name,caption\na,b\na,c\n", "names 'a' more than once"),
        ('name,caption\na,b\nb,"c\n', r"is not a table: .* \(from line 3 on\); is a quote"),
        ("name,caption,caption\na,b,c\n", "has a column twice"),
    ],
)
def test_a_table_that_loses_words_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"captions\.csv: {message}"):
        captions_of(tmp_path, text.encode(), "a")


def test_no_image_is_asked_about_twice(tmp_path: Path) -> None:
    asked: list[str] = []
    loaded: list[int] = []

    def load() -> captioner.Llava:
        loaded.append(1)

        def ask(files: list[Path]) -> list[str]:
            asked.extend(file.name for file in files)
            return [f"The image is {file.stem}.\nOne. Two." for file in files]

        return ask  # type: ignore[return-value]

    file = tmp_path / "answers.csv"
    files = {name: tmp_path / f"{name}.png" for name in "abc"}
    hashes = {"a": "1", "b": "2", "c": "1"}  # a and c are one image
    first = ask_all(files, hashes, "s", AnswerCache(file), load)
    assert first == {"a": "A. One.", "b": "B. One.", "c": "A. One."}
    assert asked == ["a.png", "b.png"]
    assert ask_all(files, hashes, "s", AnswerCache(file), load) == first
    assert len(loaded) == 1
    file.write_bytes(file.read_bytes()[:-4])  # killed in the last line: one answer is lost
    assert ask_all(files, hashes, "s", AnswerCache(file), load) == first
    assert asked == ["a.png", "b.png", "b.png"]
    ask_all({"a": files["a"]}, hashes, "other settings", AnswerCache(file), load)
    assert len(asked) == 4
