"""The jobs of a study: what waits for what, on how many GPUs, and how long it takes on n of them.

The rules of ``workflow/`` decide what is run; this is their count for `faithdiff plan`, which
starts nothing, and a test holds the two against each other.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from faithdiff.config import Profile
from faithdiff.errors import UserError
from faithdiff.methods.method import ExternalMethod, Method, Study
from faithdiff.methods.registry import find_method

# Modules of methods whose code, weights or outputs come from elsewhere.
OUTSIDE = ("faithdiff.methods.external.", "baselines.official.", "baselines.realesrgan_published")


@dataclass(frozen=True)
class Job:
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
    if config is None or not config.implementation.startswith(OUTSIDE):
        return None
    return find_method(study, name)


def needs_preparation(study: Study, name: str) -> bool:
    """Whether its code or its environment must be there first; given outputs need neither."""
    if not isinstance(external_method(study, name), ExternalMethod):
        return False
    return not hasattr(study.profile.baselines[name], "outputs")


def jobs_of(study: Study) -> list[Job]:
    """Every job of a study from nothing, each after those that it waits for."""
    profile = study.profile
    gpu = int(profile.device == "cuda")
    jobs = [*_data(profile, gpu), *_trainings(profile, gpu), *_results(study, gpu)]
    known = {job.key for job in jobs}
    return [
        Job(j.rule, j.name, tuple(key for key in j.after if key in known), j.gpus, j.size)
        for j in jobs
    ]


def counts(jobs: Iterable[Job]) -> Counter[str]:
    """Jobs of each rule."""
    return Counter(job.rule for job in jobs)


def most_gpus(study: Study) -> int:
    """GPUs of the job that asks for most."""
    return max(job.gpus for job in jobs_of(study))


def _data(profile: Profile, gpu: int) -> Iterator[Job]:
    sets = dict.fromkeys(profile.data.test, False)
    if profile.learns:
        sets["train"] = profile.data.train.asks
    if profile.prior.source == "train":
        sets["prior"] = profile.prior.training.data.asks
    for name, asks in sets.items():
        size = "caption" if asks else None
        yield Job("prepare_dataset", name, gpus=gpu if asks else 0, size=size)
    for name in profile.data.test:
        rule = "take_real" if profile.data.is_real(name) else "degrade"
        yield Job(rule, name, (f"prepare_dataset {name}",))
    for name, level in profile.data.places:
        if profile.data.test[name].asks:
            after = (f"degrade {name}", f"take_real {name}")
            yield Job("caption", f"{name} {level}", after, gpu)
    if profile.learns:
        yield Job("degrade_train", after=("prepare_dataset train",))


def _trainings(profile: Profile, gpu: int) -> Iterator[Job]:
    if profile.prior.source == "train":
        yield Job("train_prior", after=("prepare_dataset prior",), gpus=gpu)
    denoisers = [n for n in profile.trained if n in profile.denoisers]
    if any(n not in profile.variants or not profile.variants[n].weights for n in denoisers):
        yield Job("cache_latents", after=("degrade_train", "train_prior"), gpus=gpu)
    both = gpu * profile.training.processes
    for seed in profile.seeds:
        for recipe in profile.pretrained:
            yield Job("pretrain_alignment", f"{recipe} {seed}", ("cache_latents",), both)
        for name, variant in profile.variants.items():
            if variant.weights:
                yield Job("train_variant", f"{name} {seed}", ("train_prior",))
                continue
            stage1 = (f"pretrain_alignment {variant.recipe} {seed}",) if variant.pretrain else ()
            yield Job("train_variant", f"{name} {seed}", ("cache_latents", *stage1), both)
        for name, baseline in profile.baselines.items():
            if baseline.trained:
                cache = ("cache_latents",) if baseline.denoises else ()
                after = ("degrade_train", "train_prior", *cache)
                yield Job("train_baseline", f"{name} {seed}", after, gpu)


def _results(study: Study, gpu: int) -> Iterator[Job]:
    profile = study.profile
    lq = [f"{rule} {name}" for rule in ("degrade", "take_real") for name in profile.data.test]
    captions = [f"caption {name} {level}" for name, level in profile.data.places]
    for name in profile.baselines:
        if needs_preparation(study, name):
            yield Job("prepare_baseline", name)
    for name in profile.methods:
        rule = "restore_denoiser" if name in profile.denoisers else "restore_baseline"
        for seed in profile.seeds:
            read = filter(None, (profile.checkpoint_of(name), profile.captioner_of(name)))
            trains = ("train_variant", "train_baseline")
            own = [f"{train} {weights} {seed}" for weights in read for train in trains]
            own.append(f"prepare_baseline {name}")
            restored, numbers = f"{rule} {name} {seed}", _shards(study, name)
            before, on = (*lq, *captions, *own), profile.gpus_to_restore(name)
            for number in numbers:
                yield Job(
                    "restore_shard",
                    f"{name} {seed} {number}",
                    before,
                    profile.gpus_to_restore(name),
                )
            shares = [f"restore_shard {name} {seed} {number}" for number in numbers]
            yield Job(rule, f"{name} {seed}", (*before, *shares), on)
            for number in numbers:
                yield Job("score_shard", f"{name} {seed} {number}", (restored,), gpu)
            shares = [f"score_shard {name} {seed} {number}" for number in numbers]
            yield Job("score", f"{name} {seed}", (restored, *shares), gpu)
    scored = [f"score {name} {seed}" for name in profile.methods for seed in profile.seeds]
    yield Job("collect", after=tuple(scored))
    for rule in ("tables", "figures", "claims"):
        yield Job(rule, after=("collect",))
    yield Job("manifest", after=("tables", "figures", "claims"))
    yield Job("report", after=("manifest",))
    yield Job("version", after=("report",))


def _shards(study: Study, name: str) -> range:
    """Numbers of the jobs that share the images of a method; none where one job does all."""
    several = study.profile.shards if study.profile.shards > 1 else 0
    return range(
        1, 1 + (0 if isinstance(external_method(study, name), ExternalMethod) else several)
    )


def wall_hours(jobs: list[Job], hours: Callable[[Job], float], gpus: int) -> float:
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
    followers: dict[str, list[Job]] = {job.key: [] for job in jobs}
    for job in jobs:
        for key in job.after:
            followers[key].append(job)
    ready = [job for job in jobs if not job.after]
    running: list[tuple[float, str, Job]] = []
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


def critical_path(jobs: list[Job], hours: Callable[[Job], float]) -> float:
    """Hours of the longest chain of jobs: no number of GPUs makes a study shorter."""
    return max(_chains(jobs, hours).values(), default=0.0)


def _chains(jobs: list[Job], hours: Callable[[Job], float]) -> dict[str, float]:
    """Hours from the start of each job to the end of all that waits for it."""
    alone = {job.key: hours(job) for job in jobs}
    way = dict(alone)
    for job in reversed(jobs):
        for key in job.after:
            way[key] = max(way[key], alone[key] + way[job.key])
    return way
