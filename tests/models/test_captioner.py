"""Captions of a tiny LLaVA that transformers really runs."""

from __future__ import annotations

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

from faithdiff import cli
from faithdiff.config import Captioner, FolderSet
from faithdiff.data.captions import (
    AnswerCache,
    ask_all,
    read_captions,
)
from faithdiff.data.datasets import prepare_dataset, read_index
from faithdiff.data.images import write_png
from faithdiff.errors import CheckpointError, UserError
from faithdiff.models import captioner, captioner_processes
from faithdiff.models.captioner import Llava, answer_digest
from faithdiff.models.captioner_processes import SeveralLlavas


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
    if temperature:  # processes take seconds to start, and only what is drawn could differ
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
