"""A disk that fills up while a step writes: a clear message, and nothing half there.

The disk is real: a small tmpfs, filled to some KB before its end. Every verb of the study meets it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from shared.corrupt import call, litter, tree

from faithdiff.data.images import read_image, write_png
from faithdiff.errors import FaithDiffError
from faithdiff.study.checksums import append_row, read_rows, write_summed
from faithdiff.study.files import write_text_atomic

CONFIG = ("--config", "config/test.yaml")
MB = 10**6


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a file system of so many bytes and returns its folder; skipped where it may not."""
    mounted: list[Path] = []

    def mount(size: int) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            pytest.skip(f"NOT TESTED on a full disk: {error}")
        if done.returncode:
            pytest.skip(f"NOT TESTED on a full disk: {done.stderr.strip()} (needs root)")
        mounted.append(folder)
        return folder

    yield mount
    os.chdir("/")
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, leave: int) -> Path:
    """Fill the disk of a folder but for so many bytes; deleting the file frees it again."""
    filler = folder / "filler"
    with filler.open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, max(shutil.disk_usage(folder).free - leave, 1))
    return filler


# --- Single files ---------------------------------------------------------------------------------


def test_an_image_is_whole_or_absent(disk: Callable[[int], Path]) -> None:
    import numpy as np

    folder, rng = disk(400_000), np.random.default_rng(0)
    old, new = (rng.integers(0, 256, (200, 200, 3), dtype=np.uint8) for _ in range(2))
    write_png(old, folder / "old.png")
    fill(folder, 50_000)
    for name in ("old.png", "new.png"):
        with pytest.raises(FaithDiffError, match=rf"{name}: cannot be written: No space left"):
            write_png(new, folder / name)
    assert np.array_equal(read_image(folder / "old.png"), old)
    assert {file.name for file in folder.iterdir()} == {"old.png", "filler"}


@pytest.mark.parametrize("write", [write_text_atomic, write_summed])
def test_a_table_is_the_old_one_or_the_new(
    disk: Callable[[int], Path], write: Callable[[str, Path], None]
) -> None:
    folder = disk(200_000)
    write("old", folder / "table.csv")
    fill(folder, 20_000)
    with pytest.raises(FaithDiffError, match=r"table\.csv: cannot be written: No space left"):
        write("new" * 20_000, folder / "table.csv")
    assert (folder / "table.csv").read_text() == "old"
    assert litter(folder) == []


def test_rows_that_were_kept_stay(disk: Callable[[int], Path]) -> None:
    folder = disk(100_000)
    fill(folder, 8_000)
    file, written = folder / "answers.csv", 0
    message = ""
    while not message and written < 100:
        try:
            append_row((str(written), "x" * 500), file)
            written += 1
        except FaithDiffError as error:
            message = str(error)
    assert "answers.csv: cannot be written: No space left" in message
    assert written > 2
    (folder / "filler").unlink()
    assert [row[0] for row in read_rows(file)] == [str(n) for n in range(written)]
    append_row(("next", ""), file)
    assert len(list(read_rows(file))) == written + 1


# --- Every verb of the study ----------------------------------------------------------------------

