"""What a profile will do, before anything starts: images, jobs, memory, disk, download and hours.

Costs of trainings are counted (:mod:`faithdiff.train.cost`); hours divide them by the rate of this
machine's processor or GPU, measured by a matrix product, or by a rate that the caller names. Costs
of degradation, restoration and scoring are not counted: `faithdiff bench` measures those.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from faithdiff.config import Dataset, Group, Stage1
from faithdiff.data.artifacts import Artifact, gigabytes, lacking, quick_state
from faithdiff.data.fetch import RAW
from faithdiff.errors import UserError
from faithdiff.methods.method import Study
from faithdiff.planning.captions import captions_lines
from faithdiff.planning.checks import check_study
from faithdiff.planning.disk import download, encoded_set, images_in
from faithdiff.planning.memory import GIB, memory, memory_lines
from faithdiff.planning.missing import not_there
from faithdiff.planning.resources import Sizes
from faithdiff.planning.wall_time import cores_lines
from faithdiff.planning.workload import PlannedJob, counts, critical_path, jobs_of, wall_hours
from faithdiff.score.protocols import files_needed
from faithdiff.study.rules import BY_NAME
from faithdiff.train.cost import Costs, PhaseCost

GB = 1e9
# The card that the paper names, for a profile on GPUs where none is here: its data sheet's dense
# products in float32 and in 16 bits.
ABSENT = "A800, as published (this machine has no GPU)"
ABSENT_PEAK = {"fp32": 19.5e12, "bf16": 312e12, "fp16": 312e12}
UTILISATION = 0.4
# Large enough that the product, not its start, takes the time.
SIDE = 4096  # of the matrices that measure a GPU; a processor gets smaller ones


@dataclass(frozen=True)
class Run:
    """One optimisation of the study, over all repetitions."""

    name: str
    groups: tuple[Group, ...]
    updates: int
    repetitions: int
    cost: PhaseCost


class Plan:
    """The figures of a profile."""

    def __init__(
        self, study: Study, tflops: float | None, utilisation: float, gpus: int | None = None
    ) -> None:
        self.study = study
        self.profile = study.profile
        self.costs = Costs(study.profile)
        self.peak = self._peak(tflops)
        self.utilisation = utilisation
        self.gpus = gpus
        self.sizes = Sizes(study.file)
        self.jobs = jobs_of(study)

    def lines(self) -> Iterator[str]:
        """The page, line by line."""
        profile = self.profile
        yield f"# Plan of {self.study.file}\n"
        yield from self._images()
        yield from captions_lines(profile)
        yield from self._runs()
        yield from self._memory()
        yield from self._disk()
        yield from cores_lines(self.study, self.jobs)
        yield from self._cluster()
        yield from self._download()
        uncounted = ", ".join([*self._uncounted(), "degradation", "restoration", "scoring"])
        yield (
            f"\nNot counted: {uncounted}; "
            f"`faithdiff bench --config {self.study.file}` measures what can run here."
        )
        if self.runs and profile.training.processes > 1:
            yield f"Trainings start {profile.training.processes} processes by `accelerate launch`."
        if lacking := not_there(self.study):
            yield "\n## Not there yet\n"
            yield from (f"- {each}" for each in lacking)

    def _uncounted(self) -> list[str]:
        names = [n for n, b in self.profile.baselines.items() if b.trained]
        return names + (["the prior"] if self.profile.prior.source == "train" else [])

    # --- Data -------------------------------------------------------------------------------

    def _images(self) -> Iterator[str]:
        data = self.profile.data
        yield "## Images\n\n| set | images | versions |\n|---|--:|---|"
        sets: dict[str, tuple[Dataset, list[str]]] = {}
        if self.profile.learns:
            sets["train"] = (data.train, [data.train_level])
        sets |= {name: (test, data.levels_of(name)) for name, test in data.test.items()}
        if self.profile.prior.source == "train":
            sets["prior"] = (self.profile.prior.training.data, [])
        for name, (dataset, levels) in sets.items():
            found = images_in(dataset)
            count = "not there yet" if found is None or found.expected else str(found.crops)
            yield f"| {name} | {count} | {' '.join(levels)} |"

    # --- Trainings --------------------------------------------------------------------------

    @cached_property
    def runs(self) -> list[Run]:
        """Every stage 1 and every phase of every variant."""
        profile, training = self.profile, self.profile.training
        runs: list[Run] = []

        def add(
            name: str, recipe: Stage1, groups: list[Group], updates: int, objective: str
        ) -> None:
            cost = self.costs.phase(recipe, groups, objective)
            runs.append(Run(name, tuple(groups), updates, len(profile.seeds), cost))

        for name in [name for name in profile.recipes if name in profile.pretrained]:
            only: list[Group] = ["alignment"]
            add(f"stage 1 {name}", profile.recipes[name], only, training.stage1_steps, "denoising")
        for name, variant in profile.variants.items():
            if variant.weights is not None:
                continue
            recipe, updates = profile.recipes[variant.recipe], profile.phase_updates(name)
            for phase, count in zip(variant.phases, updates, strict=True):
                add(name, recipe, phase.train, count, phase.objective)
        return runs

    def hours(self, run: Run) -> float:
        """Hours of one repetition at the assumed rate, over all processes."""
        training = self.profile.training
        # What checkpointing computes a second time takes time, too.
        work = (run.cost.flops + run.cost.recomputed) * training.batch_size * run.updates
        return work / (self.peak[1] * self.utilisation * training.processes) / 3600

    def _runs(self) -> Iterator[str]:
        training = self.profile.training
        if not self.runs:
            yield "\n## Trainings\n\nNone is counted."
            return
        shape = (
            f"{training.batch_size} images per update = micro_batch {training.micro_batch} x "
            f"accumulation {training.micro_batches // training.processes} x processes "
            f"{training.processes}, {training.crop} px, {training.precision}"
        )
        yield f"\n## Trainings\n\n{shape}.\n"
        yield (
            "| training | trains | parameters trained | updates | images seen "
            "| TFLOP per update | recomputed | hours | repetitions |"
        )
        yield "|---|---|--:|--:|--:|--:|--:|--:|--:|"
        for run in self.runs:
            update, again = (
                f"{flops * training.batch_size / 1e12:.4g}"
                for flops in (run.cost.flops, run.cost.recomputed)
            )
            yield (
                f"| {run.name} | {' '.join(run.groups)} | {run.cost.trained:,} | {run.updates:,} "
                f"| {run.updates * training.batch_size:,} | {update} | {again} "
                f"| {self.hours(run):.3g} | {run.repetitions} |"
            )
        total = sum(self.hours(run) * run.repetitions for run in self.runs)
        name, peak = self.peak
        yield (
            f"\nTogether {total:.3g} hours on {training.processes} x {name}: {peak / 1e12:.3g} "
            f"TFLOP/s at an assumed utilisation of {self.utilisation:.0%} (--tflops, "
            "--utilisation). Forward operations are counted, a backward pass is taken as one or two"
            " forward passes."
        )

    def _peak(self, tflops: float | None) -> tuple[str, float]:
        if tflops is not None:
            return "a device as named", tflops * 1e12
        if self.profile.device == "cuda" and not torch.cuda.is_available():
            return ABSENT, ABSENT_PEAK[self.profile.training.precision]
        # Measured in the precision of the passes: a card's rates differ by ten times and more.
        low = self.profile.device == "cuda" and self.profile.training.precision != "fp32"
        return _measure(self.profile.device, torch.bfloat16 if low else torch.float32)

    # --- Memory, disk, download -------------------------------------------------------------

    def _memory(self) -> Iterator[str]:
        training = self.profile.training
        # The largest training decides which card the study needs.
        run = max(self.runs, key=lambda run: sum(memory(run.cost, training).values()), default=None)
        if run is None:
            return
        total = sum(memory(run.cost, training).values())
        yield from memory_lines(run.name, run.cost, training)
        if torch.cuda.is_available() and self.profile.device == "cuda":
            size = torch.cuda.get_device_properties(0).total_memory
            if total > size:
                yield (
                    f"\nThe GPU has {size / GIB:.3g} GiB: too little. gradient_checkpointing: true "
                    "and precision: bf16 lower the activations, and shard_model: true over "
                    "several GPUs all else; so does a smaller micro_batch, "
                    "which `attention: released` makes a setting of the method."
                )

    def _disk(self) -> Iterator[str]:
        profile = self.profile
        first = [run for run in self.runs if run.name not in profile.variants]
        aligned = sum(4.0 * run.cost.trained * run.repetitions for run in first)
        phases = self._states
        yield "\n## Disk\n\n| what | GB |\n|---|--:|"
        yield f"| checkpoints of {len(profile.variants)} variants | {self._checkpoints / GB:.3g} |"
        if not self.runs:
            yield from self._restored()
            return
        yield f"| stage 1 | {aligned / GB:.3g} |"
        yield (
            f"| states of one running training, {phases - 1} and one being written "
            f"| {phases * self._state / GB:.3g} |"
        )
        yield f"| encoded training set | {encoded_set(profile, self.costs.prior)} |"
        yield from self._restored()

    def _restored(self) -> Iterator[str]:
        profile = self.profile
        tests = {name: images_in(test) for name, test in profile.data.test.items()}
        here = {name: found.crops for name, found in tests.items() if found and not found.expected}
        known = sum(here.get(name, 0) for name, _ in profile.data.places)
        restored = known * len(profile.methods) * len(profile.seeds)
        unknown = " and those of sets that are not there yet" if len(here) < len(tests) else ""
        yield f"| restored images: {restored:,}{unknown} | not counted |"

    @cached_property
    def _checkpoints(self) -> float:
        """Bytes of the trained or imported weights of all variants."""
        profile = self.profile
        total = 0.0
        for variant in profile.variants.values():
            phase = variant.phases[-1]
            cost = self.costs.phase(profile.recipes[variant.recipe], phase.train, phase.objective)
            total += 4.0 * cost.parameters * len(profile.seeds)
        return total

    @property
    def _state(self) -> float:
        """Bytes of the largest resumable state."""
        # Raw weights go on being trained, so both are kept where the averaged ones are the result.
        copies = 2 if self.profile.training.weights == "ema" else 1
        sizes = (4.0 * copies * r.cost.parameters + 8.0 * r.cost.trained for r in self.runs)
        return max(sizes, default=0.0)

    @property
    def _states(self) -> int:
        """States that a running training keeps at most, the one being written included."""
        return 1 + max((len(v.phases) for v in self.profile.variants.values()), default=1)

    # --- A cluster --------------------------------------------------------------------------

    def _cluster(self) -> Iterator[str]:
        on_gpus = sum(job.gpus > 0 for job in self.jobs)
        yield f"\n## Jobs\n\n{len(self.jobs)} jobs, {on_gpus} of them on GPUs.\n"
        yield "| rule | jobs | what one does |\n|---|--:|---|"
        for rule, number in counts(self.jobs).items():
            yield f"| {rule} | {number} | {BY_NAME[rule].purpose} |"
        yield f"\n`snakemake -n --config profile={self.study.file.stem}` lists those that are left."
        if self.gpus is None:
            return
        if on_gpus == 0:
            raise UserError(
                f"--gpus {self.gpus}: {self.study.file}: device is cpu, no job needs one"
            )
        gpus = self.gpus
        # Two answers: what trainings cost by their operations, and what a queue may be asked for.
        asked = sum(job.gpus * self._asked(job) for job in self.jobs)
        most = wall_hours(self.jobs, self._asked, gpus)
        yield f"\n### On a cluster of {gpus} GPUs\n\n| | |\n|---|--:|"
        if self.runs:
            trained = sum(job.gpus * self._trained(job) for job in self.jobs)
            takes = wall_hours(self.jobs, self._trained, gpus)
            chain = critical_path(self.jobs, self._trained)
            yield f"| GPU-hours of the trainings counted above | {trained:,.0f} |"
            yield f"| these trainings alone, started as GPUs become free | {takes:,.0f} hours |"
            yield f"| their critical path, which more GPUs cannot shorten | {chain:,.0f} hours |"
        yield f"| GPU-hours that all jobs request (config/resources.yaml) | {asked:,.0f} |"
        yield f"| all jobs, if each takes all the time that it requests | {most:,.0f} hours |"
        # Each running training keeps states, so the disk grows with the cluster.
        at_once = max(1, gpus // self.profile.training.processes) if self.runs else 0
        states = at_once * self._states * self._state
        yield (
            f"| disk: checkpoints, and the states of {at_once} trainings at once "
            f"| {(self._checkpoints + states) / GB:,.0f} GB |"
        )
        yield (
            "\nThe hours of trainings do not include what is not counted. All numbers assume that "
            "no job is repeated and none waits for other users of the cluster."
        )

    def _trained(self, job: PlannedJob) -> float:
        """Hours of a training that is counted; no time for any other job."""
        name = job.name.split(" ")[0]
        run = {"pretrain_alignment": f"stage 1 {name}", "train_variant": name}.get(job.rule)
        return sum(self.hours(found) for found in self.runs if found.name == run)

    def _asked(self, job: PlannedJob) -> float:
        """Hours that a job asks the queue for, at its first attempt."""
        return self.sizes.of(job.size or job.rule).runtime / 60

    def _download(self) -> Iterator[str]:
        artifacts = files_needed(self.profile)
        roots = {"weights": self.profile.score.weights, "data": RAW}
        found = download(self.profile)
        missing = [a for a in found.fetched if not a.is_here(roots[a.root])]
        more = f" and {len(found.unlisted)} of unknown size" if found.unlisted else ""
        yield (
            f"\n## Download\n\n{len(found.fetched)} files of config/artifacts.yaml, "
            f"{found.gigabytes:,.1f} GB{more}; {len(missing)} of them are not here yet, "
            f"{gigabytes(missing):,.1f} GB: {', '.join(a.name for a in missing) or 'none'}"
        )
        states = [(a, _installed(a, roots[a.root])) for a in artifacts if a.package]
        if states:
            lacks = lacking(states, "")
            yield (
                f"\n{sum(found == 'ok' for _, found in states)} of {len(states)} files come with "
                f"installed packages{f'; the study {lacks}' if lacks else ''}"
            )


def _installed(artifact: Artifact, root: Path) -> str:
    """The state of a package's file by its size: a plan hashes nothing."""
    found = quick_state(artifact, root)
    if found in (artifact.sha256, "missing"):
        return "missing" if found == "missing" else "ok"
    return f"corrupt: {found}"


