"""Whether a machine can run a profile: what it has, what is needed, what is missing, the way out.

`faithdiff doctor` prints it on one screen; the workflow asks before the first job of a study on
GPUs, which would otherwise fail after hours of preparation, or of waiting for a card.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from faithdiff.data.fetch import RAW
from faithdiff.data.hub import Hub
from faithdiff.methods.method import Study
from faithdiff.planning.machine import Machine, unreachable
from faithdiff.planning.missing import (
    absent_from_set,
    missing_sets,
    missing_weights,
    weights_read,
)
from faithdiff.planning.resources import Sizes
from faithdiff.planning.workload import external_method, jobs_of, lack_of_gpus, most_gpus
from faithdiff.score.protocols import files_needed, weights_needed


@dataclass(frozen=True)
class Diagnosis:
    """One thing that a study needs.

    Attributes:
        part: Of the machine, or of the study.
        here: What there is.
        needed: What the profile needs of it; empty where it needs nothing.
        problems: Why a run would stop, each with the way out; empty where it would not.
        note: What a person should know, though nothing stops.
    """

    part: str
    here: str
    needed: str = ""
    problems: tuple[str, ...] = ()
    note: str = ""


def findings(study: Study, machine: Machine) -> list[Diagnosis]:
    """What a study needs of a machine, and of the files on it."""
    return [*_gpu(study, machine), *_room(study, machine), *_pieces(study)]


def screen(study: Study, found: list[Diagnosis]) -> str:
    """The findings as a table, and below it what is missing."""
    lines = [f"{study.file} on this machine", ""]
    for each in found:
        state = "MISSING" if each.problems else "note" if each.note else "ok"
        needed = f"   needed: {each.needed}" if each.needed else ""
        lines.append(f"  {state:<8} {each.part:<10} {each.here}{needed}")
    problems = [f"{each.part}: {why}" for each in found for why in each.problems]
    notes = [f"{each.part}: {each.note}" for each in found if each.note]
    if notes:
        lines += ["", "What to know:", *(f"  - {each}" for each in notes)]
    if problems:
        lines += ["", "What is missing:", *(f"  - {each}" for each in problems)]
    return "\n".join(lines) + "\n"


def _gpu(study: Study, machine: Machine) -> Iterator[Diagnosis]:
    if study.profile.device != "cuda":
        yield Diagnosis("GPU", f"{len(machine.gpus)}", "none (device: cpu)")
        return
    kinds = sorted({(gpu.name, round(gpu.gib)) for gpu in machine.gpus})
    names = ", ".join(f"{name}, {gib} GiB" for name, gib in kinds)
    here = f"{len(machine.gpus)} x {names}" if names else "none"
    lack = lack_of_gpus(study, [gpu.name for gpu in machine.gpus])
    yield Diagnosis("GPU", here, f"{most_gpus(study)}", (lack,) if lack else ())
    build = f"torch {machine.torch}, " + (f"CUDA {machine.cuda}" if machine.cuda else "no CUDA")
    yield Diagnosis(
        "torch",
        f"{build}, driver {machine.driver or 'none'}",
        "a CUDA build that the driver and the cards can run",
        tuple(_torch_problems(machine)),
    )


def _torch_problems(machine: Machine) -> Iterator[str]:
    if not machine.gpus:
        return
    if not machine.cuda:
        yield (
            f"torch {machine.torch} is a build for CPUs; install one for CUDA in this environment, "
            "by the command that pytorch.org gives for this driver"
        )
    elif not machine.works:
        yield (
            f"torch for CUDA {machine.cuda} finds no card with the driver {machine.driver}; "
            "update the driver, or install torch for an older CUDA"
        )
    for gpu in sorted({gpu for gpu in machine.gpus if not machine.runs_on(gpu)}, key=str):
        major, minor = gpu.capability or (0, 0)
        yield (
            f"{gpu.name} is sm_{major}{minor}, and this torch has kernels for "
            f"{', '.join(machine.kernels)}; install a build for a newer CUDA"
        )


def _room(study: Study, machine: Machine) -> Iterator[Diagnosis]:
    """Memory, disk and network."""
    sizes = Sizes(study.file)
    largest = max(jobs_of(study), key=lambda job: sizes.of(job.size or job.rule).mem_mb)
    wanted = sizes.of(largest.size or largest.rule).mem_mb / 1024
    yield Diagnosis(
        "memory",
        f"{machine.memory_gib:.0f} GiB",
        f"{wanted:.0f} GiB at most ({largest.rule})",
        note=f"{largest.rule} may need more than there is (config/resources.yaml)"
        if wanted > machine.memory_gib
        else "",
    )
    roots = {"weights": study.profile.score.weights, "data": RAW}
    missing = [a for a in files_needed(study.profile) if not a.is_here(roots[a.root])]
    gigabytes = sum(a.megabytes * (2 if a.unpack else 1) for a in missing) / 1000
    full = f"{gigabytes:.0f} GB to fetch do not fit into {machine.free_gb:.0f} GB; free some"
    yield Diagnosis(
        "disk",
        f"{machine.free_gb:.0f} GB free",
        f"{gigabytes:.0f} GB to fetch; `faithdiff plan` counts what a run writes",
        # A run fetches nothing: what it cannot do without is said of weights, sets and baselines.
        note=full if gigabytes > machine.free_gb else "",
    )
    hub = Hub.of_environment()
    asked = {a.name: hub.address(a.addresses[0]) for a in missing if a.addresses}
    spare = sum(each.name in asked for each in weights_needed(study.profile))
    dead = unreachable(asked.values())
    here = "not every host reached" if dead else "reached" if asked else "not needed"
    files = f"for {len(asked)} files, {spare} of them metric weights, which a run can do without"
    way_out = "fetch the files on another machine, and copy the folders"
    yield Diagnosis(
        "network",
        here,
        files if asked else "",
        note=f"no connection to {', '.join(dead)}; {way_out}" if dead else "",
    )


def _pieces(study: Study) -> Iterator[Diagnosis]:
    """Weights, sets and baselines without which a job would stop."""
    profile = study.profile
    weights, gone = weights_read(profile), missing_weights(study)
    yield Diagnosis("weights", f"{len(weights) - len(gone)} of {len(weights)}", problems=(*gone,))
    used, lacking = profile.used_datasets, missing_sets(study)
    # A folder that holds files may still be one of which no set can be made.
    lacking |= {
        name: [f"{name}: {why}"]
        for name in used
        if name not in lacking and (why := absent_from_set(name, study))
    }
    problems = tuple(why for reasons in lacking.values() for why in reasons)
    yield Diagnosis("sets", f"{len(used) - len(lacking)} of {len(used)}", problems=problems)
    stops: list[str] = []
    without: list[str] = []
    for name in profile.baselines:
        if (method := external_method(study, name)) is not None:
            # The workflow prepares by itself.
            needs = [need for need in method.needs(study) if need not in method.unprepared(study)]
            needed = stops if method.stops_without_needs else without
            needed += [f"{name}: {need}" for need in needs]
    note = f"{'; '.join(without)}; until then its rows say `failed`" if without else ""
    yield Diagnosis("baselines", f"{len(profile.baselines)}", problems=(*stops,), note=note)
