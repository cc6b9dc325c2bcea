"""The steps of a study."""

from __future__ import annotations

from typing import Annotated

import typer

from faithdiff.cli.app import (
    MINI,
    Config,
    Method,
    Seed,
    ShardOption,
    TimeLimit,
    app,
    one_of,
    use_gpus,
)
from faithdiff.errors import UserError
from faithdiff.methods.method import Study


@app.command(epilog="Example: faithdiff plan --config config/paper.yaml")
def plan(
    config: Config = MINI,
    tflops: Annotated[
        float | None, typer.Option(min=0.001, help="TFLOP/s of one device; default: measured.")
    ] = None,
    utilisation: Annotated[
        float, typer.Option(min=0.01, max=1, help="Fraction of it that a training reaches.")
    ] = 0.4,
    gpus: Annotated[
        int | None, typer.Option(min=1, help="GPUs of a cluster: adds hours and disk on it.")
    ] = None,
) -> None:
    """Print what a profile will do before it starts: images, jobs, memory, disk, hours."""
    from faithdiff.planning.plan import write_plan

    print(write_plan(config, tflops, utilisation, gpus), end="")


@app.command(epilog="Example: faithdiff doctor --config config/released.yaml")
def doctor(config: Config = MINI) -> None:
    """Say whether this machine can run a profile: what it has, what is missing, the way out.

    Exit code 0: a run can start, 2: it would stop at what is listed.
    """
    from faithdiff.planning.doctor import findings, screen
    from faithdiff.planning.machine import Machine

    study = Study.load(config)
    found = findings(study, Machine.look())
    print(screen(study, found), end="")
    raise typer.Exit(2 if any(each.problems for each in found) else 0)


@app.command(epilog="Example: faithdiff prepare --dataset Photos")
def prepare(
    dataset: Annotated[str, typer.Option(help="A test set of the profile, `train` or `prior`.")],
    config: Config = MINI,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
) -> None:
    """Write the HQ images of a dataset and their index."""
    from faithdiff.data.datasets import prepare_dataset
    from faithdiff.models import captioning

    study = Study.load(config)
    sets = study.profile.datasets
    chosen = sets[one_of(dataset, list(sets), "--dataset")]
    # Test images are captioned by what a user would have: the LQ image (faithdiff caption).
    ask = chosen.asks and dataset not in study.profile.data.test
    use_gpus(study, study.profile.captioner.processes if ask else 0)
    captioner = captioning.captioner(study.profile, study.layout) if ask else None
    folder = study.layout.dataset(dataset)
    multiple = study.profile.data.multiple_of(dataset)
    prepare_dataset(
        chosen,
        dataset,
        study.profile.seed,
        folder,
        workers,
        captioner,
        multiple,
        study.profile.least_side(dataset),
        equal=dataset not in study.profile.data.test,
    )


@app.command(epilog="Example: faithdiff degrade --dataset Photos --level II --level III")
def degrade(
    dataset: Annotated[str, typer.Option(help="A prepared dataset.")],
    level: Annotated[list[str], typer.Option(help="A level of config/levels.yaml; repeatable.")],
    config: Config = MINI,
) -> None:
    """Make the LQ images of a dataset at each level, and the log of every parameter drawn.

    Sets of real-world images have one level, `real`: their images are logged as they are.
    """
    from faithdiff.degrade.dataset import degrade_dataset, log_real
    from faithdiff.degrade.levels import load_choices

    study = Study.load(config)
    one_of(dataset, list(study.profile.datasets), "--dataset")
    data, folder = study.profile.data, study.layout.dataset(dataset)
    if data.is_real(dataset):
        for name in [one_of(name, data.levels_of(dataset), "--level") for name in level]:
            log_real(folder / "index.csv", dataset, study.layout.lq(dataset, name))
        return
    levels = load_choices(data.levels_file)
    for name in [one_of(name, list(levels), "--level") for name in level]:
        degrade_dataset(
            folder / "hq",
            folder / "index.csv",
            name,
            levels[name],
            data.scale_of(dataset),
            study.profile.seed,
            dataset,
            study.layout.lq(dataset, name),
        )


@app.command(
    epilog="Example: faithdiff caption --dataset RealDeg --level real --config config/released.yaml"
)
def caption(
    dataset: Annotated[str, typer.Option(help="A test set with `captions: llava`.")],
    level: Annotated[list[str], typer.Option(help="A level of the set; repeatable.")],
    config: Config = MINI,
) -> None:
    """Caption the LQ images of a test set with a model; each image is captioned once."""
    from faithdiff.data.captions import write_captions
    from faithdiff.models.captioning import caption_level

    study = Study.load(config)
    data = study.profile.data
    asked = [name for name, chosen in data.test.items() if chosen.asks]
    use_gpus(study, study.profile.captioner.processes)
    if not asked:
        raise UserError(f"{config}: no test set has `captions: llava`")
    known = data.levels_of(one_of(dataset, asked, "--dataset"))
    for name in [one_of(name, known, "--level") for name in level]:
        captions = caption_level(study.profile, study.layout, dataset, name)
        write_captions(captions, study.layout.captions(dataset, name))


@app.command(epilog="Example: faithdiff train-prior --config config/mini.yaml")
def train_prior(config: Config = MINI, time_limit: TimeLimit = None) -> None:
    """Train the small prior from its prepared dataset (`faithdiff prepare --dataset prior`)."""
    from faithdiff.train import prior
    from faithdiff.train.run import run_job

    study = Study.load(config)
    use_gpus(study)
    run_job(
        study,
        "prior",
        0,
        study.layout.trained_prior,
        lambda out, state: prior.train_prior_job(study, out, state),
        time_limit,
    )


