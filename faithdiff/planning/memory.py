"""Memory that a training takes on the GPU of one process, for each way to share it out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from faithdiff.config import Training
from faithdiff.train.cost import PhaseCost

GIB = 2**30
Way = Literal["copies", "shard_optimiser", "shard_model"]
WAYS: tuple[Way, ...] = ("copies", "shard_optimiser", "shard_model")
ACTIVATIONS = "activations of a micro-batch, estimated"


def way_of(training: Training) -> Way:
    """How a profile shares out its training."""
    if training.processes == 1:
        return "copies"
    if training.shard_model:
        return "shard_model"
    return "shard_optimiser" if training.shard_optimiser else "copies"


def memory(cost: PhaseCost, training: Training, way: Way | None = None) -> dict[str, float]:
    """Bytes on the device of one process, part by part.

    Args:
        way: That of the profile where it is None.
    """
    way = way or way_of(training)
    share = training.processes if way == "shard_model" else 1
    moments = 1 if way == "copies" else training.processes
    parts = {
        "weights, 4 B x parameters": 4.0 * cost.parameters / share,
        "gradients, 4 B x trained": 4.0 * cost.trained / share,
        "AdamW, 8 B x trained": 8.0 * cost.trained / moments,
    }
    if training.weights == "ema":
        parts["averaged weights, 4 B x parameters"] = 4.0 * cost.parameters / share
    # The float32 weights stay beside them: AdamW's small updates would be lost in 16 bits.
    if training.precision != "fp32":
        # Of shards only the gathered blocks have such copies, unless autograd keeps them all.
        few = way == "shard_model" and training.gradient_checkpointing
        copied = cost.gathered if few else cost.parameters
        parts[f"weights in {training.precision}, 2 B x parameters"] = 2.0 * copied
    if way == "shard_model":
        parts["blocks gathered for a pass, with their gradients"] = 8.0 * cost.gathered
    parts[ACTIVATIONS] = cost.activations
    return parts


def memory_lines(name: str, cost: PhaseCost, training: Training) -> Iterator[str]:
    """The table of a training, with a column for each way that it could take."""
    own = way_of(training)
    ways = WAYS if training.processes > 1 else (own,)
    found = {way: memory(cost, training, way) for way in ways}
    yield f"\n## Memory per process, of the largest training ({name})\n"
    if len(ways) == 1:
        yield "| part | GiB |\n|---|--:|"
    else:
        heads = [f"{way}{' (this profile)' if way == own else ''}" for way in ways]
        yield f"| part, GiB | {' | '.join(heads)} |\n|---|{'--:|' * len(ways)}"
    for part in found[ways[-1]]:  # which has what the others have, and the gathered blocks
        sizes = [f"{p[part] / GIB:.3g}" if part in p else "" for p in found.values()]
        yield f"| {part} | {' | '.join(sizes)} |"
    totals = [f"**{sum(parts.values()) / GIB:.3g}**" for parts in found.values()]
    yield f"| **together** | {' | '.join(totals)} |"
    if training.processes > 1:
        shared = zero2(cost, training.processes) + cost.activations
        yield (
            f"\nOver {training.processes} processes: `shard_optimiser` divides AdamW among them, "
            "`shard_model` (FSDP2) also weights, gradients and average, and gathers the weights of "
            "a block for each pass. For comparison, the released code's ZeRO-2: 2 B x parameters + "
            f"(2 + 4 + 8) B x trained / processes + activations = {shared / GIB:.3g} GiB."
        )


def zero2(cost: PhaseCost, processes: int) -> float:
    """Bytes of weights, gradients and optimiser where DeepSpeed shards the last two (ZeRO-2)."""
    return 2.0 * cost.parameters + 14.0 * cost.trained / processes
