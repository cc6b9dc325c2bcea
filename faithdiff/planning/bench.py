"""How fast each stage of the study is on this machine, and what a process costs to start.

One process and one thread, stage after stage through the code that the study itself runs, on a few
small images of the profile's real sizes: rates are comparable with one another, and
``cores x rate`` is what the study can hope for. Nothing of the study is touched.
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeGuard

import pandas as pd
import torch

from faithdiff.config import AnyBaseline, Baseline, SceneSet
from faithdiff.data.artifacts import ARTIFACTS_FILE, load_artifacts
from faithdiff.data.datasets import prepare_dataset, read_index
from faithdiff.data.images import read_image, write_png
from faithdiff.degrade.dataset import degrade_dataset
from faithdiff.degrade.levels import load_choices
from faithdiff.methods.method import Restorer, Study
from faithdiff.methods.registry import find_method
from faithdiff.models.prior import load_prior
from faithdiff.planning import bench_states
from faithdiff.restore.arrays import to_image, to_tensor
from faithdiff.score.metrics import prepare_all
from faithdiff.score.protocols import definitions_of
from faithdiff.score.scorer import Pair, Scorer
from faithdiff.study.layout import Layout
from faithdiff.study.provenance import hardware
from faithdiff.train.encode import write_cache
from faithdiff.train.pairs import find_pairs
from faithdiff.train.variants import pretrain

SECONDS = 2.0  # at least, for each rate that is timed by repetition
UPDATES, WARM = 8, 2  # timed by the training log, without the first ones
IMAGES = 4
TEST = "bench-test"
# What a job imports before it works; measured in processes of their own.
STARTUP = {
    "faithdiff --help": "faithdiff.cli",
    "prepare": "faithdiff.data.datasets",
    "degrade": "faithdiff.degrade.dataset",
    "train": "faithdiff.train.run, faithdiff.train.variants",
    "restore-sets": "faithdiff.restore.run, faithdiff.restore.sampler",
    "score": "faithdiff.score.run",
    "tables": "faithdiff.report.tables",
    "figures": "faithdiff.report.figures",
}

Row = tuple[str, str, float, str]  # stage, what, rate, unit


@dataclass(frozen=True)
class Elsewhere(Layout):
    """A profile's layout with its datasets in another folder."""

    root: Path

    def dataset(self, dataset: str) -> Path:
        return self.root / dataset


def run(study: Study) -> None:
    """Measure and print a Markdown table; takes a few minutes.

    Raises:
        CheckpointError: There is no prior to start from.
    """
    torch.set_num_threads(1)
    with TemporaryDirectory(prefix="faithdiff-bench-") as folder:
        scratch = _shortened(study, Path(folder))
        rows: list[Row] = []
        for stage in (_data, _training, _states, _restoration, _scoring, _startup):
            print(f"bench: {stage.__name__.strip('_')} ...", file=sys.stderr, flush=True)
            rows += stage(scratch, Path(folder))
    machine = hardware()
    used = machine["gpus"][0] if study.profile.device == "cuda" else machine["processor"]
    print(f"\n{study.profile.profile} on {used}, one thread, torch {machine['torch']}\n")
    print("| stage | what | rate | unit |\n|---|---|---:|---|")
    for stage_name, what, rate, unit in rows:
        print(f"| {stage_name} | {what} | {rate:.3g} | {unit} |")


def _shortened(study: Study, folder: Path) -> Study:
    """The study with a handful of updates for each training, and data of its own."""
    profile = study.profile
    training = {
        "stage1_steps": UPDATES,
        "stage2_steps": UPDATES,
        "log_every": 1,
        "checkpoint_every": UPDATES + 1,
    }
    alone = {n: v.model_copy(update={"pretrain": False}) for n, v in profile.variants.items()}
    short = profile.model_copy(
        update={
            "training": profile.training.model_copy(update=training),
            "variants": alone,
            "baselines": {n: _few_updates(b) for n, b in profile.baselines.items() if _inside(b)},
        }
    )
    return Study(short, study.file, Elsewhere(profile.profile, folder))


def _inside(baseline: AnyBaseline) -> TypeGuard[Baseline]:
    """Whether a method runs in this process, where it can be timed."""
    module = baseline.implementation.partition(":")[0]
    return isinstance(baseline, Baseline) and not module.startswith("baselines.official.")


def _few_updates(baseline: Baseline) -> Baseline:
    # By convention a baseline's settings name their numbers of updates `..._steps`.
    steps = {key: UPDATES for key in baseline.settings if key.endswith("steps")}
    return baseline.model_copy(update={"settings": baseline.settings | steps})


