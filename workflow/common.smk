# What the rules share: the profile, its paths, and the digests that decide what is rerun.
import os
import re
import subprocess

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

from faithdiff.planning import workload
from faithdiff.planning.digests import Digests, describes
from faithdiff.planning.workload import lack_of_gpus, most_gpus, shard_numbers
from faithdiff.claims.schema import CLAIMS
from faithdiff.study.checkpoints import RUN
from faithdiff.config import REAL, digest
from faithdiff.data.datasets import source_hashes
from faithdiff.errors import FaithDiffError
from faithdiff.study import warm
from faithdiff.study.gpus import visible
from faithdiff.study.locks import forget_killed_runs
from faithdiff.data.outside import contents, files_in
from faithdiff.planning.overrides import asked_for
from faithdiff.planning.checks import check_study
from faithdiff.planning.missing import not_there
from faithdiff.study.rules import BY_NAME
from faithdiff.page.parts import PAGE, page_digest
from faithdiff.report.published import PAPER
from faithdiff.planning.resources import Sizes
from faithdiff.score.protocols import weights_state

# One thread for each process: two of them use two cores better than one that shares both.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

# Not the merged `config`: there the files of --configfile have lost their names, and equal keys.
try:
    request = asked_for(
        workflow.config_settings.config, workflow.configfiles, workflow.is_main_process
    )
    study = request.study
    digests = Digests(study)
    sizes = Sizes(request.base)
    # After `kill -9` of a run the same command goes on; jobs parse this file, too, and stay out of it.
    if workflow.is_main_process:
        alive = forget_killed_runs(Path(".snakemake"))
        check_study(request.named, Path(".snakemake", "checked.json"))
except FaithDiffError as error:
    raise WorkflowError(str(error))

# Of trainings, for queues that take machines back: --config time_limit=MINUTES. Not in the command of
# a rule: Snakemake would take a training with another limit for out of date.
if request.time_limit is not None:
    os.environ["FAITHDIFF_TIME_LIMIT"] = str(request.time_limit)
if request.note and workflow.is_main_process:
    logger.info(request.note)
# Said and not refused: a plan is asked for before anything is fetched, and a run may be of a part.
if workflow.is_main_process:
    for lack in not_there(request.study):
        logger.warning(f"MISSING: {request.named.file}: {lack}")


# Not in a dry run, which writes nothing.
onstart:
    # Before anything is written; what else may be missing needs the file of the study.
    if LOCAL_GPUS and (lack := lack_of_gpus(study, visible())):
        raise WorkflowError(f"{study.file}: device: cuda: {lack}")
    request.write()
    if ON_THIS_MACHINE and not GPU:
        warm.start()
    if (
        LOCAL_GPUS
        and subprocess.run(["faithdiff", "doctor", "--config", study.file]).returncode
    ):
        raise WorkflowError(
            f"{study.file}: this machine cannot run it, as said above; mend what is missing, or go on "
            "without sets and baselines: --config allow_missing=true"
        )
    # Here, so that a plan or a report does not wait for rich.
    from faithdiff.planning.display import show_progress

    show_progress(workflow, layout, on_gpus=bool(LOCAL_GPUS))


# The last lines of a run, so that nobody takes its tables for those of the whole study.
onsuccess:
    for line in request.absent.lines():
        logger.error(f"MISSING: {line}")


profile, layout = study.profile, study.layout
LOGS = Path("logs", profile.profile)
GPU = int(profile.device == "cuda")
# Jobs on this machine share its GPUs; a queue, whose jobs go to nodes, counts its own.
ON_THIS_MACHINE = workflow.global_resources["_nodes"].value is None
LOCAL_GPUS = GPU and ON_THIS_MACHINE
if LOCAL_GPUS and workflow.global_resources.get("gpu").value is None:
    workflow.register_resource("gpu", max(len(visible()), most_gpus(study)))
SPARE = 10  # minutes that a queue is asked for beyond a time limit
VERSIONED_CONFIG = [
    Path("dvc.yaml"),
    *sorted({Path("config", "mini.yaml"), request.base}),
    profile.data.levels_file,
    profile.score.protocols_file,
    CLAIMS,
]
DATASETS = profile.datasets
# Test sets whose captions a model writes.
CAPTIONED = [name for name, chosen in profile.data.test.items() if chosen.asks]


wildcard_constraints:
    dataset="[^/]+",
    level="[^/]+",
    method="[^/]+",
    recipe="[^/]+",
    seed=r"\d+",


def verb(arguments, measured=True):
    """Shell line of a rule: a command that a person can paste; its output is kept and shown.

    Where a rule has a benchmark file, its jobs measure themselves, too, beside their logs.
    """
    measure = f"{warm.LOG}={{log}} " if measured else ""
    return (
        f"set -o pipefail; {measure}faithdiff {arguments} --config {study.file} 2>&1 | tee {{log}}"
    )


