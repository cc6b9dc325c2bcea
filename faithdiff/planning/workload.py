"""The jobs of a study: what waits for what, on how many GPUs, and how long it takes on n of them.

Which rule waits for which is in the table of rules; which jobs of it, each with its wildcards, is
worked out here for `faithdiff plan`, which starts nothing. A test compares the result with
Snakemake's own graph of jobs, for which this would have to start Snakemake and read every file.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from faithdiff.config import Profile
from faithdiff.errors import UserError
from faithdiff.methods.method import Method, Study
from faithdiff.methods.registry import find_method
from faithdiff.planning.digests import describes
from faithdiff.study.gpus import shown
from faithdiff.study.rules import BY_NAME

# Modules of methods whose code, weights or outputs come from elsewhere: a plan asks these what they
# need, and whether they take whole sets.
OUTSIDE = ("faithdiff.methods.external.", "baselines.official.", "baselines.realesrgan_published")


@dataclass(frozen=True)
class PlannedJob:
    """One job of the workflow, named by its rule and its wildcards."""

    rule: str
    name: str = ""
    after: tuple[str, ...] = ()  # keys of the jobs that it waits for
    gpus: int = 0
    size: str | None = None  # of another rule, where it asks the queue for that

    @property
    def key(self) -> str:
        """Rule and wildcards."""
        return f"{self.rule} {self.name}".rstrip()


def external_method(study: Study, name: str) -> Method | None:
    """The method, if its code, weights or outputs come from elsewhere; cheap to look at."""
    config = study.profile.baselines.get(name)
    # By the name of the module, before anything is imported: a plan asks this of every method, and
    # most of them import torch.
    if config is None or not config.implementation.startswith(OUTSIDE):
        return None
    return find_method(study, name)


def needs_preparation(study: Study, name: str) -> bool:
    """Whether its code or its environment must be there first; given outputs need neither."""
    method = external_method(study, name)
    return method is not None and method.prepared


def shard_numbers(study: Study, name: str) -> range:
    """Numbers of the jobs that share the images of a method; none where one job does all."""
    method = external_method(study, name)
    whole = method is not None and method.whole_sets
    several = study.profile.shards if study.profile.shards > 1 and not whole else 0
    return range(1, several + 1)


@dataclass(frozen=True)
class _Step:
    """A job before its place in the graph.

    Attributes:
        wildcards: What it is about; what follows it takes it by these.
        takes: Which jobs of the rules before it concern it, by their wildcards, where that is
            not said by its own: a wildcard that is neither here nor there takes all.
        skips: Rules before it whose outputs this job does not read.
    """

    rule: str
    wildcards: Mapping[str, str] = field(default_factory=dict)
    takes: Mapping[str, Iterable[str]] = field(default_factory=dict)
    skips: tuple[str, ...] = ()
    gpus: int = 0
    size: str | None = None

    @property
    def name(self) -> str:
        return " ".join(self.wildcards.values())

    def concerns(self, earlier: _Step) -> bool:
        """Whether it waits for a job of a rule before it."""
        taken = {key: (value,) for key, value in self.wildcards.items()} | dict(self.takes)
        return all(value in taken.get(key, (value,)) for key, value in earlier.wildcards.items())


def jobs_of(study: Study) -> list[PlannedJob]:
    """Every job of a study from nothing, each after those that it waits for."""
    gpu = int(study.profile.device == "cuda")
    placed: dict[str, list[tuple[_Step, PlannedJob]]] = defaultdict(list)
    jobs: list[PlannedJob] = []
    # Steps come after those that they read of, so that one pass finds all that a job waits for.
    for step in (*_data(study, gpu), *_trainings(study.profile, gpu), *_results(study, gpu)):
        rule = BY_NAME[step.rule]
        before = [each for name in rule.after if name not in step.skips for each in placed[name]]
        after = tuple(job.key for earlier, job in before if step.concerns(earlier))
        job = PlannedJob(
            step.rule, step.name, after, step.gpus, step.size or rule.resources or None
        )
        placed[step.rule].append((step, job))
        jobs.append(job)
    return jobs


def counts(jobs: Iterable[PlannedJob]) -> Counter[str]:
    """Jobs of each rule."""
    return Counter(job.rule for job in jobs)


def most_gpus(study: Study) -> int:
    """GPUs of the job that asks for most."""
    return max(job.gpus for job in jobs_of(study))


def lack_of_gpus(study: Study, found: list[str]) -> str:
    """Say that a job needs more GPUs than these, and the way out; empty where they are enough."""
    largest = max(jobs_of(study), key=lambda job: job.gpus)
    if largest.gpus <= len(found):
        return ""
    captions = largest.rule in ("prepare_dataset", "caption")
    setting = f"{'captioner' if captions else 'training'}.processes"
    if largest.gpus == 1:
        return f"a job needs 1 GPU, and {shown(found)}; set device: cpu"
    return (
        f"a job needs {largest.gpus} GPUs ({setting}), and {shown(found)}; set fewer processes, or "
        "device: cpu"
    )


def _data(study: Study, gpu: int) -> Iterator[_Step]:
    profile = study.profile
    for name in profile.used_datasets:
        # A captioner is what such a job needs memory and hours for.
        asks = describes(study, name)
        size = "caption" if asks else None
        yield _Step(
            "prepare_dataset",
            {"dataset": name},
            gpus=gpu * profile.captioner.processes if asks else 0,
            size=size,
        )
    for name in profile.data.test:
        yield _Step("take_real" if profile.data.is_real(name) else "degrade", {"dataset": name})
    for name, level in profile.data.places:
        if profile.data.test[name].asks:
            about = {"dataset": name, "level": level}
            yield _Step("caption", about, gpus=gpu * profile.captioner.processes)
    if profile.learns:
        yield _Step("degrade_train", takes={"dataset": ["train"]})


def _trainings(profile: Profile, gpu: int) -> Iterator[_Step]:
    if profile.prior.source == "train":
        yield _Step("train_prior", takes={"dataset": ["prior"]}, gpus=gpu)
    if profile.learns:
        yield _Step("cache_latents", takes={"dataset": ["train"]}, gpus=gpu)
    # Pictures that are drawn on the way are of the first test set.
    pictures = {"dataset": [next(iter(profile.data.test))]}
    blind = () if profile.training.validation_every else ("prepare_dataset", "degrade")
    both = gpu * profile.training.processes
    for seed in map(str, profile.seeds):
        for recipe in profile.pretrained:
            about = {"recipe": recipe, "seed": seed}
            yield _Step("pretrain_alignment", about, pictures, blind, both)
        # Called `checkpoint` and not `method`: a restoration takes it by the checkpoints it reads.
        for name, variant in profile.variants.items():
            about = {"checkpoint": name, "seed": seed}
            skips = (*blind, *(() if variant.pretrain else ("pretrain_alignment",)))
            if variant.weights:
                skips = (*skips, "cache_latents", "pretrain_alignment")
            takes = {**pictures, "recipe": [variant.recipe]}
            yield _Step("train_variant", about, takes, skips, 0 if variant.weights else both)
        for name, baseline in profile.baselines.items():
            if baseline.trained:
                about = {"checkpoint": name, "seed": seed}
                yield _Step("train_baseline", about, gpus=gpu)


def _results(study: Study, gpu: int) -> Iterator[_Step]:
    profile = study.profile
    tested = {"dataset": [*profile.data.test]}
    for name in profile.baselines:
        if needs_preparation(study, name):
            yield _Step("prepare_baseline", {"method": name})
    for name in profile.methods:
        rule = "restore_denoiser" if name in profile.compared else "restore_baseline"
        read = [*filter(None, (profile.checkpoint_of(name), profile.captioner_of(name)))]
        takes = {**tested, "checkpoint": read}
        skips = () if name in profile.on_prior else ("train_prior",)
        gpus, numbers = profile.gpus_to_restore(name), shard_numbers(study, name)
        for seed in map(str, profile.seeds):
            about = {"method": name, "seed": seed}
            for number in map(str, numbers):
                yield _Step("restore_shard", {**about, "shard": number}, takes, skips, gpus)
            yield _Step(rule, about, takes, skips, gpus)
            for number in map(str, numbers):
                yield _Step("score_shard", {**about, "shard": number}, tested, gpus=gpu)
            yield _Step("score", about, tested, gpus=gpu)
    for rule in ("collect", "tables", "figures", "claims", "manifest", "report", "version"):
        yield _Step(rule)


def wall_hours(jobs: list[PlannedJob], hours: Callable[[PlannedJob], float], gpus: int) -> float:
    """Hours until the last job ends on a cluster with this many GPUs and enough cores.

    List scheduling: whenever GPUs are free, of the jobs that fit, the one with the longest chain
    behind it starts. It is what this order takes; a better one may exist, none below
    `critical_path`.

    Args:
        jobs: Each after those that it waits for.

    Raises:
        UserError: A job needs more GPUs than there are.
    """
    for job in jobs:
        if job.gpus > gpus:
            raise UserError(
                f"--gpus {gpus}: {job.key} needs {job.gpus} GPUs; "
                "give more, or lower training.processes"
            )
    way = _chains(jobs, hours)
    waiting = {job.key: len(job.after) for job in jobs}
    followers: dict[str, list[PlannedJob]] = {job.key: [] for job in jobs}
    for job in jobs:
        for key in job.after:
            followers[key].append(job)
    # Jobs without a GPU run as soon as they can: cores are taken for enough.
    ready = [job for job in jobs if not job.after]
    running: list[tuple[float, str, PlannedJob]] = []
    now, free = 0.0, gpus
    while ready or running:
        for job in sorted(ready, key=lambda job: -way[job.key]):
            if job.gpus <= free:
                ready.remove(job)
                free -= job.gpus
                heapq.heappush(running, (now + hours(job), job.key, job))
        now, _, ended = heapq.heappop(running)
        free += ended.gpus
        for job in followers[ended.key]:
            waiting[job.key] -= 1
            if waiting[job.key] == 0:
                ready.append(job)
    return now


def critical_path(jobs: list[PlannedJob], hours: Callable[[PlannedJob], float]) -> float:
    """Hours of the longest chain of jobs: no number of GPUs makes a study shorter."""
    return max(_chains(jobs, hours).values(), default=0.0)


def _chains(jobs: list[PlannedJob], hours: Callable[[PlannedJob], float]) -> dict[str, float]:
    """Hours from the start of each job to the end of all that waits for it."""
    alone = {job.key: hours(job) for job in jobs}
    way = dict(alone)
    # Backwards, each job is complete before those that it waits for look at it.
    for job in reversed(jobs):
        for key in job.after:
            way[key] = max(way[key], alone[key] + way[job.key])
    return way
