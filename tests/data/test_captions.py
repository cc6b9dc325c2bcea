"""Captions: shortened, read from files, and asked of a tiny LLaVA that transformers really runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from shared import ROOT
from shared.tiny_llava import save_tiny_llava

from faithdiff import cli
from faithdiff.config import Captioner, FolderSet
from faithdiff.data.captions import (
    AnswerCache,
    Captions,
    ask_all,
    file_captions,
    read_captions,
    shorten,
    write_captions,
)
from faithdiff.data.datasets import prepare_dataset, read_index
from faithdiff.data.images import write_png
from faithdiff.errors import CheckpointError, UserError
from faithdiff.models import captioner, captioner_processes
from faithdiff.models.bsrnet import load_bsrnet, network_of
from faithdiff.models.captioner import Llava, answer_digest
from faithdiff.models.captioner_processes import SeveralLlavas

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


# --- LLaVA ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llava")
    save_tiny_llava(folder)
    return folder


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    file = tmp_path / "picture.png"
    write_png(np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8), file)
    return file


def pixels_of(seed: int, height: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, 60, 3)).astype(np.uint8)


def section(folder: Path, **changes: object) -> Captioner:
    fields = {"path": folder, "max_tokens": 12, "precision": "float32", "temperature": 1.0}
    return Captioner.model_validate(fields | changes)


def test_the_question_and_the_sampling_are_the_published_ones() -> None:
    published = Captioner()
    assert published.question == "Describe this image and its style in a very detailed manner."
    assert (published.temperature, published.top_p, published.max_tokens) == (0.2, 0.7, 512)


def test_an_answer_depends_on_the_image_the_seed_and_nothing_else(
    tiny: Path, picture: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.png"
    write_png(np.zeros((30, 30, 3), np.uint8), other)
    state = torch.random.get_rng_state()
    ask = Llava(section(tiny, top_p=1.0), "cpu", 1, clean=False)
    (first,), (second,) = ask([picture]), ask([other])
    assert first and "\n" not in first
    assert ask([picture]) == [first]  # whatever was asked in between
    torch.manual_seed(99)
    assert Llava(section(tiny, top_p=1.0), "cpu", 1, clean=False)([other]) == [second]
    torch.random.set_rng_state(state)
    answers = {Llava(section(tiny, top_p=1.0), "cpu", s, False)([picture])[0] for s in range(4)}
    assert len(answers) > 1
    greedy = section(tiny, temperature=0)
    assert Llava(greedy, "cpu", 1, False)([picture]) == Llava(greedy, "cpu", 2, False)([picture])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_answers_do_not_depend_on_what_is_asked_beside_them(
    tiny: Path, tmp_path: Path, temperature: float
) -> None:
    files = [tmp_path / f"{number}.png" for number in range(5)]
    for number, file in enumerate(files):
        write_png(pixels_of(number, 30 + 7 * number), file)
    config = section(tiny, temperature=temperature, top_p=1.0, batch_size=3, processes=2)
    ask = Llava(config, "cpu", 1, clean=False)
    alone = [answer for file in files for answer in ask([file])]
    assert ask(files) == alone
    assert ask(files[::-1]) == alone[::-1]
    assert SeveralLlavas(config, "cpu", 1, False)(files) == alone
    # So neither is part of what decides an answer.
    assert answer_digest(config, 1, False) == answer_digest(
        section(tiny, temperature=temperature, top_p=1.0), 1, False
    )


def test_what_is_wrong_with_the_model_is_said_by_its_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Threads fail in the same way as processes, and need no second to start.
    monkeypatch.setattr(
        captioner_processes, "ProcessPoolExecutor", lambda count, _: ThreadPoolExecutor(count)
    )
    with pytest.raises(CheckpointError, match=r"the captioner is missing; run: faithdiff fetch"):
        SeveralLlavas(section(tmp_path / "none", processes=2), "cpu", 1, False)


def test_words_are_drawn_by_their_probabilities() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, -torch.inf]])
    draw = captioner._Drawn([7])
    drawn = torch.stack([draw(logits, logits).argmax() for _ in range(4000)])
    shares = torch.bincount(drawn, minlength=4) / len(drawn)
    assert torch.allclose(shares, logits[0].softmax(0), atol=0.03)


def test_fewer_bits_say_what_they_need(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captioner, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"quantise: 4bit: needs bitsandbytes.*pip install"):
        Llava(section(tiny, quantise="4bit"), "cpu", 1, False)
    monkeypatch.setattr(captioner, "find_spec", lambda _: object())
    with pytest.raises(UserError, match="is computed on a GPU, and device is cpu"):
        Llava(section(tiny, quantise="8bit"), "cpu", 1, False)
    assert captioner._quantised(section(tiny), torch.device("cuda")) is None
    assert answer_digest(section(tiny, quantise="8bit"), 1, False) != answer_digest(
        section(tiny), 1, False
    )


def test_the_model_sees_the_image_through_the_template(
    tiny: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = Llava(section(tiny), "cpu", 1, clean=False)
    seen: list[dict[str, Any]] = []
    generate = ask._model.generate

    def spy(**inputs: Any) -> torch.Tensor:
        seen.append(inputs)
        return generate(**inputs)

    monkeypatch.setattr(ask._model, "generate", spy)
    ask([picture])
    (inputs,) = seen
    image_token = ask._model.config.image_token_index
    assert int((inputs["input_ids"] == image_token).sum()) == 4  # 28 px in patches of 14
    assert inputs["pixel_values"].shape == (1, 3, 28, 28)
    heat, top, _ = inputs["logits_processor"]
    assert (heat.temperature, top.top_p) == (1.0, 0.7)
    text = ask._processor.tokenizer.decode(inputs["input_ids"][0])
    assert "USER:" in text and text.rstrip().endswith("ASSISTANT:")


def test_the_digest_tells_models_and_settings_apart(tiny: Path, tmp_path: Path) -> None:
    config = section(tiny)
    assert answer_digest(config, 1, False) == answer_digest(config, 1, False)
    changed = [
        answer_digest(config, 2, False),
        answer_digest(section(tiny, top_p=0.5), 1, False),
    ]
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in tiny.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert answer_digest(section(copy), 1, False) == answer_digest(config, 1, False)
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    changed.append(answer_digest(section(copy), 1, False))
    assert len({answer_digest(config, 1, False), *changed}) == 4


def test_a_missing_or_incomplete_model_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="captioner is missing; run: faithdiff fetch"):
        answer_digest(section(tmp_path / "none"), 1, False)
    with pytest.raises(CheckpointError, match="captioner is missing; run: faithdiff fetch"):
        Llava(section(tmp_path / "none"), "cpu", 1, False)
    for file in tiny.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        Llava(section(tmp_path), "cpu", 1, False)


# --- BSRNet ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bsrnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network under the names of the published file."""
    from faithdiff import compat

    compat.patch()
    from basicsr.archs.rrdbnet_arch import RRDBNet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = RRDBNet(3, 3, num_feat=8, num_block=2, num_grow_ch=4).state_dict()
    names = {
        "conv_body.": "trunk_conv.",
        "body.": "RRDB_trunk.",
        "rdb": "RDB",
        "conv_up": "upconv",
        "conv_hr": "HRconv",
    }
    published = {}
    for key, tensor in state.items():
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        published[key] = tensor
    assert "RRDB_trunk.0.RDB1.conv1.weight" in published
    file = tmp_path_factory.mktemp("bsrnet") / "BSRNet.pth"
    torch.save(published, file)
    return file