def needs(what, job):
    """Memory or minutes that a job asks a queue for: its size, once more with each attempt."""

    def asked(wildcards, attempt):
        name = job(wildcards) if callable(job) else job
        size = sizes.of(BY_NAME[name].resources or name)
        amount = attempt * getattr(size, what)
        if what == "runtime" and request.time_limit is not None:
            return min(amount, int(request.time_limit) + SPARE)
        return amount

    return asked


def preparation(wildcards):
    """The rule whose size a dataset's preparation has: a captioner decides it where there is one."""
    return "caption" if describes(study, wildcards.dataset) else "prepare_dataset"


def code_of(name):
    """Digest of the code that a job of a rule runs, by the table in faithdiff/study/rules.py."""
    return lambda wildcards: digests.code(name, wildcards.get("method"))


def settings_of(name, **more):
    """Digest of the settings that a job of a rule reads, by the same table.

    `more` says what the job is about beside its wildcards.
    """
    return lambda wildcards: digests.settings(name, {**dict(wildcards.items()), **more})


def processes_of(variant):
    """Processes of a variant's training; weights are imported by one."""
    return 1 if profile.variants[variant].weights else profile.training.processes


def gpus_of(variant):
    """GPUs of a variant's training, one for each process; weights are imported without."""
    return 0 if profile.variants[variant].weights else GPU * profile.training.processes


def test_sets(pattern):
    """A path for every test set and level."""
    return [pattern(d, lv) for d, lv in profile.data.places]


def read_outside(*paths):
    """What files and folders outside of the study hold; a plan before they are fetched goes on."""
    found = contents(file for path in paths if path for file in files_in(path))
    return digest([[str(file), sha256] for file, sha256 in found.items()])


def sources_of(dataset):
    """What a dataset is made from: a person's folder, or files of packages; and the captioner."""
    asked = captioner_files(clean=False) if describes(study, dataset) else None
    return digest(source_hashes(DATASETS[dataset]), asked)


def captioner_files(clean):
    """The model that writes captions, and what cleans LQ images before it, if anything does."""
    return read_outside(profile.captioner.path, *([profile.captioner.clean] if clean else []))


def level_options(*chosen):
    """Options of a command that name these levels."""
    return " ".join(f"--level {name}" for name in chosen)


def one_of(names):
    """Constraint of a wildcard to some names; to nothing at all where there is none."""
    return "|".join(map(re.escape, names)) or "(?!)"


def prior_files():
    """What a job waits for when it reads the prior: nothing, if the prior ships."""
    return [layout.trained_prior / RUN] if profile.prior.source == "train" else []


def validation_images():
    """Test images that a training draws on its way: none, unless the profile asks for them."""
    if not profile.training.validation_every:
        return []
    dataset, level = next(iter(profile.data.test)), profile.data.levels[-1]
    return [layout.dataset(dataset) / "index.csv", layout.lq(dataset, level) / "degradation.jsonl"]


def restoring(w):
    """What a restoration reads, whoever does it: all images of a method or one shard of them."""
    return {
        "data": [layout.dataset(d) / "index.csv" for d in profile.data.test],
        "lq": test_sets(lambda d, lv: layout.lq(d, lv) / "degradation.jsonl"),
        "captions": [layout.captions(d, lv) for d, lv in profile.data.places if d in CAPTIONED],
        "checkpoint": checkpoint_read(w.method, w.seed),
        "captioner": captioner_read(w.method, w.seed),
        "prior": prior_files() if w.method in profile.on_prior else [],
        "prepared": layout.prepared(w.method) if needs_preparation(w.method) else [],
    }


def checkpoint_read(method, seed):
    """The checkpoint that a method restores with, if it has one.

    By its record, which has the hash of each file: a folder has no checksum, and after a copy that
    lost its times Snakemake would take it for new.
    """
    name = profile.checkpoint_of(method)
    return layout.checkpoint(name, seed) / RUN if name in profile.trained else []


def captioner_read(method, seed):
    """The checkpoint of the method whose captions another one restores by, if they are so."""
    name = profile.captioner_of(method)
    return layout.checkpoint(name, seed) / RUN if name else []


def shards(job):
    """What a job over all images of a method waits for, where others make its shards first."""

    def records(w):
        numbers = shard_numbers(study, w.method)
        return [layout.shard(job, w.method, w.seed, number, profile.shards) for number in numbers]

    return records


def needs_preparation(method):
    """Whether its code or its environment must be there first; given outputs need neither."""
    return workload.needs_preparation(study, method)


def outside_state(method):
    """What decides the results of such a method: outputs, command, code, weights."""
    found = workload.external_method(study, method)
    return None if found is None else digest(found.state(study))
