"""The processes of one training, as `accelerate launch` starts them: one for each device.

The micro-batches of an update are numbered over all processes, and process r of n takes those
with ``number % n == r``. Every micro-batch is keyed by its number, so the data of an update do not
depend on n, and neither does the sum of its gradients but for rounding. Gradients are added once
per update, after its last micro-batch. DistributedDataParallel would add them at every backward
pass, and wants one forward call; here a loss calls the parts of a model as it likes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from faithdiff.errors import ConfigError

BUCKET = 2**26  # numbers that one message holds: 256 MiB of float32
PATIENCE = timedelta(minutes=30)  # for another process: rank 0 may be writing a large state

Said = TypeVar("Said")  # anything that pickle can send


@dataclass(frozen=True)
class Processes:
    """This process among those of its training."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def mine(self, micro_batches: int) -> range:
        """The micro-batches of an update that this process computes."""
        return range(self.rank, micro_batches, self.count)

    def share(self, model: nn.Module) -> None:
        """Give every process the parameters and buffers of the first."""
        # Parameters and buffers both: DistributedDataParallel would do this when it wraps a model.
        if self.count > 1:
            for tensor in model.state_dict().values():
                dist.broadcast(tensor, 0)

    def add(self, numbers: list[float], device: torch.device) -> list[float]:
        """Sums of numbers over the processes."""
        if self.count == 1:
            return numbers
        # Float64: the log's losses differ from those of one process by less than anyone prints.
        sums = torch.tensor(numbers, dtype=torch.float64, device=device)
        dist.all_reduce(sums)
        return [float(number) for number in sums]

    def add_gradients(self, parameters: list[nn.Parameter]) -> None:
        """Sum gradients over the processes; a parameter without one in all of them keeps none."""
        if self.count == 1:
            return
        # Processes may differ in which parameters took part, and an all-reduce that one of them
        # skips hangs all others: so they agree on the list first.
        has = torch.tensor([p.grad is not None for p in parameters], device=parameters[0].device)
        dist.all_reduce(any_has := has.to(torch.int32), dist.ReduceOp.MAX)
        trained = [p for p, some in zip(parameters, any_has.tolist(), strict=True) if some]
        for parameter in trained:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        # In buckets: thousands of small messages would each pay the latency, and one message of 10
        # GB would need as much memory again.
        for bucket in _buckets(trained):
            gradients = [p.grad for p in bucket if p.grad is not None]
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            dist.all_reduce(flat)
            for gradient, summed in zip(
                gradients, flat.split([g.numel() for g in gradients]), strict=True
            ):
                gradient.copy_(summed.view_as(gradient))

    def all_say(self, own: Said) -> list[Said]:
        """What each process says, in all of them, by rank."""
        if self.count == 1:
            return [own]
        said: list[Said] = [own] * self.count
        dist.all_gather_object(said, own)
        return said

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.count > 1:
            dist.barrier()


ALONE = Processes()


def join(device: str) -> tuple[Processes, torch.device]:
    """Join the processes that a launcher started, if one did; returns the device of this one."""
    if not dist.is_torchelastic_launched():
        return ALONE, torch.device(device)
    from accelerate import DistributedType, PartialState

    state = PartialState(cpu=device == "cpu", timeout=PATIENCE)
    if state.distributed_type not in (DistributedType.MULTI_GPU, DistributedType.MULTI_CPU):
        raise ConfigError(
            f"accelerate was told to use {state.distributed_type.value}: this training sums its "
            "gradients itself and wants MULTI_GPU; to keep less of the optimiser in each process, "
            "set training.shard_optimiser to true"
        )
    # accelerate numbers CPUs, too; a model on "cpu" would not find itself on "cpu:0".
    own = torch.device("cpu") if state.device.type == "cpu" else state.device
    return Processes(state.process_index, state.num_processes), own


def launched_first() -> bool:
    """Whether this process is the only one, or the first of those that a launcher started."""
    return not dist.is_torchelastic_launched() or int(os.environ["RANK"]) == 0


def _buckets(parameters: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Consecutive parameters of one dtype, up to `BUCKET` numbers together."""
    bucket: list[nn.Parameter] = []
    for parameter in parameters:
        full = sum(p.numel() for p in bucket) + parameter.numel() > BUCKET
        if bucket and (full or parameter.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket


def total_bytes(tensors: Iterable[Tensor]) -> int:
    """Memory of tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