def test_bsrnet_reads_the_published_names_and_enlarges_by_four(bsrnet: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    clean = load_bsrnet(bsrnet, "cpu")
    assert clean(image).shape == (80, 120, 3)
    assert np.array_equal(clean(image), clean(image))


def test_tiles_of_bsrnet_agree_with_the_whole_image(
    bsrnet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 90, 3)).astype(np.uint8)
    whole = load_bsrnet(bsrnet, "cpu")(image)
    monkeypatch.setattr("faithdiff.models.bsrnet.TILE", 32)
    tiled = load_bsrnet(bsrnet, "cpu")(image)
    assert np.abs(whole.astype(int) - tiled).max() <= 1


def test_another_network_is_refused(tmp_path: Path) -> None:
    torch.save({"conv_first.weight": torch.zeros(8, 3, 3, 3)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth: is not BSRNet"):
        load_bsrnet(tmp_path / "other.pth", "cpu")
    with pytest.raises(CheckpointError, match="faithdiff fetch --profile released"):
        load_bsrnet(tmp_path / "none.pth", "cpu")
    (tmp_path / "cut.pth").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"cut\.pth: cannot be read"):
        load_bsrnet(tmp_path / "cut.pth", "cpu")
    with pytest.raises(CheckpointError, match="is not BSRNet"):
        network_of({}, "nothing")


def test_a_cleaned_image_is_what_the_model_sees(tiny: Path, bsrnet: Path, picture: Path) -> None:
    config = section(tiny, clean=bsrnet)
    ask = Llava(config, "cpu", 1, clean=True)
    assert ask._clean is not None
    assert ask([picture])
    assert Llava(config, "cpu", 1, clean=False)._clean is None  # HQ images are never cleaned
    assert answer_digest(config, 1, True) != answer_digest(config, 1, False)


def test_the_command_captions_a_test_set_once(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "config", tmp_path / "config")
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate("ab"):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 52, 3)).astype(np.uint8)
        write_png(pixels, Path(f"raw/{name}.png"))
    real = {"source": "folder", "path": "raw", "lq_only": True, "captions": "llava"}
    profile = {
        "extends": "test.yaml",
        "profile": "asking",
        "data": {"test": {"Real": real}, "train": {**real, "lq_only": False}},
        "captioner": {"path": str(tiny), "max_tokens": 8, "precision": "float32"},
    }
    file = Path("config/asking.yaml")
    file.write_text(yaml.safe_dump(profile))
    cli.prepare("Real", file)
    cli.degrade("Real", ["real"], file)
    cli.caption("Real", ["real"], file)
    captions = Path("data/asking/Real/lq/real/captions.csv")
    answers = Path("data/asking/answers.csv")
    assert set(read_captions(captions)) == {"a", "b"}
    assert all(read_captions(captions).values())
    assert len(answers.read_text().splitlines()) == 2
    written = captions.read_bytes()

    def refuse(*_: object) -> None:
        raise AssertionError("the model was loaded again")

    monkeypatch.setattr(captioner.Llava, "__init__", refuse)
    cli.caption("Real", ["real"], file)
    cli.prepare("train", file)  # the same images as HQ: nothing new to ask
    assert captions.read_bytes() == written
    index = read_index(Path("data/asking/train")).set_index("name")
    assert dict(index["caption"]) == read_captions(captions)