@app.command(epilog="Example: faithdiff cache")
def cache(config: Config = MINI) -> None:
    """Encode the training set once: HQ latents, text embeddings, LQ pixels."""
    from faithdiff.models.prior import load_prior
    from faithdiff.study.provenance import folder_digest
    from faithdiff.train.encode import write_cache
    from faithdiff.train.pairs import find_pairs

    study = Study.load(config)
    pairs = find_pairs(study.layout, study.profile.data.train_level)
    use_gpus(study)
    prior = load_prior(study.prior_folder).to(study.profile.device)
    write_cache(
        pairs,
        prior,
        study.layout.train_cache,
        folder_digest(study.prior_folder),
        study.profile.training.flip,
        study.profile.training.precision,
    )


@app.command(epilog="Example: faithdiff pretrain --recipe released --seed 0")
def pretrain(
    recipe: Annotated[str, typer.Option(help="A key of `recipes` in the profile.")],
    seed: Seed = 0,
    config: Config = MINI,
    time_limit: TimeLimit = None,
) -> None:
    """Stage 1: train the alignment of a recipe on a frozen encoder and a frozen prior."""
    from faithdiff.train import launch, variants
    from faithdiff.train.run import run_job

    study = Study.load(config)
    folder = study.layout.stage1(one_of(recipe, list(study.profile.recipes), "--recipe"), seed)
    name = f"stage1-{recipe}"
    use_gpus(study, study.profile.training.processes)
    if launch.needed(study):
        verb = ["pretrain", "--recipe", recipe, "--seed", str(seed)]
        launch.launch(study, name, seed, verb, time_limit)
        return
    run_job(
        study,
        name,
        seed,
        folder,
        lambda out, state: variants.pretrain(study, recipe, seed, out, state),
        time_limit,
    )


@app.command(epilog="Example: faithdiff train --method frozen --seed 0")
def train(
    method: Method, seed: Seed = 0, config: Config = MINI, time_limit: TimeLimit = None
) -> None:
    """Train a FaithDiff variant (stage 2) or a baseline; resumes after a kill or a time limit."""
    from faithdiff.methods.registry import find_method
    from faithdiff.train import launch
    from faithdiff.train.run import run_job

    study = Study.load(config)
    found = find_method(study, one_of(method, study.profile.trained, "--method"))
    variant = study.profile.variants.get(method)
    if variant is None or variant.weights is None:
        use_gpus(study, 1 if variant is None else study.profile.training.processes)
    if variant is not None and variant.weights is None and launch.needed(study):
        verb = ["train", "--method", method, "--seed", str(seed)]
        launch.launch(study, method, seed, verb, time_limit)
        return
    folder = study.layout.checkpoint(method, seed)
    run_job(
        study,
        method,
        seed,
        folder,
        lambda out, state: found.train(study, seed, out, state),
        time_limit,
    )


@app.command(epilog="Example: faithdiff restore-sets --method faithdiff --seed 0")
def restore_sets(
    method: Method, seed: Seed = 0, config: Config = MINI, shard: ShardOption = None
) -> None:
    """Restore every test set and level with a method; finished images are kept.

    For a denoiser this also measures the held-out loss, which needs the same model and images.
    """
    from faithdiff.methods.registry import find_method
    from faithdiff.restore.run import restore_job, restore_shard
    from faithdiff.restore.shards import Shard

    study = Study.load(config)
    found = find_method(study, method)
    use_gpus(study, study.profile.gpus_to_restore(method))
    if shard is not None:
        restore_shard(study, found, method, seed, Shard.parse(shard))
        return
    restore_job(study, found, method, seed)
    if method in study.profile.compared:
        heldout(method, seed, config)


@app.command(epilog="Example: faithdiff heldout --method frozen --seed 0")
def heldout(method: Method, seed: Seed = 0, config: Config = MINI) -> None:
    """Measure the held-out denoising loss of a method on the study's prior."""
    from faithdiff.methods.registry import find_method
    from faithdiff.score.heldout import heldout_job

    study = Study.load(config)
    found = find_method(study, one_of(method, study.profile.denoisers, "--method"))
    use_gpus(study)
    heldout_job(study, found, method, seed)


@app.command(epilog="Example: faithdiff score --method frozen --seed 0")
def score(method: Method, seed: Seed = 0, config: Config = MINI, shard: ShardOption = None) -> None:
    """Score the restored images of a method under every protocol of the profile."""
    from faithdiff.restore.shards import Shard
    from faithdiff.score.run import score_job, score_shard

    study = Study.load(config)
    known = one_of(method, list(study.profile.methods), "--method")
    use_gpus(study)
    if shard is not None:
        score_shard(study.profile, study.layout, known, seed, Shard.parse(shard))
        return
    score_job(study.profile, study.layout, known, seed)


@app.command(epilog="Example: faithdiff collect")
def collect(config: Config = MINI) -> None:
    """Collect all scores of the study into results/<profile>/scores.csv."""
    from faithdiff.score.collect import collect as run

    study = Study.load(config)
    run(study.profile, study.layout)


@app.command(epilog="Example: faithdiff bench --config config/mini.yaml")
def bench(config: Config = MINI) -> None:
    """Time degradation, training, restoration, scoring and start-up on this machine."""
    from faithdiff.planning.bench import run

    run(Study.load(config))
