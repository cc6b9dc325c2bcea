"""A training state in parts: each process writes its own, and any number of processes reads them.

By `torch.distributed.checkpoint`. What all processes hold alike is dealt out among them, what one
alone holds (its share of the optimiser's moments, its shards of the weights) it writes itself. So
no tensor passes through another process, neither to be saved nor to be read.
"""

from __future__ import annotations

import contextlib
import enum
import pickle
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from faithdiff.errors import CorruptedError
from faithdiff.study.checksums import check_file
from faithdiff.study.provenance import file_digest
from faithdiff.train.processes import Processes

INDEX = ".metadata"  # torch's name: which tensor is where
# What the index is made of. It is a pickle, and a state must never be able to run code.
HARMLESS = {
    "torch.distributed.checkpoint.metadata": {
        "ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta", "TensorProperties",
        "TensorStorageMetadata", "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "pathlib": {"PosixPath", "WindowsPath"},
    "torch": {"Size", *(str(t).removeprefix("torch.") for t in vars(torch).values()
                        if isinstance(t, torch.dtype))},
}  # fmt: skip


def write_parts(
    tensors: Mapping[str, Tensor], folder: Path, processes: Processes
) -> dict[str, str]:
    """Write the tensors of this process, together with all others, and sync them to disk.

    Args:
        folder: One that no state needs: what lies there is removed.

    Returns:
        The sha256 of each file in the folder, that of all processes.

    Raises:
        OSError: A process cannot write its part; raised in all of them.
    """
    if processes.first:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    processes.wait()
    with _failing_alike():
        save(dict(tensors), storage_writer=FileSystemWriter(folder))
    # Each reads its own part again, which is still in memory, and hashes while the others do.
    own = [*folder.glob(f"__{processes.rank}_*"), *([folder / INDEX] if processes.first else [])]
    sums: dict[str, str] = {}
    for found in processes.all_say({file.name: file_digest(file) for file in own}):
        sums |= found
    return sums


def check_parts(sums: Mapping[str, str], folder: Path, way_out: str, processes: Processes) -> None:
    """Compare every part with its checksum, each process a share of them.

    Raises:
        CorruptedError: One is missing or corrupted; raised in all processes, names the part.
    """
    own: list[str] = []
    for name in sorted(sums)[processes.rank :: processes.count]:
        file = folder / name
        try:
            check_file(file, sums[name])
        except CorruptedError:
            what = "is not what was saved (its checksum differs)" if file.exists() else "is missing"
            own.append(f"{file}: {what}; {way_out}")
    wrong = [message for messages in processes.all_say(own) for message in messages]
    if wrong:
        raise CorruptedError(wrong[0])


def names_in(folder: Path) -> list[str]:
    """The tensors of a state in parts.

    Raises:
        CorruptedError: The index is none.
    """
    return list(_Reader(folder).read_metadata().state_dict_metadata)


def read_parts(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Fill the tensors of this process, or its shards of them, from whichever parts hold them.

    Raises:
        OSError: A tensor is not there, or of another shape.
    """
    with _failing_alike():
        load(dict(tensors), storage_reader=_Reader(folder))


@contextlib.contextmanager
def _failing_alike() -> Iterator[None]:
    """Raise torch's error, which is no Exception, as one, with what the first failure says."""
    with warnings.catch_warnings():
        # A single process needs no process group to read what several have written.
        warnings.filterwarnings("ignore", "torch.distributed is")
        try:
            yield
        except CheckpointException as error:
            rank, (failure, _) = next(iter(error.failures.items()))
            raise OSError(f"process {rank}: {failure}") from None


class _Reader(FileSystemReader):
    """Reads the index without the power to run code."""

    def read_metadata(self, *args: object, **kwargs: object) -> Metadata:
        file = Path(self.path) / INDEX
        with file.open("rb") as stream:
            try:
                metadata = _Unpickler(stream).load()
            except pickle.UnpicklingError as error:
                raise CorruptedError(f"{file}: {error}; delete the state that it is of") from None
        assert isinstance(metadata, Metadata)
        return metadata


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        if (module, name) == ("builtins", "getattr"):
            return _member
        if name not in HARMLESS.get(module, ()):
            raise pickle.UnpicklingError(f"{module}.{name} has no place in the index of a state")
        return super().find_class(module, name)


def _member(kind: object, name: str) -> enum.Enum:
    """The member of an enumeration: Python before 3.11.4 writes it as an attribute of its class."""
    if not (isinstance(kind, type) and issubclass(kind, enum.Enum)):
        raise pickle.UnpicklingError(f"{kind}.{name} has no place in the index of a state")
    return kind[name]