# A verb, what is removed so that it has something to do, and how many bytes it finds free.
VERBS = [
    (("prepare", "--dataset", "Photos"), "data/test/Photos/hq", 15_000),
    (("degrade", "--dataset", "Photos", "--level", "II"), "data/test/Photos/lq", 4_000),
    (("cache",), "data/test/train/cache.safetensors", 200_000),
    pytest.param(
        *(("pretrain", "--recipe", "released"), "checkpoints/test/stage1-released", 100_000),
        marks=pytest.mark.slow,
    ),
    (("train", "--method", "faithdiff"), "checkpoints/test/faithdiff", 300_000),
    pytest.param(*(("train-prior",), "checkpoints/test/prior", 200_000), marks=pytest.mark.slow),
    (("restore-sets", "--method", "bicubic"), "restored/test/.store", 15_000),
    (("restore-sets", "--method", "faithdiff"), "restored/test/.store", 15_000),
    (("score", "--method", "bicubic"), "restored/test/.store/scores", 0),
    (("collect",), "results/test/scores.csv", 0),
    (("tables",), "results/test/tables", 4_000),
    (("figures",), "results/test/figures", 20_000),
    pytest.param(*(("claims",), "results/test/claims.json", 4_000), marks=pytest.mark.slow),
    (("manifest",), "results/test/manifest.json", 4_000),
    pytest.param(*(("report",), "results/test/report", 20_000), marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("verb", "missing", "free"), VERBS, ids=lambda v: str(v)[:40])
def test_a_verb_that_fills_the_disk_says_so_and_ends_well_when_there_is_room(
    finished: Path,
    disk: Callable[[int], Path],
    monkeypatch: pytest.MonkeyPatch,
    verb: tuple[str, ...],
    missing: str,
    free: int,
) -> None:
    folder = disk(200 * MB) / "study"
    shutil.copytree(finished, folder)
    monkeypatch.chdir(folder)
    gone = folder / missing
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink(missing_ok=True)
    before = tree(folder)
    filler = fill(folder.parent, free)
    message = call(verb[0], *CONFIG, *verb[1:])
    assert re.search(r"No space left on device|disk is full|, 0\.\d MB are free", message), message
    assert re.search(r"(data|checkpoints|restored|results)/test/", message), message
    # The encoding of a training set and a training go on where they were.
    assert set(litter(folder)) <= {"cache.partial"}
    kept = tree(folder, (".work", "scores", "cache.partial"))
    filler.unlink()
    assert call(verb[0], *CONFIG, *verb[1:]) == ""
    after = tree(folder, (".work",))
    # Whatever had its final name when the disk was full was an old file or a finished one.
    odd = {
        name for name, sha in kept.items() if sha not in (before.get(name), after.get(name))
    } - passing(folder)
    assert odd == set()
    assert litter(folder) == []
    assert same(after, tree(finished)) == set()


def passing(folder: Path) -> set[str]:
    """Files that differ between two good runs: they say when, and how long it took."""
    names = ("run.json", "training.csv", "manifest.json", "manifest.json.sha256", "cost.csv")
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.name in names}
    return found | {name for name in tree(folder) if name.startswith("results/test/report")}


def same(now: dict[str, str], then: dict[str, str]) -> set[str]:
    """Weights, images and scores that differ."""
    kinds = (".safetensors", ".png", "scores.csv", "index.csv", ".jsonl", ".md")
    return {n for n in now.keys() & then.keys() if n.endswith(kinds) and now[n] != then[n]}


def test_a_state_that_does_not_fit_leaves_the_one_before_it_and_the_run_goes_on_from_there(
    finished: Path, disk: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk holds one state of the training and not the second beside it."""
    folder = tmp_path / "study"
    shutil.copytree(finished, folder)
    monkeypatch.chdir(folder)
    size = sum(f.stat().st_size for f in (folder / "checkpoints/test/faithdiff").rglob("*.safe*"))
    there = sum(f.stat().st_size for f in (folder / "checkpoints/test").rglob("*") if f.is_file())
    # A state is weights, their average and the moments: about four times the weights.
    work = disk(there + round(5.5 * size) + 200_000)
    shutil.copytree(folder / "checkpoints/test", work, dirs_exist_ok=True)
    shutil.rmtree(folder / "checkpoints/test")
    (folder / "checkpoints/test").symlink_to(work)
    before = tree(folder / "checkpoints/test/faithdiff")
    message = call("train", *CONFIG, "--method", "faithdiff")
    assert re.search(r"\.pt: the training state cannot be written, [01]\.\d MB are free", message)
    states = list(work.rglob("*.pt"))
    assert len(states) == 1 and litter(work) == []
    assert tree(folder / "checkpoints/test/faithdiff") == before
    subprocess.run(["mount", "-o", f"remount,size={there + 30 * size}", str(work)], check=True)
    stamp = states[0].stat().st_mtime_ns
    assert call("train", *CONFIG, "--method", "faithdiff") == ""
    assert stamp > 0 and not states[0].exists()
    after = tree(folder / "checkpoints/test/faithdiff")
    assert same(after, before) == set() and after.keys() == before.keys()
