"""States of several processes: each its part, killed while it saves, damaged, another count."""

from __future__ import annotations

import enum
import os
import pickle
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
import torch
from shared.gloo import together
from shared.toy_training import Killed, Outcome, close, same, toy, uninterrupted
from torch.distributed.checkpoint import filesystem
from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING, Metadata

from faithdiff.errors import CorruptedError, RunError
from faithdiff.study.provenance import file_digest
from faithdiff.train import state as states
from faithdiff.train.parts import INDEX
from faithdiff.train.processes import Processes


def killed(state: Path, update: int = 5, count: int = 2) -> None:
    with pytest.raises(Killed):
        together(count, toy, state, update)


def test_each_process_writes_its_part_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    state = tmp_path / "toy.pt"
    killed(state)
    first, second = (tmp_path / "toy.000003.parts" / f"__{rank}_0.distcp" for rank in (0, 1))
    sizes = [first.stat().st_size, second.stat().st_size]
    assert 0.5 < sizes[0] / sizes[1] < 2
    assert torch.load(state, weights_only=True)["tensors"] is None
    raw, averaged, losses, done = together(2, toy, state)[0]
    whole = uninterrupted(2)
    assert done == [3, 4, 5, 6, 7, 8]
    assert same(raw, whole[0]) and same(averaged, whole[1]) and losses == whole[2]
    # The parts of the state before are gone, and its own are there.
    assert [folder.name for folder in tmp_path.glob("*.parts")] == ["toy.000009.parts"]


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 3)])
def test_another_number_of_processes_reads_the_parts(
    tmp_path: Path, before: int, after: int
) -> None:
    state = tmp_path / "toy.pt"
    killed(state, count=before)
    raw, averaged, losses, done = together(after, toy, state)[0]
    whole = uninterrupted(2)
    assert done[0] == 3 and losses == pytest.approx(whole[2], rel=1e-5)
    assert close(raw, whole[0]) and close(averaged, whole[1])
    assert len(list(tmp_path.glob("*.parts"))) == (after > 1)


def dies_in_parts(processes: Processes, state: Path) -> Outcome:
    """Train, and die as by SIGKILL when the first tensor of the second state is written."""
    plain = filesystem._write_item

    def write(transforms: object, stream: object, *rest: object) -> object:
        written = plain(transforms, stream, *rest)  # type: ignore[arg-type]
        if "000006" in str(stream):
            os._exit(9)
        return written

    filesystem._write_item = write  # type: ignore[assignment]
    return toy(processes, state)


def dies_before_the_end(processes: Processes, state: Path) -> Outcome:
    """Die when all parts of the second state are written, and nothing names them yet."""
    plain = states.write_bytes_atomic
    written: list[Path] = []

    def write(content: bytes, path: Path) -> None:
        if written:
            os._exit(9)
        plain(content, path)
        written.append(path)

    states.write_bytes_atomic = write
    return toy(processes, state)


@pytest.mark.parametrize("work", [dies_in_parts, dies_before_the_end])
def test_killed_while_it_saves_the_state_before_is_whole(
    tmp_path: Path, work: Callable[[Processes, Path], Outcome]
) -> None:
    state = tmp_path / "toy.pt"
    with pytest.raises(BrokenProcessPool):
        together(2, work, state)
    assert (tmp_path / "toy.000006.parts").is_dir()
    raw, _, losses, done = together(2, toy, state)[0]
    whole = uninterrupted(2)
    assert done[0] == 3 and same(raw, whole[0]) and losses == whole[2]
    assert [folder.name for folder in tmp_path.glob("*.parts")] == ["toy.000009.parts"]


@pytest.mark.parametrize("damage", ["flipped", "missing"])
@pytest.mark.parametrize("count", [1, 2])
def test_a_damaged_part_is_named_with_the_way_out(tmp_path: Path, damage: str, count: int) -> None:
    state = tmp_path / "toy.pt"
    killed(state)
    part = tmp_path / "toy.000003.parts" / "__1_0.distcp"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "missing":
        part.unlink()
    else:
        part.write_bytes(content)
    what = "is missing" if damage == "missing" else "checksum differs"
    with pytest.raises(CorruptedError, match=rf"{part}: .*{what}.*delete the state"):
        together(count, toy, state)
    assert state.is_file()  # nothing was overwritten
    state.unlink()
    assert together(count, toy, state)[0][3][0] == 0


class Evil:
    """Is pickled as a call."""

    def __init__(self, call: Callable[..., object], *arguments: object) -> None:
        self._call = call, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self._call


def rewritten(state: Path, change: Callable[[bytes], bytes]) -> None:
    """Replace the index of a state by another one, with a checksum that fits."""
    saved = torch.load(state, weights_only=True)
    index = state.parent / saved["parts"]["folder"] / INDEX
    index.write_bytes(change(index.read_bytes()))
    saved["parts"]["sums"][INDEX] = file_digest(index)
    torch.save(saved, state)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (Evil(open, "evil", "w"), r"io\.open"),
        (Evil(getattr, Metadata, "__init__"), r"Metadata'>\.__init__"),
    ],
)
def test_an_index_that_would_run_code_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Evil, named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    state = tmp_path / "toy.pt"
    killed(state)
    rewritten(state, lambda _: pickle.dumps(call))
    with pytest.raises(CorruptedError, match=rf"{named} has no place in the index"):
        together(1, toy, state)
    assert not Path("evil").exists()


def test_an_index_of_an_older_python_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before 3.11.4, members of enumerations were pickled as attributes of their class."""
    state = tmp_path / "toy.pt"
    killed(state)

    def as_attribute(member: enum.Enum, _: int) -> object:
        return getattr, (type(member), member.name)

    def older(index: bytes) -> bytes:
        found = pickle.loads(index)  # noqa: S301  # this test wrote it
        monkeypatch.setattr(_MEM_FORMAT_ENCODING, "__reduce_ex__", as_attribute)
        return pickle.dumps(found)

    rewritten(state, older)
    assert together(1, toy, state)[0][3][0] > 0


def cannot_write(processes: Processes, state: Path) -> Outcome:
    def full(*_: object) -> object:
        raise OSError(28, "No space left on device")

    if processes.rank == 1:
        filesystem._write_item = full  # type: ignore[assignment]
    return toy(processes, state)


def test_a_part_that_cannot_be_written_stops_all_and_says_why(tmp_path: Path) -> None:
    state = tmp_path / "toy.pt"
    with pytest.raises(RunError, match=r"toy\.pt: the training state .* process 1: .*No space"):
        together(2, cannot_write, state)
    assert [file.name for file in tmp_path.iterdir()] == ["toy.csv"]