def _measure(device: str, dtype: torch.dtype) -> tuple[str, float]:
    """Operations per second of a large matrix product."""
    from faithdiff.study.provenance import hardware

    # One core, since a job of the workflow has one.
    torch.set_num_threads(1)
    side = SIDE if device == "cuda" else SIDE // 4
    matrix = torch.ones(side, side, device=device, dtype=dtype)
    rates = []
    for _ in range(5):
        begun = time.perf_counter()
        # Several at a time on a GPU: one alone is over before the clock is read again.
        for _ in range(products := 20 if device == "cuda" else 1):
            matrix @ matrix
        if device == "cuda":
            torch.cuda.synchronize()
        rates.append(products * 2 * side**3 / (time.perf_counter() - begun))
    machine = hardware()
    used = machine["gpus"][0] if device == "cuda" else f"one core of {machine['processor']}"
    # The fastest of five: what slows the others down is not this machine's rate.
    return f"{used}, measured", max(rates)


def write_plan(
    file: Path, tflops: float | None, utilisation: float, gpus: int | None = None
) -> str:
    """The plan of a profile as Markdown; counts only, starts nothing.

    Raises:
        UserError: The study needs more GPUs at once than `gpus`, or none at all.
    """
    study = Study.load(file)
    check_study(study)
    return "\n".join(Plan(study, tflops, utilisation, gpus).lines()) + "\n"
