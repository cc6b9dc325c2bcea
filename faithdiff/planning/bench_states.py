"""How fast two processes save the state of a training: each its part, or one of them all of it.

The second way is what `torch.save` needs where the optimiser is sharded: its moments travel to the
first process, which alone writes.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.multiprocessing.spawn import spawn

from faithdiff.config import Optimiser
from faithdiff.train.engine import Engine, Trained
from faithdiff.train.processes import Processes
from faithdiff.train.state import Contents, State

PROCESSES = 2
MEGABYTES = 200  # of weights and two moments
SAVES = 2  # of which the fastest counts
OPTIMISER = Optimiser(
    betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, max_grad_norm=1.0, warmup=1, hold=1.0
)


def rates(megabytes: int = MEGABYTES) -> Iterator[tuple[str, float, str]]:
    """What is saved, how fast, and the unit."""
    with tempfile.TemporaryDirectory(prefix="faithdiff-bench-states-") as folder:
        root = Path(folder)
        spawn(_process, (root, megabytes), nprocs=PROCESSES)
        for way in ("through one", "each its part"):
            seconds = float((root / way).read_text(encoding="utf-8"))
            what = f"state of {megabytes} MB, {PROCESSES} processes, {way}"
            yield what, megabytes / seconds, "MB/s"


def _process(rank: int, folder: Path, megabytes: int) -> None:
    torch.set_num_threads(1)
    processes = Processes(rank, PROCESSES)
    meeting = f"file://{folder / 'meeting'}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=PROCESSES)
    width = 512  # of a layer: 1 MB of float32, as many of a UNet's tensors
    layers = max(1, round(megabytes * 1e6 / (3 * 4 * width**2)))
    model = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(layers)))
    groups = [Trained.whole(model, 1e-3)]
    engine = Engine(model, groups, OPTIMISER, "fp32", processes, shard_optimiser=True)
    for parameter in model.parameters():  # the moments exist from the first update on
        parameter.grad = torch.ones_like(parameter)
    engine.update(1.0)
    state = State(folder / "state.pt", "", Contents(model, None, engine, [], []), processes)
    steps = iter(range(SAVES))
    ways = {
        "through one": lambda: _through_one(model, engine.optimiser, rank, folder / "whole.pt"),
        "each its part": lambda: state.save(next(steps)),
    }
    for way, save in ways.items():
        seconds = []
        for _ in range(SAVES):
            dist.barrier()
            begun = time.perf_counter()
            save()
            dist.barrier()
            seconds.append(time.perf_counter() - begun)
        if processes.first:
            (folder / way).write_text(str(min(seconds)), encoding="utf-8")
    dist.destroy_process_group()


def _through_one(model: nn.Module, optimiser: torch.optim.Optimizer, rank: int, file: Path) -> None:
    assert isinstance(optimiser, ZeroRedundancyOptimizer)
    optimiser.consolidate_state_dict(to=0)
    if rank == 0:
        with file.open("wb") as stream:
            torch.save([model.state_dict(), optimiser.state_dict()], stream)
            os.fsync(stream.fileno())  # as the parts are
