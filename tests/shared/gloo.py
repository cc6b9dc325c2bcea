"""Several processes on this machine, joined by gloo, for tests of trainings on many devices."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from faithdiff.train.processes import ALONE, Processes

Result = TypeVar("Result")
# From a server that has imported all of it: a process then starts in milliseconds, and unlike a
# fork of the test it inherits no threads of autograd.
_CONTEXT = multiprocessing.get_context("forkserver")
_PRELOADED = ["shared.toy_training", "faithdiff.train.loop", "faithdiff.train.parts"]
_PRELOADED += ["torch._dynamo", "pandas"]  # imported during a training, a second in each process
_CONTEXT.set_forkserver_preload(_PRELOADED)


def together(count: int, work: Callable[..., Result], *given: Any) -> list[Result]:
    """What ``work(processes, *given)`` returns in each of `count` processes; one is this process.

    Raises:
        BrokenProcessPool: One of them died; beside what `work` raises.
    """
    if count == 1:
        return [work(ALONE, *given)]
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(count, _CONTEXT) as pool:
        found = [
            pool.submit(_joined, Processes(rank, count), f"{folder}/meet", work, *given)
            for rank in range(count)
        ]
        return [each.result() for each in found]


def _joined(processes: Processes, file: str, work: Callable[..., Result], *given: Any) -> Result:
    torch.set_num_threads(1)
    where = f"file://{Path(file)}"
    dist.init_process_group(
        "gloo", init_method=where, rank=processes.rank, world_size=processes.count
    )
    try:
        return work(processes, *given)
    finally:
        dist.destroy_process_group()
