"""Shares of the images, locks, and less memory: the same bytes however the work was cut up."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from faithdiff import cli
from faithdiff.errors import RunError, UserError
from faithdiff.methods.method import Restorer, Study
from faithdiff.models.faithdiff import load
from faithdiff.models.prior import load_prior
from faithdiff.restore.faithdiff_restorer import FaithDiffRestorer
from faithdiff.restore.memory import restore_in_memory
from faithdiff.restore.shards import Shard
from faithdiff.study.locks import claimed, forget_killed_runs

PROFILE = Path("config/test.yaml")
METHOD = "faithdiff"


# --- Shares -------------------------------------------------------------------------------------


def restored(study: Study, of: int) -> dict[str, bytes]:
    """Restore and score in `of` shards; the bytes of the images and of the scores."""
    folder = study.layout.restored(METHOD, 0)
    shutil.rmtree(folder.parents[1], ignore_errors=True)
    text = PROFILE.read_text("utf-8").split("\nshards:")[0]
    PROFILE.write_text(f"{text}\nshards: {of}\n", "utf-8")
    numbers = range(1, of + 1) if of > 1 else ()
    for verb in (cli.restore_sets, cli.score):
        for number in reversed(numbers):
            verb(METHOD, shard=f"{number}/{of}", config=PROFILE)
        verb(METHOD, config=PROFILE)
    files = [*folder.rglob("*.png"), folder / "scores.csv", folder / "heldout.csv"]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def test_results_do_not_depend_on_the_number_of_shards(
    study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = restored(study, 1)
    assert len(whole) == 6
    for of in (2, 7):
        capsys.readouterr()
        assert restored(study, of) == whole
        assert "0 computed now" in capsys.readouterr().out  # every value came from a shard
        place = study.layout.restoration(METHOD, 0, "Photos", "II")
        manifest = json.loads((place / "manifest.json").read_text("utf-8"))
        assert manifest["made"] == 2  # both by shards, counted once
        assert len(manifest["shards"]) == of
        assert manifest["shards"][0]["hardware"]["torch"] == torch.__version__


def test_a_missing_shard_is_named_with_the_command_that_makes_it(study: Study) -> None:
    restored(study, 2)
    study.layout.shard("restore", METHOD, 0, 2, 2).unlink()
    with pytest.raises(RunError, match=r"restore-2-of-2\.json.*--shard 2/2"):
        cli.restore_sets(METHOD, config=PROFILE)


def test_shards_are_a_partition() -> None:
    items = list(range(10))
    for of in (1, 2, 3, 11):
        parts = [Shard(number, of).select(items) for number in range(1, of + 1)]
        assert sorted(item for part in parts for item in part) == items
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "a/b", "1/2/3", "-1/2"])
def test_a_bad_shard_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="K/N"):
        Shard.parse(text)


# --- Locks --------------------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from faithdiff.study.locks import claimed, forget_killed_runs
if sys.argv[1] == "claim":
    with claimed(Path(sys.argv[2]), "other"):
        print("held", flush=True)
        time.sleep(float(sys.argv[3]))
else:
    alive = forget_killed_runs(Path(sys.argv[2]))
    print("held", flush=True)
    time.sleep(float(sys.argv[3]))
"""


def held(kind: str, path: Path, seconds: float) -> subprocess.Popen[str]:
    """Another process that holds a lock for a while."""
    command = [sys.executable, "-c", HOLD, kind, str(path), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_job_waits_for_the_one_that_does_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = tmp_path / "work" / "x.lock"
    with held("claim", lock, 1.0) as other:
        begun = time.monotonic()
        with claimed(lock, "train x"):
            assert time.monotonic() - begun > 0.5
            assert other.wait(5) == 0
    assert "train x: another process is at it" in capsys.readouterr().out


def test_a_killed_job_leaves_no_lock(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = tmp_path / "x.lock"
    with held("claim", lock, 600) as other:
        other.kill()
        other.wait()
        with claimed(lock, "train x"):
            pass
    assert capsys.readouterr().out == ""


def test_locks_of_a_killed_run_are_forgotten_and_those_of_a_living_one_kept(tmp_path: Path) -> None:
    lock = tmp_path / "locks" / "0.input.lock"
    lock.parent.mkdir()
    with held("run", tmp_path, 600) as other:
        lock.write_text("a\n")
        alive = forget_killed_runs(tmp_path)
        assert alive is not None
        alive.close()
        assert lock.exists()
        other.kill()
        other.wait()
    alive = forget_killed_runs(tmp_path)
    assert alive is not None
    alive.close()
    assert not lock.exists()


# --- Memory -------------------------------------------------------------------------------------


class Small(Restorer):
    """Enlarges; has memory for `room` images of a batch."""

    def __init__(self, room: int) -> None:
        self.room, self.batch_size, self.calls = room, 8, 0

    def restore(self, lq: Tensor, captions: list[str], seeds: list[int]) -> Tensor:
        self.calls += 1
        if len(lq) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        assert len(lq) == len(captions) == len(seeds)
        return lq.repeat_interleave(4, 2).repeat_interleave(4, 3)


def test_too_many_images_at_once_are_halved_for_good(capsys: pytest.CaptureFixture[str]) -> None:
    lq, captions, seeds = torch.rand(7, 3, 4, 4), ["a"] * 7, [1] * 7
    wanted = Small(8).restore(lq, captions, seeds)
    restorer = Small(2)
    assert torch.equal(restore_in_memory(restorer, lq, captions, seeds, "set"), wanted)
    said = capsys.readouterr().out
    assert "set: not enough memory, goes on with images at once: 2 at most" in said
    before = restorer.calls
    restore_in_memory(restorer, lq, captions, seeds, "set")
    assert restorer.calls - before == 4  # 2 + 2 + 2 + 1, nothing is tried that failed


def test_an_image_that_never_fits_names_the_settings() -> None:
    with pytest.raises(RunError, match=r"one LQ image of 5 x 4 px.*restore\.vae_tile.*out of mem"):
        restore_in_memory(Small(0), torch.rand(1, 3, 4, 5), ["a"], [1], "set")


def test_too_many_tiles_at_once_are_halved_at_the_same_result(
    study: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load(study.layout.checkpoint(METHOD, 0))
    prior = load_prior(study.layout.trained_prior, unet=model.unet)
    small = {"tile": 8, "tile_stride": 4, "guidance_scale": 1.0}
    config = study.profile.restore.model_copy(update=small)
    lq = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    wanted = FaithDiffRestorer(model, prior, config, 4).restore(lq, ["a"], [1])
    forward = type(model.unet).forward

    def cramped(unet: torch.nn.Module, sample: Tensor, *args: object, **kwargs: object) -> object:
        if len(sample) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(unet, sample, *args, **kwargs)

    monkeypatch.setattr(type(model.unet), "forward", cramped)
    many = config.model_copy(update={"tile_batch": 4})
    restored = restore_in_memory(FaithDiffRestorer(model, prior, many, 4), lq, ["a"], [1], "set")
    assert "tiles in one UNet pass: 2 at most" in capsys.readouterr().out
    assert torch.allclose(restored, wanted, atol=1e-5)
