"""A training of a second, to be killed, resumed and spread over processes."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal
from unittest.mock import patch

import torch
from torch import Tensor, nn

from faithdiff.config import Optimiser
from faithdiff.study import seeds
from faithdiff.train import sharding
from faithdiff.train.engine import Trained
from faithdiff.train.loop import Job, train
from faithdiff.train.processes import Processes
from shared.gloo import together

OPTIMISER = Optimiser(
    betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, max_grad_norm=0.5, warmup=2, hold=0.5
)
Weights = dict[str, Tensor]
Outcome = tuple[Weights, Weights, list[float], list[int]]  # raw, averaged, losses, updates done


class Killed(Exception):  # noqa: N818 - no error
    """Stands for a signal that nobody catches."""


def toy_loss(model: nn.Module, step: int, micro: int) -> Tensor:
    inputs = torch.randn(4, 3, generator=seeds.torch_generator(0, "toy", step, micro))
    return (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()


# Two layers of the network are blocks, the last belongs to the rest.
@patch.object(sharding, "BLOCK", 4000)
def toy(
    processes: Processes,
    state: Path | None,
    kill: int = -1,
    sharded: bool = False,
    precision: Literal["fp32", "bf16", "fp16"] = "fp32",
) -> Outcome:
    """Nine updates of a small network, one layer of it frozen, with a state after each third.

    Args:
        kill: The update that ends it.
        sharded: Its weights too, and not its optimiser alone.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 40), nn.SiLU(), nn.Linear(40, 40), nn.Linear(40, 1))
    model[2].requires_grad_(False)
    done: list[int] = []

    def loss(step: int, micro: int) -> Tensor:
        if step == kill:
            raise Killed
        done.append(step)
        return toy_loss(model, step, micro)

    trained = [p for p in model.parameters() if p.requires_grad]
    job = Job(
        name="toy", model=model, groups=[Trained(trained, 0.01)], loss=loss, steps=9,
        optimiser=OPTIMISER, micro_batches=4, ema_decay=0.9, precision=precision,
        processes=processes, shard_optimiser=True, sharded=("",) if sharded else (),
        state=state, identity="toy", log_every=1, checkpoint_every=3,
    )  # fmt: skip
    averaged = train(job)
    assert averaged is not None
    losses = [row["loss"] for row in job.log]
    return job.model.state_dict(), averaged.state_dict(), losses, sorted(set(done))


@cache
def uninterrupted(count: int, sharded: bool = False, precision: str = "fp32") -> Outcome:
    return together(count, toy, None, -1, sharded, precision)[0]


def same(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def close(one: Weights, other: Weights) -> bool:
    return all(torch.allclose(one[k], other[k], rtol=1e-4, atol=1e-6) for k in one)
