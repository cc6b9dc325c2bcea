"""Draws batches ahead of the loop, in background threads, so that a GPU does not wait for them.

Batches are keyed by update and micro-batch: drawn early, late or twice, they are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from faithdiff.train.cache import Batch
from faithdiff.train.processes import Processes

Key = tuple[int, int]  # update, micro-batch
THREADS = 2


class Prefetcher:
    """Callable in place of a function that draws; answers from what was drawn before."""

    def __init__(
        self,
        draw: Callable[[int, int], Batch],
        micro_batches: int,
        processes: Processes,
        depth: int,
        device: torch.device,
    ) -> None:
        """Prepare.

        Args:
            draw: Gives the batch of (update, micro-batch) in the memory of the CPU.
            depth: Batches to hold ready.
        """
        self._draw = draw
        self._mine = processes.mine(micro_batches)
        self._depth = depth
        self._device = device
        self._ready: dict[Key, Future[Batch]] = {}
        # Threads and not the worker processes of a DataLoader: torch and numpy release the lock of
        # the interpreter in what is slow here, workers forked beside CUDA and NCCL are a known
        # hazard, and a batch is asked for by its key, which a resumed training may begin anywhere.
        self._pool = ThreadPoolExecutor(THREADS, "batches")

    def __call__(self, step: int, micro: int) -> Batch:
        """The batch of a key on the device; those after it begin to be drawn."""
        key = (step, micro)
        coming = [key]
        while len(coming) <= self._depth:
            coming.append(self._next(coming[-1]))
        # A jump, such as a resumed training, leaves nothing behind.
        self._ready = {known: self._ready[known] for known in coming if known in self._ready}
        for known in coming:
            if known not in self._ready:
                self._ready[known] = self._pool.submit(self._prepare, *known)
        return self._ready.pop(key).result().to(self._device)

    def _next(self, key: Key) -> Key:
        step, micro = key[0], key[1] + self._mine.step
        return (step, micro) if micro in self._mine else (step + 1, self._mine.start)

    def _prepare(self, step: int, micro: int) -> Batch:
        batch = self._draw(step, micro)
        return batch.pinned() if self._device.type == "cuda" else batch
