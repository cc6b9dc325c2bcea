"""A model in shards over the processes of a training (FSDP2), and whole again after it.

Each process keeps a share of every weight, of its gradient, moments and average. The weights of a
block are gathered when a pass comes to it, and given up after it; its gradients are summed and
dealt out as soon as they are there, once for each micro-batch.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor, nn

from faithdiff.train.engine import Trained
from faithdiff.train.processes import Processes

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

BLOCK = 2**26  # numbers that a block has at most: 256 MiB of float32, a few blocks of SDXL's levels
SMALL = 2**6  # times smaller than that: not worth a message of its own


def shard(entries: Iterable[nn.Module], processes: Processes, device: torch.device) -> None:
    """Let each process keep its shard of all weights of some modules, in place.

    Args:
        entries: Modules that are called by themselves; none is a part of another.
    """
    # Here, as their import takes a second and a plan only counts blocks.
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (processes.count,))
    for entry in entries:
        # Blocks first: what is sharded already stays out of the rest, which the entry gathers.
        for module in (*blocks(entry), entry):
            # After a forward pass, too: a frozen encoder has no backward pass that would do it.
            sharded = fully_shard(module, mesh=mesh, reshard_after_forward=True)
            # Summed and not averaged: the loss is divided by the micro-batches of all processes.
            sharded.set_gradient_divide_factor(1.0)
            sharded.set_force_sum_reduction_for_comms(True)  # gloo cannot scale as it sums


def blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The largest parts of a module that are small enough to be gathered whole."""
    for part in module.children():
        size = numbers(part)
        if isinstance(part, nn.MultiheadAttention):
            # It reads the weights of its last layer without calling it. So it stays whole.
            if size * SMALL >= BLOCK:
                yield part
        # A list of modules is never called, so nothing would gather it.
        elif size > BLOCK or isinstance(part, (nn.ModuleList, nn.ModuleDict)):
            yield from blocks(part)
        elif size * SMALL >= BLOCK:
            yield part


def gathered(module: nn.Module) -> int:
    """Parameters of a sharded module that a process holds whole at once, at most."""
    sizes = [numbers(block) for block in blocks(module)]
    # The block that is computed, the next one, which is fetched meanwhile, and what is in none.
    return numbers(module) - sum(sizes) + sum(sorted(sizes)[-2:])


def numbers(module: nn.Module) -> int:
    """How many numbers the parameters of a module have."""
    return sum(parameter.numel() for parameter in module.parameters())


def regroup(
    groups: Iterable[Trained], before: dict[Tensor, str], model: nn.Module
) -> list[Trained]:
    """The same groups of the parameters that sharding put in the place of others.

    Args:
        before: Names of the parameters that the groups hold.
    """
    now = dict(model.named_parameters())
    return [
        Trained([now[before[parameter]] for parameter in group.parameters], group.learning_rate)
        for group in groups
    ]


def skeleton(model: nn.Module) -> nn.Module:
    """A copy of a model, hooks and all, whose weights take no memory."""
    # FSDP2 cannot be taken off a module again: it changes its class, and refuses to be copied.
    saved = {id(tensor) for tensor in model.state_dict(keep_vars=True).values()}
    memo: dict[int, Tensor] = {}
    for tensor in chain(model.parameters(), model.buffers()):
        if id(tensor) in saved:  # a buffer that no state holds is copied as it is
            empty = tensor.detach().to("meta")
            if isinstance(tensor, nn.Parameter):
                empty = nn.Parameter(empty, tensor.requires_grad)
            memo[id(tensor)] = empty
    return copy.deepcopy(model, memo)


def whole(frame: nn.Module, sharded: nn.Module) -> nn.Module:
    """Gather a sharded model into its skeleton, on the CPU; all processes call this."""
    # A tensor at a time: no GPU holds more than one of them whole.
    tensors: dict[str, Tensor] = {}
    for name, tensor in sharded.state_dict().items():
        full = tensor.full_tensor() if is_shard(tensor) else tensor
        tensors[name] = full.cpu()
    frame.load_state_dict(tensors, assign=True)
    return frame


def fill(target: Tensor, source: Tensor) -> None:
    """Copy a whole tensor into one of its shape, or into the shard of it that is kept here."""
    if not is_shard(target):
        target.copy_(source)
        return
    from torch.distributed.tensor import distribute_tensor

    # Each process has the whole at hand: none needs to send another its shard.
    mesh, placements = target.device_mesh, target.placements
    shards = distribute_tensor(source.to(target.device), mesh, placements, src_data_rank=None)
    target.to_local().copy_(shards.to_local())


def is_shard(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether a tensor is spread over the processes."""
    return hasattr(tensor, "placements")  # asked so that nobody imports what he has no use for
