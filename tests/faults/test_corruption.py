"""Corruption at rest: one flipped bit or a cut file is found before it is used, and mended."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shared.corrupt import call, cut, flip, named_command, tree

from faithdiff.errors import FaithDiffError
from faithdiff.methods.method import Study
from faithdiff.score.cache import ScoreCache
from faithdiff.study.checksums import read_checked
from faithdiff.tracking.verify import repair, verify

CONFIG = ("--config", "config/test.yaml")
SHARED = [HealthCheck.function_scoped_fixture]  # each example puts back what it changed
CORRUPTIONS: dict[str, Callable[[Path], None]] = {
    "first bit": lambda file: flip(file, 0),
    # Rows of the cache are checked as they are read; the last tensor, lq, is read whole at once.
    "middle bit": lambda file: flip(file, 0.995 if file.name == "cache.safetensors" else 0.5, 3),
    "last bit": lambda file: flip(file, 1, 7),
    "cut": lambda file: cut(file, 0.6),
}
# A file, and the verb that reads it next.
READ_BY = {
    "data/test/Photos/hq/astronaut_face.png": ("score", "--method", "bicubic"),
    "data/test/Photos/index.csv": ("restore-sets", "--method", "bicubic"),
    "data/test/train/hq/scene-00003.png": ("cache",),
    "data/test/train/lq/mixed/scene-00003.png": ("cache",),
    "data/test/train/lq/mixed/degradation.jsonl": ("cache",),
    "data/test/Photos/lq/II/degradation.jsonl": ("restore-sets", "--method", "bicubic"),
    "data/test/Photos/lq/II/astronaut_face.png": ("restore-sets", "--method", "bicubic"),
    "data/test/train/cache.safetensors": ("pretrain", "--recipe", "released"),
    "checkpoints/test/stage1-released/seed0/alignment/diffusion_pytorch_model.safetensors": (
        "train", "--method", "faithdiff",
    ),
    "checkpoints/test/faithdiff/seed0/unet/diffusion_pytorch_model.safetensors": (
        "restore-sets", "--method", "faithdiff",
    ),
    "checkpoints/test/faithdiff/seed0/unet/config.json": (
        "restore-sets", "--method", "faithdiff",
    ),
    "checkpoints/test/faithdiff/seed0/run.json": ("restore-sets", "--method", "faithdiff"),
    "checkpoints/test/faithdiff/seed0/training.csv": ("collect",),
    "checkpoints/test/prior/vae/diffusion_pytorch_model.safetensors": (
        "restore-sets", "--method", "faithdiff",
    ),
    "restored/test/bicubic/seed0/Photos/II/astronaut_face.png": ("score", "--method", "bicubic"),
    "restored/test/bicubic/seed0/Photos/II/manifest.json": ("score", "--method", "bicubic"),
    "restored/test/bicubic/seed0/scores.csv": ("collect",),
    "restored/test/faithdiff/seed0/heldout.csv": ("collect",),
}  # fmt: skip
# Fields that say how a run went, not what came out.
PASSING = ("seconds", "made", "commit", "dirty", "hardware", "checksum", "cost", "profile")


def stable(root: Path) -> dict[str, object]:
    """The study without what differs between two runs: times, and who ran."""
    found: dict[str, object] = dict(tree(root, ("logs", ".store", "config", "results")))
    for name in [name for name in found if name.endswith((".json", "training.csv"))]:
        file = root / name
        if file.name in ("run.json", "manifest.json"):
            content = json.loads(file.read_text(encoding="utf-8"))
            kept = {key: value for key, value in content.items() if key not in PASSING}
            kept.pop("files", None)  # training.csv has seconds
            found[name] = kept
        elif file.name == "training.csv":
            lines = file.read_text(encoding="utf-8").splitlines()
            found[name] = [line.rpartition(",")[0] for line in lines]
    return found


@pytest.mark.parametrize(
    "corruption",
    [pytest.param(d, marks=[pytest.mark.slow] * (d != "middle bit")) for d in CORRUPTIONS],
)
@pytest.mark.parametrize("name", READ_BY)
def test_corruption_is_named_before_use_and_mended_by_the_command_that_is_named(
    whole: Study, name: str, corruption: str
) -> None:
    before = stable(Path())
    verb = (READ_BY[name][0], *CONFIG, *READ_BY[name][1:])
    CORRUPTIONS[corruption](Path(name))
    message = call(*verb)
    assert name in message or Path(name).name in message, message
    assert call(*named_command(message)) == ""
    assert call(*verb) == ""
    assert stable(Path()) == before
    # A training that is made again took other seconds, which the table of costs shows.
    assert not [each for each in verify(whole).findings if "cost.csv" not in each.message]


# --- faithdiff verify -----------------------------------------------------------------------------

# Not part of what is verified: how long jobs took, what a running job needs, what people write.
UNVERIFIED = ("config", "logs", ".work", "paper")


def same_meaning(file: Path, before: bytes) -> bool:
    """Whether a file reads as before: 1e-05 and 1E-05 are one number, a hash stands alone."""
    if file.suffix == ".sha256":
        return file.read_bytes().split()[:1] == before.split()[:1]
    try:
        return file.suffix == ".json" and json.loads(file.read_bytes()) == json.loads(before)
    except ValueError:
        return False


@settings(max_examples=60, deadline=None, suppress_health_check=SHARED)
@given(data=st.data())
def test_any_flipped_bit_anywhere_is_found_and_named(whole: Study, data: st.DataObject) -> None:
    files = [Path(name) for name in tree(Path(), UNVERIFIED) if "/scores/" not in name]
    file = data.draw(st.sampled_from(files))
    content = file.read_bytes()
    flip(file, data.draw(st.floats(0, 1)), data.draw(st.integers(0, 7)))
    try:
        found = verify(whole).findings
        named = file.with_suffix(".safetensors") if file.suffix == ".sums" else file
        named = named.with_suffix("") if named.suffix == ".sha256" else named
        assert same_meaning(file, content) or any(str(named) in each.message for each in found)
        assert all("faithdiff" in each.message or "snakemake" in each.message for each in found)
    finally:
        file.unlink()
        file.write_bytes(content)


def test_a_whole_study_has_no_findings(whole: Study, capsys: pytest.CaptureFixture[str]) -> None:
    report = verify(whole)
    assert report.findings == [] and report.checked > 60
    assert call("verify", *CONFIG) == ""


def test_repair_removes_the_corruption_and_what_says_that_it_is_finished(whole: Study) -> None:
    before = tree(Path(), ("logs", "config"))
    image = Path("restored/test/bicubic/seed0/Photos/II/astronaut_face.png")
    key = read_checked(image.with_name("manifest.json"))["images"]["astronaut_face"]["key"]
    figure = next(Path("results/test/figures").glob("*.png"))
    for file in (image, figure):
        flip(file, 0.5)
    report = verify(whole)
    removed = {str(path) for path in repair(report)}
    assert removed == {
        str(image),
        str(image.with_name("manifest.json")),
        str(whole.layout.cached(key)),
        "results/test/figures",
    }
    kept = set(tree(Path(), ("logs", "config")))
    assert set(before) - kept >= removed - {"results/test/figures"}
    assert verify(whole).findings[0].message.startswith("results/test/figures/")  # not there
    for verb in (("restore-sets", "--method", "bicubic"), ("figures",)):
        assert call(verb[0], *CONFIG, *verb[1:]) == ""
    assert not verify(whole).findings
    assert image.read_bytes() and tree(Path(), ("logs", "config")).keys() == before.keys()


def test_the_command_exits_with_one_until_it_is_repaired(whole: Study) -> None:
    from typer.testing import CliRunner

    from faithdiff import cli

    lq = Path("data/test/Photos/lq/II/astronaut_face.png")
    cut(lq, 0.5)
    first = CliRunner().invoke(cli.app, ["verify", *CONFIG])
    assert first.exit_code == 1
    assert f"{lq}: is corrupted" in first.output and "1 corrupted" in first.output
    second = CliRunner().invoke(cli.app, ["verify", *CONFIG, "--repair"])
    assert second.exit_code == 0
    assert f"removed {lq}" in second.output
    assert "snakemake --cores all --config profile=test" in second.output
    assert not lq.exists() and not lq.with_name("degradation.jsonl").exists()
    assert CliRunner().invoke(cli.app, ["verify", *CONFIG]).exit_code == 0


# --- What mends itself ----------------------------------------------------------------------------


@pytest.mark.parametrize("corruption", ["first bit", "middle bit", "last bit", "cut"])
def test_a_corrupted_finished_image_is_made_again(whole: Study, corruption: str) -> None:
    before = tree(Path("restored"))
    for file in sorted(whole.layout.cache.glob("??/*.png")):
        data = file.read_bytes()
        file.unlink()  # by itself, without the published image
        file.write_bytes(data)
        CORRUPTIONS[corruption](file)
    assert len(verify(whole).findings) == 8
    for method in ("bicubic", "faithdiff"):
        assert call("restore-sets", *CONFIG, "--method", method) == ""
    images = {name: sha for name, sha in before.items() if name.endswith(".png")}
    now = tree(Path("restored"))
    assert {name: now[name] for name in images} == images


@settings(max_examples=80, deadline=None, suppress_health_check=SHARED)
@given(place=st.floats(0, 1), bit=st.integers(0, 7))
def test_a_corrupted_value_of_the_score_cache_is_never_a_score(
    whole: Study, place: float, bit: int
) -> None:
    file = whole.layout.cache / "scores" / "bicubic-seed0.csv"
    content, before = file.read_bytes(), ScoreCache(file)._values
    flip(file, place, bit)
    after = ScoreCache(file)._values
    file.write_bytes(content)
    assert after.items() <= before.items()
    assert len(after) < len(before)


class Killed(BaseException):
    """Stands in for a kill: nothing on the way out handles it."""


@pytest.mark.parametrize("place", [0.2, 0.5, 0.8])
def test_a_corrupted_training_state_starts_afresh_and_ends_with_the_same_weights(
    whole: Study, place: float, capsys: pytest.CaptureFixture[str]
) -> None:
    from faithdiff.train import loop, state

    weights = {n: s for n, s in tree(Path("checkpoints")).items() if n.endswith(".safetensors")}
    saved: list[Path] = []

    def killed(self: state.State, step: int) -> None:
        plain(self, step)
        assert self._file is not None
        saved.append(self._file)
        raise Killed

    plain = state.State.save
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state.State, "save", killed)
        with pytest.raises(Killed):
            call("train", *CONFIG, "--method", "faithdiff")
    assert saved and loop.train
    # A tensor's own bytes: torch does not look at their checksum.
    tensor = torch.load(saved[0], weights_only=True)["tensors"]
    data = max(tensor.values(), key=torch.Tensor.numel).contiguous().numpy().tobytes()
    start = saved[0].read_bytes().find(data)
    assert start > 0
    flip(saved[0], (start + place * len(data)) / saved[0].stat().st_size, 5)
    capsys.readouterr()
    assert call("train", *CONFIG, "--method", "faithdiff") == ""
    now = {n: s for n, s in tree(Path("checkpoints")).items() if n.endswith(".safetensors")}
    assert now == weights


@pytest.mark.parametrize("row", [0, 5, 11])
@pytest.mark.parametrize("tensor", ["hq", "lq", "moments", "hidden", "pooled"])
def test_a_corrupted_row_of_the_latents_is_refused_when_it_is_drawn(
    whole: Study, tensor: str, row: int
) -> None:
    from faithdiff.train.cache import _open

    file = whole.layout.train_cache
    size = int.from_bytes(file.read_bytes()[:8], "little")
    begin, end = json.loads(file.read_bytes()[8 : 8 + size])[tensor]["data_offsets"]
    width = (end - begin) // len(_open(file)[tensor])
    flip(file, (8 + size + begin + (row + 0.5) * width) / file.stat().st_size)
    opened = _open(file)[tensor]
    for other in set(range(12)) - {row}:
        opened[torch.tensor([other])]
    with pytest.raises(FaithDiffError, match=rf"is corrupted in row {row}; .*faithdiff cache"):
        opened[torch.tensor([0, row])]
