"""How long a study takes on more or fewer cores, by the seconds of its jobs in the last run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from faithdiff.methods.method import Study
from faithdiff.planning.running import last_seconds
from faithdiff.planning.workload import PlannedJob, critical_path, wall_hours

CORES = (1, 2, 4, 8)
# Benchmarks name by what is done: several rules restore, and two degrade.
TIMED_AS = {
    "restore_baseline": "restore",
    "restore_denoiser": "restore",
    "degrade_train": "degrade",
    "take_real": "degrade",
}


def timed_name(job: PlannedJob) -> str:
    """The ``rule/name`` by which benchmarks and manifests know a job."""
    one_of_its_kind = {"degrade_train": "train", "cache_latents": "train", "train_prior": "prior"}
    name, _, seed = (job.name or one_of_its_kind.get(job.rule, "study")).partition(" ")
    return f"{TIMED_AS.get(job.rule, job.rule)}/{name}{f'-seed{seed}' if seed else ''}"


def wall_seconds(jobs: list[PlannedJob], seconds: Mapping[str, float], cores: int) -> float:
    """Seconds until the last job ends, where each takes a core; those never timed take none."""
    # As Snakemake's scheduler: what fits starts, the job with the longest chain behind it first.
    on_cores = [replace(job, gpus=1) for job in jobs]
    return wall_hours(on_cores, lambda job: seconds.get(timed_name(job), 0.0), cores)


def cores_lines(study: Study, jobs: list[PlannedJob]) -> Iterator[str]:
    """A section of a plan; nothing where no job was ever timed, or GPUs do the work."""
    seconds = last_seconds(study.layout)
    timed = [job for job in jobs if timed_name(job) in seconds]
    if not timed or study.profile.device != "cpu":
        return
    total = sum(seconds[timed_name(job)] for job in timed)
    chain = critical_path(jobs, lambda job: seconds.get(timed_name(job), 0.0))
    yield (
        f"\n## Time on cores\n\nIn the last run {len(timed)} jobs took {total:,.0f} seconds, those "
        f"on the critical path {chain:,.0f}. No schedule is shorter than that, or than all "
        "seconds divided by the cores.\n"
    )
    yield "| cores | minutes | at least | ratio |\n|--:|--:|--:|--:|"
    for cores in CORES:
        takes, least = wall_seconds(jobs, seconds, cores), max(chain, total / cores)
        yield f"| {cores} | {takes / 60:.1f} | {least / 60:.1f} | {takes / least:.2f} |"
