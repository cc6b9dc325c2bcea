"""Restoration jobs: what is made, kept, made again and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from faithdiff.data.images import read_image, write_png
from faithdiff.errors import CheckpointError, RunError, UserError
from faithdiff.methods.method import Study
from faithdiff.methods.registry import find_method
from faithdiff.restore import run
from faithdiff.restore.faithdiff_restorer import FaithDiffRestorer
from faithdiff.study.checksums import sum_file

# diffusers' Euler scheduler
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def _job(study: Study, method: str = "faithdiff") -> dict[str, dict[str, Any]]:
    """Run the job; its manifests by dataset."""
    run.restore_job(study, find_method(study, method), method, 0)
    return {
        dataset: json.loads(
            (study.layout.restoration(method, 0, dataset, "II") / "manifest.json").read_text()
        )
        for dataset in study.profile.data.test
    }


def _images(study: Study, method: str = "faithdiff") -> dict[str, bytes]:
    root = study.layout.restored(method, 0)
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in root.rglob("*.png")}


def test_a_second_run_makes_nothing(study: Study) -> None:
    first = _job(study)
    before = _images(study)
    assert {d: m["made"] for d, m in first.items()} == {"Photos": 2, "Scenes": 2}
    assert {d: m["made"] for d, m in _job(study).items()} == {"Photos": 0, "Scenes": 0}
    assert len(before) == 4 and _images(study) == before
    images = {f"{d}/II/{name}.png" for d, m in first.items() for name in m["images"]}
    assert images == set(before)


def test_a_killed_run_goes_on_at_the_image(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []

    def write_three(image: np.ndarray, path: Path) -> None:
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path)
        write_png(image, path)

    with monkeypatch.context() as patch:
        patch.setattr(run, "write_png", write_three)
        with pytest.raises(KeyboardInterrupt):
            _job(study)
    times = {path: path.stat().st_mtime_ns for path in written}
    finished = study.layout.restoration("faithdiff", 0, "Scenes", "II") / "manifest.json"
    assert not finished.exists()
    manifests = _job(study)
    assert {d: m["made"] for d, m in manifests.items()} == {"Photos": 0, "Scenes": 1}
    assert {path: path.stat().st_mtime_ns for path in written} == times
    resumed = _images(study)
    for path in study.layout.cache.rglob("*.png"):
        path.unlink()
    assert {d: m["made"] for d, m in _job(study).items()} == {"Photos": 2, "Scenes": 2}
    assert _images(study) == resumed


def test_a_deleted_or_corrupted_stored_image_is_made_again(study: Study) -> None:
    _job(study)
    before = _images(study)
    first, second, *_ = sorted(study.layout.cache.rglob("*.png"))
    first.unlink()
    data = second.read_bytes()
    second.unlink()  # it is one file with the published image, which stays whole
    second.write_bytes(data[: len(data) // 2])
    assert sum(manifest["made"] for manifest in _job(study).values()) == 2
    assert _images(study) == before


def test_only_what_changed_is_restored_again(study: Study) -> None:
    _job(study)
    before = _images(study)
    lq = study.layout.lq("Scenes", "II") / "scene-00000.png"
    write_png(255 - read_image(lq), lq)
    (lq.parent / "degradation.jsonl").unlink()  # it has the hash of the image before
    assert {d: m["made"] for d, m in _job(study).items()} == {"Photos": 0, "Scenes": 1}
    changed = {name for name, data in _images(study).items() if data != before[name]}
    assert changed == {"Scenes/II/scene-00000.png"}


def test_other_settings_or_weights_restore_all_again(study: Study) -> None:
    _job(study)
    other = study.profile.restore.model_copy(update={"guidance_scale": 4.0})
    profile = study.profile.model_copy(update={"restore": other})
    assert all(m["made"] == 2 for m in _job(Study(profile, study.file, study.layout)).values())
    file = study.layout.checkpoint("faithdiff", 0) / "alignment" / "config.json"
    file.write_text(file.read_text() + "\n")
    (study.layout.checkpoint("faithdiff", 0) / "run.json").unlink()  # has the hash of it before
    assert all(m["made"] == 2 for m in _job(study).values())


def test_the_batch_size_changes_no_image(study: Study) -> None:
    _job(study)
    one = {
        name: read_image(study.layout.restored("faithdiff", 0) / name) for name in _images(study)
    }
    for path in study.layout.cache.rglob("*.png"):
        path.unlink()
    other = study.profile.restore.model_copy(update={"batch_size": 2})
    _job(Study(study.profile.model_copy(update={"restore": other}), study.file, study.layout))
    for name, image in one.items():
        two = read_image(study.layout.restored("faithdiff", 0) / name)
        # Kernels chosen by batch size may round the last bit of a float differently.
        assert np.abs(image.astype(int) - two).max() <= 1


def test_an_image_that_left_the_set_is_removed(study: Study) -> None:
    _job(study, "bicubic")
    index = study.layout.dataset("Photos") / "index.csv"
    index.write_text("".join(index.read_text().splitlines(keepends=True)[:2]))
    sum_file(index).unlink()
    _job(study, "bicubic")
    assert sum(name.startswith("Photos/") for name in _images(study, "bicubic")) == 1


def test_a_job_without_its_inputs_says_what_makes_them(study: Study) -> None:
    with pytest.raises(CheckpointError, match=r"separate/seed0: is missing; .* --method separate"):
        _job(study, "separate")
    next(study.layout.lq("Photos", "II").glob("*.png")).unlink()
    with pytest.raises(UserError, match=r"degrade --config config/test\.yaml --dataset Photos"):
        _job(study, "bicubic")


def test_a_restoration_that_is_not_finite_stops_the_job(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        FaithDiffRestorer, "restore", lambda _, lq, *__: torch.full_like(lq, float("nan"))
    )
    with pytest.raises(RunError, match="NaN"):
        _job(study)
    assert not _images(study)