def _data(study: Study, folder: Path) -> Iterator[Row]:
    """Scenes and degradation at training and test size; leaves both datasets for later stages."""
    profile, layout = study.profile, study.layout
    test = next(iter(profile.data.test.values()))
    sizes = {"train": (profile.data.train, [profile.data.train_level])}
    sizes[TEST] = (test, profile.data.levels)
    levels = load_choices(profile.data.levels_file)
    for dataset, (config, names) in sizes.items():
        size = getattr(config, "size", profile.training.crop)
        scenes = SceneSet(source="scenes", count=IMAGES, size=size)
        home = layout.dataset(dataset)
        rate = _rate(partial(prepare_dataset, scenes, dataset, profile.seed, home))
        yield "prepare", f"scene of {size} px", IMAGES * rate, "images/s"
        for level in names:

            def degrade(name: str = level, dataset: str = dataset, home: Path = home) -> None:
                target = layout.lq(dataset, name)
                where = (home / "hq", home / "index.csv", name, levels[name])
                degrade_dataset(
                    *where, profile.data.scale, profile.seed, dataset, target, progress=False
                )

            yield "degrade", f"level {level}, {size} px", IMAGES * _rate(degrade), "images/s"


def _training(study: Study, folder: Path) -> Iterator[Row]:
    """Every stage-1 recipe and every trained method; leaves their checkpoints."""
    pairs = find_pairs(study.layout, study.profile.data.train_level)
    prior = load_prior(study.prior_folder)
    training, file = study.profile.training, study.layout.train_cache
    encode = _rate(
        lambda: write_cache(pairs, prior, file, flip=training.flip, precision=training.precision)
    )
    yield "cache", "encode latents", IMAGES * encode, "images/s"
    recipes = sorted({variant.recipe for variant in study.profile.variants.values()})
    for recipe in recipes:
        target, state = folder / f"stage1-{recipe}", folder / "state"
        with _quiet():
            pretrain(study, recipe, 0, target, state)
        yield from _updates("train", target)
    for name in study.profile.trained:
        with _quiet():
            find_method(study, name).train(study, 0, folder / name, folder / "state" / name)
        yield from _updates("train", folder / name)


def _states(study: Study, folder: Path) -> Iterator[Row]:
    """Saving a training of two processes, whatever the profile."""
    for what, rate, unit in bench_states.rates():
        yield "save", what, rate, unit


def _updates(stage: str, folder: Path) -> Iterator[Row]:
    """Rates from ``training.csv``, one for each phase."""
    log = pd.read_csv(folder / "training.csv")
    for phase, rows in log.groupby("phase", sort=False):
        seconds = rows["seconds"].iloc[-1] - rows["seconds"].iloc[WARM - 1]
        yield stage, str(phase), (len(rows) - WARM) / seconds, "updates/s"


def _restoration(study: Study, folder: Path) -> Iterator[Row]:
    """Every method on test images of one level; leaves the images of the first method."""
    level = study.profile.data.levels[0]
    index = read_index(study.layout.dataset(TEST))
    files = {name: study.layout.lq(TEST, level) / f"{name}.png" for name in index["name"]}
    for name in study.profile.methods:
        restorer = find_method(study, name).load(study, folder / name)
        images = {key: to_tensor(read_image(file)) for key, file in files.items()}
        size = min(restorer.batch_size, IMAGES)
        batch, captions = torch.cat(list(images.values())[:size]), list(index["caption"])[:size]
        rate = size * _rate(partial(_restore, restorer, batch, captions))
        yield "restore", f"{name}, batch {size}", rate, "images/s"
        if name == next(iter(study.profile.methods)):
            for key, image in images.items():
                restored = restorer.restore(image, [""], [0])[0]
                write_png(to_image(restored), folder / "restored" / f"{key}.png")


def _restore(restorer: Restorer, batch: torch.Tensor, captions: list[str]) -> None:
    restorer.restore(batch, captions, list(range(len(captions)))).cpu()


def _scoring(study: Study, folder: Path) -> Iterator[Row]:
    """The metrics whose weights are here or that need none, all protocols together."""
    score = study.profile.score
    known = load_artifacts(ARTIFACTS_FILE)
    prepared = prepare_all(definitions_of(study.profile), score.weights, known)
    metrics = {key: metric for key, metric in prepared.items() if metric.unavailable is None}
    hq = study.layout.dataset(TEST) / "hq"
    files = [(file, hq / file.name) for file in sorted((folder / "restored").glob("*.png"))]
    scorer = Scorer(metrics, score.weights, study.profile.device)
    scorer.score(Pair(*files[0]))  # loads the metrics, and keeps this pair's values
    begun = time.perf_counter()
    for file in files[1:]:
        scorer.score(Pair(*file))
    rate = (len(files) - 1) / (time.perf_counter() - begun)
    yield "score", f"{len(metrics)} values", rate, "images/s"


def _startup(study: Study, folder: Path) -> Iterator[Row]:
    for verb, modules in STARTUP.items():
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", f"import {modules}"], check=True)
        yield "start-up", verb, time.perf_counter() - begun, "s/job"


def _rate(work: Callable[[], object]) -> float:
    """Calls per second, after one that warms up."""
    with _quiet():
        work()
        begun, calls = time.perf_counter(), 0
        while (seconds := time.perf_counter() - begun) < SECONDS:
            work()
            calls += 1
    return calls / seconds


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep announcements and progress bars out of the table."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