@pytest.mark.parametrize(("described", "asked"), [("image", 2), ("crop", 6)])
def test_an_image_is_described_once_for_all_its_crops(
    tmp_path: Path, described: str, asked: int
) -> None:
    for number in range(2):
        write_png(pixels_of(number, 80), tmp_path / "raw" / f"{number}.png")
    config = FolderSet.model_validate(
        {
            "source": "folder", "path": tmp_path / "raw", "captions": "llava",
            "described": described, "crops": {"size": 32, "count": 3},
        }
    )  # fmt: skip
    looked_at: list[Path] = []

    def ask(files: list[Path]) -> list[str]:
        looked_at.extend(files)
        return [f"The image is {file.stem}. So. There." for file in files]

    def write(files: Mapping[str, Path], hashes: Mapping[str, str]) -> dict[str, str]:
        answers = AnswerCache(tmp_path / "answers.csv")
        return ask_all(files, hashes, "s", answers, lambda: ask, at_once=4)

    prepare_dataset(config, "train", 1, tmp_path / "out", captioner=write)
    index = read_index(tmp_path / "out")
    assert len(looked_at) == asked and len(index) == 6
    assert {file.parent.name for file in looked_at} == {"raw" if described == "image" else "hq"}
    for row in index.itertuples():
        of = row.picture if described == "image" else row.name
        assert row.caption == f"{of}. So."
