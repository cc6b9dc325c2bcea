"""Broken and hostile input: it is read, or refused by name; nothing else may come out of it."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from shared import ROOT
from shared.corrupt import call, named_command, tree

from faithdiff.audit.command import run_audit, run_explain
from faithdiff.audit.report import Request
from faithdiff.audit.tolerance import parse_tolerance
from faithdiff.config import load_profile
from faithdiff.data.datasets import read_index
from faithdiff.data.images import png_is_whole, read_image
from faithdiff.degrade.dataset import degrade_dataset
from faithdiff.degrade.levels import load_choices
from faithdiff.errors import ConfigError, FaithDiffError, ImageError, UserError
from faithdiff.methods.method import Study
from faithdiff.report.scores import load_scores

CONFIG = ("--config", "config/test.yaml")
SHARED = [HealthCheck.function_scoped_fixture]  # each example writes its own file anew
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP")


def edits(alphabet: st.SearchStrategy[bytes]) -> st.SearchStrategy[list[tuple[float, int, bytes]]]:
    """Where, how many bytes are taken out, and what comes in their place."""
    one = st.tuples(st.floats(0, 1), st.integers(0, 40), alphabet)
    return st.lists(one, min_size=1, max_size=6)


def edited(content: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
    for place, length, new in changes:
        start = int(place * len(content))
        content = content[:start] + new + content[start + length :]
    return content


def encoded(kind: str) -> bytes:
    rng = np.random.default_rng(1)
    picture = Image.fromarray(rng.integers(0, 256, (40, 30, 3), dtype=np.uint8))
    out = io.BytesIO()
    (picture.convert("P") if kind == "GIF" else picture).save(out, kind)
    return out.getvalue()


# --- Images ---------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow, of odd tags
@pytest.mark.parametrize("kind", FORMATS)
@settings(max_examples=60, deadline=None, suppress_health_check=SHARED)
@given(changes=edits(st.binary(max_size=40)))
def test_a_mutated_image_is_an_image_or_refused_by_name(
    kind: str, changes: list[tuple[float, int, bytes]], tmp_path: Path
) -> None:
    file = tmp_path / f"odd.{kind.lower()}"
    file.write_bytes(edited(encoded(kind), changes))
    refusal = ""
    try:
        image = read_image(file)
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    except ImageError as error:
        refusal = str(error)
    assert refusal == "" or str(file) in refusal
    assert isinstance(png_is_whole(file), bool)


def test_the_verbs_refuse_a_folder_with_a_broken_image_by_name(whole: Study) -> None:
    folder = Path("mine")
    folder.mkdir()
    (folder / "good.png").write_bytes(encoded("PNG"))
    (folder / "bad.jpg").write_bytes(encoded("JPEG")[:300])
    checkpoint = "checkpoints/test/faithdiff/seed0"
    message = call("restore", "mine", "--checkpoint", checkpoint, "--output", "out")
    assert "mine/bad.jpg" in message and not Path("out").exists()


# --- Configs --------------------------------------------------------------------------------------

MINI = (ROOT / "config/mini.yaml").read_bytes()
YAML = st.sampled_from(
    [b"", b"\n", b"- ", b": ", b"{", b"[", b"}", b"]", b"'", b'"', b"&a ", b"*a", b"!!os",
     b"null", b"-1", b".nan", b"1e999", b"2020-13-45", b"0x", b"\t", b"\x00", b"\xff", b"|", b"? "]
)  # fmt: skip


@settings(max_examples=120, deadline=None, suppress_health_check=SHARED)
@given(changes=edits(YAML))
def test_a_mutated_profile_is_a_profile_or_a_message(
    changes: list[tuple[float, int, bytes]], tmp_path: Path
) -> None:
    file = tmp_path / "own.yaml"
    file.write_bytes(edited(MINI, changes))
    message = ""
    try:
        load_profile(file)
    except ConfigError as error:
        message = str(error)
    assert message == "" or all("own.yaml" in line for line in message.splitlines()[:1])


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.system ['touch evil']",
        "a: &a [x, x]\nb: &b [*a, *a]\n"
        + "\n".join(f"k{i}: &k{i} [{'*b' if not i else f'*k{i - 1}'}, *b]" for i in range(40)),
        "[" * 2000,
        "a: " + "{b: " * 400 + "1" + "}" * 400,
        "profile: 2020-13-45",
        "? [a, b]\n: c",
        "profile: \ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
        "\x00\x01",
    ],
    ids=["code", "laughs", "open", "deep", "date", "key", "surrogate", "control"],
)
def test_an_evil_profile_is_one_message_and_runs_nothing(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"^own\.yaml: "):
        load_profile(Path("own.yaml"))
    assert [file.name for file in tmp_path.iterdir()] == ["own.yaml"]


# --- Results --------------------------------------------------------------------------------------

CSV = st.sampled_from([b"", b",", b"\n", b'"', b"\r", b"\x00", b"\xff", b"nan", b"inf", b"1e400",
                       b"ok", b"failed: x", b"99999999999999999999", b"=1+1"])  # fmt: skip


@settings(max_examples=80, deadline=None, suppress_health_check=SHARED)
@given(changes=edits(CSV))
def test_mutated_scores_are_scores_or_refused_by_name(
    changes: list[tuple[float, int, bytes]], finished: Path, tmp_path: Path
) -> None:
    file = tmp_path / "scores.csv"
    file.write_bytes(edited((finished / "results/test/scores.csv").read_bytes(), changes))
    message = ""
    try:
        frame = load_scores(file)
        ok = frame["status"] == "ok"
        assert np.isfinite(frame.loc[ok, "value"]).all() and frame.loc[~ok, "value"].isna().all()
    except UserError as error:
        message = str(error)
    assert message == "" or str(file) in message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


def replace(content: Any, data: st.DataObject, depth: int = 3) -> Any:
    """The content with one part of it replaced by some other JSON."""
    if depth and isinstance(content, dict) and content and data.draw(st.booleans()):
        key = data.draw(st.sampled_from(sorted(content)))
        return {**content, key: replace(content[key], data, depth - 1)}
    return data.draw(JSON)


@pytest.mark.parametrize("name", ["manifest.json", "tables/main.cells.json"])
@settings(max_examples=20, deadline=None, suppress_health_check=SHARED)
@given(data=st.data(), raw=st.booleans())
def test_broken_json_results_are_told_by_audit_and_explain(
    name: str, data: st.DataObject, raw: bool, whole: Study, finished: Path
) -> None:
    file = whole.layout.results / name
    content = (finished / file).read_bytes()
    if raw:
        file.write_bytes(edited(content, data.draw(edits(CSV))))
    else:
        file.write_text(json.dumps(replace(json.loads(content), data)))
    messages = []
    for act in (
        lambda: run_explain("main", ["bicubic", "psnr", "Photos"], "test", ".", Path(), "json"),
        lambda: run_audit(
            Request(".", ".", "test", (), (), (), parse_tolerance(())), Path(), "json"
        ),
    ):
        try:
            act()
        except FaithDiffError as error:
            messages.append(str(error))
    assert all(messages)


# --- Pickles --------------------------------------------------------------------------------------


class Evil:
    """Leaves a file where it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, ("evil", "w")


