"""One cell of the table of costs: the lines of ``cost.csv`` behind it, and where they come from."""

from __future__ import annotations

import io
import math

import pandas as pd

from faithdiff.audit.recorded import RecordedCell, RecordedTable
from faithdiff.audit.results import Results
from faithdiff.errors import UserError
from faithdiff.report.costs import SOURCES, cost_values, gpus_of, read_costs
from faithdiff.study.manifest import MachineWork

COSTS = "cost.csv"


def hardware_text(machine: MachineWork) -> str:
    """Everything that is known of a machine, in one line."""
    known = machine.hardware.plain() if machine.hardware is not None else {}
    return ", ".join(f"{name}: {value}" for name, value in known.items())


def is_cost(table: RecordedTable) -> bool:
    """Whether a table is made of costs, not of scores."""
    return table.scores.endswith(COSTS)


def cost_rows(results: Results, cell: RecordedCell) -> pd.DataFrame:
    """The lines behind a cell, one for each seed: what was measured, and `value` as averaged.

    Raises:
        UserError: ``cost.csv`` is missing, corrupted, or not what the table was made of.
    """
    path = f"results/{results.profile}/{COSTS}"
    content, name = results.revision.read(path), results.revision.place(path)
    if content is None:
        raise UserError(f"{name}: is missing; `faithdiff collect` writes it")
    costs = read_costs(io.BytesIO(content), name)
    own = costs[costs["method"] == cell.method]
    config = results.config
    gpus = gpus_of(config.device, config.training.processes, config.variants)
    metric = cell.metric
    shown = own[["method", "seed", "parts", *SOURCES.get(metric, [metric])]]
    rows = shown.assign(value=cost_values(own, metric, gpus))
    # As for scores: numbers that do not give the printed one are not what is behind it.
    mean = float(rows["value"].mean())
    if cell.mean is not None and not math.isclose(mean, cell.mean, rel_tol=1e-9):
        raise UserError(
            f"{results.title}: table cost says {cell.mean!r}, {COSTS} {mean!r}: it was "
            "rendered from another file; render it again with: faithdiff tables"
        )
    return rows


def cost_facts(results: Results, cell: RecordedCell, rows: pd.DataFrame) -> list[tuple[str, str]]:
    """What was trained, the file, the jobs that were measured, and the machines that ran them."""
    made, method = results.made, cell.method
    sha = made.results.get(COSTS, "not known")
    facts = [(COSTS, f"sha256 {sha}")]
    facts += [("parameters trained", str(parts)) for parts in rows["parts"].dropna().unique()]
    for seed in cell.seeds:
        job = f"{method}-seed{seed}"
        for name, cost in made.jobs.items():
            if name.endswith(f"/{job}"):
                facts.append(
                    (f"job {name}", ", ".join(f"{k} {v}" for k, v in cost.plain().items()))
                )
        owner = f"{method}/seed{seed}"
        for machine in made.machines:
            # Each restored set is a name of its own below the method, and may be of another
            # machine.
            if any(name == owner or name.startswith(f"{owner}/") for name in machine.made):
                facts.append((f"machine of {owner}", hardware_text(machine)))
    return facts
