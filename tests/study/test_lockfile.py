"""``dvc.lock`` is read in one place, and refused where it is none."""

from __future__ import annotations

import pytest
from shared import ROOT

from faithdiff.study.lockfile import locked_stages, stage_name


def test_the_shipped_lock_is_read() -> None:
    stage = locked_stages((ROOT / "dvc.lock").read_bytes())[stage_name("mini")]
    outputs = {output["path"]: output for output in stage["outs"]}
    assert outputs["restored/mini"]["md5"].endswith(".dir")
    assert outputs["restored/mini"]["nfiles"] > 0 < outputs["restored/mini"]["size"]
    assert any(file.endswith("levels.yaml") for file in stage["params"])


def test_a_pointer_of_git_lfs_is_called_so() -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    with pytest.raises(ValueError, match=r"^is a pointer of Git LFS .* git lfs pull$"):
        locked_stages(pointer)
    with pytest.raises(ValueError, match=r"^is not a lock file of DVC; get it back with: git ch"):
        locked_stages(b"stages: {")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"stages",
        b"stages: [a]",
        b"schema: '2.0'",
        b"stages: {x: 1}",
        b"stages: {x: {outs: [a]}}",
        b"stages: {x: {outs: [{path: a}]}}",
        b"stages: {x: {outs: [{md5: a}]}}",
        b"\xff\xfe\x00",
        b"stages: {",
    ],
)
def test_what_is_no_lock_file_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="is not a lock file of DVC"):
        locked_stages(content)


def test_the_lock_of_two_branches_is_not_got_back_from_git() -> None:
    content = b"schema: '2.0'\nstages:\n<<<<<<< HEAD\n  a: {}\n=======\n  b: {}\n>>>>>>> main\n"
    with pytest.raises(ValueError, match=r"both sides of a merge.*--ours dvc\.lock") as caught:
        locked_stages(content)
    assert "git checkout dvc.lock" not in str(caught.value)  # which git refuses during a merge