def test_a_training_state_that_would_run_code_is_not_run(whole: Study) -> None:
    before = tree(whole.layout.checkpoint("faithdiff", 0) / "unet")
    state = whole.layout.work("faithdiff-seed0") / "phase1.pt"
    state.parent.mkdir(parents=True)
    torch.save({"format": 3, "identity": "x", "tensors": Evil()}, state)
    assert call("train", *CONFIG, "--method", "faithdiff") == ""
    assert not Path("evil").exists()
    assert tree(whole.layout.checkpoint("faithdiff", 0) / "unet") == before


def test_a_checkpoint_of_pickles_is_not_read(whole: Study) -> None:
    folder = whole.layout.checkpoint("faithdiff", 0)
    (folder / "run.json").unlink()  # nothing vouches for this folder
    (folder / "unet/diffusion_pytorch_model.safetensors").unlink()
    torch.save({"weight": Evil()}, folder / "unet/diffusion_pytorch_model.bin")
    message = call("restore-sets", *CONFIG, "--method", "faithdiff")
    assert "holds no .safetensors file" in message and not Path("evil").exists()


# --- Names ----------------------------------------------------------------------------------------

NAMES = ["it's \"quoted\"", "two\nlines", "<img src=x onerror=alert(1)>", "a,b;c", "ünï", "50% $x",
         "up..-down", "=1+1", " spaces "]  # fmt: skip


