"""What a training cost: parameters, updates and seconds, with the pre-stages apart."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from torch import nn

from faithdiff.study.records import Cost
from faithdiff.train.log import LogRow


def measure(
    parts: Mapping[str, nn.Module],
    networks: Iterable[nn.Module],
    log: Iterable[LogRow],
    pre: Collection[str] = (),
) -> Cost:
    """Count parameters; read updates and seconds from the rows of ``training.csv``.

    Args:
        parts: What was trained, by name.
        networks: All that restoring needs; none may hold another.
        log: Rows of all phases, resumed ones with the seconds before the interruption.
        pre: Phases that are pre-stages.
    """
    last = {row["phase"]: row for row in log}  # a later row of a phase takes the earlier's place
    early = [row for phase, row in last.items() if phase in pre]
    late = [row for phase, row in last.items() if phase not in pre]
    return Cost(
        {name: parameters(module) for name, module in parts.items()},
        sum(map(parameters, networks)),
        sum(row["step"] + 1 for row in early),
        round(sum(row["seconds"] for row in early), 3),
        sum(row["step"] + 1 for row in late),
        round(sum(row["seconds"] for row in late), 3),
    )


def parameters(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())