@pytest.fixture
def odd(whole: Study) -> Study:
    """The study with a test set of awkward names."""
    folder = Path("raw/odd")
    folder.mkdir(parents=True)
    for number, name in enumerate(NAMES):
        Image.new("RGB", (64, 64), (number, 99, 200)).save(folder / f"{name}.png")
    profile = yaml.safe_load(Path("config/test.yaml").read_text(encoding="utf-8"))
    profile["data"]["test"] = {
        "Photos": None,
        "Scenes": None,
        "Odd": {"source": "folder", "path": "raw/odd"},
    }
    Path("config/test.yaml").write_text(yaml.safe_dump(profile), encoding="utf-8")
    return Study.load(Path("config/test.yaml"))


def test_awkward_names_come_through_to_the_tables(odd: Study) -> None:
    for verb in ("prepare --dataset Odd", "degrade --dataset Odd --level II"):
        assert call(*verb.split(), *CONFIG) == ""
    for method in ("bicubic", "faithdiff"):
        assert call("restore-sets", *CONFIG, "--method", method) == ""
        assert call("score", *CONFIG, "--method", method) == ""
    for verb in ("collect", "tables", "manifest", "report"):
        assert call(verb, *CONFIG) == ""
    scores = load_scores(odd.layout.results / "scores.csv")
    assert set(scores["image"]) == set(NAMES)
    assert set(read_index(odd.layout.dataset("Odd"))["name"]) == set(NAMES)
    page = (odd.layout.results / "report/index.html").read_text(encoding="utf-8")
    assert "<img src=x onerror" not in page
    assert call("verify", *CONFIG) == ""


def test_a_name_that_is_not_utf_8_is_refused_by_name(odd: Study) -> None:
    shutil.copy(next(Path("raw/odd").glob("*.png")), b"raw/odd/caf\xe9.png")
    message = call("prepare", "--dataset", "Odd", *CONFIG)
    assert r"caf\xe9.png" in message and "UTF-8" in message
    assert not odd.layout.dataset("Odd").joinpath("index.csv").exists()


@pytest.mark.parametrize("name", ["../../../evil", "/tmp/evil", "a/b", "..", "", "a\0b"])
def test_an_index_that_leads_outside_is_refused(whole: Study, name: str) -> None:
    index = whole.layout.dataset("Photos") / "index.csv"
    index.with_name("index.csv.sha256").unlink()
    index.write_text(f"name,caption\n{name},\n", encoding="utf-8")
    with pytest.raises(FaithDiffError, match=r"index\.csv: .* is no name of an image"):
        read_index(index.parent)
    levels = load_choices(whole.profile.data.levels_file)
    out = whole.layout.lq("Photos", "II")
    before = tree(Path())
    with pytest.raises(FaithDiffError, match=r"index\.csv: .* is no name of an image"):
        degrade_dataset(index.parent / "hq", index, "II", levels["II"], 4, 1, "Photos", out)
    assert {k: v for k, v in before.items() if not k.endswith("jsonl")}.items() <= tree(
        Path()
    ).items()
    message = call("restore-sets", *CONFIG, "--method", "bicubic")
    assert named_command(message) == ["prepare", *CONFIG, "--dataset", "Photos"]
